"""Checks of methods that replace parts of the volume: boxes, regions and random masks."""

from __future__ import annotations

from itertools import permutations

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from table_case import Case, relative

from xai_brain import attribution as xa
from xai_brain.attribution.methods.occlusion import tiles
from xai_brain.attribution.perturbation.masks import smooth_masks


def occlusion(case: Case) -> float:
    window = 12.0 if max(case.shape) < 64 else 32.0  # in voxels of 2 mm
    method = xa.Occlusion(case.score(), case.reference, window_mm=2 * window, n_levels=1)
    maps, sums, falls = case.maps(method).double(), [], []
    for box in tiles(case.reference.brain_mask, [window] * 3):
        changed = case.inputs.double().clone()
        changed[:, :, *box] = case.fill[:, *box]
        sums.append(maps[:, :, *box].sum((1, 2, 3, 4)))
        falls.append(case.exact_score(case.inputs) - case.exact_score(changed))
    return relative(torch.stack(sums, 1), torch.stack(falls, 1))


def quarters(case: Case) -> tuple[torch.Tensor, nib.Nifti1Image, pd.DataFrame]:
    """Four regions: their labels, label image and names."""
    x, y = np.indices(case.shape)[:2]
    labels = 1 + (x >= case.shape[0] // 2) + 2 * (y >= case.shape[1] // 2)
    image = nib.Nifti1Image(labels.astype(np.int16), case.reference.affine.numpy())
    return torch.from_numpy(labels), image, pd.DataFrame({"index": [1, 2, 3, 4], "name": list("abcd")})


def region_ablation(case: Case) -> float:
    labels, image, names = quarters(case)
    maps = case.maps(xa.RegionAblation(case.score(), case.reference, image, names)).double()
    sums, falls = [], []
    for label in range(1, 5):
        region = labels == label
        changed = torch.where(region, case.fill, case.inputs.double())
        sums.append((maps * region).sum((1, 2, 3, 4)))
        falls.append(case.exact_score(case.inputs) - case.exact_score(changed))
    return relative(torch.stack(sums, 1), torch.stack(falls, 1))


def kernel_shap(case: Case) -> float:
    """Mean decrease of the output over all orders in which the regions are replaced."""
    labels, image, names = quarters(case)
    maps = case.maps(xa.KernelShap(case.score(), case.reference, image, names)).double()
    sums = torch.stack([(maps * (labels == label)).sum((1, 2, 3, 4)) for label in range(1, 5)], 1)
    expected = torch.zeros_like(sums)
    known: dict[frozenset[int], torch.Tensor] = {}

    def score(replaced: tuple[int, ...]) -> torch.Tensor:
        if (those := frozenset(replaced)) not in known:
            region = torch.isin(labels, torch.tensor(list(those), dtype=torch.long))
            known[those] = case.exact_score(torch.where(region, case.fill, case.inputs.double()))
        return known[those]

    for order in permutations(range(1, 5)):
        for k, label in enumerate(order):
            expected[:, label - 1] += (score(order[:k]) - score(order[: k + 1])) / 24
    return relative(sums, expected)


def rise(case: Case) -> float:
    """The published sum in double precision, minus the mean output times the mean of the masks."""
    method = xa.RISE(case.score(), case.reference, n_masks=12, cell_mm=12)
    expected = torch.zeros_like(case.inputs, dtype=torch.float64)
    for volume, total in zip(case.inputs, expected, strict=True):
        cells, shifts = method._draw(volume)
        masks = smooth_masks(cells.double(), shifts.double(), method.cell_voxels, case.shape)
        perturbed = volume.double() * masks + case.fill * (1 - masks)
        scores = torch.cat([case.exact_score(each[None]) for each in perturbed])
        total += ((scores - scores.mean()).view(-1, 1, 1, 1, 1) * masks).sum(0) / (12 * 0.5)
    return relative(case.maps(method), expected)
