"""Tables of a detection benchmark: all cells with their best method, and methods by kind of effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

LEARNED = 0.8  # AUROC above which the network of a cell has learned the effect
MASK = "MeaningfulPerturbation"  # the default mask
CELL = ["cell", "network", "effect", "places", "size"]
ESTIMATE = ["value", "ci_low", "ci_high"]


def cell_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell: the network's AUROC, the best method and the default mask.

    Parameters
    ----------
    table : pandas.DataFrame
        detection.tsv: one row for the network of a cell (kind ``network``) and one for each method.

    Returns
    -------
    pandas.DataFrame
        `CELL`, auroc, best (method with the highest mean) and mask, each with its interval; mask_within
        (the mean of the mask is not below the interval of the best method), n_found and found (methods).
    """
    rows = []
    for _, part in table.groupby("cell", sort=False):
        network, methods = part[part["kind"] == "network"].iloc[0], part[part["kind"] == "method"]
        best, mask = methods.loc[methods["value"].idxmax()], methods[methods["method"] == MASK]
        row: dict[str, Any] = dict(network[CELL])
        row |= _named("auroc", network) | {"best_method": best["method"]} | _named("best", best)
        empty = pd.Series(np.nan, index=ESTIMATE)
        row |= _named("mask", mask.iloc[0] if len(mask) else empty)
        row["mask_within"] = bool(row["mask"] >= best["ci_low"])
        found = methods[methods["found"].astype(bool)].sort_values("value", ascending=False)["method"]
        rows.append({**row, "n_found": len(found), "found": ", ".join(found)})
    return pd.DataFrame(rows)


def _named(name: str, row: pd.Series) -> dict[str, Any]:
    return {name: row["value"], f"{name}_ci_low": row["ci_low"], f"{name}_ci_high": row["ci_high"]}


def method_table(table: pd.DataFrame) -> pd.DataFrame:
    """Which method finds which kind of effect, in the cells whose network has learned it.

    Parameters
    ----------
    table : pandas.DataFrame
        As for `cell_table`.

    Returns
    -------
    pandas.DataFrame
        effect, places, method, kind, n_cells, n_learned (cells with an AUROC above `LEARNED`; the following
        columns refer to these), n_found, n_within (cells in which the mean is not below the interval of the
        best method), mean (over cells). The methods with the highest mean come first.
    """
    auroc = table[table["kind"] == "network"].set_index("cell")["value"]
    best = table[table["kind"] == "method"].sort_values("value").groupby("cell")["ci_low"].last()
    maps = table[table["kind"] != "network"]
    maps = maps.assign(
        learned=maps["cell"].map(auroc) > LEARNED,
        within=maps["value"] >= maps["cell"].map(best),
        found=maps["found"].astype(bool),
    )
    rows = []
    keys = ["effect", "places", "method", "kind"]
    for key, part in maps.groupby(keys, sort=False):
        of = part[part["learned"]]
        counts = {"n_cells": len(part), "n_learned": len(of), "n_found": int(of["found"].sum())}
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                **counts,
                "n_within": int(of["within"].sum()),
                "mean": of["value"].mean(),
            }
        )
    found = pd.DataFrame(rows)
    order = {
        name: k for k, name in enumerate(dict.fromkeys(zip(found["effect"], found["places"], strict=True)))
    }
    number = [order[key] for key in zip(found["effect"], found["places"], strict=True)]
    is_baseline = found["kind"] == "baseline"
    sorted_ = found.assign(number=number, is_baseline=is_baseline).sort_values(
        ["number", "is_baseline", "mean"], ascending=[True, True, False], kind="stable"
    )
    return sorted_.drop(columns=["number", "is_baseline"]).reset_index(drop=True)
