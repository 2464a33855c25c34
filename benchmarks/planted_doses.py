"""Methods on networks that predict the strength of a planted effect, with true and with permuted doses.

    python benchmarks/planted_doses.py            # about 25 minutes on one CPU core
    python benchmarks/planted_doses.py --methods saliency meaningful_perturbation_quick --n-perm 2

The run is that of `experiment=dose`: the correct location of every map is known. Networks are then trained on
permuted doses of the same images, and participants of a test fold are explained with the same methods: the
relevance rank accuracy (RRA) of these maps is the level of a method without any information about the
dose. Intervals are 95 % bootstrap intervals, over participants for the true doses and over permutations for
the permuted ones. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.schema import Config
from xai_brain.data.cache import default_cache_dir
from xai_brain.data.folds.splits import split_fold
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.metrics.localization import localization
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.explanation.batches import build_reference
from xai_brain.study.explanation.configured_methods import build_method
from xai_brain.study.explanation.missing_maps import explain_run
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.training.cross_validation import train_run
from xai_brain.study.training.permuted import permuted_cohort, permuted_network

METHODS = [
    *("saliency", "integrated_gradients", "meaningful_perturbation", "meaningful_perturbation_quick"),
    *("opposite_difference", "correlation_map", "random_map"),
]


def permuted_accuracies(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, number: int, n_participants: int
) -> pd.DataFrame:
    """RRA of every method (columns) for participants of the first fold of one permutation (rows)."""
    permuted, folds = permuted_cohort(config, cohort, number), read_tsv(run.folds)
    network = permuted_network(config, run, cohort, number, 0, 0).load(config)
    parts = split_fold(permuted, folds, 0, config.folds.validation_fraction, config.folds.random_state)
    reference = build_reference(parts["train"], network.task, 64, get_grid(config.preprocessing.grid))
    test = parts["test"].iloc[:n_participants]
    volumes = torch.from_numpy(np.stack([np.load(path) for path in test["volume_path"]]))[:, None]
    found = {}
    for label in config.attribution:
        method = build_method(config, label, network, reference)[0]
        maps = method.attribute(volumes, torch.zeros(len(test), dtype=torch.long))[:, 0].detach().numpy()
        found[label] = [
            localization(each, np.asarray(load_img(truth).dataobj) > 0, np.load(brain))["rra"]
            for each, truth, brain in zip(maps, test["truth_path"], test["volume_mask_path"], strict=True)
        ]
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS, help="files of conf/attribution")
    parser.add_argument("--n-perm", type=int, default=10)
    parser.add_argument("--subjects", type=int, default=20, help="of each permutation")
    parser.add_argument("--run-dir", type=Path, default=default_cache_dir() / "benchmarks" / "planted_doses")
    args = parser.parse_args()
    config = read_config(
        compose(
            "run",
            ["experiment=dose", f"run_dir={args.run_dir}", f"attribution=[{','.join(args.methods)}]"],
        )
    )
    run = train_run(config)
    explain_run(config)
    evaluate(compose("evaluate", [f"run_dir={args.run_dir}", "evaluation.group.enabled=false"]))
    scores = json.loads((run.path / "metrics.json").read_text())
    print(f"\nPearson r, mean over folds {scores['test/pearson_r']:.3f}, MAE {scores['test/mae']:.3f}")

    cohort = prepared_cohort(config, run)
    null = pd.concat(
        [
            permuted_accuracies(config, run, cohort, number, args.subjects).assign(permutation=number)
            for number in range(1, args.n_perm + 1)
        ]
    )
    true = read_tsv(run.evaluation("localization")).pivot_table(
        index="participant_id", columns="method", values="rra"
    )
    chance = float(read_tsv(run.evaluation("localization"))["chance"].mean())
    print(
        f"\nRelevance rank accuracy, chance {chance:.3f}\n"
        "\n| method | true doses | permuted doses |\n|---|---|---|"
    )
    results = {}
    for label in config.attribution:
        found = bootstrap_mean(true[label].to_numpy(), 10_000)
        permuted = bootstrap_mean(null.groupby("permutation")[label].mean().to_numpy(), 10_000)
        print(
            "| "
            + " | ".join([label, *(f"{v:.3f} ({a:.3f} to {b:.3f})" for v, a, b in (found, permuted))])
            + " |"
        )
        results[label] = {"true": found, "permuted": permuted}
    print(json.dumps({"chance": chance, "rra": results}))


if __name__ == "__main__":
    main()
