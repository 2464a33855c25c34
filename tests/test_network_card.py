"""Report card of a network that was trained elsewhere, and the component with a known location."""

from __future__ import annotations

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
from xai_brain.study.given.known_component import KnownComponent

AFFINE = np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = (-40, -40, -40)
CENTER = (8.0, -4, 0)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3, 4)))


def images(n=8):
    """Images with noise whose strength differs between images, 0 at the border."""
    rng = np.random.default_rng(0)
    volumes = np.zeros((n, 20, 20, 20), np.float32)
    for volume, strength in zip(volumes, rng.uniform(0.5, 2, n), strict=True):
        volume[2:-2, 2:-2, 2:-2] = strength * rng.standard_normal((16, 16, 16))
    return volumes


def test_the_component_has_the_stated_strength_and_depends_on_the_sphere_only():
    volumes, network = torch.from_numpy(images())[:, None], Pooled().eval()
    sphere = torch.zeros(20, 20, 20, dtype=torch.bool)
    sphere[8:12, 8:12, 8:12] = True
    model = KnownComponent(network, sphere).eval()
    model.scale(volumes, 8.0)
    with torch.no_grad():
        before, after = network(volumes), model(volumes)
    added = after - before
    assert torch.equal(added[:, 0], torch.zeros(8))
    assert float(added[:, 1].std()) == pytest.approx(8 * float(before[:, 1].std()), rel=1e-4)
    assert float(added[:, 1].mean()) == pytest.approx(0, abs=1e-4)
    changed = volumes.clone()
    changed[:, :, 14:] += 5  # more than one voxel away from the sphere
    with torch.no_grad():
        assert torch.allclose(model.component(changed), model.component(volumes))
    x, y, z = 9, 10, 9  # the definition, written plainly
    patch = volumes[0, 0, x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2]
    one = torch.zeros_like(sphere)
    one[x, y, z] = True
    expected = max(float(patch[1, 1, 1] - patch.mean()), 0.0)
    assert float(KnownComponent(network, one).component(volumes[:1])) == pytest.approx(expected, abs=1e-6)


def test_methods_find_a_strong_component_and_layers_do_not_see_it():
    mask = partial(xb.MeaningfulPerturbation, n_iter=15)
    methods = ["InputXGradient", "GradCAM", "AttentionRollout", mask]
    card = xb.network_card(
        Pooled(), images(), methods, 1, affine=AFFINE, center_mm=CENTER,
        radius_mm=14, strengths=(0, 8), fill="blur", metrics=["deletion", "infidelity", "seconds"],
        card_settings={"n_steps": 5, "n_removal": 4},
    )  # fmt: skip
    table = card.component.set_index(["method", "strength", "fill"]).sort_index()
    gradient = table.loc["InputXGradient"]
    chance = gradient["chance"].iloc[0]
    assert gradient.loc[(8.0, ""), "rra"] > 5 * chance
    assert gradient.loc[(0.0, ""), "rra"] < 2 * chance
    assert table.loc[("MeaningfulPerturbation", 8.0, "blur"), "rra"] > 5 * chance
    assert ("MeaningfulPerturbation", 8.0, "images with a small component") in table.index
    assert table.loc["GradCAM", "reason"].str.contains("explains one layer").all()
    assert table.loc["AttentionRollout", "reason"].str.contains("explains the attention").all()
    assert table.loc[["GradCAM", "AttentionRollout"], "rra"].isna().all()
    metrics = card.table.set_index(["method", "metric"]).sort_index()
    assert set(card.table["metric"]) == {"deletion", "infidelity", "seconds"}
    assert metrics.loc[("InputXGradient", "deletion"), "n_subjects"] == 4
    assert np.isfinite(card.table["value"]).all()


class TwoChannels(nn.Module):
    """Linear in the second channel: the contributions of voxels are known."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.weight = nn.Parameter(torch.randn(20, 20, 20))

    def forward(self, x):
        score = (x[:, 1] * self.weight).sum((1, 2, 3))
        return torch.stack([-score, score], 1) / 2


def test_metrics_of_contributions_use_every_channel():
    """The maps of a linear network are exact: their sums are complete and predict the removal of blocks."""
    integrated = partial(xa.IntegratedGradients, baseline="zero")
    pairs = [[nib.Nifti1Image(3 * volume, AFFINE), nib.Nifti1Image(volume, AFFINE)] for volume in images(4)]
    card = xb.network_card(
        TwoChannels(), pairs, ["Saliency", "InputXGradient", integrated, "RandomMap"], 1,
        center_mm=CENTER, radius_mm=14, strengths=(), metrics=["infidelity", "completeness"],
        card_settings={"removal": "zero", "n_blocks": 32},
    )  # fmt: skip
    values = card.table.pivot(index="method", columns="metric", values="value")
    assert values.loc[["Saliency", "InputXGradient", "IntegratedGradients"]].to_numpy().max() < 1e-3
    assert values.loc["RandomMap", "infidelity"] > 0.5
    assert values.loc["RandomMap", "completeness"] > 0.5


def test_images_with_a_small_component_are_not_explained_by_their_own_mean():
    mask = partial(xb.MeaningfulPerturbation, n_iter=2)
    card = xb.network_card(
        Pooled(), images(6), [mask], 1, affine=AFFINE, center_mm=CENTER, radius_mm=14, strengths=(8,),
        metrics=[], fill="blur",
    )  # fmt: skip
    assert dict(zip(card.component["fill"], card.component["n"], strict=True)) == {
        "blur": 6,
        "images with a small component": 4,
    }


def test_the_network_is_left_as_it_was():
    network = Pooled().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    xb.network_card(
        network, images(4), ["Saliency"], 1, affine=AFFINE, center_mm=CENTER, radius_mm=14, strengths=(2,),
        metrics=["parameter_randomization"], card_settings={"n_sanity": 2},
    )  # fmt: skip
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_what_cannot_be_examined_is_refused():
    arguments = {"affine": AFFINE, "center_mm": CENTER}
    with pytest.raises(AttributionError, match="the sphere lies outside of the brain"):
        xb.network_card(
            Pooled(), images(3), ["Saliency"], 1, affine=AFFINE, center_mm=(500, 0, 0), metrics=[]
        )
    with pytest.raises(ConfigError, match="metrics: 'rra' is none of deletion"):
        xb.network_card(Pooled(), images(3), ["Saliency"], 1, metrics=["rra"], **arguments)
    with pytest.raises(AttributionError, match="give the network without its softmax"):
        xb.network_card(
            nn.Sequential(Pooled(), nn.Softmax(1)), images(3), ["Saliency"], 1, metrics=[], **arguments
        )
    other = AFFINE.copy()
    other[0, 3] += 8
    pair = [nib.Nifti1Image(volume, each) for volume, each in zip(images(2), (AFFINE, other), strict=True)]
    with pytest.raises(ConfigError, match="need volumes on one grid"):
        xb.network_card(Pooled(), pair, ["Saliency"], 1, center_mm=CENTER, metrics=[])
