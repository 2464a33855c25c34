"""The run directory: paths of all files of a run, and functions that read and write them. No torch.

Stages communicate through these files only, so that each can be repeated separately and maps of other
software can be imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xai_brain.io.atomic import write_atomic
from xai_brain.io.nifti import bids_label, bids_name, parse_entities
from xai_brain.io.numbers import plain_value
from xai_brain.io.text_tables import read_text, text_columns
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log_debug
from xai_brain.runs.seeds import checkpoint_name, seed_folder

SPACE = "MNI152"  # of all prepared images
TEMPLATE = f"tpl-{SPACE}"  # BIDS: folder and names of group maps
DATATYPE = "anat"  # BIDS: folder of the maps of an anatomical image
CHANNEL = "+"  # between the name of a method and that of a channel
TEXTS = (  # columns of labels of classes and names; those of identifiers end with _id
    *("label", "predicted", "class", "class_a", "class_b", "explains", "site"),
    *("mask", "name", "region"),
)


@dataclass(frozen=True)
class RunDirectory:
    """Paths and tables of one run.

    Parameters
    ----------
    path : Path
        The directory; it need not exist yet: ``RunDirectory("outputs/demo").config`` is the path of a file.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    # -- single files --------------------------------------------------------------------------
    @property
    def config(self) -> Path:
        """Settings of the run (YAML)."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, machine, commit and hashes of the inputs (JSON)."""
        return self.path / "provenance.json"

    @property
    def participants(self) -> Path:
        """Participants with labels and columns of the cohort."""
        return self.path / "participants.tsv"

    @property
    def folds(self) -> Path:
        """Part (training, validation, test) of each participant in each fold."""
        return self.path / "folds.tsv"

    @property
    def fold_summary(self) -> Path:
        """Description of the folds: numbers, classes, age, brain size, sites."""
        return self.path / "fold_summary.tsv"

    @property
    def quarantine(self) -> Path:
        """Images that were left out, and the reasons."""
        return self.path / "quarantine.tsv"

    @property
    def predictions(self) -> Path:
        """Predictions out of fold."""
        return self.path / "predictions.tsv"

    @property
    def standardization(self) -> Path:
        """Mean and reciprocal standard deviation of new images, see the setting ``adapt``."""
        return self.path / "standardization.npz"

    @property
    def pseudonyms(self) -> Path:
        """Key of anonymised reports: participant_id, pseudonym; not to be passed on with them."""
        return self.path / "pseudonyms.tsv"

    @property
    def locks(self) -> Path:
        """Locks of running processes; the folder does not exist without any."""
        return self.path / ".locks"

    @property
    def metrics(self) -> Path:
        """Scores (JSON)."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """Self-contained report."""
        return self.path / "report.html"

    # -- properties that file names depend on --------------------------------------------------
    @property
    def seeds(self) -> list[int]:
        """Seeds of training, from config.yaml; [0] without this file."""
        try:
            state = self.config.stat().st_mtime_ns
        except OSError:
            return [0]
        known: tuple[int, list[int]] | None = self.__dict__.get("_seeds")
        if known is None or known[0] != state:
            known = (state, _seeds_of(read_text(self.config)))
            self.__dict__["_seeds"] = known
        return known[1]

    @property
    def space(self) -> str:
        """Space of all images and maps, from the name of the first file; MNI152 without files."""
        if "_space" not in self.__dict__:
            files = (self.path / folder for folder in ("images", "attributions"))
            first = next((path for folder in files for path in folder.rglob("*_space-*.nii.gz")), None)
            if first is None:
                return SPACE
            self.__dict__["_space"] = parse_entities(first)["space"]
        space: str = self.__dict__["_space"]
        return space

    # -- families of files ---------------------------------------------------------------------
    def checkpoint(self, fold: int, seed: int) -> Path:
        """Network of one fold and seed."""
        return self.path / "checkpoints" / f"{checkpoint_name(seed, fold, self.seeds)}.ckpt"

    def checkpoint_about(self, fold: int, seed: int) -> Path:
        """Record of a checkpoint: its hash, code version and the hash of its training images."""
        return self.checkpoint(fold, seed).with_suffix(".json")

    def history(self, fold: int, seed: int) -> Path:
        """Training curve of one fold: epoch, metric, value."""
        return self.checkpoint(fold, seed).with_suffix(".tsv")

    def validation(self, fold: int, seed: int) -> Path:
        """Predictions of the validation part of one fold, used to choose between networks."""
        checkpoint = self.checkpoint(fold, seed)
        return checkpoint.with_name(f"{checkpoint.stem}_validation.tsv")

    def image(self, participant_id: str, session_id: str | None, suffix: str = "T1w") -> Path:
        """Prepared image (`suffix` T1w, uint8, 0 outside the brain) or mask of a planted effect (`mask`)."""
        entities = {"desc": "truth"} if suffix == "mask" else {"desc": "prepared"}
        name = bids_name(participant_id, session_id, space=self.space, **entities, suffix=suffix)
        return self.path / "images" / f"{name}.nii.gz"

    def channel_image(self, participant_id: str, session_id: str | None, channel: str) -> Path:
        """Image of a channel after the first, of inputs with several channels; uint8, as `image`."""
        desc = of_channel("prepared", channel)
        name = bids_name(participant_id, session_id, space=self.space, desc=desc, suffix="image")
        return self.path / "images" / f"{name}.nii.gz"

    def alignment(self, participant_id: str, session_id: str | None) -> Path:
        """Matrix from MNI152 mm to the mm of the original image, for aligned images."""
        name = bids_name(participant_id, session_id, suffix="xfm", **{"from": "MNI152", "to": "T1w"})
        return self.path / "images" / f"{name}.json"

    def native(self, attribution: Path, space: str) -> Path:
        """The map in native space."""
        below = attribution.relative_to(self.path / "attributions")
        return self.path / "native" / below.with_name(re.sub("_space-[^_]+", f"_space-{space}", below.name))

    def attribution(self, participant_id: str, session_id: str | None, method: str, seed: int) -> Path:
        """Map of one image by one method; its JSON sidecar has the same stem."""
        folder = self.path / "attributions" / seed_folder(seed, self.seeds)
        name = bids_name(participant_id, session_id, space=self.space, desc=method, suffix="attribution")
        return folder / participant_id / (session_id or "") / DATATYPE / f"{name}.nii.gz"

    def baseline(self, name: str, file: str = "predictions") -> Path:
        """Table of a baseline: out-of-fold predictions (default) or choices."""
        return self.path / "baselines" / name / f"{file}.tsv"

    def group_map(self, method: str, quantity: str, statistic: str) -> Path:
        """Map of a group, such as ("GradCAM", "class-male", "mean"); see `xai_brain.runs.group_maps`."""
        kind, _, label = quantity.partition("-")
        cohort = {"cohort": bids_label(label)} if kind == "class" else {}
        parts = [] if cohort else map(bids_label, quantity.split("-"))
        name = bids_name(TEMPLATE, **cohort, desc="+".join([method, *parts, statistic]), suffix="statmap")
        return self.path / "group" / TEMPLATE / DATATYPE / f"{name}.nii.gz"

    def evaluation(self, name: str) -> Path:
        """Table of an evaluation, by its name."""
        return self.path / "evaluation" / f"{name}.tsv"


def _seeds_of(settings: str) -> list[int]:
    """Seeds in the text of config.yaml; [0] if it cannot be read, which is reported elsewhere."""
    try:
        content = yaml.load(settings, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return [0]
    seeds = content.get("seeds") if isinstance(content, dict) else None
    return [int(seed) for seed in seeds] if seeds else [0]


def of_channel(name: str, channel: str) -> str:
    """Name (``desc``) of the map of one channel, beside that of the sum over channels.

    Examples
    --------
    >>> of_channel("Saliency", "FLAIR")
    'Saliency+FLAIR'
    """
    return f"{name}{CHANNEL}{channel}"


def sidecar(path: Path) -> Path:
    """JSON sidecar of a NIfTI file."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def write_json(content: Any, path: Path) -> Path:
    """Write a JSON file in one step."""
    text = json.dumps(content, indent=2, default=plain_value) + "\n"
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(read_text(path))


