"""Section of the report: first layer of the networks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import first_layer as first_layer_figures
from xai_brain.reporting.figures.style import class_colours, for_screens
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE, REPORTED_AS = 130, "First layer", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Contents of evaluation/first_layer_networks.tsv; None if the analysis was not requested."""
    networks, channels = contents.evaluation("first_layer_networks"), contents.evaluation("first_layer")
    if networks is None or channels is None:
        return None
    first = networks.iloc[0]
    compared = channels[
        (channels[["seed", "fold", "comparison"]] == first[["seed", "fold", "comparison"]]).all(axis=1)
    ]
    second, _, reference = str(first["comparison"]).partition("-minus-")
    confounds = sorted({c for text in networks["confounds"].dropna() for c in str(text).split(", ")})
    colours = class_colours(contents.class_names)
    colours = {name: colours[name] for name in (reference, second)}
    figures = for_screens(first_layer_figures.first_layer_figure, compared, colours)
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
        "figure": gallery.add("first-layer", **figures),
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
    """One row for each network and pair of classes, with the counts of both features."""
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
