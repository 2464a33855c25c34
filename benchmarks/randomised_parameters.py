"""Error and power of thresholds from networks with randomised parameters.

    python benchmarks/randomised_parameters.py                      # about ten minutes on one CPU core
    python benchmarks/randomised_parameters.py --network densenet   # pip install monai

The network of the first fold of the cohort of family_wise_error.py is explained on its test participants as
a network that cannot be trained again; densenet is MONAI's DenseNet121 with random parameters, on the same
images at 6 mm. 39 copies with randomised parameters give the threshold, and 40 further ones are compared with
it. The error is the share of their maps with a voxel above it, averaged over the copies, with a bootstrap
interval over the copies at the level 1 - 0.05 / number of methods. Then the maps of the network itself are
compared: the share of participants with a voxel above the threshold, the share with such a voxel inside the
effect, and the mean share of these voxels that lie inside. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from cohorts import trained_fold
from family_wise_error import COHORT
from torch import nn

import xai_brain as xb
from xai_brain.io.nifti import Grid, get_grid, load_img, resample_to_grid
from xai_brain.runs.directory import read_tsv
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.thresholds.statistic import STATISTICS, corrected_threshold

METHODS = {
    "shallow": ["Saliency", "InputXGradient", "GuidedBackprop", "GradCAM", "LRP"],
    "densenet": ["Saliency", "InputXGradient", "GradCAM"],
}
COARSE_MM, ALPHA = 6.0, 0.05


def images_of(paths: Sequence[str], grid: Grid, mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Prepared volumes (N, X, Y, Z), resampled to voxels of `mm`, and their affine."""
    volumes = np.stack([np.load(path) for path in paths])
    if mm == grid.spacing_mm[0]:
        return volumes, grid.affine
    coarse = coarse_grid(grid, mm)
    resampled = [resample_to_grid(nib.Nifti1Image(each, grid.affine), coarse) for each in volumes]
    return np.stack(resampled), coarse.affine


def coarse_grid(grid: Grid, mm: float) -> Grid:
    """A grid of `mm` that covers another one."""
    affine = grid.affine.copy()
    affine[:3, :3] *= mm / grid.spacing_mm[0]
    x, y, z = np.ceil(np.array(grid.shape) * grid.spacing_mm / mm).astype(int).tolist()
    return Grid("coarse", (x, y, z), affine)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=METHODS, default="shallow")
    parser.add_argument("--methods", nargs="+", help="default: depends on the network")
    parser.add_argument("--n-perm", type=int, default=39)
    parser.add_argument("--further", type=int, default=40)
    parser.add_argument("--n-participants", type=int, default=8)
    args = parser.parse_args()

    fold, grid = trained_fold("randomised_parameters", COHORT), get_grid("t1w_4mm")
    network: nn.Module = fold.classifier
    mm = 4.0
    if args.network == "densenet":
        from monai.networks.nets import DenseNet121

        torch.manual_seed(0)
        network, mm = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2), COARSE_MM
    volumes, affine = images_of(fold.test["volume_path"].tolist(), grid, mm)
    shape = volumes.shape[1:]
    truths = [
        resample_to_grid(load_img(path), Grid("images", shape, affine), order=0) > 0.5
        for path in fold.test["truth_path"]
    ]
    methods = args.methods or METHODS[args.network]
    maps = xb.explain(network, volumes, methods, affine=affine)
    sizes = {"n_participants": args.n_participants, "alpha": ALPHA}
    maps.threshold(**sizes, n_perm=args.n_perm + args.further)
    folders = sorted((maps.table["path"].iloc[0].parents[3] / "randomized").iterdir())
    tables = {
        method: [read_tsv(folder / "statistics" / f"desc-{method}.tsv") for folder in folders]
        for method in methods
    }
    level = 1 - 0.05 / len(methods)
    errors: dict[str, Any] = {}
    print(f"{args.network}: accuracy {fold.accuracy:.2f}, {len(volumes)} participants")
    print("| method | statistic | threshold | error | interval over networks |\n|---|---|---|---|---|")
    for method, of_networks in tables.items():
        for statistic in STATISTICS:
            values = [table[statistic].to_numpy(float) for table in of_networks]
            threshold = corrected_threshold(values[: args.n_perm], ALPHA)
            shares = np.array([(each > threshold).mean() for each in values[args.n_perm :]])
            error, low, high = bootstrap_mean(shares, 10_000, level=level)
            print(f"| {method} | {statistic} | {threshold:.3g} | {error:.3f} | {low:.3f} to {high:.3f} |")
            errors[f"{method} {statistic}"] = {"error": error, "low": low, "high": high}
    power: dict[str, Any] = {}
    print("\n| method | statistic | above | inside the effect | share inside |\n|---|---|---|---|---|")
    for statistic in ("max", "mass"):
        thresholded = maps.threshold(**sizes, n_perm=args.n_perm, statistic=statistic)
        for method in methods:
            above = [thresholded.img(name, method).get_fdata() != 0 for name in maps.participants]
            some = np.mean([each.any() for each in above])
            hit = np.mean([(each & truth).any() for each, truth in zip(above, truths, strict=True)])
            inside = [truth[each].mean() for each, truth in zip(above, truths, strict=True) if each.any()]
            precision = float(np.mean(inside)) if inside else float("nan")
            print(f"| {method} | {statistic} | {some:.2f} | {hit:.2f} | {precision:.2f} |")
            power[f"{method} {statistic}"] = {"above": some, "hit": hit, "precision": precision}
    print(json.dumps({"error": errors, "power": power}))


if __name__ == "__main__":
    main()
