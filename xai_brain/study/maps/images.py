"""Images of the maps of a study, read from disk on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.build import valid_choice
from xai_brain.config.saved import open_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.runs.seeds import counted_from_one
from xai_brain.study.maps.files import find_group_map, mean_of_maps, path_of_channel
from xai_brain.task.labels import class_named


class MapImages:
    """Attribution maps of participants; see `xai_brain.Maps`.

    Parameters
    ----------
    run_dir : str or Path
    methods : sequence of str, optional
        Default: all methods that have maps in the study.
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        methods: Sequence[str] | None = None,
        *,
        trusted_modules: Sequence[str] = (),
    ):
        self._run = RunDirectory(Path(run_dir).expanduser())
        self._trusted = list(trusted_modules)
        if not self._run.config.exists():
            raise ConfigError(f"{self._run.path}: there are no maps; Study.explain makes them")
        self._rows = pd.DataFrame(self._find(self._settings()))
        present = list(dict.fromkeys(self._rows["method"]))
        for method in methods or ():
            valid_choice("method", method, present)
        self.methods: list[str] = list(methods or present)
        self._rows = self._rows[self._rows["method"].isin(self.methods)].reset_index(drop=True)
        self.seeds: list[int] = sorted(int(seed) for seed in self._rows["seed"].unique())
        self.participants: list[str] = sorted(self._rows["participant_id"].unique())
        predictions = read_tsv(self._run.predictions) if self._run.predictions.exists() else ()
        self._in_folds = "fold" in predictions

    @property
    def table(self) -> pd.DataFrame:
        """One row per map.

        Columns: participant_id, session_id (may be empty), seed, fold (from 1; 0 for a network that was not
        trained in folds), label (true class), method,
        path; and from the sidecars: explained (class), probability (of that class), output and empty.

        Examples
        --------
        >>> maps.table["method"].value_counts().to_dict()
        {'GradCAM': 24, 'GuidedBackprop': 24, 'MeaningfulPerturbation': 24}
        """
        columns = {
            "explained": "TargetName",
            "probability": "TargetProbability",
            "output": "Output",
            "empty": "Empty",
        }
        contents = [read_json(sidecar(path)) for path in self._rows["path"]]
        more = {name: [content.get(key) for content in contents] for name, key in columns.items()}
        fold = counted_from_one(self._rows["fold"]) if self._in_folds else 0
        return self._rows.drop(columns="file_state").assign(fold=fold, **more)

    def img(
        self,
        participant_id: str,
        method: str,
        *,
        session_id: str | None = None,
        seed: int | None = None,
        channel: str | None = None,
    ) -> nib.Nifti1Image:
        """Map of one participant.

        Parameters
        ----------
        participant_id : str
        method : str
        session_id : str, optional
            Needed for a participant with several sessions.
        seed : int, optional
            Default: the mean over all seeds.
        channel : str, optional
            One of `channels`; default: the sum over all channels.

        Returns
        -------
        nibabel.Nifti1Image
            float32, shape (X, Y, Z); raw, signed values; the affine maps voxels to mm.

        Raises
        ------
        ConfigError
            A name does not exist; the valid ones are listed.

        Examples
        --------
        >>> maps.img("sub-0001", "GradCAM").shape
        (46, 55, 46)
        """
        rows = self._rows_of_participant(participant_id, session_id, self._select(method, seed))
        paths = rows["path"]
        if channel is not None:
            valid_choice("channel", channel, self.channels)
            paths = paths.map(lambda path: path_of_channel(path, method, channel))
        if len(paths) == 1:
            return load_img(paths.iloc[0])
        return self._as_img(mean_of_maps(paths), paths.iloc[0])

    @property
    def channels(self) -> list[str]:
        """Names of the channels of the inputs; empty for maps of one channel."""
        names = read_json(sidecar(self._rows["path"].iloc[0])).get("Channels") or []
        return list(names) if len(names) > 1 else []

    def sidecar(
        self, participant_id: str, method: str, *, session_id: str | None = None, seed: int | None = None
    ) -> dict[str, Any]:
        """Metadata of a map: explained class and its probability, network, settings and versions.

        Parameters
        ----------
        participant_id, method : str
        session_id : str, optional
            Needed for a participant with several sessions.
        seed : int, optional
            Default: the first.

        Examples
        --------
        >>> maps.sidecar("sub-0001", "GradCAM")["Output"]
        'logit'
        """
        rows = self._rows_of_participant(participant_id, session_id, self._select(method, seed))
        return read_json(sidecar(rows["path"].iloc[0]))

    def t1w_img(self, participant_id: str, *, session_id: str | None = None) -> nib.Nifti1Image:
        """Prepared T1-weighted image of a participant, for display below a map; 0 outside the brain."""
        row = self._rows_of_participant(participant_id, session_id, self._rows).iloc[0]
        return load_img(self._run.image(participant_id, row["session_id"]))

    def truth_img(self, participant_id: str, *, session_id: str | None = None) -> nib.Nifti1Image:
        """Mask of the true location of a planted or synthetic effect in a participant.

        Raises
        ------
        ConfigError
            The true location is not known.
        """
        row = self._rows_of_participant(participant_id, session_id, self._rows).iloc[0]
        path = self._run.image(participant_id, row["session_id"], "mask")
        if not path.exists():
            raise ConfigError(f"the true location of an effect is not known for {participant_id}")
        return load_img(path)

    def mean_img(self, method: str, label: str | None = None, *, seed: int | None = None) -> nib.Nifti1Image:
        """Mean map over participants, of one class or of all.

        Parameters
        ----------
        method : str
        label : str, optional
            True class, of sex also as the table may spell it, such as M for male; default: participants of
            all classes.
        seed : int, optional
            Default: the mean over all seeds.

        Returns
        -------
        nibabel.Nifti1Image
            float32, shape (X, Y, Z).

        Raises
        ------
        ConfigError
            There is no such name, or the maps are not on one grid.

        Examples
        --------
        >>> maps.mean_img("GradCAM", label="male").shape
        (46, 55, 46)
        """
        self._require_common_space("mean_img")
        rows = self._select(method, seed)
        if label is not None:
            names = sorted(rows["label"].unique())
            label = class_named(label, names)
            valid_choice("label", label, names)
            rows = rows[rows["label"] == label]
        total, n = np.zeros(()), 0
        for _, paths in rows.groupby("participant_id", sort=False)["path"]:
            values = mean_of_maps(paths)
            if values.any():
                total, n = total + values, n + 1
        first = rows["path"].iloc[0]
        return self._as_img(total / n if n else np.zeros(load_img(first).shape), first)

    def group_img(self, method: str, what: str | None = None, stat: str = "t") -> nib.Nifti1Image:
        """Statistical map written by `Maps.compare_groups` or an evaluation.

        Parameters
        ----------
        method : str
            Also ``image`` (the prepared images) and ``truth`` (mean of the masks of the true location).
        what : str, optional
            Such as ``male-minus-female`` or ``class-male``; default: the only one with this statistic.
        stat : str, default "t"
            Such as ``t``, ``logpfwe`` or ``mean``.

        Raises
        ------
        ConfigError
            There is no such map; the names of those that exist are listed.

        Examples
        --------
        >>> maps.group_img("GradCAM", "class-male", "mean").shape
        (46, 55, 46)
        """
        return load_img(find_group_map(self._run, method, what, stat))

    # -- internal ------------------------------------------------------------------------------
    def _settings(self) -> Config:
        return open_settings(self._run.path, self._trusted)

    def _find(self, config: Config) -> list[dict[str, Any]]:
        from xai_brain.study.evaluation.found_maps import find_maps

        return find_maps(config, self._run)

    def _select(self, method: str, seed: int | None) -> pd.DataFrame:
        valid_choice("method", method, self.methods)
        rows = self._rows[self._rows["method"] == method]
        if seed is not None:
            valid_choice("seed", seed, self.seeds)
            rows = rows[rows["seed"] == seed]
        return rows

    def _rows_of_participant(
        self, participant_id: str, session_id: str | None, rows: pd.DataFrame
    ) -> pd.DataFrame:
        """Rows of one participant and session."""
        valid_choice("participant", participant_id, self.participants)
        rows = rows[rows["participant_id"] == participant_id]
        sessions = sorted(rows["session_id"].unique())
        if session_id is not None:
            valid_choice(f"session of {participant_id}:", session_id, sessions)
            rows = rows[rows["session_id"] == session_id]
        elif len(sessions) > 1:
            raise ConfigError(
                f"{participant_id} has several sessions; session_id is needed, one of {', '.join(sessions)}"
            )
        if rows.empty:
            raise ConfigError(f"{participant_id} has no such map; Maps.table lists all maps")
        return rows

    def _require_common_space(self, what: str) -> None:
        """Refuse to combine maps of participants voxel by voxel outside of a common space."""
        if not is_mni152(self._run.space):
            raise ConfigError(
                f"{what}: the maps are in the space of each participant ({self._run.space}), so that their "
                "voxels do not correspond; explain images in MNI152 (space=, or a Cohort)"
            )

    def _as_img(self, values: np.ndarray, path: Path) -> nib.Nifti1Image:
        first = load_img(path)
        return nib.Nifti1Image(values.astype(np.float32), first.affine, first.header)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        seeds = f", seeds {', '.join(map(str, self.seeds))}" if len(self.seeds) > 1 else ""
        methods = f"{len(self.methods)} method{'s' if len(self.methods) > 1 else ''}"
        return (
            f"Maps({len(self.participants)} participants x {methods}: {', '.join(self.methods)}{seeds}; "
            f"space {self._run.space})"
        )

    def _repr_html_(self) -> str:
        shown = self._rows.drop(columns=["path", "file_state"])
        return f"<p>{self!r}</p>" + shown.to_html(max_rows=10, index=False)
