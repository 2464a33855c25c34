"""The organisation of the package: small folders, small modules, and the names of the glossary."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xai_brain"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_TEST_LINES = 400  # one subject per file; more than 300 only if the tests share a costly fixture
INTERCHANGEABLE = {"methods", "networks", "layouts", "sections", "figures"}  # folders of items of one kind
LONGER = {  # modules of more than 300 lines, and the reason
    "attribution/methods/meaningful_perturbation.py": "one class with its published parameters",
}
# names of functions and classes; as names of variables, the last line is standard English
PRIVATE_WORDS = [
    "others_at_work",
    "forget_stale",
    "of_shard",
    "say",
    "told",
    "one_line",
    "tell_folds",
    "tell_sweep",
    "full_disk_told",
    "told_in_one_line",
    "waiting_for_all",
    "known_to_others",
    "is_made_of",
    "write_stamp",
    "files_of",
    "Bench",
    "with_first",
    "Tried",
    "quicken",
    "MaskEngine",
    "Fills",
    "halving",
    "falls_of",
    "eighths",
    "of_area",
    "first_voxels",
    "judge",
    "judge_networks",
    "by_removal",
    "by_blocks",
    "mprt",
    "rra_permuted",
    "Preparation",
    "trainings",
    "told_again",
    "train_again",
    "adopt",
    "Foreign",
    "parts_of",
    "networks_of",
    "people",
    "everybody",
    "tell",
    "by_person",
    "every_person",
    "strangers",
    "lonely",
    "foretold",
    "swallowed",
    "wobble",
]
ONLY_VARIABLES = ["share", "claim", "alone"]


def test_the_root_contains_the_entry_points_and_folders_only():
    modules = {path.name for path in PACKAGE.glob("*.py")}
    assert modules <= {"__init__.py", "__main__.py", "cli.py", "study.py"}


def test_no_folder_has_more_than_fourteen_modules():
    counts: dict[Path, int] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            counts[path.parent] = counts.get(path.parent, 0) + 1
    crowded = {
        str(folder): n for folder, n in counts.items() if n > 14 and folder.name not in INTERCHANGEABLE
    }
    assert not crowded


def test_no_module_is_longer_than_300_lines_without_a_reason():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, n in lengths.items() if n > 300} == set(LONGER)


def test_no_test_file_is_longer_than_400_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > MAX_TEST_LINES} == {}


def test_settings_objects_of_hydra_occur_only_where_settings_are_read():
    """`cli` is the function that Hydra calls; everything else receives dataclasses."""
    users = {path.relative_to(PACKAGE).parts[0] for path in MODULES if "DictConfig" in path.read_text()}
    assert users <= {"config", "stages", "tools", "cli.py"}


def test_stages_are_short():
    for path in (PACKAGE / "stages").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_identifiers_are_those_of_the_glossary(path):
    functions, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            functions.add(node.name.lstrip("_"))
        elif isinstance(node, ast.Name):
            others.add(node.id.lstrip("_"))
        elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            others.add(node.arg.lstrip("_"))
        elif isinstance(node, ast.Attribute):
            others.add(node.attr)
    assert not functions & {*PRIVATE_WORDS, *ONLY_VARIABLES}
    assert not others & set(PRIVATE_WORDS)


def test_messages_use_the_logger():
    """Only the handler of the logger and texts that were asked for print: help, lists, completion."""
    printing = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                printing.add(str(path.relative_to(PACKAGE)))
    assert printing == {"cli.py", "parallel/verbosity.py", "tools/completion.py", "tools/settings.py"}


def test_packages_import_nothing_heavy_and_list_their_names():
    code = (
        "import sys, json, xai_brain, xai_brain.attribution, xai_brain.viewer; "
        "print(json.dumps([dir(xai_brain), sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, modules = json.loads(text)
    assert not {"torch", "nilearn", "captum", "pandas", "matplotlib", "pytorch_lightning"} & set(modules)
    import xai_brain

    assert names == sorted(names)
    for name in names:
        assert getattr(xai_brain, name) is not None


def test_initial_modules_of_packages_contain_no_code_but_lazy_names():
    for path in MODULES:
        if path.name == "__init__.py":
            assert len(path.read_text().splitlines()) < 120, path
            assert not re.search(r"^(import|from) (torch|numpy|nilearn|pandas)", path.read_text(), re.M), path
