"""Raw heads: landmarks in mm against an independent alignment, and an extraction against a published one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine, from_matvec
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation
from synthetic_heads import BACKGROUNDS, synthetic_head, with_background

from xai_brain import compose
from xai_brain.cli import main
from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.data.raw import heads as raw_heads
from xai_brain.data.raw.heads import ACPC_MM, align_to_mni, correct_bias, extract_brain, in_mni, in_native
from xai_brain.io.nifti import Grid, ImageError, get_grid, load_img, resample_to_grid, template_brain_mask
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.stages.explain import explain
from xai_brain.stages.train import train
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.training.predict_settings import predict_settings

LANDMARKS_MM = np.array([[0, 0, 0], [-34, -20, -14], [34, -20, -14], [0, 50, 0], [0, -95, 0]])
COLIN27 = Path("/usr/share/mricron/templates")


def needs(package):
    """Skip without an extra; in CI, which installs it in an environment of its own, that is a failure."""
    try:
        __import__(package)
    except ImportError:
        if os.environ.get("XAI_BRAIN_RAW") == "1":
            raise
        pytest.skip(f"{package} is not installed; make test-raw installs it")


@pytest.fixture
def template():
    img = load_mni152_template(resolution=4)
    inside = np.asarray(load_mni152_brain_mask(resolution=4).dataobj) > 0
    return nib.Nifti1Image(np.where(inside, np.asarray(img.dataobj), 0).astype(np.float32), img.affine)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def placed(img, matrix):
    """The image in a world that `matrix` leads to."""
    return nib.Nifti1Image(img.dataobj, matrix @ img.affine)


def test_alignment_of_a_known_affine(template):
    needs("ants")
    turn = Rotation.from_euler("xyz", [8, -5, 4], degrees=True).as_matrix()
    known = from_matvec(turn @ np.diag([0.95, 1.08, 1.02]), [6, -9, 12])
    found = align_to_mni(placed(template, known))
    distance = np.linalg.norm(apply_affine(found, LANDMARKS_MM) - apply_affine(known, LANDMARKS_MM), axis=1)
    assert distance.max() < 2


def test_the_axes_of_the_file_do_not_matter(template):
    needs("ants")
    moved = placed(template, from_matvec(np.eye(3), [5, 0, -7]))
    turned = moved.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    assert nib.aff2axcodes(turned.affine) != nib.aff2axcodes(moved.affine)
    places = [apply_affine(align_to_mni(img), LANDMARKS_MM) for img in (moved, turned)]
    assert np.linalg.norm(places[0] - places[1], axis=1).max() < 1


def test_into_mni_and_back_is_the_identity(template):
    known = from_matvec(Rotation.from_euler("z", 20, degrees=True).as_matrix(), [10, 5, -8])
    native = placed(template, known)
    np.testing.assert_allclose(in_mni(native, known).affine, template.affine, atol=1e-9)
    grid = Grid("native", native.shape, native.affine)
    back = in_native(template, known, grid)
    np.testing.assert_allclose(back, np.asarray(template.dataobj), atol=1e-4)


def test_a_point_of_a_map_lies_at_its_place_in_the_native_image():
    spot = np.zeros(get_grid("t1w_4mm").shape, np.float32)
    affine = get_grid("t1w_4mm").affine
    voxel = np.array([30, 20, 25])
    spot[tuple(voxel)] = 1
    known = from_matvec(Rotation.from_euler("x", 15, degrees=True).as_matrix() * 1.1, [3, -20, 9])
    grid = Grid("native", (120, 120, 120), from_matvec(2 * np.eye(3), [-120, -140, -110]))
    there = in_native(nib.Nifti1Image(spot, affine), known, grid)
    weight = there.clip(0)
    centre = (np.indices(grid.shape).reshape(3, -1) * weight.ravel()).sum(1) / weight.sum()
    wanted = apply_affine(known, apply_affine(affine, voxel))
    assert np.linalg.norm(apply_affine(grid.affine, centre) - wanted) < 0.5


def test_a_raw_image_is_prepared_in_mni_and_knows_its_way_back(template):
    needs("ants")
    known = from_matvec(Rotation.from_euler("xz", [10, 6], degrees=True).as_matrix() * 1.05, [25, -30, 18])
    raw, name = PreprocessingConfig("t1w_4mm", raw=True), "sub-01_desc-brain_T1w.nii.gz"
    prepared = preprocess_t1w(placed(template, known), raw, path=name)
    assert dice(prepared.brain_mask, template_brain_mask("t1w_4mm")) > 0.93
    places = [apply_affine(matrix, LANDMARKS_MM) for matrix in (prepared.mni_to_native, known)]
    assert np.linalg.norm(places[0] - places[1], axis=1).max() < 2
    there = preprocess_t1w(template, raw, space="MNI152", path=name)
    assert there.mni_to_native is None, "it was in MNI152"


@pytest.mark.slow
@pytest.mark.real_data
def test_a_native_cohort_is_trained_on_and_its_maps_come_back(real_data, tmp_path):
    needs("ants")
    root = real_data / "ixi_native"
    settings = [
        "data=bids",
        f"data.root={root}",
        "preprocessing=raw",
        "preprocessing.grid=t1w_4mm",
        "folds.n_folds=2",
        "model.channels=[2,2,2]",
        "trainer.max_epochs=1",
        "attribution=[grad_cam]",
        f"run_dir={tmp_path / 'run'}",
    ]
    train(compose("train", settings))
    cfg = compose("explain", [*settings, "explain.output_space=native"])
    run = explain(cfg)
    assert len(read_tsv(run.predictions)) == 12
    participant_id = "sub-IXI093"
    (t1w_path,) = (root / participant_id).rglob("*_T1w.nii.gz")
    native_img = nib.load(t1w_path)
    map_path = run.attribution(participant_id, "", "GradCAM", 0)
    back_img = nib.load(run.native(map_path, "T1w"))
    assert back_img.shape == native_img.shape
    np.testing.assert_allclose(back_img.affine, native_img.affine, atol=1e-3)
    # a place of the map holds the same value in both spaces
    matrix = np.array(read_json(run.alignment(participant_id, ""))["MNI152ToNative"])
    map_img = nib.load(map_path)
    for mm in LANDMARKS_MM[:4]:
        values = [value_at(map_img, mm), value_at(back_img, apply_affine(matrix, mm))]
        assert values[0] == pytest.approx(values[1], abs=0.05 * np.abs(map_img.get_fdata()).max())
    explain(cfg)  # what is there is kept


def value_at(img, mm):
    voxel = apply_affine(np.linalg.inv(img.affine), mm)
    return ndimage.map_coordinates(img.get_fdata(), voxel[:, None], order=1)[0]


def test_without_the_extra_the_message_says_what_to_install(template, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(raw_heads, "import_module", missing)
    for function in (align_to_mni, correct_bias, extract_brain):
        with pytest.raises(ImageError, match=r"sub-01.*: pip install 'antspyx>=[\d.]+' 'deepbet>=[\d.]+'$"):
            function(template, "sub-01_T1w.nii.gz")


def test_n4_takes_a_known_field_out(template):
    needs("ants")
    data = np.asarray(template.dataobj)
    inside = data > 0.2
    x = np.linspace(0.7, 1.3, data.shape[0], dtype=np.float32)[:, None, None]
    flat = np.where(inside, 100, 0).astype(np.float32)
    biased = nib.Nifti1Image(flat * x, template.affine)
    corrected = np.asarray(correct_bias(biased).dataobj)

    def variation(values):
        return values[inside].std() / values[inside].mean()

    assert variation(corrected) < 0.35 * variation(np.asarray(biased.dataobj))
    assert not corrected[~inside].any()
    assert np.median(corrected[inside]) == pytest.approx(np.median((flat * x)[inside]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.real_data
def test_landmarks_of_real_brains_against_an_independent_alignment(real_data):
    needs("ants")
    folder = real_data / "ixi_native"
    known = json.loads((folder / "reference_affines.json").read_text())["affines"]
    worst = []
    for participant_id, matrix in known.items():
        (path,) = (folder / participant_id).rglob("*_T1w.nii.gz")
        found = align_to_mni(load_img(path))
        distance = apply_affine(found, LANDMARKS_MM) - apply_affine(np.array(matrix), LANDMARKS_MM)
        worst.append(np.linalg.norm(distance, axis=1).max())
    print("largest distance of five landmarks per subject, mm:", np.round(worst, 1))
    assert np.median(worst) < 5


def native_images(real_data):
    """Path of the image of each participant of ixi_native."""
    paths = sorted((real_data / "ixi_native").rglob("*_T1w.nii.gz"))
    assert len(paths) == 12
    return {path.name.split("_")[0]: path for path in paths}


@pytest.mark.slow
@pytest.mark.real_data
def test_native_images_are_predicted_with_networks_trained_in_mni(real_data, tmp_path):
    needs("ants")
    native = native_images(real_data)
    table = read_tsv(real_data / "ixi" / "participants.tsv").query("participant_id not in @native")
    table = pd.concat([table[table["sex"] == sex].head(4) for sex in "FM"])
    root = tmp_path / "trained_on"
    for participant_id in table["participant_id"]:
        (root / participant_id).parent.mkdir(exist_ok=True)
        (root / participant_id).symlink_to(real_data / "ixi" / participant_id)
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    small = ["preprocessing=t1w_4mm", "folds.n_folds=2", "model.channels=[2,2,2]", "trainer.max_epochs=1"]
    trained = train(
        compose("train", ["data=bids", f"data.root={root}", *small, f"run_dir={tmp_path / 'run'}"])
    )
    new = [f"networks={trained.path}", "data=bids", f"data.root={real_data / 'ixi_native'}"]
    assert main(["predict", *new, "preprocessing.raw=true", f"run_dir={tmp_path / 'new'}"]) == 0
    assert set(read_tsv(tmp_path / "new" / "predictions.tsv")["participant_id"]) == set(native)
    cfg = predict_settings([*new, "preprocessing.raw=true", f"run_dir={tmp_path / 'new'}"])
    prepared = prepared_cohort(cfg, RunDirectory(tmp_path / "new")).set_index("participant_id")
    # each is more like the same brain, aligned by others, than like the brains of all other participants
    ours, others = [], []
    for participant_id in native:
        (in_mni_path,) = (real_data / "ixi" / participant_id).rglob("*_T1w.nii.gz")
        there = preprocess_t1w(load_img(in_mni_path), PreprocessingConfig("t1w_4mm"), space="MNI152")
        ours.append(np.load(prepared.loc[participant_id, "volume_path"]).ravel())
        others.append(there.volume.ravel())
    correlations = np.corrcoef(ours, others)[: len(native), len(native) :]
    own = np.diag(correlations)
    print("correlation with the same brain:", np.round(own, 2))
    print("highest with another brain:", np.round((correlations - 2 * np.diag(own)).max(1), 2))
    np.testing.assert_array_equal(correlations.argmax(1), np.arange(len(native)))


@pytest.mark.slow
@pytest.mark.real_data
def test_rigid_alignment_keeps_brain_size(real_data):
    needs("ants")
    kan2020 = PreprocessingConfig(
        "kan2020_58x70x58", scaling="none", brain_median=700, raw=True, alignment="rigid"
    )
    known = json.loads((real_data / "ixi_native" / "reference_affines.json").read_text())["affines"]
    table = read_tsv(real_data / "ixi" / "participants.tsv").set_index("participant_id")
    images = []  # name, image, native volume in ml, matrix from MNI152 mm to the image's mm by others
    for participant_id, path in list(native_images(real_data).items())[:3]:
        img = load_img(path)
        native_ml = (
            np.count_nonzero(np.asarray(img.dataobj)) * np.prod(nib.affines.voxel_sizes(img.affine)) / 1000
        )
        images.append((f"{participant_id}, native", img, native_ml, np.array(known[participant_id])))
    turn = Rotation.from_euler("xyz", [9, -6, 4], degrees=True).as_matrix()
    for participant_id in ("sub-IXI012", "sub-IXI014"):  # size restored, a large and a small brain
        (path,) = (real_data / "ixi" / participant_id).rglob("*_T1w.nii.gz")
        row = table.loc[participant_id]
        restored = from_matvec(turn * float(row["scale_to_mni"]) ** (-1 / 3), [5, -12, 9])
        images.append((participant_id, placed(load_img(path), restored), float(row["icv_ml"]), restored))
    for name, img, native_ml, by_others in images:
        prepared = preprocess_t1w(img, kan2020, path="sub-01_desc-brain_T1w.nii.gz")
        assert np.linalg.det(prepared.mni_to_native[:3, :3]) == pytest.approx(1)
        ml = prepared.brain_mask.sum() * abs(np.linalg.det(prepared.affine[:3, :3])) / 1000
        there_mm = apply_affine(np.linalg.inv(prepared.mni_to_native), apply_affine(by_others, ACPC_MM))
        off_mm = np.linalg.norm(there_mm[0] - ACPC_MM[0])
        print(f"{name}: {ml:.0f} ml, native {native_ml:.0f} ml; anterior commissure {off_mm:.1f} mm away")
        assert ml == pytest.approx(native_ml, rel=0.02)
        assert off_mm < 4
        assert np.median(prepared.volume[prepared.brain_mask]) == pytest.approx(700, rel=1e-4)


@pytest.fixture(scope="module")
def heads(real_data):
    """A head and the mask of its brain, by name: Colin27, and a brain of IXI inside a synthetic head."""
    needs("deepbet")
    if not (COLIN27 / "ch2.nii.gz").exists():
        message = f"{COLIN27} is not there (apt-get install mricron-data)"
        (pytest.fail if os.environ.get("XAI_BRAIN_RAW") == "1" else pytest.skip)(message)
    brain_mask = nib.load(COLIN27 / "ch2bet.nii.gz")
    inside = np.asarray(brain_mask.dataobj) > 0
    (ixi_path,) = (real_data / "ixi_native" / "sub-IXI128").rglob("*_T1w.nii.gz")
    ixi = load_img(ixi_path)
    return {
        "Colin27": (
            load_img(COLIN27 / "ch2.nii.gz"),
            nib.Nifti1Image(inside.astype(np.uint8), brain_mask.affine),
        ),
        "IXI": (
            synthetic_head(ixi),
            nib.Nifti1Image((np.asarray(ixi.dataobj) > 0).astype(np.uint8), ixi.affine),
        ),
    }


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("name", ["Colin27", "IXI"])
def test_the_brain_of_a_head_is_found_whatever_surrounds_it(heads, name, background):
    needs("ants")
    head, brain_mask = with_background(*heads[name], background)
    grid = get_grid("t1w_58x70x58")
    prepared = preprocess_t1w(head, PreprocessingConfig(grid.name, raw=True), path="sub-01_T1w.nii.gz")
    moved = nib.Nifti1Image(brain_mask.dataobj, np.linalg.inv(prepared.mni_to_native) @ brain_mask.affine)
    truth = resample_to_grid(moved, grid) > 0.5
    overlap, volume = dice(prepared.brain_mask, truth), prepared.brain_mask.sum() / truth.sum()
    of_template = prepared.brain_mask.sum() / template_brain_mask(grid.name).sum()
    print(f"{name}, {background}: Dice {overlap:.3f}, volume {volume:.3f}, of the template {of_template:.2f}")
    assert overlap >= 0.93
    assert volume == pytest.approx(1, abs=0.15)
    assert of_template == pytest.approx(1, abs=0.2), "alignment did not scale a head to a brain"


@pytest.mark.slow
@pytest.mark.real_data
def test_the_mask_of_colin27_agrees_with_the_published_one(heads):
    head, brain_mask = heads["Colin27"]
    found = np.asarray(extract_brain(head).dataobj) > 0
    overlap = dice(found, np.asarray(brain_mask.dataobj) > 0)
    print(f"Dice with ch2bet: {overlap:.3f}")
    assert overlap >= 0.95


def test_no_brain_in_an_empty_image():
    needs("deepbet")
    nothing = nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), np.diag([4, 4, 4, 1.0]))
    with pytest.raises(ImageError, match="no brain was found"):
        extract_brain(nothing, "nothing.nii.gz")
