"""Regional benchmark in Python: which methods mark the region whose measure a network has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xai_brain.config.build import build_settings
from xai_brain.config.saved import open_settings
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.regional.summary import (
    ALL_REGIONS,
    LEARNT_REGIONS,
    NETWORK,
    learned_regions,
    networks_of_table,
)
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.cohort import Cohort
from xai_brain.study.inline import ReportPage
from xai_brain.study.methods import Method, foreign_packages, method_settings
from xai_brain.study.regional.cohort import column_of
from xai_brain.study.settings import stage
from xai_brain.study.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = ("CorrelationMap", "OppositeDifference")


def regional_benchmark(
    cohort: Cohort,
    atlas: str | Path,
    regions: Sequence[str] | None = None,
    *,
    methods: Sequence[Method] | None = None,
    columns: Sequence[str] | None = None,
    kind: str = "intensity",
    size: float | None = None,
    atlas_table: str | Path | None = None,
    run_dir: str | Path = "outputs/regional_benchmark",
    model: str = "shallow",
    model_settings: Mapping[str, Any] | None = None,
    test_fraction: float | None = None,
    trainer: Mapping[str, Any] | None = None,
    n_bootstrap: int = 1000,
    overwrite: bool = False,
) -> RegionalBenchmark:
    """Train one network per region on a measure of this region, and test which methods mark the region.

    The measure is a planted dose, or a column of the cohort from which the measures of all other regions have
    been regressed out. A repeated call continues where it was interrupted.

    Parameters
    ----------
    cohort : Cohort
        Prepared with `Cohort.prepare`. Its labels are not used.
    atlas : str or Path
        Labels image in MNI152, or a name of `xai_brain.atlas.atlas.FETCHERS`.
    regions : sequence of str, optional
        Names of the atlas; a name without its side (``Hippocampus`` for ``Hippocampus_L``) is both sides.
        Default: those of ``conf/experiment/siegel.yaml``, which are named as in the DLMUSE atlas.
    methods : sequence of str, class or functools.partial, optional
        As in `Study.explain`; default: those of ``conf/experiment/siegel.yaml``. The baselines that use no
        network, CorrelationMap and OppositeDifference, are always added.
    columns : sequence of str, optional
        Columns of the cohort's table with a measure of each region, such as volumes. Default: planted doses.
    kind : {"intensity", "volume"}, default "intensity"
        What a dose changes, in the label of the region only.
    size : float, optional
        Change by a dose of one standard deviation: of intensity in standard deviations of the region's mean
        over participants, of volume in percent. Default: that of ``conf/experiment/siegel.yaml``.
    atlas_table : str or Path, optional
        Names of the labels; default: the table beside the image.
    run_dir : str or Path, default "outputs/regional_benchmark"
    model : str, default "shallow"
        A name of ``conf/model``.
    model_settings : mapping, optional
        Arguments of the network.
    test_fraction : float, optional
        Share of the participants that are tested and explained.
    trainer : mapping, optional
        Fields of `xai_brain.config.training.TrainerConfig`, such as ``{"max_epochs": 20}``.
    n_bootstrap : int, default 1000
    overwrite : bool, default False
        Replace results in `run_dir` that were made with other settings.

    Returns
    -------
    RegionalBenchmark

    Examples
    --------
    >>> result = regional_benchmark(
    ...     cohort, "labels.nii.gz", ["Hippocampus", "Putamen"], methods=["Saliency"]
    ... )  # doctest: +SKIP
    """
    from xai_brain.study.regional.benchmark import regional_run

    choices, values = cohort.settings()
    choices = {name: choice for name, choice in choices.items() if name != "task"}
    values = {name: value for name, value in values.items() if not name.startswith("task")}
    unused = ("label", "class_names", "threshold", "bins", "brain_size_column")
    values |= {f"data.{name}": None for name in unused if f"data.{name}" in values}
    folder = Path(run_dir).expanduser()
    choices |= {"experiment": "siegel", "model": model}
    given = {
        "regional.atlas_table": None if atlas_table is None else str(atlas_table),
        "regional.regions": None if regions is None else [str(region) for region in regions],
        "regional.columns": None if columns is None else [str(column) for column in columns],
        "regional.size": size,
        "folds.test_fraction": test_fraction,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    values |= {"data.label": None, "regional.atlas": str(atlas), "regional.kind": kind}
    values |= {f"model.{name}": value for name, value in (model_settings or {}).items()}
    values |= {f"trainer.{name}": value for name, value in (trainer or {}).items()}
    values |= {"run_dir": str(folder), "name": folder.resolve().name, "overwrite": overwrite}
    values |= {"evaluation.n_bootstrap": n_bootstrap}
    if methods is not None:
        usual = build_settings(choices, values).attribution
        baselines = [name for name in BASELINES if name in usual] or list(BASELINES)
        chosen = method_settings([*methods, *baselines], usual)
        trusted = {*values.get("trusted_modules", []), *foreign_packages(chosen)}
        values |= {"attribution": chosen, "trusted_modules": sorted(trusted)}
    config = build_settings(choices, values)
    stage(regional_run)(config)
    return RegionalBenchmark(folder, trusted_modules=list(config.trusted_modules))


class RegionalBenchmark:
    """Scores of methods in regions of an atlas; made by `regional_benchmark` or read from its folder.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.

    Examples
    --------
    >>> RegionalBenchmark("outputs/siegel").table  # doctest: +SKIP
    """

    def __init__(self, run_dir: str | Path, *, trusted_modules: Sequence[str] = ()):
        self._run = RunDirectory(Path(run_dir).expanduser())
        self._trusted = list(trusted_modules)
        if not (self._run.path / "siegel.tsv").exists():
            raise ConfigError(
                f"{self._run.path}: has no regional benchmark; call xai_brain.regional_benchmark first"
            )

    @property
    def run_dir(self) -> Path:
        """Folder of all results; ``regions/<Region>`` below it is the run of a region."""
        return self._run.path

    @property
    def table(self) -> pd.DataFrame:
        """Means over participants: region, method, metric, mean, ci_low, ci_high, n, chance."""
        return read_tsv(self._run.path / "siegel.tsv")

    @property
    def learned_regions(self) -> list[str]:
        """Regions whose network has learned its measure: the interval of the test correlation is above 0."""
        return learned_regions(networks_of_table(self.table))

    def study(self, region: str) -> Study:
        """The network of a region, with its predictions and maps."""
        return Study(self._run.path / "regions" / column_of(region), trusted_modules=self._trusted)

    @property
    def report(self) -> ReportPage:
        """The page with figure, tables and published values."""
        return ReportPage(self._run.report)

    def plot(self) -> Figure:
        """Mean relevance mass accuracy of each method, and that of each region.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from xai_brain.reporting.benchmarks.regional import PUBLISHED_METHODS
        from xai_brain.reporting.figures.regional import regional_figure
        from xai_brain.reporting.figures.style import style
        from xai_brain.study.benchmarks.units import kinds_of
        from xai_brain.study.inline import show_inline

        kinds = kinds_of(open_settings(self._run.path, self._trusted))
        with style():
            return show_inline(regional_figure(self.table, kinds, PUBLISHED_METHODS))

    def _means(self) -> pd.DataFrame:
        table = self.table
        shown = table["region"].isin([ALL_REGIONS, LEARNT_REGIONS]) & (table["metric"] == "rma")
        return table[shown & (table["method"] != NETWORK)]

    def __repr__(self) -> str:
        means = self._means()
        means = means[means["region"] == ALL_REGIONS].sort_values("mean", ascending=False)
        best = ", ".join(f"{row.method} {row.mean:.2f}" for row in means.head(3).itertuples())
        n = len(networks_of_table(self.table))
        return f"RegionalBenchmark({len(self.learned_regions)} of {n} regions learned; mean RMA: {best})"

    def _repr_html_(self) -> str:
        return str(self._means().to_html(index=False))
