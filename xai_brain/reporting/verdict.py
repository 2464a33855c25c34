"""Verdict on a run: has the network learned, may its maps be interpreted, do the methods agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import pandas as pd

from xai_brain.reporting.brain_size import size_baseline, unused_size_column
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.method_descriptions import explains_network
from xai_brain.reporting.number_verdict import NumberScores, number_scores
from xai_brain.reporting.ratings import believed, not_evaluated
from xai_brain.reporting.values import Estimate, number
from xai_brain.reporting.wording import fixed, interval, listed, significant

MOST = 0.5  # relevance rank accuracy of a method whose maps show mainly the effect
MARGIN = 0.05  # by which the lower bound of balanced accuracy must exceed chance


@dataclass(frozen=True)
class Verdict:
    """Answers to the three questions at the beginning of a report.

    Parameters
    ----------
    auroc_title : str
        Which AUROC is meant, e.g. ``AUROC, mean over folds``.
    auroc, balanced : Estimate, optional
        Of the networks, for participants that were not used for training.
    brain_size : Estimate, optional
        The same AUROC of a classifier that uses brain size only.
    learned : str
        ``yes``; ``imprecise`` (above chance, but by little or with a wide interval); ``weak`` (the AUROC is
        above chance, the balanced accuracy is not); ``no`` (there is no evidence); or ``unknown``.
    doubt : str
        The intervals that decide, if `learned` is not ``yes``; otherwise empty.
    explained_by_size : str
        Why brain size may explain the performance; empty if there is no reason.
    size_column : str, optional
        Column of participants.tsv that looks like brain size, although none is set.
    ranking : dict of method to Estimate
        Relevance rank accuracy of the methods that depend on the network, the highest first; empty without a
        known location.
    believed : dict of method to str
        What a report card says about each method (`xai_brain.reporting.ratings.believed`).
    not_evaluated : list of str
        Methods with maps that the evaluation does not contain.
    agreement : Estimate, optional
        Mean over pairs of methods of the rank correlation of their maps; `low` and `high` are the range.
    n_pairs : int
    """

    auroc_title: str
    auroc: Estimate | None
    balanced: Estimate | None
    brain_size: Estimate | None
    learned: str
    doubt: str
    explained_by_size: str
    size_column: str | None
    ranking: dict[str, Estimate]
    believed: dict[str, str]
    not_evaluated: list[str]
    agreement: Estimate | None
    n_pairs: int
    number: NumberScores | None = None  # of networks that predict a number; then there is no AUROC
    baselines: dict[str, Estimate] = field(default_factory=dict)  # as `ranking`, of maps without a network

    @property
    def reasons(self) -> list[str]:
        """Why the maps cannot be interpreted, or only with caution, as the section of performance states."""
        if self.learned == "no":
            return [self.doubt]
        return [reason for reason in (self.doubt, self.explained_by_size) if reason]

    @property
    def consequence(self) -> str:
        """What follows for the maps, in one sentence; empty if there is no reason for a warning."""
        if self.learned == "no":
            return (
                "These maps should not be interpreted, because there is no evidence that the network is "
                f"better than {'chance' if self.number is None else 'the mean of the target'}."
            )
        parts = ["contain much noise"] * bool(self.doubt) + ["show brain size"] * bool(self.explained_by_size)
        return f"These maps may {' and '.join(parts)}." if parts else ""

    @property
    def interpretable(self) -> str:
        """``yes``, ``care``, ``no`` or ``unknown``."""
        if self.learned in ("no", "unknown"):
            return self.learned
        rated = [believe for believe in self.believed.values() if believe not in ("not rated", "absent")]
        if rated and all(believe == "no" for believe in rated):
            return "no"
        found = [estimate.value >= MOST for estimate in self.ranking.values()]
        good = bool(found) and all(found) and all(believe == "yes" for believe in rated)
        below = self.number is not None and bool(self.better_baseline)
        return "yes" if good and not self.reasons and not below else "care"

    @property
    def localisation(self) -> str:
        """How well the methods find a known location, in one sentence; empty without one."""
        if not self.ranking:
            return ""
        names, estimates = list(self.ranking), list(self.ranking.values())
        n, best, worst = len(names), estimates[0], estimates[-1]
        chance = "" if best.chance is None else f", chance {significant(best.chance)}"
        above = sum(e.low is not None and e.chance is not None and e.low > e.chance for e in estimates)
        if n == 1:
            known = "above" if above else "not above"
            size = "at least" if best.value >= MOST else "below"
            return (
                f"{names[0]} has a relevance rank accuracy of {fixed(best.value)}{chance}: {known} chance "
                f"and {size} {MOST:g}."
            )
        n_most = sum(estimate.value >= MOST for estimate in estimates)
        reach = "reaches" if n_most == 1 else "reach"
        return (
            f"{above} of {n} methods are above chance at the known location, {n_most} of {n} {reach} "
            f"{MOST:g} (relevance rank accuracy{chance}): highest {names[0]} {fixed(best.value)}, lowest "
            f"{names[-1]} {fixed(worst.value)}."
        )

    @property
    def better_baseline(self) -> str:
        """That a map without a network has a better location than methods, in one sentence; or empty."""
        if not (self.ranking and self.baselines):
            return ""
        baseline, best = next(iter(self.baselines.items()))
        beaten = [name for name, estimate in self.ranking.items() if estimate.value < best.value]
        if not beaten:
            return ""
        methods = "every method" if len(beaten) == len(self.ranking) else listed(beaten)
        return (
            f"{baseline}, a baseline that uses no network, has a higher relevance rank accuracy "
            f"({fixed(best.value)}) than {methods}: the effect is located better without the network."
        )

    @property
    def ratings(self) -> str:
        """Methods by what the report card says about them; empty without a card."""
        words = {
            "yes": "can be interpreted",
            "with care": "with caution",
            "no": "should not be interpreted",
            "not rated": "not rated for lack of metrics",
            "absent": "not part of it, so not rated",
        }
        groups = {word: [m for m, b in self.believed.items() if b == kind] for kind, word in words.items()}
        return "; ".join(f"{word}: {listed(methods)}" for word, methods in groups.items() if methods)

    @property
    def agreement_word(self) -> str:
        """How similar the maps of different methods are; limits at ρ = 0.3 and 0.7."""
        if self.agreement is None:
            return "unknown"
        value = self.agreement.value
        return "largely" if value >= 0.7 else "partly" if value >= 0.3 else "little"


@lru_cache(maxsize=1)
def verdict_of(contents: ReportContents) -> Verdict:
    """Verdict on a run from its tables and metrics; what has not been computed is unknown."""
    task, targets = contents.task, contents.predictions
    numbers = number_scores(contents) if task.reported_as == "number" else None
    chance = task.chance_levels(None if targets is None else targets["target"])
    found = {name: contents.estimate(f"test/{name}", chance.get(name)) for name in task.score_titles}
    area = contents.auroc
    auroc, balanced = found.get(area), found.get("balanced_accuracy")
    title = task.score_titles.get(area, "AUROC")
    brain_size, explained = size_baseline(contents, area)
    learned, doubt = rate_performance(title, auroc, balanced)
    if numbers is not None:
        learned, doubt = numbers.learned, numbers.doubt
    pairs = method_pairs(contents)
    values = pairs["mean"].dropna() if len(pairs) else pd.Series(dtype=float)
    agreement = None
    if len(values):
        agreement = Estimate(
            float(values.mean()), float(values.min()), float(values.max()), number(pairs["chance"].mean())
        )
    return Verdict(
        title,
        auroc,
        balanced,
        brain_size,
        learned,
        doubt,
        explained,
        unused_size_column(contents),
        _ranking(contents),
        believed(contents),
        not_evaluated(contents),
        agreement,
        len(values),
        numbers,
        _ranking(contents, of_networks=False),
    )


def _ranking(contents: ReportContents, *, of_networks: bool = True) -> dict[str, Estimate]:
    rows = contents.summary("localization", "rra")
    if rows.empty:
        return {}
    return {
        row["method"]: Estimate(
            float(row["mean"]), number(row["ci_low"]), number(row["ci_high"]), number(row["chance"])
        )
        for row in rows.sort_values("mean", ascending=False, kind="stable").to_dict("records")
        if number(row["mean"]) is not None and explains_network(contents, row["method"]) == of_networks
    }


def method_pairs(contents: ReportContents) -> pd.DataFrame:
    """Rank correlations of pairs of methods that depend on the network: method_a, method_b, mean, chance."""
    pairs = contents.summary("agreement", "spearman")
    if pairs.empty:
        return pairs
    names = pairs["method"].str.split(" × ", n=1, expand=True, regex=False)
    pairs = pairs.assign(method_a=names[0], method_b=names[1])
    known = [name for name in contents.methods if explains_network(contents, name)]
    return pairs[pairs["method_a"].isin(known) & pairs["method_b"].isin(known)]


def rate_performance(title: str, auroc: Estimate | None, balanced: Estimate | None) -> tuple[str, str]:
    """Whether a network has learned, from intervals for participants that were not used for training.

    Parameters
    ----------
    title : str
        Of the AUROC.
    auroc, balanced : Estimate, optional

    Returns
    -------
    learned, doubt : str
        As in `Verdict`.
    """
    if auroc is None:
        return "unknown", ""
    first, _, kind = title.partition(", ")
    named = f"{first} ({kind})" if kind else first
    if auroc.low is not None and auroc.low <= 0.5:
        limits = interval(auroc.low, auroc.high, 2)
        place = "includes 0.50" if auroc.high is None or auroc.high >= 0.5 else "is below 0.50"
        return "no", (
            "There is no evidence that the network is better than chance: the 95 % interval of the "
            f"{named}, {limits}, {place}"
        )
    if balanced is None or balanced.low is None or balanced.chance is None:
        return "yes", ""
    limits = interval(balanced.low, balanced.high, 2)
    if balanced.low <= balanced.chance:
        return "weak", (
            f"The evidence is weak: the 95 % interval of the {named} is above 0.50, but that of the balanced "
            f"accuracy, {limits}, is not above chance ({fixed(balanced.chance, 2)})"
        )
    if balanced.low <= balanced.chance + MARGIN:
        return "imprecise", (
            "The network is above chance, but by little or imprecisely: the 95 % interval of the balanced "
            f"accuracy, {limits}, begins at most {MARGIN:g} above chance ({fixed(balanced.chance, 2)})"
        )
    return "yes", ""
