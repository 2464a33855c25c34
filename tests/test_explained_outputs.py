"""`xai_brain.explain`: what a network returns, and inputs with several channels."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from given_networks import FLIPPED, Pooled, image, two_files
from torch import nn

import xai_brain as xb
import xai_brain.attribution as xa
from xai_brain.attribution.model_state import AttributionError
from xai_brain.config.setting import ConfigError


@pytest.fixture
def files(tmp_path):
    return two_files(tmp_path)


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


@pytest.mark.parametrize(("share_mask", "expected"), [(True, 3), (False, 6)])
def test_masks_of_two_channels_have_twice_the_iterations_of_one_mask(share_mask, expected):
    settings = {"fill": "zero", "n_iter": 3, "tolerance": 0.0, "share_mask": share_mask}
    method = xa.MeaningfulPerturbation(Pooled(2, 2), **settings)
    (found,) = method.optimize(torch.rand(1, 2, 8, 9, 10), 1)
    assert len(found.objective) == expected


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
