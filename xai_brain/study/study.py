"""A cross-validated study: networks, their predictions, and the maps that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.config.build import change_settings, choices_of, read_baselines, valid_choice
from xai_brain.config.setting import ConfigError
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import first_repeat, read_json, read_tsv
from xai_brain.runs.seeds import counted_from_one
from xai_brain.statistics.matching import MATCHED, N_MATCHED, missing_interval
from xai_brain.study.inline import ReportPage
from xai_brain.study.maps.maps import Maps
from xai_brain.study.methods import Method, foreign_packages, method_settings
from xai_brain.study.settings import stage
from xai_brain.study.trained_networks import TrainedNetworks
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task


def open_study(run_dir: str | Path, *, trusted_modules: Sequence[str] = ()) -> Study:
    """Open a study from its folder; it may have been made in Python or on the command line.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        Packages outside this one whose networks or methods the study uses, and whose code may run.

    Returns
    -------
    Study

    Raises
    ------
    ConfigError
        There is no study in the folder, or it uses code of a package that is not trusted.

    Examples
    --------
    >>> open_study(run_dir)
    Study(24 participants, 2 folds, seed 0; maps: GradCAM, GuidedBackprop, MeaningfulPerturbation)
    """
    return Study(run_dir, trusted_modules=trusted_modules)


class Study(TrainedNetworks):
    """Networks of all folds and seeds with their predictions; made by `cross_validate` or `open_study`.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        See `open_study`.
    """

    @property
    def class_names(self) -> list[str]:
        """Classes in the order of their index; for tasks without classes, the names of the outputs."""
        return list(self._task.names)

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions out of fold: one row per image, seed and repeat of the folds.

        Columns: participant_id, session_id, seed, fold (from 1; predictions.tsv counts from 0), target (index
        of the true class), label and predicted (names of the true and the predicted class), and
        ``prob_<class>``. With ``task="regression"``: target (the true number), ``predicted_<label>`` (the
        predicted one), and both as text in label and predicted.

        Examples
        --------
        >>> study.predictions[["participant_id", "label", "predicted"]].shape
        (24, 3)
        """
        table, task = read_tsv(self._run.predictions), self._task
        labels = task.labels_of(table["target"].to_numpy())
        predicted = task.predicted_labels(table[task.columns].to_numpy())
        return table.assign(fold=counted_from_one(table["fold"]), label=labels, predicted=predicted)

    @property
    def scores(self) -> pd.DataFrame:
        """Scores out of fold: metric, value, 95 % interval over participants (ci_low, ci_high), chance, note.

        ``auroc`` is the mean over folds, ``auroc_pooled`` ranks all participants together. Chance of
        ``accuracy`` is the share of the largest class, and of ``brier`` the score of the constant prediction
        of the classes' shares; lower Brier scores are better. The note states why there is no interval.

        With ``task="regression"`` the metrics are ``mae``, ``rmse``, ``r2``, ``pearson_r`` and
        ``residual_r`` (correlation of the residuals with the target), each as the mean over folds and
        ``_pooled``; chance is a constant prediction, the mean of all targets.

        Examples
        --------
        >>> list(study.scores.columns)
        ['metric', 'value', 'ci_low', 'ci_high', 'chance', 'note']
        """
        targets = read_tsv(self._run.predictions)["target"]
        metrics, chance = read_json(self._run.metrics), self._task.chance_levels(targets)
        rows = []
        for key in metrics:
            name = key.removeprefix("test/")
            interval = [metrics.get(f"{key}_{end}", float("nan")) for end in ("ci_low", "ci_high")]
            known = f"{key}_ci_low" in metrics
            if not key.startswith("test/") or not (known or name == MATCHED):
                continue
            note = "" if known else missing_interval(metrics[N_MATCHED])
            rows.append((name, metrics[key], *interval, chance.get(name, float("nan")), note))
        return pd.DataFrame(rows, columns=["metric", "value", "ci_low", "ci_high", "chance", "note"])

    @property
    def participants(self) -> pd.DataFrame:
        """Participants of the study: one row per image, with the fold in which it is tested.

        Columns: those of participants.tsv, such as participant_id, label, target and age (years); and fold,
        numbered as in `predictions` (for repeated folds, that of the first repeat).

        Examples
        --------
        >>> study.participants.groupby("fold")["label"].value_counts().tolist()
        [6, 6, 6, 6]
        """
        folds = first_repeat(read_tsv(self._run.folds))[["participant_id", "fold"]]
        folds = folds.assign(fold=counted_from_one(folds["fold"]))
        table = read_tsv(self._run.participants).drop(columns="fold", errors="ignore")
        return table.merge(folds.drop_duplicates("participant_id"), on="participant_id", how="left")

    def compare_baselines(self, baselines: Sequence[str] = ()) -> pd.DataFrame:
        """Compare the networks with a model that uses brain size only, and with other baselines.

        Brain size needs ``brain_size_column`` in `xai_brain.load_cohort`.

        Parameters
        ----------
        baselines : sequence of str, optional
            Names of ``conf/baselines``, such as ``pca_logistic`` or, of a number, ``ridge``, that are fitted
            on the same folds; those that were fitted before are kept.

        Returns
        -------
        pandas.DataFrame
            name, metric, value, ci_low, ci_high, n_subjects; and for every baseline the difference of the
            network from it, with interval and p. ``auroc_size_matched`` is the AUROC of pairs of test
            participants of different classes whose brain sizes differ by at most 2 %; it has no interval with
            fewer than 10 pairs.
        """
        from xai_brain.study.training.fit_baselines import baselines_run

        values = {f"baselines.{name}": settings for name, settings in read_baselines(baselines).items()}
        stage(baselines_run)(change_settings(self._settings(), values))
        if not self._run.evaluation("baselines").exists():
            raise ConfigError(
                f"{self.run_dir}: there is no baseline; set brain_size_column in load_cohort, or name one: "
                f"{', '.join(choices_of('baselines'))}"
            )
        return self.evaluation("baselines")

    def evaluation(self, name: str) -> pd.DataFrame:
        """Read a table that was written by an evaluation.

        Parameters
        ----------
        name : str
            Such as ``group_clusters`` after `Maps.compare_groups`, ``mask_validation`` after
            `Maps.validate_masks` and ``summary`` after `report`.

        Raises
        ------
        ConfigError
            There is no such table; the existing ones are listed.

        Examples
        --------
        >>> study.evaluation("summary")["table"].unique().tolist()
        ['agreement', 'localization']
        """
        paths = sorted(self._run.evaluation("x").parent.glob("*.tsv"))
        valid_choice("table", name, [path.stem for path in paths])
        return read_tsv(self._run.evaluation(name))

    def explain(
        self,
        methods: Sequence[Method],
        *,
        target: str | None = None,
        output: str | None = None,
        seeds: Sequence[int] | None = None,
        batch_size: int | None = None,
        overwrite: bool = False,
    ) -> Maps:
        """Explain every participant with the networks not trained on it; existing maps are kept.

        Parameters
        ----------
        methods : sequence of str, class or functools.partial
            ``"GradCAM"``, ``xai_brain.GradCAM``, ``partial(xai_brain.MeaningfulPerturbation, n_iter=20)``,
            or a class of another package such as ``captum.attr.Saliency``.
        target : str, optional
            ``predicted``, ``true`` or the name of a class; default: as in existing maps, else
            ``predicted``. A comparison of groups needs the name of one class. With ``task="regression"``,
            the predicted number is always explained.
        output : str, optional
            For classification logit, logit_difference or probability, for regression value. Default: as in
            existing maps, else that of the method. A comparison of classes needs ``logit_difference``.
        seeds : sequence of int, optional
            Seeds whose networks are explained; default: all.
        batch_size : int, optional
            Participants that are explained together; default 8.
        overwrite : bool, default False
            Replace maps that were made with other settings.

        Returns
        -------
        Maps
            The maps of these methods.

        Raises
        ------
        ConfigError
            A name does not exist (the valid ones are listed), or maps of other settings exist.
        """
        from xai_brain.study.explanation.missing_maps import explain_run

        config = self._settings()
        chosen = method_settings(methods, config.attribution)
        if target is not None:
            target = self._task.in_own_names(target)
            valid_choice("target", target, self._task.valid_targets)
        for seed in seeds or ():
            valid_choice("seed", seed, self.seeds)
        values: dict[str, Any] = {f"attribution.{label}": settings for label, settings in chosen.items()}
        given: dict[str, Any] = {"target": target, "output": output, "batch_size": batch_size}
        given["seeds"] = None if seeds is None else [int(seed) for seed in seeds]
        values |= {f"explain.{name}": value for name, value in given.items() if value is not None}
        values |= {"trusted_modules": sorted({*config.trusted_modules, *foreign_packages(chosen)})}
        values |= {"overwrite": overwrite}
        config = change_settings(config, values)
        self._trusted = list(config.trusted_modules)
        stage(partial(explain_run, methods=list(chosen)))(config)
        return Maps(self.run_dir, list(chosen), trusted_modules=self._trusted)

    @property
    def maps(self) -> Maps:
        """All maps of the study."""
        return Maps(self.run_dir, trusted_modules=self._trusted)

    def report(self, *, anonymise: bool | None = None) -> ReportPage:
        """Evaluate the maps, unless this has been done, and write ``report.html``.

        Parameters
        ----------
        anonymise : bool, optional
            Replace participant identifiers and remove file paths; default: ``report.anonymise`` of the run.

        Returns
        -------
        ReportPage
            Its attribute ``path`` is the file; notebooks display the page inline.
        """
        from xai_brain.study.evaluation.tables import evaluate_run
        from xai_brain.study.report_page import report_run

        config = self._settings()
        if anonymise is not None:
            config = change_settings(config, {"report.anonymise": anonymise})
        if any((self.run_dir / "attributions").rglob("*_attribution.json")):
            stage(evaluate_run)(config)
        stage(report_run)(config)
        return ReportPage(self._run.report)

    @property
    def _task(self) -> Task:
        return task_of_table(self._settings().task, read_tsv(self._run.predictions).columns)

    def __repr__(self) -> str:
        table = read_tsv(self._run.predictions)
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        methods = ", ".join(self._settings().attribution) or "none"
        n_participants, n_folds = table["participant_id"].nunique(), table["fold"].nunique()
        return f"Study({n_participants} participants, {n_folds} folds, {seeds}; maps: {methods})"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>" + str(self.scores.to_html(index=False, float_format=fixed))
