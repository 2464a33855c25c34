// Three linked planes per map on one 2-D canvas. Volumes arrive as messages with uint8 buffers and stay here, so that
// moving, opacity and threshold never wait for Python, which adds exact values and clusters when it can.
const PLANES = [
  { name: "axial", axis: 2, right: 0, up: 1, letters: ["L", "R", "P", "A"] },
  { name: "coronal", axis: 1, right: 0, up: 2, letters: ["L", "R", "I", "S"] },
  { name: "sagittal", axis: 0, right: 1, up: 2, letters: ["P", "A", "I", "S"] },
];
const COLOURS = [ // positive and negative, from zero outwards; in the order of canvas.py, as are kinds and signs
  [["#fddbc7", "#f4774f", "#d7191c", "#8b0014"], ["#d1e5f0", "#6baed6", "#2171b5", "#0a3a80"]],
  [["#a80000", "#ff4d00", "#ffb300", "#ffff99"], ["#1a1aa8", "#1e78ff", "#22c8ff", "#b3ffff"]],
  [["#21918c", "#5ec962", "#c8e020", "#fde725"], ["#31688e", "#443983", "#48186a", "#440154"]],
];
const [TOP, PERCENTILE, OF_SCALE] = [0, 1, 2];
const OUTLINES = { atlas: ["rgba(120, 220, 255, 0.7)", 1], truth: ["#5dff3b", 2] };
const HEAD = 40, GAP = 8, PLANE_PX = 340, TALL_PX = 760;

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const total = (list) => list.reduce((a, b) => a + b, 0);
const minus = (text) => String(text).replaceAll("-", "−");
const short = (x) => minus(Number(x.toPrecision(3)));
const places = (mm, digits) => minus(mm.map((x) => x.toFixed(digits)).join(", "));
const now = () => (window.event ? window.event.timeStamp : performance.now()); // when the user did it
const apply = (matrix, v) => [0, 1, 2].map((k) => matrix[k][0] * v[0] + matrix[k][1] * v[1] + matrix[k][2] * v[2] + matrix[k][3]);
const valueOf = (code, panel) => ((code - 128) * Math.abs(code - 128) * panel.maximum) / 127 ** 2;

function node(tag, parent, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text; // text only: names of files and classes are never markup
  made.className = name;
  parent.append(made);
  return made;
}

function table(parent, rows) { // the first row is the head
  const made = node("table", parent);
  rows.forEach((row, i) => { const line = node("tr", made); row.forEach((text) => node(i ? "td" : "th", line, text)); });
  return [...made.rows].slice(1);
}

function rgb(anchors, share) {
  const at = clamp(share, 0, 1) * (anchors.length - 1), i = Math.min(Math.floor(at), anchors.length - 2);
  const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map((k) => part(anchors[i], k) + (at - i) * (part(anchors[i + 1], k) - part(anchors[i], k)));
}

function thresholdOf(panel, get) {
  const kind = get("threshold_kind"), t = get("threshold"), { quantiles, limit } = panel;
  if (kind === OF_SCALE) return (limit * t) / 100;
  if (kind !== TOP && kind !== PERCENTILE) return Math.abs(get("threshold_value"));
  const at = ((kind === TOP ? 100 - t : t) / 100) * (quantiles.length - 1), i = Math.floor(at);
  return quantiles[i] + (at - i) * (quantiles[Math.min(i + 1, quantiles.length - 1)] - quantiles[i]);
}

// for each code: its colour times its opacity, and the share of anatomy that remains
function lookup(panel, get) {
  const made = { colour: [0, 1, 2].map(() => new Float32Array(256)), keep: new Float32Array(256).fill(1), threshold: thresholdOf(panel, get) };
  const least = panel.maximum ? 127 * Math.sqrt(made.threshold / panel.maximum) : 0, hidden = [0, -1, 1][get("sign")];
  for (let code = 1; code < 256; code++) {
    const value = valueOf(code, panel), share = Math.abs(value) / panel.limit;
    if (value === 0 || Math.abs(code - 128) < least || Math.sign(value) === hidden) continue;
    // without a threshold weak values fade; what is above a threshold is shown in full
    const opacity = get("opacity") * (made.threshold > 0 ? 1 : clamp(2 * share, 0, 1));
    rgb(COLOURS[get("colours")][value > 0 ? 0 : 1], share).forEach((x, k) => (made.colour[k][code] = x * opacity));
    made.keep[code] = 1 - opacity;
  }
  return made;
}

