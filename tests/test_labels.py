"""Classes from words and from numbers, with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import DataError
from xai_brain.io.tables import bounds, numbers
from xai_brain.study.confounds import of_one_class
from xai_brain.task.classification import Classification
from xai_brain.task.labels import LabelRule, class_named, find_column, is_label, make_labels


def labels(values, **rule):
    found, names, reasons = make_labels(pd.Series(values, dtype=object), LabelRule("age", **rule), "x.tsv")
    return [None if pd.isna(name) else name for name in found], names, reasons.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("63", (63, 63)),
        (" 63.5 ", (63.5, 63.5)),
        ("63,5", (63.5, 63.5)),
        ("-1e-2", (-0.01, -0.01)),
        ("89+", (89, np.inf)),
        (">89", (89, np.inf)),
        ("≥ 89", (89, np.inf)),
        ("<18", (-np.inf, 18)),
        ("22-25", (22, 25)),
        ("22–25", (22, 25)),
        ("068Y", (68, 68)),
        ("63 years", (63, 63)),
        ("25-22", None),
        ("old", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (np.nan, None),
    ],
)
def test_what_a_number_can_be_written_as(text, expected):
    assert bounds(text) == expected


def test_a_band_is_its_middle_and_an_open_one_its_bound():
    found = numbers(pd.Series(["22-25", "36+", "<18", "old", np.nan], dtype=object))
    np.testing.assert_array_equal(found, [23.5, 36, 18, np.nan, np.nan])


def test_a_threshold_belongs_to_the_lower_class():
    found, names, reasons = labels(["59.9", "60", "60.1", "89+"], threshold=60)
    assert found == ["age-up-to-60", "age-up-to-60", "age-above-60", "age-above-60"]
    assert names == ["age-up-to-60", "age-above-60"]  # the order of the index, not of the alphabet
    assert reasons == [""] * 4


def test_bins_make_one_class_more_than_edges():
    found, names, _ = labels(["20", "40", "41", "60", "99"], bins=[40, 60])
    assert names == ["age-up-to-40", "age-40-to-60", "age-above-60"]
    assert found == [names[0], names[0], names[1], names[1], names[2]]


def test_classes_of_numbers_can_be_named():
    found, names, _ = labels(["20", "70"], threshold=60, class_names=["young", "old"])
    assert (found, names) == (["young", "old"], ["young", "old"])
    with pytest.raises(DataError, match="3 names are needed, from low to high"):
        labels(["20", "70"], bins=[40, 60], class_names=["young", "old"])


def test_a_band_across_the_threshold_has_no_class():
    found, _, reasons = labels(["22-25", "26-30", "31-35", "36+", "x", np.nan], threshold=30)
    assert found == ["age-up-to-30", "age-up-to-30", "age-above-30", "age-above-30", None, None]
    assert labels(["26-30"], threshold=28)[2] == ["age is '26-30', no number that lies on one side of 28"]
    assert reasons[-1] == "no value of age"


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5, unique=True),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
)
def test_classes_are_the_intervals_of_pandas(edges, values):
    edges = sorted(edges)
    wanted = pd.cut(pd.Series(values), [-np.inf, *edges, np.inf], labels=False)
    names = [f"class {k}" for k in range(len(edges) + 1)]
    found, _, _ = labels([repr(value) for value in values], bins=edges, class_names=names)
    assert found == [f"class {k}" for k in wanted]


def test_words_are_classes_as_they_are_written():
    found, names, _ = labels(["MCI", "AD", "CN"])
    assert (found, names) == (["MCI", "AD", "CN"], ["AD", "CN", "MCI"])
    found, names, reasons = labels(["MCI", "AD", "CN"], class_names=["CN", "AD"])
    assert (found, names) == ([None, "AD", "CN"], ["CN", "AD"])
    assert reasons == ["age is 'MCI', not one of CN, AD", "", ""]


def test_a_column_is_found_in_another_case_and_as_gender():
    table = pd.DataFrame({"Diagnosis": ["a"], "gender": ["f"], "Age": ["1"]})
    assert find_column(table, "diagnosis", "x.tsv") == "Diagnosis"
    assert find_column(table, "sex", "x.tsv") == "gender"
    with pytest.raises(DataError, match=r"x\.tsv: has no column 'diagnose'; did you mean 'Diagnosis'\?; set"):
        find_column(table, "diagnose", "x.tsv")


def test_the_column_of_the_classes_by_its_other_names():
    assert is_label("sex", "gender")
    assert is_label("age", "Age")
    assert not is_label("age", "sex")
    assert not is_label("site", None)


def test_people_whose_sessions_are_of_different_classes_are_left_out_and_named():
    table = pd.DataFrame(
        {"participant_id": ["sub-1", "sub-1", "sub-2", "sub-2"], "label": ["CN", "AD", "CN", "CN"]}
    )
    lines = []
    assert of_one_class(table, lines.append)["participant_id"].tolist() == ["sub-2"]
    assert len(lines) == 1
    assert "sub-1: sessions of several classes" in lines[0]


def test_spellings_of_sex_name_the_same_class():
    names = ["female", "male"]
    assert [class_named(text, names) for text in ("F", "f", "woman", "M", "male")] == [
        *["female"] * 3,
        *["male"] * 2,
    ]
    assert class_named("M", ["M", "W"]) == "M"  # a class of its own
    assert class_named("AD", ["AD", "CN"]) == "AD"
    assert class_named("mann", names) == "mann"
    found, given, reasons = make_labels(
        pd.Series(["F", "M", "F"], dtype=object), LabelRule("sex", class_names=["M", "F"]), "x.tsv"
    )
    assert given == ["male", "female"]
    assert found.tolist() == ["female", "male", "female"]
    assert reasons.tolist() == [""] * 3


def test_a_target_may_be_written_as_in_the_table():
    task = Classification(("female", "male"))
    assert task.read_target("M") == task.read_target("male") == task.read_target("label:M") == 1
    assert task.read_target("F") == 0
    assert task.read_target("true") == "true"
    assert task.in_own_names("M") == "male"
    assert task.in_own_names("predicted") == "predicted"
    with pytest.raises(ConfigError, match=r"one of predicted, true, female, male is needed; the classes are"):
        task.read_target("mann")
    assert Classification(("M", "W")).read_target("M") == 0
