"""Sections of the report about maps: means, single subjects, localisation, agreement, methods.

Every function takes the contents of a run and a gallery for its figures, and returns what the template
shows, or None when the run does not hold it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import clusters as cluster_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.references import short_citation
from xai_brain.reporting.values import ShownSubject, number
from xai_brain.runs.directory import read_json

AXIAL_MM = (-28.0, -8.0, 10.0, 30.0, 50.0)
LOCALIZATION = ("rma", "rra", "pointing")  # shown in this order


def underlay_of(contents: RunContents, like: Path) -> nib.Nifti1Image | None:
    """Template in MNI152, else the mean of some prepared images on the grid of the maps."""
    if is_mni152(contents.space):
        return _template()
    images = [load_img(path) for path in contents.some_images()]
    images = [img for img in images if img.shape == load_img(like).shape]
    if not images:
        return None
    return nib.Nifti1Image(np.mean([img.get_fdata() for img in images], axis=0), images[0].affine)


@lru_cache(maxsize=1)
def _template() -> nib.Nifti1Image:
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=2)


def cuts_through(point: np.ndarray, underlay: nib.Nifti1Image) -> list[brain_figures.Cut]:
    """A sagittal, a coronal and several axial cuts; all but the other axial ones go through the point."""
    bounds = slices.world_bounds(underlay)
    axial = [z for z in AXIAL_MM if bounds[2][0] < z < bounds[2][1]] or list(np.linspace(*bounds[2], 8)[1:-1])
    nearest = int(np.argmin(np.abs(np.array(axial) - point[2])))
    axial[nearest] = float(point[2])
    return [("x", float(point[0])), ("y", float(point[1])), *(("z", z) for z in sorted(axial))]


def mean_maps(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    if not contents.group_maps:
        return None
    underlay = underlay_of(contents, next(iter(next(iter(contents.group_maps.values())).values())))
    if underlay is None:
        return None
    loaded = {
        method: {name: load_img(path) for name, path in contents.group_maps[method].items()}
        for method in [*contents.methods]
        if method in contents.group_maps
    }
    truth = load_img(contents.group_truth) if contents.group_truth else None
    centre = slices.centre_mm(truth) if truth is not None else None
    every = [img for classes in loaded.values() for img in classes.values()]
    point = centre if centre is not None else slices.strongest_mm(every, underlay)
    cuts = cuts_through(point, underlay)
    shown = []
    for method, classes in loaded.items():
        scale = slices.Scale.of(
            np.concatenate([slices.brain_values(img, underlay) for img in classes.values()])
        )
        fig = brain_figures.slice_figure(underlay, classes, cuts, scale, truth)
        shown.append(
            {
                "method": method,
                "figure": gallery.add(f"mean-map_{method}", fig, raster=True),
                "scale": scale,
                "n": {name: contents.n_explained(method, name) for name in classes},
                "n_empty": contents.metrics.get(f"empty_maps/{method}", 0),
            }
        )
    return {
        "shown": shown,
        "point": [round(float(mm)) for mm in point],
        "truth": centre is not None,
        "truth_share": float(np.max(truth.dataobj)) if truth is not None else None,
        "on_template": is_mni152(contents.space),
    }


def subjects(contents: RunContents, gallery: Gallery) -> list[dict[str, Any]]:
    return [_subject(subject, gallery) for subject in contents.shown_subjects() if subject.image.exists()]


def _subject(subject: ShownSubject, gallery: Gallery) -> dict[str, Any]:
    truth = load_img(subject.truth) if subject.truth.exists() else None
    truth = truth if truth is not None and np.max(truth.dataobj) > 0 else None
    maps = {method: load_img(path) for method, path in subject.maps.items()}
    fig, point = brain_figures.subject_figure(load_img(subject.image), maps, truth)
    # methods that explain the same output of the same class are said together
    explains: dict[tuple[str, str, float | None], list[str]] = {}
    for method, sidecar in subject.sidecars.items():
        key = (str(sidecar.get("TargetName")), str(sidecar.get("Output", "")).replace("_", " "),
               number(sidecar.get("TargetProbability")))  # fmt: skip
        explains.setdefault(key, []).append(method)
    name = "_".join(part for part in ("subject", subject.participant_id, subject.session_id) if part)
    return {
        "subject": subject,
        "figure": gallery.add(name, fig, raster=True),
        "point": [round(float(mm)) for mm in point],
        "truth": truth is not None,
        "explains": [
            {"class": k[0], "output": k[1], "probability": k[2], "methods": m} for k, m in explains.items()
        ],
    }


def method(contents: RunContents, name: str) -> dict[str, Any]:
    """Settings of a method as the config has them, and what a sidecar adds."""
    settings = dict(contents.setting(f"attribution.{name}", {}) or {})
    target = str(settings.pop("_target_", ""))
    settings.pop("_partial_", None)
    files = sorted((contents.run.path / "attributions").rglob(f"*_desc-{name}_attribution.json"))
    sidecar = read_json(files[0]) if files else {}
    kind = target.rsplit(".", 1)[-1] or name
    return {
        "name": name,
        "kind": kind,
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


def localization(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.summary("localization")
    if table.empty:
        return None
    table = table[table["metric"].isin(LOCALIZATION)]
    first = table[table["metric"] == "rma"].sort_values("mean", ascending=False)
    order = list(dict.fromkeys([*first["method"], *table["method"]]))
    rows: dict[str, dict[str, Any]] = {method: {} for method in order}
    panels: dict[str, list[dict[str, Any]]] = {}
    for metric in LOCALIZATION:
        part = table[table["metric"] == metric].set_index("method")
        for method in [m for m in order if m in part.index]:
            row = part.loc[method]
            chance = number(row["chance"])
            cell = {
                "name": method, "value": float(row["mean"]), "low": number(row["ci_low"]),
                "high": number(row["ci_high"]), "chance": chance, "n": row["n"],
                "ratio": float(row["mean"]) / chance if chance else None,
            }  # fmt: skip
            rows[method][metric] = cell
            panels.setdefault(METRICS[metric].title, []).append(cell)
    colours = figures.method_colours(contents.methods)
    return {
        "rows": rows,
        "best": order[0],
        "chance": {metric: number(part["chance"].mean()) for metric, part in table.groupby("metric")},
        "n": int(table["n"].max()),
        "figure": gallery.add("localization", comparison_figures.interval_figure(panels, colours)),
    }


def agreement(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.summary("agreement")
    if table.empty or not (table["metric"] == "dice").any():
        return None
    pairs = table["method"].str.split(" × ", n=1, expand=True, regex=False)
    table = table.assign(method_a=pairs[0], method_b=pairs[1])
    dice = table[table["metric"] == "dice"]
    percents = sorted(dice["top_percent"].unique())
    at = min(percents, key=lambda percent: abs(percent - 10))
    here = table[(table["top_percent"] == at) | table["top_percent"].isna()]
    columns = [
        m for m in ("dice", "iou", "spearman", "cosine", "voxel_agreement") if (here["metric"] == m).any()
    ]
    rows = {
        pair: {row["metric"]: row for row in part.to_dict("records")}
        for pair, part in here.groupby("method", sort=False)
    }
    rows = dict(sorted(rows.items(), key=lambda item: -item[1]["dice"]["mean"] if "dice" in item[1] else 0))
    values = [row["dice"]["mean"] for row in rows.values() if "dice" in row]
    return {
        "rows": rows,
        "columns": columns,
        "chance": {m: number(here.loc[here["metric"] == m, "chance"].mean()) for m in columns},
        "percent": at,
        "least_voxel_agreement": max(0.0, 1 - 2 * at / 100),
        "range": (min(values), max(values)),
        "n": int(dice["n"].max()),
        "classes": _class_agreement(contents, at),
        "figure": gallery.add("agreement", comparison_figures.dice_figure(dice, contents.methods)),
        "clusters": _clusters(contents, gallery, table[table["metric"] == "spearman"]),
        "groups": _group_agreement(contents, at),
    }


def _clusters(contents: RunContents, gallery: Gallery, pairs: pd.DataFrame) -> dict[str, Any] | None:
    """Merges of evaluation/method_clusters.tsv, drawn beside the mean rank correlations of pairs."""
    merges = contents.evaluation("method_clusters")
    if merges is None:
        return None
    one_way = pairs.set_index(["method_a", "method_b"])["mean"]
    similarity = one_way.combine_first(one_way.swaplevel()).unstack().fillna(1)  # of a method with itself
    fig = cluster_figures.cluster_figure(merges, similarity)
    return {"merges": merges.to_dict("records"), "figure": gallery.add("method-clusters", fig)}


def _class_agreement(contents: RunContents, percent: float) -> dict[str, dict[str, dict[str, float]]]:
    """Agreement of the classes' mean maps: pair -> class -> metric -> value (mean over seeds)."""
    tidy = contents.evaluation("agreement")
    if tidy is None:
        return {}
    at = (tidy["top_percent"] == percent) | tidy["top_percent"].isna()
    tidy = tidy[(tidy["level"] == "class") & at]
    tidy = tidy.assign(pair=tidy["method_a"] + " × " + tidy["method_b"], name=tidy["name"].astype(str))
    return {
        str(pair): {
            str(name): rows.groupby("metric")["value"].mean().to_dict() for name, rows in part.groupby("name")
        }
        for pair, part in tidy.groupby("pair", sort=False)
    }


def _group_agreement(contents: RunContents, percent: float) -> list[dict[str, Any]]:
    """Agreement of the methods' t maps and differences, a row per pair, difference of classes and map."""
    table = contents.evaluation("group_agreement")
    if table is None:
        return []
    table = table[(table["top_percent"] == percent) | table["top_percent"].isna()]
    keys = ["method_a", "method_b", "comparison", "map"]
    return [
        {
            "pair": f"{a} × {b}",
            "difference": str(comparison).replace("-minus-", " minus "),
            "map": {"t": "t", "difference": "difference of the means"}[str(what)],
            **dict(zip(part["metric"], part["value"], strict=True)),
        }
        for (a, b, comparison, what), part in table.groupby(keys, sort=False)
    ]
