"""New participants compared with those that the networks were trained on: distances, and adaptation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.io.atomic import write_atomic
from xai_brain.io.problems import DataError
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.models.last_features import last_features
from xai_brain.models.standardization import volume_statistics
from xai_brain.parallel.progress import log, log_warning, track
from xai_brain.runs.directory import read_tsv
from xai_brain.statistics.confounds.distance import FEWEST, UNUSUAL, distance_p, share_is_high
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.study.training.networks import Network, trained_run

MOST = 200  # training or held-out participants for each network
LEAST_ADAPTED = 20  # images from which mean and SD are estimated
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
TITLES = {"intensity_p": "intensity, contrast and sharpness", "features_p": "the features of the last layer"}


def write_standardization(cohort: pd.DataFrame, path: Path) -> None:
    """Mean and reciprocal standard deviation of the new images, with which the networks are adapted.

    Raises
    ------
    DataError
        There are too few images.
    """
    if len(cohort) < LEAST_ADAPTED:
        raise DataError(
            f"adapt=standardize: {len(cohort)} images; at least {LEAST_ADAPTED} are needed for a mean and a "
            "standard deviation at every voxel"
        )
    volumes = (torch.from_numpy(load_volume(each))[None] for each in cohort["volume_path"])
    mean, inverse_sd = volume_statistics(volumes)
    write_atomic(path, lambda file: np.savez(file, mean=mean.numpy(), inverse_sd=inverse_sd.numpy()))


def distances(config: Config, cohort: pd.DataFrame, networks: list[Network]) -> dict[str, np.ndarray]:
    """Conformal p-values (n,) of new images by `intensity_p` and `features_p`, averaged over networks.

    Each network compares its training participants with the new ones and with those of its test fold (see
    `xai_brain.statistics.confounds.distance.distance_p`). Empty where the training images cannot be read.
    """
    settings, run = trained_run(config)
    try:
        trained = same_cohort(prepared_cohort(settings, run), run)
    except (DataError, OSError) as error:
        log(f"predict: the images are not compared with those of training, which cannot be read ({error})")
        return {}
    found: dict[str, list[np.ndarray]] = {name: [] for name in TITLES}
    new_volumes, folds = cohort["volume_path"].tolist(), read_tsv(run.folds)
    intensities: dict[str, np.ndarray] = {}
    for network in track(networks, "compare with the training images", "networks"):
        parts = split_prepared_fold(settings, trained, folds, network.fold, network.seed)
        paths = [_sample(parts[part], network.fold) for part in ("train", "test")]
        if len(paths[0]) < FEWEST or not paths[1]:
            continue
        for path in {*paths[0], *paths[1], *new_volumes} - set(intensities):
            intensities[path] = intensity_features(load_volume(path))
        groups = (*paths, new_volumes)
        found["intensity_p"].append(distance_p(*(np.stack([intensities[p] for p in g]) for g in groups)))
        classifier = network.load(config)
        features = [_features(classifier, group, config.explain.batch_size) for group in groups]
        if all(len(each) for each in features):
            found["features_p"].append(distance_p(*features))
    if not found["intensity_p"]:
        log(
            f"predict: no comparison with the training images: fewer than {FEWEST} participants for a network"
        )
    return {name: np.mean(several, 0) for name, several in found.items() if several}


def report_distances(found: dict[str, np.ndarray], where: str) -> None:
    """Warn if more images are far from those of training than chance explains."""
    for name, p in found.items():
        if share_is_high(p):
            log_warning(
                f"{where}: {(p < UNUSUAL).mean():.0%} of the images are further from the training images in "
                f"{TITLES[name]} than {1 - UNUSUAL:.0%} of the participants on whom the networks were tested "
                f"(expected {UNUSUAL:.0%}; column {name}); scores of cross-validation may not apply to them"
            )


def intensity_features(volume: np.ndarray) -> np.ndarray:
    """Percentiles inside the brain, and the mean sizes of first and second differences along each axis."""
    inside = volume != 0
    found = list(np.percentile(volume[inside], PERCENTILES)) if inside.any() else [0.0] * len(PERCENTILES)
    for axis in range(3):
        for order in (1, 2):
            change = np.abs(np.diff(volume, order, axis))
            n = volume.shape[axis] - order
            all_inside = np.all([np.moveaxis(inside, axis, 0)[i : i + n] for i in range(order + 1)], 0)
            values = np.moveaxis(change, axis, 0)[all_inside]
            found.append(float(values.mean()) if values.size else 0.0)
    return np.array(found)


def _sample(rows: pd.DataFrame, seed: int) -> list[str]:
    """Volumes of at most `MOST` random participants, one image each."""
    paths = rows.drop_duplicates("participant_id")["volume_path"].to_numpy(str)
    return list(np.random.default_rng(seed).permutation(paths)[:MOST])


def _features(classifier: CalibratedNetwork, paths: list[str], size: int) -> np.ndarray:
    """Features of the last layer, (n, n_features); empty if the network has no such layer."""
    device, rows = next(classifier.parameters()).device, []
    for start in range(0, len(paths), size):
        volumes = np.stack([load_volume(path) for path in paths[start : start + size]])
        found = last_features(classifier, torch.from_numpy(volumes)[:, None].to(device))
        if found is None:
            return np.empty((0, 0))
        rows.append(found[0].double().numpy())
    return np.concatenate(rows)
