"""Maps of one method for one batch of participants, and their sidecars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.memory import peak_memory, reset_peak_memory
from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.protocol import method_info
from xai_brain.attribution.reference import Reference
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import Grid, get_grid, save_img
from xai_brain.io.problems import DataError, named
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.parallel.progress import track
from xai_brain.parallel.threads import ReadAhead, start_writing
from xai_brain.runs.derivatives import COHORT, bids_uri, map_record
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, sidecar, write_json
from xai_brain.runs.provenance import git_commit, versions
from xai_brain.study.explanation.configured_methods import parameters_of
from xai_brain.study.explanation.continuous_target import target_distribution
from xai_brain.study.participants import cohort_root, relative_path
from xai_brain.task.protocol import Task


@dataclass(frozen=True, eq=False)
class Batch:
    """Test participants of one fold and seed that are explained together.

    The batches do not depend on existing maps, so that a resumed run gives the same values.
    """

    seed: int
    fold: int
    rows: pd.DataFrame  # rows of predictions.tsv


def map_path(config: Config, run: RunDirectory, row: Any, label: str) -> Any:
    return run.attribution(row.participant_id, row.session_id, label, row.seed)


def is_current(
    config: Config, run: RunDirectory, row: Any, label: str, networks: dict[tuple[int, int], str]
) -> bool:
    """Whether the map of a row of predictions.tsv exists and was made by the current network."""
    path = map_path(config, run, row, label)
    if not path.exists() or not sidecar(path).exists():
        return False
    return read_json(sidecar(path))["CheckpointSHA256"] == networks[row.seed, row.fold]


def build_reference(train: pd.DataFrame, task: Task, n_volumes: int, grid: Grid) -> Reference:
    """Class statistics and a sample of the training participants of a fold, one volume in memory at a time.

    Parameters
    ----------
    train : pandas.DataFrame
        target, volume_path and volume_mask_path.
    task : Task
        Determines the groups whose means are computed, for classification the classes; of a continuous
        target there is its distribution.
    n_volumes : int
        Size of the sample.
    grid : Grid
    """
    train = train.assign(group=task.reference_groups(train["target"]))
    n_groups = int(train["group"].max()) + 1
    of_class = [train[train["group"] == k]["volume_path"] for k in range(n_groups)]
    moments = [
        mean_and_variance(
            track(paths.tolist(), f"reference volumes, class {k}/{n_groups}", "images", brief=True)
        )
        for k, paths in enumerate(of_class, 1)
    ]
    sample = train.groupby("group", group_keys=False).head(max(n_volumes // n_groups, 1))
    brain_mask = np.any([np.load(path, mmap_mode="r") for path in train["volume_mask_path"]], axis=0)
    x, y, z = grid.spacing_mm.tolist()
    distribution = None
    if task.standardizes_targets:
        shown = partial(track, description="reference volumes, target", unit="images", brief=True)
        distribution = target_distribution(train, load_volume, shown)
    return Reference(
        class_means=torch.from_numpy(np.stack([mean for mean, _ in moments]))[:, None],
        volumes=torch.from_numpy(np.stack([load_volume(path) for path in sample["volume_path"]]))[:, None],
        targets=torch.tensor(sample["group"].tolist()),
        brain_mask=torch.from_numpy(brain_mask),
        voxel_size_mm=(x, y, z),
        class_variances=torch.from_numpy(np.stack([variance for _, variance in moments]))[:, None],
        class_counts=torch.tensor([len(paths) for paths in of_class]),
        affine=torch.from_numpy(grid.affine),
        distribution=distribution,
    )


def mean_and_variance(paths: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Voxel-wise mean and unbiased variance (0 for a single volume), float32, by Welford's recurrence."""
    mean = squares = np.zeros(())  # takes the shape of a volume
    n = 0
    for n, path in enumerate(paths, 1):
        volume = load_volume(path).astype(np.float64)
        change = volume - mean
        mean = mean + change / n
        squares = squares + change * (volume - mean)
    return mean.astype(np.float32), (squares / max(n - 1, 1)).astype(np.float32)


def load_volume(path: str) -> np.ndarray:
    """A prepared volume, (X, Y, Z) float32, in memory."""
    return np.array(np.load(path, mmap_mode="r"))


@dataclass(frozen=True)
class Explainer:
    """A method on one network."""

    classifier: CalibratedNetwork
    method: Any  # object with ``attribute(inputs, target)``
    output: str  # one of the outputs of the task, e.g. logit


def rows_of(cohort: pd.DataFrame, batch: Batch) -> list[Any]:
    """Rows of the cohort's table of the participants of a batch."""
    keys = cohort.set_index(["participant_id", "session_id"])
    return [keys.loc[(row.participant_id, row.session_id)] for row in batch.rows.itertuples()]


def load_inputs(cohort: pd.DataFrame, device: torch.device, batch: Batch) -> torch.Tensor:
    """Prepared volumes of a batch in the memory of the host, (N, 1, X, Y, Z)."""
    volumes = np.stack([load_volume(row["volume_path"]) for row in rows_of(cohort, batch)])
    inputs = torch.from_numpy(volumes)[:, None]
    return inputs.pin_memory() if device.type == "cuda" else inputs


