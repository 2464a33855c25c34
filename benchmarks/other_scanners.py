"""Networks on images of other scanners: candidates are chosen on simulated scanners, then one is tested.

    python benchmarks/other_scanners.py --data /path/to/ixi            # about half an hour on one CPU core
    python benchmarks/other_scanners.py --data /path/to/ixi --second-site /path/to/second_site

The shallow network learns the sex of IXI participants in 5 folds with 3 seeds (volumes of 4 mm). Every image
is then changed as another scanner could, and is predicted by the networks that were not trained on its
participant. The candidate is chosen by the AUROC of two kinds of change (contrast, shading) among candidates
whose cross-validated AUROC is at most .01 below that of the baseline; three other kinds (noise, resolution,
contrast between tissues) are held out. With `--second-site` the baseline and the chosen candidate predict a
cohort of another scanner, once each. AUROCs are means over folds and seeds; intervals are 95 % bootstrap
intervals over participants, paired between candidates. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.cache import default_cache_dir
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import load_img
from xai_brain.models.standardization import use_statistics, volume_statistics
from xai_brain.parallel.progress import track
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.statistics.classification import auroc
from xai_brain.study.training.cross_validation import train_run
from xai_brain.study.training.networks import load_classifier
from xai_brain.study.training.predict_participants import predict_run
from xai_brain.study.training.predict_settings import predict_settings

SEEDS = (0, 1, 2)
COMMON = [
    *("data=bids", "data.entities={desc: brain}", "data.label=sex", "data.class_names=[female,male]"),
    *(
        "preprocessing=t1w_4mm",
        "model=shallow",
        "seeds=[0,1,2]",
        "folds.n_folds=5",
        "folds.random_state=2020",
    ),
    *("trainer.max_epochs=15", "trainer.batch_size=8", "trainer.lr=1e-3", "trainer.weight_decay=0.1"),
    *("trainer.standardize=zscore", "trainer.tensorboard=false"),
]
TRAINED = {  # settings of training
    "z-score": [],
    "percentiles": ["preprocessing.scaling=percentile"],
    "quantiles": ["preprocessing.scaling=quantile"],
    "augmentation": ["augmentation=intensity", "trainer.max_epochs=25"],
    "quantiles, augmentation": [
        *("preprocessing.scaling=quantile", "augmentation=intensity", "trainer.max_epochs=25"),
    ],
}
BASELINE = "z-score"
CANDIDATES = [(name, adapted) for name in TRAINED for adapted in (False, True)]  # adapted: adapt=standardize


# -- simulated scanners: values of a brain from 0 to about 1, and its mask ---------------------------
def contrast(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return values**0.7


def shading(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A smooth field that is brighter on one side and at the top, by up to about 60 %."""
    x, y, z = (np.linspace(-1, 1, n) for n in values.shape)
    field = 0.25 * x[:, None, None] + 0.2 * (z**2)[None, None] - 0.2 * (y**2)[None, :, None]
    return values * np.exp(field)


