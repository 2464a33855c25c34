"""Maps that know no model, and the statistics of the training subjects that they are made from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE, boxed_reference
from scipy import stats

from xai_brain.attribution import Edges, Intensity, MeanDifference, RandomMap, Reference, TMap
from xai_brain.attribution.model_state import AttributionError
from xai_brain.io.nifti import Grid
from xai_brain.study.explanation.batches import build_reference
from xai_brain.task.classification import Classification

COUNTS = [5, 3, 4]


@pytest.fixture
def built(tmp_path):
    """Volumes of three classes on disk, and their reference."""
    rng = np.random.default_rng(0)
    volumes, rows = [], []
    for i, k in enumerate(np.repeat(range(3), COUNTS)):
        volume = (rng.normal(loc=k, scale=1 + k, size=SHAPE) + 100).astype(np.float32)
        brain = np.ones(SHAPE, bool)
        brain[:3] = False
        np.save(tmp_path / f"{i}.npy", volume)
        np.save(tmp_path / f"{i}_mask.npy", brain)
        volumes.append(volume)
        paths = {"volume_path": tmp_path / f"{i}.npy", "volume_mask_path": tmp_path / f"{i}_mask.npy"}
        rows.append({"target": k, **paths})
    affine = np.diag([2.0, 3, 4, 1])
    task, grid = Classification(("a", "b", "c")), Grid("test", SHAPE, affine)
    reference = build_reference(pd.DataFrame(rows), task, 6, grid)
    return np.stack(volumes), np.repeat(range(3), COUNTS), reference


def test_reference_has_the_statistics_of_the_training_subjects(built):
    volumes, targets, reference = built
    for k in range(3):
        of_class = volumes[targets == k].astype(np.float64)
        np.testing.assert_allclose(reference.class_means[k, 0], of_class.mean(0), rtol=1e-6)
        np.testing.assert_allclose(reference.class_variances[k, 0], of_class.var(0, ddof=1), rtol=1e-4)
    assert reference.class_counts.tolist() == COUNTS
    assert reference.voxel_size_mm == (2.0, 3.0, 4.0)
    np.testing.assert_array_equal(reference.affine, np.diag([2.0, 3, 4, 1]))
    assert reference.targets.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(reference.mean[0], volumes.mean(0, dtype=np.float64), rtol=1e-6)


def test_t_map_is_scipys(built):
    volumes, targets, reference = built
    inputs = torch.zeros(3, 1, *SHAPE)
    maps = TMap(None, reference).attribute(inputs, torch.tensor([0, 1, 2])).numpy()
    for k in range(3):
        expected = stats.ttest_ind(volumes[targets == k], volumes[targets != k], equal_var=False).statistic
        np.testing.assert_allclose(maps[k, 0, 3:], expected[3:], rtol=2e-3, atol=2e-4)
        assert not maps[k, 0, :3].any()  # outside the brain


def test_t_map_of_two_classes_is_signed_towards_the_target(built):
    _, _, three = built
    two = Reference(
        class_means=three.class_means[:2],
        volumes=three.volumes,
        targets=three.targets,
        brain_mask=three.brain_mask,
        voxel_size_mm=three.voxel_size_mm,
        class_variances=three.class_variances[:2],
        class_counts=three.class_counts[:2],
    )
    maps = TMap(None, two).attribute(torch.zeros(2, 1, *SHAPE), torch.tensor([0, 1]))
    torch.testing.assert_close(maps[0], -maps[1])
    assert maps[1, 0, 3:].mean() > 0  # class 1 is higher by 1


def test_t_map_needs_what_it_is_made_from():
    with pytest.raises(AttributionError, match="class_variances"):
        TMap(None, boxed_reference())
    reference = boxed_reference()
    few = Reference(
        reference.class_means,
        reference.volumes,
        reference.targets,
        reference.brain_mask,
        reference.voxel_size_mm,
        torch.zeros_like(reference.class_means),
        torch.tensor([1, 7]),
    )
    with pytest.raises(AttributionError, match="of class 0 and of the rest, not 1 and 7"):
        TMap(None, few)


def test_random_map_is_standard_normal_and_follows_the_volume(inputs):
    maps = RandomMap(None).attribute(inputs)
    assert maps.mean().item() == pytest.approx(0, abs=0.03)
    assert maps.std().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(RandomMap(None).attribute(inputs.flip(0)), maps.flip(0))
    assert not torch.equal(RandomMap(None, random_state=1).attribute(inputs), maps)
    assert not torch.equal(maps[0], maps[1])
    reference = boxed_reference()
    reference.brain_mask[:5] = False
    assert not RandomMap(None, reference).attribute(inputs)[:, :, :5].any()


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_edges_of_a_slope(axis):
    slope = torch.arange(float((2, 3, *SHAPE)[axis])).view([-1 if a == axis else 1 for a in range(5)])
    maps = Edges(None).attribute((0.5 * slope).expand(1, 1, *SHAPE))
    # [-1 0 1] along the slope of 0.5, [1 2 1] along the two other axes: 0.5 x 2 x 4 x 4
    inside = maps[0, 0, 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 16.0))


def test_intensity_and_mean_difference(inputs, built):
    _, _, reference = built
    assert torch.equal(Intensity(None).attribute(inputs), inputs.abs())
    maps = MeanDifference(None, reference).attribute(inputs)
    mean = sum(n * m for n, m in zip(COUNTS, reference.class_means, strict=True)) / sum(COUNTS)
    torch.testing.assert_close(maps, (inputs - mean).abs())
