// The picture of "Save PNG": title, canvas, readout and clusters as they are on the screen, in one image that explains itself.
const TEXT_PX = 17, MARGIN = 8, COLUMN_PX = 14, DETAIL = 2; // DETAIL: pixels per pixel of the screen
const FONT = "13px sans-serif", BOLD = "bold 13px sans-serif";

const linesOf = (element) => { // a block of text and tables: lines of cells
  const head = [...element.querySelectorAll(".xai-place")].map((line) => [line.textContent]).filter(([text]) => text);
  const notes = [...element.querySelectorAll(".xai-meaning")].map((line) => Object.assign([line.textContent], { plain: true }));
  return [...head, ...[...element.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent)), ...notes];
};
function sizesOf(pen, lines) { // width of each column of the lines with several cells
  const widths = [];
  pen.font = FONT;
  for (const cells of lines) if (cells.length > 1) cells.forEach((text, k) => (widths[k] = Math.max(widths[k] || 0, pen.measureText(text).width)));
  return widths;
}
function widthOf(pen, lines) {
  const widths = sizesOf(pen, lines), alone = lines.filter((cells) => cells.length === 1);
  pen.font = BOLD;
  return Math.max(total(widths) + COLUMN_PX * (widths.length - 1), ...alone.map(([text]) => pen.measureText(text).width), 0);
}
function writeLines(pen, lines, x, y, isLeft) { // isLeft: of a column, by its number; the others end on the right
  const widths = sizesOf(pen, lines);
  lines.forEach((cells, i) => {
    let from = x;
    pen.font = cells.length === 1 && !cells.plain ? BOLD : FONT;
    cells.forEach((text, k) => {
      pen.textAlign = cells.length === 1 || isLeft(k) ? "left" : "right";
      pen.fillText(text, pen.textAlign === "left" ? from : from + widths[k], y + (i + 0.5) * TEXT_PX);
      from += widths[k] + COLUMN_PX;
    });
  });
}
/* What `paint(pen, scale, top)` draws in w x h pixels of the screen, and the text around it. */
function pictureOf({ title, caption, size: [w, h], dots, paint, readout, clusters }) {
  const made = document.createElement("canvas"), pen = made.getContext("2d", { alpha: false });
  const [left, right] = [linesOf(readout), linesOf(clusters)], leftWidth = widthOf(pen, left), rightWidth = widthOf(pen, right);
  const beside = leftWidth + rightWidth + 6 * MARGIN <= w, top = 2 * TEXT_PX + MARGIN, scale = DETAIL * dots;
  const lines = beside ? Math.max(left.length, right.length) : left.length + right.length + 1;
  const [width, height] = [Math.max(w, leftWidth + 2 * MARGIN, rightWidth + 2 * MARGIN), top + h + lines * TEXT_PX + 2 * MARGIN];
  Object.assign(made, { width: Math.round(width * scale), height: Math.round(height * scale) });
  pen.setTransform(scale, 0, 0, scale, 0, 0), Object.assign(pen, { textBaseline: "middle", fillStyle: "#fff" }).fillRect(0, 0, width, height);
  paint(pen, scale, top), pen.setTransform(scale, 0, 0, scale, 0, 0), (pen.fillStyle = "#222");
  writeLines(pen, [[title]], MARGIN, MARGIN / 2, () => true);
  pen.font = FONT, (pen.textAlign = "left"), pen.fillText(caption, MARGIN, MARGIN / 2 + 1.5 * TEXT_PX, width - 2 * MARGIN);
  writeLines(pen, left, MARGIN, top + h + MARGIN, (k) => k === 0);
  const [x, y] = beside ? [leftWidth + 5 * MARGIN, 0] : [MARGIN, (left.length + 1) * TEXT_PX];
  writeLines(pen, right, x, top + h + MARGIN + y, (k) => k === 4);
  return made;
}
