"""Explain every participant with the network that was not trained on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from xai_brain.attribution.protocol import method_info
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import get_grid
from xai_brain.parallel.locks import run_exclusive, run_shared
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.parallel.progress import ShowProgress, log, track
from xai_brain.parallel.shards import select_shard
from xai_brain.parallel.threads import ReadAhead
from xai_brain.runs.derivatives import COHORT, write_map_datasets
from xai_brain.runs.directory import (
    RunDirectory,
    add_seconds,
    first_repeat,
    read_tsv,
)
from xai_brain.runs.seeds import network_name
from xai_brain.study.explanation.batches import (
    Batch,
    Explainer,
    explain_batch,
    is_current,
    load_inputs,
)
from xai_brain.study.explanation.configured_methods import build_method, check_references
from xai_brain.study.explanation.network_maps import references_of
from xai_brain.study.participants import cohort_root, prepared_cohort, same_cohort
from xai_brain.study.run_images import (
    has_all_images,
    has_images,
    write_images,
)
from xai_brain.study.settings import open_run
from xai_brain.study.training.native import write_native_maps
from xai_brain.study.training.networks import (
    Network,
    describe_networks,
    load_networks,
    networks_hash,
)
from xai_brain.task.build import build_task


def explain_run(config: Config, methods: Sequence[str] | None = None) -> RunDirectory:
    """Make the maps that are missing.

    Parameters
    ----------
    config : Config
        From `xai_brain.compose`, or the settings of an existing run.
    methods : sequence of str, optional
        Labels of the methods whose maps are made; default: all of the settings.

    Returns
    -------
    RunDirectory
        With attributions/ (NIfTI and JSON sidecar per participant and method) and images/.
    """
    check_methods(config)
    run = open_run(config)
    if not run.predictions.exists():
        first = "predict" if config.networks else "train"
        raise ConfigError(f"{run.predictions}: does not exist; run `xai-brain {first}` first")
    networks = load_networks(config, run)
    check_references(config)
    batches = _batches(config, first_repeat(read_tsv(run.predictions)), networks)
    hashes = {key: networks_hash(found) for key, found in networks.items()}
    labels = list(methods or config.attribution)
    mine = select_shard((_unit_name(label, b) for label in labels for b in batches), config.shard)
    plan = {
        label: [
            b for b in batches if _unit_name(label, b) in mine and not _is_done(config, run, hashes, label, b)
        ]
        for label in labels
    }
    if not any(plan.values()) and has_all_images(run):
        log(f"explain{_shard_suffix(config)}: nothing to do, all maps of {', '.join(labels)} exist")
        _finish(config, run, batches)
        return run

    start = time.monotonic()
    cohort = same_cohort(prepared_cohort(config, run), run)
    run_exclusive(
        run.locks,
        "images",
        lambda: write_images(run, cohort, get_grid(config.preprocessing.grid), config.data.orientation),
        lambda: all(has_images(run, row) for row in cohort.to_dict("records")),
        stay=config.shard is None,
    )
    write_map_datasets(run, {COHORT: cohort_root(config)})
    keep_freed_memory()
    for key, those in networks.items():
        todo = {label: [b for b in missing if (b.seed, b.fold) == key] for label, missing in plan.items()}
        if any(todo.values()):
            _explain_with(config, run, cohort, those, todo, hashes)
    _finish(config, run, batches)
    add_seconds(run, "explain", time.monotonic() - start)
    return run


def _finish(config: Config, run: RunDirectory, batches: list[Batch]) -> None:
    if config.shard and (n := n_maps_missing(config, run)):
        log(f"explain{_shard_suffix(config)}: done; {n} maps are left to other shards")
    elif config.explain.output_space == "native":
        rows = pd.concat([batch.rows for batch in batches])
        run_exclusive(run.locks, "native", lambda: write_native_maps(config, run, rows))


def n_maps_missing(config: Config, run: RunDirectory) -> int:
    """Maps of the methods and participants of a run that do not exist yet."""
    if not config.attribution:  # imported maps, without a network
        return 0
    networks = load_networks(config, run)
    hashes = {key: networks_hash(found) for key, found in networks.items()}
    return sum(
        not is_current(config, run, row, label, hashes)
        for batch in _batches(config, first_repeat(read_tsv(run.predictions)), networks)
        for row in batch.rows.itertuples()
        for label in config.attribution
    )


def _shard_suffix(config: Config) -> str:
    return f" shard {config.shard}" if config.shard else ""


def _unit_name(label: str, batch: Batch) -> str:
    """Name of a unit of work: a method and a batch."""
    return f"{label}_{network_name(batch.seed, batch.fold)}_row-{batch.rows.index[0]}"


def _is_done(
    config: Config, run: RunDirectory, hashes: dict[tuple[int, int], str], label: str, batch: Batch
) -> bool:
    return all(is_current(config, run, row, label, hashes) for row in batch.rows.itertuples())


def check_methods(config: Config) -> None:
    """Raise an error if a method cannot be created, or explains classes only and there are none."""
    has_classes = build_task(config.task).has_classes
    for label, method in config.attribution.items():
        try:
            factory = instantiate(method)
        except InstantiationException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(f"attribution.{label}: cannot be created: {reason}") from error
        if method_info(factory).needs_classes and not has_classes:
            raise ConfigError(
                f"attribution.{label}: explains the evidence for a class, and the networks predict a number; "
                f"'~attribution.{label}' removes the method"
            )


def _batches(
    config: Config, predictions: pd.DataFrame, networks: dict[tuple[int, int], list[Network]]
) -> list[Batch]:
    size = config.explain.batch_size
    return [
        Batch(int(seed), int(fold), rows.iloc[i : i + size])
        for (seed, fold), rows in predictions.groupby(["seed", "fold"])
        if (seed, fold) in networks
        for i in range(0, len(rows), size)
    ]


def _explain_with(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    networks: list[Network],
    todo: dict[str, list[Batch]],
    hashes: dict[tuple[int, int], str],
) -> None:
    """Make the missing maps of these networks, except those that other processes make."""
    done = partial(_is_done, config, run, hashes)
    if all(done(label, batch) for label, batches in todo.items() for batch in batches):
        return  # another process has made them
    classifiers = [network.load(config) for network in networks]
    explained = [label for label, batches in todo.items() if batches]
    references = references_of(config, run, cohort, networks, classifiers, explained)
    about = describe_networks(networks)
    if config.adapt:
        about["StandardizationSHA256"] = file_hash(run.standardization)
    which = (
        f"{len(networks)} networks"
        if len(networks) > 1
        else f"seed {networks[0].seed} fold {networks[0].fold + 1}"
    )
    for label, batches in todo.items():
        if not batches:
            continue
        explainers = [
            Explainer(classifier, *build_method(config, label, classifier, reference))
            for classifier, reference in zip(classifiers, references, strict=True)
        ]
        device = next(classifiers[0].parameters()).device
        units = {_unit_name(label, batch): batch for batch in batches}
        with ReadAhead(partial(load_inputs, cohort, device), batches) as volumes:
            explain = partial(explain_batch, label=label, explainers=explainers, about=about, volumes=volumes)
            run_shared(
                run.locks,
                units,
                done=partial(done, label),
                do=partial(explain, config, run, cohort),
                progress=_count_participants(f"explain {which}, {label}", units),
                wait=partial(_log_waiting, which, label),
                stay=config.shard is None,
            )


def _count_participants(description: str, units: dict[str, Batch]) -> ShowProgress:
    """Progress of batches, by name, in participants; in images if a participant has several."""
    ids = pd.concat([batch.rows["participant_id"] for batch in units.values()])
    unit = "participants" if ids.is_unique else "images"
    return partial(track, description=description, unit=unit, size=lambda name: len(units[name].rows))


def _log_waiting(which: str, label: str, n: int) -> None:
    log(f"explain {which}, {label}: waiting for {n} batches that other processes explain")
