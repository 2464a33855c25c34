"""References and maps of a continuous target: fills, scales, masks, and what needs classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from xai_brain.attribution import CorrelationMap, MeaningfulPerturbation, OppositeDifference, Reference
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.target_distribution import TargetDistribution
from xai_brain.study.explanation.continuous_target import target_distribution

SHAPE = (8, 12, 10)


@pytest.fixture
def training(tmp_path):
    """Images whose first octant increases with the target."""
    rng = np.random.default_rng(0)
    targets = np.linspace(20, 78, 40)
    paths = []
    for i, target in enumerate(targets):
        volume = rng.normal(0, 0.3, SHAPE).astype(np.float32)
        volume[:4, :6, :5] += (target - 49) / 10
        path = tmp_path / f"{i}.npy"
        np.save(path, volume)
        paths.append(str(path))
    return pd.DataFrame({"target": targets, "volume_path": paths})


class Octant(torch.nn.Module):
    """49 plus ten times the mean of the first octant."""

    def forward(self, inputs):
        return 49 + 10 * inputs[:, :, :4, :6, :5].mean((2, 3, 4))


def reference_of(training, model=None) -> Reference:
    volumes = torch.from_numpy(np.stack([np.load(path) for path in training["volume_path"]]))[:, None]
    found = Reference(
        class_means=volumes.mean(0, keepdim=True),
        volumes=volumes[:6],
        targets=torch.zeros(6, dtype=torch.long),
        brain_mask=torch.ones(SHAPE, dtype=torch.bool),
        voxel_size_mm=(4.0, 4.0, 4.0),
        distribution=target_distribution(training, np.load),
    )
    return found.of_network(model or Octant())


def test_the_distribution_of_the_target_equals_numpy(training):
    found = target_distribution(training.sample(frac=1, random_state=0), np.load)
    volumes, targets = np.stack([np.load(p) for p in training["volume_path"]]), training["target"].to_numpy()
    np.testing.assert_allclose(found.low_mean[0], volumes[:10].mean(0), atol=1e-5)
    np.testing.assert_allclose(found.high_mean[0], volumes[-10:].mean(0), atol=1e-5)
    assert (found.low, found.high) == pytest.approx((targets[:10].mean(), targets[-10:].mean()))
    assert (found.median, found.sd) == pytest.approx((np.median(targets), targets.std()))
    for voxel in ((0, 0, 0), (7, 11, 9)):
        expected = stats.pearsonr(targets, volumes[(slice(None), *voxel)]).statistic
        assert found.correlation[(0, *voxel)].item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(AttributionError, match="equal targets"):
        target_distribution(training.assign(target=1.0), np.load)


def test_the_fill_is_the_mean_image_of_the_opposite_end(training):
    reference = reference_of(training)
    low, high = (torch.from_numpy(np.load(training["volume_path"].iloc[i]))[None] for i in (0, -1))
    inputs, distribution = torch.stack([low, high]), reference.distribution
    fills = reference.counterfactual_mean(torch.zeros(2, dtype=torch.long), inputs)
    torch.testing.assert_close(fills[0], distribution.high_mean)
    torch.testing.assert_close(fills[1], distribution.low_mean)
    found = OppositeDifference(Octant(), reference).attribute(inputs)
    torch.testing.assert_close(found, (inputs - fills).abs())
    maps = CorrelationMap(Octant(), reference).attribute(inputs)
    torch.testing.assert_close(maps[0], distribution.correlation)
    assert maps[0, 0, :4, :6, :5].min() > 0.5


def test_scores_are_scaled_in_standard_deviations_of_the_target(training):
    distribution = reference_of(training).distribution
    low, high = (torch.from_numpy(np.load(training["volume_path"].iloc[i]))[None] for i in (0, -1))
    scale = distribution.score_scale(torch.stack([low, high]))
    values = distribution.predictions(torch.stack([low, high]))
    assert scale[:, 1].tolist() == pytest.approx([-distribution.sd / 2, distribution.sd / 2])
    opposite = torch.tensor([distribution.high, distribution.low])
    torch.testing.assert_close(scale[:, 0], (values + opposite) / 2)


@pytest.mark.parametrize("row", [0, -1])
def test_masks_show_what_moves_the_prediction_to_the_opposite_end(training, row):
    volume = torch.from_numpy(np.load(training["volume_path"].iloc[row]))[None, None]
    method = MeaningfulPerturbation(Octant(), reference_of(training), n_iter=30, mask_spacing_voxels=2)
    (result,) = method.optimize(volume, target=0)
    inside = result.evidence[0, :4, :6, :5].mean()
    assert inside > 0.6
    assert result.evidence[0, 4:].mean() < 0.1
    moved = result.score_after - result.score_before
    assert moved * (1 if row == 0 else -1) > 20  # in the unit of the target


def test_a_constant_network_has_empty_masks(training):
    class Constant(torch.nn.Module):
        def forward(self, inputs):
            return 60 + 0 * inputs.mean((2, 3, 4))

    volume = torch.from_numpy(np.load(training["volume_path"].iloc[0]))[None, None]
    method = MeaningfulPerturbation(Constant(), reference_of(training, Constant()), n_iter=30)
    assert method.attribute(volume, target=0).max() < 0.05


def test_what_needs_classes_or_a_network_says_so(training):
    reference = reference_of(training)
    with pytest.raises(AttributionError, match=r"score_floor=0\.1: is for the evidence of a class"):
        MeaningfulPerturbation(Octant(), reference, score_floor=0.1)
    unknown = TargetDistribution(**{**reference.distribution.__dict__, "predict": None})
    with pytest.raises(AttributionError, match="the reference has no network"):
        unknown.opposite_mean(torch.zeros(1, 1, *SHAPE))
    classes = Reference(*(getattr(reference, name) for name in
                          ("class_means", "volumes", "targets", "brain_mask", "voxel_size_mm")))  # fmt: skip
    for kind in (OppositeDifference, CorrelationMap):
        with pytest.raises(AttributionError, match="needs a continuous target"):
            kind(Octant(), classes)
