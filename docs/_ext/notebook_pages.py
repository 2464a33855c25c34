"""Pages of the tutorials: the executed copies of the notebooks, with links and outputs of a site."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

WIDGET = "application/vnd.jupyter.widget-view+json"
VIEWER = "../../notebooks/images/viewer.png"
PICTURE = f"""<figure><img alt="The viewer in JupyterLab" src="{VIEWER}">
<figcaption>The viewer is interactive in JupyterLab. This picture shows it with maps of the demo.</figcaption>
</figure>"""


def copy_notebooks(executed: Path, sources: Path, target: Path) -> list[Path]:
    """Write a page for every notebook; without an executed copy its code has no outputs.

    Parameters
    ----------
    executed : Path
        Folder of executed copies, made by ``make notebooks``.
    sources : Path
        Folder of the notebooks.
    target : Path
        Folder of the pages; other notebooks in it are removed.
    """
    written = []
    for source in sorted(sources.glob("*.ipynb")):
        copy = executed / source.name
        notebook = nbformat.read(copy if copy.exists() else source, as_version=4)
        text = nbformat.writes(page_of(notebook, executed))
        path = target / source.name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        written.append(path)
    for stale in set(target.glob("*.ipynb")) - set(written):
        stale.unlink()
    return written


def page_of(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Notebook with links between pages, pictures in place of widgets, and folded solutions."""
    page = nbformat.from_dict(notebook)
    page.metadata.pop("widgets", None)
    for cell in page.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown":
            cell.source = _with_links(cell.source)
            continue
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "hide-cell"]
        outputs = [_as_picture(each) for each in cell.get("outputs", []) if not _is_progress(each)]
        cell.outputs = [each for each in outputs if each is not None]
        for each in cell.outputs:
            _without_folder(each, folder)
    return page


def _with_links(text: str) -> str:
    text = re.sub(r"\]\(\.\./docs/", "](../", text)
    return re.sub(r"(\]\(|src=\")images/", r"\1../../notebooks/images/", text)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a progress bar or a message of the logger."""
    return output.output_type == "stream" and output.name == "stderr"


def _as_picture(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """A widget as a picture; the sentence below a viewer, which belongs to a saved notebook, is left out."""
    data = output.get("data", {})
    if "xai-last-view" in data.get("text/html", ""):
        return None
    if WIDGET in data:
        return nbformat.v4.new_output("display_data", {"text/html": PICTURE, "text/plain": "viewer"})
    return output


def _without_folder(output: nbformat.NotebookNode, folder: Path) -> None:
    """Remove the folder in which the notebook was executed from texts."""
    where = f"{folder.resolve()}/"
    if "text" in output:
        output.text = output.text.replace(where, "")
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(value, str):
            output.data[kind] = value.replace(where, "")
