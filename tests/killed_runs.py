"""Runs in processes that are killed, or two at once. Started by test_survival.py, as a script.

Processes are forked from one that has everything imported, so that a run takes seconds, all of them work.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
import yaml

from xai_brain import compose
from xai_brain.data import cache
from xai_brain.io.atomic import file_hash
from xai_brain.parallel import locks
from xai_brain.reporting import html_report  # noqa: F401
from xai_brain.runs.directory import sidecar
from xai_brain.stages import run
from xai_brain.study.evaluation import metrics
from xai_brain.study.explanation import missing_maps
from xai_brain.study.training import cross_validation

SETTINGS = [
    "experiment=demo",
    "data.cohort.n_subjects=12",
    "folds.n_folds=2",
    "trainer.max_epochs=1",
    "trainer.batch_size=4",
    "trainer.tensorboard=false",
    "model.channels=[2,3,4]",
    "attribution=[grad_cam,guided_backprop]",
    "explain.batch_size=2",
    "data.num_workers=1",
    "evaluation.n_bootstrap=20",
    "evaluation.group.n_perm=0",
    "evaluation.top_percents=[5]",
    "evaluation.card.metrics=[deletion]",
    "evaluation.card.n_removal=2",
    "evaluation.card.n_steps=4",
]


def start(folder: Path, log: Path | None = None) -> int:
    """A process that makes or goes on with the run in a folder; `log` gets a line per unit of work."""
    pid = os.fork()
    if pid:
        return pid
    quiet = os.open(folder.parent / f"{folder.name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    code = 1
    try:
        torch.set_num_threads(1)
        if log is not None:
            record_units(log)
        given = [*SETTINGS, f"run_dir={folder / 'run'}", f"data.cache_dir={folder / 'cache'}"]
        run.run(compose("run", given))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def record_units(log: Path) -> None:
    def recorded(module: object, name: str, unit_of: object) -> None:
        work = getattr(module, name)

        def recording(*args: object, **kwargs: object) -> object:
            with open(log, "a") as file:
                file.write(f"{name} {unit_of(*args, **kwargs)}\n")
            return work(*args, **kwargs)

        setattr(module, name, recording)

    recorded(cross_validation, "train_fold", lambda *a: f"{a[4]} {a[5]}")
    recorded(
        missing_maps, "explain_batch", lambda *a, label, **k: f"{label} {list(a[3].rows['participant_id'])}"
    )
    recorded(metrics, "_compute", lambda context, work: f"{work} {context.network.fold}")
    recorded(cache, "_make", lambda entry, *a: entry.volume.name)
    recorded(missing_maps, "write_images", lambda *a: "all")


def end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_complete(folder: Path) -> None:
    """Every file that is visible can be read to its end."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        if path.name.endswith(".nii.gz"):
            nib.load(path).get_fdata()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".tsv":
            assert path.read_text().endswith("\n"), path
            pd.read_csv(path, sep="\t")
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".yaml" and path.name == "config.yaml":
            assert "attribution" in yaml.safe_load(path.read_text()), path
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path


def finished_units(folder: Path) -> dict[Path, int]:
    """Files of units of work that are finished, and when they were written."""
    found = []
    for record in (folder / "cache" / "volumes").glob("[!.]*_record.json"):
        key = record.name.removesuffix("_record.json")
        found += [record, *(record.with_name(f"{key}_{what}.npy") for what in ("volume", "mask"))]
    for done in (folder / "run" / "checkpoints").glob("[!.]*_predictions.tsv"):
        found += [done, done.with_name(done.name.replace("_predictions.tsv", ".ckpt"))]
    for path in (folder / "run" / "attributions").rglob("sub-*.nii.gz"):
        found += [path, sidecar(path)] if sidecar(path).exists() else []
    for beside in (folder / "run" / "evaluation" / "metrics").glob("[!.]*.json"):
        found += [beside, beside.with_suffix(".tsv")]
    return {path: path.stat().st_mtime_ns for path in found}


