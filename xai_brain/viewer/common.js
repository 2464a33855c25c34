// What the slices, the 3-D view and the saved picture share: helpers, thresholds, colours. The files are joined to one module.
const [TOP, PERCENTILE, OF_SCALE, VALUE, CORRECTED] = [0, 1, 2, 3, 4], SIGNS = ["both", "positive", "negative"];
const DISPLAY = ["colours", "opacity", "threshold_kind", "threshold", "threshold_value", "sign", "planes", "inside", "smooth", "truth", "atlas"];
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const total = (list) => list.reduce((a, b) => a + b, 0);
const minus = (text) => String(text).replaceAll("-", "−");
const short = (x) => minus(x && Math.abs(x) < 1e-3 ? x.toExponential(2) : Number(x.toPrecision(3)));
const places = (mm, digits) => minus(mm.map((x) => x.toFixed(digits)).join(", "));
const now = () => window.event?.timeStamp ?? performance.now(); // when the user did it
const apply = (matrix, v) => [0, 1, 2].map((k) => total(v.map((x, j) => x * matrix[k][j])) + matrix[k][3]);
const valueOf = (code, panel) => ((code - 128) * Math.abs(code - 128) * panel.maximum) / 127 ** 2;
const stepsOf = ([nx, ny]) => [1, nx, nx * ny];

const node = (tag, parent, textContent = "", className = "") => // text only: names of files are never markup
  parent.appendChild(Object.assign(document.createElement(tag), { textContent, className }));
function table(parent, rows) { // the first row is the head
  const made = node("table", parent);
  rows.forEach((row, i) => row.reduce((line, text) => (node(i ? "td" : "th", line, text), line), node("tr", made)));
  return [...made.rows].slice(1);
}
const measure = (name, start, detail) => // User Timing, for tests and the browser's developer tools: one entry at a time
  (performance.clearMeasures(name), performance.measure(name, { start, end: performance.now(), detail }));
function download(blob, name) {
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
function thresholdOf({ quantiles, limit, corrected }, get) {
  const kind = get("threshold_kind"), t = get("threshold");
  if (kind === OF_SCALE) return (limit * t) / 100;
  if (kind === VALUE) return get("threshold_value");
  if (kind === CORRECTED) return corrected ?? Infinity;
  const at = ((kind === TOP ? 100 - t : t) / 100) * (quantiles.length - 1), i = Math.floor(at);
  return quantiles[i] + (at - i) * (quantiles[Math.min(i + 1, quantiles.length - 1)] - quantiles[i]);
}
function captionOf(threshold, get) { // the values that have a colour, and the setting that this follows from
  const t = get("threshold"), how = [`top ${t} %`, `percentile ${t}`, `${t} % of scale`, "", get("corrected")][get("threshold_kind")];
  const which = ["|v| ≥ ", "v ≥ ", "v ≤ −"][get("sign")];
  if (threshold === Infinity) return "no corrected threshold";
  if (!(threshold > 0)) return ["no threshold", "v > 0", "v < 0"][get("sign")];
  return which + short(threshold) + (how && ` (${how})`);
}
const isShown = (value, threshold, get) => value !== 0 && Math.abs(value) >= threshold && Math.sign(value) !== [0, -1, 1][get("sign")];
function lookup(panel, rgb, get) { // for each code: its colour times its opacity, and the share of anatomy that remains
  const colour = [0, 1, 2].map(() => new Float32Array(256)), keep = new Float32Array(256).fill(1);
  const threshold = thresholdOf(panel, get), least = panel.maximum ? 127 * Math.sqrt(threshold / panel.maximum) : 0;
  for (let code = 1; code < 256; code++) {
    const value = valueOf(code, panel), share = Math.abs(value) / panel.limit;
    if (Math.abs(code - 128) < least || !isShown(value, 0, get)) continue;
    // without a threshold weak values fade; what is above a threshold is shown in full
    const opacity = get("opacity") * (threshold > 0 ? 1 : clamp(2 * share, 0, 1));
    rgb(share * Math.sign(value), panel.signed).forEach((x, k) => (colour[k][code] = x * opacity));
    keep[code] = 1 - opacity;
  }
  return { colour, keep, threshold };
}
