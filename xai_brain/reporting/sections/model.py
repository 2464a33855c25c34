"""Sections of the report about the networks behind the maps: their share of the variance, first layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.nifti import load_img
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures import first_layer as first_layer_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.sections.maps import cuts_through, underlay_of
from xai_brain.reporting.values import number

COMPONENTS = {"subject": "Subject", "model": "Model", "residual": "Residual"}
SCALINGS = {"none": "as they are", "l2": "each scaled to one size (L2)", "rank": "by the ranks of each"}


def variance(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    """What the template shows of evaluation/variance.tsv; None with one seed."""
    table = contents.evaluation("variance")
    if table is None:
        return None
    methods = list(dict.fromkeys(table["method"]))
    rows = {
        method: {row["component"]: row for row in part.to_dict("records")}
        for method, part in table.groupby("method", sort=False)
    }
    panels = {
        title: [
            {"name": method, "value": cell["share"], "low": number(cell["ci_low"]),
             "high": number(cell["ci_high"]), "chance": None}
            for method in methods if (cell := rows[method][component])["share"] == cell["share"]
        ]
        for component, title in COMPONENTS.items()
    }  # fmt: skip
    known = [method for method in methods if number(rows[method]["subject"]["share"]) is not None]
    first = rows[known[0]] if known else None
    chart = comparison_figures.interval_figure(panels, figures.method_colours(contents.methods))
    for ax in chart.axes:
        ax.set_xlim(-0.03, 1.03)  # shares of one whole
    shown = gallery.add("variance", chart) if known else None
    return {
        "rows": rows,
        "columns": COMPONENTS,
        "figure": shown,
        "example": {"method": known[0], **first} if first else None,
        "about": table.iloc[0].to_dict(),
        "scaling": SCALINGS.get(str(table["scaling"].iloc[0]), str(table["scaling"].iloc[0])),
        "set_to_0": table.loc[table["set_to_0"].astype(bool), ["method", "component"]].to_dict("records"),
        "maps": _model_shares(contents, gallery, methods),
    }


def _model_shares(contents: RunContents, gallery: Gallery, methods: list[str]) -> dict[str, Any] | None:
    paths = {method: contents.run.group_map(method, "variance-model", "share") for method in methods}
    images = {method: load_img(path) for method, path in paths.items() if path.exists()}
    if not images:
        return None
    underlay = underlay_of(contents, next(path for path in paths.values() if path.exists()))
    if underlay is None:
        return None
    point = slices.strongest_mm(list(images.values()), underlay)
    values = [slices.brain_values(img, underlay) for img in images.values()]
    scale = slices.Scale(slices.Scale.of(np.concatenate(values)).limit, signed=False)
    fig = brain_figures.slice_figure(underlay, images, cuts_through(point, underlay), scale)
    return {"figure": gallery.add("variance-model", fig, raster=True), "limit": scale.limit}


def first_layer(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    """What the template shows of evaluation/first_layer_networks.tsv; None when it was not asked for."""
    networks, channels = contents.evaluation("first_layer_networks"), contents.evaluation("first_layer")
    if networks is None or channels is None:
        return None
    first = networks.iloc[0]
    mine = channels[
        (channels[["seed", "fold", "comparison"]] == first[["seed", "fold", "comparison"]]).all(axis=1)
    ]
    second, _, reference = str(first["comparison"]).partition("-minus-")
    confounds = sorted({c for text in networks["confounds"].dropna() for c in str(text).split(", ")})
    fig = first_layer_figures.first_layer_figure(mine, (reference, second))
    return {
        "features": [
            _feature(str(comparison), str(feature), rows)
            for (comparison, feature), rows in networks.groupby(["comparison", "feature"], sort=False)
        ],
        "networks": _networks(networks),
        "n_channels": int(first["n_channels"]),
        "layer": first["layer"],
        "shown": {"seed": first["seed"], "fold": int(first["fold"]) + 1, "a": reference, "b": second,
                  "n": int(first["n_a"] + first["n_b"])},
        "confounds": confounds,
        "size_known": contents.setting("data.brain_size_column") in confounds,
        "n_perm": int(first["n_perm"]),
        "figure": gallery.add("first-layer", fig),
    }  # fmt: skip


def _feature(comparison: str, feature: str, rows: pd.DataFrame) -> dict[str, Any]:
    adjusted = rows["share_adjusted"].dropna() * rows["n_channels"]
    return {
        "name": feature,
        "difference": " minus ".join(comparison.split("-minus-")),
        "mean": rows["n_different"].mean(),
        "low": int(rows["n_different"].min()),
        "high": int(rows["n_different"].max()),
        "adjusted": (adjusted.mean(), adjusted.min(), adjusted.max()) if len(adjusted) else None,
        "permuted": (rows["null_share"] * rows["n_channels"]).mean(),
        "more_than_permuted": int((rows["p_share"] <= 0.05).sum()),
        "size": rows["median_size"].mean(),
        "n_networks": len(rows),
    }


def _networks(networks: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per network and pair of classes, with the counts of both features."""
    keys = ["seed", "fold", "comparison"]
    return [
        {
            **dict(zip(keys, key, strict=True)),
            "n_a": int(rows["n_a"].iloc[0]),
            "n_b": int(rows["n_b"].iloc[0]),
            **{row.feature: row for row in rows.itertuples()},
        }
        for key, rows in networks.groupby(keys, sort=False)
    ]
