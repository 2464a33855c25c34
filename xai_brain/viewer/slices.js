// Three linked planes per map on one 2-D canvas. Volumes arrive as messages with uint8 buffers and stay here, so that
// moving, opacity and threshold never wait for Python, which adds exact values and clusters when it can.
const PLANES = [
  { name: "axial", axis: 2, right: 0, up: 1, letters: ["L", "R", "P", "A"] },
  { name: "coronal", axis: 1, right: 0, up: 2, letters: ["L", "R", "I", "S"] },
  { name: "sagittal", axis: 0, right: 1, up: 2, letters: ["P", "A", "I", "S"] },
];
const [TOP, PERCENTILE, OF_SCALE, VALUE] = [0, 1, 2, 3], SIGNS = ["both", "positive", "negative"];
const OUTLINES = { atlas: { strokeStyle: "rgba(120, 220, 255, 0.7)", lineWidth: 1 }, truth: { strokeStyle: "#5dff3b", lineWidth: 2 } };
const HEAD = 40, GAP = 8, RAW_MS = 8, REST_MS = 120, PICTURE_MS = 800, PICTURE_PX = 900, PLANE_PX = 340, TALL_PX = 660;
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const total = (list) => list.reduce((a, b) => a + b, 0);
const minus = (text) => String(text).replaceAll("-", "−");
const short = (x) => minus(Number(x.toPrecision(3)));
const places = (mm, digits) => minus(mm.map((x) => x.toFixed(digits)).join(", "));
const now = () => window.event?.timeStamp ?? performance.now(); // when the user did it
const apply = (matrix, v) => [0, 1, 2].map((k) => total(v.map((x, j) => x * matrix[k][j])) + matrix[k][3]);
const valueOf = (code, panel) => ((code - 128) * Math.abs(code - 128) * panel.maximum) / 127 ** 2;

const node = (tag, parent, textContent = "", className = "") => // text only: names of files are never markup
  parent.appendChild(Object.assign(document.createElement(tag), { textContent, className }));
function table(parent, rows) { // the first row is the head
  const made = node("table", parent);
  rows.forEach((row, i) => row.reduce((line, text) => (node(i ? "td" : "th", line, text), line), node("tr", made)));
  return [...made.rows].slice(1);
}
const measure = (name, start, detail) => // User Timing, for tests and the browser's developer tools: one entry at a time
  (performance.clearMeasures(name), performance.measure(name, { start, end: performance.now(), detail }));
function thresholdOf({ quantiles, limit }, get) {
  const kind = get("threshold_kind"), t = get("threshold");
  if (kind === OF_SCALE) return (limit * t) / 100;
  if (kind === VALUE) return get("threshold_value");
  const at = ((kind === TOP ? 100 - t : t) / 100) * (quantiles.length - 1), i = Math.floor(at);
  return quantiles[i] + (at - i) * (quantiles[Math.min(i + 1, quantiles.length - 1)] - quantiles[i]);
}
function lookup(panel, rgb, get) { // for each code: its colour times its opacity, and the share of anatomy that remains
  const colour = [0, 1, 2].map(() => new Float32Array(256)), keep = new Float32Array(256).fill(1);
  const threshold = thresholdOf(panel, get), least = panel.maximum ? 127 * Math.sqrt(threshold / panel.maximum) : 0;
  for (let code = 1; code < 256; code++) {
    const value = valueOf(code, panel), share = Math.abs(value) / panel.limit;
    if (value === 0 || Math.abs(code - 128) < least || Math.sign(value) === [0, -1, 1][get("sign")]) continue;
    // without a threshold weak values fade; what is above a threshold is shown in full
    const opacity = get("opacity") * (threshold > 0 ? 1 : clamp(2 * share, 0, 1));
    rgb(share * Math.sign(value)).forEach((x, k) => (colour[k][code] = x * opacity));
    keep[code] = 1 - opacity;
  }
  return { colour, keep, threshold };
}

