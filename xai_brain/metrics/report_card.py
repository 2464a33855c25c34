"""The report card: all metrics of all methods with intervals and chance levels, and conclusions in words.

The input is a tidy table of values for each participant; no network is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xai_brain.io.numbers import fixed_digits
from xai_brain.metrics.table import METRICS
from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.bootstrap import over_subjects

COLUMNS = ["method", "kind", "metric", "title", "value", "ci_low", "ci_high", "chance", "n_subjects"]
T_MAP = "TMap"  # the baseline that uses the labels of the training participants
UNCHANGED, SIMILAR = 0.8, 0.5  # thresholds of Spearman similarities in the verdicts
RRA = "relevance rank accuracy"
WEAK = 0.5  # of the t-map's relevance rank; below it most of the highest voxels are outside the effect


def report_card(
    rows: pd.DataFrame,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    progress: ShowProgress = iter,
) -> pd.DataFrame:
    """Means over participants with bootstrap intervals.

    Parameters
    ----------
    rows : pandas.DataFrame
        method, kind (method or baseline), metric, participant_id, value, chance; rows of one participant
        (sessions, seeds) are averaged first.
    n_bootstrap, random_state : int
    progress : function that wraps the list of methods and metrics

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS`.
    """
    table = []
    parts = list(rows.groupby(["method", "kind", "metric"], sort=False))
    for (method, kind, metric), part in progress(parts):
        subjects = part.groupby("participant_id")[["value", "chance"]].mean()
        figures = over_subjects(
            subjects["value"].to_numpy(), subjects["chance"].to_numpy(), n_bootstrap, random_state
        )
        about = {"method": method, "kind": kind, "metric": metric, "title": METRICS[metric].title}
        table.append({**about, **figures})
    card = pd.DataFrame(table, columns=COLUMNS)
    order = {metric: number for number, metric in enumerate(METRICS)}
    return card.sort_values(
        ["kind", "method", "metric"],
        key=lambda column: column.map(order) if column.name == "metric" else column,
        ascending=[False, True, True],
        kind="stable",
    ).reset_index(drop=True)


@dataclass(frozen=True)
class Verdict:
    """Conclusion about a method from its rows of the card.

    Parameters
    ----------
    method, kind : str
    sentences : list of str
        Sentences that state values of the card and what follows from them.
    believe : {"yes", "with care", "no", "not rated"}
        ``yes``: it finds the planted effect better than chance, its permutation null and every baseline that
        does not use the labels, at least half as well as a t-map, and it depends on the network. ``no``: it
        is not better than chance or its null, or it does not depend on the network.
    """

    method: str
    kind: str
    sentences: list[str]
    believe: str


def verdicts(card: pd.DataFrame) -> list[Verdict]:
    """Conclusions for all methods and baselines of a card, sorted by localisation.

    Parameters
    ----------
    card : pandas.DataFrame
        From `report_card`.
    """
    rows = [_Row(card, method) for method in card["method"].unique()]
    rra = {row.method: row.value("rra", -np.inf) for row in rows}
    blind = [row for row in rows if row.kind == "baseline" and row.method != T_MAP]
    rated = [_verdict(row, blind, next((r for r in rows if r.method == T_MAP), None)) for row in rows]
    return sorted(rated, key=lambda verdict: (verdict.kind == "baseline", -rra[verdict.method]))


class _Row:
    """All metrics of one method."""

    def __init__(self, card: pd.DataFrame, method: str):
        rows = card[card["method"] == method]
        self.method, self.kind = method, rows["kind"].iloc[0]
        self.metrics = rows.set_index("metric")[["value", "ci_low", "ci_high", "chance"]]

    def value(self, metric: str, default: float = np.nan, what: str = "value") -> float:
        if metric not in self.metrics.index or not np.isfinite(self.metrics.at[metric, what]):
            return default
        return float(self.metrics.at[metric, what])

    def has(self, metric: str) -> bool:
        return np.isfinite(self.value(metric))

    def format_value(self, metric: str) -> str:
        low, high = self.value(metric, what="ci_low"), self.value(metric, what="ci_high")
        return f"{_two_digits(self.value(metric))}, {_two_digits(low)} to {_two_digits(high)}"


def _two_digits(value: float) -> str:
    return fixed_digits(value, 2) if np.isfinite(value) else "nan"


def _verdict(row: _Row, blind: Sequence[_Row], t_map: _Row | None) -> Verdict:
    sentences, failed, doubtful = [], False, False
    if row.has("rra"):
        low, chance = row.value("rra", what="ci_low"), row.value("rra", what="chance")
        null = max(chance, row.value("permutation_null", chance, "ci_high"))
        best = max(
            (other for other in blind if other.method != row.method and other.has("rra")),
            key=lambda other: other.value("rra"),
            default=None,
        )
        most = row.value("rra") >= WEAK
        finds = "Finds the planted effect" if most else "Is above chance at the planted effect"
        if low <= null:
            failed = True
            level = "chance" if null == chance else "a network that was trained on permuted labels"
            sentences.append(
                f"Does not find the planted effect better than {level} "
                f"({RRA} {row.format_value('rra')}; {_two_digits(null)})."
            )
        elif best is not None and low <= best.value("rra", what="ci_high"):
            doubtful = True
            sentences.append(
                f"{finds} ({RRA} {row.format_value('rra')}), but not better than "
                f"{best.method} ({best.format_value('rra')}), which does not use the network."
            )
        else:
            sentences.append(
                f"{finds} ({RRA} {row.format_value('rra')}; chance {_two_digits(chance)})"
                + (f", better than every baseline that ignores the labels (best: {best.method}, "
                   f"{_two_digits(best.value('rra'))})." if best is not None else ".")
            )  # fmt: skip
        other = t_map is not None and t_map.method != row.method and t_map.has("rra")
        t = t_map.value("rra") if t_map is not None and other else np.nan
        rra = row.value("rra")
        if not failed and rra < WEAK * (t if other else 1):
            doubtful = True
            compared = f" ({1 - t:.0%} for a t-map of the training images)" if other else ""
            sentences.append(
                f"However, {1 - rra:.0%} of its highest voxels are outside the effect{compared}."
            )
        elif not failed and rra < t:
            sentences.append(
                f"A t-map of the training images localises the effect better ({_two_digits(t)})."
            )
    if row.kind == "baseline":
        return Verdict(row.method, row.kind, sentences, "not rated")
    if row.has("parameter_randomization"):
        similarity = row.format_value("parameter_randomization")
        low = row.value("parameter_randomization", what="ci_low")
        if low > UNCHANGED:
            failed = True
            sentences.append(
                f"Does not depend on the trained weights (similarity {similarity} to maps of random "
                "weights): it is not an explanation of this network."
            )
        elif low > SIMILAR:
            doubtful = True
            sentences.append(
                f"Depends little on the trained weights (similarity {similarity} to maps of random weights)."
            )
        else:
            sentences.append(f"Depends on the weights (similarity {similarity} to maps of random weights).")
    if row.has("label_randomization") and row.value("label_randomization", what="ci_low") > SIMILAR:
        doubtful = True
        sentences.append(
            "Is similar to the maps of a network that was trained on permuted labels "
            f"({row.format_value('label_randomization')})."
        )
    if row.has("deletion"):
        random = _two_digits(row.value("deletion", what="chance"))
        if row.value("deletion", what="ci_high") < row.value("deletion", what="chance"):
            sentences.append(
                "The probability of the class falls faster when the highest voxels of this map are removed "
                f"({row.format_value('deletion')}) than when random voxels are removed ({random})."
            )
        else:
            doubtful = True
            sentences.append(
                f"The removal of its highest voxels ({row.format_value('deletion')}) is not shown to lower "
                f"the probability of the class more than the removal of random voxels ({random})."
            )
    if row.has("reseed_stability") and row.value("reseed_stability", what="ci_high") < SIMILAR:
        sentences.append(
            f"Maps of networks trained with other seeds differ ({row.format_value('reseed_stability')}): "
            "average several maps, and do not interpret single voxels of one."
        )
    is_rated = row.has("rra") and row.has("parameter_randomization")
    believe = "no" if failed else "with care" if doubtful else "yes" if is_rated else "not rated"
    return Verdict(row.method, row.kind, sentences, believe)
