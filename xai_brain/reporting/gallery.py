"""Figures of a page: numbered in reading order, saved as PNG and embedded."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from xai_brain.io.atomic import write_atomic

COLUMNS = 6  # of the PNG file with many small pictures


@dataclass
class Gallery:
    """Numbers the figures in reading order, saves them as PNG and embeds them."""

    folder: Path
    taken: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        fig: Figure,
        *,
        raster: bool = False,
        narrow: Figure | Callable[[], Figure] | None = None,
    ) -> dict[str, Any]:
        """Save and embed a figure, and a version for narrow screens if there is one.

        Parameters
        ----------
        name : str
            Of the PNG file.
        fig : matplotlib.figure.Figure
        raster : bool, default False
            Embed pixels in place of vectors.
        narrow : matplotlib.figure.Figure, or function that returns one, optional
        """
        name = re.sub(r"[^\w.-]+", "-", name)
        png = _rendered(fig, "png", dpi=150)
        write_atomic(self.folder / f"{name}.png", lambda temporary: temporary.write_bytes(png))
        kind, data = ("png", _palette(png)) if raster else ("svg+xml", _rendered(fig, "svg"))
        self.taken.append(name)
        shown = {"src": _embedded(kind, data), "number": len(self.taken), "file": self._file(name)}
        shown["width"] = round(fig.get_figwidth() * 96)
        shown["narrow"] = None
        if narrow is not None:
            data = _palette(_rendered(narrow, "png", dpi=150)) if raster else _rendered(narrow, "svg")
            shown["narrow"] = _embedded(kind, data)
        return shown

    def add_tiles(self, name: str, tiles: list[np.ndarray], captions: list[str]) -> dict[str, Any]:
        """Embed many small pictures as one figure, and save them as one PNG with their captions.

        Parameters
        ----------
        name : str
        tiles : list of ndarray of shape (height, width, 3), uint8
            All of one shape.
        captions : list of str
        """
        mosaic = _mosaic(tiles, captions)
        write_atomic(self.folder / f"{name}.png", lambda temporary: mosaic.save(temporary, "png"))
        self.taken.append(name)
        sources = [_embedded("webp", _webp(tile)) for tile in tiles]
        return {"tiles": sources, "number": len(self.taken), "file": self._file(name)}

    def _file(self, name: str) -> str:
        """The PNG file, relative to the page."""
        return f"{self.folder.name}/{name}.png"


def _webp(tile: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(tile).save(stream, "webp", quality=60, method=4)
    return stream.getvalue()


def _mosaic(tiles: list[np.ndarray], captions: list[str]) -> Image.Image:
    """All tiles in rows of `COLUMNS`, each above its caption."""
    height, width = tiles[0].shape[:2]
    text, gap = 16, 6
    rows = -(-len(tiles) // COLUMNS)
    shape = COLUMNS * (width + gap) + gap, rows * (height + text + gap) + gap
    mosaic = Image.new("RGB", shape, "white")
    draw = ImageDraw.Draw(mosaic)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(i, COLUMNS)
        x, y = gap + column * (width + gap), gap + row * (height + text + gap)
        mosaic.paste(Image.fromarray(tile), (x, y))
        draw.text((x + 2, y + height + 2), caption, fill="#1d232b", font=ImageFont.load_default(11))
    return mosaic.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def _embedded(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _palette(png: bytes) -> bytes:
    """The picture with 256 colours, a third of the size; dithering keeps faint shades smooth.

    White remains white: dithering must not leave faint colours on the background.
    """
    stream = BytesIO()
    picture = Image.open(BytesIO(png)).convert("RGB")
    palette = picture.quantize(255, Image.Quantize.MAXCOVERAGE)
    reduced = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    white = Image.fromarray((np.asarray(picture) == 255).all(-1))
    reduced.putpalette([*(palette.getpalette() or [])[: 3 * 255], 255, 255, 255])
    reduced.paste(255, mask=white)
    reduced.save(stream, "png", optimize=True)
    return stream.getvalue()


def _rendered(fig: Figure | Callable[[], Figure], kind: str, **options: Any) -> bytes:
    fig = fig if isinstance(fig, Figure) else fig()
    _settle(fig)
    stream = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    fig.savefig(stream, format=kind, metadata=metadata, facecolor="white", **options)
    return stream.getvalue()


def _settle(fig: Figure) -> None:
    """Round the positions of all axes, whose last digits the layout does not reproduce.

    Otherwise the same figure would not have the same bytes.
    """
    if fig.get_layout_engine() is not None:
        fig.draw_without_rendering()
        fig.set_layout_engine("none")
    for axes in fig.axes:
        x, y, width, height = np.round(axes.get_position().bounds, 6).tolist()
        axes.set_position((x, y, width, height))
