"""What a network must beat: brain size alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xai_brain.data.fold_tables import fold_numbers


def brain_size_predictions(
    participants: pd.DataFrame, folds: pd.DataFrame, column: str, class_names: list[str]
) -> pd.DataFrame:
    """Out-of-fold probabilities of a logistic regression on brain size alone.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, target and the column of brain size.
    folds : pandas.DataFrame
        participant_id, fold (and repeat): those of the network.
    column : str
    class_names : list of str

    Returns
    -------
    pandas.DataFrame
        Like predictions.tsv, seed 0; subjects without a brain size are left out.
    """
    size = pd.to_numeric(participants[column], errors="coerce")
    table = participants[["participant_id", "target"]].assign(brain_size=size)[size.notna().to_numpy()]
    parts = []
    for fold in fold_numbers(folds):
        row = folds[folds["fold"] == fold]
        is_test = table["participant_id"].isin(row["participant_id"])
        train, test = table[~is_test], table[is_test]
        if test.empty:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(train[["brain_size"]].to_numpy(), train["target"])
        probabilities = np.zeros((len(test), len(class_names)))
        probabilities[:, model.classes_] = model.predict_proba(test[["brain_size"]].to_numpy())
        part = test[["participant_id"]].assign(fold=fold, target=test["target"], seed=0)
        if "repeat" in row:
            part["repeat"] = row["repeat"].iloc[0]
        for k, name in enumerate(class_names):
            part[f"prob_{name}"] = probabilities[:, k]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