function measure(name, start, detail) { // User Timing, for tests and the browser's developer tools
  performance.clearMeasures(name); // one entry at a time: a long session does not grow
  performance.measure(name, { start, end: performance.now(), detail });
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  let scene = null, at = null, centre = null, zoom = 1, scale = 1, rects = [], drag = null; // at, centre: voxels
  let active = 0, plane = PLANES[0], found = [], row = -1, asking = 0, again = false, waiting = 0;
  const root = node("div", el, "", "xai-slices"), notes = node("div", root, "", "xai-notes"), canvas = node("canvas", root);
  const below = node("div", root, "", "xai-below"), bar = node("div", root, "", "xai-bar");
  const readout = node("div", below, "", "xai-readout"), clusters = node("div", below, "", "xai-clusters");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the arrow keys to us
  notes.setAttribute("role", "status");
  const ctx = canvas.getContext("2d", { alpha: false, willReadFrequently: true }); // drawn by the CPU
  const scratch = new Map(PLANES.map((p) => [p, document.createElement("canvas")]));
  const shownPlanes = () => PLANES.filter((p, k) => [0, k + 1].includes(get("planes")));
  const perVoxel = (axis) => scene.spacing[axis] * scale * zoom; // pixels
  const steps = () => [1, scene.shape[0], scene.shape[0] * scene.shape[1]];

  // -- layout: a row or a column of planes per map, whichever draws them larger
  function arrange() {
    const shown = shownPlanes(), n = Math.max(scene.panels.length, 1), width = Math.max(root.clientWidth, 300);
    const [wide, tall] = ["right", "up"].map((way) => shown.map((p) => scene.shape[p[way]] * scene.spacing[p[way]]));
    const [widest, tallest] = [Math.max(...wide), Math.max(...tall)], most = PLANE_PX / Math.max(widest, tallest);
    const rows = Math.min((width - GAP * shown.length) / total(wide), (TALL_PX / n - HEAD) / tallest, most);
    const columns = Math.min(width / n - GAP, PLANE_PX) / widest < rows ? 0 : Math.min((width / n - GAP) / widest, (TALL_PX - HEAD) / total(tall), most);
    const inRows = n === 1 || rows >= columns;
    scale = inRows ? rows : columns, rects = [];
    for (let panel = 0; panel < n; panel++) {
      let x = inRows ? 0 : panel * (widest * scale + GAP), y = inRows ? panel * (tallest * scale + HEAD) : 0;
      rects.push({ panel, x, y, w: (inRows ? total(wide) : widest) * scale, h: HEAD });
      y += HEAD;
      shown.forEach((p, k) => {
        const w = wide[k] * scale, h = tall[k] * scale, middle = inRows ? 0 : (widest * scale - w) / 2;
        rects.push({ panel, plane: p, x: x + middle, y, w, h });
        if (inRows) x += w + GAP;
        else y += h + GAP / 2;
      });
    }
    const right = Math.max(...rects.map((r) => r.x + r.w)), low = Math.max(...rects.map((r) => r.y + r.h)) + 2;
    const dots = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [right * dots, low * dots].map(Math.round);
    [canvas.style.width, canvas.style.height] = [`${right}px`, `${low}px`];
  }

  // -- drawing
  function slice(p, map, colours) { // one plane at one pixel per voxel, on a canvas of its own
    const [w, h] = [scene.shape[p.right], scene.shape[p.up]], back = scene.volumes[0], inside = get("inside"), step = steps();
    const page = scratch.get(p), pen = page.getContext("2d", { willReadFrequently: true });
    if (page.width !== w || page.height !== h) [page.width, page.height] = [w, h];
    const image = pen.createImageData(w, h), out = new Uint32Array(image.data.buffer), [red, green, blue] = colours.colour;
    for (let up = h - 1, pixel = 0; up >= 0; up--) {
      let i = at[p.axis] * step[p.axis] + up * step[p.up];
      for (let right = 0; right < w; right++, pixel++, i += step[p.right]) {
        const grey = back[i], code = inside && grey === 0 ? 128 : map[i], left = colours.keep[code] * grey;
        out[pixel] = 0xff000000 | ((blue[code] + left) << 16) | ((green[code] + left) << 8) | (red[code] + left);
      }
    }
    pen.putImageData(image, 0, 0);
    return page;
  }

  function outlineOf(p, labels) { // edges between voxels of different labels, in voxels from the top left
    const [w, h] = [scene.shape[p.right], scene.shape[p.up]], step = steps(), path = new Path2D();
    const label = (c, r) => labels[at[p.axis] * step[p.axis] + r * step[p.up] + c * step[p.right]];
    const trace = (outer, inner, differs, line) => { // neighbouring edges become one line
      for (let a = 0; a < outer; a++)
        for (let b = 0, from = -1; b <= inner; b++) {
          const edge = b < inner && differs(a, b);
          if (edge && from < 0) from = b;
          if (!edge && from >= 0) line(a, from, b), (from = -1);
        }
    };
    const draw = (...ends) => { path.moveTo(ends[0], ends[1]); path.lineTo(ends[2], ends[3]); };
    trace(w - 1, h, (c, r) => label(c, r) !== label(c + 1, r), (c, from, to) => draw(c + 1, h - from, c + 1, h - to));
    trace(h - 1, w, (r, c) => label(c, r) !== label(c, r + 1), (r, from, to) => draw(from, h - 1 - r, to, h - 1 - r));
    return path;
  }

  function write(text, x, y, align = "left", colour = "#fff") {
    Object.assign(ctx, { textAlign: align, lineWidth: 3, strokeStyle: "#000", fillStyle: colour });
    ctx.strokeText(text, x, y);
    ctx.fillText(text, x, y);
  }

  function drawPlane({ x, y, w, h, plane: p }, page, outlines) {
    const [sx, sy] = [perVoxel(p.right), perVoxel(p.up)], [midX, midY] = [x + w / 2, y + h / 2];
    const left = midX - centre[p.right] * sx, top = midY - (scene.shape[p.up] - centre[p.up]) * sy;
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, w, h);
    ctx.clip();
    ctx.imageSmoothingEnabled = get("smooth");
    ctx.drawImage(page, left, top, page.width * sx, page.height * sy);
    for (const [path, colour, width] of outlines) {
      const scaled = new Path2D();
      scaled.addPath(path, new DOMMatrix([sx, 0, 0, sy, left, top]));
      Object.assign(ctx, { strokeStyle: colour, lineWidth: width });
      ctx.stroke(scaled);
    }
    const [cx, cy] = [left + (at[p.right] + 0.5) * sx, top + (scene.shape[p.up] - at[p.up] - 0.5) * sy].map(Math.round);
    ctx.fillStyle = "rgba(255, 255, 255, 0.75)"; // the crosshair leaves its middle free
    for (const [a, b] of [[x, cx - 7], [cx + 7, x + w]]) ctx.fillRect(a, cy, Math.max(b - a, 0), 1);
    for (const [a, b] of [[y, cy - 7], [cy + 7, y + h]]) ctx.fillRect(cx, a, 1, Math.max(b - a, 0));
    const [low, high, down, up] = p.letters, mm = apply(scene.affine, at)[p.axis];
    write(low, x + 4, midY);
    write(high, x + w - 4, midY, "right");
    write(up, midX, y + 8, "center");
    write(down, midX, y + h - 8, "center");
    write(`${"xyz"[p.axis]} = ${minus(mm.toFixed(0))} mm`, x + 4, y + h - 8);
    ctx.restore();
  }

  function drawHead({ x, y, w, panel: k }, colours) {
    const panel = scene.panels[k], several = scene.panels.length > 1;
    ctx.font = "bold 13px sans-serif";
    write(panel ? panel.name : "image", x + 4, y + 11, "left", several && k === active ? "#7fd4ff" : "#fff");
    ctx.font = "11px sans-serif";
    if (panel && !panel.maximum) write("empty map", x + 4, y + 29, "left", "#ffb0a0");
    if (!panel || !panel.maximum) return;
    const least = panel.signed ? `−${short(panel.limit)}` : "0", from = x + 9 + ctx.measureText(least).width, long = clamp(w * 0.3, 50, 110);
    for (let i = 0; i < long; i++) {
      const share = panel.signed ? (2 * i) / long - 1 : i / long, off = Math.abs(share) * panel.limit < colours.threshold;
      ctx.fillStyle = off ? "#555" : `rgb(${rgb(COLOURS[get("colours")][share < 0 ? 1 : 0], Math.abs(share))})`;
      ctx.fillRect(from + i, y + 24, 1.2, 9);
    }
    const shown = colours.threshold > 0 ? `   |v| ≥ ${short(colours.threshold)}` : "";
    write(least, x + 4, y + 29);
    write(short(panel.limit) + shown, from + long + 5, y + 29);
  }

  function draw(begun = now()) {
    if (!scene) return;
    const dots = window.devicePixelRatio || 1, colours = (scene.panels.length ? scene.panels : [{}]).map((panel) => lookup({ quantiles: [0], maximum: 0, ...panel }, get));
    ctx.setTransform(dots, 0, 0, dots, 0, 0);
    Object.assign(ctx, { textBaseline: "middle", fillStyle: "#000" });
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    const wanted = scene.outlines.filter(get), volume = (name) => scene.volumes[1 + scene.panels.length + scene.outlines.indexOf(name)];
    const lines = new Map(shownPlanes().map((p) => [p, wanted.map((name) => [outlineOf(p, volume(name)), ...OUTLINES[name]])]));
    for (const rect of rects) {
      if (!rect.plane) drawHead(rect, colours[rect.panel]);
      else drawPlane(rect, slice(rect.plane, scene.volumes[scene.panels.length ? 1 + rect.panel : 0], colours[rect.panel]), lines.get(rect.plane));
    }
    canvas.setAttribute("aria-label", `${scene.title}, ${places(apply(scene.affine, at), 1)} mm`);
    measure("xai-brain-draw", begun, { at: [...at] });
  }

  // -- numbers
  function showReadout({ mm, voxel, region, intensity, values }, exact) {
    const parts = [`${places(mm, 1)} mm`, voxel && `voxel ${voxel.join(", ")}`, region, intensity != null && `intensity ${short(intensity)}`];
    readout.replaceChildren();
    node("div", readout, parts.filter(Boolean).join(" · "), "xai-place");
    const number = (x) => (x == null ? "–" : exact ? minus(x) : `≈ ${short(x)}`);
    table(readout, [["method", "value", "percentile"], ...values.map((v) => [v.name, number(v.value), v.percentile == null ? "–" : v.percentile.toFixed(1)])]);
    readout.classList.toggle("exact", exact);
  }

  function ask(begun) { // one question under way at most; the latest place wins
    again = Boolean(asking);
    if (again) return;
    asking = begun;
    model.send({ kind: "point", voxel: at });
  }

  function askClusters() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const panel = scene && scene.panels[active], sign = ["both", "positive", "negative"][get("sign")];
      if (panel) model.send({ kind: "clusters", method: panel.name, threshold: thresholdOf(panel, get), sign, inside: get("inside") });
    }, 250);
  }

  function showClusters({ method, rows }) {
    found = rows, row = -1;
    clusters.replaceChildren();
    node("div", clusters, `Clusters of ${method}${rows.length ? "" : ": none at this threshold"}`, "xai-place");
    if (!rows.length) return;
    const cells = rows.map((r, i) => [i + 1, short(r.peak), places(r.mm, 0), r.volume_ml.toFixed(2), r.region || ""]);
    const lines = table(node("div", clusters, "", "xai-scroll"), [["", "peak", "mm", "ml", rows[0].region ? "region" : ""], ...cells]);
    lines.forEach((line, i) => (line.onclick = () => toCluster(i)));
  }

  // -- moving
  function go(voxel, begun = now()) {
    at = voxel.map((v, k) => clamp(Math.round(v), 0, scene.shape[k] - 1));
    draw(begun);
    const i = total(steps().map((step, k) => step * at[k]));
    const values = scene.panels.map((panel, k) => ({ name: panel.name, value: valueOf(scene.volumes[1 + k][i], panel) }));
    showReadout({ mm: apply(scene.affine, at), values }, false);
    ask(begun);
  }
  function reveal(voxel) { // a place that zoom or pan has moved out of sight is brought back
    if (zoom > 1) centre = voxel.map((v) => v + 0.5);
    go(voxel);
  }
  function toCluster(i) {
    if (!found.length) return;
    row = i % found.length;
    clusters.querySelectorAll("tr").forEach((line, k) => line.classList.toggle("here", k === row + 1));
    reveal(found[row].voxel);
  }
  function zoomBy(factor) { // around the crosshair
    const before = zoom;
    zoom = clamp(zoom * factor, 1, 12);
    centre = zoom === 1 ? scene.shape.map((n) => n / 2) : centre.map((c, k) => at[k] + 0.5 + (c - at[k] - 0.5) * (before / zoom));
    draw();
  }
  const reset = () => ((centre = scene.shape.map((n) => n / 2)), zoomBy(0));
  const step = (axis, by) => go(at.map((v, k) => (k === axis ? v + by : v)));
  const keys = {
    ArrowLeft: () => step(plane.right, -1), ArrowRight: () => step(plane.right, 1), ArrowDown: () => step(plane.up, -1), ArrowUp: () => step(plane.up, 1),
    PageDown: () => step(plane.axis, -1), PageUp: () => step(plane.axis, 1), "+": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: reset,
    p: () => toCluster(0), n: () => toCluster(row + 1),
  };
  root.onkeydown = (event) => {
    if (!scene || event.ctrlKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  };
  function follow(event) {
    const { rect, pan, x, y, start } = drag, p = rect.plane, box = canvas.getBoundingClientRect(), to = [...(pan ? start : at)];
    if (pan) (to[p.right] -= (event.clientX - x) / perVoxel(p.right)), (to[p.up] += (event.clientY - y) / perVoxel(p.up));
    if (pan) return (centre = to), draw(event.timeStamp);
    to[p.right] = centre[p.right] + (event.clientX - box.x - rect.x - rect.w / 2) / perVoxel(p.right) - 0.5;
    to[p.up] = centre[p.up] - (event.clientY - box.y - rect.y - rect.h / 2) / perVoxel(p.up) - 0.5;
    go(to, event.timeStamp);
  }
  canvas.onpointerdown = (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.x, y = event.clientY - box.y;
    const rect = rects.find((r) => r.plane && x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h);
    if (!rect) return;
    event.preventDefault();
    root.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    plane = rect.plane;
    if (active !== rect.panel) (active = rect.panel), askClusters();
    drag = { rect, pan: event.shiftKey || event.button === 1, x: event.clientX, y: event.clientY, start: centre };
    follow(event);
  };
  canvas.onpointermove = (event) => drag && follow(event);
  canvas.onpointerup = canvas.onpointercancel = () => (drag = null);
  canvas.ondblclick = reset;
  canvas.addEventListener("wheel", (event) => { // with Ctrl or Shift; the wheel alone scrolls the notebook
    if (!(event.ctrlKey || event.shiftKey)) return;
    event.preventDefault();
    zoomBy((event.deltaY || event.deltaX) < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  const savePicture = () => canvas.toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${scene.title.replace(/[^\w.-]+/g, "_")}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  const buttons = { Peak: keys.p, "Next cluster": keys.n, "+": keys["+"], "−": keys["-"], "Reset view": reset, "Save PNG": savePicture, "Save HTML": () => model.send({ kind: "save_html" }) };
  for (const [text, act] of Object.entries(buttons)) node("button", bar, text).onclick = act;
  node("span", bar, "drag: move · Shift+drag: pan · Ctrl+wheel: zoom · arrows, Page keys: step · P: peak, N: next", "xai-hint");

  // -- what Python says
  const hide = (yes) => [canvas, below, bar].forEach((part) => (part.hidden = yes));
  function receive(content, buffers, begun = performance.now()) {
    if (content.kind === "note") node("div", notes, content.text);
    if (content.kind === "clusters") showClusters(content);
    if (content.kind === "scene") {
      const mm = at && scene && apply(scene.affine, at);
      notes.replaceChildren();
      content.messages.forEach((text) => node("div", notes, text));
      hide(!content.shape);
      scene = content.shape ? { ...content, volumes: buffers.map((b) => new Uint8Array(b.buffer || b, b.byteOffset || 0, b.byteLength)) } : null;
      if (!scene) return;
      if (zoom === 1 || !mm) centre = scene.shape.map((n) => n / 2);
      active = clamp(active, 0, Math.max(scene.panels.length - 1, 0)), drag = null;
      arrange();
      go(mm ? apply(scene.inverse, mm) : scene.start, begun);
      askClusters();
      measure("xai-brain-scene", begun, { title: scene.title });
    }
    if (!scene) return;
    if (content.kind === "readout") {
      showReadout(content, true);
      measure("xai-brain-readout", asking, { mm: content.mm });
      asking = 0;
      if (again) ask(performance.now());
    }
    if (content.kind === "limits") scene.panels.forEach((panel) => (panel.limit = content.limits[panel.name] ?? panel.limit)), draw();
    if (content.kind === "go") reveal(apply(scene.inverse, content.mm));
  }
  model.on("msg:custom", (content, buffers) => receive(content, buffers));
  for (const name of ["opacity", "colours", "smooth", "truth", "atlas"]) model.on(`change:${name}`, () => draw());
  for (const name of ["threshold", "threshold_value", "threshold_kind", "sign", "inside"]) model.on(`change:${name}`, () => (draw(), askClusters()));
  const refit = () => scene && (arrange(), draw(performance.now()));
  model.on("change:planes", refit);
  const watch = new ResizeObserver(refit);
  watch.observe(root);
  hide(true);
  node("div", notes, "Waiting for Python. If nothing comes, run the cell again.");
  model.send({ kind: "ready" });
  return () => (watch.disconnect(), clearTimeout(waiting));
}

export default { render };
