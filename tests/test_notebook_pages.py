"""Pages and slides of executed notebooks: links, pictures in place of widgets, folded solutions."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "_ext"))
pages = pytest.importorskip("notebook_pages")


@pytest.fixture
def notebook(tmp_path):
    progress = "prepare volumes: 2/72 images, 0.1/s, 1383 s left\nprepare volumes: 72/72 images, 52.5 s\n"
    viewer = new_output("display_data", {pages.WIDGET: {"model_id": "x"}, "text/plain": "SliceViewer()"})
    sentence = new_output("display_data", {"text/html": '<div class="xai-last-view">picture</div>'})
    outputs = [new_output("stream", name="stdout", text=progress), viewer, sentence]
    path = new_output("execute_result", {"text/plain": f"'{tmp_path.resolve()}/outputs/mine'"})
    return new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {}}},
        cells=[
            new_markdown_cell("[Any network](../docs/how_to/any_network.md), ![viewer](images/viewer.png)"),
            new_code_cell("maps.view()", outputs=outputs),
            new_code_cell("answer = 1", metadata={"tags": ["solution"]}, outputs=[path]),
        ],
    )


def test_links_lead_to_pages_of_the_site(notebook, tmp_path):
    text = pages.page_of(notebook, tmp_path).cells[0].source
    assert "(../how_to/any_network.md)" in text
    assert "(../../notebooks/images/viewer.png)" in text


def test_a_widget_is_a_picture_and_no_state_remains(notebook, tmp_path):
    page = pages.page_of(notebook, tmp_path)
    stream, viewer, caption = page.cells[1].outputs
    assert stream.text == "prepare volumes: 72/72 images, 52.5 s\n"
    assert set(viewer.data) == {"image/png", "text/plain"}
    assert "interactive in JupyterLab" in caption.data["text/html"]
    assert "widgets" not in page.metadata


def test_a_solution_is_folded_and_no_folder_is_named(notebook, tmp_path):
    cell = pages.page_of(notebook, tmp_path).cells[2]
    assert "hide-cell" in cell.metadata.tags
    assert cell.outputs[0].data["text/plain"] == "'outputs/mine'"


def test_pages_of_notebooks_that_are_gone_are_removed(notebook, tmp_path):
    sources, executed, target = (tmp_path / name for name in ("sources", "executed", "target"))
    for folder in (sources, executed, target):
        folder.mkdir()
    nbformat.write(notebook, sources / "00.ipynb")
    (target / "old.ipynb").touch()
    assert pages.copy_notebooks(executed, sources, target) == [target / "00.ipynb"]
    assert [path.name for path in target.iterdir()] == ["00.ipynb"]


def test_slides_load_nothing_from_other_hosts(notebook, tmp_path):
    slides = pytest.importorskip("slides")
    executed = tmp_path / "executed"
    executed.mkdir()
    nbformat.write(notebook, executed / "00.ipynb")
    (page,) = slides.write_slides(executed, tmp_path / "slides")
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"""(?:src="|<link [^>]*href="|url\(["']?|from ["'])(?:https?:)?//""", text) == []
    assert "reveal/dist/reveal.js" in text
    assert (tmp_path / "slides" / "reveal" / "dist" / "reveal.js").exists()
    assert "answer = 1" not in text
    (theme,) = re.findall(r'href="(reveal/dist/theme/[^"]+)"', text)
    assert "googleapis" not in (page.parent / theme).read_text(encoding="utf-8")
