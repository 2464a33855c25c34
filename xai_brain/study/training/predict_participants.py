"""Predict new participants with the ensemble of all networks of a run, or with the weights of a file."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.audit import content_hashes
from xai_brain.io.atomic import file_hash
from xai_brain.io.problems import DataError, named
from xai_brain.models.networks.kan2020 import is_published
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, log_warning, track
from xai_brain.runs.directory import (
    RunDirectory,
    add_seconds,
    read_tsv,
    update_metrics,
    write_json,
    write_tsv,
)
from xai_brain.runs.provenance import provenance
from xai_brain.statistics.classification import defined_figures
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.participants import cohort_root, input_hashes, portable, prepared_cohort
from xai_brain.study.predictions.new_images import distances, report_distances, write_standardization
from xai_brain.study.settings import open_run
from xai_brain.study.training.networks import (
    ALL,
    Network,
    is_weights_file,
    trained_networks,
    trained_run,
)
from xai_brain.task.protocol import Task

LEAST_VARIATION = 0.05  # SD / mean of brain size: 0.10 between adults, 0.02 to 0.03 after affine alignment
PUBLISHED_MEDIAN = 700  # median intensity in the brain
FEWEST_SIZES = 10  # needed to estimate the variation of brain size


def predict_run(config: Config) -> RunDirectory:
    """Predict new participants: the mean of the calibrated probabilities of all networks."""
    run = open_run(config)
    if run.predictions.exists():
        log(f"predict: nothing to do, {run.predictions} is complete")
        return run
    run_exclusive(run.locks, "predictions", lambda: _predict(config, run), run.predictions.exists)
    return run


def _predict(config: Config, run: RunDirectory) -> None:
    start = time.monotonic()
    networks = trained_networks(config)
    cohort = prepared_cohort(config, run)
    if cohort.empty:
        raise DataError(f"{config.data.root}: none of its images can be used; see {run.quarantine}")
    if is_weights_file(config):
        check_published_input(config, cohort)
        log(
            f"predict: the participants that {config.networks} was trained on are not known, and its "
            "probabilities are not calibrated for this cohort: accuracy depends on that, AUROC does not"
        )
    else:
        refuse_training_subjects(config, cohort)
    root = cohort_root(config)
    write_tsv(portable(cohort, root), run.participants)
    inputs = input_hashes(cohort, root)
    about = provenance(list(config.seeds), inputs)
    about["networks_sha256"] = {n.checkpoint.name: n.sha256 for n in networks}
    about["tables_sha256"] = {run.participants.name: file_hash(run.participants)}
    if config.adapt:
        write_standardization(cohort, run.standardization)
        about["tables_sha256"][run.standardization.name] = file_hash(run.standardization)
    write_json(about, run.provenance)

    values, task = ensemble_predictions(config, cohort, networks)  # (n_networks, N, n_columns)
    mean = values.mean(0)
    table = cohort[["participant_id", "session_id"]].assign(
        seed=ALL[0],
        fold=ALL[1],
        target=cohort["target"],
        n_networks=len(networks),
        **task.ensemble_columns(values),
        **{column: mean[:, k] for k, column in enumerate(task.columns)},
    )
    table = task.with_labels(table)
    if not is_weights_file(config):
        far = distances(config, cohort, networks)
        table = table.assign(**far)
        report_distances(far, str(config.data.root or config.data.layout))
    if task.can_be_scored(table["target"].to_numpy()):
        metrics = task.scores(table, "test", config.evaluation.n_bootstrap)
        update_metrics(run, defined_figures(metrics), replace=("test/",))
    else:
        required = "every class" if task.has_classes else "known target only"
        log(f"predict: without participants of {required} there are no test metrics")
    write_tsv(table, run.predictions)  # last: marks prediction as complete
    add_seconds(run, "predict", time.monotonic() - start)
    how = f"the mean of {len(networks)} networks" if len(networks) > 1 else "one network"
    log(f"predict: {len(table)} images by {how}, see {run.predictions}")


def check_published_input(config: Config, cohort: pd.DataFrame) -> None:
    """Compare prepared images with those of the published networks: intensities, differences in brain size.

    Raises
    ------
    ConfigError
        The intensities have another scale.
    """
    if not is_published(config.networks_path):
        return
    masks = [np.load(path) for path in cohort["volume_mask_path"]]
    volumes = zip(cohort["volume_path"], masks, strict=True)
    median = float(np.median([np.median(np.load(path)[mask]) for path, mask in volumes]))
    if not PUBLISHED_MEDIAN / 2 < median < PUBLISHED_MEDIAN * 2:
        raise ConfigError(
            f"preprocessing.brain_median={config.preprocessing.brain_median}: the median intensity of these "
            f"brains is {median:.4g}, but about {PUBLISHED_MEDIAN} in the images that {config.networks} was "
            f"trained on; use preprocessing.brain_median={PUBLISHED_MEDIAN}"
        )
    sizes = np.array([np.count_nonzero(mask) for mask in masks], float)
    if len(sizes) >= FEWEST_SIZES and (variation := sizes.std() / sizes.mean()) < LEAST_VARIATION:
        log_warning(
            f"brain sizes differ by {100 * variation:.1f} % only (SD; about 10 % between adults): "
            "these images were aligned such that their sizes are equal, but the network was trained on "
            "images that keep brain size; give it images in their own space with preprocessing.raw=true"
        )


def refuse_training_subjects(config: Config, cohort: pd.DataFrame) -> None:
    """Raise an error for images that the networks were trained on; ids that occur in both cohorts are logged.

    Raises
    ------
    DataError
        The same image content is in the trained run, as a file or as a prepared volume.
    """
    settings, run = trained_run(config)
    before = read_tsv(run.participants)
    known = set(before["sha256"])
    shared = cohort["participant_id"][cohort["sha256"].isin(known)].tolist()
    shared = shared or _same_content(settings, cohort, run)
    if shared:
        raise DataError(
            f"{named(shared)}: in the cohort that the networks of {run.path} were trained on; their "
            "out-of-fold predictions are there; remove them from this cohort"
        )
    if same := sorted(set(cohort["participant_id"]) & set(before["participant_id"])):
        log_warning(
            f"{named(same)}: also in the training cohort, with other images; check that participants differ"
        )


def _same_content(settings: Config, cohort: pd.DataFrame, run: RunDirectory) -> list[str]:
    """Ids whose prepared volume is that of a training participant, where the training cohort can be read."""
    try:
        trained = prepared_cohort(settings, run)
    except (DataError, OSError) as error:
        log(f"only files are compared with the training cohort, which cannot be read ({error})")
        return []
    hashes = content_hashes([*trained["volume_path"], *cohort["volume_path"]])
    known = {content for content in hashes[: len(trained)] if content}
    here = zip(cohort["participant_id"], hashes[len(trained) :], strict=True)
    return [participant_id for participant_id, content in here if content in known]


@torch.no_grad()
def ensemble_predictions(
    config: Config, cohort: pd.DataFrame, networks: list[Network]
) -> tuple[np.ndarray, Task]:
    """Predictions, e.g. calibrated probabilities, (n_networks, N, n_columns), and the task of the networks.

    Raises
    ------
    DataError
        A prediction is NaN or infinite.
    """
    predictions = []
    paths, size = cohort["volume_path"].tolist(), config.explain.batch_size
    batches = [paths[i : i + size] for i in range(0, len(paths), size)]
    for number, network in enumerate(networks, 1):
        classifier = network.load(config)
        device = next(classifier.parameters()).device
        task = classifier.task
        what = f"predict, network {number}/{len(networks)}"
        volumes = map(_volumes, track(batches, what, unit="images", size=len))
        predictions.append(torch.cat([task.predict(classifier(batch.to(device))).cpu() for batch in volumes]))
        if broken := cohort["participant_id"][(~predictions[-1].isfinite()).any(1).numpy()].tolist():
            raise DataError(
                f"{named(broken)}: the output of the network {network.checkpoint} is NaN or infinite; look "
                "for extreme intensities in the image, or train the network again"
            )
    return torch.stack(predictions).numpy(), task


def _volumes(paths: list[str]) -> torch.Tensor:
    return torch.from_numpy(np.stack([load_volume(path) for path in paths]))[:, None]
