"""Summary of folds, and differences between the classes in other variables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from xai_brain.data.folds.tables import fold_numbers

STRONG_DIFFERENCE = 0.5  # standard deviations


def summarise_folds(
    participants: pd.DataFrame,
    folds: pd.DataFrame,
    columns: Sequence[str] = ("age", "sex", "site"),
    has_classes: bool = True,
) -> pd.DataFrame:
    """Summary of the test participants, one row per fold.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, label and any of the columns.
    folds : pandas.DataFrame
        From `make_folds`.
    columns : sequence of str
        Numbers are summarised by mean and standard deviation over participants, categories by counts.
    has_classes : bool, default True
        Whether labels are classes, which are counted, or numbers.

    Returns
    -------
    pandas.DataFrame
        fold, n_participants, n_images, label (counts) or target_mean and target_sd,
        <number>_mean, <number>_sd, <category> (counts).
    """
    rows = []
    present = [column for column in columns if column in participants]
    for fold in fold_numbers(folds):
        ids = folds.loc[folds["fold"] == fold, "participant_id"]
        images = participants[participants["participant_id"].isin(ids)]
        unique = images.drop_duplicates("participant_id")
        row: dict[str, object] = {"fold": fold, "n_participants": len(unique), "n_images": len(images)}
        if has_classes:
            row["label"] = _counts(unique["label"])
        else:
            target = unique["target"]
            row |= {"target_mean": round(target.mean(), 3), "target_sd": round(target.std(), 3)}
        for column in present:
            if _is_number(participants[column]):
                numbers = pd.to_numeric(unique[column], errors="coerce")
                row |= {f"{column}_mean": round(numbers.mean(), 3), f"{column}_sd": round(numbers.std(), 3)}
            else:
                row[column] = _counts(unique[column])
        rows.append(row)
    return pd.DataFrame(rows)


def confound_differences(participants: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Standardised differences between the classes in confounds.

    For numbers, the difference between two class means divided by the square root of the mean variance; for
    categories, the same for the share of each value. The maximum over values and pairs of classes is
    returned.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, label and any of the columns.
    columns : sequence of str

    Returns
    -------
    dict
        Column to absolute difference; columns without variation or with fewer than two known values
        in a class are excluded.

    References
    ----------
    Austin, "Balance diagnostics for comparing the distribution of baseline covariates", Statistics in
    Medicine 2009.
    """
    unique = participants.drop_duplicates("participant_id")
    found = {}
    for column in columns:
        if column not in unique:
            continue
        values = unique[column]
        if _is_number(values):
            parts = pd.DataFrame({column: pd.to_numeric(values, errors="coerce")})
        else:
            parts = pd.get_dummies(values.astype(str).where(values.notna())).astype(float)
            parts[values.isna().to_numpy()] = np.nan
        groups = [part.dropna() for _, part in parts.groupby(unique["label"])]
        if any(len(group) < 2 for group in groups):
            continue
        differences = []
        for a, b in combinations(groups, 2):
            sd = np.sqrt((a.var(ddof=_ddof(a)) + b.var(ddof=_ddof(b))) / 2)
            apart = (a.mean() - b.mean()).abs()
            differences += [
                d / s if s > 0 else (np.inf if d > 0 else 0.0) for d, s in zip(apart, sd, strict=True)
            ]
        found[column] = float(max(differences))
    return found


def describe_confounds(participants: pd.DataFrame, columns: Sequence[str], label: str) -> list[str]:
    """One line per confound that differs strongly between the classes."""
    lines = []
    unique = participants.drop_duplicates("participant_id")
    for column, difference in confound_differences(participants, columns).items():
        if difference < STRONG_DIFFERENCE:
            continue
        by_class = unique.groupby("label")[column]
        if _is_number(unique[column]):
            numbers = pd.to_numeric(unique[column], errors="coerce").groupby(unique["label"]).mean()
            text = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        else:
            text = "; ".join(f"{name}: {_counts(values)}" for name, values in by_class)
        apart = f"{difference:.2f} standard deviations" if np.isfinite(difference) else "without overlap"
        lines.append(
            f"{column} differs between the classes, {apart} ({text}): maps may show {column}, not {label}"
        )
    return lines


def _is_number(values: pd.Series) -> bool:
    known = values.dropna()
    return bool(len(known)) and bool(pd.to_numeric(known, errors="coerce").notna().all())


def _ddof(table: pd.DataFrame) -> int:
    return 1 if table.shape[1] == 1 else 0  # shares have the variance p (1 - p)


def _counts(values: pd.Series) -> str:
    counts = values.value_counts().sort_index()
    return ", ".join(f"{name} {count}" for name, count in counts.items())
