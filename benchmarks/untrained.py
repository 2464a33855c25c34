"""Runs that are ready to be explained although nothing was trained: explaining costs the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from xai_brain import compose
from xai_brain.config.checks import read_config
from xai_brain.data.cache import default_cache_dir
from xai_brain.data.folds.splits import make_folds
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.models.fitting import quiet_lightning
from xai_brain.models.module import BrainClassifier
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv
from xai_brain.study.participants import class_names, portable, prepared_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.fold_training import classifier_settings
from xai_brain.task.classification import Classification

IXI = Path(__file__).parents[2] / "shared" / "data" / "ixi"  # where it lies beside the project
N_STAND_IN = 20  # subjects of the embedded cohort, repeated under new ids
IMAGES = "sub-*/anat/*_desc-brain_T1w.nii.gz"


def cohort_root(data: Path) -> Path:
    """Folder of the IXI cohort, or of the embedded one on the paper's grid where IXI is not there."""
    if (data / "participants.tsv").exists():
        print(f"images: {data}")
        return data.resolve()
    print(f"images: the embedded cohort, as {data} holds none")
    settings = SyntheticSettings(n_subjects=N_STAND_IN, grid="t1w_58x70x58")
    return make_synthetic_cohort(default_cache_dir() / "benchmarks" / "stand_in_58x70x58", settings)


def untrained_run(
    root: Path, folder: Path, ids: range, batch_size: int = 8, more: Sequence[str] = ()
) -> RunDirectory:
    """A run of five folds by the paper's network with random weights; images repeat as often as needed.

    Parameters
    ----------
    root : Path
        From `cohort_root`.
    folder : Path
        Of the run.
    ids : range
        Numbers of the subjects; subject i has image i of the cohort, which begins again at its end.
    batch_size : int, default 8
    more : sequence of str
        Settings.
    """
    cfg = compose("train", [*settings(root, folder, ids), f"explain.batch_size={batch_size}", *more])
    run = open_run(read_config(cfg))
    cohort = prepared_cohort(read_config(cfg), run)
    folds = make_folds(cohort, cfg.folds.n_folds, cfg.folds.random_state)
    write_tsv(portable(cohort, root), run.participants)
    write_tsv(folds, run.folds)
    names = class_names(cohort)
    for fold in fold_numbers(folds):
        _save_network(cfg, names, run.checkpoint(fold, 0))
    probabilities = {
        f"prob_{name}": 1 / len(names) for name in names
    }  # chance: these networks are not trained
    rows = cohort[["participant_id", "session_id", "target"]].assign(seed=0, **probabilities)
    write_tsv(rows.merge(folds[["participant_id", "fold"]]), run.predictions)
    return run


def settings(root: Path, folder: Path, ids: range) -> list[str]:
    """Settings of a run of these subjects, whose table is written beside the folder of the run."""
    tables = folder.with_suffix(".csv")
    _repeated(root, ids).to_csv(tables, index=False)
    return [
        "data=table",
        f"data.root={root}",
        f"data.tables=[{tables}]",
        "data.space=MNI152",
        "attribution=[grad_cam,guided_backprop]",
        f"run_dir={folder}",
    ]


def _repeated(root: Path, ids: range) -> pd.DataFrame:
    """Table of subjects; the sexes take turns, so that few subjects have both."""
    sex = read_tsv(root / "participants.tsv").set_index("participant_id")["sex"]
    paths = sorted(str(path) for path in root.glob(IMAGES))
    images = pd.DataFrame({"t1w_path": paths, "sex": [sex[Path(path).name.split("_")[0]] for path in paths]})
    images = images.assign(rank=images.groupby("sex").cumcount()).sort_values(["rank", "sex"])
    chosen = images.iloc[np.array(ids) % len(images)].drop(columns="rank")
    return chosen.assign(participant_id=[f"sub-{i:05d}" for i in ids])


def _save_network(cfg: DictConfig, names: list[str], path: Path) -> None:
    import pytorch_lightning as pl

    torch.manual_seed(0)
    classifier = BrainClassifier(**classifier_settings(read_config(cfg), Classification(tuple(names)))).eval()
    with quiet_lightning():
        trainer = pl.Trainer(
            logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
        )
    trainer.strategy.connect(classifier)
    path.parent.mkdir(exist_ok=True)
    trainer.save_checkpoint(path, weights_only=True)
