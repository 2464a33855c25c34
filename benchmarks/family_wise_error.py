"""Family-wise error of corrected thresholds, and their power on a planted effect.

    python benchmarks/family_wise_error.py        # embedded cohort, about an hour on one CPU core
    python benchmarks/family_wise_error.py --settings data=ixi data.root=<folder> model=shallow

Networks are trained on 39 permutations of the labels, which give the threshold, and on 40 further ones, whose
maps are compared with it: they are maps of networks that have learned nothing. The error is the share of
participants with a voxel above the threshold, averaged over the further networks, with a bootstrap interval
over these networks at the level 1 - 0.05 / number of methods. Then the networks of the true labels are
compared with the threshold. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from cohorts import LEFT_MM

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.data.cache import default_cache_dir
from xai_brain.runs.directory import read_tsv
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.explanation.missing_maps import explain_run
from xai_brain.study.thresholds.statistic import STATISTICS, corrected_threshold
from xai_brain.study.thresholds.thresholds import null_statistics, threshold_run
from xai_brain.study.training.cross_validation import train_run

COHORT = [
    *("data=synthetic", "data.cohort.n_subjects=96", "data.cohort.effect_radius_mm=22"),
    *("data.cohort.effect_intensity_change=0.35", "data.cohort.effect_volume_change=0.0"),
    f"data.cohort.effect_center_mm={LEFT_MM}",
    *("preprocessing=t1w_4mm", "model=shallow", "folds.n_folds=3", "trainer.batch_size=8"),
    *("trainer.standardize=zscore", "trainer.weight_decay=0.1", "trainer.tensorboard=false"),
]
METHODS = [
    *("saliency", "input_x_gradient", "integrated_gradients", "guided_backprop", "grad_cam", "lrp"),
    *("meaningful_perturbation_quick", "random_map"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=COHORT, help="of the run, as for xai-brain train")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="files of conf/attribution")
    parser.add_argument("--n-perm", type=int, default=39)
    parser.add_argument("--further", type=int, default=40)
    parser.add_argument("--n-participants", type=int, default=20)
    parser.add_argument(
        "--run-dir", type=Path, default=default_cache_dir() / "benchmarks" / "family_wise_error"
    )
    args = parser.parse_args()

    own = [f"run_dir={args.run_dir}", f"attribution=[{','.join(args.methods)}]"]
    config = read_config(compose("run", [*args.settings, *own]))
    of_threshold = replace(
        config.evaluation.threshold, n_perm=args.n_perm, n_participants=args.n_participants
    )
    of_all = replace(of_threshold, n_perm=args.n_perm + args.further)
    run = train_run(config)
    explain_run(config)
    config.evaluation.threshold = of_all
    threshold_run(config)
    null = {method: null_statistics(config, run, method) for method in config.attribution}
    config.evaluation.threshold = of_threshold
    threshold_run(config)

    results, level = {}, 1 - 0.05 / len(null)
    print("\n| method | statistic | threshold | error | interval over networks |\n|---|---|---|---|---|")
    for method, tables in null.items():
        for statistic in STATISTICS:
            values = [table[statistic].to_numpy(float) for table in tables]
            threshold = corrected_threshold(values[: args.n_perm], of_threshold.alpha)
            errors = np.array([(each > threshold).mean() for each in values[args.n_perm :]])
            error, low, high = bootstrap_mean(errors, 10_000, level=level)
            print(f"| {method} | {statistic} | {threshold:.3g} | {error:.3f} | {low:.3f} to {high:.3f} |")
            results[f"{method} {statistic}"] = {"error": error, "low": low, "high": high}
    table = read_tsv(run.evaluation("thresholds")).dropna(subset="share")
    columns = ["method", "threshold", "share", "hit", "hit_ci_low", "hit_ci_high", "precision"]
    print("\nNetworks of the true labels\n" + table[columns].round(3).to_string(index=False))
    print(json.dumps({"error": results, "power": json.loads(table.to_json(orient="records"))}))


if __name__ == "__main__":
    main()
