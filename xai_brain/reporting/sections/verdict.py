"""First section of the report: verdict and one figure."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.brain_size import has_own_classes
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.differences import differences_of
from xai_brain.reporting.figures import verdict as verdict_figures
from xai_brain.reporting.figures.style import SOFT, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import Estimate
from xai_brain.reporting.verdict import Verdict, method_pairs, verdict_of

POSITION, TITLE = 0, "Verdict"
SHOWN = 6  # methods in the figure, so that it is on the first screen
SIZE, AGREEMENT = "brain size only", "Rank correlation ρ"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any]:
    """The verdict of `xai_brain.reporting.verdict`, and its figure."""
    verdict = verdict_of(contents)
    panels, dots = _panels(contents, verdict)
    figure = None
    if panels:
        styles = {**method_styles(contents.methods), SIZE: {"color": SOFT}}
        wide = verdict_figures.verdict_figure(panels, styles, dots)
        # on a phone there is room for two panels, and the text contains the agreement
        first = dict(list(panels.items())[:2])
        narrow = verdict_figures.verdict_figure(first, styles, dots, narrow=True)
        figure = gallery.add("verdict", wide, narrow=narrow)
    return {
        "verdict": verdict,
        "differences": differences_of(contents),
        "figure": figure,
        "shown": SHOWN,
        "own_classes": has_own_classes(contents),
    }


def _panels(
    contents: ReportContents, verdict: Verdict
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, list[float]]]]:
    panels: dict[str, dict[str, Estimate]] = {}
    kind = verdict.auroc_title.partition(", ")[2]
    learned = {
        f"AUROC ({kind})": verdict.auroc,
        SIZE: verdict.brain_size,
        "balanced accuracy": verdict.balanced,
    }
    if verdict.number is not None:
        learned = {f"R² ({verdict.number.kind})": verdict.number.r2}
    if known := {name: estimate for name, estimate in learned.items() if estimate is not None}:
        panels["Network against a constant" if verdict.number else "Network against chance"] = known
    if verdict.ranking:
        panels["Relevance rank accuracy"] = dict(list(verdict.ranking.items())[:SHOWN])
    dots: dict[str, dict[str, list[float]]] = {}
    pairs = method_pairs(contents)
    if verdict.agreement is not None:
        agreement, single = {}, {}
        for method in [*(verdict.ranking or contents.methods)][:SHOWN]:
            own = pairs.loc[(pairs["method_a"] == method) | (pairs["method_b"] == method), "mean"].dropna()
            if len(own):
                agreement[method] = Estimate(float(own.mean()), chance=verdict.agreement.chance)
                single[method] = own.tolist()
        panels[AGREEMENT], dots[AGREEMENT] = agreement, single
    return panels, dots
