"""Judges that ask the network. Each gives, for a method: judge -> (value of every subject, chance)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xai_brain.attribution.outputs import ClassScore
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
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.explanation.batches import multiplies_by_inputs
from xai_brain.study.training.permuted import permute_labels, permuted_network

Judged = dict[str, tuple[Any, Any]]


def deletion_insertion_scores(bench: EvaluationContext, label: str) -> Judged:
    """Class probability while voxels go or come in the order of the map."""
    card, model = bench.card, ClassScore(bench.classifier, "probability")
    maps, targets = bench.saved(label)
    baselines = removal_baselines(card.removal, bench.inputs, bench.reference)
    where = (model, bench.inputs, baselines)
    brain = bench.reference.brain_mask.numpy()
    curves = deletion_insertion(*where, maps, targets, brain, card.n_steps)
    chance = bench.cached(
        ("random order", tuple(targets.tolist())), lambda: random_order(*where, targets, brain, card.n_steps)
    )
    return {
        judge: (area_under(curves[judge]), area_under(chance[judge])) for judge in ("deletion", "insertion")
    }


def infidelity_scores(bench: EvaluationContext, label: str) -> Judged:
    """How well a map foretells the fall of the score without a block."""
    card, brain = bench.card, bench.common_brain()
    maps, targets = bench.saved(label)
    output, method = bench.output(label), bench.method(label)

    def changes() -> Any:
        baselines = removal_baselines(card.removal, bench.inputs, bench.reference)
        blocks = random_blocks(brain, bench.reference.voxel_size_mm, card.n_blocks)
        model = ClassScore(bench.classifier, output)
        return block_changes(model, bench.inputs, baselines, targets, brain, blocks)

    found = bench.cached(("blocks", output, tuple(targets.tolist())), changes)
    contributions = multiplies_by_inputs(method, label)
    values = infidelity(maps, found, contributions)
    return {"infidelity": (values, infidelity_of_chance(found, contributions))}


def by_random_weights(bench: EvaluationContext, label: str) -> Judged:
    """Similarity to maps of the network without what it learned; all steps are kept in a table."""
    _, targets = bench.saved(label)
    table = parameter_randomization(
        bench.classifier, lambda model: bench.method(label, model), bench.inputs, targets,
        bench.common_brain(), batch_size=bench.batch_size,
    )  # fmt: skip
    name = f"desc-{label}_seed-{bench.network.seed}_fold-{bench.network.fold}_cascade.tsv"
    ids = bench.rows["participant_id"].tolist()
    about = {"participant_id": [ids[i] for i in table["subject"]], "method": label}
    write_tsv(table.drop(columns="subject").assign(**about), bench.run.path / "evaluation" / "judges" / name)
    return {"mprt": (full_randomization(table)["spearman"].to_numpy(), 0.0)}


def by_permuted_labels(bench: EvaluationContext, label: str) -> Judged:
    """Similarity to maps of a network that learned permuted labels, and where those point."""
    maps, targets = bench.saved(label)
    other = permuted_network(bench.cfg, bench.run, bench.cohort, bench.network).to(bench.device)
    reference = bench.reference_of("permuted reference", lambda: permute_labels(bench.training))
    method = bench.method(label, other, reference)
    theirs = maps_of(method, bench.inputs, targets, bench.batch_size)[:, 0].numpy()
    brain = bench.common_brain()
    alike = [rank_similarity(a, b, brain) for a, b in zip(maps[:, 0].numpy(), theirs, strict=True)]
    found: Judged = {"label_randomization": (np.array(alike), 0.0)}
    if (truths := bench.truths()) is not None:
        scores = [
            localization(values, truth & mask, mask)
            for values, truth, mask in zip(theirs, truths, bench.brains(), strict=True)
        ]
        rra, chance = ([score[name] for score in scores] for name in ("rra", "chance"))
        found["rra_permuted"] = (np.array(rra), np.array(chance))
    return found


def by_noise(bench: EvaluationContext, label: str) -> Judged:
    """Similarity to maps of noisy images."""
    card, (_, targets) = bench.card, bench.saved(label)
    values = noise_stability(
        bench.method(label), bench.inputs, targets, bench.common_brain(), card.noise_sd, card.n_noise_draws,
        bench.batch_size,
    )  # fmt: skip
    return {"noise_stability": (values, 0.0)}


def by_small_noise(bench: EvaluationContext, label: str) -> Judged:
    """Largest relative change of a map."""
    card, (_, targets) = bench.card, bench.saved(label)
    values = max_sensitivity(
        bench.method(label), bench.inputs, targets, bench.common_brain(), n_samples=card.n_noise_draws,
        batch_size=bench.batch_size,
    )  # fmt: skip
    return {"max_sensitivity": (values, UNRELATED)}


def by_cost(bench: EvaluationContext, label: str) -> Judged:
    """Seconds and memory of one subject; the first pass, which also pays for loading, does not count."""
    _, targets = bench.saved(label)

    def warm() -> None:
        with torch.no_grad():
            bench.classifier(bench.inputs)

    bench.cached("warm", warm)
    found = cost(bench.method(label), bench.inputs, targets)
    return {"seconds": (found["seconds"], np.nan), "peak_mb": (found["peak_mb"], np.nan)}
