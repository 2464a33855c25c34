"""Trained networks that predict a participant: that of its fold, or all of another run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.config.inputs import require_networks
from xai_brain.config.saved import saved_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import get_grid
from xai_brain.models.calibrated import CalibratedNetwork, read_checkpoint
from xai_brain.models.networks.archive import archive_kind
from xai_brain.models.standardization import use_statistics
from xai_brain.models.weights import WeightsError, is_calibrated, read_weights_file
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.folds import split_prepared_fold

ALL = (0, 0)  # seed and fold of new participants: predictions are averaged over networks

# errors for a file that can be read but is not a checkpoint of a `BrainClassifier`
NOT_A_CHECKPOINT = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ImportError)


@dataclass(frozen=True)
class Network:
    """One checkpoint of a run, or a file of weights."""

    checkpoint: Path
    seed: int
    fold: int
    sha256: str

    def load(self, config: Config) -> CalibratedNetwork:
        """Load the network in evaluation mode, on the device of the settings."""
        gpu = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
        device = torch.device("cuda" if gpu else "cpu")
        if is_weights_file(config) and not is_checkpoint(self.checkpoint):
            network = _load_weights(self.checkpoint, config).to(device)
        else:
            network = load_classifier(self.checkpoint, device)
        if config.adapt:
            if not (path := RunDirectory(Path(config.run_dir)).standardization).exists():
                raise ConfigError(f"{path}: does not exist; run `xai-brain predict` again in another run_dir")
            with np.load(path) as found:
                use_statistics(network, *(torch.from_numpy(found[key]) for key in ("mean", "inverse_sd")))
        return network


def is_weights_file(config: Config) -> bool:
    """Whether `config.networks` names a file of weights, not the folder of a run."""
    return bool(config.networks) and config.networks_path.is_file()


def is_checkpoint(path: Path) -> bool:
    """Whether a file of weights is a checkpoint of this project, with its settings."""
    if archive_kind(path):
        return False
    content = read_weights_file(path)
    return is_calibrated(path) and "hyper_parameters" in content


def _load_weights(path: Path, config: Config) -> CalibratedNetwork:
    """The network of the settings with the weights of a file; its temperature is 1."""
    network = {**config.model, "weights": str(path)}
    shape = list(get_grid(config.preprocessing.grid).shape)
    try:
        return CalibratedNetwork(network, config.data.class_names or [], shape, task=config.task).eval()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"networks={path}: {str(error).removeprefix(f'{path}: ')}") from error


def load_classifier(path: Path, device: torch.device | str = "cpu") -> CalibratedNetwork:
    """Load a checkpoint in evaluation mode, without running code from it.

    Raises
    ------
    ConfigError
        It is damaged, not a checkpoint of a `BrainClassifier`, or contains more than numbers and settings.
    """
    again = "run `xai-brain train` again"
    if not path.exists():
        raise ConfigError(f"{path}: does not exist; {again}")
    try:
        return read_checkpoint(path, device)
    except PermissionError:
        raise
    except WeightsError as error:
        raise ConfigError(f"{error}; remove it and {again}") from error
    except NOT_A_CHECKPOINT as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{path}: cannot be used as a checkpoint ({reason[0]}); remove it and {again}"
        ) from error


def load_networks(config: Config, run: RunDirectory) -> dict[tuple[int, int], list[Network]]:
    """Networks that made the rows of predictions.tsv, by seed and fold.

    Raises
    ------
    ConfigError
        A checkpoint is missing.
    """
    if config.networks:
        found = trained_networks(config)
        if [n.sha256 for n in found] != list(read_json(run.provenance)["networks_sha256"].values()):
            raise ConfigError(
                f"networks={config.networks}: are not those that made {run.predictions}; predict again"
            )
        return {ALL: found}
    folds = fold_numbers(first_repeat(read_tsv(run.folds)))
    own = _checkpoints(run, list(config.seeds), explained_seeds(config), folds)
    return {(network.seed, network.fold): [network] for network in own}


def trained_networks(config: Config) -> list[Network]:
    """Networks of the run that `config.networks` names, of every seed, repeat and fold; or that of a file."""
    if is_weights_file(config):
        path = config.networks_path
        return [Network(path, *ALL, file_hash(path))]
    settings, run = trained_run(config)
    seeds = list(settings.seeds)
    return list(_checkpoints(run, seeds, seeds, fold_numbers(read_tsv(run.folds))))


def trained_run(config: Config) -> tuple[Config, RunDirectory]:
    """Settings and directory of the run whose networks are used.

    Raises
    ------
    ConfigError
        It is not a run, or its training is not complete.
    """
    require_networks(str(config.networks))
    run = RunDirectory(config.networks_path)
    settings = saved_settings(run.config)
    if settings.networks:
        raise ConfigError(f"networks={config.networks}: has no networks of its own, name {settings.networks}")
    if not run.predictions.exists():
        raise ConfigError(
            f"networks={config.networks}: its training is not complete; run `xai-brain train` first"
        )
    return settings, run


def explained_seeds(config: Config) -> list[int]:
    """Seeds whose maps are made."""
    seeds = list(config.seeds) if config.explain.seeds is None else list(config.explain.seeds)
    if unknown := sorted(set(seeds) - set(config.seeds)):
        raise ConfigError(f"explain.seeds={seeds}: {unknown} were not trained (seeds={list(config.seeds)})")
    return seeds


def training_subjects(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, networks: list[Network]
) -> Iterator[pd.DataFrame]:
    """Rows of the prepared cohort that each network was trained on."""
    if config.networks:  # participants of another run
        config, run = trained_run(config)
        cohort = same_cohort(prepared_cohort(config, run), run)
    folds = read_tsv(run.folds)
    for network in networks:
        yield split_prepared_fold(config, cohort, folds, network.fold, network.seed)["train"]


def networks_hash(networks: list[Network]) -> str:
    """Hash of one checkpoint, or of all checkpoints together."""
    if len(networks) == 1:
        return networks[0].sha256
    return sha256("".join(network.sha256 for network in networks).encode()).hexdigest()


def describe_networks(networks: list[Network]) -> dict[str, Any]:
    """Description of the networks of a map, for its sidecar."""
    if len(networks) == 1:
        return {
            "Fold": networks[0].fold,
            "Seed": networks[0].seed,
            "CheckpointSHA256": networks[0].sha256,
        }
    return {
        "NumberOfNetworks": len(networks),
        "Networks": [describe_networks([network]) for network in networks],
        "Combination": "mean of the networks' maps",
        "CheckpointSHA256": networks_hash(networks),
    }


def _checkpoints(
    run: RunDirectory, all_seeds: list[int], seeds: list[int], folds: list[int]
) -> Iterator[Network]:
    for seed in seeds:
        for fold in folds:
            path = run.checkpoint(fold, seed)
            if not path.exists():
                raise ConfigError(f"{path}: does not exist; run `xai-brain train` again")
            yield Network(path, int(seed), int(fold), file_hash(path))
