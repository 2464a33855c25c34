"""The drawing in the browser: a small anywidget. Volumes reach it as messages, never as synced traits."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent
COLOURS = ("red–blue", "hot–cool", "viridis")
KINDS = ("top %", "percentile", "% of scale", "value")
SIGNS = ("both", "positive", "negative")
PLANES = ("three planes", "axial", "coronal", "sagittal")


class SliceCanvas(anywidget.AnyWidget):
    """Settings of the display; nothing here changes a map.

    Messages from the browser: ``ready`` (asks for the scene), ``point``, ``clusters``, ``save_html``.
    Messages to it: ``scene`` with one uint8 buffer per volume, ``limits``, ``readout``, ``clusters``,
    ``go``, ``note``.
    """

    _esm = HERE / "slices.js"
    _css = HERE / "slices.css"
    colours = traitlets.Int(0).tag(sync=True)  # place in COLOURS, as dropdowns are linked by their index
    opacity = traitlets.Float(0.8).tag(sync=True)
    threshold_kind = traitlets.Int(0).tag(sync=True)
    threshold = traitlets.Float(5.0).tag(sync=True)  # of every kind but "value"
    threshold_value = traitlets.Float(0.0).tag(sync=True)  # raw, of |value|
    sign = traitlets.Int(0).tag(sync=True)
    planes = traitlets.Int(0).tag(sync=True)
    inside = traitlets.Bool(True).tag(sync=True)  # only where the background is not 0
    smooth = traitlets.Bool(False).tag(sync=True)
    truth = traitlets.Bool(True).tag(sync=True)
    atlas = traitlets.Bool(True).tag(sync=True)
