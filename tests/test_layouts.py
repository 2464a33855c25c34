"""All layouts: tables of paths, whole trees, and training on each of them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE
from layout_trees import LAYOUTS, brain, fake, make_table, names, rows, touch

from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError


def test_a_session_that_leads_out_of_the_tree_is_never_made_a_path(tmp_path):
    make_table(tmp_path, fake)
    lines = (tmp_path / "cohort.csv").read_text().splitlines()
    sessions = ["session_id", "x/../../../../evil", *["b"] * (len(lines) - 2)]
    lines = [f"{line},{session}" for line, session in zip(lines, sessions, strict=True)]
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match="P0: a session_id can contain letters, digits and hyphens only; rename it"
    ):
        load_participants("table", tmp_path, tables=["cohort.csv"], label="Sex")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_in_each_format(tmp_path, ending):
    make_table(tmp_path, fake)
    content = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    if ending == "parquet":
        content.to_parquet(tmp_path / "people.parquet")
    else:
        content.to_csv(tmp_path / f"people.{ending}", sep="," if ending == "csv" else "\t", index=False)
    table = load_participants("table", tmp_path, tables=[f"people.{ending}"])
    assert rows(table, "space")[:2] == [
        ("sub-P0", "", "female", 0, 20, "female", "MNI152"),
        ("sub-P1", "", "male", 1, 21, "male", "MNI152"),
    ]
    assert names(table, tmp_path)[7] == "scan 7/Käse.nii.gz"


def test_a_table_may_hold_masks_sessions_and_absolute_paths(tmp_path):
    lines = ["participant_id;session_id;t1w_path;brain_mask_path;diagnosis;age"]
    for i in range(4):
        image, mask = touch(tmp_path / f"i{i}.nii"), touch(tmp_path / f"m{i}.nii")
        lines += [f"P{i // 2};{i % 2 + 1};{image};{mask};{'AC'[i % 2]}{'DN'[i % 2]};6{i},5"]
    (tmp_path / "participants.tsv").write_text("\n".join(lines))
    table = load_participants("table", tmp_path, label="diagnosis")
    chosen = table[["participant_id", "session_id", "label", "target", "age"]]
    assert [tuple(row) for row in chosen.itertuples(index=False)] == [
        ("sub-P0", "ses-1", "AD", 0, 60.5),
        ("sub-P0", "ses-2", "CN", 1, 61.5),
        ("sub-P1", "ses-1", "AD", 0, 62.5),
        ("sub-P1", "ses-2", "CN", 1, 63.5),
    ]
    assert names(table, tmp_path, "brain_mask_path") == ["m0.nii", "m1.nii", "m2.nii", "m3.nii"]


def test_a_parquet_table_without_its_library_says_what_to_install(tmp_path):
    make_table(tmp_path, fake)
    (tmp_path / "people.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"people\.parquet: (reading it needs pyarrow: pip|cannot be read)"):
        load_participants("table", tmp_path, tables=["people.parquet"])


def test_settings_of_another_layout_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"data\.image: is no setting of data=bids, which takes entities, tables"
    ):
        load_participants("bids", tmp_path, image="x")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_whole_tree_is_found(tmp_path, name):
    layout, make = LAYOUTS[name]
    settings = make(tmp_path, fake)
    table = load_participants(layout, tmp_path, **settings)
    assert table["participant_id"].nunique() == 8
    assert sorted(table["target"].unique()) == [0, 1]
    assert list(table["label"].unique()) in (["female", "male"], ["male", "female"], ["AD", "CN"])
    assert all(path.is_file() for path in table["t1w_path"])
    assert table["age"].dtype == float


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "bids"])
def test_every_layout_reaches_a_trained_model(tmp_path, name):
    from xai_brain import BrainClassifier, compose
    from xai_brain.runs.directory import read_tsv
    from xai_brain.stages.train import train

    layout, make = LAYOUTS[name]
    root = tmp_path / "cohort"
    root.mkdir()
    settings = make(root)
    overrides = [
        f"data={layout}",
        f"data.root={root}",
        f"run_dir={tmp_path / 'run'}",
        "preprocessing=t1w_4mm",
    ]
    overrides += ["folds.n_folds=2", "folds.validation_fraction=0.5", "trainer.max_epochs=1"]
    overrides += ["trainer.batch_size=2", "model.channels=[2,3,4]", "evaluation.n_bootstrap=20"]
    for key, value in settings.items():
        text = f"{{{','.join(f'{k}: {v}' for k, v in value.items())}}}" if isinstance(value, dict) else value
        overrides.append(f"data.{key}={text}")
    overrides += ["preprocessing.scaling=none", "preprocessing.brain=template"] if layout == "oasis" else []
    run = train(compose("train", overrides))
    predictions = read_tsv(run.predictions)
    assert predictions["participant_id"].nunique() == 8
    assert BrainClassifier.load_from_checkpoint(run.checkpoint(0, 0), weights_only=True).output_names
    paths = read_tsv(run.participants)["t1w_path"]
    assert all((root / path).is_file() for path in paths)  # relative to the cohort


def test_the_made_images_are_what_the_layouts_hold(tmp_path):
    img = nib.load(brain(tmp_path / "x.nii.gz"))
    assert img.shape == COARSE_SHAPE
    np.testing.assert_allclose(img.affine, COARSE)
