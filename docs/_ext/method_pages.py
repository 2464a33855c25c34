"""Reference of the attribution methods, from their classes and the files of conf/attribution/."""

from __future__ import annotations

import re
from functools import cache

import yaml

import xai_brain.attribution
from xai_brain.attribution.protocol import MethodInfo, takes
from xai_brain.config.compose import conf_dir

CHANNELS = {True: "every channel has its own map", False: "all channels have the same map"}
VALUES = {
    True: "contribution of a voxel",
    False: "change per unit of intensity",
    None: "not stated",
}
OPERATIONS = {
    "shape": "rearrangements",
    "linear": "convolutions, linear layers and means",
    "affine": "normalisation with stored statistics",
    "max": "maximum",
    "homogeneous": "ReLU and its variants",
}


@cache
def methods() -> dict[str, type]:
    """Class of every attribution method and baseline map, methods first."""
    kinds = {name: getattr(xai_brain.attribution, name) for name in xai_brain.attribution.__all__}
    found = {n: kind for n, kind in kinds.items() if isinstance(getattr(kind, "info", None), MethodInfo)}
    return dict(sorted(found.items(), key=lambda item: (item[1].info.is_baseline, item[0].lower())))


@cache
def files() -> dict[str, tuple[str, ...]]:
    """Names of the files of ``conf/attribution/`` that create each class."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((conf_dir() / "attribution").glob("*.yaml")):
        for method in yaml.safe_load(path.read_text(encoding="utf-8")).values():
            name = method["_target_"].rpartition(".")[2]
            found[name] = (*found.get(name, ()), path.stem)
    return found


def entries() -> str:
    """Markdown: one heading per method with its properties, its class and its publication."""
    parts = []
    for title, baseline in (("Attribution methods", False), ("Baseline maps", True)):
        parts.append(f"## {title}")
        parts += [_entry(n, kind) for n, kind in methods().items() if kind.info.is_baseline == baseline]
    return "\n\n".join(parts)


def _entry(name: str, kind: type) -> str:
    info: MethodInfo = kind.info
    rows = {
        "setting": ", ".join(f"`attribution=[{stem}]`" for stem in files().get(name, ())) or "Python only",
        "values": _text(info.value_meaning),
        "kind of value": VALUES[info.multiplies_by_inputs],
        "channels": CHANNELS[info.per_channel],
        "default output": f"`{info.default_output}`",
        "tasks": "classification" if info.needs_classes else "classification and regression",
        "training participants": "used as `reference`" if takes(kind, "reference") else "not used",
        "network": _network(info),
        "reference": _text(info.citation) or "none: a baseline of this package" * info.is_baseline,
    }
    table = ["| | |", "|---|---|", *(f"| {label} | {text} |" for label, text in rows.items() if text)]
    documented = f"```{{eval-rst}}\n.. autoclass:: xai_brain.attribution.{name}\n   :no-index:\n```"
    more = f"[Mathematics and limits](../explanation/methods.md#{name.lower()})"
    return "\n\n".join([f"### {name}", "\n".join(table), documented, more])


def _network(info: MethodInfo) -> str:
    if info.is_baseline:
        return "not used"
    if not info.operations:
        return "no list of allowed operations"
    rules = ", ".join(OPERATIONS.get(text, text.replace("_", " ")) for text in info.operations)
    return f"only operations with a rule: {rules}"


def _text(text: str) -> str:
    return re.sub(r"([|*_<>\[\]$~])", r"\\\1", text)
