"""Masks from training participants of one network, and its predictions for masked test images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.model_state import preserved
from xai_brain.io.nifti import get_grid, save_img
from xai_brain.metrics.deletion_insertion import removal_baselines
from xai_brain.metrics.maps import maps_of
from xai_brain.metrics.mask_validation import masked_probabilities
from xai_brain.metrics.masks import rank_voxels, region_places
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import SPACE, write_tsv
from xai_brain.runs.manifest import write_manifest
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.evaluation.regions import atlas_of
from xai_brain.study.explanation.mask_unit import JOINT, KEPT, MaskUnit


def validate_fold(unit: MaskUnit, context: EvaluationContext) -> None:
    """Write the masks of a method and the predictions of the network for masked test images."""
    for path in (unit.record, *unit.path.parent.glob(f"{unit.path.stem}_mask-*_place.nii.gz")):
        path.unlink(missing_ok=True)
    about = make_orders(unit, context)
    both = [(masked, kept) for masked in unit.masks() for kept in KEPT]
    table = pd.DataFrame()
    if both:
        fills = removal_baselines(context.config.evaluation.masks.removal, context.inputs, context.reference)
        left = [masked.kept_voxels(kept) for masked, kept in both]
        predicted = masked_probabilities(context.classifier, context.inputs, fills, left, context.batch_size)
        columns = context.classifier.task.columns
        tables = [
            masked.table(context.rows, kept, pd.DataFrame(probabilities, columns=columns), retrained=False)
            for (masked, kept), probabilities in zip(both, predicted, strict=True)
        ]
        table = pd.concat(tables, ignore_index=True)
    write_tsv(table, unit.path)
    orders = unit.path.parent.glob(f"{unit.path.stem}_mask-*_place.nii.gz")
    write_manifest(unit.record, unit.inputs_hash, [unit.path, *orders], Method=unit.label, **about)


def make_orders(unit: MaskUnit, context: EvaluationContext) -> dict[str, Any]:
    """Explain training participants and save the ranks of voxels for each class and for all classes.

    Voxels are ranked by the absolute mean map of the participants of a class. The joint ranks use the mean of
    these absolute maps over classes, so that attributions of opposite sign do not cancel.

    Parameters
    ----------
    unit : MaskUnit
    context : EvaluationContext
        Context of the network; its test participants are not used.

    Returns
    -------
    dict
        Participants that were explained, and the number of empty maps, which are excluded.
    """
    config, network, task = context.config, context.network, context.classifier.task
    random_state = config.evaluation.random_state
    seed = [random_state, network.seed, network.fold]
    chosen = explained_subjects(context.training, config.evaluation.masks.n_subjects, seed)
    sample = replace(context, rows=chosen)
    targets = chosen["target"].to_numpy()
    with preserved(context.classifier):
        with torch.no_grad():
            predicted = task.predict(context.classifier(sample.inputs)).cpu().numpy()
        explained = torch.from_numpy(task.explained_targets(config.explain.target, predicted, targets))
        method = context.method(unit.label)
        maps = maps_of(method, sample.inputs, explained.to(context.device), context.batch_size, random_state)
    known = maps.flatten(1).any(1).numpy()
    if n_empty := int((~known).sum()):
        where = f"{unit.label}, seed {network.seed} fold {network.fold + 1}"
        log(f"validate: {where}: {n_empty} of {len(known)} maps are empty and excluded")
    means = {
        name: np.abs(maps[of_class, 0].numpy().mean(0, dtype=np.float64))
        for k, name in enumerate(task.names)
        if (of_class := np.flatnonzero(known & (targets == k))).size
    }
    if means:
        grid, brain = get_grid(config.preprocessing.grid), training_brain(context)
        means[JOINT] = np.mean(list(means.values()), axis=0)
        for name, values in means.items():
            save_img(rank_voxels(values, brain, random_state), grid.affine, unit.order(name), space=SPACE)
        if (atlas := atlas_of(config)) is not None:
            order = region_places(means[JOINT], atlas.on_grid(grid), brain, random_state)
            save_img(order, grid.affine, unit.order(JOINT, "regions"), space=SPACE)
    return {"Explained": chosen["participant_id"].tolist(), "NumberOfEmptyMaps": n_empty}


def explained_subjects(training: pd.DataFrame, n_per_class: int, seed: int | list[int]) -> pd.DataFrame:
    """A random sample of the training participants of each class, one image of each.

    Parameters
    ----------
    training : pandas.DataFrame
        Rows of the cohort that the network was trained on.
    n_per_class : int
        If a class has fewer participants, all are used.
    seed : int or list of int
    """
    unique = training.drop_duplicates("participant_id")
    order = np.random.default_rng(seed).permutation(len(unique))
    return unique.iloc[order].groupby("target", sort=True).head(n_per_class).sort_index()


def training_brain(context: EvaluationContext) -> np.ndarray:
    """Voxels in more than half of the brains of the training participants, (X, Y, Z) bool."""

    def count() -> np.ndarray:
        brains = [np.load(path, mmap_mode="r") for path in context.training["volume_mask_path"]]
        return np.asarray(np.sum(brains, axis=0, dtype=np.int32) * 2 > len(brains))

    return context.cached("training brain", count)