def write_tsv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table in one step; missing values are n/a."""
    table = table.replace({"session_id": {"": "n/a"}}) if "session_id" in table else table
    return write_atomic(path, lambda temporary: table.to_csv(temporary, sep="\t", index=False, na_rep="n/a"))


def read_tsv(path: Path) -> pd.DataFrame:
    """Table of a run; identifiers, labels and codes with leading zeros such as 007 are text."""
    text, missing = read_text(path), ["n/a", ""]
    # pandas' default missing values are not used, as a class may be called None
    table = pd.read_csv(
        StringIO(text),
        sep="\t",
        na_values=missing,
        keep_default_na=False,
        dtype=dict.fromkeys(text_columns(text, TEXTS), str),
        low_memory=False,
    )
    return table.fillna({"session_id": ""}) if "session_id" in table else table


def first_repeat(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of folds.tsv or predictions.tsv of the first repeat: one per image and seed.

    Maps are made, compared and shown only for the first repeat.
    """
    return table[table["repeat"] == 0] if "repeat" in table else table


def update_metrics(
    run: RunDirectory, new: dict[str, float], *, replace: tuple[str, ...] = ()
) -> dict[str, float]:
    """Merge metrics into metrics.json; keys that begin with one of `replace` are dropped first."""

    def merged(before: dict[str, float]) -> dict[str, float]:
        kept = {key: value for key, value in before.items() if not key.startswith(replace or ("\0",))}
        return {**kept, **new}

    return _change_metrics(run, merged)


def add_seconds(run: RunDirectory, stage: str, seconds: float) -> None:
    """Add to the time that a stage has taken in all processes."""
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

    run_exclusive(run.locks, "metrics", write)  # other processes may add metrics at the same time
    return metrics
