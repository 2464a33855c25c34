"""Tables of participants with a continuous target: what is refused, reported or left out, in two layouts."""

from __future__ import annotations

import pytest

import xai_brain as xb
from xai_brain.config.checks import read_config
from xai_brain.config.schema import ConfigError
from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError, Problems
from xai_brain.study.commands.names import check_names
from xai_brain.study.training.cross_validation import check_brain_size
from xai_brain.task.regression import Regression

N = 20
AGES = [f"{20.5 + i}" for i in range(N)]


def make_bids(root, ages, **columns):
    names = [f"sub-{i:02d}" for i in range(N)]
    for name in names:
        (root / name / "anat").mkdir(parents=True, exist_ok=True)
        (root / name / "anat" / f"{name}_space-MNI152_desc-brain_T1w.nii.gz").touch()
    header = ["participant_id", "age", "sex", *columns]
    lines = zip(names, ages, ["M", "F"] * (N // 2), *columns.values(), strict=True)
    (root / "participants.tsv").write_text("\n".join("\t".join(each) for each in [header, *lines]) + "\n")


def make_ixi(root, ages, **columns):
    (root / "T1").mkdir(exist_ok=True)
    for i in range(N):
        (root / "T1" / f"IXI{i:03d}-HH-0{800 + i}-T1.nii.gz").touch()
    header = ["IXI_ID", "AGE", '"SEX_ID (1=m, 2=f)"', *columns]
    lines = zip(map(str, range(N)), ages, ["1", "2"] * (N // 2), *columns.values(), strict=True)
    (root / "IXI.csv").write_text("\n".join(",".join(each) for each in [header, *lines]) + "\n")


LAYOUTS = {"bids": (make_bids, "sub-03"), "ixi": (make_ixi, "sub-IXI003")}


@pytest.fixture(params=list(LAYOUTS))
def layout(request):
    return request.param


def load(layout, root, ages):
    LAYOUTS[layout][0](root, ages)
    problems = Problems()
    return load_participants(layout, root, label="age", task=Regression(), problems=problems), problems


def changed(value, at=3):
    return [*AGES[:at], value, *AGES[at + 1 :]]


def test_participants_without_a_value_are_left_out_and_counted(layout, tmp_path):
    found, problems = load(layout, tmp_path, changed("n/a"))
    assert found["target"].tolist() == [float(age) for age in changed("0") if age != "0"]
    assert [row["participant_id"] for row in problems.rows] == [LAYOUTS[layout][1]]
    assert problems.rows[0]["reason"] == "no value of age"


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        (["50"] * N, "age is 50 for all participants; there is nothing to learn"),
        (["50", "60", "70", "80"] * 5, r"age has 4 different values only; .* otherwise task.min_distinct=4"),
        (["n/a"] * N, "age"),
    ],
)
def test_targets_from_which_nothing_can_be_learned_are_refused(layout, tmp_path, ages, message):
    with pytest.raises(DataError, match=message) as caught:
        load(layout, tmp_path, ages)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", ["89+", "45 y", "unknown"])
def test_values_that_are_no_numbers_are_named(layout, tmp_path, value):
    with pytest.raises(DataError, match=LAYOUTS[layout][1]) as caught:
        load(layout, tmp_path, changed(value))
    assert value in str(caught.value)


def test_outliers_are_reported_and_kept(layout, tmp_path, capsys):
    found, problems = load(layout, tmp_path, changed("850"))
    assert "850: more than 5 robust standard deviations from the median" in capsys.readouterr().out
    assert len(found) == N
    assert not problems.rows


def test_a_cohort_of_the_objects_has_the_number_as_its_target(layout, tmp_path):
    LAYOUTS[layout][0](tmp_path, AGES)
    cohort = xb.load_cohort(layout, tmp_path, label="age", task="regression")
    assert cohort.table["target"].tolist() == [float(age) for age in AGES]
    assert repr(cohort) == "Cohort(20 participants: age 20.5 to 39.5; not prepared)"
    with pytest.raises(DataError, match=r"age has 20 different numbers; .* or predict the number"):
        xb.load_cohort(layout, tmp_path, label="age")


def settings(layout, root, *overrides):
    common = [f"data={layout}", f"data.root={root}", "task=regression", "data.label=age"]
    return read_config(xb.compose("train", [*common, f"run_dir={root / 'run'}", *overrides]))


@pytest.mark.parametrize(
    ("confounds", "message"),
    [
        ("birth", r"confounds: the confounds birth determine age \(R² = 1\.0000\)"),
        ("sex,birth", "the confounds sex, birth determine age"),
        ("age", "confounds=age: is the label"),
        ("brth", "confounds=brth: not in participants.tsv; did you mean birth"),
    ],
)
def test_confounds_that_determine_the_target_are_refused_from_the_tables(
    layout, tmp_path, confounds, message
):
    LAYOUTS[layout][0](tmp_path, AGES, birth=[f"{2006 - float(age):.1f}" for age in AGES])
    with pytest.raises(ConfigError, match=message) as caught:
        check_names(settings(layout, tmp_path, f"evaluation.group.confounds=[{confounds}]"))
    assert len(str(caught.value).splitlines()) == 1
    check_names(settings(layout, tmp_path, "evaluation.group.confounds=[sex,fold]"))


def test_brain_size_needs_values_of_the_cohort_and_not_of_every_number(tmp_path):
    make_bids(tmp_path, AGES, icv=[str(1400 + i) for i in range(N)])
    config = settings("bids", tmp_path, "data.brain_size_column=icv")
    table = load_participants("bids", tmp_path, label="age", task=Regression())
    check_brain_size(config, table)
    with pytest.raises(ConfigError, match=r"icv: too few numbers in it \(participants: 0\)"):
        check_brain_size(config, table.assign(icv=None))


def test_brain_sizes_that_are_no_numbers_are_refused(tmp_path):
    sizes = [str(1400 + i) for i in range(N)]
    make_bids(tmp_path, AGES, icv=[*sizes[:3], "1403,5", *sizes[4:]])
    config = settings("bids", tmp_path, "data.brain_size_column=icv")
    table = load_participants("bids", tmp_path, label="age", task=Regression())
    with pytest.raises(ConfigError, match=r"icv: '1403,5' is no number \(sub-03\)") as caught:
        check_brain_size(config, table)
    assert len(str(caught.value).splitlines()) == 1
