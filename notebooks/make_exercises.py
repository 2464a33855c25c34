"""Write notebooks/exercises/: every notebook with its solutions taken out. Run by `make exercises`."""

from __future__ import annotations

from pathlib import Path

import nbformat

STUB = "# your turn"


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook in which code cells tagged ``solution`` are a stub, and nothing has an output."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if "solution" in cell.metadata.get("tags", []):
            cell.source = STUB
            cell.metadata.tags = ["exercise"]
    return copy


def make_exercises(source: Path, target: Path) -> list[Path]:
    """Write the exercise version of every notebook in a folder; stale ones are removed."""
    target.mkdir(exist_ok=True)
    for stale in target.glob("*.ipynb"):
        stale.unlink()
    written = []
    for path in sorted(source.glob("*.ipynb")):
        exercises = without_solutions(nbformat.read(path, as_version=4))
        nbformat.write(exercises, target / path.name)
        written.append(target / path.name)
    return written


if __name__ == "__main__":
    here = Path(__file__).parent
    for path in make_exercises(here, here / "exercises"):
        print(path.relative_to(here.parent))
