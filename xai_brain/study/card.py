"""Report card: which methods find an effect at a known location and depend on the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xai_brain.config.build import build_settings
from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.report_card import verdicts
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.cohort import Cohort
from xai_brain.study.maps.maps import Maps
from xai_brain.study.methods import Method, foreign_packages, method_settings
from xai_brain.study.settings import stage
from xai_brain.study.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = ("RandomMap", "Intensity", "Edges", "MeanDifference", "TMap")


def report_card(
    cohort: Cohort,
    *,
    planted: PlantedEffect,
    methods: Sequence[Method] | None = None,
    metrics: Sequence[str] | None = None,
    baselines: Sequence[Method] = BASELINES,
    run_dir: str | Path = "outputs/report_card",
    model: str = "kan2020",
    model_settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1),
    test_fraction: float = 0.3,
    max_epochs: int = 12,
    batch_size: int = 4,
    lr: float = 2e-3,
    n_bootstrap: int = 1000,
    card_settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ReportCard:
    """Plant an effect at a known location into images of a cohort and test which methods find it.

    The classes are assigned at random, so that only the effect distinguishes them. The original classes of
    the cohort are not used.

    Parameters
    ----------
    cohort : Cohort
        Prepared with `Cohort.prepare`.
    planted : PlantedEffect
    methods : sequence of str, class or functools.partial, optional
        As in `Study.explain`; default: those of ``conf/experiment/report_card.yaml``.
    metrics : sequence of str, optional
        Default: those of ``conf/experiment/report_card.yaml``.
    baselines : sequence, default ("RandomMap", "Intensity", "Edges", "MeanDifference", "TMap")
        Maps that do not use the network, with which the methods are compared.
    run_dir : str or Path, default "outputs/report_card"
    model : str, default "kan2020"
        A name of ``conf/model``.
    model_settings : mapping, optional
        Arguments of the network; default: a small one.
    seeds : sequence of int, default (0, 1)
        Stability across trainings needs two or more.
    test_fraction : float, default 0.3
        Share of the participants that are tested and explained.
    max_epochs : int, default 12
    batch_size : int, default 4
    lr : float, default 2e-3
    n_bootstrap : int, default 1000
    card_settings : mapping, optional
        Further fields of `xai_brain.config.evaluation.CardConfig`, such as ``{"n_sanity": 4}``.
    overwrite : bool, default False
        Replace results in `run_dir` that were made with other settings.

    Returns
    -------
    ReportCard

    Examples
    --------
    >>> planted = PlantedEffect(
    ...     kind="intensity", size=3, center_mm=[34, -20, -10], radius_mm=20
    ... )
    >>> card = report_card(
    ...     cohort, methods=["GradCAM"], planted=planted
    ... )  # doctest: +SKIP
    """
    from xai_brain.study.evaluation.tables import evaluate_run
    from xai_brain.study.explanation.missing_maps import explain_run
    from xai_brain.study.training.cross_validation import train_run

    if planted.kind is None:
        raise ConfigError("report_card: planted.kind is needed: atrophy, expansion, intensity or lesion")
    choices, values = cohort.settings()
    folder = Path(run_dir).expanduser()
    values |= {f"planted.{name}": value for name, value in asdict(planted).items()}
    values |= {"run_dir": str(folder), "name": folder.resolve().name, "overwrite": overwrite}
    values |= {"folds.test_fraction": test_fraction, "seeds": [int(seed) for seed in seeds]}
    values |= {"trainer.max_epochs": max_epochs, "trainer.batch_size": batch_size, "trainer.lr": lr}
    values |= {f"model.{name}": value for name, value in (model_settings or {}).items()}
    values |= {"evaluation.n_bootstrap": n_bootstrap, "evaluation.group.n_perm": 0}  # classes are random
    values |= {f"evaluation.card.{name}": value for name, value in (card_settings or {}).items()}
    if metrics is not None:
        values |= {"evaluation.card.metrics": list(metrics)}
    choices |= {"experiment": "report_card"} | ({"model": model} if model != "kan2020" else {})
    usual = build_settings(choices, values)
    if methods is not None:
        chosen = method_settings([*methods, *baselines], usual.attribution)
        values |= {"attribution": chosen}
        values |= {"trusted_modules": sorted(foreign_packages(chosen))}
    config = build_settings(choices, values)
    for work in (train_run, explain_run, evaluate_run):
        stage(work)(config)
    return ReportCard(folder, trusted_modules=list(config.trusted_modules))


class ReportCard:
    """Scores of methods on an effect at a known location; made by `report_card` or read from its folder.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.

    Examples
    --------
    >>> ReportCard("outputs/report_card").verdicts  # doctest: +SKIP
    """

    def __init__(self, run_dir: str | Path, *, trusted_modules: Sequence[str] = ()):
        self._run = RunDirectory(Path(run_dir).expanduser())
        self._trusted = list(trusted_modules)
        if not self._run.evaluation("report_card").exists():
            raise ConfigError(f"{self._run.path}: has no report card; call xai_brain.report_card first")

    @property
    def run_dir(self) -> Path:
        """Folder of all results; `xai_brain.open_study` reads the networks from it."""
        return self._run.path

    @property
    def table(self) -> pd.DataFrame:
        """Means over participants: method, kind, metric, value, ci_low, ci_high, chance, n_subjects."""
        return read_tsv(self._run.evaluation("report_card"))

    @property
    def verdicts(self) -> pd.DataFrame:
        """Verdict on each method: method, kind, believe (yes, with care, no, not rated) and reasons."""
        found = verdicts(self.table)
        rows = [(each.method, each.kind, each.believe, " ".join(each.sentences)) for each in found]
        return pd.DataFrame(rows, columns=["method", "kind", "believe", "reasons"])

    @property
    def study(self) -> Study:
        """The networks that were trained on the planted effect, with their predictions."""
        return Study(self._run.path, trusted_modules=self._trusted)

    @property
    def maps(self) -> Maps:
        """The maps that were evaluated."""
        return Maps(self._run.path, trusted_modules=self._trusted)

    def plot(self) -> Figure:
        """Methods in rows, metrics in columns; colour shows how far a value is from chance.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from xai_brain.reporting.figures.card import card_figure
        from xai_brain.reporting.figures.style import style
        from xai_brain.study.inline import show_inline

        table = self.table
        with style():
            return show_inline(card_figure(table, verdicts(table)))

    def __repr__(self) -> str:
        summary = "; ".join(
            f"{believe}: {', '.join(rows['method'])}"
            for believe, rows in self.verdicts.groupby("believe", sort=False)
            if believe != "not rated"
        )
        return f"ReportCard({summary or 'no method'})"

    def _repr_html_(self) -> str:
        return str(self.verdicts.to_html(index=False))
