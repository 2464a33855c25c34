"""Augmentation: its share of a training step, and what it does to the AUROC.

    python benchmarks/augmentation.py                      # share of the step
    python benchmarks/augmentation.py --data /path/to/ixi  # and AUROC on IXI: an hour

The paper's network at 58x70x58, batches of 8, 2 threads; steps with and without alternate, the median of each
counts. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from xai_brain import compose
from xai_brain.data.augmentation import Augmentation
from xai_brain.data.cache import default_cache_dir
from xai_brain.io.nifti import get_grid, template_brain_mask
from xai_brain.models.calibrated import channels_last
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.runs.directory import read_json
from xai_brain.stages.train import train

GRID, BATCH_SIZE, THREADS = "t1w_58x70x58", 8, 2


def augmentation(choice: str) -> Augmentation:
    cfg = compose("train", ["data=synthetic", f"augmentation={choice}", "augmentation.flip_probability=0.5"])
    return Augmentation(**cfg.augmentation, voxel_size_mm=tuple(get_grid(GRID).spacing_mm))


def volumes() -> torch.Tensor:
    """Noise in the brain of the template, 0 outside."""
    brain = torch.from_numpy(template_brain_mask(GRID))
    noise = torch.randn(BATCH_SIZE, 1, *brain.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(brain, noise, 0)


def share(n_steps: int) -> float:
    """Median time of augmentation as a share of the median step that it is part of."""
    torch.manual_seed(0)
    network = channels_last(Kan2020()).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    inputs, targets = volumes(), torch.arange(BATCH_SIZE) % 2
    augment = augmentation("full")
    seconds: dict[str, list[float]] = {"without": [], "with": [], "augmentation alone": []}
    for step in range(n_steps + 2):
        for kind in ("without", "with"):
            start = time.perf_counter()
            batch = augment(inputs) if kind == "with" else inputs
            augmented = time.perf_counter()
            loss = torch.nn.functional.cross_entropy(network(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step < 2:  # warm-up
                continue
            seconds[kind].append(time.perf_counter() - start)
            if kind == "with":
                seconds["augmentation alone"].append(augmented - start)
    medians = {kind: float(np.median(values)) for kind, values in seconds.items()}
    for kind, values in seconds.items():
        print(f"{kind}: {medians[kind]:.3f} s, {min(values):.3f} to {max(values):.3f} ({n_steps} steps)")
    return medians["augmentation alone"] / medians["with"]


def aurocs(data: str) -> dict[str, float]:
    """Mean AUROC over the 5 folds of IXI with the settings of experiment=ixi_sex, one seed."""
    found = {}
    for choice in ("none", "full"):
        run_dir = default_cache_dir() / "benchmarks" / f"augmentation_{choice}"
        settings = ["experiment=ixi_sex", f"data.root={data}", f"augmentation={choice}", "seeds=[0]"]
        metrics = read_json(train(compose("train", [*settings, f"run_dir={run_dir}"])).metrics)
        low, high = metrics["test/auroc_ci_low"], metrics["test/auroc_ci_high"]
        print(f"augmentation={choice}: AUROC {metrics['test/auroc']:.3f}, 95 % CI {low:.3f} to {high:.3f}")
        found[f"auroc_{choice}"] = round(metrics["test/auroc"], 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of the IXI cohort")
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    result = {"augmentation_share": round(share(args.steps), 4)}
    if args.data:
        result |= aurocs(args.data)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