function render({ model, el }) {
  const get = (name) => model.get(name);
  let scene = null, at = null, centre = null, zoom = 1, scale = 1, rects = [], drag = null; // at, centre: voxels
  let active = 0, plane = PLANES[0], found = [], row = -1, asking = null, next, waiting = 0, resting = 0, idle = 0, lines = [];
  const root = node("div", el, "", "xai-slices xai-empty"), notes = node("div", root, "", "xai-notes");
  const dials = node("div", root, "", "xai-dials"), canvas = node("canvas", root);
  const hide = node("style", el); // of the last view's picture, as soon as there is a live one; it leaves with this element
  const below = node("div", root, "", "xai-below"), bar = node("div", root, "", "xai-bar");
  const readout = node("div", below, "", "xai-readout"), clusters = node("div", below, "", "xai-clusters");
  const place = node("div", readout, "", "xai-place"), numbers = node("div", readout);
  notes.role = "status", root.tabIndex = 0, (root.dataset.lmSuppressShortcuts = "true"); // JupyterLab leaves the arrow keys to us
  const byCpu = { alpha: false, willReadFrequently: true }, ctx = canvas.getContext("2d", byCpu);
  const pages = () => PLANES.map((p) => [p, document.createElement("canvas")]), scratch = new Map(pages());
  const traced = new Map(pages().map(([p, page]) => [p, { page, key: "" }])); // outlines, and what they were drawn for
  const perVoxel = (axis) => scene.spacing[axis] * scale * zoom; // pixels
  const steps = () => [1, scene.shape[0], scene.shape[0] * scene.shape[1]];
  const colourAt = (share) => 768 * get("colours") + 3 * Math.round(127.5 + 127.5 * clamp(share, -1, 1)); // Python sends 256 of each last
  const rgb = (share) => scene.volumes.at(-1).subarray(colourAt(share), colourAt(share) + 3);
  const middle = () => scene.box.map(([low, high]) => (low + high) / 2);
  // -- layout: a row or a column of planes per map, whichever draws them larger
  function arrange() {
    const shown = PLANES.filter((p, k) => [0, k + 1].includes(get("planes"))), n = Math.max(scene.panels.length, 1), width = Math.max(root.clientWidth, 300);
    const long = scene.box.map(([low, high], k) => (high - low) * scene.spacing[k]);
    const [wide, tall] = ["right", "up"].map((way) => shown.map((p) => long[p[way]]));
    const [widest, tallest] = [Math.max(...wide), Math.max(...tall)], most = PLANE_PX / Math.max(widest, tallest);
    const rows = Math.min((width - GAP * shown.length) / total(wide), (TALL_PX / n - HEAD) / tallest, most);
    const columns = Math.min((width / n - GAP) / widest, (TALL_PX - HEAD) / total(tall), most);
    const inRows = n === 1 || rows >= columns;
    scale = inRows ? rows : columns, rects = [];
    for (let panel = 0; panel < n; panel++) {
      let x = inRows ? 0 : panel * (widest * scale + GAP), y = inRows ? panel * (tallest * scale + HEAD) : 0;
      rects.push({ panel, x, y, w: (inRows ? total(wide) : widest) * scale, h: HEAD });
      shown.forEach((p, k) => {
        const [w, h] = [wide[k] * scale, tall[k] * scale].map(Math.round), left = inRows ? x : x + (widest * scale - w) / 2;
        rects.push({ panel, plane: p, x: Math.round(left), y: Math.round(y) + HEAD, w, h });
        inRows ? (x += w + GAP) : (y += h + GAP / 2);
      });
    }
    const size = [Math.max(...rects.map((r) => r.x + r.w)), Math.max(...rects.map((r) => r.y + r.h)) + 2];
    [canvas.width, canvas.height] = size.map((n) => Math.round(n * window.devicePixelRatio));
    [canvas.style.width, canvas.style.height] = size.map((n) => `${n}px`);
  }
  // -- drawing
  function slice(p, map, { colour: [red, green, blue], keep }) { // a plane with one pixel per voxel, on a canvas of its own
    const [w, h] = [scene.shape[p.right], scene.shape[p.up]], back = scene.volumes[0], inside = get("inside"), step = steps();
    const image = new ImageData(w, h), out = new Uint32Array(image.data.buffer);
    for (let up = h - 1, pixel = 0; up >= 0; up--) {
      let i = at[p.axis] * step[p.axis] + up * step[p.up];
      for (let right = 0; right < w; right++, pixel++, i += step[p.right]) {
        const grey = back[i], code = inside && grey === 0 ? 128 : map[i], left = keep[code] * grey;
        out[pixel] = 0xff000000 | ((blue[code] + left) << 16) | ((green[code] + left) << 8) | (red[code] + left);
      }
    }
    const page = Object.assign(scratch.get(p), { width: w, height: h });
    return page.getContext("2d", byCpu).putImageData(image, 0, 0), page;
  }
  function outlined(p, w, h, [left, top]) { // edges between voxels of different labels, drawn once for all panels
    const names = scene.outlines.filter(get), key = [names, at[p.axis], left, top, scale * zoom, w, h].join();
    const known = traced.get(p), page = known.key === key ? known.page : Object.assign(known.page, { width: w, height: h }), pen = page.getContext("2d", { willReadFrequently: true });
    if (known.key === key) return page;
    const [n, m] = [scene.shape[p.right], scene.shape[p.up]], step = steps(), [sx, sy] = [perVoxel(p.right), perVoxel(p.up)];
    for (const name of names) {
      const labels = scene.volumes[1 + scene.panels.length + scene.outlines.indexOf(name)];
      const label = (c, r) => labels[at[p.axis] * step[p.axis] + r * step[p.up] + c * step[p.right]];
      const line = (c, r, toC, toR) => (pen.moveTo(left + c * sx, top + (m - r) * sy), pen.lineTo(left + toC * sx, top + (m - toR) * sy));
      pen.beginPath();
      for (let c = 0; c < n - 1; c++) for (let r = 0; r < m; r++) if (label(c, r) !== label(c + 1, r)) line(c + 1, r, c + 1, r + 1);
      for (let c = 0; c < n; c++) for (let r = 0; r < m - 1; r++) if (label(c, r) !== label(c, r + 1)) line(c, r + 1, c + 1, r + 1);
      Object.assign(pen, OUTLINES[name]).stroke();
    }
    return (known.key = key), page;
  }
  function write(text, x, y, align = "left", colour = "#fff", widest = undefined) {
    Object.assign(ctx, { textAlign: align, lineWidth: 3, strokeStyle: "#000", fillStyle: colour });
    ctx.strokeText(text, x, y, widest), ctx.fillText(text, x, y, widest);
  }
  function drawPlane(p, { x, y, w, h }, page) {
    const [sx, sy] = [perVoxel(p.right), perVoxel(p.up)], [midX, midY] = [x + w / 2, y + h / 2];
    const offset = [w / 2 - centre[p.right] * sx, h / 2 - (scene.shape[p.up] - centre[p.up]) * sy];
    const [left, top] = [x + offset[0], y + offset[1]];
    ctx.save(), ctx.beginPath(), ctx.rect(x, y, w, h), ctx.clip();
    ctx.imageSmoothingEnabled = get("smooth");
    ctx.drawImage(page, left, top, page.width * sx, page.height * sy);
    ctx.drawImage(outlined(p, w, h, offset), x, y);
    const [cx, cy] = [left + (at[p.right] + 0.5) * sx, top + (scene.shape[p.up] - at[p.up] - 0.5) * sy].map(Math.round);
    ctx.fillStyle = "rgba(255, 255, 255, 0.75)"; // the crosshair leaves its middle free
    for (const [a, b] of [[x, cx - 7], [cx + 7, x + w]]) ctx.fillRect(a, cy, Math.max(b - a, 0), 1);
    for (const [a, b] of [[y, cy - 7], [cy + 7, y + h]]) ctx.fillRect(cx, a, 1, Math.max(b - a, 0));
    const [low, high, down, up] = p.letters;
    write(low, x + 4, midY), write(high, x + w - 4, midY, "right");
    write(up, midX, y + 8, "center"), write(down, midX, y + h - 8, "center");
    write(`${"xyz"[p.axis]} = ${minus(apply(scene.affine, at)[p.axis].toFixed(0))} mm`, x + 4, y + h - 8);
    ctx.restore();
  }
  function drawHead(k, { x, y, w }, threshold) {
    const panel = scene.panels[k], chosen = scene.panels.length > 1 && k === active;
    ctx.font = "bold 13px sans-serif";
    write(panel ? panel.name : "image", x + 4, y + 11, "left", chosen ? "#7fd4ff" : "#fff", w - 8);
    ctx.font = "11px sans-serif";
    if (!panel || !panel.maximum) return write(panel ? "empty map" : "", x + 4, y + 29, "left", "#ffb0a0");
    const least = panel.signed ? `−${short(panel.limit)}` : "0", from = x + 9 + ctx.measureText(least).width, long = clamp(w * 0.25, 40, 110);
    for (let i = 0; i < long; i++) {
      const share = panel.signed ? (2 * i) / long - 1 : i / long;
      ctx.fillStyle = Math.abs(share) * panel.limit >= threshold ? `rgb(${rgb(share)})` : "#555";
      ctx.fillRect(from + i, y + 24, 1.2, 9);
    }
    write(least, x + 4, y + 29);
    write(short(panel.limit) + (threshold > 0 ? `   |v| ≥ ${short(threshold)}` : ""), from + long + 5, y + 29, "left", "#fff", x + w - from - long - 5);
  }
  function draw(begun = now()) {
    if (!scene) return;
    const n = scene.panels.length, dots = window.devicePixelRatio;
    const colours = (n ? scene.panels : [{ quantiles: [0], maximum: 0 }]).map((panel) => lookup(panel, rgb, get));
    ctx.setTransform(dots, 0, 0, dots, 0, 0), Object.assign(ctx, { textBaseline: "middle", fillStyle: "#000" }).fillRect(0, 0, canvas.width, canvas.height);
    for (const { plane: p, panel: k, ...rect } of rects)
      if (p) drawPlane(p, rect, slice(p, scene.volumes[n ? 1 + k : 0], colours[k]));
      else drawHead(k, rect, colours[k].threshold);
    canvas.setAttribute("aria-label", `${scene.title}, ${places(apply(scene.affine, at), 1)} mm`);
    clearTimeout(idle), (idle = setTimeout(sendPicture, PICTURE_MS));
    measure("xai-brain-draw", begun, { at: [...at] });
  }
  function sendPicture() { // the notebook keeps it for the time when Python has stopped
    if (!get("view_id") || !canvas.width) return;
    const shrink = Math.min(1, PICTURE_PX / canvas.width), size = { width: canvas.width * shrink, height: canvas.height * shrink };
    const small = Object.assign(document.createElement("canvas"), size), pen = small.getContext("2d", { alpha: false });
    pen.imageSmoothingQuality = "high", pen.drawImage(canvas, 0, 0, small.width, small.height);
    small.toBlob(async (blob) => blob && model.send({ kind: "picture" }, undefined, [await blob.arrayBuffer()]), "image/jpeg", 0.8);
  }
  // -- numbers
  function showReadout({ mm, voxel, region, intensity, values }, exact) { // in place: a new table would move the page
    const parts = [`${places(mm, 1)} mm`, voxel && `voxel ${voxel.join(", ")}`, region, intensity != null && `intensity ${short(intensity)}`];
    const number = (x, text) => (x == null ? "–" : exact ? minus(text(x)) : `≈ ${minus(text(x))}`);
    place.textContent = parts.filter(Boolean).join(" · ");
    scene.methods.forEach((name, i) => {
      const { value, percentile } = values.find((v) => v.name === name) || {};
      lines[i].cells[1].textContent = number(value, exact ? String : short);
      lines[i].cells[2].textContent = number(percentile, (x) => x.toFixed(1));
    });
    readout.classList.toggle("exact", exact);
  }
  function fromCodes() { // what the drawn volumes say here, until Python has read the files
    const i = total(steps().map((step, k) => step * at[k]));
    const values = scene.panels.map((panel, k) => {
      const value = valueOf(scene.volumes[1 + k][i], panel), below = panel.quantiles.filter((q) => q <= Math.abs(value)).length;
      return { name: panel.name, value, percentile: (100 * below) / panel.quantiles.length };
    });
    showReadout({ mm: apply(scene.affine, at), values }, false);
  }
  function ask(begun) { // one question under way at most; the latest place wins
    if (!asking) model.send({ kind: "point", voxel: at }), (asking = { begun, at });
    else next = begun;
  }
  function answered(content) { // what was said of a place that has been left is not shown
    const { begun, at: then } = asking, meant = scene && content.mm && total(then.map((v, k) => Math.abs(v - at[k]))) === 0;
    if (meant) showReadout(content, true), measure("xai-brain-readout", begun, { mm: content.mm });
    if (((asking = null), next)) next = ask(next);
  }
  function askClusters() { // when nothing has changed for a while
    const send = (panel) => panel && model.send({ kind: "clusters", method: panel.name, inside: get("inside"),
      threshold: thresholdOf(panel, get), sign: SIGNS[get("sign")] });
    clearTimeout(waiting), (waiting = setTimeout(() => send(scene?.panels[active]), 250));
  }
  function showClusters({ method, rows }) {
    found = rows, row = -1, clusters.replaceChildren();
    node("div", clusters, `Clusters of ${method}, ≥ ${scene.least} voxels${rows.length ? "" : ": none at this threshold"}`, "xai-place");
    const cells = rows.map((r, i) => [i + 1, short(r.peak), places(r.mm, 0), r.volume_ml.toFixed(2), r.region || ""]);
    table(node("div", clusters, "", "xai-scroll"), [["", "peak", "mm", "ml", ""], ...cells]).forEach((line, i) => (line.onclick = () => toCluster(i)));
  }
  // -- moving
  function go(voxel, begun = now(), rest = 0) { // rest: ms without another move before Python is asked
    at = voxel.map((v, k) => clamp(Math.round(v), 0, scene.shape[k] - 1));
    draw(begun), fromCodes(), clearTimeout(resting);
    rest ? (resting = setTimeout(() => ask(performance.now()), rest)) : ask(begun);
  }
  const reveal = (voxel) => ((centre = zoom > 1 ? voxel.map((v) => v + 0.5) : middle()), go(voxel)); // also when zoomed or panned
  function toCluster(i) {
    if (!found.length) return;
    row = i % found.length, clusters.querySelectorAll("tr").forEach((line, k) => line.classList.toggle("here", k === row + 1)), reveal(found[row].voxel);
  }
  function zoomBy(factor) { // around the crosshair
    const shrink = zoom / (zoom = clamp(zoom * factor, 1, 12));
    centre = zoom === 1 ? middle() : centre.map((c, k) => at[k] + 0.5 + (c - at[k] - 0.5) * shrink), draw();
  }
  const reset = () => zoomBy(0), keys = { "+": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: reset, p: () => toCluster(0), n: () => toCluster(row + 1) };
  const arrows = { ArrowLeft: ["right", -1], ArrowRight: ["right", 1], ArrowDown: ["up", -1], ArrowUp: ["up", 1], PageDown: ["axis", -1], PageUp: ["axis", 1] };
  for (const [key, [way, by]] of Object.entries(arrows)) keys[key] = () => go(at.map((v, k) => (k === plane[way] ? v + by : v)));
  root.onkeydown = (event) => {
    if (!scene || event.ctrlKey || event.metaKey || !keys[event.key] || event.target.tagName === "INPUT") return;
    event.preventDefault(), event.stopPropagation(), keys[event.key]();
  };
  const spot = ({ clientX, clientY }, box = canvas.getBoundingClientRect()) => [clientX - box.x, clientY - box.y];
  function follow(event, rest = 0) { // the crosshair goes to the voxel under the pointer; a pan keeps the voxel that it holds there
    const { rect, pan } = drag, { right, up } = rect.plane, [px, py] = spot(event), to = [...(pan ? centre : at)];
    const x = (px - rect.x - rect.w / 2) / perVoxel(right), y = (rect.y + rect.h / 2 - py) / perVoxel(up);
    drag.held ??= [centre[right] + x, centre[up] + y];
    [to[right], to[up]] = pan ? [drag.held[0] - x, drag.held[1] - y] : [centre[right] + x - 0.5, centre[up] + y - 0.5];
    pan ? ((centre = to), draw(event.timeStamp)) : go(to, event.timeStamp, rest);
    drag.spot = `${event.clientX}, ${event.clientY}`, (drag.drawn = performance.now());
  }
  canvas.onpointerdown = (event) => {
    const [x, y] = spot(event), rect = rects.find((r) => r.plane && x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h);
    if (!rect) return;
    event.preventDefault(), root.focus({ preventScroll: true }), canvas.setPointerCapture(event.pointerId);
    if (active !== rect.panel) (active = rect.panel), askClusters();
    (plane = rect.plane), (drag = { rect, pan: event.shiftKey || event.button === 1 }), follow(event);
  };
  const move = (event) => { // raw events come before the frame they would wait for; no more of them than can be drawn
    const early = event.type === "pointerrawupdate" && performance.now() - drag?.drawn < RAW_MS;
    if (drag && !early && drag.spot !== `${event.clientX}, ${event.clientY}`) follow(event, REST_MS);
  };
  canvas.onpointermove = canvas.onpointerrawupdate = move;
  const release = (event) => (drag && resting && (clearTimeout(resting), ask(event.timeStamp)), (drag = null), (resting = 0));
  canvas.onpointerup = canvas.onpointercancel = release;
  canvas.ondblclick = reset; // and zoom by the wheel with Ctrl or Shift; the wheel alone scrolls the notebook
  canvas.onwheel = (e) => (e.ctrlKey || e.shiftKey) && (e.preventDefault(), zoomBy((e.deltaY || e.deltaX) < 0 ? 1.2 : 1 / 1.2));
  const save = (href) => Object.assign(document.createElement("a"), { href, download: `${scene.title.replace(/[^\w.-]+/g, "_")}.png` }).click();
  const buttons = { Peak: keys.p, "Next cluster": keys.n, "+": keys["+"], "−": keys["-"], "Reset view": reset,
    "Save PNG": () => save(canvas.toDataURL()), "Save HTML": () => model.send({ kind: "save_html" }) };
  for (const [text, act] of Object.entries(buttons)) node("button", bar, text).onclick = act;
  node("span", bar, "drag: move · Shift+drag: pan · Ctrl+wheel: zoom · arrows, Page keys: step · P: peak, N: next", "xai-hint");
  function dial(name, text, type, limits) { // Python hears of it when it is let go: a kernel at work repaints JupyterLab
    const label = node("label", dials, text), input = Object.assign(node("input", label), { type, min: 0, ...limits });
    const number = node("output", label), show = () => (number.textContent = type === "range" ? (input.value = get(name)) : "");
    input.oninput = () => model.set(name, Math.max(Number(input.value), 0)), (input.onchange = () => model.save_changes());
    return model.on(`change:${name}`, show), show(), label;
  }
  dial("opacity", "Opacity", "range", { max: 1, step: 0.02 });
  const relative = dial("threshold", "Threshold", "range", { max: 100, step: 0.5 });
  const absolute = dial("threshold_value", "|value| ≥", "number", { step: "any", value: get("threshold_value") });
  const choose = () => (absolute.hidden = !(relative.hidden = get("threshold_kind") === VALUE));
  model.on("change:threshold_kind", choose), choose();
  // -- what Python says
  function showScene(content, buffers, begun) {
    const mm = scene && apply(scene.affine, at);
    notes.replaceChildren(), content.messages.forEach((text) => node("div", notes, text));
    scene = content.shape ? { ...content, volumes: buffers.map((b) => new Uint8Array(b.buffer || b, b.byteOffset, b.byteLength)) } : null;
    if ((root.classList.toggle("xai-empty", !scene), !scene)) return;
    hide.textContent = `.jp-OutputArea-child:has(.xai-view-${get("view_id")}), .xai-view-${get("view_id")} { display: none; }`;
    if (zoom === 1 || !mm) centre = middle();
    (active = clamp(active, 0, Math.max(scene.panels.length - 1, 0))), (drag = null);
    traced.forEach((known) => (known.key = "")), arrange();
    numbers.replaceChildren(), (lines = table(numbers, [["method", "value", "percentile"], ...scene.methods.map((name) => [name, "", ""])]));
    go(mm ? apply(scene.inverse, mm) : scene.start, begun), askClusters();
    measure("xai-brain-scene", begun, { title: scene.title });
  }
  model.on("msg:custom", ({ kind, ...content }, buffers) => {
    if (kind === "note") node("div", notes, content.text);
    if (kind === "scene") showScene(content, buffers, performance.now());
    if (kind === "clusters") showClusters(content);
    if (kind === "go" && scene) reveal(apply(scene.inverse, content.mm));
    if (kind === "limits" && scene) scene.panels.forEach((panel) => (panel.limit = content.limits[panel.name])), draw();
    if (kind === "readout" && asking) answered(content);
  });
  for (const name of ["opacity", "colours", "smooth", "truth", "atlas"]) model.on(`change:${name}`, () => draw());
  for (const name of ["threshold", "threshold_value", "threshold_kind", "sign", "inside"]) model.on(`change:${name}`, () => (draw(), askClusters()));
  const refit = () => scene && (arrange(), draw(performance.now())), watch = new ResizeObserver(refit);
  model.on("change:planes", refit), watch.observe(root), node("div", notes, "Waiting for Python. If nothing comes, run the cell again.");
  return model.send({ kind: "ready" }), () => (watch.disconnect(), clearTimeout(waiting), clearTimeout(idle));
}
export default { render };
