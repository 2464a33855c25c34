"""The report card: every judge of every method, with interval and chance level, and what follows in words.

No network is needed here: judges are read from tidy rows, one per subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import over_subjects

COLUMNS = ["method", "kind", "judge", "value", "ci_low", "ci_high", "chance", "n_subjects"]
# judge: (what it asks, +1 when more is better, -1 when less is)
JUDGES = {
    "rra": ("share of the highest voxels that are true (as many as are true)", 1),
    "rma": ("share of the map's mass in the true place", 1),
    "pointing": ("the highest voxel is true", 1),
    "auprc": ("area under precision and recall", 1),
    "emd": ("nearness of the map's mass to the true place", 1),
    "region_hit": ("the region with the highest mean is the planted one", 1),
    "rra_permuted": ("rra of maps of a network that learned permuted labels: the method's own null", 0),
    "deletion": ("class probability while its highest voxels are removed", -1),
    "insertion": ("class probability while only its highest voxels are shown", 1),
    "infidelity": ("error of the fall of the score that it foretells", -1),
    "mprt": ("similarity to maps of the network with random weights", -1),
    "label_randomization": ("similarity to maps of a network that learned permuted labels", -1),
    "reseed_stability": ("similarity to maps of networks trained with other seeds", 1),
    "noise_stability": ("similarity to maps of slightly noisy images", 1),
    "max_sensitivity": ("largest relative change of the map under small noise", -1),
    "seconds": ("seconds per subject", -1),
    "peak_mb": ("peak memory, MB", -1),
}
T_MAP = "TMap"  # the baseline that knows the labels of the training subjects
UNCHANGED, ALIKE = 0.8, 0.5  # similarities (Spearman) that are called the same, and alike
WEAK = 0.5  # of the t-map's rank accuracy; below it a method has found the place, and much else


def report_card(rows: pd.DataFrame, n_bootstrap: int = 1000, random_state: int = 0) -> pd.DataFrame:
    """Means over subjects with bootstrap intervals.

    Parameters
    ----------
    rows : pandas.DataFrame
        method, kind (method or baseline), judge, participant_id, value, chance; rows of one participant
        (sessions, seeds) are averaged first.
    n_bootstrap, random_state : int

    Returns
    -------
    pandas.DataFrame
        method, kind, judge, value, ci_low, ci_high, chance, n_subjects.
    """
    table = []
    for (method, kind, judge), part in rows.groupby(["method", "kind", "judge"], sort=False):
        subjects = part.groupby("participant_id")[["value", "chance"]].mean()
        figures = over_subjects(
            subjects["value"].to_numpy(), subjects["chance"].to_numpy(), n_bootstrap, random_state
        )
        table.append({"method": method, "kind": kind, "judge": judge, **figures})
    card = pd.DataFrame(table, columns=COLUMNS)
    order = {judge: place for place, judge in enumerate(JUDGES)}
    return card.sort_values(
        ["kind", "method", "judge"],
        key=lambda column: column.map(order) if column.name == "judge" else column,
        ascending=[False, True, True],
        kind="stable",
    ).reset_index(drop=True)


@dataclass(frozen=True)
class Verdict:
    """What follows of a method from its row of the card.

    Parameters
    ----------
    method, kind : str
    sentences : list of str
        Each follows from figures of the card, which it names.
    believe : {"yes", "with care", "no", "not judged"}
        ``yes``: it finds what was planted better than chance, its own null and every baseline that does not
        know the labels, at least half as well as a t-map, and it depends on the network. ``no``: it is not
        better than chance or its null, or it does not depend on the network.
    """

    method: str
    kind: str
    sentences: list[str]
    believe: str


def verdicts(card: pd.DataFrame) -> list[Verdict]:
    """Words for every method and baseline of a card, the best localising first.

    Parameters
    ----------
    card : pandas.DataFrame
        From `report_card`.
    """
    found = [_Row(card, method) for method in card["method"].unique()]
    rra = {row.method: row.value("rra", -np.inf) for row in found}
    blind = [row for row in found if row.kind == "baseline" and row.method != T_MAP]
    told = [_verdict(row, blind, next((r for r in found if r.method == T_MAP), None)) for row in found]
    return sorted(told, key=lambda verdict: (verdict.kind == "baseline", -rra[verdict.method]))


class _Row:
    """All judges of one method."""

    def __init__(self, card: pd.DataFrame, method: str):
        rows = card[card["method"] == method]
        self.method, self.kind = method, rows["kind"].iloc[0]
        self.judges = rows.set_index("judge")[["value", "ci_low", "ci_high", "chance"]]

    def value(self, judge: str, default: float = np.nan, what: str = "value") -> float:
        if judge not in self.judges.index or not np.isfinite(self.judges.at[judge, what]):
            return default
        return float(self.judges.at[judge, what])

    def has(self, judge: str) -> bool:
        return np.isfinite(self.value(judge))

    def format_value(self, judge: str) -> str:
        low, high = self.value(judge, what="ci_low"), self.value(judge, what="ci_high")
        return f"{self.value(judge):z.2f}, {low:z.2f} to {high:z.2f}"


def _verdict(row: _Row, blind: Sequence[_Row], t_map: _Row | None) -> Verdict:
    sentences, failed, doubtful = [], False, False
    if row.has("rra"):
        low, chance = row.value("rra", what="ci_low"), row.value("rra", what="chance")
        null = max(chance, row.value("rra_permuted", chance, "ci_high"))
        best = max(
            (other for other in blind if other.method != row.method and other.has("rra")),
            key=lambda other: other.value("rra"),
            default=None,
        )
        if low <= null:
            failed = True
            of = "chance" if null == chance else "a network that learned nothing"
            sentences.append(
                f"Does not find the planted effect better than {of} "
                f"(rra {row.format_value('rra')}; {null:.2f})."
            )
        elif best is not None and low <= best.value("rra", what="ci_high"):
            doubtful = True
            sentences.append(
                f"Finds the planted effect (rra {row.format_value('rra')}), but not better than "
                f"{best.method} ({best.format_value('rra')}), which does not know the network."
            )
        else:
            sentences.append(
                f"Finds the planted effect (rra {row.format_value('rra')}; chance {chance:.2f})"
                + (f", better than every baseline that ignores the labels (best: {best.method}, "
                   f"{best.value('rra'):.2f})." if best is not None else ".")
            )  # fmt: skip
        other = t_map is not None and t_map.method != row.method and t_map.has("rra")
        t = t_map.value("rra") if t_map is not None and other else np.nan
        ours = row.value("rra")
        if not failed and ours < WEAK * (t if other else 1):
            doubtful = True
            beside = f" (of a t-map of the training images {1 - t:.0%})" if other else ""
            sentences.append(f"But {1 - ours:.0%} of its highest voxels lie elsewhere{beside}.")
        elif not failed and ours < t:
            sentences.append(f"A plain t-map of the training images finds it better ({t:.2f}).")
    if row.kind == "baseline":
        return Verdict(row.method, row.kind, sentences, "not judged")
    if row.has("mprt"):
        kept, low = row.format_value("mprt"), row.value("mprt", what="ci_low")
        if low > UNCHANGED:
            failed = True
            sentences.append(
                f"Does not depend on the trained weights (similarity {kept} after all are random): "
                "not an explanation of this model."
            )
        elif low > ALIKE:
            doubtful = True
            sentences.append(
                f"Depends little on the trained weights (similarity {kept} after all are random)."
            )
        else:
            sentences.append(f"Changes with the weights (similarity {kept} after all are random).")
    if row.has("label_randomization") and row.value("label_randomization", what="ci_low") > ALIKE:
        doubtful = True
        sentences.append(
            "Looks much the same for a network that learned permuted labels "
            f"({row.format_value('label_randomization')})."
        )
    if row.has("deletion"):
        random = f"{row.value('deletion', what='chance'):.2f}"
        if row.value("deletion", what="ci_high") < row.value("deletion", what="chance"):
            sentences.append(
                "The probability of the class falls faster when the voxels that this map marks are removed "
                f"({row.format_value('deletion')}) than when random voxels are removed ({random})."
            )
        else:
            doubtful = True
            sentences.append(
                f"Removing what it marks ({row.format_value('deletion')}) is not shown to hurt the network "
                f"more than removing random voxels ({random})."
            )
    if row.has("reseed_stability") and row.value("reseed_stability", what="ci_high") < ALIKE:
        sentences.append(
            f"Maps of networks trained with other seeds differ ({row.format_value('reseed_stability')}): "
            "average several, and do not read single voxels of one."
        )
    judged = row.has("rra") and row.has("mprt")
    believe = "no" if failed else "with care" if doubtful else "yes" if judged else "not judged"
    return Verdict(row.method, row.kind, sentences, believe)
