from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_brain.data.problems import DataError
from xai_brain.data.splits import make_folds, split_fold


def cohort(counts, sessions=1):
    targets = [k for k, n in enumerate(counts) for _ in range(n)]
    rows = [(f"sub-{i:03d}", target) for i, target in enumerate(targets) for _ in range(sessions)]
    return pd.DataFrame(rows, columns=["participant_id", "target"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(10, 40), min_size=2, max_size=3),
    st.integers(2, 5),
    st.integers(1, 2),
    st.integers(0, 99),
)
def test_every_participant_is_tested_once_and_never_trained_on(counts, n_folds, sessions, random_state):
    table = cohort(counts, sessions)
    folds = make_folds(table, n_folds, random_state)
    assert folds["participant_id"].is_unique
    tested = []
    for fold in range(n_folds):
        parts = split_fold(table, folds, fold, 0.15, random_state)
        ids = {name: set(part["participant_id"]) for name, part in parts.items()}
        assert not ids["train"] & ids["test"]
        assert not ids["train"] & ids["validation"]
        assert not ids["validation"] & ids["test"]
        assert sum(map(len, parts.values())) == len(table)
        tested += sorted(ids["test"])
        share = parts["test"]["target"].value_counts(normalize=True)
        whole = table["target"].value_counts(normalize=True)
        assert (share - whole).abs().max() < 1.5 / len(ids["test"]) + 1e-9  # stratified up to one person
    assert sorted(tested) == sorted(folds["participant_id"])


def test_same_seed_same_folds():
    table = cohort([20, 30])
    pd.testing.assert_frame_equal(make_folds(table, 5, 1), make_folds(table, 5, 1))
    assert not make_folds(table, 5, 1).equals(make_folds(table, 5, 2))


def test_too_many_folds_are_refused():
    with pytest.raises(DataError, match="smallest class has only 3"):
        make_folds(cohort([3, 30]), 5)
