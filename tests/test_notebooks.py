"""The shape of the notebooks. That they run is nbmake's part: `make test`."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from xai_brain.attribution import ClassScore, GradCAM, GuidedBackprop, MeaningfulPerturbation

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL = 16  # lines, blank ones not counted
MOST_INTERNAL_MODULES = 4  # imported beside `import xai_brain as xb`, where a concept is taught by hand
STAGES = {"train", "evaluate", "validate", "run", "compose", "report"}  # need settings
RUN_FILES = {  # names inside a run directory, which the objects read
    *("evaluation", "checkpoints", "attributions", "group", "baselines", "native", ".locks"),
    *("config.yaml", "predictions.tsv", "folds.tsv", "metrics.json", "report.html", "job.json"),
}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def is_solution(cell) -> bool:
    return "solution" in cell.metadata.get("tags", [])


@pytest.fixture
def make_exercises():
    spec = importlib.util.spec_from_file_location("make_exercises", NOTEBOOKS / "make_exercises.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_notebook
def test_nothing_of_a_run_is_committed(path):
    notebook = read(path)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}, "no widget state"


@each_notebook
def test_has_the_common_shape(path):
    notebook = read(path)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} · ")
    for part in ("**You will learn**", "**Minutes:**", "**Prerequisites:**"):
        assert part in first.source, part
    assert "versions()" in code(notebook)[0].source
    headings = re.findall(r"^## (.+)$", prose(notebook), re.MULTILINE)
    for wanted in ("Exercise", "Limits", "Summary"):
        assert any(heading.startswith(wanted) for heading in headings), wanted
    assert "**What to look at.**" in prose(notebook)
    assert any(is_solution(cell) for cell in notebook.cells)


def syntax(notebook) -> ast.Module:
    return ast.parse("\n".join(cell.source for cell in code(notebook)))


@each_notebook
def test_uses_the_public_objects(path):
    internal = set()
    for node in ast.walk(syntax(read(path))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "xai_brain":
            assert node.module != "xai_brain", "import xai_brain as xb"
            internal.add(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "xb":
            assert node.attr not in STAGES, f"xb.{node.attr}"
    assert not [name for name in internal if name.split(".")[1] in ("stages", "tools", "runs")]
    assert len(internal) <= MOST_INTERNAL_MODULES


@each_notebook
def test_joins_no_paths_of_a_run(path):
    for node in ast.walk(syntax(read(path))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            names = [part.value for part in (node.left, node.right) if isinstance(part, ast.Constant)]
            assert not RUN_FILES & {part for name in names for part in str(name).split("/")}, names


@each_notebook
def test_cells_are_short_and_keep_their_ids(path):
    notebook = read(path)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in code(notebook):
        if cell is code(notebook)[0]:
            continue  # imports
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL, cell.id


@each_notebook
def test_names_no_place_of_one_machine(path):
    text = path.read_text()
    assert not re.search(r"/(home|Users|tmp|root|mnt)/", text)


def test_the_index_lists_every_notebook_in_order():
    listed = re.findall(r"^\| \d+ \| `(\w+\.ipynb)`", (NOTEBOOKS / "README.md").read_text(), re.MULTILINE)
    assert listed == sorted(listed)
    assert {path.name for path in PATHS} <= set(listed)


def test_each_names_the_next():
    for path, following in pairwise(PATHS):
        assert following.name in prose(read(path)), path.name


def test_exercises_come_from_solutions(make_exercises, tmp_path):
    written = make_exercises.make_exercises(NOTEBOOKS, tmp_path / "exercises")
    assert [path.name for path in written] == [path.name for path in PATHS]
    for path in written:
        exercises, original = read(path), read(NOTEBOOKS / path.name)
        changed = [
            (new, old)
            for new, old in zip(exercises.cells, original.cells, strict=True)
            if new.source != old.source
        ]
        assert len(changed) == sum(is_solution(cell) for cell in original.cells) > 0
        assert all(new.source == make_exercises.STUB and is_solution(old) for new, old in changed)


def test_exercises_keep_no_outputs_and_change_no_original(make_exercises):
    cell = nbformat.v4.new_code_cell("answer = 42", metadata={"tags": ["solution"]}, execution_count=3)
    cell.outputs = [nbformat.v4.new_output("stream", text="42")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    (stub,) = make_exercises.without_solutions(notebook).cells
    assert (stub.source, stub.outputs, stub.execution_count) == ("# your turn", [], None)
    assert notebook.cells[0].source == "answer = 42"


def test_stale_exercises_are_removed(make_exercises, tmp_path):
    source = tmp_path / "notebooks"
    source.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), source / "00_new.ipynb")
    target = source / "exercises"
    target.mkdir()
    (target / "00_old.ipynb").write_text("{}")
    make_exercises.make_exercises(source, target)
    assert [path.name for path in target.iterdir()] == ["00_new.ipynb"]


METHOD_CELLS = {"Grad-CAM": ["gradcam"], "guided": ["guided"], "mask": ["mask-parts", "mask"]}


@pytest.fixture
def method_sources():
    cells = {cell.id: cell.source for cell in code(read(NOTEBOOKS / "03_attribution_from_scratch.ipynb"))}
    return {name: "\n".join(cells[i] for i in ids) for name, ids in METHOD_CELLS.items()}


def test_methods_from_scratch_take_at_most_40_lines(method_sources):
    for name, source in method_sources.items():
        assert len([line for line in source.splitlines() if line.strip()]) <= 40, name
        assert "captum" not in source
        assert "xai_brain" not in source


def test_methods_from_scratch_equal_the_librarys(method_sources, toy_net):
    by_hand = {"math": math, "torch": torch, "nn": nn}
    for source in method_sources.values():
        exec(source, by_hand)
    toy_net.requires_grad_(False)
    x = torch.randn(1, 1, 12, 14, 16, generator=torch.Generator().manual_seed(0))
    grad_cam = by_hand["grad_cam"](toy_net, toy_net.relu2, x, 1)
    torch.testing.assert_close(grad_cam, GradCAM(toy_net).attribute(x, 1))
    guided = by_hand["guided_backprop"](toy_net, x, 1)
    torch.testing.assert_close(guided, GuidedBackprop(toy_net).attribute(x, 1))
    perturbation = by_hand["meaningful_perturbation"]
    mask = perturbation(toy_net, x, torch.zeros_like(x), 1, torch.ones_like(x), n_iter=3)
    settings = {"fill": "zero", "shift_voxels": (0, 0), "restrict_to_brain": False, "n_iter": 3}
    library = MeaningfulPerturbation(ClassScore(toy_net, "probability"), **settings)
    assert 0.05 < mask.min() < mask.max() < 0.95  # still on its way, so that equality says something
    torch.testing.assert_close(mask, library.attribute(x, 1), atol=1e-3, rtol=0)
