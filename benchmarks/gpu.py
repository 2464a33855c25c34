"""One accelerator: masks, gradient methods, training and `explain`, each against what a user would run.

    make gpu                            # pytest -m gpu, then this script; at most 8 minutes on one card
    python benchmarks/gpu.py --smoke    # a few volumes on any device, to check the script, not its times

Nothing is downloaded. The network is that of the paper, the volumes are those of the embedded cohort on the
paper's grid (58x70x58). The network is trained here for a few epochs, because masks of a network that ignores
the images are done early.

masks        Masks per second of the default method and of the published objective (`kan2020_fast`), and their
             ratio to the published algorithm, written plainly, on the same device (timed on some of its
             iterations); operations per second as a share of the device's peak.
gradients    Grad-CAM and guided backpropagation in batches of 32, against Captum and, where installed, MONAI.
training     Volumes per second of a training epoch against a plain loop of the same steps.
explain      `explain` of many volumes with random weights, its files included, as a share of the masks per
             second of the same network in memory.

The last line is JSON. A figure that could not be measured is null.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from attribution import SIDES
from cohorts import TrainedFold, preset, trained_fold
from published import (
    PublishedNetwork,
    published_layers,
    published_perturbation,
    published_shifts,
    published_step,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from untrained import cohort_root, untrained_run

from xai_brain.attribution import MeaningfulPerturbation, preserved
from xai_brain.config.saved import stage_settings
from xai_brain.models.module import BrainClassifier
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.runs.directory import read_json
from xai_brain.stages.explain import explain

# dense operations per second by the manufacturer, for TF32 and bfloat16; by a part of the device's name
PEAK_TFLOPS = {"H200": (494.5, 989.0), "H100": (494.5, 989.0), "A100": (156.0, 312.0)}
ITERATIONS_TIMED = 10  # of the 300 of the published algorithm


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device, n: int, warm_up: int = 1) -> float:
    """Median time of n calls after `warm_up` others."""
    times = []
    for k in range(n + warm_up):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if k >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def volumes_of(fold: TrainedFold, n: int, device: torch.device) -> torch.Tensor:
    """Test volumes, repeated with small noise so that no two are equal, (n, 1, X, Y, Z)."""
    found = fold.volumes()
    volumes = found[torch.arange(n) % len(found)]
    noise = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(0))
    return (volumes + 0.02 * noise * (volumes != 0)).to(device)


def operations_per_mask(method: MeaningfulPerturbation, volumes: torch.Tensor, iterations: float) -> float:
    """Floating-point operations of the network's passes for one mask."""
    leaf = volumes[:1].clone().requires_grad_()
    with preserved(method.model), FlopCounterMode(display=False) as counter:
        method.model(leaf).sum().backward()
    return counter.get_total_flops() * iterations * method.n_shifts


