// One plane of a map: its pixels, the outlines of labels, and text on it.
const PLANES = [
  { name: "axial", axis: 2, right: 0, up: 1, letters: ["L", "R", "P", "A"] },
  { name: "coronal", axis: 1, right: 0, up: 2, letters: ["L", "R", "I", "S"] },
  { name: "sagittal", axis: 0, right: 1, up: 2, letters: ["P", "A", "I", "S"] },
];
const OUTLINES = {
  atlas: { strokeStyle: "rgba(120, 220, 255, 0.7)", lineWidth: 1 },
  truth: { strokeStyle: "#5dff3b", lineWidth: 2, rim: { strokeStyle: "#000", lineWidth: 4 } }, // visible on all colours
};
const BY_CPU = { alpha: false, willReadFrequently: true }, CROSS = "rgba(255, 255, 255, 0.75)", CROSS_GAP = 7; // its middle is free

/* Draws a plane with one pixel per voxel on a canvas of its own. */
function drawVoxels(page, { shape, volumes: [back] }, p, at, map, { colour: [red, green, blue], keep }, inside) {
  const [w, h] = [shape[p.right], shape[p.up]], step = stepsOf(shape), image = new ImageData(w, h), out = new Uint32Array(image.data.buffer);
  for (let up = h - 1, pixel = 0; up >= 0; up--) {
    let i = at[p.axis] * step[p.axis] + up * step[p.up];
    for (let right = 0; right < w; right++, pixel++, i += step[p.right]) {
      const grey = back[i], code = inside && grey === 0 ? 128 : map[i], left = keep[code] * grey;
      out[pixel] = 0xff000000 | ((blue[code] + left) << 16) | ((green[code] + left) << 8) | (red[code] + left);
    }
  }
  Object.assign(page, { width: w, height: h }).getContext("2d", BY_CPU).putImageData(image, 0, 0);
}
/* Edges between voxels of different labels. `left`, `top`, `sx`, `sy`: place of the plane and size of a voxel, in pixels of the screen. */
function drawOutline(pen, { shape }, p, at, labels, style, [left, top, sx, sy]) {
  const [n, m] = [shape[p.right], shape[p.up]], step = stepsOf(shape);
  const label = (c, r) => labels[at[p.axis] * step[p.axis] + r * step[p.up] + c * step[p.right]];
  const line = (c, r, toC, toR) => (pen.moveTo(left + c * sx, top + (m - r) * sy), pen.lineTo(left + toC * sx, top + (m - toR) * sy));
  pen.beginPath();
  for (let c = 0; c < n - 1; c++) for (let r = 0; r < m; r++) if (label(c, r) !== label(c + 1, r)) line(c + 1, r, c + 1, r + 1);
  for (let c = 0; c < n; c++) for (let r = 0; r < m - 1; r++) if (label(c, r) !== label(c, r + 1)) line(c, r + 1, c + 1, r + 1);
  for (const { strokeStyle, lineWidth } of [style.rim, style].filter(Boolean)) Object.assign(pen, { strokeStyle, lineWidth }).stroke();
}
function write(pen, text, x, y, align = "left", colour = "#fff", widest = undefined) {
  Object.assign(pen, { textAlign: align, lineWidth: 3, lineJoin: "round", strokeStyle: "#000", fillStyle: colour });
  pen.strokeText(text, x, y, widest), pen.fillText(text, x, y, widest);
}
