"""Text of the gallery: the T1w image and every method with its picture, where `gallery.py` has made one."""

from __future__ import annotations

import json
from pathlib import Path

from api_pages import first_line
from method_pages import methods

PICTURES = Path(__file__).parents[1] / "_gallery"
ATTENTION = ("AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP")
SECTIONS = {
    "Methods for convolutional and other networks": "These maps explain the convolutional network.",
    "Methods for attention": "These maps explain the transformer.",
    "Baselines without a network": (
        "These maps use no network, so that a map that resembles one of them is no evidence of what the "
        "network uses. `CorrelationMap` and `OppositeDifference` need a continuous target: they come from a "
        "cohort in which all participants have the effect, with a different strength."
    ),
}


def participant() -> str:
    """Markdown: the T1w image of the participant, and the accuracy of the networks."""
    record = PICTURES / "gallery.json"
    if not record.exists():
        return "The pictures are made by `make docs`."
    about = json.loads(record.read_text(encoding="utf-8"))
    cnn, vit = (f"{100 * about['accuracy'][name]:.0f} %" for name in ("cnn", "vit"))
    caption = (
        f"T1w image of the participant `{about['participant']}` of the class `{about['label']}`, whose "
        "effect is the bright sphere, and the colours of the maps."
    )
    text = (
        f"In the test fold, the convolutional network classifies {cnn} and the transformer {vit} of the "
        f"participants correctly. The pictures took {about['seconds']} s of CPU time, training included."
    )
    return "\n\n".join([_picture("T1", "Three planes with the outline of the effect", [caption]), text])


def gallery() -> str:
    """Markdown: a grid of pictures for each section."""
    parts = []
    for title, text in SECTIONS.items():
        figures = [_figure(name, kind) for name, kind in methods().items() if _section(name, kind) == title]
        parts += [f"## {title}", text, "\n\n".join(["::::{container} gallery", *figures, "::::"])]
    return "\n\n".join(parts)


def _section(name: str, kind: type) -> str:
    general, attention, baselines = SECTIONS
    return baselines if kind.info.is_baseline else attention if name in ATTENTION else general


def _figure(name: str, kind: type) -> str:
    place = name.lower()
    links = f"[properties](method_entries.md#{place}), [mathematics](../explanation/methods.md#{place})"
    caption = [f"**{name}**", f"{first_line(kind)} ({links})"]
    if (PICTURES / f"{name}.png").exists():
        return _picture(name, f"Map of {name} in three planes", caption)
    return "\n\n".join(caption)


def _picture(name: str, alternative: str, caption: list[str]) -> str:
    head = f":::{{figure}} ../_gallery/{name}.png\n:alt: {alternative}"
    return "\n\n".join([head, *caption, ":::"])
