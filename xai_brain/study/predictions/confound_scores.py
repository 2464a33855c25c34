"""What can be read of participants from the last layer of the networks: evaluation/confounds.tsv."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.problems import DataError
from xai_brain.models.last_features import last_features
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, first_repeat, read_tsv, write_tsv
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.statistics.confounds.confound_score import LastFeatures, confound_score, is_testable
from xai_brain.statistics.confounds.subgroups import MANY_NUMBERS, NEVER_NUMBERS
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.networks import load_networks
from xai_brain.task.build import build_task
from xai_brain.task.labels import is_label

COLUMNS = ("age", "sex", "site")  # and that of brain size
N_PERM = 1000


def evaluate_confound_scores(config: Config, run: RunDirectory) -> bool:
    """Write evaluation/confounds.tsv, if the settings request it; returns whether anything was done."""
    found, manifest = run.evaluation("confounds"), run.path / "evaluation" / "confounds.json"
    if not (config.evaluation.confound_score and run.predictions.exists() and run.folds.exists()):
        return False
    inputs = {
        "version": versions().get("xai-brain"),
        "tables": [file_hash(run.predictions), file_hash(run.participants)],
        "networks": [network.sha256 for each in load_networks(config, run).values() for network in each],
        "brain_size_column": config.data.brain_size_column,
        "random_state": config.evaluation.random_state,
    }

    def is_current() -> bool:
        return is_up_to_date(manifest, inputs)

    def write() -> None:
        try:
            rows = _rows(config, run)
        except (DataError, OSError) as error:
            log(f"evaluate: confounds are not evaluated: the images of the cohort cannot be read: {error}")
            return
        found.unlink(missing_ok=True)
        if rows:
            write_tsv(pd.DataFrame(rows), found)
        write_manifest(manifest, inputs, [found])

    if is_current():
        return False
    run_exclusive(run.locks, "confounds", write, is_current)
    return True


def _rows(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    participants = read_tsv(run.participants).drop_duplicates("participant_id").set_index("participant_id")
    columns = [*COLUMNS, *([config.data.brain_size_column] if config.data.brain_size_column else [])]
    planted = bool(config.planted.kind)
    columns = [
        name
        for name in dict.fromkeys(columns)
        if name in participants and (planted or not is_label(name, config.data.label))
    ]
    if not columns:
        log("evaluate: confounds are not evaluated: there is no column of age, sex, site or brain size")
        return []
    networks = list(_features(config, run))
    has_classes = build_task(config.task).has_classes
    rows = []
    for name in columns:
        values, measure = _values(participants[name])
        parts = []
        for fold, ids, features, _ in networks:
            known = values.reindex(ids).notna().to_numpy()
            own = participants.loc[[i for i, there in zip(ids, known, strict=True) if there]]
            groups = own["target"].to_numpy(int) if has_classes else np.zeros(len(own), int)
            part = LastFeatures(features[known], values.loc[own.index].to_numpy(float), groups, fold)
            if is_testable(part, measure == "auroc"):
                parts.append(part)
        if not parts:
            log(f"evaluate: {name} has too few values in the test participants of every fold; not evaluated")
            continue
        score = confound_score(parts, measure == "auroc", N_PERM, config.evaluation.random_state)
        if not has_classes:  # there are no permutations within classes
            score = {key: value for key, value in score.items() if not key.startswith("class_")}
        about = {"column": name, "measure": measure, "chance": 0.5 if measure == "auroc" else 0.0}
        n = {"n_participants": len({i for _, ids, *_ in networks for i in ids if pd.notna(values.get(i))})}
        rows.append({**about, **score, **n, "n_networks": len(parts), "layer": networks[0][3]})
    return rows


def _values(column: pd.Series) -> tuple[pd.Series, str]:
    """Numbers (for R²) if there are many different ones, otherwise codes of categories (for AUROC)."""
    numbers = pd.to_numeric(column, errors="coerce")
    are_numbers = column.name not in NEVER_NUMBERS and numbers.notna().sum() == column.notna().sum()
    if are_numbers and numbers.nunique() > MANY_NUMBERS:
        return numbers, "r2"
    codes = pd.Series(pd.factorize(column.astype(object), sort=False)[0], column.index)
    return codes.where(codes >= 0), "auroc"


def _features(config: Config, run: RunDirectory) -> Iterator[tuple[int, list[str], np.ndarray, str]]:
    """Fold, test participants (first session), their features and the layer, for every network."""
    cohort = same_cohort(prepared_cohort(config, run), run).drop_duplicates("participant_id")
    paths = cohort.set_index("participant_id")["volume_path"]
    predictions = first_repeat(read_tsv(run.predictions))
    size = config.explain.batch_size
    work = [(key, network) for key, several in load_networks(config, run).items() for network in several]
    for (seed, fold), network in track(work, "features of the last layer", "networks"):
        rows = predictions[(predictions["seed"] == seed) & (predictions["fold"] == fold)]
        ids = [str(each) for each in rows["participant_id"].unique()]
        classifier = network.load(config)
        device = next(classifier.parameters()).device
        found, layer = [], ""
        for start in range(0, len(ids), size):
            volumes = np.stack([load_volume(paths[each]) for each in ids[start : start + size]])
            batch = last_features(classifier, torch.from_numpy(volumes)[:, None].to(device))
            if batch is None:
                raise ConfigError(
                    "evaluation.confound_score=true: the network has no linear layer whose input is one row "
                    "for each image; set it to false"
                )
            found.append(batch[0].double().numpy())
            layer = batch[1].removeprefix("network.")
        yield int(fold), ids, np.concatenate(found), layer
