"""Training the paper's network: an epoch, and a step, against the published loop.

    python benchmarks/training.py --data /path/to/ixi          # about 10 minutes on 2 cores
    python benchmarks/training.py --subjects 181               # the whole cohort: half an hour

Without IXI the embedded cohort stands in for it, on the same grid. `--subjects` is the size of the cohort, of
which the first of five folds is trained; 80 of them make a pair of epochs last about a minute on 2 cores.

epoch  Ours is `fit_fold` as `xai-brain train` calls it: training, one validation pass, metrics, logs, the
       best checkpoint. The published one trains, then evaluates training and validation part twice.
step   The same ten batches from the same weights, with the same dropout; losses are compared. So they are in
       double precision: in single precision rounding alone moves those of either side by 2e-3 in ten steps.

Each side has a process of its own. The last line is JSON: `speedup_vs_published` of the epoch (bar: 4),
`step_speedup_vs_published` (bar: 2.2), `largest_loss_difference` (bar: 1e-3), the same `_in_double`, and how
far the published side in single precision is from itself in double: `published_rounding`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from published import published_epoch, published_layers, published_step
from torch import nn
from torch.utils.data import DataLoader
from turns import Side, in_turns, ratio, seconds_of, send_figures, serve, show, wait_for_turn
from untrained import IXI, cohort_root, settings

from xai_brain import compose
from xai_brain.config.checks import read_config
from xai_brain.data.datamodule import VolumeDataset
from xai_brain.models.batch_statistics import exact_batch_statistics
from xai_brain.models.fitting import fit_fold
from xai_brain.models.module import BrainClassifier
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.study.participants import class_names, prepared_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.fold_training import classifier_settings, datamodule_of
from xai_brain.study.training.folds import folds_of, split_prepared_fold
from xai_brain.task.classification import Classification

LR, N_STEPS = 3e-4, 10


def prepared(args: argparse.Namespace, folder: Path) -> tuple[DictConfig, dict[str, pd.DataFrame]]:
    """Settings, and the parts of the first fold."""
    chosen = [
        f"trainer.batch_size={args.batch_size}",
        f"trainer.lr={LR}",
        "trainer.scheduler=constant",
        "trainer.monitor=val/auroc",
    ]
    cfg = compose("train", [*settings(cohort_root(args.data), folder, range(args.subjects)), *chosen])
    cohort = prepared_cohort(read_config(cfg), open_run(read_config(cfg)))
    parts = split_prepared_fold(read_config(cfg), cohort, folds_of(read_config(cfg), cohort), 0)
    return cfg, {name: part.sort_values("participant_id") for name, part in parts.items()}


def our_epochs(cfg: DictConfig, parts: dict[str, pd.DataFrame], names: list[str], n_turns: int) -> None:
    """An epoch of one long training at every turn; the first also makes what a training needs."""
    start = 0.0

    def end(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal start
        send_figures(seconds=time.perf_counter() - start, loss=metrics["train/loss"])
        if not wait_for_turn() and epoch < n_turns:
            raise SystemExit("the benchmark has ended")
        start = time.perf_counter()

    wait_for_turn()
    start = time.perf_counter()
    trainer_settings = {**cfg.trainer, "max_epochs": n_turns}
    with tempfile.TemporaryDirectory() as work_dir:
        fit_fold(
            datamodule_of(read_config(cfg), parts, seed=0),
            classifier_settings(read_config(cfg), Classification(tuple(names))),
            trainer_settings,
            seed=0,
            work_dir=Path(work_dir),
            report_epoch=end,
        )


def first_weights(cfg: DictConfig, names: list[str]) -> BrainClassifier:
    torch.manual_seed(0)
    return BrainClassifier(**classifier_settings(read_config(cfg), Classification(tuple(names)))).train()


def published_epochs(cfg: DictConfig, parts: dict[str, pd.DataFrame], names: list[str]) -> None:
    layers = published_layers(first_weights(cfg, names).network)
    optimizer = torch.optim.Adam(layers.parameters(), LR)
    train, validation = (
        DataLoader(VolumeDataset(parts[part]), cfg.trainer.batch_size, shuffle=part == "train")
        for part in ("train", "validation")
    )

    def epoch() -> dict[str, float]:
        start = time.perf_counter()
        loss = published_epoch(layers, optimizer, train, validation)
        return {"seconds": time.perf_counter() - start, "loss": loss}

    serve(epoch)


def steps(side: str, cfg: DictConfig, parts: dict[str, pd.DataFrame], names: list[str]) -> None:
    """One training step at every turn."""
    classifier, contexts = first_weights(cfg, names), ExitStack()
    dtype = torch.float64 if side.endswith("double") else torch.float32
    classifier.to(dtype)
    if side.startswith("our"):
        keep_freed_memory()  # as `fit_fold` does, which also has
        contexts.enter_context(exact_batch_statistics(classifier))
        step, optimizer = our_step, classifier.configure_optimizers()
        network: nn.Module = classifier
    else:
        network = published_layers(classifier.network).to(dtype)
        step, optimizer = published_step, torch.optim.Adam(network.parameters(), LR)
    batches = full_batches(parts["train"], cfg.trainer.batch_size)

    def turn() -> dict[str, float]:
        volumes, targets = next(batches)
        volumes = volumes.to(dtype)
        torch.manual_seed(1)  # of dropout
        start = time.perf_counter()
        loss = step(network, optimizer, volumes, targets)
        return {"seconds": time.perf_counter() - start, "loss": loss}

    with contexts:
        serve(turn)


def our_step(
    classifier: nn.Module,
    optimizer: torch.optim.Optimizer,
    volumes: torch.Tensor,
    targets: torch.Tensor,
) -> float:
    """What Lightning does in a step."""
    loss = nn.functional.cross_entropy(classifier(volumes), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def full_batches(part: pd.DataFrame, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """In memory, from the beginning again at the end."""
    loader = DataLoader(VolumeDataset(part), size, drop_last=len(part) >= size)
    batches = [(batch["volume"], batch["target"]) for batch in loader]
    while True:
        yield from batches


def side(args: argparse.Namespace) -> None:
    """In a process of its own."""
    cfg, parts = prepared(args, args.folder / args.side.replace(" ", "_"))
    names = class_names(pd.concat(parts.values()))
    if args.side == "our epoch":
        our_epochs(cfg, parts, names, args.pairs + 1)
    elif args.side == "published epoch":
        published_epochs(cfg, parts, names)
    else:
        steps(args.side, cfg, parts, names)


def compare(args: argparse.Namespace, what: str, n: int, warm_up: bool) -> dict[str, list[dict[str, Any]]]:
    names = (f"our {what}", f"published {what}")
    given = {key: getattr(args, key) for key in ("data", "subjects", "batch_size", "pairs", "folder")}
    options = [text for key, value in given.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    sides = {name: Side([__file__, *options, "--side", name]) for name in names}
    ways: dict[str, Callable[[], dict[str, Any]]] = {name: each.turn for name, each in sides.items()}
    results = in_turns(ways, n, warm_up)
    for each in sides.values():
        each.close()
    return results


def farthest(losses: list[float], others: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=IXI, help="folder of the IXI cohort")
    parser.add_argument("--subjects", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5, help="of epochs; of steps there are ten")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        _, parts = prepared(args, args.folder / "first")  # fills the cache
        sizes = {name: len(part) for name, part in parts.items()}
        step_turns = compare(args, "step", N_STEPS, warm_up=False)
        double_turns = compare(args, "step in double", N_STEPS, warm_up=False)
        epoch_turns = compare(args, "epoch", args.pairs, warm_up=True)
    losses = {name: [turn["loss"] for turn in turns] for name, turns in (step_turns | double_turns).items()}
    difference = farthest(losses["our step"], losses["published step"])
    in_double = farthest(losses["our step in double"], losses["published step in double"])
    rounding = farthest(losses["published step"], losses["published step in double"])
    step_seconds = {name: values[1:] for name, values in seconds_of(step_turns).items()}  # the first warms up
    epoch_seconds = seconds_of(epoch_turns)
    show(f"a training step, {args.batch_size} subjects", step_seconds)
    print(f"  losses of the first steps differ by at most {difference:.1e}, {in_double:.1e} in double:")
    for name, each in losses.items():
        print(f"  {name:<24}  {' '.join(f'{loss:.4f}' for loss in each)}")
    show(f"an epoch, {sizes['train']} to train, {sizes['validation']} to validate", epoch_seconds)
    figures = {
        "speedup_vs_published": ratio(epoch_seconds["published epoch"], epoch_seconds["our epoch"]),
        "step_speedup_vs_published": ratio(step_seconds["published step"], step_seconds["our step"]),
        "largest_loss_difference": float(f"{difference:.2e}"),
        "largest_loss_difference_in_double": float(f"{in_double:.2e}"),
        "published_rounding": float(f"{rounding:.2e}"),
        "batch_size": args.batch_size,
        "n_train": sizes["train"],
        "n_validation": sizes["validation"],
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
