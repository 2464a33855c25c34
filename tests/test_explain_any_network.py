"""`xai_brain.explain`: any network, NIfTI images in, maps on the grid of every image out."""

from __future__ import annotations

import copy
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from given_networks import FLIPPED, PERMUTED, OneVoxel, Pooled, image, two_files

import xai_brain as xb
from xai_brain.config.saved import saved_settings
from xai_brain.config.setting import ConfigError
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_json, sidecar
from xai_brain.study.given import explain as explaining


@pytest.fixture
def files(tmp_path):
    return two_files(tmp_path)


# -- messages -------------------------------------------------------------------------------------


def test_the_last_line_about_progress_follows_all_work(files, capsys, monkeypatch):
    original = explaining._explain_batch

    def explain_batch(*arguments):
        rows = original(*arguments)
        log("a batch is explained")
        return rows

    monkeypatch.setattr(explaining, "_explain_batch", explain_batch)
    for n, given in ((2, files), (1, [files[0], image(seed=2), image(seed=3)])):  # two grids, one grid
        xb.explain(Pooled(), given, ["Saliency"], target=1)
        *batches, last = capsys.readouterr().out.splitlines()
        assert batches == ["a batch is explained"] * n
        assert last.startswith(f"explain: {len(given)}/{len(given)} images, ")


@pytest.mark.parametrize(
    ("factor", "preprocess", "warned"), [(1, None, 0), (4000, None, 1), (4000, lambda img: img, 0)]
)
def test_intensities_that_are_not_scaled_are_named_once(files, factor, preprocess, warned, capsys):
    imgs = [nib.Nifti1Image(factor * image().get_fdata(), FLIPPED) for _ in range(3)]
    xb.explain(Pooled(), imgs, ["Saliency"], target=1, preprocess=preprocess)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(lines) == warned
    for line in lines:
        assert "intensities of up to about 39" in line  # the 99th percentile of uniform values
        assert "preprocess=" in line


@pytest.mark.parametrize(("background", "warned"), [(0.0, 0), (-0.7, 1)])
def test_a_background_that_is_not_0_is_named(background, warned, capsys):
    data = np.full((12, 14, 13), background, np.float32)
    data[3:-3, 3:-3, 3:-3] = np.random.default_rng(0).normal(1, 1, (6, 8, 7))
    xb.explain(Pooled(), [nib.Nifti1Image(data, FLIPPED)], ["Saliency"], target=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(lines) == warned
    assert all("the background of the input is -0.7 and not 0" in line for line in lines)


def test_a_class_is_named_as_in_a_table(files):
    names = ["female", "male"]
    maps = xb.explain(Pooled(), files[:1], ["Saliency"], target="M", class_names=names)
    assert maps.sidecar("sub-01", "Saliency")["TargetName"] == "male"


# -- geometry --------------------------------------------------------------------------------------


def test_maps_are_gradients_on_the_grid_of_every_image(files):
    network = Pooled()
    maps = xb.explain(network, files, ["Saliency"], target=1)
    for name, path in zip(("sub-01", "sub-02"), files, strict=True):
        img = nib.load(path)
        found = maps.img(name, "Saliency")
        assert np.allclose(found.affine, img.affine, atol=1e-6)
        inputs = torch.from_numpy(img.get_fdata(dtype=np.float32))[None, None].requires_grad_()
        (expected,) = torch.autograd.grad(network.eval()(inputs)[0, 1], inputs)
        assert np.allclose(found.get_fdata(), expected[0, 0].numpy(), atol=1e-7)


@pytest.mark.parametrize("affine", [FLIPPED, PERMUTED])
def test_a_landmark_keeps_its_place_although_the_network_has_another_grid(affine):
    """The network reads one voxel of a coarse, differently oriented grid; its map peaks there in mm."""
    coarse = nib.Nifti1Image(np.zeros((9, 11, 10), np.float32), np.diag([4.0, 4, 4, 1]))
    coarse.affine[:3, 3] = (-20, -25, -18)
    index = (7, 6, 4)
    landmark_mm = nib.affines.apply_affine(coarse.affine, index)
    img = image(affine, (20, 20, 20))

    def prepare(img):
        from nilearn.image import resample_img

        return resample_img(
            img, coarse.affine, coarse.shape, interpolation="linear", force_resample=True, copy_header=True
        )

    maps = xb.explain(OneVoxel(coarse.shape, index), [img], ["Saliency"], target=1, preprocess=prepare)
    found = maps.img("sub-0001", "Saliency")
    assert found.shape == img.shape
    assert np.allclose(found.affine, affine, atol=1e-6)
    values = found.get_fdata()
    places = nib.affines.apply_affine(affine, np.argwhere(values > 0))
    centre = np.average(places, axis=0, weights=values[values > 0])
    assert np.abs(centre - landmark_mm).max() < 2  # half a voxel of the network's grid


def test_an_array_with_an_affine_is_explained_like_the_file(files):
    network, img = Pooled(), nib.load(files[0])
    array = img.get_fdata(dtype=np.float32)[None]
    of_array = xb.explain(network, array, ["Saliency"], target=0, affine=img.affine)
    of_file = xb.explain(network, files[:1], ["Saliency"], target=0)
    assert np.array_equal(
        of_array.img("sub-0001", "Saliency").get_fdata(), of_file.img("sub-01", "Saliency").get_fdata()
    )


def test_a_prepared_cohort_is_explained_on_its_grid():
    cohort = xb.load_cohort("synthetic", n_subjects=4).prepare("t1w_4mm")
    maps = xb.explain(Pooled(), cohort, ["Saliency"], class_names=cohort.class_names)
    assert maps.participants == sorted(cohort.table["participant_id"])
    assert np.allclose(maps.img("sub-0001", "Saliency").affine, cohort.affine)
    assert set(maps.table["label"]) == {"female", "male"}
    assert maps.mean_img("Saliency", label="male").shape == (46, 55, 46)


def test_five_lines_from_a_saved_state_dict_to_the_viewer(files, tmp_path):
    densenet = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    small = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2)}
    saved = densenet.DenseNet(3, 1, 2, **small)
    torch.save(saved.state_dict(), tmp_path / "weights.pt")

    network = densenet.DenseNet(3, 1, 2, **small)
    network.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    maps = xb.explain(network, files, ["GradCAM", "Saliency"], target=1)
    viewer = maps.view("sub-02")

    assert np.allclose(viewer._scene.layers["GradCAM"].img.affine, nib.load(files[1]).affine, atol=1e-6)
    for name, path in zip(("sub-01", "sub-02"), files, strict=True):
        assert np.allclose(maps.img(name, "GradCAM").affine, nib.load(path).affine, atol=1e-6)


