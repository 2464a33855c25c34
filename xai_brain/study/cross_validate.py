"""Cross-validation of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xai_brain.config.build import build_settings
from xai_brain.config.saved import AFTER_TRAINING, saved_settings
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.cohort import Cohort
from xai_brain.study.methods import foreign_packages
from xai_brain.study.settings import stage
from xai_brain.study.study import Study


def cross_validate(
    cohort: Cohort,
    model: str | type = "kan2020",
    *,
    run_dir: str | Path,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    model_settings: Mapping[str, Any] | None = None,
    max_epochs: int = 10,
    batch_size: int = 8,
    lr: float = 3e-4,
    trainer: Mapping[str, Any] | None = None,
    folds: str = "stratified",
    fold_settings: Mapping[str, Any] | None = None,
    augmentation: str = "none",
    overwrite: bool = False,
    trusted_modules: Sequence[str] = (),
) -> Study:
    """Train one network per fold and seed; every participant is predicted by a network not trained on it.

    A repeated call continues where it was interrupted; finished networks are kept.

    Parameters
    ----------
    cohort : Cohort
        Prepared with `Cohort.prepare`.
    model : str or class, default "kan2020"
        A name of ``conf/model``, or a class of `torch.nn.Module` that can be imported and that takes
        ``n_classes`` besides `model_settings`.
    run_dir : str or Path
        Folder of all results; see `open_study`.
    n_folds : int, default 5
        Number of folds; not used with ``folds="hold_out"`` and ``folds="column"``.
    seeds : sequence of int, default (0,)
        One network per fold is trained for each seed.
    model_settings : mapping, optional
        Arguments of the network, such as ``{"channels": [8, 16, 32]}``.
    max_epochs : int, default 10
    batch_size : int, default 8
    lr : float, default 3e-4
        Highest learning rate.
    trainer : mapping, optional
        Further fields of `xai_brain.config.schema.TrainerConfig`, such as ``{"patience": 5}``.
    folds : str, default "stratified"
        A name of ``conf/folds``: stratified, balanced, grouped, hold_out, column and others.
    fold_settings : mapping, optional
        Further fields of `xai_brain.config.schema.FoldsConfig`, such as ``{"column": "site"}``.
    augmentation : str, default "none"
        A name of ``conf/augmentation``.
    overwrite : bool, default False
        Replace results in `run_dir` that were made with other settings.
    trusted_modules : sequence of str, optional
        Packages outside this one whose methods the study in `run_dir` uses.

    Returns
    -------
    Study

    Raises
    ------
    ConfigError
        An argument is not valid, or `run_dir` contains results of other settings.

    Examples
    --------
    >>> study = cross_validate(
    ...     cohort, "shallow", n_folds=2, max_epochs=1, run_dir=run_dir
    ... )  # doctest: +SKIP
    """
    choices, values = cohort.settings()
    trusted_modules = sorted({*trusted_modules, *values.get("trusted_modules", [])})
    choices |= {"folds": folds, "augmentation": augmentation}
    if isinstance(model, str):
        choices["model"] = model
    else:
        choices["model"] = "custom"
        own = {"_target_": f"{model.__module__}.{model.__qualname__}"}
        values |= {"model._target_": own["_target_"]}
        trusted_modules = sorted({*trusted_modules, *foreign_packages({model.__name__: own})})
    values |= {f"model.{name}": value for name, value in (model_settings or {}).items()}
    values |= {"trainer.max_epochs": max_epochs, "trainer.batch_size": batch_size, "trainer.lr": lr}
    values |= {f"trainer.{name}": value for name, value in (trainer or {}).items()}
    values |= {"folds.n_folds": n_folds}
    values |= {f"folds.{name}": value for name, value in (fold_settings or {}).items()}
    values |= {"seeds": [int(seed) for seed in seeds], "overwrite": overwrite}
    values |= {"attribution": {}, "trusted_modules": list(trusted_modules)}
    return train_study(choices, values, run_dir)


def train_study(choices: Mapping[str, str], values: Mapping[str, Any], run_dir: str | Path) -> Study:
    """Train networks with the given configuration choices and values (see `build_settings`)."""
    from xai_brain.study.training.cross_validation import train_run

    run = RunDirectory(Path(run_dir).expanduser())
    values = {**values, "run_dir": str(run.path), "name": run.path.resolve().name}
    if run.config.exists() and not values["overwrite"]:  # later maps and tables are kept
        saved = asdict(saved_settings(run.config))
        values |= {key: saved[key] for key in AFTER_TRAINING if key != "trusted_modules"}
    config = build_settings(choices, values)
    stage(train_run)(config)
    return Study(run.path, trusted_modules=list(config.trusted_modules))