def explain_batch(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    batch: Batch,
    label: str,
    explainers: list[Explainer],
    about: dict[str, Any],
    volumes: ReadAhead[Batch, torch.Tensor],
) -> Callable[[], None]:
    """Compute the maps of a batch and begin to save them; for several networks the mean map.

    Of several networks the class of their mean prediction is explained. The explained class is taken from
    predictions.tsv and not predicted again, because rounding may differ between batch sizes.

    Returns
    -------
    function
        Waits until all maps are written.
    """
    rows = rows_of(cohort, batch)
    device = next(explainers[0].classifier.parameters()).device
    inputs = volumes.get(batch).to(device, non_blocking=True)
    reset_peak_memory(device)
    task = explainers[0].classifier.task
    predicted = batch.rows[task.columns].to_numpy(float)
    explained = task.explained_targets(config.explain.target, predicted, batch.rows["target"].to_numpy())
    targets = torch.from_numpy(explained).to(inputs.device)
    maps, details = mean_maps(explainers, inputs, targets, label, seed_of(batch))
    about = {**about, **peak_memory(device)}
    refuse_non_finite(maps, batch, label, len(explainers))
    affine, parameters = get_grid(config.preprocessing.grid).affine, parameters_of(config, label)
    info, root = method_info(explainers[0].method), cohort_root(config)

    def save(each: tuple[Any, ...]) -> None:
        row, of_cohort, values, target, prediction, detail = each
        path = map_path(config, run, row, label)
        if is_current(config, run, row, label, {(batch.seed, batch.fold): about["CheckpointSHA256"]}):
            return
        sidecar(path).unlink(missing_ok=True)  # a map without sidecar counts as missing
        voxels = values[0].numpy()
        save_img(voxels, affine, path, space=SPACE)
        target_record = task.target_record(int(target), prediction)
        source = bids_uri(COHORT, relative_path(of_cohort["t1w_path"], root))
        about_map = {
            **map_record(SPACE, [source], f"Attribution map of {target_record['TargetName']} by {label}"),
            "ParticipantId": row.participant_id,
            "MapSHA256": file_hash(path),
            "InputSHA256": str(of_cohort["sha256"]),
            "Method": label,
            "Kind": "baseline" if info.is_baseline else "method",
            "Parameters": parameters,
            **target_record,
            "TargetRule": task.target_rule(config.explain.target),
            "Output": explainers[0].output,
            "Empty": not voxels.any(),
            "ValueMeaning": info.value_meaning,
            "MultipliesByInputs": info.multiplies_by_inputs,
            "Citation": info.citation,
            **({"Details": detail} if detail else {}),
            **about,
            "Versions": versions(),
            "GitCommit": git_commit(),
        }
        write_json(about_map, sidecar(path))

    of_each = (batch.rows.itertuples(), rows, maps, explained, predicted, details)
    return start_writing(save, zip(*of_each, strict=True))


def refuse_non_finite(maps: torch.Tensor, batch: Batch, label: str, n_networks: int) -> None:
    broken = (~maps.isfinite()).flatten(1).any(1).numpy()
    if broken.any():
        participants = named(batch.rows["participant_id"][broken].tolist())
        network = (
            f"network of seed {batch.seed}, fold {batch.fold + 1}" if n_networks == 1 else "mean of networks"
        )
        raise DataError(
            f"attribution.{label}: the maps of {participants} contain NaN or infinite values ({network}); "
            f"remove the method with ~attribution.{label}, or train again"
        )


def seed_of(batch: Batch) -> int:
    """Seed for methods that draw random numbers; it does not depend on other batches."""
    return hash((batch.seed, batch.fold, int(batch.rows.index[0]))) % 2**31


def mean_maps(
    explainers: list[Explainer], inputs: torch.Tensor, targets: torch.Tensor, label: str, seed: int
) -> tuple[torch.Tensor, list[Any]]:
    """Mean of the maps over networks, and the details that the method returns for each participant."""
    total, all_details = torch.zeros(inputs.shape), []
    for explainer in explainers:
        torch.manual_seed(seed)
        try:
            with preserved(explainer.classifier):  # other packages may not restore the network
                maps, details = attribute_with_details(
                    explainer.method, inputs.detach().requires_grad_(), targets
                )
        except AttributionError as error:
            raise AttributionError(
                f"attribution.{label}: {error}; '~attribution.{label}' removes the method"
            ) from error
        if maps.shape != inputs.shape:
            raise ConfigError(
                f"attribution.{label}: gave shape {tuple(maps.shape)} for inputs {tuple(inputs.shape)}"
            )
        total += maps / len(explainers)
        all_details.append(details)
    if len(explainers) == 1:
        return total, all_details[0]
    return total, [list(each) if any(each) else {} for each in zip(*all_details, strict=True)]


def attribute_with_details(
    method: Any, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Maps, and the details of each participant if the method returns any."""
    if hasattr(method, "attribute_with_details"):
        maps, details = method.attribute_with_details(inputs, target=targets)
    else:
        maps, details = method.attribute(inputs, target=targets), [{}] * len(inputs)
    return maps.detach().cpu().float(), details
