"""`xai_brain.explain`: what is refused, and methods that need a reference or a fill."""

from __future__ import annotations

from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from given_networks import FLIPPED, OneVoxel, Pooled, image, two_files
from torch import nn

import xai_brain as xb
import xai_brain.attribution as xa
from xai_brain.attribution.model_state import AttributionError
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import ImageError


@pytest.fixture
def files(tmp_path):
    return two_files(tmp_path)


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
