"""Meaningful Perturbation: time and quality against the published algorithm, and against the truth.

    python benchmarks/meaningful_perturbation.py --data /path/to/ixi   # hours: the published masks are slow
    python benchmarks/meaningful_perturbation.py --quick              # speed only

Without ``--data`` the embedded cohort replaces IXI, on the same grid. Networks and the published masks are
kept in the cache ($XAI_BRAIN_CACHE) and made only once; times are always taken in the run that prints them.

The plain implementation of the published algorithm would take an hour for the masks of eight subjects. Its
quality is therefore measured on the masks of the preset `kan2020`, which are the same: the run prints the
correlation with the plain implementation over the first iterations of one subject, and the tests compare both
with a map of the published code. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import TrainedFold, preset, trained_fold
from planted_effects import planted_part
from published import (
    PublishedNetwork,
    box_blur,
    published_objective,
    published_perturbation,
    published_shifts,
)
from turns import in_turns, ratio, seconds_of, show

from xai_brain.attribution import ClassScore
from xai_brain.data.cache import default_cache_dir
from xai_brain.metrics.deletion_insertion import area_under, deletion_insertion
from xai_brain.metrics.localization import ranked
from xai_brain.parallel.memory import keep_freed_memory

TIMED_ITERATIONS = 10  # of the 300 of the published algorithm
AREAS = (0.01, 0.05, 0.10)
PRESETS = {
    "kan2020": ("kan2020", "Kan2020Perturbation"),
    "kan2020_fast": ("kan2020_fast", "Kan2020FastPerturbation"),
    "default": ("meaningful_perturbation", "MeaningfulPerturbation"),
}


def cohort(data: str | None) -> TrainedFold:
    """First fold of IXI, else of the embedded cohort at the same grid; the paper's network."""
    if data:
        settings = ["experiment=ixi_sex", f"data.root={data}", "seeds=[0]", "explain.seeds=null"]
        return trained_fold("ixi_" + hashlib.sha256(data.encode()).hexdigest()[:6], settings)
    return trained_fold(
        "stand_in", ["data=synthetic", "data.cohort.grid=t1w_58x70x58", "trainer.max_epochs=5"]
    )


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def published_masks(
    fold: TrainedFold, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Map and applied mask of the full published algorithm, by the preset; kept in the cache."""
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in fold.classifier.parameters())
    maps = []
    for i in range(len(inputs)):
        key = hashlib.sha256(weights + inputs[i].numpy().tobytes()).hexdigest()[:16]
        path = default_cache_dir() / "benchmarks" / f"kan2020_{key}.pt"
        if not path.exists():
            print(f"published masks, subject {i + 1}/{len(inputs)}", flush=True)
            made = preset(*PRESETS["kan2020"], fold).attribute(inputs[i : i + 1], targets[i : i + 1])
            torch.save(made, path)
        maps.append(torch.load(path, weights_only=True))
    together = torch.cat(maps)
    return together, box_blur(1 - together)


def same_algorithm(
    fold: TrainedFold, network: PublishedNetwork, x: torch.Tensor, target: int, n_iter: int
) -> float:
    """Pearson correlation of the map of the preset with that of the plain implementation."""
    shifts = published_shifts(n_iter, 3)
    first_kept = n_iter - n_iter // 3
    plain, _ = published_perturbation(network, x, target, shifts, first_kept)
    settings = {"shifts": shifts.numpy(), "first_kept_iteration": first_kept}
    made = preset(*PRESETS["kan2020"], fold, **settings).attribute(x, target)
    return float(np.corrcoef(plain.numpy().ravel(), made.numpy().ravel())[0, 1])


def quality(
    fold: TrainedFold,
    network: PublishedNetwork,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    maps: torch.Tensor,
    applied: torch.Tensor,
) -> tuple[dict[str, float], list[float]]:
    """Means over subjects, and the published objective of each.

    The means: published objective, probability at fixed areas, deletion and insertion AUC.
    """
    model = ClassScore(fold.classifier, "probability")
    blurred = box_blur(inputs)
    brain = fold.reference.brain_mask.numpy()
    objective = [
        published_objective(network, inputs[i : i + 1], maps[i : i + 1], applied[i : i + 1], int(targets[i]))
        for i in range(len(inputs))
    ]
    curves = deletion_insertion(model, inputs, blurred, maps, targets, brain)
    fine = deletion_insertion(model, inputs, blurred, maps, targets, brain, n_steps=100)["deletion"]
    means = {
        "objective": float(np.mean(objective)),
        **{f"p_at_{area:.0%}": float(fine[:, round(100 * area)].mean()) for area in AREAS},
        "deletion_auc": float(area_under(curves["deletion"]).mean()),
        "insertion_auc": float(area_under(curves["insertion"]).mean()),
        "area": float(maps.abs().mean()),
    }
    return means, objective


def top_dice(a: torch.Tensor, b: torch.Tensor, brain: np.ndarray, share: float = 0.05) -> float:
    """Dice of the highest voxels of the brain, mean over subjects."""
    values = []
    for one, other in zip(a, b, strict=True):
        k = round(share * brain.sum())
        first, second = ranked(one[0].numpy()[brain])[:k], ranked(other[0].numpy()[brain])[:k]
        values.append(len(np.intersect1d(first, second)) / k)
    return float(np.mean(values))


def peak_rss_mb(method: str, n_subjects: int, data: str | None) -> float:
    """Of a process of its own that makes masks of so many subjects, 3 iterations each (Linux)."""
    command = [sys.executable, __file__, "--memory", method, str(n_subjects)]
    command += ["--data", data] if data else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_memory(method: str, n_subjects: int, data: str | None) -> None:
    fold = cohort(data)
    volumes = fold.volumes()
    inputs = volumes[torch.arange(n_subjects) % len(volumes)]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the cohort
    if method == "published":
        published_perturbation(PublishedNetwork(fold.classifier), inputs[:1], 0, published_shifts(), stop=3)
    else:
        keep_freed_memory()
        few = {"n_iter": 3} | ({"first_kept_iteration": 0} if method == "kan2020" else {})
        preset(*PRESETS[method], fold, **few).attribute(inputs, 0)
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def seconds_per_subject(
    fold: TrainedFold, network: PublishedNetwork, inputs: torch.Tensor, targets: torch.Tensor, n_turns: int
) -> dict[str, list[float]]:
    """Seconds for one subject of every way, once per turn; the ways take turns, each turn another subject.

    The published algorithm is timed on its first iterations, which cost as much as all others: the plain
    implementation and the preset do the same ones for the same subject. The other ways explain the batch.
    """
    turn = iter(k // 2 for k in range(2 * (n_turns + 1)))  # both ways of a turn have the same subject
    shifts = published_shifts()

    def one_subject() -> tuple[torch.Tensor, int]:
        i = next(turn) % len(inputs)
        return inputs[i : i + 1], int(targets[i])

    def plain() -> dict[str, Any]:
        x, target = one_subject()
        _, spent = timed(lambda: published_perturbation(network, x, target, shifts, stop=TIMED_ITERATIONS))
        return {"seconds": spent / TIMED_ITERATIONS * len(shifts)}

    def batched() -> dict[str, Any]:
        x, target = one_subject()
        settings = {"shifts": shifts[:TIMED_ITERATIONS].numpy(), "first_kept_iteration": 0}
        method = preset(*PRESETS["kan2020"], fold, **settings)
        _, spent = timed(lambda: method.attribute(x, target))
        return {"seconds": spent / TIMED_ITERATIONS * len(shifts)}

    def together(name: str) -> dict[str, Any]:
        method = preset(*PRESETS[name], fold)
        _, spent = timed(lambda: method.attribute(inputs, targets))
        return {"seconds": spent / len(inputs)}

    ways = {
        "published": plain,
        "kan2020": batched,
        "kan2020_fast": lambda: together("kan2020_fast"),
        "default": lambda: together("default"),
    }
    return seconds_of(in_turns(ways, n_turns))


def speed_part(args: argparse.Namespace) -> dict[str, Any]:
    """IXI: the published algorithm against the presets, the same subjects, one run."""
    fold = cohort(args.data)
    n = 1 if args.quick else args.subjects
    inputs = fold.volumes(n)
    with torch.no_grad():
        targets = fold.classifier(inputs).argmax(1)
    network = PublishedNetwork(fold.classifier)
    print(
        f"\nnetwork: test accuracy {fold.accuracy:.3f}; {n} test subjects, {torch.get_num_threads()} threads"
    )
    keep_freed_memory()  # as the explain stage does
    seconds = seconds_per_subject(fold, network, inputs, targets, 1 if args.quick else args.turns)
    show("one subject", seconds)
    fast, default = (preset(*PRESETS[name], fold) for name in ("kan2020_fast", "default"))
    passes = {"published": 3000, "kan2020": 3000}
    passes |= {"kan2020_fast": fast.n_iter * fast.n_shifts, "default": default.n_iter * default.n_shifts}
    keys: dict[str, Any] = {
        "n_subjects": n,
        "timed_iterations": TIMED_ITERATIONS,
        "seconds_per_subject": {name: round(float(np.median(each)), 2) for name, each in seconds.items()},
        **{f"published_over_{name}": ratio(seconds["published"], seconds[name]) for name in PRESETS},
        "preset_pearson": same_algorithm(fold, network, inputs[:1], int(targets[0]), 6 if args.quick else 24),
    }
    table: dict[str, dict[str, float]] = {
        name: {"s/subject": float(np.median(each)), "passes": passes[name]} for name, each in seconds.items()
    }
    if args.quick:
        _print_table(table)
        return keys

    masks = {"published": published_masks(fold, inputs, targets)}
    for name, method in (("kan2020_fast", fast), ("default", default)):
        evidence = method.attribute(inputs, targets)
        masks[name] = (evidence, 1 - evidence)
    lower = {}
    for name, (maps, applied) in masks.items():
        measured, objectives = quality(fold, network, inputs, targets, maps, applied)
        table[name] |= measured
        lower[name] = objectives
    random_maps = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    random_maps = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    measured, _ = quality(fold, network, inputs, targets, random_maps, 1 - random_maps)
    orders = ("p_at_", "deletion", "insertion")  # its values are an order of the voxels and no mask
    table["random map"] = {name: value for name, value in measured.items() if name.startswith(orders)}
    for name in ("published", *PRESETS):
        table[name]["peak_mb"] = peak_rss_mb(name, 1 if name == "published" else n, args.data)
    _print_table(table)
    keys["quality"] = table
    keys["objective_ratio"] = table["kan2020_fast"]["objective"] / table["published"]["objective"]
    keys["objective_lower"] = sum(
        a < b for a, b in zip(lower["kan2020_fast"], lower["published"], strict=True)
    )
    keys["deletion_auc_difference"] = (
        table["kan2020_fast"]["deletion_auc"] - table["published"]["deletion_auc"]
    )

    other = preset(*PRESETS["default"], fold, random_state=1)
    brain = fold.reference.brain_mask.numpy()
    keys["seed_dice"] = top_dice(masks["default"][0], other.attribute(inputs, targets), brain)
    for count in (8, 64):
        keys[f"peak_rss_mb_{count}"] = peak_rss_mb("default", count, args.data)
    return keys


def _print_table(rows: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    print("\n| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in rows.items():
        cells = [f"{row[c]:.4g}" if c in row else "" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="IXI as a BIDS tree with sex in participants.tsv")
    parser.add_argument("--quick", action="store_true", help="speed only, of one subject")
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5, help="in which the ways are timed")
    parser.add_argument("--part", choices=("all", "speed", "planted"), default="all")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        measure_memory(args.memory[0], int(args.memory[1]), args.data)
        return
    keys: dict[str, Any] = {}
    if args.part != "planted":
        keys |= speed_part(args)
    if args.part != "speed" and not args.quick:
        keys |= planted_part()
    print(json.dumps(keys))


if __name__ == "__main__":
    main()
