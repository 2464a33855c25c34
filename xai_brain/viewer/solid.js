// The 3-D view: one ray per pixel. The corner between the viewer and the crosshair is cut away, so that the three cut faces are the slices
// and their common corner is the crosshair. Voxels have the colours of the slices; only the outer surface is shaded.
const SOLID = { name: "3-D" }, LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]];
// SURFACE is the grey of the outer surface, whose voxels are dark because parts of them lie outside; DARKEST is its share where it faces away
const SOLID_MARGIN = 1.1, SURFACE = 170, DARKEST = 0.25;
function cameraOf([azimuth, elevation]) { // unit vectors in mm; azimuth 0 looks from behind, so that left is left
  const [sa, ca, se, ce] = [azimuth, elevation].flatMap((angle) => [Math.sin((angle * Math.PI) / 180), Math.cos((angle * Math.PI) / 180)]);
  return { right: [ca, sa, 0], up: [-sa * se, ca * se, ce], out: [sa * ce, -ca * ce, se] };
}
const project = ({ right, up }, mm) => [right, up].map((way) => total(way.map((x, k) => x * mm[k])));
function reachOf({ shape, box, spacing, volumes: [back] }) { // mm from the middle of the box to the farthest voxel of the anatomy
  const step = stepsOf(shape), middle = box.map(([low, high]) => (low + high - 1) / 2);
  let far = 0;
  for (let z = box[2][0]; z < box[2][1]; z++)
    for (let y = box[1][0]; y < box[1][1]; y++) {
      const line = y * step[1] + z * step[2];
      let [first, last] = box[0];
      while (first < last && back[line + first] === 0) first++;
      while (last > first && back[line + last - 1] === 0) last--;
      if (first === last) continue;
      const x = Math.max(middle[0] - first, last - 1 - middle[0]) * spacing[0];
      far = Math.max(far, x ** 2 + ((y - middle[1]) * spacing[1]) ** 2 + ((z - middle[2]) * spacing[2]) ** 2);
    }
  return far ? Math.sqrt(far) + Math.max(...spacing) : Math.max(...box.map(([low, high], k) => ((high - low) * spacing[k]) / 2));
}
function fogOf({ shape, volumes: [back] }, radius = 2) { // share of anatomy around each voxel; its gradient is the normal of the surface
  let from = Float32Array.from(back, (grey) => (grey > 0 ? 1 : 0)), to = new Float32Array(back.length);
  const step = stepsOf(shape);
  for (let axis = 0; axis < 3; axis++) {
    const n = shape[axis], [a, b] = [0, 1, 2].filter((k) => k !== axis);
    for (let j = 0; j < shape[b]; j++)
      for (let i = 0; i < shape[a]; i++) {
        const start = i * step[a] + j * step[b];
        let sum = 0;
        for (let k = -radius; k < n; k++) {
          if (k + radius < n) sum += from[start + (k + radius) * step[axis]];
          if (k > radius) sum -= from[start + (k - radius - 1) * step[axis]];
          if (k >= 0) to[start + k * step[axis]] = sum;
        }
      }
    [from, to] = [to, from];
  }
  return from;
}
/* Light on the outer surface at voxel i. */
function lightAt({ fog, spacing }, i, step, out) {
  let along = 0, length = 1e-9;
  for (let k = 0; k < 3; k++) {
    const slope = ((fog[i - step[k]] || 0) - (fog[i + step[k]] || 0)) / spacing[k];
    (along += slope * out[k]), (length += slope * slope);
  }
  return DARKEST + (1 - DARKEST) * clamp(along / Math.sqrt(length), 0, 1);
}
/* Picture of w x h pixels, and for each pixel the voxel that it shows (-1: none). `perMm` is in pixels; at, centre are in voxels. Each ray goes
   from voxel to voxel; t is the way along it in mm, begin and end are where it enters and leaves the box. */
