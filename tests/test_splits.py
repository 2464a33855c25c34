"""Who is tested in which fold: known counts, groups, sites, balance, tables given back in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.data.folds.tables import NEVER_TESTED, fold_numbers, read_folds
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import write_tsv


def cohort(counts, sessions=1):
    targets = [k for k, n in enumerate(counts) for _ in range(n)]
    rows = [(f"sub-{i:03d}", target) for i, target in enumerate(targets) for _ in range(sessions)]
    return pd.DataFrame(rows, columns=["participant_id", "target"])


def families(n_families=40, seed=0):
    """Families of one to four; members can be of both classes."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"sub-{f:02d}{k}", int(rng.integers(2)), f"family{f}")
        for f in range(n_families)
        for k in range(rng.integers(1, 5))
    ]
    return pd.DataFrame(rows, columns=["participant_id", "target", "family_id"])


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


@pytest.mark.parametrize(
    ("targets", "random_state", "expected", "validation"),
    [
        ([i % 3 == 0 for i in range(23)], 0, "32210300033312201121021", ["sub-10", "sub-11", "sub-18"]),
        ([i % 3 == 0 for i in range(23)], 2020, "30111102320220213330201", ["sub-01", "sub-09", "sub-16"]),
        ([i % 3 for i in range(23)], 0, "30213101133210302021022", None),
    ],
)
def test_the_folds_of_the_first_version(targets, random_state, expected, validation):
    """Runs that were begun rely on them; the literals are from before there were other kinds."""
    table = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(23)], "target": targets})
    table["target"] = table["target"].astype(int)
    folds = make_folds(table, 4, random_state)
    assert list(folds) == ["participant_id", "fold"]
    assert "".join(map(str, folds["fold"])) == expected
    if validation:
        part = split_fold(table, folds, 1, 0.2, random_state)["validation"]
        assert sorted(part["participant_id"]) == validation


def test_too_many_folds_are_refused():
    with pytest.raises(DataError, match="smallest class has only 3"):
        make_folds(cohort([3, 30]), 5)


@pytest.mark.parametrize("random_state", range(5))
def test_families_are_on_one_side_of_test_and_of_validation(random_state):
    table = families(seed=random_state)
    folds = make_folds(table, 4, random_state, group_column="family_id")
    assert folds.merge(table).groupby("family_id")["fold"].nunique().max() == 1
    assert sorted(folds["fold"].unique()) == [0, 1, 2, 3]
    for fold in range(4):
        parts = split_fold(table, folds, fold, 0.15, random_state, "family_id")
        sides = [set(part["family_id"]) for part in parts.values()]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
        learns = len(parts["train"]) + len(parts["validation"])
        assert abs(len(parts["validation"]) / learns - 0.15) < 0.06
        assert abs(parts["validation"]["target"].mean() - table["target"].mean()) < 0.2


def test_without_a_family_one_is_alone():
    table = families().assign(family_id=None)
    folds = make_folds(table, 4, group_column="family_id")
    assert folds["fold"].value_counts().max() - folds["fold"].value_counts().min() <= 1


def test_repeats_divide_anew_and_test_everybody_once_each():
    table = cohort([12, 15])
    folds = make_folds(table, 3, 7, n_repeats=3)
    assert list(folds) == ["participant_id", "fold", "repeat"]
    assert (folds["fold"] // 3 == folds["repeat"]).all()
    assert not folds.duplicated(["participant_id", "repeat"]).any()
    first = folds[folds["repeat"] == 0].drop(columns="repeat")
    pd.testing.assert_frame_equal(first, make_folds(table, 3, 7))
    together = [frozenset(folds[folds["fold"] == fold]["participant_id"]) for fold in fold_numbers(folds)]
    assert len(set(together)) == 9
    parts = split_fold(table, folds, 5, 0.2)
    assert set(parts["test"]["participant_id"]) == together[5]
    assert sum(map(len, parts.values())) == len(table)


def test_each_site_is_left_out_once():
    table = cohort([12, 15]).assign(site=lambda t: [("Guys", "HH", "IOP")[i % 3] for i in range(len(t))])
    folds = make_folds(table, kind="column", column="site")
    sites = folds.merge(table).groupby("fold")["site"].unique()
    assert [list(site) for site in sites] == [["Guys"], ["HH"], ["IOP"]]
    parts = split_fold(table, folds, 1, 0.2)
    assert set(parts["test"]["site"]) == {"HH"}
    assert "HH" not in {*parts["train"]["site"], *parts["validation"]["site"]}


def test_a_predefined_column_sorts_numbers_as_numbers_and_train_is_never_tested():
    table = cohort([8, 8]).assign(part=["2", "10", "train", "9"] * 4)
    folds = make_folds(table, kind="column", column="part")
    assert folds["fold"].tolist() == [0, 2, NEVER_TESTED, 1] * 4
    assert fold_numbers(folds) == [0, 1, 2]
    for fold in range(3):
        parts = split_fold(table, folds, fold, 0.2)
        assert "train" not in set(parts["test"]["part"])
        assert sum(map(len, parts.values())) == 16


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.25, 0.5, 0.75])
def test_a_hold_out_is_stratified_and_of_the_size_asked_for(fraction):
    table = cohort([40, 80])
    folds = make_folds(table, kind="hold_out", test_fraction=fraction)
    assert fold_numbers(folds) == [0]
    assert folds.merge(table).query("fold == 0")["target"].value_counts().to_dict() == {
        1: round(80 * fraction),
        0: round(40 * fraction),
    }


