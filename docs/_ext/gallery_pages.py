"""Text of the gallery: every method with its picture, where `gallery.py` has made one."""

from __future__ import annotations

import json
from pathlib import Path

from api_pages import first_line
from method_pages import methods

PICTURES = Path(__file__).parents[1] / "_gallery"
NETWORKS = {"cnn": "the convolutional network", "vit": "the transformer", "dose": "the network of the dose"}


def gallery() -> str:
    """Markdown: the participant and the networks, then one heading per method."""
    record = PICTURES / "gallery.json"
    about = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    return "\n\n".join([_introduction(about), *(_entry(name, kind) for name, kind in methods().items())])


def _introduction(about: dict) -> str:
    if not about:
        return "The pictures are made by `make docs`."
    return (
        f"The participant is {about['participant']}. The pictures took {about['seconds']} s of computing "
        "time, training included. The scores of the networks in the test fold are those of an easy task: "
        f"{about['scores']}."
    )


def _entry(name: str, kind: type) -> str:
    picture = PICTURES / f"{name}.png"
    shown = f"![Map of {name} in three planes](../_gallery/{name}.png)" if picture.exists() else ""
    place = name.lower()
    more = f"[Properties](method_entries.md#{place}), [mathematics](../explanation/methods.md#{place})"
    return "\n\n".join(part for part in (f"## {name}", first_line(kind), shown, more) if part)