function cast(scene, map, { colour: [red, green, blue], keep }, { at, centre, camera, inside, perMm }, [w, h]) {
  const image = new ImageData(w, h), out = new Uint32Array(image.data.buffer).fill(0xff000000), hits = new Int32Array(w * h).fill(-1);
  const { box, spacing, shape, reach, volumes: [back] } = scene, step = stepsOf(shape), [ax, ay, az] = at;
  const toward = camera.out.map((x, k) => -x / spacing[k] || 1e-12), [sx, sy, sz] = toward.map(Math.sign); // voxels per mm along the ray
  const [paceX, paceY, paceZ] = toward.map((x) => Math.abs(1 / x)), p = [0, 0, 0], v = [0, 0, 0], next = [0, 0, 0];
  const [midX, midY] = project(camera, box.map(([low, high], k) => ((low + high) / 2 - centre[k]) * spacing[k]));
  for (let row = 0, pixel = 0; row < h; row++)
    for (let column = 0; column < w; column++, pixel++) {
      const x = (column + 0.5 - w / 2) / perMm, y = (h / 2 - row - 0.5) / perMm;
      if ((x - midX) ** 2 + (y - midY) ** 2 > reach ** 2) continue;
      let begin = -Infinity, end = Infinity;
      for (let k = 0; k < 3; k++) {
        p[k] = centre[k] + (x * camera.right[k] + y * camera.up[k]) / spacing[k];
        const one = (box[k][0] - p[k]) / toward[k], two = (box[k][1] - p[k]) / toward[k];
        (begin = Math.max(begin, Math.min(one, two))), (end = Math.min(end, Math.max(one, two)));
      }
      if (begin >= end) continue;
      for (let k = 0; k < 3; k++) {
        v[k] = clamp(Math.floor(p[k] + begin * toward[k]), box[k][0], box[k][1] - 1);
        next[k] = (v[k] + (toward[k] > 0 ? 1 : 0) - p[k]) / toward[k]; // where the ray leaves this voxel
      }
      let [vx, vy, vz] = v, [nextX, nextY, nextZ] = next, i = vx + vy * step[1] + vz * step[2], cut = false;
      for (let t = begin; t < end - 1e-6; ) {
        const grey = back[i], code = inside && grey === 0 ? 128 : map[i], left = keep[code];
        const gone = (ax - vx) * sx > 0 && (ay - vy) * sy > 0 && (az - vz) * sz > 0;
        if (!gone && (grey > 0 || left < 1)) {
          const light = cut ? 1 : lightAt(scene, i, step, camera.out), tint = (1 + light) / 2, rest = left * (cut ? grey : SURFACE) * light;
          out[pixel] = 0xff000000 | ((blue[code] * tint + rest) << 16) | ((green[code] * tint + rest) << 8) | (red[code] * tint + rest);
          hits[pixel] = i;
          break;
        }
        cut = gone && grey > 0; // the next voxel is on a cut face
        if (nextX < nextY && nextX < nextZ) (t = nextX), (vx += sx), (i += sx), (nextX += paceX);
        else if (nextY < nextZ) (t = nextY), (vy += sy), (i += sy * step[1]), (nextY += paceY);
        else (t = nextZ), (vz += sz), (i += sz * step[2]), (nextZ += paceZ);
      }
    }
  return { image, hits };
}
/* The crosshair along each axis with the letters at its ends; `spot` gives the place on the screen of a place in voxels. */
function drawAxes(pen, { box, spacing }, at, { out }, spot) {
  const here = at.map((v) => v + 0.5), [cx, cy] = spot(here);
  Object.assign(pen, { strokeStyle: CROSS, lineWidth: 1 }).beginPath();
  box.forEach((ends, k) => ends.forEach((end) => {
    const [x, y] = spot(here.with(k, end)), long = Math.hypot(x - cx, y - cy), free = long ? Math.min(CROSS_GAP / long, 1) : 1;
    pen.moveTo(cx + (x - cx) * free, cy + (y - cy) * free), pen.lineTo(x, y);
  }));
  pen.stroke();
  box.forEach((ends, k) => Math.abs(out[k]) < 0.95 && ends.forEach((end, side) =>
    write(pen, LETTERS[k][side], ...spot(here.with(k, end + (side ? 6 : -6) / spacing[k])), "center")));
}
