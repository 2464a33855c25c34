"""Slides of the notebooks, which need no network: ``python docs/_ext/slides.py``, run by ``make slides``."""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import sphinx_revealjs
from nbconvert import SlidesExporter
from notebook_pages import page_of
from traitlets.config import Config

HERE = Path(__file__).parents[1]
PACKAGE = "sphinx-mathjax-offline"
MATHJAX = distribution(PACKAGE).locate_file(f"{PACKAGE}/static/mathjax/tex-svg.js")
REVEAL = Path(sphinx_revealjs.__file__).parent / "_static" / "revealjs"


def with_slides(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Notebook in which a heading begins a slide, and code with its picture is a slide below it."""
    for cell in notebook.cells:
        heading = cell.cell_type == "markdown" and cell.source.startswith("#")
        has_output = bool(cell.get("outputs"))
        kind = "slide" if heading else "subslide" if cell.cell_type == "code" and has_output else "-"
        if "hide-cell" in cell.metadata.get("tags", []):
            kind = "skip"
        cell.metadata.slideshow = {"slide_type": kind}
    return notebook


def write_slides(executed: Path, target: Path) -> list[Path]:
    """Write one page of slides for every executed notebook, with reveal.js beside them."""
    target.mkdir(parents=True, exist_ok=True)
    for part in ("dist", "plugin"):
        shutil.copytree(REVEAL / part, target / "reveal" / part, dirs_exist_ok=True)
    shutil.copy(str(MATHJAX), target / "reveal")
    if (executed / "images").exists():
        shutil.copytree(executed / "images", target / "images", dirs_exist_ok=True)
    settings = Config()
    settings.SlidesExporter.reveal_url_prefix = "reveal"
    settings.SlidesExporter.reveal_theme = "white"  # with fonts beside it, unlike the default
    settings.SlidesExporter.extra_template_basedirs = [str(HERE / "_templates")]
    settings.SlidesExporter.template_name = "offline_slides"
    exporter = SlidesExporter(config=settings)
    written = []
    for path in sorted(executed.glob("*.ipynb")):
        notebook = with_slides(page_of(nbformat.read(path, as_version=4), executed))
        body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        page = target / f"{path.stem}.slides.html"
        page.write_text(body.replace("../../notebooks/images/", "images/"))
        written.append(page)
    return written


if __name__ == "__main__":
    for page in write_slides(HERE / "_executed", HERE / "_build" / "slides"):
        print(page)
