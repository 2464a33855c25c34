"""Methods for transformers on an effect whose place is known.

    pip install monai einops                      # brings MONAI's transformers
    python benchmarks/transformers.py             # about fifteen minutes on one CPU core
    python benchmarks/transformers.py --subjects 24

A small 3-D vision transformer is trained on the embedded cohort with a strong effect of intensity in the left
temporal lobe. Every method explains the predicted class of participants of the test fold. The relevance rank
accuracy (RRA) is the share of true voxels among the highest ones, as many as there are true voxels; it is the
share of true voxels in the brain by chance. Intervals are 95 % bootstrap intervals over participants. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from cohorts import PLANTED, TrainedFold, planted, trained_fold
from planted_effects import predicted, rra

import xai_brain.attribution as xa
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.statistics.bootstrap import bootstrap_mean

NETWORK = [
    "model=custom",
    "model._target_=volume_transformer.VolumeTransformer",
    "trusted_modules=[volume_transformer]",
    "trainer.max_epochs=20",
    "trainer.batch_size=8",
    "trainer.lr=1e-3",
]
ATTENTION = ("AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP")


def methods(fold: TrainedFold) -> dict[str, Any]:
    """Methods that explain a transformer, on the output that they explain by default."""
    logit, probability = (xa.ClassScore(fold.classifier, output) for output in ("logit", "probability"))
    return {
        **{name: getattr(xa, name)(logit) for name in ATTENTION},
        "Saliency": xa.Saliency(logit),
        "InputXGradient": xa.InputXGradient(logit),
        "IntegratedGradients": xa.IntegratedGradients(logit, fold.reference),
        "SmoothGrad": xa.SmoothGrad(logit, fold.reference),
        "GradCAM": xa.GradCAM(logit),
        "Occlusion": xa.Occlusion(logit, fold.reference),
        "MeaningfulPerturbation": xa.MeaningfulPerturbation(probability, fold.reference),
        "RandomMap": xa.RandomMap(logit),
        "TMap": xa.TMap(logit, fold.reference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=48, help="of the test fold")
    args = parser.parse_args()

    keep_freed_memory()  # as the stages do
    own = [
        setting for setting in PLANTED if setting.startswith(("data=", "preprocessing=", "trainer.tensor"))
    ]
    cohort = [setting for setting in planted("intensity", 22) if setting.startswith("data.cohort")]
    fold = trained_fold("transformer", [*own, *cohort, *NETWORK])
    print(f"accuracy in the test fold: {fold.accuracy:.3f} of {len(fold.test)} participants")
    fold = fold.last(args.subjects)
    inputs = fold.volumes()
    n = len(inputs)
    truths, brains, targets = fold.truths(n), fold.brain_masks(n), predicted(fold, inputs)
    chance = float(np.mean([truth[brain].mean() for truth, brain in zip(truths, brains, strict=True)]))
    results: dict[str, Any] = {}
    print(f"\nchance: {chance:.4f}\n\n| method | RRA | 95 % interval | times chance |\n|---|---|---|---|")
    for name, method in methods(fold).items():
        explain: Callable[..., torch.Tensor] = method.attribute
        scores = rra(explain(inputs, targets), truths, brains)
        mean, low, high = bootstrap_mean(scores)
        results[name] = {"rra": mean, "low": low, "high": high, "times_chance": mean / chance}
        print(f"| {name} | {mean:.3f} | {low:.3f} to {high:.3f} | {mean / chance:.1f} |", flush=True)
    best = max(ATTENTION, key=lambda name: results[name]["rra"])
    passed = fold.accuracy >= 0.9 and results[best]["times_chance"] >= 5
    figures = {"accuracy": fold.accuracy, "chance": chance, "best": best, "passed": passed, **results}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
