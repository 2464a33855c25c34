"""Reference of the settings, from the dataclasses of the schema and the files of conf/."""

from __future__ import annotations

import re
from itertools import groupby

import yaml

from xai_brain.config.compose import conf_dir
from xai_brain.config.data import PreprocessingConfig
from xai_brain.io.nifti import GRIDS
from xai_brain.tools.settings import HIDDEN, Setting, all_settings, choices, group_names

# what the groups of settings are for; a group without settings of its own has files only
GROUPS = {
    "": "General settings",
    "data": "Cohort",
    "preprocessing": "Preparation of images",
    "folds": "Folds",
    "task": "Task",
    "model": "Network",
    "trainer": "Training",
    "augmentation": "Augmentation",
    "attribution": "Attribution methods",
    "explain": "What is explained",
    "evaluation": "Evaluation",
    "planted": "Planted effects",
    "regional": "Regional benchmark",
    "detection": "Detection benchmark",
    "baselines": "Baseline classifiers",
    "harmonization": "Harmonisation of baselines",
    "report": "Report",
    "experiment": "Experiments",
    "sweep": "Sweeps",
    "launcher": "Launchers",
}


def groups() -> list[str]:
    """Every group of settings or files, in the order of the page."""
    found = {_group(each.name) for each in all_settings()} | set(group_names()) - set(HIDDEN)
    return sorted(found, key=lambda name: list(GROUPS).index(name))


def settings() -> str:
    """Markdown: one heading per group, with a table of its settings and one of its files."""
    by_group = {name: list(each) for name, each in groupby(sorted(all_settings(), key=_key), key=_key)}
    return "\n\n".join(_section(group, by_group.get(group, [])) for group in groups())


def _section(group: str, listed: list[Setting]) -> str:
    parts = [f"## {GROUPS[group]}" + (f" (`{group}`)" if group else "")]
    if listed:
        rows = [f"| `{each.name}` | {_cell(each.kind)} | {_cell(each.default)} | {_text(each.meaning)} |"
                for each in listed]  # fmt: skip
        parts.append("\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *rows]))
    if group and (files := list(choices(group))):
        rows = [f"| `{text}` | {_text(meaning) or _target(text)} |" for text, meaning in files]
        parts.append("\n".join(["| file | choice |", "|---|---|", *rows]))
    if group == "preprocessing":
        parts.append(_grids())
    return "\n\n".join(parts)


def _target(text: str) -> str:
    """What a file without a comment creates, or the settings that it contains."""
    group, _, name = text.replace("[", "").replace("]", "").partition("=")
    content = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    if target := re.search(r"_target_: ([\w.]+)", content):
        return f"`{target[1].rpartition('.')[2]}`"
    keys = re.findall(r"^(\w+):", content, re.MULTILINE)
    return "sets " + ", ".join(f"`{key}`" for key in keys if key != "defaults") if keys else "no change"


def _grids() -> str:
    """Table of the grids, with their files and the scaling that these choose."""
    files: dict[str, list[str]] = {name: [] for name in GRIDS}
    for path in sorted((conf_dir() / "preprocessing").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        scaling = content.get("scaling", PreprocessingConfig().scaling)
        median = f", median {content['brain_median']}" if "brain_median" in content else ""
        files[content["grid"]].append(f"`{path.stem}` ({scaling}{median})")
    rows = []
    for name, grid in GRIDS.items():
        shape = " × ".join(str(each) for each in grid.shape)
        size = " × ".join(f"{each:.4g}" for each in grid.spacing_mm)
        rows.append(f"| {name} | {shape} | {size} | {', '.join(files[name])} |")
    head = ["| grid | voxels | voxel size, mm | files (and their scaling) |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _group(name: str) -> str:
    first, dot, _ = name.partition(".")
    return first if dot or first in GROUPS else ""


def _key(each: Setting) -> str:
    return _group(each.name)


def _cell(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _text(text: str) -> str:
    """A meaning as Markdown: characters with a meaning of their own are shown as they are."""
    return re.sub(r"([|*_<>\[\]$~])", r"\\\1", text)
