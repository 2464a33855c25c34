"""Compare the classes in the first layer of every network: evaluation/first_layer.tsv."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.first_block import feature_maps
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import DataError
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, first_repeat, read_tsv, update_metrics, write_tsv
from xai_brain.statistics.first_layer import ALPHA, FEATURES, ChannelTest, channel_features, compare_channels
from xai_brain.statistics.group_design import Design, GroupError, make_design
from xai_brain.study.confounds import chosen_confounds, of_one_class
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.participants import class_names, prepared_cohort, same_cohort, task_of
from xai_brain.study.training.networks import Network, load_networks

TABLES = ("first_layer", "first_layer_networks")


def evaluate_first_layer(config: Config, run: RunDirectory) -> None:
    """Compare the classes in the feature maps of the first layer, if the settings request it.

    Channels of different networks do not represent the same feature. Every network is therefore tested
    separately, on its own test participants. first_layer.tsv has one row per network, feature and channel;
    first_layer_networks.tsv compares the number of channels that differ with that for permuted labels.

    Parameters
    ----------
    config : Config
        ``evaluation.first_layer``; the confounds are those of ``evaluation.group``.
    run : RunDirectory
    """
    for name in TABLES:
        run.evaluation(name).unlink(missing_ok=True)
    channels, networks = _tests(config, run) if config.evaluation.first_layer else ([], [])
    if networks:
        write_tsv(pd.concat(channels, ignore_index=True), run.evaluation("first_layer"))
        write_tsv(pd.DataFrame(networks), run.evaluation("first_layer_networks"))
    update_metrics(run, _combined(pd.DataFrame(networks)), replace=("first_layer/",))


def _tests(config: Config, run: RunDirectory) -> tuple[list[pd.DataFrame], list[dict[str, Any]]]:
    if not run.predictions.exists():
        log("evaluate: the first layer is not evaluated: the run has maps but no networks")
        return [], []
    try:
        cohort = same_cohort(prepared_cohort(config, run), run)
    except (DataError, ConfigError, OSError) as error:
        log(f"evaluate: the first layer is not evaluated: the images of the cohort cannot be read: {error}")
        return [], []
    predictions = first_repeat(read_tsv(run.predictions))
    volumes = cohort.set_index(["participant_id", "session_id"])["volume_path"]
    participants = of_one_class(read_tsv(run.participants)).dropna(subset=["label"])
    if len(names := class_names(participants)) < 2:
        log("evaluate: the first layer is not evaluated: fewer than two classes are known")
        return [], []
    task = task_of(config, participants)  # each network belongs to one fold
    confounds = [name for name in chosen_confounds(config, task, participants) if name != "fold"]
    channels: list[pd.DataFrame] = []
    networks: list[dict[str, Any]] = []
    work = [(key, network) for key, several in load_networks(config, run).items() for network in several]
    for (seed, fold), network in track(work, "first layer", "networks"):
        rows = predictions[(predictions["seed"] == seed) & (predictions["fold"] == fold)]
        rows = rows[rows["participant_id"].isin(participants["participant_id"])]
        if rows.empty:
            continue
        values, layer = _features(config, network, rows, volumes)
        asked = participants.set_index("participant_id").loc[list(values["mean"].index)].reset_index()
        about = {"seed": network.seed, "fold": network.fold}
        where = f"evaluate: first layer, seed {network.seed} fold {network.fold + 1}"
        for pair in combinations(names, 2):
            design, reason = _design(asked, pair, confounds)
            if reason:
                log(f"{where}: not adjusted: {reason}")
            both = asked["label"].isin(pair).to_numpy()
            second = (asked["label"] == pair[1]).to_numpy()[both]
            if min(second.sum(), (~second).sum()) < 2:
                log(f"{where}: fewer than 2 per class")
                continue
            named = {**about, "comparison": f"{pair[1]}-minus-{pair[0]}"}
            for feature in FEATURES:
                test = compare_channels(
                    values[feature].to_numpy()[both], second, design,
                    random_state=config.evaluation.random_state,
                )  # fmt: skip
                number = {"feature": feature, "channel": np.arange(len(test.channels))}
                n = {"n_a": int((~second).sum()), "n_b": int(second.sum())}
                channels.append(pd.DataFrame({**named, **number, **test.channels, **n}))
                networks.append({**named, "layer": layer, "feature": feature, **_counts(test, design), **n})
    return channels, networks


def _features(
    config: Config, network: Network, rows: pd.DataFrame, volumes: pd.Series
) -> tuple[dict[str, pd.DataFrame], str]:
    """Tables of participants x channels by feature, and the layer; sessions are averaged."""
    classifier = network.load(config)
    device = next(classifier.parameters()).device
    found: dict[str, list[np.ndarray]] = {feature: [] for feature in FEATURES}
    layer, size = "", config.explain.batch_size
    for start in range(0, len(rows), size):
        ids = rows.iloc[start : start + size][["participant_id", "session_id"]].itertuples(index=False)
        inputs = torch.from_numpy(np.stack([load_volume(volumes.loc[tuple(image)]) for image in ids]))[
            :, None
        ]
        try:
            maps, layer = feature_maps(classifier, inputs.to(device))
        except AttributionError as error:
            raise ConfigError(f"evaluation.first_layer=true: {error}; set it to false") from error
        for subject in maps.numpy():
            for feature, values in channel_features(subject).items():
                found[feature].append(values)
    ids = rows["participant_id"].to_numpy()
    return {
        feature: pd.DataFrame(np.stack(values)).groupby(ids, sort=False).mean()
        for feature, values in found.items()
    }, layer


def _design(
    participants: pd.DataFrame, pair: tuple[str, str], confounds: list[str]
) -> tuple[Design | None, str | None]:
    """Design with the confounds of two classes (None without), and the reason if they cannot be used."""
    both = participants[participants["label"].isin(pair)]
    try:
        design = make_design(both, pair, confounds) if confounds else None
    except GroupError as error:
        return None, str(error)
    return (design if design is not None and design.names else None), None


def _counts(test: ChannelTest, design: Design | None) -> dict[str, Any]:
    channels = test.channels
    adjusted = float((channels["q_adjusted"] <= ALPHA).mean()) if design else np.nan
    return {
        "n_channels": len(channels),
        "n_tested": int(channels["p"].notna().sum()),
        "n_different": test.n_different,
        "share_different": test.n_different / len(channels),
        "null_share": float(test.null_counts.mean() / len(channels)),
        "p_share": test.p_of_count,
        "n_perm": len(test.null_counts),
        "share_adjusted": adjusted,
        "confounds": ", ".join(design.names) if design else "",
        "median_size": float(channels["d"].abs().median()),
    }


def _combined(networks: pd.DataFrame) -> dict[str, float]:
    """Log the means over networks and pairs of classes; returns them by their names in metrics.json."""
    metrics: dict[str, float] = {}
    for feature, rows in networks.groupby("feature", sort=False) if len(networks) else []:
        for column, name in (
            ("share_different", "share_different"),
            ("share_adjusted", "share_different_adjusted"),
            ("null_share", "null_share"),
            ("median_size", "median_size"),
        ):
            if rows[column].notna().any():
                metrics[f"first_layer/{name}/{feature}"] = float(rows[column].mean())
        counts = rows["n_different"]
        log(
            f"evaluate: first layer, {feature} of the feature maps: {counts.mean():.1f} of "
            f"{rows['n_channels'].iloc[0]} channels differ (FDR 0.05; {counts.min()} to {counts.max()} over "
            f"{len(rows)} networks; {rows['null_share'].mean():.1%} with permuted labels)"
        )
    return metrics
