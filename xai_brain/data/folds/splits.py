"""Folds: division of participants into training, validation and test parts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd

from xai_brain.data.folds.tables import NEVER_TESTED, check_targets
from xai_brain.io.problems import DataError, named
from xai_brain.task.build import build_task
from xai_brain.task.protocol import Task

KINDS = ("stratified", "hold_out", "column")
MAX_BINS = 5  # bins of a balanced number


def make_folds(
    participants: pd.DataFrame,
    n_folds: int = 5,
    random_state: int = 0,
    *,
    kind: str = "stratified",
    n_repeats: int = 1,
    test_fraction: float = 0.2,
    column: str | None = None,
    group_column: str | None = None,
    balance_on: Sequence[str] = (),
    task: Task | None = None,
) -> pd.DataFrame:
    """Assign each participant to the fold in which it is tested.

    All images of a participant are in one fold.

    Parameters
    ----------
    participants : pandas.DataFrame
        With participant_id, target and the columns that are given below.
    n_folds : int, default 5
        Number of folds for kind "stratified".
    random_state : int, default 0
    kind : {"stratified", "hold_out", "column"}, default "stratified"
        ``stratified``: all folds have the same proportions of classes. ``hold_out``: only fold 0 is tested.
        ``column``: one fold per value of `column`, in sorted order, e.g. to leave one site out; participants
        with the value ``train`` are never tested.
    n_repeats : int, default 1
        Number of divisions of all participants for kind "stratified". Repeat r has the folds
        ``r * n_folds`` to ``(r + 1) * n_folds - 1``; repeat 0 equals a single division.
    test_fraction : float, default 0.2
        Share of test participants for kind "hold_out"; approximate for grouped participants.
    column : str, optional
        Column for kind "column".
    group_column : str, optional
        Participants with the same value are in one fold, e.g. family_id; missing values form no group.
    balance_on : sequence of str, default ()
        Numbers (e.g. age, icv_ml) or categories to balance over the folds: folds are stratified by class,
        within classes by bins of the first column, and within these by bins of the second. Missing numbers
        are replaced by the median of the class.
    task : Task, optional
        Determines the strata, which for classification (the default) are the classes.

    Returns
    -------
    pandas.DataFrame
        participant_id, fold (-1: never tested), in the order of `participants`; with several repeats
        also repeat, one row per participant and repeat.

    Raises
    ------
    DataError
        Unknown column, several values for one participant, too few participants of a class.

    Examples
    --------
    >>> ids = [f"sub-{i}" for i in range(6)]
    >>> participants = pd.DataFrame({"participant_id": ids, "target": [0, 0, 0, 1, 1, 1]})
    >>> make_folds(participants, n_folds=3)["fold"].value_counts().tolist()
    [2, 2, 2]
    """
    if kind not in KINDS:
        raise DataError(f"folds.kind={kind}: one of {', '.join(KINDS)} is needed")
    task = task or build_task()
    known = participants.drop_duplicates("participant_id").reset_index(drop=True)
    participants = participants.assign(target=task.strata(participants["target"]))
    unique = participants.drop_duplicates("participant_id").reset_index(drop=True)
    groups = _groups(participants, group_column)
    if kind == "column":
        folds = [_by_column(participants, column)]
    else:
        smallest = _smallest_class(unique["target"], groups)
        needed = n_folds if kind == "stratified" else 2
        if smallest < needed:
            what = f"groups of {group_column}" if group_column else "participants"
            setting = f"folds.n_folds={n_folds}" if kind == "stratified" else f"folds.kind={kind}"
            raise DataError(
                f"{setting}: the smallest {task.stratum} has only {smallest} {what}, {needed} are needed; "
                "use fewer folds"
            )
        strata = _strata(participants, balance_on, n_folds)
        if kind == "hold_out":
            is_test = _draw_test_set(unique["target"], strata, groups, test_fraction, random_state)
            folds = [np.where(is_test, 0, NEVER_TESTED)]
        else:
            folds = []
            for r in range(n_repeats):
                seed = np.random.RandomState([random_state, r]) if r else random_state
                folds.append(r * n_folds + _k_folds(unique["target"], strata, groups, n_folds, seed))
    ids = unique["participant_id"].to_numpy()
    table = pd.concat(
        [pd.DataFrame({"participant_id": ids, "fold": fold, "repeat": r}) for r, fold in enumerate(folds)],
        ignore_index=True,
    )
    check_targets(known, table, task)
    return table if len(folds) > 1 else table.drop(columns="repeat")


def split_fold(
    participants: pd.DataFrame,
    folds: pd.DataFrame,
    fold: int,
    validation_fraction: float,
    random_state: int = 0,
    group_column: str | None = None,
    task: Task | None = None,
) -> dict[str, pd.DataFrame]:
    """Training, validation and test rows of one fold; the validation part is taken from the training part.

    Parameters
    ----------
    participants, folds : pandas.DataFrame
        `folds` from `make_folds` or `read_folds`.
    fold : int
    validation_fraction : float
        Share of the training part, stratified like the folds.
    random_state : int, default 0
    group_column : str, optional
        Participants with the same value are not divided between training and validation.
    task : Task, optional
        Determines the strata; default: classification.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test``: disjoint in participants.
    """
    is_test = participants["participant_id"].isin(folds.loc[folds["fold"] == fold, "participant_id"])
    rest = participants[~is_test]
    task = task or build_task()
    unique = rest.assign(target=task.strata(rest["target"])).drop_duplicates("participant_id")
    if unique["target"].value_counts().min() < 2:
        raise DataError(
            f"fold {fold + 1}: a {task.stratum} has fewer than two training participants; use fewer folds"
        )
    seed = np.random.RandomState([random_state, fold])
    if group_column:
        target, groups = unique["target"], _groups(rest, group_column)
        chosen = _draw_test_set(target, target.to_numpy(), groups, validation_fraction, seed)
        if not target[~chosen].nunique() == target[chosen].nunique() == target.nunique():
            raise DataError(
                f"fold {fold + 1}: too few groups of {group_column} for training and validation; use fewer "
                "folds"
            )
        validation_ids = unique["participant_id"][chosen]
    else:
        from sklearn.model_selection import train_test_split

        n_validation = max(round(validation_fraction * len(unique)), unique["target"].nunique())
        _, validation_ids = train_test_split(
            unique["participant_id"], test_size=n_validation, stratify=unique["target"], random_state=seed
        )
    is_validation = participants["participant_id"].isin(validation_ids)
    return {
        "train": participants[~is_test & ~is_validation],
        "validation": participants[is_validation],
        "test": participants[is_test],
    }


def _value_of(participants: pd.DataFrame, column: str | None, setting: str) -> pd.Series:
    """One value per participant, in their order."""
    if column not in participants:
        names = ", ".join(map(str, participants))
        raise DataError(
            f"folds.{setting}: the participants have no column {column!r} (their columns: {names})"
        )
    values = participants.groupby("participant_id", sort=False)[column]
    several = values.nunique()
    if (several > 1).any():
        ids = several.index[several > 1].tolist()
        raise DataError(f"folds.{setting}: {named(ids)} has several values of {column}; one is needed")
    return values.first()


def _groups(participants: pd.DataFrame, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    values = _value_of(participants, column, "group_column")
    # before all other names in their order; pandas 2 compares strings up to the first NUL only
    alone = pd.Series([f"\x01{i}" for i in values.index], values.index)
    return np.asarray(values.astype(str).where(values.notna(), alone))


def _smallest_class(target: pd.Series, groups: np.ndarray | None) -> int:
    """Number of participants (or groups) of the smallest class."""
    units = np.arange(len(target)) if groups is None else groups
    return int(pd.Series(units).groupby(target.to_numpy()).nunique().min())


def _strata(participants: pd.DataFrame, balance_on: Sequence[str], n_folds: int) -> np.ndarray:
    """Strata by class and balanced columns, as integers that sort by class first."""
    target = _value_of(participants, "target", "balance_on") if balance_on else None
    if target is None:
        return np.asarray(participants.drop_duplicates("participant_id")["target"])
    smallest = target.value_counts().min()
    n_bins = int(np.clip((smallest / n_folds) ** (1 / len(balance_on)), 2, MAX_BINS))
    strata = target.astype(int)
    for column in balance_on:
        values = _value_of(participants, column, "balance_on")
        if values.isna().all():
            raise DataError(f"folds.balance_on: the column {column} is empty")
        numbers = pd.to_numeric(values, errors="coerce")
        if (numbers.isna() & values.notna()).any():
            codes, n_codes = pd.factorize(values, sort=True)[0] + 1, values.nunique() + 1
        else:
            numbers = numbers.fillna(numbers.groupby(target).transform("median")).fillna(numbers.median())
            cells = numbers.groupby(strata)
            rank = cells.rank(method="first") - 1
            codes, n_codes = (rank * n_bins // cells.transform("size")).astype(int), n_bins
        strata = strata * n_codes + codes
    return np.asarray(strata)


def _k_folds(
    target: pd.Series,
    strata: np.ndarray,
    groups: np.ndarray | None,
    n_folds: int,
    random_state: int | np.random.RandomState,
) -> np.ndarray:
    """Fold of each participant."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    order = np.arange(len(strata))
    if len(np.unique(strata)) > target.nunique():
        # scikit-learn assigns strata in order of appearance; sorting balances small strata
        order = np.argsort(strata, kind="stable")
    strata, groups = strata[order], None if groups is None else groups[order]
    fold = np.zeros(len(strata), int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # cells may be smaller than n_folds
        try:
            splits = splitter(n_folds, shuffle=True, random_state=random_state)
            for k, (_, test) in enumerate(splits.split(strata, strata, groups)):
                fold[order[test]] = k
        except ValueError as error:
            raise DataError(
                f"folds.balance_on: too few participants for {n_folds} balanced folds; name fewer columns"
            ) from error
    return fold


def _draw_test_set(
    target: pd.Series,
    strata: np.ndarray,
    groups: np.ndarray | None,
    fraction: float,
    random_state: int | np.random.RandomState,
) -> np.ndarray:
    """Stratified test set of about a fraction of the participants, as a bool per participant."""
    smallest = _smallest_class(target, groups)
    if smallest < 2:
        raise DataError("folds: a class has fewer than two groups of participants to divide; do not group")
    # stratification is possible only with several groups per part
    at_most = min(smallest, 20) if groups is None else max(min(smallest // 3, 20), 2)
    part = Fraction(fraction).limit_denominator(at_most)
    part = min(max(part, Fraction(1, at_most)), Fraction(at_most - 1, at_most))
    return _k_folds(target, strata, groups, part.denominator, random_state) < part.numerator


def _by_column(participants: pd.DataFrame, column: str | None) -> np.ndarray:
    """The fold of each participant is the rank of its value."""
    values = _value_of(participants, column, "column")
    if values.isna().any():
        raise DataError(f"folds.column={column}: {named(values.index[values.isna()].tolist())} has no value")
    numbers = pd.to_numeric(values, errors="coerce")
    tested = values.astype(str).str.strip().str.lower() != "train"
    order = numbers if numbers[tested].notna().all() else values.astype(str).str.strip()
    fold = np.full(len(values), NEVER_TESTED)
    fold[tested] = pd.factorize(order[tested], sort=True)[0]
    if not tested.any() or (tested.all() and len(set(fold)) < 2):
        raise DataError(f"folds.column={column}: all participants have one value; two are needed")
    return fold
