"""Meaningful Perturbation: time and quality against the published algorithm, and against the truth.

    python benchmarks/meaningful_perturbation.py --data /path/to/ixi   # hours: the reference is slow
    python benchmarks/meaningful_perturbation.py --quick              # speed alone

Without ``--data`` the embedded cohort stands in for IXI, on the same grid. Networks and the reference's masks
are kept in the cache ($XAI_BRAIN_CACHE) and made only once; times are always taken in the run that prints
them. The last line is JSON.
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
from published import PublishedNetwork, box_blur, published_objective, published_perturbation

from xai_brain.attribution import ClassScore
from xai_brain.data.cache import default_cache_dir
from xai_brain.evaluation.faithfulness import area_under, deletion_insertion
from xai_brain.evaluation.localization import ranked
from xai_brain.freed_memory import keep_freed_memory

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


def reference_masks(
    network: PublishedNetwork, inputs: torch.Tensor, targets: torch.Tensor, key: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Map and applied mask of the full published run, subject by subject; kept in the cache."""
    maps, applied = [], []
    for i in range(len(inputs)):
        path = default_cache_dir() / "benchmarks" / f"published_{key}_{i}.pt"
        if not path.exists():
            print(f"published algorithm, subject {i + 1}/{len(inputs)}", flush=True)
            torch.save(published_perturbation(network, inputs[i : i + 1], int(targets[i])), path)
        both = torch.load(path, weights_only=True)
        maps.append(both[0])
        applied.append(both[1])
    return torch.cat(maps), torch.cat(applied)


def quality(
    fold: TrainedFold,
    network: PublishedNetwork,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    maps: torch.Tensor,
    applied: torch.Tensor,
) -> dict[str, float]:
    """Means over subjects: published objective, probability at fixed areas, deletion and insertion AUC."""
    model = ClassScore(fold.classifier, "probability")
    blurred = box_blur(inputs)
    brain = fold.reference.brain_mask.numpy()
    objective = [
        published_objective(network, inputs[i : i + 1], applied[i : i + 1], int(targets[i]))
        for i in range(len(inputs))
    ]
    curves = deletion_insertion(model, inputs, blurred, maps, targets, brain)
    fine = deletion_insertion(model, inputs, blurred, maps, targets, brain, n_steps=100)["deletion"]
    return {
        "objective": float(np.mean(objective)),
        **{f"p_at_{area:.0%}": float(fine[:, round(100 * area)].mean()) for area in AREAS},
        "deletion_auc": float(area_under(curves["deletion"]).mean()),
        "insertion_auc": float(area_under(curves["insertion"]).mean()),
        "area": float((1 - applied).mean()),
    }


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
    if method == "reference":
        published_perturbation(PublishedNetwork(fold.classifier), inputs[:1], 0, stop=3)
    else:
        keep_freed_memory()
        preset(*PRESETS[method], fold, n_iter=3).attribute(inputs, 0)
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


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

    full = 300
    iterations = 10 if args.quick else min(args.reference_iterations, full)
    seconds: dict[str, float] = {}
    rates = []
    for i in range(n):
        x, target = inputs[i : i + 1], int(targets[i])
        _, spent = timed(lambda: published_perturbation(network, x, target, stop=iterations))  # noqa: B023
        rates.append(spent / iterations)
    seconds["reference"] = float(np.median(rates)) * full
    note = "" if iterations == full else f", timed on {iterations} of its {full} iterations"
    print(f"reference: {seconds['reference']:.1f} s per subject{note}", flush=True)

    keep_freed_memory()  # as the explain stage does
    engine_iterations = iterations if args.quick or iterations < full else full
    kan2020 = preset(*PRESETS["kan2020"], fold, n_iter=engine_iterations)
    _, spent = timed(lambda: kan2020.attribute(inputs, targets))
    seconds["kan2020"] = spent / n / engine_iterations * full
    fast = preset(*PRESETS["kan2020_fast"], fold)
    fast_results, spent = timed(lambda: fast.optimize(inputs, targets))
    seconds["kan2020_fast"] = spent / n
    default = preset(*PRESETS["default"], fold)
    default_results, spent = timed(lambda: default.optimize(inputs, targets))
    seconds["default"] = spent / n
    keys: dict[str, Any] = {
        "n_subjects": n,
        "reference_timed_on_iterations": iterations,
        "seconds_per_subject": {name: round(value, 2) for name, value in seconds.items()},
        "speedup_wall": seconds["reference"] / seconds["kan2020_fast"],
        "preset_speedup_per_iteration": seconds["reference"] / seconds["kan2020"],
        "default_over_fast": seconds["default"] / seconds["kan2020_fast"],
    }
    passes = {"reference": 3000, "kan2020": 3000}
    passes |= {"kan2020_fast": fast.n_iter * fast.n_shifts, "default": default.n_iter * default.n_shifts}
    if args.quick:
        _print_table({name: {"s/subject": s, "passes": passes[name]} for name, s in seconds.items()})
        return keys

    key = hashlib.sha256(b"".join(p.numpy().tobytes() for p in network.parameters())).hexdigest()[:10]
    masks = {"reference": reference_masks(network, inputs, targets, key)}
    n_preset = min(args.preset_subjects, n)
    preset_maps = preset(*PRESETS["kan2020"], fold).attribute(inputs[:n_preset], targets[:n_preset])
    keys["preset_pearson"] = float(
        np.mean(
            [
                np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]
                for a, b in zip(preset_maps, masks["reference"][0], strict=False)
            ]
        )
    )
    for name, results in (("kan2020_fast", fast_results), ("default", default_results)):
        evidence = torch.stack([result.evidence for result in results])
        masks[name] = (evidence, 1 - evidence)
    table = {}
    for name, (maps, applied) in masks.items():
        measured = quality(fold, network, inputs, targets, maps, applied)
        table[name] = {"s/subject": seconds[name], "passes": passes[name], **measured}
    random_maps = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    untouched = torch.ones_like(random_maps)
    table["random map"] = quality(fold, network, inputs, targets, random_maps, untouched)
    for name in ("reference", *PRESETS):
        # no row of quality for the preset: its masks are the reference's
        table.setdefault(name, {"s/subject": seconds[name], "passes": passes[name]})
        table[name]["peak_mb"] = peak_rss_mb(name, 1 if name == "reference" else n, args.data)
    _print_table(table)
    keys["quality"] = table
    keys["objective_ratio"] = table["kan2020_fast"]["objective"] / table["reference"]["objective"]
    keys["deletion_auc_difference"] = (
        table["kan2020_fast"]["deletion_auc"] - table["reference"]["deletion_auc"]
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
    parser.add_argument("--quick", action="store_true", help="speed alone, of one subject")
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument(
        "--preset-subjects", type=int, default=2, help="for the full run of the preset kan2020"
    )
    parser.add_argument("--reference-iterations", type=int, default=300, help="for timing the reference only")
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
