"""The explain stage end to end: its cost beside the bare methods, how it grows, and two processes.

    python benchmarks/explain.py --data /path/to/ixi             # all three parts, an hour on 2 cores
    python benchmarks/explain.py --part overhead --subjects 32   # one of them, smaller

Grad-CAM and guided backpropagation by the paper's network with random weights, five folds, images of IXI, or
of the embedded cohort on the same grid; more subjects than there are images repeat them under new ids. The
volumes are in the cache before; maps and images of a run are removed before each of its turns.

overhead  `xai-brain explain` from its start to its end, imports and NIfTI files included, against the methods
          alone, at their second turn and later: volumes in memory, networks loaded, the class predicted once
          for both methods (the command takes it from predictions.tsv; "the maps of it": without that).
          Batches of 8.
growth    Seconds a subject and the largest resident memory of the stages prepare (one process, nothing in the
          cache), explain, evaluate and report, for 50, 200 and 1,000 subjects, once each.
two       160 subjects in one run by a process of one thread, against two such processes at the same time,
          with shard=1/2 and 2/2 of the same run: seconds from their start to the end of the last.

The last line is JSON: `overhead_ratio` (bar: 1.5), `rss_growth_mb` (bar: flat), `two_process_speedup`
(bar: 1.8).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from turns import Side, in_turns, ratio, seconds_of, serve, show
from untrained import IXI, cohort_root, untrained_run

from xai_brain.attribution import preserved
from xai_brain.config.saved import stage_settings
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.study.explanation.configured_methods import build_method
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.training.networks import load_networks

PARTS = ("overhead", "growth", "two")
BATCH_SIZE = 8


def cleared(run: RunDirectory) -> RunDirectory:
    """The run before its first explanation."""
    for folder in ("attributions", "images"):
        shutil.rmtree(run.path / folder, ignore_errors=True)
    run.metrics.unlink(missing_ok=True)
    return run


def start(
    stage: str, run: RunDirectory, shard: str | None = None, threads: int | None = None
) -> subprocess.Popen[bytes]:
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "xai_brain", stage, f"run_dir={run.path}"]
    command += [f"shard={shard}"] if shard else []
    return subprocess.Popen(command, env={**os.environ, **limit}, stdout=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; its largest resident memory in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))}: failed")  # type: ignore[arg-type]
    return usage.ru_maxrss / 1024


def explained(
    run: RunDirectory, shards: tuple[str | None, ...] = (None,), threads: int | None = None
) -> dict[str, float]:
    """Explain a run by a process for each of these shards, at the same time.

    ``seconds`` from the start of the commands to the end of the last; ``stage`` the mean of them, without
    what Python needs to start and to import; ``peak_mb`` of the largest.
    """
    cleared(run)
    begin = time.perf_counter()
    processes = [start("explain", run, shard, threads) for shard in shards]
    peak_mb = max(map(ended, processes))
    seconds = time.perf_counter() - begin
    stage = read_json(run.metrics)["seconds/explain"] / len(shards)  # all processes add their own
    return {"seconds": seconds, "stage": stage, "peak_mb": peak_mb}


def bare(run: RunDirectory) -> None:
    """In a process of its own: at every turn the methods of a run, on its volumes in memory."""
    cfg = stage_settings("explain", [f"run_dir={run.path}"])
    paths = prepared_cohort(cfg, run).set_index("participant_id")["volume_path"]
    keep_freed_memory()  # as the stage does
    work = []
    predictions = read_tsv(run.predictions)
    for (_, fold), [network] in load_networks(cfg, run).items():
        classifier = network.load(cfg)
        methods = [build_method(cfg, label, classifier, None)[0] for label in cfg.attribution]
        ids = predictions.loc[predictions["fold"] == fold, "participant_id"]
        volumes = torch.from_numpy(np.stack([np.load(paths[i]) for i in ids]))[:, None]
        work.append((classifier, methods, volumes))

    def turn() -> dict[str, float]:
        begin, predicting = time.perf_counter(), 0.0
        for classifier, methods, volumes in work:
            for batch in volumes.split(BATCH_SIZE):
                start = time.perf_counter()
                with torch.no_grad():
                    targets = classifier(batch).argmax(1)
                predicting += time.perf_counter() - start
                for method in methods:
                    with preserved(classifier):
                        method.attribute(batch, target=targets)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "maps": seconds - predicting}

    serve(turn)


def overhead(args: argparse.Namespace, root: Path, folder: Path) -> dict[str, float]:
    run = untrained_run(root, folder / "overhead", range(args.subjects), BATCH_SIZE)
    methods = Side([__file__, "--bare", str(run.path)])
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "xai-brain explain": partial(explained, run),
        "methods alone": methods.turn,
    }
    results = in_turns(ways, args.turns)
    methods.close()
    seconds = seconds_of(results)
    stage = [turn["stage"] for turn in results["xai-brain explain"]]
    maps = [turn["maps"] for turn in results["methods alone"]]
    parts = {"explain, the stage of it": stage, "alone, the maps of it": maps}
    show(f"{args.subjects} subjects, two methods", {**seconds, **parts})
    n_maps = len(list((run.path / "attributions").rglob("*_attribution.nii.gz")))
    assert n_maps == 2 * args.subjects, f"{n_maps} maps"
    return {
        "overhead_ratio": ratio(seconds["xai-brain explain"], seconds["methods alone"]),
        "overhead_ratio_of_the_stage": ratio(stage, seconds["methods alone"]),
        "overhead_ratio_over_the_maps": ratio(seconds["xai-brain explain"], maps),
    }


def growth(args: argparse.Namespace, root: Path, folder: Path) -> dict[str, float]:
    rows = []
    for n in args.sizes:
        work = [sys.executable, __file__, "--prepare", str(n), "--data", str(root), "--folder", str(folder)]
        begin = time.perf_counter()
        peak_mb = ended(subprocess.Popen(work, stdout=subprocess.DEVNULL))
        rows.append((n, "prepare", time.perf_counter() - begin, peak_mb))
        run = RunDirectory(folder / f"of_{n}")
        for stage in ("explain", "evaluate", "report"):
            begin = time.perf_counter()
            peak_mb = ended(start(stage, run))
            rows.append((n, stage, time.perf_counter() - begin, peak_mb))
        n_bytes = sum(path.stat().st_size for path in (run.path / "attributions").rglob("*.nii.gz"))
        print(f"{n} subjects: {n_bytes / n / 2 / 1e6:.2f} MB a map", flush=True)
        shutil.rmtree(run.path)
    table = pd.DataFrame(rows, columns=["subjects", "stage", "seconds", "peak_mb"])
    table["seconds_per_subject"] = table["seconds"] / table["subjects"]
    print(table.round({"seconds": 1, "peak_mb": 0, "seconds_per_subject": 3}).to_string(index=False))
    peaks = table.query("stage == 'explain'").set_index("subjects")["peak_mb"]
    few, many = min(args.sizes), max(args.sizes)
    return {"rss_growth_mb": round(peaks[many] - peaks[few], 1), "rss_mb": round(peaks[few], 1)}


def two(args: argparse.Namespace, root: Path, folder: Path) -> dict[str, float]:
    half = args.half
    run = untrained_run(root, folder / "whole", range(2 * half), BATCH_SIZE)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "one process": partial(explained, run, threads=1),
        "two processes": partial(explained, run, ("1/2", "2/2"), threads=1),
    }
    results = in_turns(ways, args.turns, warm_up=False)
    n_maps = len(list((run.path / "attributions").rglob("*_attribution.nii.gz")))
    assert n_maps == 2 * 2 * half, f"{n_maps} maps"
    seconds = seconds_of(results)
    show(f"{2 * half} subjects, one thread a process", seconds)
    return {"two_process_speedup": ratio(seconds["one process"], seconds["two processes"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=IXI, help="folder of the IXI cohort")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--subjects", type=int, default=181, help="of the overhead; at least 20")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000], help="at least 20 each")
    parser.add_argument("--half", type=int, default=80, help="subjects of each of two processes; at least 20")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(RunDirectory(args.bare))
        return
    if args.prepare:
        cold = [f"data.cache_dir={args.folder / f'cache_{args.prepare}'}", "data.num_workers=1"]
        untrained_run(args.data, args.folder / f"of_{args.prepare}", range(args.prepare), BATCH_SIZE, cold)
        return
    root = cohort_root(args.data)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for part in args.part or PARTS:
            work = {"overhead": overhead, "growth": growth, "two": two}[part]
            figures |= work(args, root, Path(name))
    print(json.dumps({**figures, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
