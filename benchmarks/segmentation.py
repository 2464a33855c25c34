"""Whether a mask that explains a segmentation lies at the lesion that was segmented.

    pip install monai                                 # brings the U-Net
    python benchmarks/segmentation.py                 # about fifteen minutes on one CPU core
    python benchmarks/segmentation.py --subjects 4

Spheres with a radius of 8 to 12 mm at random places of the brain are brightened in the images of the embedded
cohort, without another effect. A small U-Net is trained to segment them and explained on other participants,
with `SegmentationTarget(1, region="predicted")`. Printed are the Dice coefficient of the segmentation, the
share of a map's absolute sum within 15 mm of the lesion, and that share of a map that is the same everywhere
in the brain (chance). With `--norm instance`, the network normalises each image by its own statistics, so
that all voxels contribute to the output. Intervals are 95 % bootstrap intervals over participants. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import apply_affine
from scipy import ndimage
from torch import nn

import xai_brain as xb
from xai_brain.io.nifti import load_img
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.statistics.bootstrap import bootstrap_mean

N_TRAIN, EPOCHS, BATCH, NEAR_MM = 128, 40, 4, 15.0
METHODS: list[Any] = [
    "MeaningfulPerturbation",
    "Saliency",
    "InputXGradient",
    "SmoothGrad",
    "GradCAM",
    "Occlusion",
    "RandomMap",
]


def lesions(n_subjects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes (N, 1, X, Y, Z) with one lesion each, lesions (N, X, Y, Z) and affine."""
    cohort = xb.load_cohort(
        "synthetic",
        n_subjects=n_subjects,
        grid="t1w_4mm",
        effect_volume_change=0.0,
        effect_intensity_change=0.0,
    )
    images = [load_img(path) for path in cohort.table["t1w_path"]]
    affine = images[0].affine
    mm = apply_affine(affine, np.moveaxis(np.indices(images[0].shape), 0, -1))
    rng = np.random.default_rng(0)
    volumes, found = [], []
    for img in images:
        values = np.asanyarray(img.dataobj, np.float32)
        brain = values > 0
        inner = np.argwhere(ndimage.binary_erosion(brain, iterations=3))
        middle = mm[tuple(rng.choice(inner))]
        lesion = (np.linalg.norm(mm - middle, axis=-1) <= rng.uniform(8, 12)) & brain
        volumes.append(np.where(lesion, 1.5, 1.0) * values / np.quantile(values[brain], 0.95))
        found.append(lesion)
    return np.array(volumes, np.float32)[:, None], np.array(found), affine


def padded_unet(norm: str) -> nn.Module:
    """MONAI's U-Net for volumes of any shape."""
    from monai.networks.nets import UNet

    class AnyShape(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = UNet(
                spatial_dims=3,
                in_channels=1,
                out_channels=2,
                channels=(8, 16, 32),
                strides=(2, 2),
                norm=norm,
            )

        def forward(self, volumes: torch.Tensor) -> torch.Tensor:
            shape = volumes.shape[2:]
            missing = [-n % 4 for n in shape]
            padding = [side for n in reversed(missing) for side in (0, n)]
            x, y, z = shape
            return self.unet(nn.functional.pad(volumes, padding))[..., :x, :y, :z]

    return AnyShape()


def trained(volumes: torch.Tensor, truths: torch.Tensor, norm: str) -> nn.Module:
    from monai.losses import DiceCELoss

    torch.manual_seed(0)
    network = padded_unet(norm)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    for epoch in range(EPOCHS):
        losses = []
        for rows in torch.randperm(len(volumes)).split(BATCH):
            optimizer.zero_grad()
            loss = criterion(network(volumes[rows]), truths[rows, None])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


@torch.no_grad()
def dice(network: nn.Module, volumes: torch.Tensor, truths: np.ndarray) -> list[float]:
    found = torch.cat([network(part).argmax(1) for part in volumes.split(BATCH)]).numpy() == 1
    both = zip(found, truths, strict=True)
    return [float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in both]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=24, help="that are explained")
    parser.add_argument("--norm", choices=("batch", "instance"), default="batch")
    args = parser.parse_args()

    keep_freed_memory()  # as the stages do
    volumes, truths, affine = lesions(N_TRAIN + args.subjects)
    network = trained(
        torch.from_numpy(volumes[:N_TRAIN]), torch.from_numpy(truths[:N_TRAIN]).long(), args.norm
    )
    tested, lesion = volumes[N_TRAIN:], truths[N_TRAIN:]
    overlap = dice(network, torch.from_numpy(tested), lesion)
    print(f"\nDice of the segmentation: mean {np.mean(overlap):.3f}, lowest {min(overlap):.3f}")
    figures: dict[str, Any] = {"dice": float(np.mean(overlap))}
    with_region = [k for k, value in enumerate(overlap) if value > 0]
    print(f"{len(with_region)} of {len(overlap)} lesions are segmented at least in part, and explained")
    figures["explained"] = len(with_region)

    near = [
        ndimage.distance_transform_edt(~lesion[k], np.abs(np.diag(affine)[:3])) <= NEAR_MM
        for k in with_region
    ]
    pairs = zip(near, with_region, strict=True)
    chance = float(np.mean([(one & (tested[k, 0] > 0)).sum() / (tested[k, 0] > 0).sum() for one, k in pairs]))
    print(
        f"\nchance: {chance:.3f}\n\n| method | share within {NEAR_MM:g} mm | 95 % interval |\n|---|---|---|"
    )
    finer = [partial(xb.MeaningfulPerturbation, mask_spacing_voxels=2)]
    for methods, suffix in ((METHODS, ""), (finer, ", nodes every 8 mm instead of 16")):
        maps = xb.explain(
            network,
            [nib.Nifti1Image(tested[k, 0], affine) for k in with_region],
            methods,
            target=xb.SegmentationTarget(1, region="predicted"),
            fill="blur",
            participant_ids=[f"{k:04d}" for k in with_region],
        )
        for method in maps.methods:
            shares = []
            for k, close in zip(with_region, near, strict=True):
                values = np.abs(np.asanyarray(maps.img(f"sub-{k:04d}", method).dataobj))
                if values.any():
                    shares.append(values[close].sum() / values.sum())
            mean, low, high = bootstrap_mean(np.array(shares))
            figures[method + suffix] = {"share": mean, "low": low, "high": high, "n": len(shares)}
            print(f"| {method}{suffix} | {mean:.3f} | {low:.3f} to {high:.3f} |", flush=True)
    print(json.dumps({**figures, "chance": chance}))


if __name__ == "__main__":
    main()
