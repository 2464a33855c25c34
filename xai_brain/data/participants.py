"""Who is in the cohort, with which image and which class."""

from __future__ import annotations

import difflib
from pathlib import Path

import pandas as pd

from xai_brain.data.bids import find_images, read_participants
from xai_brain.data.problems import DataError, Problems

SEXES = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}
SAME_MEANING = {"sex": "gender", "gender": "sex"}


def load_participants(
    layout: str,
    root: str | Path,
    *,
    label: str = "sex",
    class_names: list[str] | None = None,
    entities: dict[str, str] | None = None,
    problems: Problems | None = None,
) -> pd.DataFrame:
    """Find the images and labels of a cohort.

    Parameters
    ----------
    layout : {"bids"}
        How the folder is organised. The embedded cohort is a BIDS tree, too.
    root : str or Path
    label : str, default "sex"
        Column of participants.tsv. Spellings of sex (M, m, male, ...) become male and female.
    class_names : list of str, optional
        The classes in the order of their index; sorted names when not given. Other labels are problems.
    entities : dict, optional
        Which T1w where there are several, e.g. ``{"desc": "brain"}``.
    problems : Problems, optional
        Where unusable inputs go; raises at the first by default.

    Returns
    -------
    pandas.DataFrame
        One row per image: participant_id, session_id (may be empty), t1w_path, brain_mask_path,
        truth_path, space (may be empty),
        label (class name), target (index) and the other columns of participants.tsv.

    Raises
    ------
    DataError
        Missing folder or table, unknown column, fewer than two classes.
    """
    if layout != "bids":
        raise DataError(f"data.layout={layout}: not known; one of bids, synthetic")
    problems = problems or Problems()
    root = Path(root).expanduser()
    table = read_participants(root)
    tsv = root / "participants.tsv"
    table["label"] = _labels(table, label, tsv)

    for participant_id in table.loc[table["participant_id"].duplicated(), "participant_id"].unique():
        problems.add(participant_id, tsv, "has several lines")
    table = table.drop_duplicates("participant_id", keep=False)
    images = find_images(root, _listed(table, problems), dict(entities or {}), problems)
    table = table.drop(columns=["session_id", "space"], errors="ignore")
    table = images.merge(table, on="participant_id", how="inner")

    found = set(table["label"].dropna())
    names = list(class_names) if class_names else sorted(found)
    if not class_names and label in SAME_MEANING and set(SEXES.values()) <= found:
        names = sorted(set(SEXES.values()))
    allowed = ", ".join(names)
    for row in table[~table["label"].isin(names)].itertuples():
        reason = (
            f"no value of {label}"
            if pd.isna(row.label)
            else f"{label} is {row.label!r}, not one of {allowed}"
        )
        problems.add(row.participant_id, tsv, reason)
    table = table[table["label"].isin(names)].reset_index(drop=True)
    require_classes(table, names, label, tsv)
    table["target"] = table["label"].map(names.index).astype(int)
    if "age" in table:
        table["age"] = pd.to_numeric(table["age"].astype(str).str.rstrip("+"), errors="coerce")
    return table


def require_classes(table: pd.DataFrame, names: list[str], label: str, where: Path | str) -> None:
    """Refuse a cohort in which a class is empty."""
    counts = table["label"].value_counts().reindex(names, fill_value=0)
    if len(names) < 2 or (counts == 0).any():
        told = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
        raise DataError(f"{where}: two classes of {label} are needed; there are {told}")


def _listed(table: pd.DataFrame, problems: Problems) -> list[str]:
    """Ids to look for; those set aside already are not told of twice."""
    aside = [row["participant_id"] for row in problems.rows]
    return [*table["participant_id"], *aside]


def _labels(table: pd.DataFrame, label: str, path: Path) -> pd.Series:
    column = label if label in table else SAME_MEANING.get(label, label)
    if column not in table:
        near = difflib.get_close_matches(label, table.columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (its columns: {', '.join(table.columns)})"
        raise DataError(f"{path}: has no column {label!r}{hint}")
    values = table[column].str.strip()
    known = values.str.lower().map(SEXES)
    # one unknown sex does not change the spelling of all others
    if column in SAME_MEANING or known.notna().sum() == values.notna().sum():
        return known.fillna(values)
    return values