def masks(fold: TrainedFold, args: argparse.Namespace) -> dict[str, Any]:
    device, n = args.device, args.masks
    fold.classifier.to(device)
    volumes = volumes_of(fold, n, device)
    with torch.no_grad():
        targets = torch.cat([fold.classifier(part).argmax(1) for part in volumes.split(32)])
    figures: dict[str, Any] = {"n_masks": n}
    for name, label in (
        ("meaningful_perturbation", "MeaningfulPerturbation"),
        ("kan2020_fast", "Kan2020FastPerturbation"),
    ):
        for precision in ("float32", "bfloat16"):
            changes = {"n_iter": 4} if args.smoke else {}
            method = preset(name, label, fold, precision=precision, **changes)
            results = method.optimize(volumes[: args.few], targets[: args.few])  # warms up
            iterations = statistics.mean(result.n_iter for result in results)
            spent = seconds(lambda m=method: m.attribute(volumes, targets), device, 1, warm_up=0)
            rate, key = n / spent, name if precision == "float32" else f"{name}_{precision}"
            tflops = operations_per_mask(method, volumes, iterations) * rate / 1e12
            peak = args.peak_tflops[precision == "bfloat16"] if args.peak_tflops else None
            figures |= {
                f"masks_per_second_{key}": round(rate, 3),
                f"iterations_{key}": round(iterations, 1),
                f"tflops_{key}": round(tflops, 3),
                f"share_of_peak_{key}": round(tflops / peak, 4) if peak else None,
            }
            print(
                f"{key}: {rate:.2f} masks per second, {iterations:.0f} iterations, {tflops:.2f} TFLOPS",
                flush=True,
            )
    network, shifts = PublishedNetwork(fold.classifier).to(device), published_shifts()
    stop = 1 if args.smoke else ITERATIONS_TIMED
    few = seconds(
        lambda: published_perturbation(network, volumes[:1], int(targets[0]), shifts, stop=stop), device, 1
    )
    plain = few / stop * len(shifts)
    print(f"published algorithm, written plainly: {plain:.1f} s for one mask", flush=True)
    fastest = max(value for key, value in figures.items() if key.startswith("masks_per_second_meaningful"))
    return figures | {
        "published_seconds_per_mask": round(plain, 3),
        "speedup_vs_published_default": round(plain * fastest, 1),
        "speedup_vs_published_kan2020_fast": round(plain * figures["masks_per_second_kan2020_fast"], 1),
    }


