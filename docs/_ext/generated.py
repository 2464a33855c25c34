"""Texts that are made while the site is built, in place of ``<!-- generated: name -->`` in a page."""

from __future__ import annotations

import re
from pathlib import Path

import api_pages
import command_pages
import detection_pages
import gallery_pages
import method_pages
import metric_pages
import notebook_pages
import setting_pages

TEXTS = {
    "api": api_pages.overview,
    "commands": command_pages.commands,
    "settings": setting_pages.settings,
    "gallery": gallery_pages.gallery,
    "detection": detection_pages.detection,
    "gallery_t1": gallery_pages.participant,
    "methods": method_pages.entries,
    "metrics": metric_pages.metrics,
}
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """Text of a page with the generated parts in the place of their marks."""
    return MARK.sub(lambda match: TEXTS[match[1]](), text)


def _read(app, name: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def _write_api(app) -> None:
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(exist_ok=True)
    pages = api_pages.entry_pages()
    for path in folder.glob("*.rst"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _write_tutorials(app) -> None:
    here = Path(app.srcdir)
    notebook_pages.copy_notebooks(here / "_executed", here.parent / "notebooks", here / "tutorials")


def _always_read(app, env, added, changed, removed) -> list[str]:
    """Pages whose texts come from the package, which may have changed."""
    return [
        name for name in env.found_docs if name.startswith("reference/") or name == "results/detection_ixi"
    ]


def _skip(app, what, name, obj, skip, options) -> bool | None:
    """Members that a class inherits from other packages are described there."""
    home = getattr(getattr(obj, "fget", obj), "__module__", None) or "xai_brain"
    return True if not home.startswith("xai_brain") else None


def setup(app) -> dict:
    """Connect the steps to the events of Sphinx."""
    app.connect("builder-inited", _write_api)
    app.connect("builder-inited", _write_tutorials)
    app.connect("env-get-outdated", _always_read)
    app.connect("source-read", _read)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
