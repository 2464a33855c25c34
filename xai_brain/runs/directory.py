"""The run directory: where each file of a run lies, atomic writes, provenance. No torch.

Stages meet in these files only, so that each can be run again separately, and maps of other software can be
put in their place and analysed.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.atomic import file_hash, write_atomic
from xai_brain.io.nifti import bids_name
from xai_brain.io.text_tables import read_text
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log_debug
from xai_brain.runs.seeds import checkpoint_name, seed_folder

PACKAGES = ["xai-brain", "torch", "pytorch-lightning", "captum", "nibabel", "nilearn"]
PACKAGES += ["numpy", "scikit-learn"]
TEXTS = dict.fromkeys(  # columns of ids, labels of classes and names
    ("participant_id", "session_id", "label", "class", "class_a", "class_b", "mask", "name", "region"), str
)


@dataclass(frozen=True)
class RunDirectory:
    """Paths and tables of one run.

    Parameters
    ----------
    path : Path
        The directory; it need not exist yet.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    # -- single files --------------------------------------------------------------------------
    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def participants(self) -> Path:
        return self.path / "participants.tsv"

    @property
    def folds(self) -> Path:
        return self.path / "folds.tsv"

    @property
    def fold_summary(self) -> Path:
        """Who is in which fold: numbers, classes, age, brain size, sites."""
        return self.path / "fold_summary.tsv"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine.tsv"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.tsv"

    @property
    def locks(self) -> Path:
        """What processes at work are doing; gone when there are none."""
        return self.path / ".locks"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    # -- families of files ---------------------------------------------------------------------
    def checkpoint(self, fold: int, seed: int, seeds: list[int]) -> Path:
        return self.path / "checkpoints" / f"{checkpoint_name(seed, fold, seeds)}.ckpt"

    def checkpoint_about(self, fold: int, seed: int, seeds: list[int]) -> Path:
        """Hash, code version and training subjects' hash of a checkpoint."""
        return self.checkpoint(fold, seed, seeds).with_suffix(".json")

    def history(self, fold: int, seed: int, seeds: list[int]) -> Path:
        """Training curve of one fold: epoch, metric, value."""
        return self.checkpoint(fold, seed, seeds).with_suffix(".tsv")

    def validation(self, fold: int, seed: int, seeds: list[int]) -> Path:
        """Predictions of the validation part of one fold, by which networks can be chosen."""
        checkpoint = self.checkpoint(fold, seed, seeds)
        return checkpoint.with_name(f"{checkpoint.stem}_validation.tsv")

    def image(self, participant_id: str, session_id: str | None, space: str, suffix: str = "T1w") -> Path:
        """Prepared T1 (`suffix` T1w, uint8, 0 outside the brain) or truth of a planted effect (`mask`)."""
        entities = {"desc": "truth"} if suffix == "mask" else {"desc": "prepared"}
        name = bids_name(participant_id, session_id, space=space, **entities, suffix=suffix)
        return self.path / "images" / f"{name}.nii.gz"

    def alignment(self, participant_id: str, session_id: str | None) -> Path:
        """Matrix from MNI152 mm to the mm of the subject's own image, of images that were aligned."""
        name = bids_name(participant_id, session_id, suffix="xfm", **{"from": "MNI152", "to": "T1w"})
        return self.path / "images" / f"{name}.json"

    def native(self, attribution: Path, space: str) -> Path:
        """The same map on the voxels of the subject's own image."""
        below = attribution.relative_to(self.path / "attributions")
        return self.path / "native" / below.with_name(re.sub("_space-[^_]+", f"_space-{space}", below.name))

    def attribution(
        self,
        participant_id: str,
        session_id: str | None,
        space: str,
        method: str,
        seed: int,
        seeds: list[int],
    ) -> Path:
        """Map of one image by one method; its JSON sidecar has the same stem."""
        folder = self.path / "attributions" / seed_folder(seed, seeds) / participant_id / (session_id or "")
        name = bids_name(participant_id, session_id, space=space, desc=method, suffix="attribution")
        return folder / f"{name}.nii.gz"

    def baseline(self, name: str, file: str = "predictions") -> Path:
        """Table of a baseline: out-of-fold predictions like those of the run, choices."""
        return self.path / "baselines" / name / f"{file}.tsv"

    def group_map(self, method: str, what: str, stat: str) -> Path:
        return self.path / "group" / f"desc-{method}_{what}_stat-{stat}_statmap.nii.gz"

    def evaluation(self, name: str) -> Path:
        return self.path / "evaluation" / f"{name}.tsv"


