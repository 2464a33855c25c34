"""One image stored as .nii and as .nii.gz, and sessions without an image of their own."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from xai_brain.cli import main
from xai_brain.data.participants import load_participants
from xai_brain.io.nifti import ImageError
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.twin_files import without_equal_twins

SHAPE = (5, 6, 7)


def write(path, seed=0, offset=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 99, SHAPE).astype(np.int16)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[0, 3] = offset
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def bids(root):
    """Images of four participants; returns a function that gives the image of sub-1."""
    for i in range(4):
        write(root / f"sub-{i}" / "anat" / f"sub-{i}_T1w.nii.gz", seed=i)
    (root / "participants.tsv").write_text(
        "participant_id\tsex\n" + "".join(f"sub-{i}\t{'MF'[i % 2]}\n" for i in range(4))
    )
    return root / "sub-1" / "anat" / "sub-1_T1w"


def hcp(root):
    for i in range(4):
        write(root / f"10000{i}.nii.gz", seed=i)
    (root / "unrestricted.csv").write_text(
        "Subject,Gender\n" + "".join(f"10000{i},{'MF'[i % 2]}\n" for i in range(4))
    )
    return root / "100001"


def ixi(root):
    for i in range(4):
        write(root / f"IXI00{i}-Guys-0828-T1.nii.gz", seed=i)
    (root / "IXI.csv").write_text("IXI_ID,SEX_ID,AGE\n" + "".join(f"{i},{1 + i % 2},30\n" for i in range(4)))
    return root / "IXI001-Guys-0828-T1"


LAYOUTS = {"bids": bids, "hcp": hcp, "ixi": ixi}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_of_two_equal_files_is_used(tmp_path, layout):
    stem = LAYOUTS[layout](tmp_path)
    write(stem.with_name(f"{stem.name}.nii"), seed=1)
    table = load_participants(layout, tmp_path)
    assert len(table) == 4
    assert table["t1w_path"].iloc[1] == stem.with_name(f"{stem.name}.nii.gz")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", [{"seed": 9}, {"seed": 1, "offset": 1.0}])
def test_different_files_of_one_name_are_refused_with_what_to_do(tmp_path, layout, change):
    stem = LAYOUTS[layout](tmp_path)
    write(stem.with_name(f"{stem.name}.nii"), **change)
    expected = rf"{stem.name}\.nii.*contains another image than {stem.name}\.nii\.gz .*; remove or rename"
    with pytest.raises(DataError, match=expected):
        load_participants(layout, tmp_path)
    problems = Problems("skip")
    table = load_participants(layout, tmp_path, problems=problems, every_class=False)
    assert len(table) == 3
    (row,) = problems.rows
    assert row["path"] == str(stem.with_name(f"{stem.name}.nii"))
    stem.with_name(f"{stem.name}.nii").unlink()  # the advice, followed
    assert len(load_participants(layout, tmp_path)) == 4


@pytest.mark.parametrize("layout", ["bids", "ixi"])
def test_masks_of_one_name_are_compared_too(tmp_path, layout):
    stem = LAYOUTS[layout](tmp_path)
    name = "sub-1_desc-brain_mask" if layout == "bids" else f"{stem.name}_brain_mask"
    write(stem.with_name(f"{name}.nii"), seed=5)
    table = load_participants(layout, tmp_path)
    assert table["brain_mask_path"].iloc[1] == stem.with_name(f"{name}.nii")
    write(stem.with_name(f"{name}.nii.gz"), seed=5)
    table = load_participants(layout, tmp_path)
    assert table["brain_mask_path"].iloc[1] == stem.with_name(f"{name}.nii.gz")
    write(stem.with_name(f"{name}.nii.gz"), seed=6)
    with pytest.raises(DataError, match=rf"{name}\.nii.*contains another image"):
        load_participants(layout, tmp_path)


def test_floats_with_nan_are_equal_to_their_copy(tmp_path):
    data = np.full(SHAPE, np.nan, np.float32)
    for ending in ("nii", "nii.gz"):
        nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / f"a.{ending}")
    other = write(tmp_path / "b.nii")
    assert without_equal_twins([tmp_path / "a.nii", tmp_path / "a.nii.gz", other]) == [
        tmp_path / "a.nii.gz",
        other,
    ]
    (tmp_path / "a.nii").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.nii: "):
        without_equal_twins([tmp_path / "a.nii", tmp_path / "a.nii.gz"])


def test_maps_made_elsewhere_that_differ_are_refused(tmp_path, bids_tree, capsys):
    for seed, ending in enumerate(("nii", "nii.gz")):
        write(tmp_path / "maps" / f"sub-00_space-MNI152_desc-Own_attribution.{ending}", seed=seed)
    settings = ["data=bids", f"data.root={bids_tree}", f"run_dir={tmp_path / 'run'}"]
    assert main(["import-maps", f"maps={tmp_path / 'maps'}", *settings]) == 1
    assert "Own_attribution.nii: contains another image than" in capsys.readouterr().err


# --- derivatives of several sessions


def transforms(root, participant_id, *sessions):
    """What fMRIPrep and QSIPrep leave in the folders of sessions."""
    for session in sessions:
        folder = root / participant_id / session / "anat"
        folder.mkdir(parents=True)
        (folder / f"{participant_id}_{session}_from-orig_to-T1w_mode-image_xfm.txt").write_text("#Insight")


def names_by_participant(table, root):
    return {
        row.participant_id: (row.session_id, row.t1w_path.relative_to(root / row.participant_id).as_posix())
        for row in table.itertuples()
    }


def people(root):
    (root / "participants.tsv").write_text(
        "participant_id\tsex\n" + "".join(f"sub-{i}\t{'MF'[i % 2]}\n" for i in range(4))
    )


@pytest.mark.parametrize(
    "name",
    ["sub-{i}_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz", "sub-{i}_desc-preproc_T1w.nii.gz"],
)
def test_the_image_of_the_participant_is_found_beside_sessions_of_transforms(tmp_path, name):
    people(tmp_path)
    for i in range(4):
        write(tmp_path / f"sub-{i}" / "anat" / name.format(i=i), seed=i)
        mask = name.format(i=i).replace("desc-preproc_T1w", "desc-brain_mask")
        write(tmp_path / f"sub-{i}" / "anat" / mask)
        transforms(tmp_path, f"sub-{i}", "ses-01", "ses-02")
    table = load_participants("bids", tmp_path)
    expected = {f"sub-{i}": ("", f"anat/{name.format(i=i)}") for i in range(4)}
    assert names_by_participant(table, tmp_path) == expected
    assert table["brain_mask_path"].notna().all()


def test_an_empty_session_folder_hides_no_image(tmp_path):
    people(tmp_path)
    for i in range(3):
        write(tmp_path / f"sub-{i}" / "anat" / f"sub-{i}_T1w.nii.gz", seed=i)
        (tmp_path / f"sub-{i}" / "ses-1" / "anat").mkdir(parents=True)
    write(tmp_path / "sub-3" / "ses-2" / "anat" / "sub-3_ses-2_T1w.nii.gz")  # one session has its image
    transforms(tmp_path, "sub-3", "ses-1")
    expected = {f"sub-{i}": ("", f"anat/sub-{i}_T1w.nii.gz") for i in range(3)}
    expected["sub-3"] = ("ses-2", "ses-2/anat/sub-3_ses-2_T1w.nii.gz")
    assert names_by_participant(load_participants("bids", tmp_path), tmp_path) == expected


def test_several_images_of_a_session_are_not_hidden_by_the_image_of_the_participant(tmp_path):
    people(tmp_path)
    for i in range(4):
        write(tmp_path / f"sub-{i}" / "anat" / f"sub-{i}_T1w.nii.gz", seed=i)
    for run in (1, 2):
        write(tmp_path / "sub-0" / "ses-1" / "anat" / f"sub-0_ses-1_run-{run}_T1w.nii.gz")
    with pytest.raises(DataError, match="sub-0: 2 T1w images"):
        load_participants("bids", tmp_path)
