"""The canvas in the browser: an anywidget that receives volumes as messages, not as synchronised traits."""

from __future__ import annotations

from pathlib import Path

import anywidget
import numpy as np
import traitlets

from xai_brain.runs.threshold_statement import CLAIM
from xai_brain.statistics.colour_scale import NEGATIVE, POSITIVE

HERE = Path(__file__).parent
SCRIPTS = ("common.js", "layout.js", "planes.js", "solid.js", "saving.js", "slices.js")
# Maps with negative values: from -limit to 0, from 0 to limit. Maps without: from 0 to limit.
COLOURS = {
    "red–blue": (" ".join(reversed(NEGATIVE)), " ".join(POSITIVE), " ".join(POSITIVE)),  # as in the report
    "hot–cool": (
        "#b3ffff #22c8ff #1e78ff #1a1aa8",
        "#a80000 #ff4d00 #ffb300 #ffff99",
        "#a80000 #ff4d00 #ffb300 #ffff99",
    ),
    "viridis": (
        "#a02c9a #6a2a86 #443983 #31688e",
        "#21918c #5ec962 #c8e020 #fde725",
        "#440154 #3b528b #21918c #5ec962 #fde725",
    ),
}
KINDS = ("top %", "percentile", "% of scale", "value", "corrected")
CORRECTED = len(KINDS) - 1  # only for runs with `xai-brain threshold`
SIGNS = ("both", "positive", "negative")
DIALS = ("opacity", "threshold", "threshold_value")  # the canvas has its own controls for these
TEXTS = ("corrected", "statement")  # about corrected thresholds
PLANES = ("three planes", "axial", "coronal", "sagittal", "3-D", "planes and 3-D")


def script() -> str:
    """JavaScript of the canvas: the files of `SCRIPTS` as one module."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)


class SliceCanvas(anywidget.AnyWidget):
    """Display settings; they do not change the maps.

    Messages from the browser: ``ready`` (asks for the scene), ``point``, ``clusters``, ``save_html`` (with
    the view: position, zoom, settings), ``picture`` (a JPEG of the display, and the view, when they have not
    changed for a moment). Messages to it: ``scene`` with one uint8 buffer per volume, ``limits``,
    ``readout``, ``clusters``, ``go``, ``page`` (the file to download), ``note``.
    """

    _esm = script()
    _css = HERE / "slices.css"
    view_id = traitlets.Unicode("").tag(sync=True)  # of the output with the picture of the last view
    colours = traitlets.Int(0).tag(sync=True)  # index in COLOURS, because dropdowns are linked by index
    opacity = traitlets.Float(0.8).tag(sync=True)
    threshold_kind = traitlets.Int(0).tag(sync=True)
    threshold = traitlets.Float(5.0).tag(sync=True)  # of kinds that are relative
    threshold_value = traitlets.Float(0.0).tag(sync=True)  # raw, of |value|
    sign = traitlets.Int(0).tag(sync=True)
    planes = traitlets.Int(0).tag(sync=True)
    inside = traitlets.Bool(True).tag(sync=True)  # only where the background is not 0
    smooth = traitlets.Bool(False).tag(sync=True)
    truth = traitlets.Bool(True).tag(sync=True)
    corrected = traitlets.Unicode(KINDS[-1]).tag(sync=True)  # name of the corrected threshold
    statement = traitlets.Unicode(CLAIM).tag(sync=True)  # what exceeding a corrected threshold states
    atlas = traitlets.Bool(False).tag(sync=True)  # many regions hide the anatomy; names are in the readout


def colour_tables() -> np.ndarray:
    """Colours of COLOURS, uint8 of shape (n, 384, 3).

    256 colours from -limit to limit, then 128 colours from 0 to limit for maps without negative values.
    """
    tables = []
    for parts in COLOURS.values():
        for part in parts:
            anchors = np.array([list(bytes.fromhex(text[1:])) for text in part.split()])
            at = np.linspace(0, len(anchors) - 1, 128)
            tables.append([np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T])
    return np.rint(tables).astype(np.uint8).transpose(0, 2, 1).reshape(len(COLOURS), 384, 3)