def spread(folds, table, column):
    """Standard deviation over folds of the mean of a number inside each class, summed over classes."""
    means = folds.merge(table).groupby(["target", "fold"])[column].mean()
    return means.groupby("target").std().sum()


def test_balanced_folds_differ_less_in_age_and_brain_size():
    rng = np.random.default_rng(0)
    table = cohort([45, 60])
    table["age"] = rng.uniform(20, 80, len(table))
    table["icv_ml"] = 1500 + 120 * table["target"] - 2 * table["age"] + 90 * rng.standard_normal(len(table))
    for columns in (["age"], ["age", "icv_ml"]):
        for column in columns:
            plain = np.mean([spread(make_folds(table, 5, s), table, column) for s in range(20)])
            made = [make_folds(table, 5, s, balance_on=columns) for s in range(20)]
            balanced = np.mean([spread(folds, table, column) for folds in made])
            assert balanced < (0.5 if len(columns) == 1 else 0.8) * plain
    for folds in made:  # the classes stay as even as they were
        assert folds.merge(table).groupby(["fold", "target"]).size().to_dict() == {
            (fold, target): n for fold in range(5) for target, n in ((0, 9), (1, 12))
        }


def test_a_category_is_balanced_and_a_missing_number_is_no_obstacle():
    table = cohort([30, 30]).assign(site=["A", "A", "B"] * 20, age=[30, None, 50, 60, 70] * 12)
    folds = make_folds(table, 5, balance_on=["site", "age"])
    counts = folds.merge(table).groupby(["fold", "target", "site"]).size()
    assert set(counts[:, :, "A"]) == {4}
    assert set(counts[:, :, "B"]) == {2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_column": "family"}, r"folds\.group_column: the participants have no column 'family'"),
        ({"balance_on": ["wheight"]}, r"folds\.balance_on: the participants have no column 'wheight'"),
        ({"balance_on": ["empty"]}, "the column empty is empty"),
        ({"kind": "column", "column": "partly"}, r"folds\.column=partly: sub-000, sub-001 has no value"),
        ({"kind": "column", "column": "same"}, "all participants have one value"),
        ({"kind": "column", "column": "target"}, "training side has no participant of class 0"),
        ({"kind": "column", "column": "by_class"}, "every fold tests one class only"),
        ({"kind": "column", "column": "varying"}, r"sub-000.* has several values of varying"),
        ({"kind": "kfold"}, r"folds\.kind=kfold: one of stratified"),
        ({"group_column": "same"}, "smallest class has only 1 groups of same"),
    ],
)
def test_what_cannot_be_divided_is_told_in_one_line(change, message):
    table = cohort([6, 6], sessions=2)
    person = table["participant_id"].str[-3:].astype(int)
    table = table.assign(empty=None, same="x", varying=range(24))
    table["partly"] = [None if p < 2 else p for p in person]
    table["by_class"] = [f"{t}{p % 2}" for t, p in zip(table["target"], person, strict=True)]
    with pytest.raises(DataError, match=message) as caught:
        make_folds(table, 3, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("made", [{}, {"n_repeats": 2}, {"kind": "hold_out"}, {"group_column": "family_id"}])
def test_folds_can_be_given_back(tmp_path, made):
    table = families()
    folds = make_folds(table, 4, **made)
    shuffled = folds.sample(frac=1, random_state=0)
    shuffled["participant_id"] = shuffled["participant_id"].str.removeprefix("sub-")
    write_tsv(
        pd.concat(
            [shuffled, pd.DataFrame({"participant_id": ["sub-x"], "fold": [1], "repeat": [0]})[list(folds)]]
        ),
        tmp_path / "folds.tsv",
    )
    given_back, strangers = read_folds(tmp_path / "folds.tsv", table)
    pd.testing.assert_frame_equal(given_back, folds)
    assert strangers == ["sub-x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[2:], "no fold for sub-000, sub-001; every participant needs one"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "sub-000 has several folds"),
        (
            lambda t: t.assign(fold=t["fold"].astype(object).where(t.index > 0, "one")),
            "fold of sub-000 is not a whole",
        ),
        (lambda t: t.assign(fold=t["fold"] + 0.5), "is not a whole number"),
        (lambda t: t.assign(fold=-1), "every fold tests one class only"),
        (
            lambda t: t.rename(columns={"fold": "part"}),
            r"has no column fold \(its columns: participant_id, part\)",
        ),
        (lambda t: pd.concat([t.assign(repeat=0), t.assign(repeat=1)]), "a fold is in several repeats"),
    ],
)
def test_a_wrong_table_of_folds_is_told_in_one_line(tmp_path, change, message):
    table = cohort([10, 10])
    write_tsv(change(make_folds(table, 3)), tmp_path / "folds.tsv")
    with pytest.raises(DataError, match=message) as caught:
        read_folds(tmp_path / "folds.tsv", table)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="there is no such file"):
        read_folds(tmp_path / "none.tsv", table)
