"""Which channel a map names, on a cohort of two channels with an effect in one of them.

    python benchmarks/channels.py                     # about ten minutes on one CPU core
    python benchmarks/channels.py --subjects 8

The first channel is the embedded cohort with an effect of intensity in the left temporal lobe. The second
shows the same heads without the effect, with inverted contrast and noise of its own. A network with two
channels is trained on 192 participants and explained on others. Printed are the accuracy on the other
participants when a channel is replaced (by the mean of the training images, or by that of another
participant), the share of each channel in the maps, and the relevance rank accuracy (RRA) of the sum over
channels. Intervals are 95 % bootstrap intervals over participants. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from itertools import pairwise
from typing import Any

import nibabel as nib
import numpy as np
import torch
from cohorts import LEFT_MM
from torch import nn

import xai_brain as xb
from xai_brain.io.nifti import load_img
from xai_brain.metrics.localization import localization
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.statistics.bootstrap import bootstrap_mean

N_TRAIN, EPOCHS, BATCH = 192, 12, 8
CHANNELS = ("effect", "none")
METHODS: list[Any] = [
    "Saliency",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "GuidedBackprop",
    "DeepLift",
    "LRP",
    partial(xb.MeaningfulPerturbation, share_mask=False),
    "RandomMap",
]


def two_channels(n_subjects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Volumes (N, 2, X, Y, Z), classes (N,), affine and true voxels (N, X, Y, Z)."""
    size = {"effect_center_mm": LEFT_MM, "effect_radius_mm": 22.0, "effect_volume_change": 0.0}
    with_effect, without = (
        xb.load_cohort(
            "synthetic", n_subjects=n_subjects, grid="t1w_4mm", **size, effect_intensity_change=change
        )
        for change in (0.35, 0.0)
    )
    rng = np.random.default_rng(0)
    volumes = []
    for first, second in zip(with_effect.table["t1w_path"], without.table["t1w_path"], strict=True):
        t1, other = (np.asanyarray(load_img(path).dataobj) for path in (first, second))
        brain = other > 0
        t1, other = (values / np.quantile(values[brain], 0.95) for values in (t1, other))
        noise = 0.03 * rng.standard_normal(other.shape)
        volumes.append(np.stack([t1, np.where(brain, 1.5 - other + noise, 0)]))
    truths = [np.asanyarray(load_img(path).dataobj) > 0 for path in with_effect.table["truth_path"]]
    affine = load_img(with_effect.table["t1w_path"].iloc[0]).affine
    classes = with_effect.table["target"].to_numpy()
    return np.array(volumes, np.float32), classes, affine, np.array(truths)


def trained(volumes: torch.Tensor, classes: torch.Tensor) -> nn.Module:
    """A convolutional network with two channels and three blocks."""
    torch.manual_seed(0)
    sizes = (2, 8, 16, 32)
    blocks: list[nn.Module] = []
    for before, after in pairwise(sizes):
        conv = nn.Conv3d(before, after, 3, padding=1)
        blocks += [conv, nn.BatchNorm3d(after), nn.ReLU(), nn.MaxPool3d(2)]
    n_places = int(np.prod([n // 2 ** (len(sizes) - 1) for n in volumes.shape[2:]]))
    head = nn.Linear(sizes[-1] * n_places, 2)
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(0.5), head)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(volumes)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(volumes[rows]), classes[rows]).backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, volumes: torch.Tensor, classes: torch.Tensor) -> float:
    return float((network(volumes).argmax(1) == classes).float().mean())


def replaced(network: nn.Module, train: torch.Tensor, test: torch.Tensor, classes: torch.Tensor) -> Any:
    """Accuracy when one channel is replaced."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(test)))
    found: dict[str, Any] = {"unchanged": accuracy(network, test, classes)}
    for k, name in enumerate(CHANNELS):
        for what, values in (("mean", train[:, k].mean(0)), ("another participant", test[order, k])):
            changed = test.clone()
            changed[:, k] = values
            found[f"{name}: {what}"] = accuracy(network, changed, classes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=32, help="that are explained")
    parser.add_argument("--cohort", type=int, default=288)
    parser.add_argument("--masks-only", action="store_true", help="no other methods")
    parser.add_argument(
        "--first", action="store_true", help="explain others: those on whom settings are chosen"
    )
    args = parser.parse_args()

    keep_freed_memory()  # as the stages do
    volumes, classes, affine, truths = two_channels(args.cohort)
    train, test = torch.from_numpy(volumes[:N_TRAIN]), torch.from_numpy(volumes[N_TRAIN:])
    labels = torch.tensor(classes)
    network = trained(train, labels[:N_TRAIN])
    figures: dict[str, Any] = {"accuracy": replaced(network, train, test, labels[N_TRAIN:])}
    print("\n| channel replaced | accuracy |\n|---|---|")
    for name, value in figures["accuracy"].items():
        print(f"| {name} | {value:.3f} |")

    rows = slice(args.subjects) if args.first else slice(-args.subjects, None)
    images, pairs = (
        [[nib.Nifti1Image(channel, affine) for channel in each] for each in part.numpy()]
        for part in (test[rows], train)
    )
    print("\n| method | share of the channel with the effect | RRA of the sum | chance |\n|---|---|---|---|")
    masks = [method for method in METHODS if isinstance(method, partial)]
    shorter = [partial(xb.MeaningfulPerturbation, share_mask=False, n_iter=20)]
    known = list(zip(truths[N_TRAIN:][rows], volumes[N_TRAIN:][rows, 0] > 0, strict=True))
    chance = float(np.mean([(truth & brain).sum() / brain.sum() for truth, brain in known]))
    for methods, suffix in ((masks if args.masks_only else METHODS, ""), (shorter, ", n_iter=20")):
        maps = xb.explain(
            network, images, methods, reference=(pairs, classes[:N_TRAIN].tolist()), channel_names=CHANNELS
        )
        shares = maps.channel_shares()
        shares = shares[shares["channel"] == CHANNELS[0]].set_index("method")
        for method in maps.methods:
            rra = [
                localization(np.asanyarray(maps.img(who, method).dataobj), truth & brain, brain)["rra"]
                for who, (truth, brain) in zip(maps.participants, known, strict=True)
            ]
            row, (mean, low, high) = shares.loc[method], bootstrap_mean(np.array(rra))
            share = f"{row['mean']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f}, n = {row['n']})"
            shown = f"| {method}{suffix} | {share} | {mean:.3f} ({low:.3f} to {high:.3f}) | {chance:.3f} |"
            print(shown, flush=True)
            of_method = {"share": row["mean"], "low": row["ci_low"], "high": row["ci_high"], "rra": mean}
            figures[method + suffix] = of_method
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
