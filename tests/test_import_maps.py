"""Maps that others made: in the right place in mm, evaluated like those of a run."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from conftest import fake_brain

from xai_brain import RunDirectory
from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.runs.directory import read_json, read_tsv, sidecar

CENTRE_MM = np.array([-34.0, -20.0, -14.0])  # of the effect of the embedded cohort


def blob(affine, shape, centre_mm=CENTRE_MM, sigma_mm=5.0) -> nib.Nifti1Image:
    mm = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))
    values = np.exp(-((mm - centre_mm) ** 2).sum(-1) / (2 * sigma_mm**2))
    return nib.Nifti1Image(values.astype(np.float32), affine)


def finer_and_flipped() -> tuple[np.ndarray, tuple[int, int, int]]:
    """3 mm, x from right to left: not the grid of the run."""
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = [93, -129, -75]
    return affine, (63, 74, 62)


def write_maps(folder, ids, name="Theirs", img=None, space="_space-MNI152NLin2009cAsym"):
    folder.mkdir(exist_ok=True)
    for participant_id in ids:
        nib.save(
            img or blob(*finer_and_flipped()), folder / f"{participant_id}{space}_desc-{name}_map.nii.gz"
        )
    return folder


def ids_of(run: RunDirectory) -> list[str]:
    return read_tsv(run.participants)["participant_id"].tolist()


@pytest.mark.slow
def test_maps_on_another_grid_are_evaluated_at_their_place(copied, tmp_path):
    maps = write_maps(tmp_path / "maps", [*ids_of(copied), "sub-stranger"])
    assert main(["import-maps", f"maps={maps}", f"run_dir={copied.path}"]) == 0
    path = copied.attribution(ids_of(copied)[0], "", "Theirs", 0)
    data = np.asarray(load_img(path).dataobj)
    highest = np.array(np.unravel_index(data.argmax(), data.shape))
    np.testing.assert_allclose(
        nib.affines.apply_affine(load_img(path).affine, highest), CENTRE_MM, atol=2.0 + 1e-3
    )
    about = read_json(sidecar(path))
    assert about["Adopted"]
    assert about["Resampled"]
    assert main(["evaluate", f"run_dir={copied.path}"]) == 0
    assert main(["report", f"run_dir={copied.path}"]) == 0
    metrics = read_json(copied.metrics)
    assert metrics["localization/Theirs/rra"] > 0.6
    assert metrics["localization/GradCAM/rra"] < 0.2
    assert "Theirs" in copied.report.read_text()
    assert main(["explain", f"run_dir={copied.path}"]) == 0  # nothing to do, nothing lost
    assert path.exists()


def test_maps_without_any_network_make_a_report(bids_tree, tmp_path):
    ids = [f"sub-{i:02d}" for i in range(6)]
    maps = write_maps(tmp_path / "maps", ids, space="")
    write_maps(maps, ids, "Second", blob(*finer_and_flipped(), centre_mm=CENTRE_MM * [-1, 1, 1]), space="")
    run = RunDirectory(tmp_path / "theirs")
    settings = ["data=bids", f"data.root={bids_tree}", "preprocessing=t1w_4mm", f"run_dir={run.path}"]
    assert main(["import-maps", f"maps={maps}", *settings]) == 0
    assert main(["evaluate", f"run_dir={run.path}"]) == 0
    assert main(["report", f"run_dir={run.path}"]) == 0
    summary = read_tsv(run.evaluation("summary")).query("metric == 'dice' and top_percent == 1")
    assert summary["mean"].item() < 0.05  # the two blobs lie in different hemispheres
    assert run.group_map("Second", "class-female", "mean").exists()
    assert "Theirs" in run.report.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("space", "space-T1w is not an MNI152 template"),
        ("children", "space-MNIPediatricAsym is not an MNI152 template"),
        ("orientation", "contains no orientation"),
        ("flipped brain", "outline of a brain that is not in MNI152"),
        ("affine", "its affine does not lead to MNI152"),
        ("nan", "contains NaN"),
        ("own name", "has maps named GradCAM"),
        ("strangers", "no NIfTI file whose name begins with the id of a participant"),
        ("no method", "its name has no desc-<Method>"),
        ("twice", "a second map of"),
    ],
)
def test_maps_that_cannot_be_imported(small_run, tmp_path, change, message, capsys):
    ids = ids_of(small_run)[:1]
    img, space, name = blob(*finer_and_flipped()), "_space-MNI152", "Theirs"
    if change == "affine":
        affine, shape = finer_and_flipped()
        affine[:3, 3] += 100
        img = blob(affine, shape)
    if change == "nan":
        img.get_fdata()
        img = nib.Nifti1Image(
            np.where(np.asarray(img.dataobj) > 0.5, np.nan, 0).astype(np.float32), img.affine
        )
    if change == "orientation":
        img.set_sform(None, 0)
        img.set_qform(None, 0)
    if change == "flipped brain":
        img = fake_brain((46, 55, 46), get_grid("t1w_4mm").affine)
        img = nib.Nifti1Image(np.asarray(img.dataobj)[:, ::-1], img.affine)
    space = {"space": "_space-T1w", "children": "_space-MNIPediatricAsym"}.get(change, space)
    name = "GradCAM" if change == "own name" else name
    ids = ["sub-nobody"] if change == "strangers" else ids
    maps = write_maps(tmp_path / "maps", ids, name, img, space)
    if change == "no method":
        path = next(maps.iterdir())
        path.rename(maps / f"{ids[0]}_map.nii.gz")
    if change == "twice":
        nib.save(img, maps / f"{ids[0]}_space-MNI152_desc-Theirs_attribution.nii.gz")
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(small_run.path, run.path)
    assert main(["import-maps", f"maps={maps}", f"run_dir={run.path}"]) == 1
    assert message in capsys.readouterr().err
    assert not list(run.path.rglob("*_desc-Theirs_*"))


def test_no_folder_of_maps(small_run, tmp_path):
    from xai_brain.tools.import_maps import import_maps

    with pytest.raises(ConfigError, match="no value for maps"):
        import_maps([f"run_dir={small_run.path}"])
    with pytest.raises(ConfigError, match="there is no such folder"):
        import_maps([f"maps={tmp_path / 'nowhere'}", f"run_dir={small_run.path}"])


def test_a_map_with_the_outline_of_a_brain_in_mni152_is_imported(copied, tmp_path):
    brain = fake_brain((46, 55, 46), get_grid("t1w_4mm").affine)
    maps = write_maps(tmp_path / "maps", ids_of(copied)[:1], img=brain)
    assert main(["import-maps", f"maps={maps}", f"run_dir={copied.path}"]) == 0
