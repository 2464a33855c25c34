"""Tables and figures of the detection benchmark on IXI, from the table that is part of the package."""

from __future__ import annotations

from pathlib import Path

from xai_brain.metrics.cells.reference import FILE
from xai_brain.metrics.cells.summary import LEARNED, MASK, cell_table, method_table
from xai_brain.reporting.figures.detection import auroc_figure, rank_figure
from xai_brain.reporting.figures.style import style
from xai_brain.reporting.wording import fixed, interval
from xai_brain.runs.directory import read_tsv

FOLDER = Path(__file__).parents[1] / "_gallery"


def detection() -> str:
    """Methods by kind of effect, and all cells, as Markdown; the figures are written beside the gallery."""
    table = read_tsv(FILE)
    FOLDER.mkdir(exist_ok=True)
    with style():
        auroc_figure(table).savefig(FOLDER / "detection_auroc.png", dpi=120, bbox_inches="tight")
        rank_figure(table).savefig(FOLDER / "detection_methods.png", dpi=120, bbox_inches="tight")
    return "\n".join([*_by_effect(table), "", "## All cells", "", *_cells(table)])


def _by_effect(table) -> list[str]:
    """Mean rank accuracy, and cells in which the effect was found, of each method by kind of effect."""
    methods = method_table(table)
    kinds = list(dict.fromkeys(zip(methods["effect"], methods["places"], strict=True)))
    learned = methods.drop_duplicates(["effect", "places"])["n_learned"]
    heads = [f"{effect}, {places} ({n} cells)" for (effect, places), n in zip(kinds, learned, strict=True)]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    order = methods.groupby(["kind", "method"])["mean"].mean().sort_values(ascending=False).index
    for kind, method in sorted(order, key=lambda pair: pair[0] == "baseline"):
        own = methods[methods["method"] == method].set_index(["effect", "places"])
        cells = [f"{fixed(own.loc[k, 'mean'], 2)} ({own.loc[k, 'n_found']})" for k in kinds]
        lines.append(f"| {method + (', no network' if kind == 'baseline' else '')} | {' | '.join(cells)} |")
    return lines


def _cells(table) -> list[str]:
    """One line for each cell."""
    lines = ["| network, effect, places, size | AUROC | best method | default mask |", "|---|---|---|---|"]
    for row in cell_table(table).itertuples():
        name = f"{row.network}, {row.effect}, {row.places}, {row.size:g}".replace("-", "−")
        auroc = f"{fixed(row.auroc, 2)} ({interval(row.auroc_ci_low, row.auroc_ci_high, 2)})"
        best = f"{row.best_method} {fixed(row.best, 2)} ({interval(row.best_ci_low, row.best_ci_high, 2)})"
        mask = "the same"
        if row.best_method != MASK:
            within = ", within" if row.mask_within and row.auroc > LEARNED else ""
            mask = f"{fixed(row.mask, 2)} ({interval(row.mask_ci_low, row.mask_ci_high, 2)}){within}"
        lines.append(f"| {name} | {auroc} | {best} | {mask} |")
    return lines
