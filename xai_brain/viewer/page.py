"""A self-contained HTML page of the current view: the same canvas, with the volumes."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from xai_brain.viewer.canvas import CORRECTED, HERE, KINDS, SIGNS, script
from xai_brain.viewer.controls import CHECKS, CHOICES
from xai_brain.viewer.readout import as_text, clusters_of, readout_at
from xai_brain.viewer.scene import Scene


def page_of(
    scene: Scene,
    methods: Sequence[str],
    limits: Mapping[str, float],
    settings: Mapping[str, Any],
    view: Mapping[str, Any],
) -> str:
    """HTML page of a scene, which requires neither Python nor a network connection.

    Parameters
    ----------
    scene : Scene
    methods : sequence of str
        Maps that are shown.
    limits : mapping of method to float
        Limits of the colour scales; default for each map: its own.
    settings : mapping
        Values of the traits of `SliceCanvas`.
    view : mapping
        What the browser reported, may be empty: ``mm``, ``zoom``, ``centre``, ``turn``, ``active``,
        ``plane``, ``row``, and ``thresholds`` (mapping of method to threshold of |value|). The page opens
        there; exact values at this position and the clusters for these thresholds are stored in it.
    """
    description, buffers = scene.message(methods, limits)
    description["view"] = {"mm": scene.start_mm(), **view}
    readout = readout_at(scene, description["view"]["mm"])
    content = {
        "settings": dict(settings),
        "choices": _choices(description["panels"], settings["corrected"]),
        "checks": {
            name: text
            for name, text in CHECKS.items()
            if name not in ("truth", "atlas") or name in description["outlines"]
        },
        "scene": description,
        "readout": {"at": scene.voxel_at(description["view"]["mm"]), **as_text(readout)},
        "clusters": _clusters(scene, view.get("thresholds", {}), settings),
        "volumes": [b64encode(buffer).decode() for buffer in buffers],
    }
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(scene.title),
        hint=_hint(len(description["panels"]), len(scene.layers)),
        css=(HERE / "slices.css").read_text(encoding="utf-8"),
        javascript=script().replace("export default { render };", ""),
        # the text must not contain the end tag of a script element
        content=json.dumps(content).replace("<", "\\u003c"),
    )


def _hint(n_shown: int, n_maps: int) -> str:
    """That the page contains pictures of some of the maps only; empty if it contains all."""
    if n_shown == n_maps:
        return ""
    return (
        f"{n_shown} of {n_maps} maps are drawn; the table lists the others at the position of the saved view "
        "only. "
    )


def _choices(panels: Sequence[Mapping[str, Any]], corrected: str) -> dict[str, Any]:
    """Options of the controls of the page; `corrected` is the name of the corrected threshold."""
    choices: dict[str, Any] = {name: choice for name, choice in CHOICES.items() if name != "scale"}
    named = [corrected] if any(panel["corrected"] is not None for panel in panels) else []
    choices["threshold_kind"] = ((*KINDS[:CORRECTED], *named), choices["threshold_kind"][1])
    return choices


def _clusters(
    scene: Scene, thresholds: Mapping[str, float], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Requests that the page makes for clusters, with their answers."""
    sign, inside, found = SIGNS[settings["sign"]], bool(settings["inside"]), []
    for method, threshold in thresholds.items():
        rows = clusters_of(scene, scene.layers[method], threshold, sign=sign, inside=inside)
        found.append({"method": method, "threshold": threshold, "sign": sign, "inside": inside, "rows": rows})
    return found
