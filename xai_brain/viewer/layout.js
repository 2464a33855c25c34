// Where the planes of each map are drawn: in a row or a column per map, whichever draws them larger. The canvas fills the width; where the
// height limits the size, the planes get what is left of the width.
const HEAD = 54, GAP = 8, TALL_PX = 660, TALL_SHARE = 0.75; // of a canvas: pixels, and share of the window

/* `wide`, `tall`: size of each plane in mm; `n`: number of maps; `width` in pixels. Rectangles without a plane are heads. */
function layoutOf(planes, wide, tall, n, width) {
  const most = Math.max(TALL_PX, TALL_SHARE * window.innerHeight), [widest, tallest] = [Math.max(...wide), Math.max(...tall)];
  const each = (width - GAP * (n - 1)) / n, rowWidth = width - GAP * (planes.length - 1); // of a column, and of the planes of a row
  const rows = Math.min(rowWidth / total(wide), (Math.min(most / n, TALL_PX) - HEAD) / tallest);
  const columns = Math.min(each / widest, (most - HEAD) / total(tall));
  const inRows = n === 1 || rows >= columns, scale = inRows ? rows : columns, rects = [];
  for (let panel = 0; panel < n; panel++) {
    let x = inRows ? 0 : panel * (each + GAP), y = inRows ? panel * (tallest * scale + HEAD) : 0;
    rects.push({ panel, x, y, w: inRows ? width : each, h: HEAD });
    planes.forEach((plane, k) => {
      const [w, h] = [inRows ? (wide[k] * rowWidth) / total(wide) : each, tall[k] * scale].map(Math.floor);
      rects.push({ panel, plane, x: Math.round(x), y: Math.round(y) + HEAD, w, h });
      inRows ? (x += w + GAP) : (y += h + GAP / 2);
    });
  }
  return { scale, rects, size: [width, Math.ceil(Math.max(...rects.map((r) => r.y + r.h))) + 2] };
}
