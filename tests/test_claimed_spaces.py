"""From a claim in a file name or in a setting to a refused, quarantined or accepted image."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE, fake_brain
from nibabel.affines import from_matvec
from scipy import ndimage
from test_space_check import BROKEN, about, moved

from xai_brain import RunDirectory, compose
from xai_brain.config.checks import read_config
from xai_brain.config.data import PreprocessingConfig
from xai_brain.config.setting import ConfigError
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import ImageError, get_grid, is_mni152
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_tsv
from xai_brain.study.participants import portable, prepared_cohort

VICTIM = "sub-03"


def image_of(root: Path) -> Path:
    return root / VICTIM / "anat" / f"{VICTIM}_space-MNI152_desc-brain_T1w.nii.gz"


def cohort(root: Path, run_dir: Path, *overrides: str) -> pd.DataFrame:
    """As `xai-brain train` begins."""
    settings = ["data=bids", f"data.root={root}", "preprocessing=t1w_4mm", f"run_dir={run_dir}"]
    return prepared_cohort(read_config(compose("train", [*settings, *overrides])), RunDirectory(run_dir))


@pytest.mark.parametrize("name", [*BROKEN, "whole head"])
def test_an_image_that_is_not_where_its_name_says_is_refused_or_set_aside(bids_tree, tmp_path, name):
    path = image_of(bids_tree)
    img = nib.load(path)
    nib.save(whole_head(img) if name == "whole head" else BROKEN[name](img), path)
    with pytest.raises(DataError) as caught:
        cohort(bids_tree, tmp_path / "refused")
    message = str(caught.value)
    assert message.startswith(f"{path}: {VICTIM}: ")
    assert "\n" not in message
    run = RunDirectory(tmp_path / "skipped")
    kept = cohort(bids_tree, run.path, "data.on_error=skip")
    assert kept["participant_id"].tolist() == [f"sub-{i:02d}" for i in range(6) if i != 3]
    (row,) = read_tsv(run.quarantine).to_dict("records")
    assert row["path"] == str(path)
    assert re.search(r"template is -?0\.\d|times the template's|field of view|in the grid", row["reason"])


def whole_head(img):
    """Tissue of 16 mm around the brain, and a background of exactly 0."""
    data = img.get_fdata(dtype=np.float32)
    inside = ndimage.binary_dilation(data > 0, iterations=2)
    return nib.Nifti1Image(np.where((data == 0) & inside, 60, data).astype(np.float32), img.affine)


@pytest.mark.parametrize("space", ["MNIInfant", "MNIPediatricAsym", "MNI305", "MNIColin27", "OASISTRT20"])
def test_templates_other_than_mni152_are_refused_by_name(bids_tree, tmp_path, space):
    path = image_of(bids_tree)
    path.rename(path.with_name(path.name.replace("MNI152", space)))
    with pytest.raises(DataError, match=rf"{VICTIM}: is not in MNI152 space \(space-{space}"):
        cohort(bids_tree, tmp_path / "run")
    assert not is_mni152(space)


@pytest.mark.parametrize("space", ["MNI152", "MNI152NLin2009cAsym", "MNI152NLin6Sym", "MNI152Lin", "MNI"])
def test_all_variants_of_mni152_are_accepted(space):
    assert is_mni152(space)
    img = fake_brain(COARSE_SHAPE, COARSE)
    assert not preprocess_t1w(img, PreprocessingConfig("t1w_4mm"), space=space).space_warning


def test_a_claim_in_the_settings_is_checked_like_one_in_a_name(bids_tree, tmp_path):
    for path in bids_tree.glob("sub-*/anat/*.nii.gz"):
        path.rename(path.with_name(path.name.replace("_space-MNI152", "")))
    path = bids_tree / VICTIM / "anat" / f"{VICTIM}_desc-brain_T1w.nii.gz"
    nib.save(BROKEN["anterior-posterior flip"](nib.load(path)), path)
    with pytest.raises(DataError, match=r"in MNI152 by its name or data\.space, but its correlation"):
        cohort(bids_tree, tmp_path / "run", "data.space=MNI152")


def test_an_image_without_a_claim_is_compared_with_the_template_too():
    """The overlap with the template's brain (Dice) does not notice a displacement of 8 mm."""
    img = moved(fake_brain(COARSE_SHAPE, COARSE), from_matvec(np.eye(3), [0, 0, -8]))
    with pytest.raises(
        ImageError, match=r"not in MNI152 space \(its correlation .* \+8 mm along the superior"
    ):
        preprocess_t1w(img, PreprocessingConfig("t1w_4mm"))


