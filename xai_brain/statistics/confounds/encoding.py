"""Columns of the table of participants as numbers, with the categories of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


class EncodingError(ValueError):
    """A column cannot be encoded; one line says why."""


def numeric_columns(
    train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as they are; texts as one column for each category of the training images but the first.

    Parameters
    ----------
    train, test : pandas.DataFrame
    columns : sequence of str

    Returns
    -------
    train, test : ndarray of shape (n_images, n_encoded)

    Raises
    ------
    EncodingError
        A value is missing, or a category does not occur in the training images.
    """
    encoded: list[list[np.ndarray]] = [[], []]
    for name in columns:
        both = pd.concat([train[name], test[name]])
        if n_missing := int(both.isna().sum()):
            raise EncodingError(f"{name} has no value for {n_missing} images")
        numbers = pd.to_numeric(both, errors="coerce")
        categories = [] if numbers.notna().all() else sorted(train[name].astype(str).unique())
        if categories and (unknown := sorted(set(test[name].astype(str)) - set(categories))):
            raise EncodingError(
                f"{name} is {unknown[0]!r} in test images only, so that its effect is not known"
            )
        for part, own in zip((train, test), encoded, strict=True):
            if not categories:
                own.append(pd.to_numeric(part[name]).to_numpy(float))
            own += [(part[name].astype(str) == category).to_numpy(float) for category in categories[1:]]
    shapes = (len(train), len(test))
    found = [np.stack(own, 1) if own else np.zeros((n, 0)) for own, n in zip(encoded, shapes, strict=True)]
    return found[0], found[1]
