"""What can be wrong with a cohort, and what its user is told."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE, fake_brain

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError, Problems


def rewrite(root, change):
    table = pd.read_csv(root / "participants.tsv", sep="\t", dtype=str)
    change(table).to_csv(root / "participants.tsv", sep="\t", index=False, na_rep="n/a")


def t1w(root, participant_id):
    return next((root / participant_id / "anat").glob("*_T1w.nii.gz"))


@pytest.mark.parametrize("spelling", [("M", "F"), ("m", "f"), ("male", "female"), ("Male", "Female")])
@pytest.mark.parametrize("column", ["sex", "gender"])
def test_spellings_of_sex(bids_tree, spelling, column, capsys):
    rewrite(
        bids_tree,
        lambda t: t.rename(columns={"sex": column}).replace({column: dict(zip("MF", spelling, strict=True))}),
    )
    table = load_participants("bids", bids_tree, label="sex")
    assert table["label"].tolist() == ["male", "female"] * 3
    assert table["target"].tolist() == [1, 0] * 3  # class 1 is male, as in the paper
    said = "has no column 'sex'; its column 'gender' is used" in capsys.readouterr().out
    assert said is (column != "sex")


def test_renamed_labels_are_reported_once(bids_tree, capsys, monkeypatch):
    monkeypatch.setattr("xai_brain.parallel.progress._logged", set())
    for _ in range(2):
        load_participants("bids", bids_tree)
    line = f"{bids_tree / 'participants.tsv'}: sex F is read as female, M as male"
    assert capsys.readouterr().out.splitlines() == [line]
    load_participants("bids", bids_tree, label="age", threshold=22)  # intervals are no other spelling
    assert capsys.readouterr().out == ""


def test_rows_hold_the_image_and_all_columns(bids_tree):
    rewrite(bids_tree, lambda t: t.assign(age=t["age"].replace("25", "89+")))
    table = load_participants("bids", bids_tree)
    assert table["participant_id"].tolist() == [f"sub-{i:02d}" for i in range(6)]
    assert table["age"].tolist() == [20, 21, 22, 23, 24, 89]
    assert all(path.exists() for path in table["t1w_path"])
    assert set(table["space"]) == {"MNI152"}


def test_numbers_as_ids_get_their_prefix(bids_tree):
    rewrite(bids_tree, lambda t: t.assign(participant_id=t["participant_id"].str.removeprefix("sub-")))
    assert load_participants("bids", bids_tree)["participant_id"].tolist() == [
        f"sub-{i:02d}" for i in range(6)
    ]


def test_any_label_with_classes_in_the_given_order(bids_tree):
    rewrite(bids_tree, lambda t: t.assign(diagnosis=["AD", "CN", "MCI"] * 2))
    table = load_participants("bids", bids_tree, label="diagnosis", class_names=["CN", "MCI", "AD"])
    assert table["target"].tolist() == [2, 0, 1] * 2


def test_one_unknown_sex_does_not_change_the_others(bids_tree):
    rewrite(bids_tree, lambda t: t.assign(sex=["M", "F", "M", "U", "M", "F"]))
    problems = Problems("skip")
    table = load_participants("bids", bids_tree, problems=problems)
    assert table["label"].tolist() == ["male", "female", "male", "male", "female"]
    assert problems.rows[0]["reason"] == "sex is 'U', not one of female, male; correct the table"


def test_sessions_are_rows(bids_tree):
    anat = bids_tree / "sub-00" / "anat"
    for session in ("ses-1", "ses-2"):
        target = bids_tree / "sub-00" / session / "anat"
        target.mkdir(parents=True)
        shutil.copy(t1w(bids_tree, "sub-00"), target / f"sub-00_{session}_space-MNI152_T1w.nii.gz")
    shutil.rmtree(anat)
    table = load_participants("bids", bids_tree)
    assert table["session_id"].tolist()[:3] == ["ses-1", "ses-2", ""]


def test_one_of_several_images_is_chosen_by_entities(bids_tree):
    other = t1w(bids_tree, "sub-00").with_name("sub-00_space-MNI152_desc-head_T1w.nii.gz")
    shutil.copy(t1w(bids_tree, "sub-00"), other)
    with pytest.raises(DataError, match=r"sub-00: 2 T1w images .* choose with data\.entities"):
        load_participants("bids", bids_tree)
    table = load_participants("bids", bids_tree, entities={"desc": "brain"})
    assert len(table) == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), r"bids: there is no such folder"),
        (lambda root: (root / "participants.tsv").unlink(), r"participants\.tsv: the file does not exist"),
        (
            lambda root: rewrite(root, lambda t: t.rename(columns={"participant_id": "id"})),
            "no column participant_id",
        ),
        (
            lambda root: rewrite(root, lambda t: t.rename(columns={"sex": "sexe"})),
            "'sex'; did you mean 'sexe'",
        ),
        (lambda root: rewrite(root, lambda t: t.assign(sex="M")), "two classes of sex are needed"),
    ],
)
def test_a_cohort_that_cannot_be_used_is_one_line(bids_tree, damage, message):
    damage(bids_tree)
    with pytest.raises(DataError, match=message) as caught:
        load_participants("bids", bids_tree, problems=Problems("skip"))
    assert "\n" not in str(caught.value)


def damage_image(change):
    def damage(root):
        path = t1w(root, "sub-03")
        change(path)

    return damage


def save(data):
    return lambda path: nib.save(nib.Nifti1Image(np.asarray(data, np.float32), COARSE), path)


DAMAGES = {
    "truncated": (
        damage_image(lambda p: p.write_bytes(p.read_bytes()[:900])),
        r"cannot be read, is it truncated",
    ),
    "several volumes": (damage_image(save(np.ones((*COARSE_SHAPE, 2)))), "a single 3-D volume is needed"),
    "constant": (damage_image(save(np.full(COARSE_SHAPE, 3))), "is constant"),
    "all NaN": (damage_image(save(np.full(COARSE_SHAPE, np.nan))), "no finite voxel"),
    "mask of another grid": (
        damage_image(
            lambda p: nib.save(
                nib.Nifti1Image(np.ones((5, 6, 7), np.uint8), COARSE),
                p.with_name("sub-03_space-MNI152_desc-brain_mask.nii.gz"),
            )
        ),
        "brain mask has another grid",
    ),
    "no image": (damage_image(lambda p: p.unlink()), "no T1w image"),
    "no line": (
        lambda r: rewrite(r, lambda t: t[t["participant_id"] != "sub-03"]),
        "no line in participants.tsv",
    ),
    "no label": (
        lambda r: rewrite(r, lambda t: t.assign(sex=["M", "F", "M", "n/a", "M", "F"])),
        "no value of sex",
    ),
    "duplicate": (lambda r: rewrite(r, lambda t: pd.concat([t, t.iloc[[3]]])), "has several lines"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_bad_input_stops_with_its_file_and_reason(bids_tree, tmp_path, name):
    damage, message = DAMAGES[name]
    damage(bids_tree)
    with pytest.raises(DataError, match=message) as caught:
        prepare_cohort(
            load_participants("bids", bids_tree), PreprocessingConfig("t1w_4mm"), cache_dir=tmp_path
        )
    message = str(caught.value)
    assert "sub-03" in message
    assert "\n" not in message
    assert str(bids_tree) in message


@pytest.mark.parametrize("name", DAMAGES)
def test_one_bad_input_is_set_aside_on_request(bids_tree, tmp_path, name):
    damage, message = DAMAGES[name]
    damage(bids_tree)
    problems = Problems("skip")
    table = load_participants("bids", bids_tree, problems=problems)
    table = prepare_cohort(table, PreprocessingConfig("t1w_4mm"), cache_dir=tmp_path, problems=problems)
    assert table["participant_id"].tolist() == ["sub-00", "sub-01", "sub-02", "sub-04", "sub-05"]
    assert problems.table()["participant_id"].tolist() == ["sub-03"]
    assert pd.Series(problems.table()["reason"]).str.contains(message.split("(")[0]).all()


def test_nothing_is_wrong_with_a_trailing_axis_and_nan_outside(bids_tree, tmp_path):
    path = t1w(bids_tree, "sub-03")
    data = nib.load(path).get_fdata(dtype=np.float32)
    nib.save(nib.Nifti1Image(np.where(data == 0, np.nan, data)[..., None], COARSE), path)
    table = prepare_cohort(
        load_participants("bids", bids_tree), PreprocessingConfig("t1w_4mm"), cache_dir=tmp_path
    )
    assert len(table) == 6


def test_images_of_different_grids_meet_on_one(bids_tree, tmp_path):
    affine = np.diag([6.0, 7.0, 8.0, 1.0])
    affine[:3, 3] = [-87, -124, -70]
    fake_brain((30, 32, 22), affine).to_filename(t1w(bids_tree, "sub-03"))
    table = prepare_cohort(
        load_participants("bids", bids_tree), PreprocessingConfig("t1w_4mm"), cache_dir=tmp_path
    )
    assert {np.load(path, mmap_mode="r").shape for path in table["volume_path"]} == {(46, 55, 46)}
