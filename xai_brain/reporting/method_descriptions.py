"""Descriptions of the attribution methods of a run from its settings and sidecars."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from xai_brain.config.build import similar_method_file
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.texts.references import short_citation
from xai_brain.runs.directory import read_json

# maps for comparison that do not depend on the network
BASELINE_MAPS = (
    *("RandomMap", "Intensity", "Edges", "MeanDifference", "TMap", "OppositeDifference", "CorrelationMap"),
)


def explains_network(contents: ReportContents, method: str) -> bool:
    """Whether the maps of a method depend on the network."""
    target = str((contents.setting(f"attribution.{method}", {}) or {}).get("_target_", method))
    return target.rpartition(".")[2] not in BASELINE_MAPS


@lru_cache(maxsize=1)
def describe_methods(contents: ReportContents) -> list[dict[str, Any]]:
    """One description per method; several sections of a report use them."""
    return [_describe(contents, name) for name in contents.methods]


def _describe(contents: ReportContents, name: str) -> dict[str, Any]:
    """Settings of a method in the configuration, and the entries of a sidecar."""
    settings = dict(contents.setting(f"attribution.{name}", {}) or {})
    target = str(settings.pop("_target_", ""))
    settings.pop("_partial_", None)
    files = sorted((contents.run.path / "attributions").rglob(f"*_desc-{name}_attribution.json"))
    sidecar = read_json(files[0]) if files else {}
    kind = target.rsplit(".", 1)[-1] or name
    return {
        "name": name,
        "kind": kind,
        "setting": similar_method_file(name, settings) if kind == name else None,
        "target": target,
        "parameters": settings or _without_target(sidecar.get("Parameters") or {}),
        "output": str(sidecar.get("Output", "–")).replace("_", " "),
        "meaning": sidecar.get("ValueMeaning", "–"),
        "n_maps": len(files),
        "n_empty": contents.metrics.get(f"empty_maps/{name}"),
        "citation": short_citation(sidecar.get("Citation", "")),
        "reference": sidecar.get("Citation", ""),
    }


def _without_target(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key != "_target_"}
