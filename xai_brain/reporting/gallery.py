"""Figures of a page: numbered in reading order, saved as PNG and embedded."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from xai_brain.io.atomic import write_atomic


@dataclass
class Gallery:
    """Numbers the figures in reading order, saves them as PNG and embeds them."""

    folder: Path
    taken: list[str] = field(default_factory=list)

    def add(
        self, name: str, fig: Figure, *, raster: bool = False, narrow: Figure | None = None
    ) -> dict[str, Any]:
        """Save and embed a figure, and a version for narrow screens if there is one."""
        name = re.sub(r"[^\w.-]+", "-", name)
        png = _rendered(fig, "png", dpi=150)
        fig.set_layout_engine("none")  # the layout is made; making it again would double the time
        write_atomic(self.folder / f"{name}.png", lambda temporary: temporary.write_bytes(png))
        kind, data = ("png", _palette(png)) if raster else ("svg+xml", _rendered(fig, "svg"))
        self.taken.append(name)
        shown = {"src": _embedded(kind, data), "number": len(self.taken)}
        shown["width"] = round(fig.get_figwidth() * 96)
        shown["narrow"] = _embedded("svg+xml", _rendered(narrow, "svg")) if narrow is not None else None
        return shown


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


def _rendered(fig: Figure, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    fig.savefig(stream, format=kind, metadata=metadata, facecolor="white", **options)
    return stream.getvalue()
