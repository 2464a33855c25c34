"""Cohorts and networks of the benchmarks: made once, kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate

from xai_brain.attribution import ClassScore, Reference
from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.data.cache import default_cache_dir
from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.models.module import BrainClassifier
from xai_brain.runs.directory import read_tsv, write_tsv
from xai_brain.study.explanation.batches import build_reference
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.cross_validation import train_fold

LEFT_MM, RIGHT_MM = [-36.0, -20.0, -10.0], [36.0, -20.0, -10.0]


@dataclass
class TrainedFold:
    """One fold of a cohort: its network, what may be known of its training subjects, its test subjects."""

    classifier: BrainClassifier
    reference: Reference
    train: pd.DataFrame
    test: pd.DataFrame
    accuracy: float  # of the test subjects
    cohort: pd.DataFrame  # all subjects

    def last(self, n: int) -> TrainedFold:
        """The same with the last n test subjects; the first ones served to choose settings."""
        return replace(self, test=self.test.iloc[-n:])

    def volumes(self, n: int | None = None) -> torch.Tensor:
        """Test volumes, (n, 1, X, Y, Z)."""
        paths = self.test["volume_path"][: n or len(self.test)]
        return torch.from_numpy(np.stack([np.load(path) for path in paths]))[:, None]

    def truths(self, n: int) -> list[np.ndarray]:
        return [np.asarray(load_img(path).dataobj) > 0 for path in self.test["truth_path"][:n]]

    def truth_elsewhere(self, other: TrainedFold, n: int) -> list[np.ndarray]:
        """Of the same subjects in a cohort whose effect has another place."""
        paths = other.cohort.set_index("participant_id")["truth_path"]
        return [np.asarray(load_img(paths[i]).dataobj) > 0 for i in self.test["participant_id"][:n]]

    def brain_masks(self, n: int) -> list[np.ndarray]:
        return [np.load(path) for path in self.test["volume_mask_path"][:n]]


def trained_fold(name: str, overrides: list[str], fold: int = 0) -> TrainedFold:
    """Train one fold of a cohort, or load it."""
    folder = default_cache_dir() / "benchmarks" / name
    cfg = compose("train", [*overrides, f"run_dir={folder}"])
    run = open_run(read_config(cfg))
    cohort = prepared_cohort(read_config(cfg), run)
    folds = make_folds(cohort, cfg.folds.n_folds, cfg.folds.random_state)
    checkpoint = run.checkpoint(fold, 0)
    if not checkpoint.exists():
        train_fold(read_config(cfg), run, cohort, folds, fold, 0)
    classifier = BrainClassifier.load_from_checkpoint(
        checkpoint, map_location="cpu", weights_only=True
    ).eval()
    parts = split_fold(cohort, folds, fold, cfg.folds.validation_fraction, cfg.folds.random_state)
    grid = get_grid(cfg.preprocessing.grid)
    reference = build_reference(parts["train"], classifier.task, 64, grid)
    result = TrainedFold(classifier, reference, parts["train"], parts["test"], 0.0, cohort)
    with torch.no_grad():
        predicted = torch.cat([classifier(part).argmax(1) for part in result.volumes().split(8)])
    result.accuracy = float((predicted.numpy() == parts["test"]["target"].to_numpy()).mean())
    return result


def preset(name: str, label: str, fold: TrainedFold, **changes: Any) -> Any:
    """A configured method, as the explain stage makes it."""
    cfg = compose("explain", [f"attribution=[{name}]", "run_dir=none", "data=synthetic"])
    method = instantiate(cfg.attribution[label], **changes)
    model = ClassScore(fold.classifier, "probability")
    takes_reference = "reference" in method.func.__init__.__code__.co_varnames
    return method(model, **({"reference": fold.reference} if takes_reference else {}))


PLANTED = [
    "data=synthetic",
    "preprocessing=t1w_4mm",
    "model.channels=[8,16,32]",
    "trainer.max_epochs=16",
    "trainer.batch_size=4",
    "trainer.lr=2e-3",
    "trainer.tensorboard=false",
]


def planted(kind: str, radius_mm: float, **cohort: object) -> list[str]:
    """Settings of a cohort with one strong effect: of intensity or of shape."""
    change = {"intensity": (0.0, 0.35), "shape": (1.0, 0.0)}[kind]
    settings = {
        "n_subjects": 240,
        "effect_center_mm": LEFT_MM,
        "effect_radius_mm": radius_mm,
        "effect_volume_change": change[0],
        "effect_intensity_change": change[1],
        **cohort,
    }
    return [*PLANTED, *(f"data.cohort.{key}={value}" for key, value in settings.items())]


def permuted(overrides: list[str], n: int) -> list[list[str]]:
    """The same cohort with labels that were shuffled n times."""
    from omegaconf import OmegaConf

    cfg = compose("train", overrides)
    settings = SyntheticSettings(**OmegaConf.to_container(cfg.data.cohort))  # type: ignore[arg-type]
    root = Path(default_cache_dir()) / "benchmarks" / "permuted_cohort"
    make_synthetic_cohort(root, settings)
    participants = read_tsv(root / "participants.tsv")
    for k in range(n):
        order = np.random.default_rng(k).permutation(len(participants))
        participants[f"permuted_{k}"] = participants["sex"].to_numpy()[order]
    write_tsv(participants, root / "participants.tsv")
    rest = [o for o in overrides if not o.startswith("data")]
    return [
        [
            *rest,
            "data=bids",
            f"data.root={root}",
            f"data.label=permuted_{k}",
            "data.class_names=[female,male]",
        ]
        for k in range(n)
    ]
