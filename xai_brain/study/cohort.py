"""Cohort: participants with their images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xai_brain.config.build import build_settings, choices_of, valid_choice
from xai_brain.config.setting import ConfigError
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.io.nifti import GRIDS, get_grid
from xai_brain.io.problems import Problems
from xai_brain.io.tables import with_numbers
from xai_brain.study.methods import foreign_packages
from xai_brain.study.participants import find_participants, prepare_volumes, task_of
from xai_brain.task.protocol import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_cohort(
    layout: str,
    root: str | Path | None = None,
    *,
    label: str = "sex",
    task: str | type[Task] = "classification",
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
    bins: Sequence[float] | None = None,
    space: str | None = None,
    orientation: str | None = None,
    space_check: str = "error",
    brain_size_column: str | None = None,
    on_error: str = "raise",
    cache_dir: str | Path | None = None,
    **layout_settings: Any,
) -> Cohort:
    """Find the images and labels of a cohort.

    Parameters
    ----------
    layout : {"bids", "caps", "hcp", "ixi", "oasis", "synthetic", "table"}
        How the folder is organised. ``synthetic`` is the embedded cohort, which needs no files: two classes
        that differ at one known location.
    root : str or Path, optional
        Folder of the cohort; not needed for ``synthetic`` and ``oasis``.
    label : str, default "sex"
        Column that contains the classes or, with ``task="regression"``, the number that is predicted.
    task : str or class, default "classification"
        A name of ``conf/task`` such as ``"regression"``, or a subclass of `xai_brain.task.protocol.Task`
        that can be imported.
    class_names : sequence of str, optional
        Classes in the order of their index; default: sorted. Participants of other classes are unusable.
    threshold : float, optional
        Splits a numeric label into two classes: ``label="age", threshold=60``.
    bins : sequence of float, optional
        Upper limits of all classes except the last, such as ``[40, 60]``.
    space : str, optional
        Space of images whose names do not state it, such as ``MNI152NLin6Asym``.
    orientation : str, optional
        Directions of the voxel axes, such as ``LAS``, for files that do not state them.
    space_check : {"error", "warn"}, default "error"
        Reaction to images that are labelled as MNI152 but disagree with the template.
    brain_size_column : str, optional
        Column that contains the size of the brain, for the baseline that uses brain size only.
    on_error : {"raise", "skip"}, default "raise"
        ``skip`` excludes unusable participants; they are listed in `Cohort.excluded`.
    cache_dir : str or Path, optional
        Folder of prepared volumes; default: ``$XAI_BRAIN_CACHE``, else ``~/.cache/xai_brain``.
    **layout_settings
        Further settings of the layout: ``tables`` and ``entities`` (bids, caps), ``image`` (hcp, ixi),
        ``n_subjects`` (oasis, synthetic), and the fields of
        `xai_brain.data.layouts.synthetic.SyntheticSettings` (synthetic).

    Returns
    -------
    Cohort

    Raises
    ------
    DataError, ConfigError
        The message names the file or argument, what is wrong, and the valid names.

    Examples
    --------
    >>> cohort = load_cohort("synthetic", n_subjects=12)
    >>> cohort
    Cohort(12 participants: 6 female, 6 male; not prepared)
    >>> cohort = load_cohort("bids", "/data/mine", label="age", task="regression")  # doctest: +SKIP
    """
    valid_choice("layout", layout, choices_of("data"))
    if root is None and layout not in ("synthetic", "oasis"):
        raise ConfigError(f"load_cohort({layout!r}): root is needed, the folder of the cohort")
    given = {
        "root": None if root is None else str(root),
        "label": label,
        "class_names": None if class_names is None else list(class_names),
        "threshold": threshold,
        "bins": None if bins is None else [float(end) for end in bins],
        "space": space,
        "orientation": orientation,
        "space_check": space_check,
        "brain_size_column": brain_size_column,
        "on_error": on_error,
        "cache_dir": None if cache_dir is None else str(cache_dir),
    }
    if layout == "synthetic":
        for name in layout_settings:
            valid_choice(
                "setting of the synthetic cohort:", name, [each.name for each in fields(SyntheticSettings)]
            )
        of_layout = {f"data.cohort.{name}": value for name, value in layout_settings.items()}
        given = {name: value for name, value in given.items() if name not in ("root", "class_names")}
    else:
        of_layout = {f"data.{name}": value for name, value in layout_settings.items()}
    values = {f"data.{name}": value for name, value in given.items()} | of_layout
    choices = {"data": layout}
    if isinstance(task, str):
        choices["task"] = task
    else:
        own = {"_target_": f"{task.__module__}.{task.__qualname__}"}
        values |= {"task": own, "trusted_modules": sorted(foreign_packages({task.__name__: own}))}
        values |= {"data.class_names": None} if class_names is None else {}
    config = build_settings(choices, values)
    problems = Problems(config.data.on_error)
    table = find_participants(config, problems)
    return Cohort(table, choices, values, problems.table(), task_of(config, table))


class Cohort:
    """Participants with their images and labels; made by `load_cohort`.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per image: participant_id, session_id, t1w_path, label, target, and further columns such as
        age (years), sex and site. Columns whose values are all numbers are numeric; identifiers, labels,
        sites and codes with leading zeros are text.
    choices, values : mapping
        Settings with which the cohort was found.
    excluded : pandas.DataFrame
        participant_id, path and reason of unusable inputs.
    task : Task
        Task with the names of the classes.
    grid : str, optional
        Grid of the prepared volumes; None before `prepare`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        choices: Mapping[str, str],
        values: Mapping[str, Any],
        excluded: pd.DataFrame,
        task: Task,
        grid: str | None = None,
    ):
        self._choices, self._values, self._task = dict(choices), dict(values), task
        self.table, self.excluded, self.grid = with_numbers(table, self._text_columns()), excluded, grid

    @property
    def class_names(self) -> list[str]:
        """Classes in the order of their index; for tasks without classes, the names of the outputs."""
        return list(self._task.names)

    def _text_columns(self) -> list[str]:
        """Columns that stay text although their values may be numbers."""
        is_measurement = any(self._values.get(f"data.{name}") for name in ("threshold", "bins"))
        label = [] if is_measurement else [str(self._values.get("data.label"))]
        return ["label", "sex", "site", "space", "sha256", "space_warning", *label]

    def prepare(
        self,
        grid: str = "t1w_58x70x58",
        *,
        scaling: str = "zscore",
        antialias: bool = True,
        brain: str = "image",
        brain_median: float | None = None,
        raw: bool = False,
        skull_stripped: bool = False,
        alignment: str = "affine",
        n_jobs: int | None = None,
    ) -> Cohort:
        """Resample all images to one grid in MNI152 mm and scale their intensities; results are cached.

        Parameters
        ----------
        grid : str, default "t1w_58x70x58"
            One of `xai_brain.io.nifti.GRIDS`.
        scaling, antialias, brain, brain_median, raw, skull_stripped, alignment
            See `xai_brain.data.preprocessing.PreprocessingConfig`.
        n_jobs : int, optional
            Processes; default: one per core.

        Returns
        -------
        Cohort
            With volume_path and volume_mask_path (.npy, shape of the grid) in its table.

        Examples
        --------
        >>> cohort = cohort.prepare("t1w_4mm")  # doctest: +SKIP
        >>> cohort.grid
        't1w_4mm'
        """
        valid_choice("grid", grid, GRIDS)
        settings = {
            "grid": grid,
            "scaling": scaling,
            "antialias": antialias,
            "brain": brain,
            "brain_median": brain_median,
            "raw": raw,
            "skull_stripped": skull_stripped,
            "alignment": alignment,
        }
        values = {**self._values, **{f"preprocessing.{name}": value for name, value in settings.items()}}
        config = build_settings(self._choices, {**values, "data.num_workers": n_jobs})
        problems = Problems(config.data.on_error, self.excluded.to_dict("records"))
        columns = [name for name in self.table if name not in ("volume_path", "volume_mask_path", "sha256")]
        columns = [name for name in columns if name not in ("alignment_path", "space_warning")]
        table = prepare_volumes(config, self.table[columns], problems)
        return Cohort(table, self._choices, values, problems.table(), self._task, grid)

    @property
    def affine(self) -> np.ndarray:
        """Affine from voxels of the prepared volumes to MNI152 mm, (4, 4)."""
        self.settings()  # raises an error for a cohort that is not prepared
        return get_grid(str(self.grid)).affine

    def volumes(self) -> np.ndarray:
        """Prepared volumes in the order of `table`.

        Returns
        -------
        ndarray of shape (N, X, Y, Z), float32
            0 outside the brain.

        Examples
        --------
        >>> cohort.volumes().shape
        (16, 46, 55, 46)
        """
        self.settings()
        return np.stack([np.load(path) for path in self.table["volume_path"]])

    def plot(self, columns: Sequence[str] = ("age",)) -> Figure:
        """Distribution of numeric columns in each class.

        Parameters
        ----------
        columns : sequence of str, default ("age",)

        Returns
        -------
        matplotlib.figure.Figure
        """
        from xai_brain.reporting.figures.scores import cohort_figure
        from xai_brain.reporting.figures.style import style
        from xai_brain.study.inline import show_inline

        for column in columns:
            valid_choice("column", column, self.table.columns)
        labels = {name: "age (years)" if name == "age" else name for name in columns}
        with style():
            return show_inline(cohort_figure(self.table, labels, self.class_names))

    def settings(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Configuration choices and values that reproduce the cohort in a study.

        Raises
        ------
        ConfigError
            The cohort is not prepared.
        """
        if self.grid is None:
            raise ConfigError(
                f"the cohort is not prepared: call cohort.prepare(grid) first; grids are {', '.join(GRIDS)}"
            )
        return dict(self._choices), dict(self._values)

    def __len__(self) -> int:
        return int(self.table["participant_id"].nunique())

    def __repr__(self) -> str:
        state = "not prepared" if self.grid is None else f"grid {self.grid}"
        return f"Cohort({len(self)} participants: {self._task.describe(self.table)}; {state})"

    def _repr_html_(self) -> str:
        hidden = [name for name in self.table if str(name).endswith("_path") or name == "sha256"]
        shown = self.table.drop(columns=hidden)
        return f"<p>{self!r}</p>" + str(shown.to_html(max_rows=10, index=False))
