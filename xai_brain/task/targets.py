"""Labels of a cohort as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Targets:
    """Labels of a cohort as numbers.

    Parameters
    ----------
    labels : pandas.Series of str
        As participants.tsv shows them; NaN where a row has none.
    values : pandas.Series
        Numbers that the network learns; NaN where a row has no label.
    names : list of str
        Names of the outputs of the network.
    reasons : pandas.Series of str
        Why a row has no label; empty where it has one.
    """

    labels: pd.Series
    values: pd.Series
    names: list[str]
    reasons: pd.Series
