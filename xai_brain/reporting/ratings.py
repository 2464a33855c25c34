"""Conclusions about methods from planted effects, and methods that an evaluation does not contain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xai_brain.metrics.report_card import COLUMNS, Verdict, verdicts
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.method_descriptions import explains_network
from xai_brain.reporting.wording import fixed

MARKS = {"yes": "●", "with care": "◐", "no": "○", "not rated": ""}
MEANINGS = {
    "yes": "● can be interpreted",
    "with care": "◐ with caution",
    "no": "○ should not be interpreted",
    "not rated": "not rated",
}
NO_METRICS = "not rated, because the report card lacks its location or its maps of random weights"
NO_CARD = (
    "not rated, because the report card of planted effects has no maps of it with the settings of this run"
)


@dataclass(frozen=True)
class Rating:
    """What a report card of planted effects in the same cohort says about a method of this run.

    Parameters
    ----------
    verdict : xai_brain.metrics.report_card.Verdict, optional
        None if the method is not part of the card.
    rra : dict, optional
        Row of the relevance rank accuracy: value, ci_low, ci_high, chance.
    """

    verdict: Verdict | None = None
    rra: dict[str, Any] | None = None

    @property
    def believe(self) -> str:
        """``yes``, ``with care``, ``no`` or ``not rated``."""
        return self.verdict.believe if self.verdict is not None else "not rated"

    @property
    def mark(self) -> str:
        return MARKS[self.believe]

    @property
    def meaning(self) -> str:
        return MEANINGS[self.believe]

    @property
    def reasons(self) -> str:
        """Sentences of the card, or why there are none."""
        if self.verdict is None:
            return f"{NO_CARD.capitalize()}."
        return reasons_of(self.verdict)

    @property
    def in_short(self) -> str:
        """Words of a caption."""
        if self.verdict is None:
            return NO_CARD
        if self.rra is None:
            return f"{self.meaning} (its location was not evaluated)"
        value, chance = self.rra["value"], self.rra["chance"]
        shown = f"{self.mark} {fixed(value, 2)}".strip()
        return f"{shown} of its highest voxels inside the effect (chance {fixed(chance, 2)})"


def reasons_of(verdict: Verdict) -> str:
    """Sentences of a report card about a method, and why it is not rated."""
    missing = [f"{NO_METRICS.capitalize()}."]
    unrated = verdict.kind != "baseline" and verdict.believe == "not rated"
    return " ".join([*verdict.sentences, *missing * unrated])


@lru_cache(maxsize=1)
def calibration_of(contents: ReportContents) -> dict[str, Rating]:
    """Ratings of all methods of a run by the report card of `evaluation.calibration`; empty without one."""
    table = contents.evaluation("calibration")
    if table is None:
        return {}
    rated = {verdict.method: verdict for verdict in verdicts(table[COLUMNS])}
    rra = table[table["metric"] == "rra"].set_index("method")
    return {
        method: Rating(rated.get(method), rra.loc[method].to_dict() if method in rra.index else None)
        for method in contents.methods
    }


@lru_cache(maxsize=1)
def believed(contents: ReportContents) -> dict[str, str]:
    """What a report card, of this run or of planted effects in its cohort, says about each method.

    Returns
    -------
    dict of method to str
        ``yes``, ``with care``, ``no``, ``not rated`` (metrics are missing) or ``absent`` (from the card), of
        methods that depend on the network; empty without a card.
    """
    card = contents.evaluation("report_card")
    if card is not None:
        found = {v.method: v.believe for v in verdicts(card[[name for name in COLUMNS if name in card]])}
        rated = {method: found.get(method, "absent") for method in contents.methods}
    else:
        rated = {
            method: rating.believe if rating.verdict is not None else "absent"
            for method, rating in calibration_of(contents).items()
        }
    return {method: believe for method, believe in rated.items() if explains_network(contents, method)}


def not_evaluated(contents: ReportContents) -> list[str]:
    """Methods with maps that the tables of the evaluation do not contain, as after a failed evaluation.

    Methods that were removed from the settings are not listed. Empty if nothing was evaluated yet, which the
    sections of the maps say.
    """
    tables = {name: contents.evaluation(name) for name in ("agreement", "localization")}
    evaluated: list[set[str]] = []
    if (pairs := tables["agreement"]) is not None:
        evaluated.append({*pairs["method_a"], *pairs["method_b"]})
    if (scores := tables["localization"]) is not None:
        evaluated.append(set(scores["method"]))
    if not evaluated and contents.mean_maps:
        evaluated.append(set(contents.mean_maps))
    chosen = {*(contents.setting("attribution") or {}), *(contents.setting("imported_methods") or [])}
    return [
        method
        for method in contents.methods
        if method in chosen and any(method not in known for known in evaluated)
    ]
