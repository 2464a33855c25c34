"""Where a report card stands among the cells of the detection benchmark on IXI.

``detection_ixi.tsv`` and ``detection_ixi.json`` beside this module were written by ``xai-brain run
experiment=detection_ixi`` as ``detection.tsv`` and ``detection.json``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.runs.directory import read_json, read_tsv

FILE = Path(__file__).parent / "detection_ixi.tsv"
NEAR = 0.05  # greatest difference between two similar AUROCs
DEFORMING = ("atrophy", "expansion")


@dataclass(frozen=True)
class SimilarCells:
    """Cells with the same kind of effect and a network of similar AUROC.

    Parameters
    ----------
    names : list of str
        Names of the cells.
    aurocs : list of float
        AUROC of their networks.
    methods : pandas.DataFrame
        method, n_found (cells in which it finds the effect), n_cells, low and high (range of its mean
        relevance rank accuracy); the methods that find most come first.
    provenance : dict
        Content of detection.json.
    """

    names: list[str]
    aurocs: list[float]
    methods: pd.DataFrame
    provenance: dict[str, Any]


def similar_cells(
    kind: str, auroc: float, methods: Iterable[str], table: pd.DataFrame | None = None
) -> SimilarCells | None:
    """Cells of the benchmark on IXI that are comparable to a cohort with a planted effect.

    Parameters
    ----------
    kind : str
        ``planted.kind``; atrophy and expansion count as one kind.
    auroc : float
        Of the network in the cohort.
    methods : iterable of str
        Methods of interest.
    table : pandas.DataFrame, optional
        detection.tsv of another benchmark.

    Returns
    -------
    SimilarCells or None
        None if no cell has this kind of effect and an AUROC within `NEAR`, or no method was tested there.
    """
    about = read_json(FILE.with_suffix(".json")) if table is None else {}
    table = read_tsv(FILE) if table is None else table
    kinds = DEFORMING if kind in DEFORMING else (kind,)
    networks = table[(table["kind"] == "network") & table["planted_kind"].isin(kinds)]
    networks = networks[(networks["value"] - auroc).abs() <= NEAR].sort_values("value")
    maps = table[table["cell"].isin(networks["cell"]) & table["method"].isin(list(methods))]
    maps = maps[maps["kind"] == "method"]
    if maps.empty:
        return None
    found = maps.assign(found=maps["found"].astype(bool)).groupby("method", as_index=False)
    summary = found.agg(
        n_found=("found", "sum"), n_cells=("cell", "size"), low=("value", "min"), high=("value", "max")
    )
    summary = summary.sort_values(["n_found", "high"], ascending=False, ignore_index=True)
    return SimilarCells(networks["cell"].tolist(), networks["value"].tolist(), summary, about)
