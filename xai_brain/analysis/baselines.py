"""What a network must beat: brain size alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def brain_size_predictions(
    participants: pd.DataFrame, folds: pd.DataFrame, column: str, class_names: list[str]
) -> pd.DataFrame:
    """Out-of-fold probabilities of a logistic regression on brain size alone.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, target and the column of brain size.
    folds : pandas.DataFrame
        participant_id, fold: those of the network.
    column : str
    class_names : list of str

    Returns
    -------
    pandas.DataFrame
        Like predictions.tsv, seed 0; subjects without a brain size are left out.
    """
    size = pd.to_numeric(participants[column], errors="coerce")
    table = participants[["participant_id", "target"]].assign(brain_size=size)[size.notna().to_numpy()]
    table = table.merge(folds[["participant_id", "fold"]], on="participant_id")
    parts = []
    for fold in sorted(table["fold"].unique()):
        train, test = table[table["fold"] != fold], table[table["fold"] == fold]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(train[["brain_size"]].to_numpy(), train["target"])
        probabilities = np.zeros((len(test), len(class_names)))
        probabilities[:, model.classes_] = model.predict_proba(test[["brain_size"]].to_numpy())
        part = test[["participant_id", "fold", "target"]].assign(seed=0)
        for k, name in enumerate(class_names):
            part[f"prob_{name}"] = probabilities[:, k]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