def sidecar(path: Path) -> Path:
    """JSON sidecar of a NIfTI file."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def write_json(content: Any, path: Path) -> Path:
    text = json.dumps(content, indent=2, default=_plain) + "\n"
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    return json.loads(read_text(path))


def write_tsv(table: pd.DataFrame, path: Path) -> Path:
    table = table.replace({"session_id": {"": "n/a"}}) if "session_id" in table else table
    return write_atomic(path, lambda temporary: table.to_csv(temporary, sep="\t", index=False, na_rep="n/a"))


def read_tsv(path: Path) -> pd.DataFrame:
    # labels such as 01 are texts; not pandas' own list of missing values: a class may be called None
    text, missing = StringIO(read_text(path)), ["n/a", ""]
    table = pd.read_csv(
        text, sep="\t", na_values=missing, keep_default_na=False, dtype=TEXTS, low_memory=False
    )
    return table.fillna({"session_id": ""}) if "session_id" in table else table


def first_repeat(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of folds.tsv or predictions.tsv of the first repeat: one per image and seed.

    Maps are made, compared and shown for it alone.
    """
    return table[table["repeat"] == 0] if "repeat" in table else table


def update_metrics(
    run: RunDirectory, new: dict[str, float], *, replace: tuple[str, ...] = ()
) -> dict[str, float]:
    """Merge figures into metrics.json; keys that begin with one of `replace` are dropped first."""

    def merged(before: dict[str, float]) -> dict[str, float]:
        kept = {key: value for key, value in before.items() if not key.startswith(replace or ("\0",))}
        return {**kept, **new}

    return _change_metrics(run, merged)


def add_seconds(run: RunDirectory, stage: str, seconds: float) -> None:
    """Add to the time that a stage has taken in all its starts, by all processes."""
    log_debug(f"{stage}: {seconds:.1f} s")
    key = f"seconds/{stage}"
    _change_metrics(run, lambda before: {**before, key: round(before.get(key, 0.0) + seconds, 2)})


def _change_metrics(
    run: RunDirectory, change: Callable[[dict[str, float]], dict[str, float]]
) -> dict[str, float]:
    metrics: dict[str, float] = {}

    def write() -> None:
        before = read_json(run.metrics) if run.metrics.exists() else {}
        metrics.update(sorted(change(before).items()))
        if metrics != before:
            write_json(metrics, run.metrics)

    run_exclusive(run.locks, "metrics", write)  # other processes may add theirs
    return metrics


def write_manifest(manifest: Path, inputs: Any, made: Iterable[Path], **more: Any) -> None:
    """Record the inputs that results follow from and the hash of each result file; written last."""
    there = {os.path.relpath(path, manifest.parent): path for path in made if path.is_file()}
    files = {name: file_hash(path) for name, path in sorted(there.items())}
    write_json({"Of": inputs, **more, "Files": files}, manifest)


def is_up_to_date(manifest: Path, inputs: Any) -> bool:
    """Whether the results of a manifest follow from these inputs."""
    expected = json.loads(json.dumps(inputs, default=_plain))
    return manifest.exists() and read_json(manifest).get("Of") == expected


def manifest_files(manifest: Path) -> dict[Path, str]:
    """Hash of each file in a manifest."""
    files = read_json(manifest).get("Files", {})
    return {Path(os.path.normpath(manifest.parent / name)): content for name, content in files.items()}


def provenance(seeds: list[int], inputs: dict[str, str]) -> dict[str, Any]:
    """Versions, machine, commit, seeds and the hashes of the inputs of a run."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "seeds": list(seeds),
        "inputs_sha256": inputs,
    }


@cache  # reading them takes as long as writing a map
def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """Of a checkout; None of an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
