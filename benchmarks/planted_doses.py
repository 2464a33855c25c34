"""Methods on networks that predict the strength of a planted effect, with true and with permuted doses.

    python benchmarks/planted_doses.py            # about 25 minutes on one CPU core
    python benchmarks/planted_doses.py --methods saliency random_map --n-perm 2

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

from xai_brain import open_study
from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.schema import Config
from xai_brain.data.cache import default_cache_dir
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.metrics.localization import localization
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.explanation.batches import build_reference
from xai_brain.study.explanation.configured_methods import build_method
from xai_brain.study.explanation.missing_maps import explain_run
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.training.cross_validation import train_run
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.study.training.permuted import permuted_cohort, permuted_network

METHODS = [
    *("saliency", "integrated_gradients", "meaningful_perturbation", "opposite_difference"),
    *("correlation_map", "random_map"),
]


def permuted_accuracies(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, number: int, n_participants: int
) -> pd.DataFrame:
    """RRA of every method (columns) for participants of the first fold of one permutation (rows)."""
    permuted, folds = permuted_cohort(config, cohort, number), read_tsv(run.folds)
    network = permuted_network(config, run, cohort, number, 0, 0).load(config)
    parts = split_prepared_fold(config, permuted, folds, 0)
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
    study = open_study(run.path)
    scores = study.scores.set_index("metric")
    r, mae = (scores.loc[name, "value"] for name in ("pearson_r", "mae"))
    print(f"\nPearson r, mean over folds {r:.3f}, MAE {mae:.3f}")
    found = study.maps.localization().query("metric == 'rra'").set_index("method")

    cohort = prepared_cohort(config, run)
    numbers = range(1, args.n_perm + 1)
    means = [permuted_accuracies(config, run, cohort, n, args.subjects).mean() for n in numbers]
    print("\n| method | RRA, true doses | RRA, permuted doses |\n|---|---|---|")
    results = {}
    for label, of_permutations in pd.DataFrame(means).items():
        true = tuple(float(x) for x in found.loc[label, ["mean", "ci_low", "ci_high"]])
        permuted = bootstrap_mean(of_permutations.to_numpy(), 10_000)
        cells = [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in (true, permuted)]
        print(f"| {label} | {' | '.join(cells)} |")
        results[label] = {"true": true, "permuted": permuted}
    print(json.dumps({"chance": float(found["chance"].mean()), "rra": results}))


if __name__ == "__main__":
    main()