def test_warn_accepts_an_image_and_says_so(bids_tree, tmp_path, capsys):
    path = image_of(bids_tree)
    img = nib.load(path)
    child = moved(img, about(0.74 * np.eye(3), np.array([0.0, -18.0, 6.0])))  # 0.4 of the template's volume
    nib.save(child, path)
    table = cohort(bids_tree, tmp_path / "run", "data.space_check=warn")
    assert len(table) == 6
    assert "0.4" in table.set_index("participant_id").loc[VICTIM, "space_warning"]
    assert re.search(rf"warning: .*{VICTIM}.* brain volume is 0\.4", capsys.readouterr().out)
    kept = portable(table, bids_tree).set_index("participant_id")["space_warning"]
    assert kept[VICTIM]
    assert not kept.drop(VICTIM).any()
    again = cohort(bids_tree, tmp_path / "again", "data.space_check=warn")  # from the cache
    assert again["space_warning"].tolist() == table["space_warning"].tolist()
    with pytest.raises(DataError, match=r"brain volume is 0\.4"):  # what is in the cache does not count
        cohort(bids_tree, tmp_path / "refused")
    with pytest.raises(ConfigError, match=r"data\.space_check=ignore: one of error, warn"):
        cohort(bids_tree, tmp_path / "run", "data.space_check=ignore")


def test_a_rigidly_aligned_cohort_is_accepted(bids_tree, tmp_path):
    for number, path in enumerate(sorted(bids_tree.glob("sub-*/anat/*.nii.gz"))):
        img = nib.load(path)
        size = 0.82 + 0.03 * number
        small = moved(img, about(size * np.eye(3), np.array([0.0, 3.0, -5.0])))  # the AC keeps its place
        nib.save(nib.Nifti1Image(small.get_fdata(dtype=np.float32), small.affine), path)
    table = cohort(bids_tree, tmp_path / "run")
    assert len(table) == 6
    assert "space_warning" not in portable(table, bids_tree)


CENTRED_SHAPE = (27, 31, 29)
CENTRED = from_matvec(8 * np.eye(3), -4 * (np.array(CENTRED_SHAPE) - 1.0))  # its middle is the origin


def without_orientation(img, path):
    img = nib.Nifti1Image(img.get_fdata(dtype=np.float32), img.affine)
    img.set_sform(None, 0)
    img.set_qform(None, 0)
    img.header["pixdim"][1:4] = 8
    img.to_filename(path)


def test_images_without_orientation_need_data_orientation(bids_tree, tmp_path):
    for number, path in enumerate(sorted(bids_tree.glob("sub-*/anat/*.nii.gz"))):
        without_orientation(fake_brain(CENTRED_SHAPE, CENTRED, seed=number), path)
    with pytest.raises(DataError, match=r"sub-00: the file contains no orientation .*data\.orientation=LAS"):
        cohort(bids_tree, tmp_path / "run")
    assert len(cohort(bids_tree, tmp_path / "run", "data.orientation=RAS")) == 6
    with pytest.raises(DataError, match="its correlation with the template is"):
        cohort(bids_tree, tmp_path / "run", "data.orientation=RPS")  # wrong, and noticed
    with pytest.raises(ConfigError, match=r"data\.orientation=neurological: three letters are needed"):
        cohort(bids_tree, tmp_path / "run", "data.orientation=neurological")


def test_the_stated_orientation_places_the_brain(bids_tree, tmp_path):
    bright_mm = np.array([-40.0, -20.0, 15.0])
    for path in sorted(bids_tree.glob("sub-*/anat/*.nii.gz")):
        img = fake_brain(CENTRED_SHAPE, CENTRED, blob_mm=bright_mm)
        flipped = nib.Nifti1Image(img.get_fdata(dtype=np.float32)[::-1], img.affine)  # stored as LAS
        without_orientation(flipped, path)
    table = cohort(bids_tree, tmp_path / "run", "data.orientation=LAS")
    volume = np.load(table["volume_path"].iloc[0])
    peak = np.unravel_index(volume.argmax(), volume.shape)
    peak_mm = nib.affines.apply_affine(get_grid("t1w_4mm").affine, peak)
    np.testing.assert_allclose(peak_mm, bright_mm, atol=6)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "n_images"), [("ixi", 181), ("second_site", 37)])
def test_real_cohorts_are_accepted_as_they_are(real_data, tmp_path, folder, n_images):
    assert len(cohort(real_data / folder, tmp_path / "run")) == n_images
