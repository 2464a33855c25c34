"""Section of the report: agreement of methods."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import clusters as cluster_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.sections.groups import STATISTICS, label_of
from xai_brain.reporting.values import number
from xai_brain.reporting.wording import contrast_in_words

POSITION, TITLE = 110, "Agreement of methods"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.summary("agreement")
    if table.empty or not (table["metric"] == "dice").any():
        return {} if len(contents.methods) > 1 else None  # the section says how to compute it
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
        "figure": gallery.add(
            "agreement", **for_screens(comparison_figures.dice_figure, dice, contents.methods)
        ),
        "clusters": _clusters(contents, gallery, table[table["metric"] == "spearman"]),
        "groups": _group_agreement(contents, at),
    }


def _clusters(contents: ReportContents, gallery: Gallery, pairs: pd.DataFrame) -> dict[str, Any] | None:
    """Clusters of evaluation/method_clusters.tsv and mean rank correlations of pairs."""
    merges = contents.evaluation("method_clusters")
    if merges is None:
        return None
    one_way = pairs[["method_a", "method_b", "mean"]]
    other_way = one_way.rename(columns={"method_a": "method_b", "method_b": "method_a"})
    both = pd.concat([one_way, other_way]).drop_duplicates(["method_a", "method_b"])
    similarity = both.pivot(index="method_a", columns="method_b", values="mean").fillna(1)  # with itself
    figures = for_screens(cluster_figures.cluster_figure, merges, similarity)
    return {"merges": merges.to_dict("records"), "figure": gallery.add("method-clusters", **figures)}


def _class_agreement(contents: ReportContents, percent: float) -> dict[str, dict[str, dict[str, float]]]:
    """Agreement of the mean maps of the classes: pair -> class -> metric -> value (mean over seeds)."""
    tidy = contents.evaluation("agreement")
    if tidy is None or not contents.task.has_classes:
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


def _group_agreement(contents: ReportContents, percent: float) -> list[dict[str, Any]]:
    """Agreement of t maps and difference maps, a row for each pair, difference and map."""
    table = contents.evaluation("group_agreement")
    if table is None:
        return []
    table = table[(table["top_percent"] == percent) | table["top_percent"].isna()]
    keys = ["method_a", "method_b", "comparison", "map"]
    return [
        {
            "pair": f"{a} × {b}",
            "difference": contrast_in_words(str(comparison), label_of(contents)),
            "map": STATISTICS[str(what)],
            **dict(zip(part["metric"], part["value"], strict=True)),
        }
        for (a, b, comparison, what), part in table.groupby(keys, sort=False)
    ]
