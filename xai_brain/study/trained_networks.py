"""The trained networks of a study and their inputs, read from disk on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xai_brain.config.build import valid_choice
from xai_brain.config.saved import open_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.seeds import counted_from_one
from xai_brain.study.participants import prepared_cohort, same_cohort

if TYPE_CHECKING:
    import torch

    from xai_brain.attribution.reference import Reference
    from xai_brain.models.calibrated import CalibratedNetwork


class TrainedNetworks:
    """Networks of all folds and seeds of a study; see `xai_brain.Study`.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.
    """

    def __init__(self, run_dir: str | Path, *, trusted_modules: Sequence[str] = ()):
        self._run = RunDirectory(Path(run_dir).expanduser())
        self._trusted = list(trusted_modules)
        if not self._run.config.exists():
            raise ConfigError(f"{self._run.path}: there is no study; xai_brain.cross_validate makes one")
        config = self._settings()
        self.seeds: list[int] = [int(seed) for seed in config.seeds]
        if not self._run.predictions.exists():
            raise ConfigError(f"{self._run.path}: the networks are not trained; call cross_validate first")

    @property
    def run_dir(self) -> Path:
        """Folder of all results."""
        return self._run.path

    def network(self, fold: int, *, seed: int | None = None) -> CalibratedNetwork:
        """Trained network of one fold, in evaluation mode on the CPU; it returns calibrated logits.

        Parameters
        ----------
        fold : int
            From 1, as in `Study.predictions`.
        seed : int, optional
            Default: the first.

        Raises
        ------
        ConfigError
            There is no such fold or seed; the valid ones are listed.

        Examples
        --------
        >>> study.network(fold=1).output_names
        ['female', 'male']
        """
        from xai_brain.study.training.networks import load_classifier

        return load_classifier(self._run.checkpoint(*self._fold_and_seed(fold, seed)))

    def history(self, fold: int, *, seed: int | None = None) -> pd.DataFrame:
        """Training curve of one network: epoch, metric and value.

        Parameters
        ----------
        fold, seed
            As in `network`.

        Examples
        --------
        >>> list(study.history(fold=1).columns)
        ['epoch', 'metric', 'value']
        """
        return read_tsv(self._run.history(*self._fold_and_seed(fold, seed)))

    def inputs(self, participant_ids: Sequence[str]) -> torch.Tensor:
        """Prepared volumes of participants as the networks receive them, with planted effects.

        Parameters
        ----------
        participant_ids : sequence of str
            All sessions of a participant are returned, one after the other.

        Returns
        -------
        torch.Tensor of shape (N, 1, X, Y, Z), float32

        Raises
        ------
        ConfigError
            There is no such participant.

        Examples
        --------
        >>> study.inputs(["sub-0001", "sub-0002"]).shape
        torch.Size([2, 1, 46, 55, 46])
        """
        import torch

        paths = self._cohort(self._settings()).groupby("participant_id")["volume_path"].apply(list)
        for participant_id in participant_ids:
            valid_choice("participant", participant_id, paths.index)
        volumes = [np.load(path) for participant_id in participant_ids for path in paths[participant_id]]
        return torch.from_numpy(np.stack(volumes))[:, None]

    def reference(self, fold: int, *, seed: int | None = None, n_volumes: int = 32) -> Reference:
        """Class means and a sample of the training participants of one network, for methods that use them.

        Parameters
        ----------
        fold, seed
            As in `network`.
        n_volumes : int, default 32
            Size of the sample.

        Returns
        -------
        xai_brain.Reference

        Examples
        --------
        >>> study.reference(fold=1).class_means.shape  # one mean per class
        torch.Size([2, 1, 46, 55, 46])
        """
        from xai_brain.study.explanation.batches import build_reference
        from xai_brain.study.training.networks import load_networks, training_subjects

        index, seed = self._fold_and_seed(fold, seed)
        config = self._settings()
        networks = load_networks(config, self._run)[seed, index]
        train = next(
            training_subjects(config, self._run, self._cohort(config).reset_index(drop=True), networks)
        )
        network = self.network(fold, seed=seed)
        grid = get_grid(config.preprocessing.grid)
        return build_reference(train, network.task, n_volumes, grid).of_network(network)

    # -- internal ------------------------------------------------------------------------------
    def _fold_and_seed(self, fold: int, seed: int | None) -> tuple[int, int]:
        seed = self.seeds[0] if seed is None else seed
        valid_choice("seed", seed, self.seeds)
        folds = counted_from_one(read_tsv(self._run.predictions)["fold"])
        valid_choice("fold", fold, sorted(int(k) for k in folds.unique()))
        return fold - 1, seed

    def _cohort(self, config: Config) -> pd.DataFrame:
        return same_cohort(prepared_cohort(config, self._run), self._run)

    def _settings(self) -> Config:
        return open_settings(self._run.path, self._trusted)
