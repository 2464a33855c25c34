"""BIDS and CAPS: sessions, runs, masks and tables, and the exact table of participants."""

from __future__ import annotations

import shutil

import pytest
from layout_trees import fake, make_bids, make_bids_sessions, make_caps, names, rows, touch

from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError, Problems


def test_bids_derivative_with_sessions(tmp_path):
    settings = make_bids_sessions(tmp_path, fake)
    table = load_participants("bids", tmp_path, **settings)
    assert rows(table)[:3] == [
        ("sub-00", "ses-1", "female", 0, 30, "female"),
        ("sub-00", "ses-2", "female", 0, 30, "female"),
        ("sub-01", "ses-1", "male", 1, 31, "male"),
    ]
    assert len(table) == 16
    assert names(table, tmp_path)[1] == (
        "sub-00/ses-2/anat/sub-00_ses-2_run-1_space-MNI152_res-2_desc-brain_T1w.nii.gz"
    )
    assert set(table["space"]) == {"MNI152"}
    native = load_participants("bids", tmp_path, **{**settings, "entities": {"space": None}})
    assert set(native["space"]) == {""}


def test_bids_values_of_a_session_go_before_those_of_the_person(tmp_path):
    make_bids_sessions(tmp_path, fake)
    for i in range(8):
        (tmp_path / f"sub-{i:02d}" / f"sub-{i:02d}_sessions.tsv").write_text(
            f"session_id\tage\tdiagnosis\nses-1\t{50 + i}\tCN\nses-2\tn/a\tMCI\n"
        )
    table = load_participants(
        "bids", tmp_path, label="diagnosis", tables=["code/people.tsv"], entities={"space": "MNI152"}
    )
    assert rows(table)[:2] == [
        ("sub-00", "ses-1", "CN", 0, 50, "female"),
        ("sub-00", "ses-2", "MCI", 1, 30, "female"),
    ]


def test_bids_runs_and_masks(tmp_path):
    make_bids(tmp_path, fake)
    anat = tmp_path / "sub-03" / "anat"
    shutil.rmtree(anat)
    for run in ("01", "02"):
        touch(anat / f"sub-03_run-{run}_space-MNI152_T1w.nii.gz")
        touch(anat / f"sub-03_run-{run}_space-MNI152_desc-brain_mask.nii.gz")
        touch(anat / f"sub-03_run-{run}_desc-brain_mask.nii.gz")
    with pytest.raises(DataError, match=r"sub-03: 2 T1w images .*data\.entities"):
        load_participants("bids", tmp_path)
    table = load_participants("bids", tmp_path, entities={"run": "1"}).set_index("participant_id")
    assert len(table) == 8
    assert table.loc["sub-03", "t1w_path"].name == "sub-03_run-01_space-MNI152_T1w.nii.gz"
    assert table.loc["sub-03", "brain_mask_path"].name == "sub-03_run-01_space-MNI152_desc-brain_mask.nii.gz"
    assert table.loc["sub-00", "brain_mask_path"] is None
    problems = Problems("skip")
    with pytest.raises(DataError, match="two classes"):
        load_participants("bids", tmp_path, entities={"run": "2"}, problems=problems)
    assert len(problems.rows) == 7


def test_bids_further_tables_add_columns(tmp_path):
    make_bids(tmp_path, fake)
    touch(tmp_path / "phenotype" / "memory.tsv").write_text(
        "participant_id\tscore\tage\n" + "".join(f"sub-{i:02d}\t{i}\t99\n" for i in range(8))
    )
    tables = ["participants.tsv", "phenotype/memory.tsv"]
    table = load_participants("bids", tmp_path, label="score", threshold=3, tables=tables)
    assert table["label"].tolist() == ["score-up-to-3"] * 4 + ["score-above-3"] * 4
    assert table["age"].tolist() == list(range(30, 38))  # the first table is right


def test_caps_takes_the_sessions_of_the_table(tmp_path):
    settings = make_caps(tmp_path, fake)
    table = load_participants("caps", tmp_path, **settings)
    assert rows(table)[:3] == [
        ("sub-ADNI0", "ses-M000", "AD", 0, 70, "female"),
        ("sub-ADNI1", "ses-M000", "CN", 1, 71, "female"),
        ("sub-ADNI2", "ses-M000", "AD", 0, 72, "male"),
    ]
    assert len(table) == 8
    assert names(table, tmp_path)[0] == (
        "subjects/sub-ADNI0/ses-M000/t1_linear/"
        "sub-ADNI0_ses-M000_T1w_space-MNI152NLin2009cSym_desc-Crop_res-1x1x1_T1w.nii.gz"
    )
    assert set(table["space"]) == {"MNI152NLin2009cSym"}
    with pytest.raises(DataError, match=r"2 T1w images .*data\.entities"):
        load_participants("caps", tmp_path, **{**settings, "entities": {}})
    whole = load_participants("caps", tmp_path, **{**settings, "entities": {"desc": None}})
    assert "Crop" not in whole["t1w_path"][0].name
    with open(tmp_path / "labels.tsv", "a") as file:
        file.write("\nsub-ADNI0\tses-M024\tAD\tF\t71\n")
    with pytest.raises(DataError, match="sub-ADNI0: has a line of ses-M024 but no T1w image"):
        load_participants("caps", tmp_path, **settings)
