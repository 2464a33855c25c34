"""Brain size as an explanation of the performance of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.values import Estimate, number
from xai_brain.reporting.wording import compared, fixed

BRAIN_SIZE = re.compile(
    r"e?(icv|tiv)|(est|estimated)?(total)?intracranialvol(ume)?|(total)?brain(seg)?(vol|volume|size)|tbv|"
    r"head(vol|volume|size)"
)
UNIT = re.compile(r"(ml|mm3|cm3|cc|l)$")


def has_own_classes(contents: ReportContents) -> bool:
    """Whether the classes are those of a real cohort: not simulated, and not assigned for a planted effect.

    Only then brain size can differ between the classes without the knowledge of the user.
    """
    layout = contents.setting("data.layout")
    return layout is not None and layout != "synthetic" and contents.setting("planted.kind") is None


def unused_size_column(contents: ReportContents) -> str | None:
    """Column of participants.tsv that looks like brain size, if ``data.brain_size_column`` is not set."""
    if contents.setting("data.brain_size_column") or not has_own_classes(contents):
        return None
    return brain_size_column(contents.participants)


def confounds_in_words(contents: ReportContents, names: Iterable[str]) -> list[str]:
    """Names of confounds for people: the column of brain size has a name of its own in every cohort."""
    size = contents.setting("data.brain_size_column")
    return [f"brain size ({name})" if name == size else name for name in names]


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


def size_baseline(contents: ReportContents, area: str) -> tuple[Estimate | None, str]:
    """AUROC of brain size only, and why it may explain the performance of the network.

    Parameters
    ----------
    contents : ReportContents
    area : str
        Name of the AUROC, ``auroc`` or ``auroc_pooled``.

    Returns
    -------
    Estimate, optional
    str
        Empty if there is no reason.
    """
    table = contents.evaluation("baselines")
    if table is None or area not in contents.task.score_titles:
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
        if (number(matched["ci_low"]) or 0) > 0.5:  # there is no interval with few pairs
            return size, ""
    word = compared(low, number(row["difference_ci_high"]))
    return size, (
        f"Brain size may explain the performance: brain size only reaches {fixed(size.value)} "
        f"({contents.task.score_titles[area]}), and the network is {word} it"
    )
