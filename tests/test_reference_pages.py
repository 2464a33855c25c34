"""The generated reference has an entry for every public name, command, setting, metric and method."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import nbformat
import pytest

import xai_brain
import xai_brain.attribution
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.config.command_help import COMMANDS
from xai_brain.io.nifti import GRIDS
from xai_brain.metrics.table import METRICS
from xai_brain.tools.settings import all_settings, choices

ROOT = Path(__file__).parents[1]
EXPLANATION = ROOT / "docs" / "explanation"
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
api_pages = pytest.importorskip("api_pages")
command_pages = pytest.importorskip("command_pages")
gallery_pages = pytest.importorskip("gallery_pages")
method_pages = pytest.importorskip("method_pages")
metric_pages = pytest.importorskip("metric_pages")
setting_pages = pytest.importorskip("setting_pages")

PUBLIC = sorted(xai_brain.__all__)


def headings(text: str) -> list[str]:
    """Headings of a Markdown text outside code."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", plain, re.MULTILINE)


def test_every_public_name_has_one_page_and_a_place_in_the_overview():
    listed = [name for names in api_pages.GROUPS.values() for name in names]
    assert sorted(listed) == PUBLIC
    pages = api_pages.entry_pages()
    assert {f"{name}.rst" for name in (*PUBLIC, *api_pages.BUILDING_BLOCKS)} == set(pages)
    text = api_pages.overview()
    assert all(f"(api/{page})" in text and f"\napi/{page[:-4]}\n" in text for page in pages)


def documented(obj: object) -> str:
    """Docstrings of an object and of its own public members."""
    members = [value for name, value in vars(obj).items() if name[0] != "_"] if inspect.isclass(obj) else []
    inherited = obj.__mro__[1:-1] if inspect.isclass(obj) else ()
    for base in inherited:
        if base.__module__.startswith("xai_brain"):
            members += [value for name, value in vars(base).items() if name[0] != "_"]
    return "\n".join(inspect.getdoc(each) or "" for each in (obj, *members))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_purpose_and_an_example(name):
    obj = getattr(xai_brain, name)
    assert api_pages.first_line(obj)
    text = documented(obj)
    assert ">>> " in text or f"``{name}(" in text


def test_what_the_notebooks_import_has_a_page():
    names = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and "from xai_brain" in cell.source:
                plain = re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE)
                for node in ast.walk(ast.parse(plain)):
                    if isinstance(node, ast.ImportFrom) and node.module.startswith("xai_brain."):
                        home = node.module.removeprefix("xai_brain.")
                        names |= {f"{home}.{alias.name}" for alias in node.names}
    methods = {f"attribution.{name}" for name in method_pages.methods()}
    assert names
    assert names - set(api_pages.BUILDING_BLOCKS) - methods == set()


def test_every_command_has_an_entry_with_its_help():
    text = command_pages.commands()
    found = [heading.removeprefix("xai-brain ") for heading in headings(text)]
    assert {heading for heading in found if heading in COMMANDS} == set(COMMANDS)
    assert all(f"\n{meaning}\n" in text for meaning in COMMANDS.values())


def test_every_setting_and_file_has_a_row():
    text = setting_pages.settings()
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
    named = [name for name, _ in rows]
    expected = [each.name for each in all_settings()] + [name for name, _ in choices("")]
    assert sorted(named) == sorted(expected)
    assert all(meaning.rpartition(" | ")[2].strip() for _, meaning in rows)
    assert set(setting_pages.groups()) == set(setting_pages.GROUPS)


def test_every_metric_has_an_entry_and_a_definition():
    assert headings(metric_pages.metrics()) == list(METRICS)
    assert set(METRICS) <= set(headings((EXPLANATION / "metrics.md").read_text()))


def test_every_method_has_an_entry_and_a_definition():
    kinds = {name: getattr(xai_brain.attribution, name) for name in xai_brain.attribution.__all__}
    methods = {n for n, kind in kinds.items() if isinstance(getattr(kind, "info", None), MethodInfo)}
    assert set(method_pages.methods()) == methods
    assert set(headings(method_pages.entries())) == methods | {"Attribution methods", "Baseline maps"}
    assert methods <= set(headings((EXPLANATION / "methods.md").read_text()))


def test_every_method_has_a_place_in_the_gallery():
    text = gallery_pages.gallery()
    names = re.findall(r"^\*\*(\w+)\*\*$", text, re.MULTILINE)
    assert sorted(names) == sorted(method_pages.methods())
    assert headings(text) == list(gallery_pages.SECTIONS)
    baselines = text.partition("## Baselines without a network\n")[2]
    for name, kind in method_pages.methods().items():
        assert kind.info.is_baseline == (f"\n**{name}**\n" in baselines), name


def test_the_settings_state_shape_and_voxel_size_of_every_grid():
    text = setting_pages.settings()
    for name, grid in GRIDS.items():
        assert f"| {name} | {' × '.join(map(str, grid.shape))} | " in text
    assert "`kan2020` (none, median 700)" in text


def test_the_entry_of_a_method_states_its_properties():
    _, text = method_pages.entries().split("### GuidedBackprop\n")
    text = text.partition("\n### ")[0]
    assert "`attribution=[guided_backprop]`" in text
    assert "only operations with a rule: rearrangements" in text
    assert "Springenberg" in text


def test_files_of_methods_name_classes_that_have_an_entry():
    assert set(method_pages.files()) <= set(method_pages.methods())
