"""Functions of the metrics that need a network (see `xai_brain.metrics.table`).

Each takes a context and the label of a method and returns, by name, the values of the context's participants
and their chance level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.metrics.comparison.similarity import rank_similarity
from xai_brain.metrics.comparison.stability import UNRELATED, max_sensitivity, noise_stability
from xai_brain.metrics.cost import cost
from xai_brain.metrics.deletion_insertion import (
    area_under,
    deletion_insertion,
    random_order,
    removal_baselines,
)
from xai_brain.metrics.infidelity import block_changes, infidelity, infidelity_of_chance, random_blocks
from xai_brain.metrics.localization import localization
from xai_brain.metrics.maps import maps_of
from xai_brain.metrics.sanity import full_randomization, parameter_randomization
from xai_brain.runs.directory import write_tsv
from xai_brain.runs.seeds import network_name
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.explanation.configured_methods import multiplies_by_inputs
from xai_brain.study.training.permuted import permuted_cohort, permuted_network

PERMUTATION = 1  # of the networks that are trained on permuted labels
Scores = dict[str, tuple[Any, Any]]


def cascade_path(context: EvaluationContext, label: str) -> Path:
    """Table of the similarities while the weights are randomised layer by layer."""
    name = f"desc-{label}_{network_name(context.network.seed, context.network.fold)}_cascade.tsv"
    return context.run.path / "evaluation" / "metrics" / name


def deletion_insertion_scores(context: EvaluationContext, label: str) -> Scores:
    """Class probability while voxels are removed or inserted in the order of the map."""
    card, model = context.card, context.scorer("probability")
    maps, targets = context.saved(label)
    baselines = removal_baselines(card.removal, context.inputs, context.reference)
    where = (model, context.inputs, baselines)
    brain = context.reference.brain_mask.numpy()
    curves = deletion_insertion(*where, maps.sum(1, keepdim=True), targets, brain, card.n_steps)
    chance = context.cached(
        ("random order", tuple(targets.tolist())), lambda: random_order(*where, targets, brain, card.n_steps)
    )
    return {name: (area_under(curves[name]), area_under(chance[name])) for name in ("deletion", "insertion")}


def infidelity_scores(context: EvaluationContext, label: str) -> Scores:
    """How well a map predicts the change of the score after the removal of a block."""
    card, brain = context.card, context.common_brain()
    maps, targets = context.saved(label)
    output, method = context.output(label), context.method(label)

    def changes() -> Any:
        baselines = removal_baselines(card.removal, context.inputs, context.reference)
        blocks = random_blocks(brain, context.reference.voxel_size_mm, card.n_blocks)
        model = context.scorer(output)
        return block_changes(model, context.inputs, baselines, targets, brain, blocks)

    found = context.cached(("blocks", output, tuple(targets.tolist())), changes)
    contributions = multiplies_by_inputs(method, label)
    values = infidelity(maps, found, contributions)
    return {"infidelity": (values, infidelity_of_chance(found, contributions))}


def completeness_scores(context: EvaluationContext, label: str) -> Scores:
    """|sum - change| / (|sum| + |change|): sum of a map, change of the output when the image is replaced.

    The image is replaced by the baseline of the method if it has one, else as blocks are in `infidelity`.
    """
    maps, targets = context.saved(label)
    method, model, inputs = context.method(label), context.scorer(context.output(label)), context.inputs
    own = getattr(method, "baseline", None)
    if isinstance(own, ReplacementVolumes):
        baselines = baseline_volumes(own, context.reference, inputs, targets)
    else:
        baselines = removal_baselines(context.card.removal, inputs, context.reference)
    engine = BatchedScorer(model)
    with engine.prepared(inputs):
        before, after = (engine.scores(part, targets).double() for part in (baselines, inputs.detach()))
    found = maps.to(inputs.device)
    if not multiplies_by_inputs(method, label):
        found = found * (inputs - baselines)
    total, change = found.double().sum((1, 2, 3, 4)), after - before
    size = (total.abs() + change.abs()).clamp_min(torch.finfo(torch.float64).tiny)
    return {"completeness": (((total - change).abs() / size).cpu().numpy(), 1.0)}


def parameter_randomization_scores(context: EvaluationContext, label: str) -> Scores:
    """Similarity to maps of the network with random weights; all steps are written to a table."""
    _, targets = context.saved(label)
    table = parameter_randomization(
        context.classifier, lambda model: context.method(label, model), context.inputs, targets,
        context.common_brain(), batch_size=context.batch_size,
    )  # fmt: skip
    ids = context.rows["participant_id"].tolist()
    about = {"participant_id": [ids[i] for i in table["subject"]], "method": label}
    write_tsv(table.drop(columns="subject").assign(**about), cascade_path(context, label))
    return {"parameter_randomization": (full_randomization(table)["spearman"].to_numpy(), 0.0)}


def label_randomization_scores(context: EvaluationContext, label: str) -> Scores:
    """Similarity to maps of a network that was trained on permuted labels, and their relevance rank."""
    maps, targets = context.saved(label)
    where, network = (context.config, context.run, context.cohort), context.network
    other = permuted_network(*where, PERMUTATION, network.fold, network.seed).load(context.config)
    permuted = permuted_cohort(context.config, context.cohort, PERMUTATION)
    reference = context.reference_of("permuted reference", lambda: context.training_of(permuted))
    method = context.method(label, other, reference)
    other_maps = maps_of(method, context.inputs, targets, context.batch_size)[:, 0].numpy()
    brain = context.common_brain()
    similarities = [rank_similarity(a, b, brain) for a, b in zip(maps[:, 0].numpy(), other_maps, strict=True)]
    found: Scores = {"label_randomization": (np.array(similarities), 0.0)}
    if (truths := context.truths()) is not None:
        scores = [
            localization(values, truth & mask, mask)
            for values, truth, mask in zip(other_maps, truths, context.brains(), strict=True)
        ]
        rra, chance = ([score[name] for score in scores] for name in ("rra", "chance"))
        found["permutation_null"] = (np.array(rra), np.array(chance))
    return found


def noise_stability_scores(context: EvaluationContext, label: str) -> Scores:
    """Similarity to maps of noisy images."""
    card, (_, targets) = context.card, context.saved(label)
    values = noise_stability(
        context.method(label), context.inputs, targets, context.common_brain(), card.noise_sd,
        card.n_noise_draws, context.batch_size,
    )  # fmt: skip
    return {"noise_stability": (values, 0.0)}


def max_sensitivity_scores(context: EvaluationContext, label: str) -> Scores:
    """Largest relative change of a map."""
    card, (_, targets) = context.card, context.saved(label)
    values = max_sensitivity(
        context.method(label), context.inputs, targets, context.common_brain(), n_samples=card.n_noise_draws,
        batch_size=context.batch_size,
    )  # fmt: skip
    return {"max_sensitivity": (values, UNRELATED)}


def cost_scores(context: EvaluationContext, label: str) -> Scores:
    """Seconds and memory per participant, without the first pass, which includes loading."""
    _, targets = context.saved(label)

    def warm() -> None:
        with torch.no_grad():
            context.classifier(context.inputs)

    context.cached("warm", warm)
    found = cost(context.method(label), context.inputs, targets)
    return {"seconds": (found["seconds"], np.nan), "peak_mb": (found["peak_mb"], np.nan)}
