"""Folds: stratified by class, never the same participant on both sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from xai_brain.data.problems import DataError


def make_folds(participants: pd.DataFrame, n_folds: int = 5, random_state: int = 0) -> pd.DataFrame:
    """Assign every participant to the fold in which it is tested.

    Parameters
    ----------
    participants : pandas.DataFrame
        With participant_id and target; several images of one participant stay together.
    n_folds : int, default 5
    random_state : int, default 0

    Returns
    -------
    pandas.DataFrame
        participant_id, fold (0 ... n_folds - 1), in the order of `participants`.
    """
    people = participants.drop_duplicates("participant_id")
    smallest = people["target"].value_counts().min()
    if smallest < n_folds:
        raise DataError(
            f"folds.n_folds={n_folds}: the smallest class has only {smallest} participants; use fewer folds"
        )
    fold = np.zeros(len(people), int)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
    for k, (_, test) in enumerate(splitter.split(people, people["target"])):
        fold[test] = k
    return pd.DataFrame({"participant_id": people["participant_id"].to_numpy(), "fold": fold})


def split_fold(
    participants: pd.DataFrame,
    folds: pd.DataFrame,
    fold: int,
    validation_fraction: float,
    random_state: int = 0,
) -> dict[str, pd.DataFrame]:
    """Training, validation and test rows of one fold; validation is taken from the training side.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test``: disjoint in participants.
    """
    fold_of = folds.set_index("participant_id")["fold"]
    is_test = participants["participant_id"].map(fold_of) == fold
    people = participants[~is_test].drop_duplicates("participant_id")
    n_classes = people["target"].nunique()
    n_validation = max(round(validation_fraction * len(people)), n_classes)
    if people["target"].value_counts().min() < 2:
        raise DataError(f"fold {fold}: a class has fewer than two training participants; use fewer folds")
    _, validation_ids = train_test_split(
        people["participant_id"],
        test_size=n_validation,
        stratify=people["target"],
        random_state=np.random.RandomState([random_state, fold]),
    )
    is_validation = participants["participant_id"].isin(validation_ids)
    return {
        "train": participants[~is_test & ~is_validation],
        "validation": participants[is_validation],
        "test": participants[is_test],
    }
