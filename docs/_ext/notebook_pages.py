"""Pages of the tutorials: the executed copies of the notebooks, with links and outputs of a site."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import nbformat

WIDGET = "application/vnd.jupyter.widget-view+json"
VIEWER = Path(__file__).parents[2] / "notebooks" / "images" / "viewer.png"
CAPTION = "<p>The viewer is interactive in JupyterLab. This picture shows it with maps of the demo.</p>"
REPORT = Path("outputs") / "start_here" / "report.html"  # of notebook 00, a page of the site
LINK = '<p><a href="../report.html">The report of this run</a>, which JupyterLab shows at this place.</p>'
TOO_LARGE = 2**20  # characters of an output: only the report is larger
PROGRESS = re.compile(r"(: \d+/\d+ .* left|: epoch \d+/\d+, .*)$")


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


def report_pages(executed: Path) -> list[Path]:
    """The report of notebook 00 as a page of its own, without links to the files of its run."""
    source, target = executed / REPORT, executed / "report.html"
    if not source.exists():
        return []
    target.write_text(
        source.read_text(encoding="utf-8").replace("data-file=", "data-name="), encoding="utf-8"
    )
    return [target]


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
        shown = [_without_progress(each) for each in cell.get("outputs", [])]
        cell.outputs = [part for each in shown if each is not None for part in _with_pictures(each)]
        for each in cell.outputs:
            _without_folder(each, folder)
    return page


def _with_links(text: str) -> str:
    text = re.sub(r"\]\(\.\./docs/", "](../", text)
    return re.sub(r"(\]\(|src=\")images/", r"\1../../notebooks/images/", text)


def _without_progress(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Text without lines about work that is not finished; nothing of progress bars."""
    if output.output_type != "stream":
        return output
    lines = [line for line in output.text.splitlines() if not PROGRESS.search(line)]
    output.text = "".join(f"{line}\n" for line in lines)
    return output if lines and output.name == "stdout" else None


def _with_pictures(output: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A widget as a picture; the sentence below a viewer, which belongs to a saved notebook, is left out."""
    data = output.get("data", {})
    if "xai-last-view" in data.get("text/html", ""):
        return []
    if len(data.get("text/html", "")) > TOO_LARGE:
        return [_shown({"text/html": LINK, "text/plain": "report"})]
    if WIDGET in data:
        picture = b64encode(VIEWER.read_bytes()).decode()
        return [
            _shown({"image/png": picture, "text/plain": "viewer"}),
            _shown({"text/html": CAPTION, "text/plain": "viewer"}),
        ]
    return [output]


def _shown(data: dict[str, str]) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data)


def _without_folder(output: nbformat.NotebookNode, folder: Path) -> None:
    """Remove the folder in which the notebook was executed from texts."""
    where = f"{folder.resolve()}/"
    if "text" in output:
        output.text = output.text.replace(where, "")
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(value, str):
            output.data[kind] = value.replace(where, "")