def outputs(folder: Path) -> dict[str, str]:
    """All results but times and time stamps."""
    found = {}
    for path in sorted((folder / "run").rglob("*")):
        name = str(path.relative_to(folder / "run"))
        if not path.is_file():
            continue
        if (
            path.name in ("inputs.json", "groups.json")
            or path.parent.name == "groups"
            or path.suffix == ".html"
        ):
            found[name] = "there"  # tells times of files
        elif path.name in ("metrics.json", "provenance.json"):
            content = json.loads(path.read_text())
            times = [key for key in content if key == "created" or key.startswith("seconds/")]
            found[name] = json.dumps({key: content[key] for key in content if key not in times})
        elif path.name == "config.yaml":
            settings = path.read_text().partition("\n")[2]  # without the hash, for the folder differs
            found[name] = settings.replace(str(folder), "<folder>")
        elif path.name == "dataset_description.json":  # with links to the folders of the sources
            found[name] = re.sub(r'"file://[^"]*/', '"<folder>/', path.read_text())
        else:
            found[name] = file_hash(path)
    return found


def compare(folder: Path, reference: Path) -> None:
    mine, theirs = outputs(folder), outputs(reference)
    assert set(mine) == set(theirs), sorted(set(mine) ^ set(theirs))
    assert (different := [name for name in mine if mine[name] != theirs[name]]) == [], different


def kill(base: Path, n_kills: int, seed: int) -> dict[str, float]:
    """Kill runs at random moments until there were enough kills; every run is started again to its end."""
    rng, reference = random.Random(seed), base / "reference"
    seconds = json.loads((base / "seconds.json").read_text())
    killed = n_runs = n_units = 0
    while killed < n_kills:
        n_runs += 1
        folder = base / f"killed-{seed}-{n_runs}"
        folder.mkdir()
        finished: dict[Path, int] = {}
        while True:
            pid = start(folder)
            deadline = time.monotonic() + rng.uniform(0, 0.5 * seconds)
            last = killed >= n_kills  # enough: to the end
            while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if not last and time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    break
                time.sleep(0.002)
            code = end_of(pid)
            assert code in (0, -signal.SIGKILL), (folder, code)
            check_complete(folder)
            now = finished_units(folder)
            assert {path: now.get(path) for path in finished} == finished
            finished = now
            n_units = max(n_units, len(now)) if code else n_units
            if code == 0:
                break
            killed += 1
        compare(folder, reference)
        shutil.rmtree(folder)
    assert n_units > 20, "no kill came late"
    return {"kills": killed, "runs": n_runs}


def together(base: Path, kill_one_after: float | None) -> dict[str, float]:
    """Two processes on one run; one of them may be killed."""
    folder = base / f"together-{kill_one_after}"
    folder.mkdir()
    logs = [base / f"{folder.name}-{i}.log" for i in (0, 1)]
    begun = time.monotonic()
    first, second = (start(folder, log) for log in logs)
    if kill_one_after is not None:
        time.sleep(kill_one_after * json.loads((base / "seconds.json").read_text()))
        os.kill(first, signal.SIGKILL)
        assert end_of(first) == -signal.SIGKILL
    else:
        assert end_of(first) == 0
    assert end_of(second) == 0
    compare(folder, base / "reference")
    done = [log.read_text().splitlines() if log.exists() else [] for log in logs]
    everything = sorted(done[0] + done[1])
    twice = len(everything) - len(set(everything))
    assert twice <= (0 if kill_one_after is None else 1), everything  # what was in hand when it was killed
    shutil.rmtree(folder)
    return {"units": [len(part) for part in done], "seconds": time.monotonic() - begun}


def make_reference(base: Path) -> dict[str, float]:
    folder = base / "reference"
    folder.mkdir()
    begun = time.monotonic()
    assert end_of(start(folder, base / "reference.log")) == 0
    seconds = time.monotonic() - begun
    check_complete(folder)
    (base / "seconds.json").write_text(json.dumps(seconds))
    return {"seconds": seconds, "units": len((base / "reference.log").read_text().splitlines())}


if __name__ == "__main__":
    what, base, *numbers = sys.argv[1:]
    locks.BEAT_SECONDS = 0.5
    work = {
        "reference": make_reference,
        "kill": lambda base: kill(base, int(numbers[0]), int(numbers[1])),
        "together": partial(together, kill_one_after=float(numbers[0]) if numbers else None),
    }
    print(json.dumps(work[what](Path(base))))
