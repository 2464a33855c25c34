"""Labels that are exchanged between participants, within blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

N_STRATA = 4  # of a numeric column
MOST_LEVELS = 10  # a number with more different values is divided at its quantiles


def permute_labels(
    table: pd.DataFrame, seed: int, blocks: Sequence[str] = (), family: str | None = None
) -> pd.DataFrame:
    """The same participants with permuted labels; all images of a participant have one label.

    Parameters
    ----------
    table : pandas.DataFrame
        participant_id, target and label.
    seed : int
    blocks : sequence of str
        Columns whose values are kept: labels are exchanged between participants of equal values, or of one
        quarter of a numeric column. Participants without a value form a block.
    family : str, optional
        Column of families. Members of a family of several participants exchange labels with each other,
        participants without relatives among themselves.

    Returns
    -------
    pandas.DataFrame
        `table` with other values of target and label.
    """
    unique = table.drop_duplicates("participant_id")
    order, random = np.arange(len(unique)), np.random.default_rng(seed)
    for members in unique.groupby(_block(unique, blocks, family), sort=False).indices.values():
        order[members] = random.permutation(members)
    permuted = unique[["target", "label"]].iloc[order].set_axis(unique["participant_id"], axis=0)
    return table.assign(**{name: table["participant_id"].map(permuted[name]) for name in permuted})


def n_exchangeable(table: pd.DataFrame, blocks: Sequence[str] = (), family: str | None = None) -> int:
    """Participants whose block contains more than one label."""
    unique = table.drop_duplicates("participant_id")
    labels = unique.groupby(_block(unique, blocks, family), sort=False)["label"]
    return int((labels.transform("nunique") > 1).sum())


def _block(unique: pd.DataFrame, blocks: Sequence[str], family: str | None) -> np.ndarray:
    """Number of the block of each participant."""
    keys = [_levels(unique[column]) for column in blocks]
    if family is not None:
        names = unique[family].astype("string")
        alone = names.isna() | ~names.duplicated(keep=False)
        keys.append(names.mask(alone, "").to_numpy(str))
    if not keys:
        return np.zeros(len(unique), int)
    return pd.MultiIndex.from_arrays(keys).to_flat_index().factorize()[0]


def _levels(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().sum() == column.notna().sum() and numbers.nunique() > MOST_LEVELS:
        column = pd.qcut(numbers, N_STRATA, labels=False, duplicates="drop")
    return column.astype("string").fillna("").to_numpy(str)
