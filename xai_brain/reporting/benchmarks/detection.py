"""The page of a detection benchmark: two figures, methods by kind of effect, and all cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.metrics.cells.summary import LEARNED, cell_table, method_table
from xai_brain.reporting.benchmarks.pages import write_benchmark_page
from xai_brain.reporting.figures.detection import auroc_figure, rank_figure
from xai_brain.reporting.figures.style import style


def write_page(folder: Path, table: pd.DataFrame, settings: Mapping[str, Any]) -> None:
    """Write ``detection_auroc.png``, ``detection_methods.png`` and ``report.html``.

    Parameters
    ----------
    folder : Path
    table : pandas.DataFrame
        detection.tsv.
    settings : mapping
        Settings of the benchmark, as config.yaml contains them.
    """
    cells, perms = cell_table(table), sorted(table["n_perm"].unique())
    is_learned = cells["auroc"] > LEARNED
    context = {
        "title": settings["name"],
        "cells": cells.to_dict("records"),
        "methods": method_table(table).to_dict("records"),
        "learned": LEARNED,
        "n_learned": int(is_learned.sum()),
        "n_mask": int((is_learned & cells["mask_within"]).sum()),
        "n_test": int(table["n_subjects"].max()),
        "n_perm": " or ".join(map(str, perms)),
        "n_null": settings["detection"]["n_participants"],
    }
    with style():
        figures = {"detection_auroc": auroc_figure(table), "detection_methods": rank_figure(table)}
        write_benchmark_page(folder, "detection.html.j2", figures, context)
