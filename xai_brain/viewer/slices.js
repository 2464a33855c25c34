// Three linked planes, or a 3-D view, per map on one 2-D canvas. Volumes arrive as messages with uint8 buffers and stay here, so that
// moving, opacity and threshold never wait for Python, which adds exact values and clusters when it can.
const RAW_MS = 8, REST_MS = 120, PICTURE_MS = 800, PICTURE_PX = 900;
// of the 3-D view: azimuth and elevation; pixels of the screen per ray while it changes; degrees per pixel of a drag, and per key
const START = [-35, 30], COARSE_PX = 3, TURN = 0.5, KEY_TURN = 10;

function render({ model, el }) {
  const get = (name) => model.get(name);
  let scene = null, at = null, centre = null, last = null, zoom = 1, turn = START; // at, centre: voxels; last: where at is, or was, in mm
  let scale = 1, size = [0, 0], rects = [], drag = null, active = 0, plane = PLANES[0], found = [], row = -1, opened = -1, lines = [];
  let asking = null, next, waiting = 0, resting = 0, idle = 0, refining = 0;
  const root = node("div", el, "", "xai-slices xai-empty"), notes = node("div", root, "", "xai-notes");
  const dials = node("div", root, "", "xai-dials"), canvas = node("canvas", root);
  const explained = node("div", dials, "", "xai-explained");
  const hide = node("style", el); // of the last view's picture, as soon as there is a live one; it leaves with this element
  const below = node("div", root, "", "xai-below"), bar = node("div", root, "", "xai-bar"), status = node("div", root, "", "xai-status");
  const readout = node("div", below, "", "xai-readout"), clusters = node("div", below, "", "xai-clusters");
  const place = node("div", readout, "", "xai-place"), numbers = node("div", readout);
  (notes.role = status.role = "status"), (canvas.role = "img"), (root.tabIndex = 0);
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the arrow keys to us
  const live = canvas.getContext("2d", BY_CPU), pagesOf = (planes) => planes.map((p) => [p, document.createElement("canvas")]);
  const scratch = new Map(pagesOf([...PLANES, SOLID]));
  const traced = new Map(pagesOf(PLANES).map(([p, page]) => [p, { page, key: "" }])); // outlines, and what they were drawn for
  const perVoxel = (axis) => scene.spacing[axis] * scale * zoom; // pixels
  const rgb = (share, signed) => { // of each scale, Python sends 256 colours from -limit to limit, and 128 from 0 for maps without negative values
    const i = 1152 * get("colours") + 3 * Math.round(signed ? 127.5 + 127.5 * clamp(share, -1, 1) : 256 + 127 * clamp(share, 0, 1));
    return scene.volumes.at(-1).subarray(i, i + 3);
  };
  const middle = () => scene.box.map(([low, high]) => (low + high) / 2);
  const shownPlanes = () => [[...PLANES], ...PLANES.map((p) => [p]), [SOLID], [...PLANES, SOLID]][get("planes")];
  function arrange() {
    const planes = shownPlanes(), long = scene.box.map(([low, high], k) => (high - low) * scene.spacing[k]);
    root.classList.toggle("xai-solid", planes.includes(SOLID));
    if (planes.includes(SOLID)) (scene.reach ??= reachOf(scene)), (scene.fog ??= fogOf(scene));
    const [wide, tall] = ["right", "up"].map((way) => planes.map((p) => (p === SOLID ? SOLID_MARGIN * 2 * scene.reach : long[p[way]])));
    ({ scale, rects, size } = layoutOf(planes, wide, tall, Math.max(scene.panels.length, 1), Math.max(root.clientWidth, 300)));
    [canvas.width, canvas.height] = size.map((n) => Math.round(n * window.devicePixelRatio));
    [canvas.style.width, canvas.style.height] = size.map((n) => `${n}px`);
  }
  // -- drawing
  function outlined(p, w, h, [left, top], dots) { // edges between voxels of different labels, drawn once for all panels
    const names = scene.outlines.filter(get), key = [names, at[p.axis], left, top, scale * zoom, w, h, dots].join();
    const known = traced.get(p), page = known.key === key ? known.page : Object.assign(known.page, { width: w * dots, height: h * dots });
    if (known.key === key) return page;
    const pen = page.getContext("2d", { willReadFrequently: true }), place = [left, top, perVoxel(p.right), perVoxel(p.up)];
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    const labels = (name) => scene.volumes[1 + scene.panels.length + scene.outlines.indexOf(name)];
    names.forEach((name) => drawOutline(pen, scene, p, at, labels(name), OUTLINES[name], place));
    return (known.key = key), page;
  }
  function drawPlane(pen, p, { x, y, w, h }, dots) {
    const page = scratch.get(p), [sx, sy] = [perVoxel(p.right), perVoxel(p.up)], [midX, midY] = [x + w / 2, y + h / 2];
    const offset = [w / 2 - centre[p.right] * sx, h / 2 - (scene.shape[p.up] - centre[p.up]) * sy];
    const [left, top] = [x + offset[0], y + offset[1]];
    pen.save(), pen.beginPath(), pen.rect(x, y, w, h), pen.clip();
    pen.imageSmoothingEnabled = get("smooth");
    pen.drawImage(page, left, top, page.width * sx, page.height * sy);
    pen.drawImage(outlined(p, w, h, offset, dots), x, y, w, h);
    const [cx, cy] = [left + (at[p.right] + 0.5) * sx, top + (scene.shape[p.up] - at[p.up] - 0.5) * sy].map(Math.round);
    pen.fillStyle = CROSS;
    for (const [a, b] of [[x, cx - CROSS_GAP], [cx + CROSS_GAP, x + w]]) pen.fillRect(a, cy, Math.max(b - a, 0), 1);
    for (const [a, b] of [[y, cy - CROSS_GAP], [cy + CROSS_GAP, y + h]]) pen.fillRect(cx, a, 1, Math.max(b - a, 0));
    const [low, high, down, up] = p.letters;
    write(pen, low, x + 4, midY), write(pen, high, x + w - 4, midY, "right");
    write(pen, up, midX, y + 8, "center"), write(pen, down, midX, y + h - 8, "center");
    write(pen, `${"xyz"[p.axis]} = ${minus(apply(scene.affine, at)[p.axis].toFixed(0))} mm`, x + 4, y + h - 8);
    pen.restore();
  }
  function drawSolid(pen, rect, map, colours, perRay) { // perRay: pixels of the screen
    const { x, y, w, h } = rect, camera = cameraOf(turn), size = [w, h].map((n) => Math.max(Math.round(n / perRay), 1));
    const { image, hits } = cast(scene, map, colours, { at, centre, camera, inside: get("inside"), perMm: (scale * zoom * size[0]) / w }, size);
    const page = Object.assign(scratch.get(SOLID), { width: size[0], height: size[1] });
    page.getContext("2d", BY_CPU).putImageData(image, 0, 0), Object.assign(rect, { hits, size });
    pen.save(), pen.beginPath(), pen.rect(x, y, w, h), pen.clip(), (pen.imageSmoothingEnabled = true), pen.drawImage(page, x, y, w, h);
    const spot = (voxel) => { // on the screen, of a place in voxels
      const [right, up] = project(camera, voxel.map((v, k) => (v - centre[k]) * scene.spacing[k] * scale * zoom));
      return [x + w / 2 + right, y + h / 2 - up];
    };
    drawAxes(pen, scene, at, camera, spot);
    write(pen, `${places(apply(scene.affine, at), 0)} mm`, x + 4, y + h - 8), pen.restore();
  }
  function drawHead(pen, k, { x, y, w }, threshold) {
    const panel = scene.panels[k], chosen = scene.panels.length > 1 && k === active;
    pen.font = "bold 13px sans-serif";
    write(pen, panel ? panel.name : "image", x + 4, y + 11, "left", chosen ? "#7fd4ff" : "#fff", w - 8);
    pen.font = "11px sans-serif";
    if (!panel || !panel.maximum) return write(pen, panel ? "empty map" : "", x + 4, y + 29, "left", "#ffb0a0");
    const least = panel.signed ? `−${short(panel.limit)}` : "0", from = Math.round(x + 9 + pen.measureText(least).width), long = Math.round(clamp(w * 0.4, 40, 160));
    for (let i = 0; i < long; i++) {
      const share = panel.signed ? (2 * i) / long - 1 : i / long;
      pen.fillStyle = isShown(share * panel.limit, threshold, get) ? `rgb(${rgb(share, panel.signed)})` : "#555";
      pen.fillRect(from + i, y + 24, 1.2, 9);
    }
    write(pen, least, x + 4, y + 29), write(pen, short(panel.limit), from + long + 5, y + 29);
    write(pen, captionOf(threshold, get), x + 4, y + 44, "left", "#fff", w - 8);
  }
  function paint(pen, dots, top = 0, perRay = 1 / dots) { // dots: pixels of the picture per pixel of the screen
    const n = scene.panels.length;
    const colours = (n ? scene.panels : [{ quantiles: [0], maximum: 0 }]).map((panel) => lookup(panel, rgb, get));
    pen.setTransform(dots, 0, 0, dots, 0, top * dots), Object.assign(pen, { textBaseline: "middle", fillStyle: "#000" }).fillRect(0, 0, ...size);
    for (const rect of rects) {
      const { plane: p, panel: k } = rect, map = scene.volumes[n ? 1 + k : 0];
      if (!p) drawHead(pen, k, rect, colours[k].threshold);
      else if (p === SOLID) drawSolid(pen, rect, map, colours[k], perRay);
      else drawVoxels(scratch.get(p), scene, p, at, map, colours[k], get("inside")), drawPlane(pen, p, rect, dots);
    }
  }
  function draw(begun = now()) {
    if (!scene) return;
    const solid = shownPlanes().includes(SOLID), dots = window.devicePixelRatio;
    paint(live, dots, 0, solid ? COARSE_PX : 1);
    const maps = scene.panels.map((panel) => `${panel.name} ${captionOf(thresholdOf(panel, get), get)}`);
    canvas.setAttribute("aria-label", [scene.title, `${places(last, 1)} mm`, ...maps].join(", "));
    clearTimeout(idle), (idle = setTimeout(sendPicture, PICTURE_MS)), clearTimeout(refining);
    if (solid) refining = setTimeout(() => refine(), REST_MS);
    measure("xai-brain-draw", begun, { at: [...at] });
  }
  function refine(begun = performance.now()) { // the 3-D view in full resolution, as soon as nothing moves
    if (scene) paint(live, window.devicePixelRatio), measure("xai-brain-solid", begun, { at: [...at], turn: [...turn] });
  }
  function sendPicture() { // the notebook keeps it for the time when Python has stopped
    if (!get("view_id") || !canvas.width || !scene) return;
    const shrink = Math.min(1, PICTURE_PX / canvas.width), shown = view();
    const small = document.createElement("canvas"), pen = small.getContext("2d", { alpha: false });
    Object.assign(small, { width: canvas.width * shrink, height: canvas.height * shrink });
    pen.imageSmoothingQuality = "high", pen.drawImage(canvas, 0, 0, small.width, small.height);
    small.toBlob(async (blob) => blob && model.send({ kind: "picture", view: shown }, undefined, [await blob.arrayBuffer()]), "image/jpeg", 0.8);
  }
  // -- the view as numbers: Python keeps it, and a saved page opens with it
  const view = () => ({ mm: last, centre, zoom, turn, active, plane: PLANES.indexOf(plane), row,
    settings: Object.fromEntries(DISPLAY.map((name) => [name, get(name)])),
    thresholds: Object.fromEntries(scene.panels.map((panel) => [panel.name, thresholdOf(panel, get)])) });
  function restore(saved) {
    ({ mm: last, zoom = 1, turn = START, active = 0, row: opened = -1, centre } = saved), (plane = PLANES[saved.plane] || PLANES[0]);
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
    const i = total(stepsOf(scene.shape).map((step, k) => step * at[k]));
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
    (found = rows || []), (row = opened), (opened = -1), clusters.replaceChildren();
    const none = rows ? ": none at this threshold" : ": not in this page for this threshold";
    node("div", clusters, `Clusters of ${method}, ≥ ${scene.least} voxels${found.length ? "" : none}`, "xai-place");
    if (!found.length) return;
    const cells = found.map((r, i) => [i + 1, short(r.peak), places(r.mm, 0), r.volume_ml.toFixed(2), r.region || ""]);
    table(node("div", clusters, "", "xai-scroll"), [["", "peak", "mm", "ml", ""], ...cells]).forEach((line, i) => (line.onclick = () => toCluster(i)));
    mark();
  }
  const mark = () => clusters.querySelectorAll("tr").forEach((line, k) => line.classList.toggle("here", row >= 0 && k === row + 1));
  // -- moving
  function go(voxel, begun = now(), rest = 0) { // rest: ms without another move before Python is asked
    at = voxel.map((v, k) => clamp(Math.round(v), 0, scene.shape[k] - 1));
    (last = apply(scene.affine, at)), draw(begun), fromCodes(), clearTimeout(resting);
    rest ? (resting = setTimeout(() => ask(performance.now()), rest)) : ask(begun);
  }
  const reveal = (voxel) => ((centre = zoom > 1 ? voxel.map((v) => v + 0.5) : middle()), go(voxel)); // also when zoomed or panned
  function toCluster(i) {
    if (!found.length) return;
    (row = i % found.length), mark(), reveal(found[row].voxel);
  }
  function zoomBy(factor) { // around the crosshair
    const shrink = zoom / (zoom = clamp(zoom * factor, 1, 12));
    centre = zoom === 1 ? middle() : centre.map((c, k) => at[k] + 0.5 + (c - at[k] - 0.5) * shrink), draw();
  }
  const reset = () => ((turn = START), zoomBy(0)), keys = { "+": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: reset, p: () => toCluster(0), n: () => toCluster(row + 1) };
  const arrows = { ArrowLeft: ["right", -1], ArrowRight: ["right", 1], ArrowDown: ["up", -1], ArrowUp: ["up", 1], PageDown: ["axis", -1], PageUp: ["axis", 1] };
  for (const [key, [way, by]] of Object.entries(arrows)) keys[key] = () => go(at.map((v, k) => (k === plane[way] ? v + by : v)));
  const turnBy = (right, up) => ((turn = [turn[0] - right, clamp(turn[1] + up, -90, 90)]), draw());
  root.onkeydown = (event) => {
    if (!scene || event.ctrlKey || event.metaKey || !keys[event.key] || event.target.tagName === "INPUT") return;
    const [way, by] = (event.shiftKey && shownPlanes().includes(SOLID) && arrows[event.key]) || [];
    event.preventDefault(), event.stopPropagation();
    way === "right" ? turnBy(KEY_TURN * by, 0) : way === "up" ? turnBy(0, KEY_TURN * by) : keys[event.key]();
  };
  const spot = ({ clientX, clientY }, box = canvas.getBoundingClientRect()) => [clientX - box.x, clientY - box.y];
  function follow(event, rest = 0) { // the crosshair goes to the voxel under the pointer; a pan keeps the voxel that it holds there
    const { rect, pan } = drag, { right, up } = rect.plane, [px, py] = spot(event), to = [...(pan ? centre : at)];
    drag.spot = `${event.clientX}, ${event.clientY}`, (drag.drawn = performance.now());
    if (rect.plane === SOLID) return turnBy(TURN * (px - drag.from[0]), TURN * (py - drag.from[1])), (drag.from = [px, py]), (drag.turned = true);
    const x = (px - rect.x - rect.w / 2) / perVoxel(right), y = (rect.y + rect.h / 2 - py) / perVoxel(up);
    drag.held ??= [centre[right] + x, centre[up] + y];
    [to[right], to[up]] = pan ? [drag.held[0] - x, drag.held[1] - y] : [centre[right] + x - 0.5, centre[up] + y - 0.5];
    pan ? ((centre = to), draw(event.timeStamp)) : go(to, event.timeStamp, rest);
  }
  canvas.onpointerdown = (event) => {
    const [x, y] = spot(event), rect = rects.find((r) => r.plane && x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h);
    if (!rect) return;
    event.preventDefault(), root.focus({ preventScroll: true }), canvas.setPointerCapture(event.pointerId);
    if (active !== rect.panel) (active = rect.panel), askClusters();
    drag = { rect, pan: event.shiftKey || event.button === 1, from: [x, y], spot: `${event.clientX}, ${event.clientY}` };
    if (rect.plane === SOLID) return draw(event.timeStamp); // it turns when the pointer moves
    (plane = rect.plane), follow(event);
  };
  const move = (event) => { // raw events come before the frame they would wait for; no more of them than can be drawn
    const early = event.type === "pointerrawupdate" && performance.now() - drag?.drawn < RAW_MS;
    if (drag && !early && drag.spot !== `${event.clientX}, ${event.clientY}`) follow(event, REST_MS);
  };
  canvas.onpointermove = canvas.onpointerrawupdate = move;
  function pick({ hits, size: [w, h], ...rect }, [x, y], begun) { // the voxel that the 3-D view shows there
    const voxel = hits[Math.floor(((y - rect.y) * h) / rect.h) * w + Math.floor(((x - rect.x) * w) / rect.w)], [nx, ny] = scene.shape;
    if (voxel >= 0) go([voxel % nx, Math.floor(voxel / nx) % ny, Math.floor(voxel / (nx * ny))], begun);
  }
  const release = (event) => {
    if (drag?.rect.plane === SOLID) drag.turned || pick(drag.rect, drag.from, event.timeStamp);
    else if (drag && resting) clearTimeout(resting), ask(event.timeStamp);
    (drag = null), (resting = 0);
  };
  canvas.onpointerup = canvas.onpointercancel = release;
  canvas.ondblclick = reset; // and zoom by the wheel with Ctrl or Shift; the wheel alone scrolls the notebook
  canvas.onwheel = (e) => (e.ctrlKey || e.shiftKey) && (e.preventDefault(), zoomBy((e.deltaY || e.deltaX) < 0 ? 1.2 : 1 / 1.2));
  // -- saving
  const say = (text) => (status.textContent = text), fileName = (end) => `${scene.title.replace(/[^\w.-]+/g, "_")}.${end}`;
  const saved = (blob, name, more) => (download(blob, name), say(`${name} (${more}) was saved as a download of the browser.`));
  function savePicture() {
    const outlines = scene.outlines.filter(get).map((name) => ({ truth: "green: true location", atlas: "light blue: atlas" })[name]);
    const caption = [scene.explained, `opacity ${get("opacity")}`, get("inside") && "maps only in the brain", ...outlines].filter(Boolean).join(" · ");
    const picture = pictureOf({ title: scene.title, caption, size, dots: window.devicePixelRatio, paint, readout, clusters });
    picture.toBlob((blob) => saved(blob, fileName("png"), `${picture.width} × ${picture.height} pixels`));
  }
  const savePage = () => (say("Saving the page …"), model.send({ kind: "save_html", view: view() }));
  const buttons = { Peak: keys.p, "Next cluster": keys.n, "+": keys["+"], "−": keys["-"], "Reset view": reset,
    "Save PNG": savePicture, "Save HTML": savePage };
  for (const [text, act] of Object.entries(buttons)) node("button", bar, text).onclick = act;
  node("span", bar, "drag: move · Shift+drag: pan · Ctrl+wheel: zoom · arrows, Page keys: step · P: peak, N: next", "xai-hint");
  node("span", bar, "3-D · drag, Shift+arrows: turn · click: move", "xai-hint xai-hint-solid");
  function dial(name, text, type, limits) { // Python hears of it when it is let go: a kernel at work repaints JupyterLab
    const label = node("label", dials, text), input = Object.assign(node("input", label), { type, min: 0, ...limits });
    const number = node("output", label), show = () => (number.textContent = type === "range" ? (input.value = get(name)) : "");
    input.oninput = () => model.set(name, Math.max(Number(input.value), 0)), (input.onchange = () => model.save_changes());
    return model.on(`change:${name}`, show), show(), label;
  }
  dial("opacity", "Opacity", "range", { max: 1, step: 0.02 });
  const relative = dial("threshold", "Threshold", "range", { max: 100, step: 0.5 });
  const absolute = dial("threshold_value", "|value| ≥", "number", { step: "any", value: get("threshold_value") }), claim = node("div", dials, get("statement"), "xai-meaning");
  const choose = (kind) => ((relative.hidden = [VALUE, CORRECTED].includes(kind)), (absolute.hidden = kind !== VALUE), (claim.hidden = kind !== CORRECTED));
  model.on("change:threshold_kind", () => choose(get("threshold_kind"))), choose(get("threshold_kind"));
  // -- what Python says
  function showScene(content, buffers, begun) {
    const opens = content.view && !last;
    if (opens) restore(content.view);
    notes.replaceChildren(), content.messages.forEach((text) => node("div", notes, text));
    scene = content.shape ? { ...content, volumes: buffers.map((b) => new Uint8Array(b.buffer || b, b.byteOffset, b.byteLength)) } : null;
    if ((root.classList.toggle("xai-empty", !scene), !scene)) return;
    hide.textContent = `.jp-OutputArea-child:has(.xai-view-${get("view_id")}), .xai-view-${get("view_id")} { display: none; }`;
    if (!centre || (zoom === 1 && !opens)) centre = middle();
    root.classList.toggle("xai-no-map", !scene.panels.length);
    (active = clamp(active, 0, Math.max(scene.panels.length - 1, 0))), (drag = null);
    traced.forEach((known) => (known.key = "")), arrange();
    numbers.replaceChildren(), (lines = table(numbers, [["method", "value", "percentile"], ...scene.methods.map((name) => [name, "", ""])]));
    explained.textContent = scene.explained;
    for (const [text, names] of Object.entries(scene.meanings)) node("div", numbers, `${names.join(", ")}: ${text}`, "xai-meaning");
    go(last ? apply(scene.inverse, last) : scene.start, begun), askClusters();
    measure("xai-brain-scene", begun, { title: scene.title });
  }
  model.on("msg:custom", ({ kind, ...content }, buffers) => {
    if (kind === "note") say(content.text);
    if (kind === "page") saved(new Blob(buffers, { type: "text/html" }), fileName("html"), "works without Python and network");
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
  return model.send({ kind: "ready" }), () => (watch.disconnect(), [waiting, idle, refining, resting].forEach(clearTimeout));
}
export default { render };