def noise(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Rician noise with a standard deviation of 8 % of the bright tissue."""
    random = np.random.default_rng(int(inside.sum()))
    real, imaginary = 0.08 * random.standard_normal((2, *values.shape))
    return np.hypot(values + real, imaginary)


def resolution(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Full width at half maximum of 5 mm, of voxels of 2 mm."""
    return ndimage.gaussian_filter(values, 5 / 2 / 2.3548)


def tissues(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Less contrast between grey and white matter, more to the fluid."""
    return values + 0.12 * np.sin(np.pi * np.clip(values, 0, 1))


CHOSEN_BY = {"contrast": contrast, "shading": shading}
HELD_OUT = {"noise": noise, "resolution": resolution, "tissues": tissues}
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def simulated(path: str, change: Change, settings: PreprocessingConfig) -> np.ndarray:
    """Prepared volume of an image after the change; the background stays 0."""
    img = load_img(path)
    data = np.asarray(img.dataobj, np.float32)
    inside = data > 0
    values = change(data / np.percentile(data[inside], 99), inside)
    changed = np.where(inside, np.clip(1000 * values, 1, None), 0).astype(np.float32)
    made = nib.Nifti1Image(changed, img.affine)
    return preprocess_t1w(made, settings, space="MNI152", space_check="warn", path=path).volume


@torch.no_grad()
def predictions(run: RunDirectory, volumes: torch.Tensor, adapted: bool) -> np.ndarray:
    """Out-of-fold probability of the second class, (n_seeds, n); volumes in the order of participants.tsv."""
    ids = read_tsv(run.participants)["participant_id"].tolist()
    table, found = read_tsv(run.predictions), np.full((len(SEEDS), len(ids)), np.nan)
    for (seed, fold), rows in table.groupby(["seed", "fold"]):
        where = [ids.index(each) for each in rows["participant_id"]]
        network = load_classifier(run.checkpoint(fold, seed))
        if adapted:  # by the images of the test fold only
            use_statistics(network, *volume_statistics(iter(volumes[where])))
        found[SEEDS.index(seed), where] = network(volumes[where]).softmax(1)[:, 1].numpy()
    return found


def mean_auroc(
    targets: np.ndarray, p: np.ndarray, folds: np.ndarray, drawn: np.ndarray | None = None
) -> float:
    """Mean over folds and seeds; `drawn` are the numbers of the participants of a bootstrap sample."""
    drawn = np.arange(len(targets)) if drawn is None else drawn
    found = []
    for fold in np.unique(folds):
        own = drawn[folds[drawn] == fold]
        if len(np.unique(targets[own])) == 2:
            found += [auroc(targets[own], np.stack([1 - each[own], each[own]], 1)) for each in p]
    return float(np.mean(found))


def interval(
    targets: np.ndarray, folds: np.ndarray, first: list[np.ndarray], second: list[np.ndarray]
) -> tuple:
    """Mean difference of AUROC over scanners, first minus second, and its paired bootstrap interval."""

    def difference(drawn: np.ndarray | None = None) -> float:
        pairs = zip(first, second, strict=True)
        return float(
            np.mean(
                [
                    mean_auroc(targets, a, folds, drawn) - mean_auroc(targets, b, folds, drawn)
                    for a, b in pairs
                ]
            )
        )

    random = np.random.default_rng(0)
    draws = [difference(random.integers(0, len(targets), len(targets))) for _ in range(500)]
    return difference(), *(float(each) for each in np.percentile(draws, [2.5, 97.5]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of IXI")
    parser.add_argument(
        "--second-site", type=Path, help="cohort of another scanner, for the chosen candidate"
    )
    parser.add_argument("--run-dir", type=Path, default=default_cache_dir() / "benchmarks" / "other_scanners")
    args = parser.parse_args()

    probabilities: dict[tuple[str, bool, str], np.ndarray] = {}
    for name, settings in TRAINED.items():
        folder = args.run_dir / name.replace(", ", "_")
        config = read_config(
            compose("train", [*COMMON, *settings, f"data.root={args.data}", f"run_dir={folder}"])
        )
        run = train_run(config)
        participants = read_tsv(run.participants)
        targets = participants["target"].to_numpy(int)
        fold_of = read_tsv(run.folds).set_index("participant_id")["fold"]
        folds = fold_of.loc[participants["participant_id"]].to_numpy()
        paths = [str(args.data / each) for each in participants["t1w_path"]]
        for scanner, change in {
            "as acquired": lambda values, inside: values,
            **CHOSEN_BY,
            **HELD_OUT,
        }.items():
            kept = (
                args.run_dir / "volumes" / f"{config.preprocessing.scaling}_{scanner.replace(' ', '-')}.npy"
            )
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                make = partial(simulated, change=change, settings=config.preprocessing)
                what = f"{config.preprocessing.scaling}, {scanner}"
                np.save(kept, np.stack([make(path) for path in track(paths, what, "images")]))
            volumes = torch.from_numpy(np.load(kept))[:, None]
            for adapted in (False, True):
                probabilities[name, adapted, scanner] = predictions(run, volumes, adapted)

    scanners = ["as acquired", *CHOSEN_BY, *HELD_OUT]
    table = pd.DataFrame(
        {
            (name, adapted): {
                scanner: mean_auroc(targets, probabilities[name, adapted, scanner], folds)
                for scanner in scanners
            }
            for name, adapted in CANDIDATES
        }
    ).T
    print("\n" + table.round(3).to_string())
    possible = table[table["as acquired"] >= table.loc[(BASELINE, False), "as acquired"] - 0.01]
    name, adapted = possible[list(CHOSEN_BY)].mean(axis=1).idxmax()
    chosen = (str(name), bool(adapted))
    results = {
        "auroc": {f"{name}{', adapted' * adapted}": dict(row) for (name, adapted), row in table.iterrows()}
    }
    print(f"\nChosen by {', '.join(CHOSEN_BY)}: {chosen[0]}{', adapted' * chosen[1]}")
    for what, names in {"as acquired": ["as acquired"], "held out": list(HELD_OUT)}.items():
        several = [[probabilities[*which, each] for each in names] for which in (chosen, (BASELINE, False))]
        results[what] = interval(targets, folds, *several)
        print(
            f"{what}: AUROC, chosen - baseline {results[what][0]:+.3f} "
            f"({results[what][1]:+.3f} to {results[what][2]:+.3f})"
        )
    if args.second_site:
        results["second site"] = second_site(args.run_dir, args.second_site, chosen)
    print(json.dumps(results))


def second_site(runs: Path, root: Path, chosen: tuple[str, bool]) -> dict[str, list[float]]:
    """AUROC of the ensembles of the baseline and of the chosen candidate, and their paired difference."""
    found = {}
    for what, (name, adapted) in {"baseline": (BASELINE, False), "chosen": chosen}.items():
        settings = [
            *(f"networks={runs / name.replace(', ', '_')}", "data=bids", f"data.root={root}"),
            *("data.entities={desc: brain}", f"run_dir={runs / 'second_site' / what}"),
        ]
        table = read_tsv(
            predict_run(predict_settings(settings + ["adapt=standardize"] * adapted)).predictions
        )
        found[what] = table["prob_male"].to_numpy()[None]
        print(table[["intensity_p", "features_p"]].describe().round(3).to_string())
    targets, one = table["target"].to_numpy(int), np.zeros(len(table), int)
    difference = interval(targets, one, [found["chosen"]], [found["baseline"]])
    figures = {what: mean_auroc(targets, p, one) for what, p in found.items()}
    print(f"second site, {len(table)} participants: {figures}, difference {difference}")
    return {**figures, "difference": difference}


if __name__ == "__main__":
    main()
