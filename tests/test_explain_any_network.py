"""`xai_brain.explain`: any network, NIfTI images in, maps on the grid of every image out."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import xai_brain as xb
import xai_brain.attribution as xa
from xai_brain.attribution.model_state import AttributionError
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import ImageError
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import read_json, sidecar
from xai_brain.study.given import explain as explaining

FLIPPED = np.array([[-2.0, 0, 0, 40], [0, 2.5, 0, -30], [0, 0, 3.0, -20], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, 3.0, -25], [2.0, 0, 0, -40], [0, 2.5, 0, -30], [0, 0, 0, 1]])


class Pooled(nn.Module):
    """A small convolutional network for volumes of any size."""

    def __init__(self, n_outputs=2, n_channels=1):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(n_channels, 4, 3, padding=1)
        self.head = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3, 4)))


class OneVoxel(nn.Module):
    """Logits that depend on one voxel of volumes of one size."""

    def __init__(self, shape, index):
        super().__init__()
        self.shape, self.index = shape, index
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, x):
        if tuple(x.shape[2:]) != tuple(self.shape):
            raise RuntimeError(
                f"mat1 and mat2 shapes cannot be multiplied ({x.shape[2]} and {self.shape[0]})"
            )
        return x[:, 0, *self.index, None] * self.weight


def image(affine=FLIPPED, shape=(14, 16, 12), seed=0):
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    return nib.Nifti1Image(values, affine)


@pytest.fixture
def files(tmp_path):
    """Two images on different grids."""
    first, second = tmp_path / "sub-01_T1w.nii.gz", tmp_path / "sub-02_T1w.nii.gz"
    image(FLIPPED).to_filename(first)
    image(PERMUTED, (12, 14, 16), 1).to_filename(second)
    return [str(first), str(second)]


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


# -- outputs ---------------------------------------------------------------------------------------


@dataclass
class Result:
    logits: torch.Tensor
    features: torch.Tensor


Pair = namedtuple("Pair", ["features", "logits"])


class Wrapped(Pooled):
    def __init__(self, wrap, n_outputs=2):
        super().__init__(n_outputs)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x), x.mean((1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda logits, _: (logits,), None),
        (lambda logits, other: (other, logits), 1),
        (lambda logits, other: [other, logits], 1),
        (lambda logits, other: {"other": other, "logits": logits}, "logits"),
        (lambda logits, other: Result(logits, other), "logits"),
        (lambda logits, other: Pair(other, logits), "logits"),
    ],
)
def test_one_part_of_an_output_is_explained(files, wrap, key):
    expected = xb.explain(Pooled(), files[:1], ["Saliency"], target=1).img("sub-01", "Saliency")
    maps = xb.explain(Wrapped(wrap), files[:1], ["Saliency"], target=1, output_key=key)
    assert np.array_equal(maps.img("sub-01", "Saliency").get_fdata(), expected.get_fdata())


def test_several_tensors_without_a_key_are_refused(files):
    network = Wrapped(lambda logits, other: {"other": other, "logits": logits})
    with pytest.raises(AttributionError, match="several tensors \\('other', 'logits'\\): output_key="):
        xb.explain(network, files, ["Saliency"])
    with pytest.raises(AttributionError, match="output_key='age': the network returns no such tensor"):
        xb.explain(network, files, ["Saliency"], output_key="age")


def test_one_logit_gives_two_classes(files):
    network = Pooled(1)
    maps = xb.explain(network, files[:1], ["Saliency"], target="patient", outputs="one_logit",
                      class_names=["control", "patient"])  # fmt: skip
    other = xb.explain(network, files[:1], ["Saliency"], target=0, outputs="one_logit")
    found, opposite = maps.img("sub-01", "Saliency").get_fdata(), other.img("sub-01", "Saliency").get_fdata()
    assert found.any()
    assert np.array_equal(found, -opposite)
    inputs = torch.from_numpy(nib.load(files[0]).get_fdata(dtype=np.float32))[None, None].requires_grad_()
    logit = network(inputs)[0, 0]
    (gradient,) = torch.autograd.grad(logit, inputs)
    assert np.allclose(found, gradient[0, 0].numpy(), atol=1e-7)
    about = maps.sidecar("sub-01", "Saliency")
    assert about["TargetName"] == "patient"
    assert about["TargetProbability"] == pytest.approx(float(logit.detach().sigmoid()), abs=1e-6)


def test_labels_that_occur_together_have_probabilities_of_their_own(files):
    network = Pooled(3)
    names = ["a", "b", "c"]
    maps = xb.explain(network, files[:1], ["Saliency"], target="c", outputs="labels", output="probability",
                      class_names=names)  # fmt: skip
    inputs = torch.from_numpy(nib.load(files[0]).get_fdata(dtype=np.float32))[None, None].requires_grad_()
    (gradient,) = torch.autograd.grad(network(inputs)[0, 2].sigmoid(), inputs)
    assert np.allclose(maps.img("sub-01", "Saliency").get_fdata(), gradient[0, 0].numpy(), atol=1e-7)
    with pytest.raises(
        ConfigError, match="predicts no single class; give the output to explain, one of a, b"
    ):
        xb.explain(network, files, ["Saliency"], outputs="labels", class_names=names)


def test_a_number_is_explained(files):
    maps = xb.explain(Pooled(1), files, ["Saliency"], outputs="numbers", class_names=["age"])
    assert maps.sidecar("sub-01", "Saliency")["Output"] == "value"
    mask = partial(xb.MeaningfulPerturbation, fill="zero", n_iter=4)
    found = xb.explain(Pooled(1), files[:1], [mask], outputs="numbers")
    values = found.img("sub-01", "MeaningfulPerturbation").get_fdata()
    assert 0 <= values.min() <= values.max() <= 1


def test_the_prediction_is_explained_by_default(files):
    network = Pooled()
    maps = xb.explain(network, files, ["Saliency"])
    for name, path in zip(("sub-01", "sub-02"), files, strict=True):
        inputs = torch.from_numpy(nib.load(path).get_fdata(dtype=np.float32))[None, None]
        assert maps.sidecar(name, "Saliency")["Target"] == int(network(inputs).argmax())
    each = xb.explain(network, files, ["Saliency"], target=[1, 0])
    assert [each.sidecar(name, "Saliency")["Target"] for name in ("sub-01", "sub-02")] == [1, 0]


class Segmenter(nn.Module):
    """Label 1 where the image is bright; the logit of a voxel depends on that voxel only."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        bright = self.scale * (x - 0.5)
        return torch.cat([-bright, bright], 1)


