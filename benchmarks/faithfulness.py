"""Deletion and insertion: their time against that of the forward passes they need.

    python benchmarks/faithfulness.py                # 32 subjects: 1,280 forward passes a side
    python benchmarks/faithfulness.py --subjects 4

The paper's network with random weights on its 58x70x58 grid. Both sides work in turns of eight subjects, as a
stage would give them, so that what else the machine does hits both alike. The last line is JSON:
``overhead_ratio`` against passes through the network as it is, ``overhead_ratio_same_network`` against passes
through the fused copy that the metric itself uses.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import torch

from xai_brain.attribution import ClassScore
from xai_brain.attribution.perturbation.eval_copy import eval_copy
from xai_brain.io.nifti import template_brain_mask
from xai_brain.metrics.deletion_insertion import deletion_insertion, removal_baselines
from xai_brain.models.calibrated import channels_last
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.parallel.memory import keep_freed_memory

N_STEPS = 20
BATCH = 8  # as many volumes at once as the metric takes on CPUs
TURN = 8  # subjects


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=32)
    args = parser.parse_args()

    keep_freed_memory()  # as the stages do
    torch.manual_seed(0)
    brain_mask = template_brain_mask("t1w_58x70x58")
    volumes = torch.randn(args.subjects, 1, *brain_mask.shape) * torch.from_numpy(brain_mask)
    maps = torch.randn_like(volumes)
    model = ClassScore(channels_last(Kan2020()).eval(), "probability")
    fused = eval_copy(model, volumes)
    target = torch.zeros(1, dtype=torch.long)

    @torch.no_grad()
    def passes(network: torch.nn.Module, part: torch.Tensor) -> None:
        for volume in part:
            for _ in range(2 * N_STEPS // BATCH):
                network(volume.expand(BATCH, -1, -1, -1, -1))

    def compute_metric(part: torch.Tensor, its_maps: torch.Tensor) -> None:
        zero = removal_baselines("zero", part)
        deletion_insertion(model, part, zero, its_maps, target.expand(len(part)), brain_mask, N_STEPS)

    compute_metric(volumes[:1], maps[:1])  # warm up
    seconds = {"metric": 0.0, "model": 0.0, "fused": 0.0}
    for part, its_maps in zip(volumes.split(TURN), maps.split(TURN), strict=True):
        sides = {
            "metric": partial(compute_metric, part, its_maps),
            "model": partial(passes, model, part),
            "fused": partial(passes, fused, part),
        }
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name] += time.perf_counter() - start
    for name, value in seconds.items():
        print(f"{name:6s} {value:8.2f} s for {args.subjects} subjects")
    figures = {
        "n_subjects": args.subjects,
        "n_forward_passes": 2 * N_STEPS * args.subjects,
        "threads": torch.get_num_threads(),
        "overhead_ratio": seconds["metric"] / seconds["model"],
        "overhead_ratio_same_network": seconds["metric"] / seconds["fused"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
