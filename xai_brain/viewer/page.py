"""A self-contained HTML page of the current view: the same canvas, with the volumes."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from xai_brain.io.atomic import write_atomic
from xai_brain.viewer.canvas import HERE


def write_page(
    path: Path, description: Mapping[str, Any], buffers: Sequence[bytes], settings: Mapping[str, Any]
) -> Path:
    """Write a scene as an HTML page.

    Parameters
    ----------
    path : Path
    description, buffers : as from `xai_brain.viewer.scene.Scene.message`
    settings : mapping
        Values of the traits of `SliceCanvas`.
    """
    volumes = [b64encode(buffer).decode() for buffer in buffers]
    content = json.dumps({"settings": dict(settings), "scene": dict(description), "volumes": volumes})
    source = (HERE / "slices.js").read_text(encoding="utf-8")
    text = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(str(description["title"])),
        css=(HERE / "slices.css").read_text(encoding="utf-8"),
        javascript=source.replace("export default { render };", ""),
        # the text must not contain the end tag of a script element
        content=content.replace("<", "\\u003c"),
    )
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
