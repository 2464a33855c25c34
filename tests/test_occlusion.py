"""Occlusion and ablation of regions: contributions of linear networks, literals, places."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from known_networks import WEIGHTS, Linear, reference_of
from torch import nn

from xai_brain.attribution import Occlusion, RegionAblation
from xai_brain.attribution.model_state import AttributionError


def test_occlusion_of_a_linear_model_is_the_contribution(few):
    # boxes of 4 voxels, halved to 2 and 1: at the end every voxel has been replaced alone
    method = Occlusion(Linear(), fill="zero", voxel_size_mm=(1, 1, 1), window_mm=4, n_levels=3, n_refined=99)
    maps = method.attribute(few, torch.tensor([1, 0]))
    expected = few * WEIGHTS * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)


def test_occlusion_literals():
    class Sum(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3, 4))[:, None]

    x = torch.zeros(1, 1, 2, 4, 6)
    x[0, 0, 0, 0, 0] = 16.0
    x[0, 0, 1, 3, 5] = 1.0
    reference = reference_of(x.repeat(2, 1, 1, 1, 1))
    reference.brain_mask[:, 3] = False  # the second spot is outside the brain
    coarse = Occlusion(Sum(), reference, "zero", window_mm=3, n_levels=1).attribute(x, 0)
    # the brain's bounding box is 2 x 3 x 6: one box of 2 x 3 x 3 loses 16, the other nothing
    assert coarse[0, 0, :, :3, :3].unique().tolist() == pytest.approx([16 / 18])
    assert float(coarse.sum()) == pytest.approx(16)
    fine = Occlusion(Sum(), reference, "zero", window_mm=3, n_levels=2, n_refined=1).attribute(x, 0)
    # the part with the spot is 1 x 2 x 2; its seven neighbours lose nothing
    assert fine[0, 0, 0, :2, :2].unique().tolist() == [4.0]
    assert float(fine.sum()) == pytest.approx(16)
    assert int((fine != 0).sum()) == 4


def test_occlusion_fills_from_the_training_subjects(few):
    volumes = torch.randn(4, 1, 4, 6, 8, generator=torch.Generator().manual_seed(4))
    reference = reference_of(volumes)
    maps = Occlusion(Linear(), reference, window_mm=99, n_levels=1).attribute(few, 1)
    change = (WEIGHTS * (few - reference.class_means[0])).sum((1, 2, 3, 4))  # of class 1: the mean of class 0
    torch.testing.assert_close(maps.sum((1, 2, 3, 4)), change, rtol=1e-4, atol=1e-4)
    with pytest.raises(AttributionError, match="window_mm=40 is in mm: give voxel_size_mm or a reference"):
        Occlusion(Linear())


def test_regions_are_placed_by_their_affine_and_share_their_fall(few):
    # volumes: 2 mm voxels from (10, 20, 30) mm; the atlas: 1 mm, its first axis from right to left
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([10.0, 20.0, 30.0])
    labels = np.zeros((8, 12, 16), np.int16)
    labels[4:, :4, :6] = 300  # the lower two voxels in x, two in y, three in z
    labels[:4, :4, :6] = 2
    atlas_affine = np.diag([-1.0, 1, 1, 1])
    atlas_affine[:3, 3] = [10 - 0.5 + 7, 20 - 0.5, 30 - 0.5]
    reference = reference_of(few, affine=affine)
    reference.brain_mask[0, 0, 0] = False
    names = pd.DataFrame({"index": [2, 300], "name": ["high", "low"]})
    method = RegionAblation(Linear(), reference, nib.Nifti1Image(labels, atlas_affine), names, fill="zero")
    maps = method.attribute(few, 1)[:, 0]
    shares = (few * WEIGHTS)[:, 0]
    low = shares[:, :2, :2, :3].sum((1, 2, 3)) - shares[:, 0, 0, 0]
    torch.testing.assert_close(maps[:, 1, 1, 2], low / 11, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[:, 2:, :2, :3].sum((1, 2, 3)), shares[:, 2:, :2, :3].sum((1, 2, 3)))
    assert int((maps[0] != 0).sum()) == 23
    with pytest.raises(AttributionError, match="needs Reference"):
        RegionAblation(Linear(), reference_of(few), nib.Nifti1Image(labels, atlas_affine), names)
    far = atlas_affine.copy()
    far[2, 3] = 500
    with pytest.raises(AttributionError, match="no region lies in the brain"):
        RegionAblation(Linear(), reference, nib.Nifti1Image(labels, far), names)
