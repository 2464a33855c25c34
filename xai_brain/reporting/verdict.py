"""Verdict on a run: has the network learned, may its maps be interpreted, do the methods agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.method_descriptions import explains_network
from xai_brain.reporting.values import Estimate, number

MOST = 0.5  # relevance rank accuracy of a method whose maps show mainly the effect
MARGIN = 0.05  # by which the lower bound of balanced accuracy must exceed chance
FEW_PAIRS = 10  # below which pairs matched for brain size give no evidence
BRAIN_SIZE = re.compile(
    r"e?(icv|tiv)|(est|estimated)?(total)?intracranialvol(ume)?|(total)?brain(seg)?(vol|volume|size)|tbv|"
    r"head(vol|volume|size)"
)
UNIT = re.compile(r"(ml|mm3|cm3|cc|l)$")


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
    at_chance : str
        Why there is no evidence that the network has learned the task; empty if there is.
    near_chance : str
        Why its performance is close to chance; empty if it is not, or if `at_chance` is not empty.
    explained_by_size : str
        Why brain size may explain the performance; empty if there is no reason.
    size_column : str, optional
        Column of participants.tsv that looks like brain size, although none is set.
    ranking : dict of method to Estimate
        Relevance rank accuracy of the methods that depend on the network, the highest first; empty without a
        known location.
    agreement : Estimate, optional
        Mean over pairs of methods of the rank correlation of their maps; `low` and `high` are the range.
    n_pairs : int
    """

    auroc_title: str
    auroc: Estimate | None
    balanced: Estimate | None
    brain_size: Estimate | None
    at_chance: str
    near_chance: str
    explained_by_size: str
    size_column: str | None
    ranking: dict[str, Estimate]
    agreement: Estimate | None
    n_pairs: int

    @property
    def warning(self) -> str:
        """One line that the sections of the maps repeat; empty if there is no reason."""
        if self.at_chance:
            return f"{self.at_chance}. These maps should not be interpreted."
        if self.near_chance:
            return f"{self.near_chance}. These maps may show mostly noise."
        return f"{self.explained_by_size}. These maps may show brain size." if self.explained_by_size else ""

    @property
    def learned(self) -> str:
        """``yes``, ``barely``, ``no`` (there is no evidence) or ``unknown``."""
        if self.auroc is None:
            return "unknown"
        return "no" if self.at_chance else "barely" if self.near_chance else "yes"

    @property
    def interpretable(self) -> str:
        """``yes``, ``care``, ``no`` or ``unknown``."""
        if self.learned in ("no", "unknown"):
            return self.learned
        found = [estimate.value >= MOST for estimate in self.ranking.values()]
        return "yes" if found and all(found) and not self.warning else "care"

    @property
    def n_above(self) -> int:
        """Methods whose relevance rank accuracy is above chance (lower bound of the interval)."""
        return sum(
            e.low is not None and e.chance is not None and e.low > e.chance for e in self.ranking.values()
        )

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
    chance = task.chance_levels(None if targets is None else targets["target"])
    found = {name: contents.estimate(f"test/{name}", chance.get(name)) for name in task.score_titles}
    area = contents.auroc
    auroc, balanced = found.get(area), found.get("balanced_accuracy")
    title = task.score_titles.get(area, "AUROC")
    brain_size, explained = _brain_size(contents, area)
    at_chance = _at_chance(title, auroc)
    pairs = method_pairs(contents)
    values = pairs["mean"].dropna() if len(pairs) else pd.Series(dtype=float)
    agreement = None
    if len(values):
        agreement = Estimate(
            float(values.mean()), float(values.min()), float(values.max()), number(pairs["chance"].mean())
        )
    size_known = contents.setting("data.brain_size_column")
    return Verdict(
        title,
        auroc,
        balanced,
        brain_size,
        at_chance,
        "" if at_chance else _near_chance(balanced),
        explained,
        None if size_known else brain_size_column(contents.participants),
        _ranking(contents),
        agreement,
        len(values),
    )


def _ranking(contents: ReportContents) -> dict[str, Estimate]:
    rows = contents.summary("localization", "rra")
    if rows.empty:
        return {}
    return {
        row["method"]: Estimate(
            float(row["mean"]), number(row["ci_low"]), number(row["ci_high"]), number(row["chance"])
        )
        for row in rows.sort_values("mean", ascending=False, kind="stable").to_dict("records")
        if number(row["mean"]) is not None and explains_network(contents, row["method"])
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


def _at_chance(title: str, auroc: Estimate | None) -> str:
    if auroc is None or auroc.low is None or auroc.low > 0.5:
        return ""
    return (
        f"There is no evidence that the network is better than chance: the 95 % interval of the {title} "
        f"({auroc.low:.2f} to {auroc.high:.2f}) includes 0.5"
    )


def _near_chance(balanced: Estimate | None) -> str:
    if balanced is None or balanced.low is None or balanced.chance is None:
        return ""
    if balanced.low > balanced.chance + MARGIN:
        return ""
    return (
        f"The network is close to chance: the balanced accuracy is {balanced.value:.2f} (95 % CI "
        f"{balanced.low:.2f} to {balanced.high:.2f}, chance {balanced.chance:.2f})"
    )


def _brain_size(contents: ReportContents, area: str) -> tuple[Estimate | None, str]:
    """AUROC of brain size only, and why it may explain the performance of the network."""
    table = contents.evaluation("baselines")
    if table is None:
        return None, ""
    rows = table.set_index(["name", "metric"])
    if ("brain_size", area) not in rows.index or number(rows.loc[("brain_size", area), "value"]) is None:
        return None, ""
    row = rows.loc["brain_size", area]
    size = Estimate(float(row["value"]), number(row["ci_low"]), number(row["ci_high"]), 0.5)
    low = number(row["difference_ci_low"])
    if low is None or low > 0:
        return size, ""
    if ("network", "auroc_size_matched") in rows.index:
        matched = rows.loc["network", "auroc_size_matched"]
        if matched["n_subjects"] >= 2 * FEW_PAIRS and (number(matched["ci_low"]) or 0) > 0.5:
            return size, ""
    return size, (
        f"Brain size may explain the performance: brain size only reaches {size.value:.2f} "
        f"({contents.task.score_titles[area]}), and the network is not above it"
    )


def brain_size_column(participants: pd.DataFrame | None) -> str | None:
    """The first numeric column whose name looks like brain or intracranial volume, such as ``eTIV``.

    Parameters
    ----------
    participants : pandas.DataFrame, optional

    Returns
    -------
    str, optional
    """
    if participants is None:
        return None
    for column in participants:
        letters = re.sub(r"[^a-z0-9]", "", str(column).lower())
        if not any(BRAIN_SIZE.fullmatch(name) for name in (letters, UNIT.sub("", letters))):
            continue
        if pd.to_numeric(participants[column], errors="coerce").notna().any():
            return str(column)
    return None