def test_a_segmentation_is_explained_in_its_region(files):
    values = nib.load(files[0]).get_fdata(dtype=np.float32)
    maps = xb.explain(Segmenter(), files, ["Saliency"], target=xb.SegmentationTarget(1))
    found = maps.img("sub-01", "Saliency").get_fdata()
    assert np.allclose(found, 4.0 * (values > 0.5))
    region = np.zeros(values.shape, bool)
    region[2:5, 3:6, 4:8] = True
    maps = xb.explain(Segmenter(), files[:1], ["Saliency"], target=xb.SegmentationTarget(0, region))
    assert np.allclose(maps.img("sub-01", "Saliency").get_fdata(), -4.0 * region)
    with pytest.raises(AttributionError, match="label=5: the segmentation has labels 0 to 1"):
        xb.explain(Segmenter(), files, ["Saliency"], target=xb.SegmentationTarget(5))
    with pytest.raises(AttributionError, match="region is empty"):
        xb.explain(Segmenter(), files, ["Saliency"], target=xb.SegmentationTarget(1, np.zeros(values.shape)))


# -- channels --------------------------------------------------------------------------------------


class OfChannels(nn.Module):
    """Uses the first channel three times as much as the second."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 1.0]))

    def forward(self, x):
        score = (x.mean((2, 3, 4)) * self.weight).sum(1)
        return torch.stack([-score, score], 1)


def test_maps_of_channels_and_their_sum(files, tmp_path):
    flair = tmp_path / "sub-01_FLAIR.nii.gz"
    image(FLIPPED, seed=5).to_filename(flair)
    channels = ["T1", "FLAIR"]
    maps = xb.explain(OfChannels(), [[files[0], flair]], ["Saliency", "InputXGradient"], target=1,
                      channel_names=channels)  # fmt: skip
    assert maps.methods == ["Saliency", "InputXGradient"]
    assert maps.channels == channels
    of_each = [maps.img("sub-01", "Saliency", channel=name).get_fdata() for name in channels]
    total = maps.img("sub-01", "Saliency").get_fdata()
    assert np.allclose(total, sum(of_each))
    assert of_each[0].mean() == pytest.approx(3 * of_each[1].mean())
    shares = maps.channel_shares().set_index(["method", "channel"])["mean"]
    assert shares["Saliency", "T1"] == pytest.approx(0.75)
    assert shares["Saliency", "FLAIR"] == pytest.approx(0.25)
    with pytest.raises(ConfigError, match="there is no channel 'T2'; there are T1, FLAIR"):
        maps.img("sub-01", "Saliency", channel="T2")


def test_masks_of_each_channel_find_the_channel_that_matters(files, tmp_path):
    flair = tmp_path / "sub-01_FLAIR.nii.gz"
    image(FLIPPED, seed=5).to_filename(flair)

    class OnlyFirst(OfChannels):
        def forward(self, x):
            score = 12 * x[:, 0].mean((1, 2, 3)) - 3
            return torch.stack([-score, score], 1) * self.weight[1]

    own = partial(xb.MeaningfulPerturbation, fill="zero", area_weight=0.3, share_mask=False)
    shared = partial(xb.MeaningfulPerturbation, fill="zero", area_weight=0.3)
    pair = [[files[0], flair]]
    maps = xb.explain(OnlyFirst(), pair, [own], target=1)
    assert maps.channel_shares()["mean"].iloc[0] > 0.9
    for method in (shared, "GradCAM"):
        maps = xb.explain(OnlyFirst() if method is shared else Pooled(2, 2), pair, [method], target=1)
        with pytest.raises(ConfigError, match="has one map for all channels"):
            maps.channel_shares()
        (name,) = maps.methods
        assert len(maps.channels) == 2
        if method is shared:  # a share of replaced tissue, not a sum of two
            assert maps.img("sub-01", name).get_fdata().max() <= 1


def test_boxes_replace_one_channel_or_all_together(files, tmp_path):
    """The score is linear: what a channel contributes is its weight times its mean."""
    flair = tmp_path / "sub-01_FLAIR.nii.gz"
    image(FLIPPED, seed=5).to_filename(flair)
    means = [nib.load(path).get_fdata().mean() for path in (files[0], flair)]
    settings = {"fill": "zero", "window_mm": 12, "n_levels": 2, "n_refined": 3}
    own = partial(xa.Occlusion, share_mask=False, **settings)
    maps = xb.explain(OfChannels(), [[files[0], flair]], [own], target=1, channel_names=["T1", "FLAIR"])
    of_each = [maps.img("sub-01", "Occlusion", channel=name).get_fdata() for name in ("T1", "FLAIR")]
    assert of_each[0].sum() == pytest.approx(3 * means[0], rel=1e-4)
    assert of_each[1].sum() == pytest.approx(means[1], rel=1e-4)

    shared = partial(xa.Occlusion, **settings)
    maps = xb.explain(OfChannels(), [[files[0], flair]], [shared], target=1)
    with pytest.raises(ConfigError, match="has one map for all channels"):
        maps.channel_shares()
    per_voxel_and_channel = maps.img("sub-01", "Occlusion").get_fdata()
    assert 2 * per_voxel_and_channel.sum() == pytest.approx(3 * means[0] + means[1], rel=1e-4)
    assert "per voxel and channel" in maps.sidecar("sub-01", "Occlusion")["ValueMeaning"]


def test_equal_gradients_of_two_channels_are_maps_of_each(files, tmp_path):
    flair = tmp_path / "sub-01_FLAIR.nii.gz"
    image(FLIPPED, seed=5).to_filename(flair)

    class MeanOfChannels(Pooled):
        def forward(self, x):
            return super().forward(x.mean(1, keepdim=True))

    maps = xb.explain(MeanOfChannels(), [[files[0], flair]], ["Saliency"], target=1)
    assert maps.channel_shares()["mean"].tolist() == pytest.approx([0.5, 0.5])
    one = maps.img("sub-01", "Saliency", channel="channel1").get_fdata()
    assert np.allclose(maps.img("sub-01", "Saliency").get_fdata(), 2 * one)
    assert maps.sidecar("sub-01", "Saliency")["ValueMeaning"].startswith("sum over channels")


# -- what is refused, and what is left as it was ---------------------------------------------------


class WithoutStatistics(Pooled):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm3d(1, track_running_stats=False)

    def forward(self, x):
        return super().forward(self.norm(x))


class NotFinite(Pooled):
    def forward(self, x):
        return super().forward(x) / 0.0


REFUSED = {
    "number of channels": (Pooled(2, 2), {}, AttributionError, r"an input of shape \(1, 1, 14, 16, 12\)"),
    "fixed size": (
        OneVoxel((9, 9, 9), (1, 1, 1)),
        {},
        AttributionError,
        r"cannot process .*give preprocess=",
    ),
    "size of a linear layer": (
        nn.Sequential(nn.Flatten(), nn.Linear(100, 2)),
        {},
        AttributionError,
        r"receives 2688 values instead of 100; the images need the grid it was trained with",
    ),
    "output of unknown meaning": (Pooled(1), {}, AttributionError, "one value, whose meaning is not known"),
    "no matrix": (nn.Identity(), {}, AttributionError, r"SegmentationTarget\(label\)"),
    "batch statistics": (WithoutStatistics(), {}, AttributionError, "without running statistics"),
    "not finite": (NotFinite(), {}, AttributionError, r"NaN or infinite values for .*sub-01"),
    "target": (Pooled(), {"target": 2}, ConfigError, "target=2: the number of an output, 0 to 1, is needed$"),
    "name of a class": (
        Pooled(),
        {"target": "male"},
        ConfigError,
        r"target='male': the number of an output, 0 to 1, is needed; class_names=.* names the outputs$",
    ),
    "name of no class": (
        Pooled(),
        {"target": "mann", "class_names": ["female", "male"]},
        ConfigError,
        "target='mann': one of female, male or a number, 0 to 1, is needed$",
    ),
    "names": (Pooled(), {"class_names": ["a"]}, ConfigError, "1 names for 2 outputs"),
    "output": (Pooled(), {"output": "value"}, ConfigError, "output='value': one of logit"),
    "one target each": (Pooled(), {"target": [0]}, ConfigError, "target: there is none for sub-02"),
    "preprocess": (
        Pooled(),
        {"preprocess": lambda img: np.zeros((3, 3, 3))},
        ConfigError,
        "position of its voxels is unknown",
    ),
    "preprocessing": (
        Pooled(),
        {"preprocess": "t1w_3mm"},
        ConfigError,
        "there is no preprocessing 't1w_3mm'",
    ),
    "channel names": (Pooled(), {"channel_names": ["a", "b"]}, ConfigError, "1 different names of letters"),
    "not MNI152": (Pooled(), {"preprocess": "t1w_4mm"}, ImageError, "sub-01"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_input_that_cannot_be_explained_is_refused_in_one_line(files, case):
    network, arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as raised:
        xb.explain(network, files, ["Saliency"], **arguments)
    assert "\n" not in str(raised.value)


def test_images_that_cannot_be_used_are_refused(files, tmp_path):
    network = Pooled()
    with pytest.raises(ConfigError, match="an array has no position in space; give affine="):
        xb.explain(network, np.zeros((1, 8, 8, 8)), ["Saliency"])
    with pytest.raises(ConfigError, match="2 images have the name sub-01; give participant_ids="):
        xb.explain(network, [files[0], files[0]], ["Saliency"])
    with pytest.raises(ConfigError, match="a list is needed, also for one image"):
        xb.explain(network, files[0], ["Saliency"])
    with pytest.raises(ImageError, match="channels of sub-01 have different grids"):
        xb.explain(network, [files], ["Saliency"])
    with pytest.raises(ImageError, match=r"does not exist|missing|no such"):
        xb.explain(network, [tmp_path / "sub-09_T1w.nii.gz"], ["Saliency"])
    broken = image()
    broken.get_fdata(dtype=np.float32)[3, 3, 3] = np.nan
    with pytest.raises(ImageError, match="holds NaN or infinite values"):
        xb.explain(network, [nib.Nifti1Image(broken.get_fdata(dtype=np.float32), FLIPPED)], ["Saliency"])
    with pytest.raises(ConfigError, match=r"folder=.*is not empty"):
        xb.explain(network, files, ["Saliency"], folder=tmp_path)


def test_masks_without_a_reference_need_a_fill(files):
    with pytest.raises(ConfigError, match=r"MeaningfulPerturbation: without reference=.*fill= states"):
        xb.explain(Pooled(), files, ["MeaningfulPerturbation"])
    with pytest.raises(ConfigError, match="fill='counterfactual_mean' needs reference="):
        xb.explain(Pooled(), files, ["MeaningfulPerturbation"], fill="counterfactual_mean")
    with pytest.raises(ConfigError, match="TMap: needs reference="):
        xb.explain(Pooled(), files, ["TMap"])


def test_a_reference_of_images_with_labels_is_used(files):
    same = [image(seed=seed) for seed in range(4)]
    mask = partial(xb.MeaningfulPerturbation, n_iter=3)
    maps = xb.explain(Pooled(), [same[0]], [mask, "TMap"], target=1, reference=(same, [0, 1, 0, 1]))
    values = np.stack([img.get_fdata(dtype=np.float32) for img in same])
    difference = values[1::2].mean(0) - values[::2].mean(0)
    found = maps.img("sub-0001", "TMap").get_fdata()
    assert (np.sign(found) == np.sign(difference)).mean() > 0.99
    with pytest.raises(ConfigError, match="3 labels for 4 images"):
        xb.explain(Pooled(), [same[0]], [mask], reference=(same, [0, 1, 0]))
    with pytest.raises(ConfigError, match="different shapes"):
        xb.explain(Pooled(), files, [mask], reference=(files, [0, 1]))


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


def test_a_folder_can_be_opened_again(files, tmp_path):
    made = xb.explain(Pooled(), files, ["Saliency"], folder=tmp_path / "maps")
    opened = xb.open_maps(tmp_path / "maps")
    assert opened.methods == made.methods
    path = opened.table["path"].iloc[0]
    assert read_json(sidecar(path))["MapSHA256"]
    assert np.array_equal(
        opened.img("sub-02", "Saliency").get_fdata(), made.img("sub-02", "Saliency").get_fdata()
    )


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift"])
def test_a_baseline_of_training_participants_needs_a_reference(files, name):
    with pytest.raises(ConfigError, match=rf"{name}: baseline='training_mean' needs reference=\(images"):
        xb.explain(Pooled(), files, [name])
    zero = partial(getattr(xa, name), baseline="zero")
    assert xb.explain(Pooled(), files[:1], [zero]).methods == [name]


class Certain(nn.Module):
    """Returns a probability that no replacement of tissue changes."""

    def forward(self, x):
        return torch.stack([-1000 - x.mean((1, 2, 3, 4)), 1000 + x.mean((1, 2, 3, 4))], 1)


def test_masks_without_a_gradient_are_empty_and_named(files, caplog):
    mask = partial(xb.MeaningfulPerturbation, fill="zero", n_iter=40)
    maps = xb.explain(Certain(), files, [mask], target=1)
    assert not any(maps.img(who, "MeaningfulPerturbation").get_fdata().any() for who in maps.participants)
    assert "2 of 2 maps of MeaningfulPerturbation are empty (0 everywhere)" in caplog.text