def test_methods_are_compared_in_the_space_of_each_participant(files):
    maps = xb.explain(Pooled(), files, ["Saliency", "InputXGradient"])
    table = maps.agreement().set_index("metric")
    assert table.loc["spearman", "n"] == 2
    values = [maps.img(name, "Saliency").get_fdata() for name in maps.participants]
    assert all(np.isfinite(each).all() for each in values)


def test_maps_of_single_spaces_are_not_combined(files):
    maps = xb.explain(Pooled(), files, ["Saliency", "InputXGradient"])
    with pytest.raises(ConfigError, match=r"mean_img: the maps are in the space of each participant \(T1w\)"):
        maps.mean_img("Saliency")
    for combine in (maps.compare_groups, partial(maps.regions, "atlas.nii.gz")):
        with pytest.raises(ConfigError, match="space of each participant"):
            combine()


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(files, fails):
    network = Pooled().train()
    network.conv.weight.requires_grad_(False)
    network.conv.weight.grad = torch.ones_like(network.conv.weight)
    before = copy.deepcopy(network.state_dict())
    if fails:
        with pytest.raises(ConfigError):
            xb.explain(network, files, ["Saliency"], target=7)
    else:
        xb.explain(
            network, files, ["Saliency", "GradCAM", partial(xb.MeaningfulPerturbation, fill="blur", n_iter=1)]
        )
    assert network.training
    assert not network.conv.weight.requires_grad
    assert network.head.weight.requires_grad
    assert network.head.weight.grad is None
    assert torch.equal(network.conv.weight.grad, torch.ones_like(network.conv.weight))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network._forward_hooks


def test_a_map_does_not_depend_on_the_batch(files):
    images = [image(seed=seed) for seed in range(5)]
    methods = ["Saliency", "SmoothGrad", partial(xb.MeaningfulPerturbation, fill="blur", n_iter=4)]
    alone, together = (xb.explain(Pooled(), images, methods, target=1, batch_size=n) for n in (1, 5))
    for method in alone.methods:
        for name in alone.participants:
            one, other = (maps.img(name, method).get_fdata() for maps in (alone, together))
            assert np.abs(one - other).max() <= 1e-5 * max(np.abs(one).max(), 1e-12)


def test_the_precision_of_the_network_is_kept(files):
    maps = xb.explain(Pooled().double(), files, ["Saliency"], target=1)
    expected = xb.explain(Pooled(), files, ["Saliency"], target=1)
    one, other = (each.img("sub-01", "Saliency").get_fdata() for each in (maps, expected))
    assert np.allclose(one, other, rtol=1e-5)


def test_settings_and_sidecars_name_the_fill_that_was_used(files, tmp_path):
    folder = tmp_path / "maps"
    xb.explain(
        Pooled(), files[:1], ["Saliency", "Occlusion", "MeaningfulPerturbation"], fill="blur", folder=folder
    )
    run = RunDirectory(folder)
    used = read_json(sidecar(xb.open_maps(folder).table["path"].iloc[-1]))["Parameters"]["fill"]
    methods = saved_settings(run.config).attribution
    assert {used, *(own["fill"] for own in methods.values() if "fill" in own)} == {"blur"}
    assert "fill" not in methods["Saliency"]


def test_a_folder_can_be_opened_again(files, tmp_path):
    made = xb.explain(Pooled(), files, ["Saliency"], folder=tmp_path / "maps")
    opened = xb.open_maps(tmp_path / "maps")
    assert opened.methods == made.methods
    path = opened.table["path"].iloc[0]
    assert read_json(sidecar(path))["MapSHA256"]
    assert np.array_equal(
        opened.img("sub-02", "Saliency").get_fdata(), made.img("sub-02", "Saliency").get_fdata()
    )