def gradients(fold: TrainedFold, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds for a batch of 32 by each side; ours against the faster of the others."""
    torch.manual_seed(0)
    network = Kan2020().eval().to(args.device)
    volumes = volumes_of(fold, args.few if args.smoke else 32, args.device)
    spent: dict[str, float] = {}
    for name in ("ours", "Captum", "MONAI"):
        if name == "MONAI" and importlib.util.find_spec("monai") is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum warns that it registers hooks
            size, explain_batch = SIDES[name](network)
            size = len(volumes) if name == "Captum" else size if name == "MONAI" else len(volumes)
            spent[name] = seconds(
                lambda each=explain_batch, n=size: [each(part) for part in volumes.split(n)],
                args.device,
                args.turns,
            )
        print(
            f"Grad-CAM and guided backpropagation, {name}: {spent[name]:.3f} s for {len(volumes)}", flush=True
        )
    best = min(value for name, value in spent.items() if name != "ours")
    return {
        "gradient_volumes_per_second": round(len(volumes) / spent["ours"], 2),
        "gradient_speedup_vs_captum": round(spent["Captum"] / spent["ours"], 2),
        "gradient_speedup_vs_monai": round(spent["MONAI"] / spent["ours"], 2) if "MONAI" in spent else None,
        "gradient_speedup_vs_best_peer": round(best / spent["ours"], 2),
    }


def training(fold: TrainedFold, args: argparse.Namespace) -> dict[str, Any]:
    """Volumes per second of our training steps and of a plain loop, with the volumes on the device."""
    torch.manual_seed(0)
    size = 4 if args.smoke else 32
    volumes = volumes_of(fold, size, args.device)
    targets = torch.arange(size, device=args.device) % 2
    settings = fold.classifier.hparams
    classifier = BrainClassifier(**settings).train().to(args.device)
    layers = published_layers(classifier.network).train().to(args.device)
    rates = {}
    for name, network, step, precision in (
        ("training", classifier, our_step, torch.float32),
        ("training_bfloat16", classifier, our_step, torch.bfloat16),
        ("training_plain", layers, published_step, torch.float32),
    ):
        optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

        def once(
            network: nn.Module = network,
            step: Callable[..., Any] = step,
            optimizer: torch.optim.Optimizer = optimizer,
            precision: torch.dtype = precision,
        ) -> None:
            reduced = precision == torch.bfloat16
            with torch.autocast(args.device.type, torch.bfloat16, enabled=reduced):
                step(network, optimizer, volumes, targets)

        rates[f"{name}_volumes_per_second"] = round(size / seconds(once, args.device, args.turns), 2)
        print(f"{name}: {rates[f'{name}_volumes_per_second']} volumes per second", flush=True)
    plain = rates["training_plain_volumes_per_second"]
    return rates | {
        "training_speedup": round(rates["training_volumes_per_second"] / plain, 2),
        "training_speedup_bfloat16": round(rates["training_bfloat16_volumes_per_second"] / plain, 2),
    }


def our_step(
    classifier: nn.Module, optimizer: torch.optim.Optimizer, volumes: torch.Tensor, targets: torch.Tensor
) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(classifier(volumes), targets).backward()
    optimizer.step()


def explain_stage(fold: TrainedFold, args: argparse.Namespace) -> dict[str, Any]:
    """Volumes per second of the stage with the default masks, and as a share of those in memory."""
    n = 20 if args.smoke else args.explained
    with tempfile.TemporaryDirectory() as folder:
        more = [
            "attribution=[meaningful_perturbation]",
            f"explain.batch_size={args.few if args.smoke else 256}",
        ]
        more += ["attribution.MeaningfulPerturbation.n_iter=4"] if args.smoke else []
        root = cohort_root(Path("none"))
        run = untrained_run(root, Path(folder) / "run", range(n), more=more)
        explain(stage_settings("explain", [f"run_dir={run.path}", f"trainer.accelerator={args.accelerator}"]))
        spent = read_json(run.metrics)["seconds/explain"]
        n_maps = len(list((run.path / "attributions").rglob("*_attribution.nii.gz")))
        classifier = BrainClassifier.load_from_checkpoint(run.checkpoint(0, 0), weights_only=True)
    assert n_maps == n, f"{n_maps} maps of {n}"
    changes = {"n_iter": 4} if args.smoke else {}
    untrained = replace(fold, classifier=classifier.eval().to(args.device))
    method = preset("meaningful_perturbation", "MeaningfulPerturbation", untrained, **changes)
    volumes = volumes_of(fold, n, args.device)
    rate = n / seconds(lambda: method.attribute(volumes, 0), args.device, 1, warm_up=0)
    print(f"explain: {n} volumes in {spent:.1f} s", flush=True)
    return {
        "explained": n,
        "explain_volumes_per_second": round(n / spent, 3),
        "explain_share_of_engine": round(n / spent / rate, 3),
    }


def gpu_tests(device: torch.device) -> dict[str, Any]:
    """Number of tests with the mark `gpu` that pass."""
    if device.type != "cuda":
        return {"gpu_tests_passed": None}
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    print(f"pytest -m gpu: {last}", flush=True)
    words = last.replace(",", "").split()
    counts = {word: int(words[k - 1]) for k, word in enumerate(words) if k and words[k - 1].isdigit()}
    return {"gpu_tests_passed": counts.get("passed", 0), "gpu_tests_failed": counts.get("failed", 0)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, help="default: the accelerator, otherwise cpu")
    parser.add_argument("--masks", type=int, default=1024, help="masks that are timed together")
    parser.add_argument("--explained", type=int, default=1000, help="volumes of the explain stage")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="check the script with a few volumes")
    args = parser.parse_args()
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    args.device = args.device or found or torch.device("cpu")
    args.accelerator = "gpu" if args.device.type == "cuda" else args.device.type
    args.few = 2 if args.smoke else 32
    if args.smoke:
        args.masks, args.turns = 2, 1
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type
    args.peak_tflops = next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    keep_freed_memory()
    start = time.perf_counter()
    figures: dict[str, Any] = {"device": name, "smoke": args.smoke, **gpu_tests(args.device)}
    n_subjects, epochs = (20, 1) if args.smoke else (120, 5)
    cohort = ["data=synthetic", "data.cohort.grid=t1w_58x70x58", f"data.cohort.n_subjects={n_subjects}"]
    fold = trained_fold(f"gpu_{n_subjects}", [*cohort, f"trainer.max_epochs={epochs}"])
    figures |= masks(fold, args)
    figures |= gradients(fold, args) | training(fold, args)
    figures |= explain_stage(fold, args)
    print(json.dumps({**figures, "seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
