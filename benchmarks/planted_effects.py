"""Planted effects of intensity and of shape: which method finds them, and with which fill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from captum.attr import Saliency
from cohorts import LEFT_MM, RIGHT_MM, TrainedFold, permuted, planted, preset, trained_fold
from nibabel.affines import apply_affine

from xai_brain.attribution import (
    AmortizedMasker,
    AreaConstrainedPerturbation,
    ClassScore,
    GradCAM,
    GuidedBackprop,
    MeaningfulPerturbation,
)
from xai_brain.io.nifti import get_grid
from xai_brain.metrics.localization import localization
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.statistics.bootstrap import bootstrap_mean

N_TEST, N_GROUP, N_PERMUTED = 16, 32, 3
FURTHER_MM = [[36.0, -50.0, 40.0], [0.0, 45.0, 10.0]]  # two further places of the same effect
FOUND_PERCENT = 1  # a place is found if one of the strongest voxels, this share of the brain, lies inside
FILLS: dict[str, Any] = {
    "blur": "blur",
    "zero": "zero",
    "noise": "noise",
    "brain mean": "brain_mean",
    "training mean": "training_mean",
    "nearest of the other class": "nearest_counterfactual",
    "counterfactual mean": "counterfactual_mean",
    "mixture of the last three": ["training_mean", "nearest_counterfactual", "counterfactual_mean"],
}


def t_map(fold: TrainedFold) -> np.ndarray:
    """Voxel-wise t of the training subjects, class 1 against class 0."""
    volumes = np.stack([np.load(path) for path in fold.train["volume_path"]])
    target = fold.train["target"].to_numpy()
    a, b = volumes[target == 1], volumes[target == 0]
    standard_error = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
    return (a.mean(0) - b.mean(0)) / np.where(standard_error > 0, standard_error, np.inf)


def methods(fold: TrainedFold) -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Every method on what it explains by default."""
    probability, logit = ClassScore(fold.classifier, "probability"), ClassScore(fold.classifier, "logit")
    difference = ClassScore(fold.classifier, "logit_difference")
    reference = fold.reference
    saliency = Saliency(logit)
    return {
        "default": MeaningfulPerturbation(probability, reference).attribute,
        "logit_difference": MeaningfulPerturbation(difference, reference).attribute,
        "preset": preset("kan2020_fast", "Kan2020FastPerturbation", fold).attribute,
        "area_constrained": AreaConstrainedPerturbation(probability, reference).attribute,
        "gradient": lambda x, t: saliency.attribute(x.clone().requires_grad_(), t, abs=False),
        "guided_backprop": GuidedBackprop(logit).attribute,
        "grad_cam": GradCAM(logit).attribute,
    }


def predicted(fold: TrainedFold, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([fold.classifier(part).argmax(1) for part in inputs.split(8)])


def rra(maps: torch.Tensor, truths: list[np.ndarray], brains: list[np.ndarray]) -> np.ndarray:
    """Relevance rank accuracy of every subject."""
    return np.array(
        [
            localization(m[0].detach().numpy(), truth, brain)["rra"]
            for m, truth, brain in zip(maps, truths, brains, strict=True)
        ]
    )


def difference_images(fold: TrainedFold, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (inputs - fold.reference.counterfactual_mean(targets)).abs()


def compare(fold: TrainedFold, n: int = N_TEST) -> dict[str, np.ndarray]:
    """RRA per subject of all methods and of the baselines that know no network."""
    fold = fold.last(n)
    inputs, truths, brains = fold.volumes(n), fold.truths(n), fold.brain_masks(n)
    targets = predicted(fold, inputs)
    scores = {name: rra(run(inputs, targets), truths, brains) for name, run in methods(fold).items()}
    scores["difference_image"] = rra(difference_images(fold, inputs, targets), truths, brains)
    t = torch.from_numpy(t_map(fold)).expand(len(inputs), 1, *inputs.shape[2:])
    scores["t_map"] = rra(t, truths, brains)
    scores["chance"] = np.array([t[b].mean() for t, b in zip(truths, brains, strict=True)])
    return scores


def fill_study(folds: dict[str, TrainedFold], n: int = 8) -> None:
    print(
        "\nRRA by fill (default method otherwise)\n| fill | "
        + " | ".join(folds)
        + " |\n|"
        + "---|" * (len(folds) + 1)
    )
    for name, fill in FILLS.items():
        cells = []
        for fold in folds.values():
            inputs = fold.volumes(n)
            method = MeaningfulPerturbation(
                ClassScore(fold.classifier, "probability"), fold.reference, fill=fill
            )
            maps = method.attribute(inputs, predicted(fold, inputs))
            cells.append(f"{rra(maps, fold.truths(n), fold.brain_masks(n)).mean():.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def null_of_the_default(overrides: list[str]) -> dict[str, list[float]]:
    """Mean RRA of the default on networks that were trained on permuted labels.

    At the place of the effect, which half of the images carry whatever their label is, and at its mirror
    image, where nobody carries anything.
    """
    elsewhere = trained_fold("second", planted("intensity", 30, effect_center_mm=RIGHT_MM))
    values: dict[str, list[float]] = {"rra_null": [], "rra_null_elsewhere": []}
    for k, settings in enumerate(permuted(overrides, N_PERMUTED)):
        fold = trained_fold(f"permuted_{k}", settings)
        accuracy, fold = fold.accuracy, fold.last(N_TEST)
        inputs = fold.volumes(N_TEST)
        method = MeaningfulPerturbation(ClassScore(fold.classifier, "probability"), fold.reference)
        results = method.optimize(inputs, predicted(fold, inputs))
        maps, brains = torch.stack([r.evidence for r in results]), fold.brain_masks(N_TEST)
        values["rra_null"].append(float(rra(maps, fold.truths(N_TEST), brains).mean()))
        there = fold.truth_elsewhere(elsewhere, N_TEST)
        values["rra_null_elsewhere"].append(float(rra(maps, there, brains).mean()))
        print(
            f"labels permuted, network {k}: test accuracy {accuracy:.2f}, "
            f"score before {np.mean([r.score_before for r in results]):.2f}, "
            f"after {np.mean([r.score_after for r in results]):.2f}, "
            f"area {np.mean([r.area for r in results]):.3f}, "
            f"RRA {values['rra_null'][-1]:.3f}, elsewhere {values['rra_null_elsewhere'][-1]:.3f}",
            flush=True,
        )
    return values


def unlearned_effect() -> dict[str, float]:
    """Two effects; the label goes with one when the network learns, with both in fill and test images.

    A mask that follows the fill instead of the network lights the second.
    """
    learns = trained_fold("one_of_two", planted("intensity", 30, distractor_center_mm=RIGHT_MM))
    both = trained_fold(
        "both_of_two",
        planted("intensity", 30, distractor_center_mm=RIGHT_MM, distractor_follows_class="true"),
    )
    second = trained_fold(
        "second", planted("intensity", 30, effect_center_mm=RIGHT_MM)
    )  # for its truth masks
    both, second = both.last(N_TEST), second.last(N_TEST)
    inputs, brains = both.volumes(N_TEST), both.brain_masks(N_TEST)
    targets = predicted(learns, inputs)
    method = MeaningfulPerturbation(ClassScore(learns.classifier, "probability"), both.reference)
    maps = method.attribute(inputs, targets)
    of_fill = difference_images(both, inputs, targets)
    truths = second.truths(N_TEST)
    return {
        "network accuracy where both go with the label": float(
            (targets.numpy() == both.test["target"].to_numpy()[:N_TEST]).mean()
        ),
        "learned": float(rra(maps, both.truths(N_TEST), brains).mean()),
        "unlearned": float(rra(maps, truths, brains).mean()),
        "unlearned, |x - other mean|": float(rra(of_fill, truths, brains).mean()),
        "chance": float(np.mean([t[b].mean() for t, b in zip(truths, brains, strict=True)])),
    }


def three_places(n: int = 16, radius_mm: float = 15.0) -> dict[str, float]:
    """Share of participants with one effect at three places in whom a place, and all of them, are found.

    Also the mean decrease of the logit difference when the place is replaced by the mean of the other class:
    a network need not use a place where the classes differ.
    """
    centers = [LEFT_MM, *FURTHER_MM]
    settings = planted("intensity", radius_mm, further_centers_mm=str(FURTHER_MM).replace(" ", ""))
    fold = trained_fold("three_places", settings)
    fold = replace(fold, test=fold.test[fold.test["target"] == 1].iloc[-n:])  # those who have the effect
    inputs, brains, affine = fold.volumes(), fold.brain_masks(n), get_grid("t1w_4mm").affine
    voxels_mm = apply_affine(affine, np.moveaxis(np.indices(inputs.shape[2:]), 0, -1))
    places = [np.linalg.norm(voxels_mm - center, axis=-1) <= radius_mm for center in centers]
    targets, found = predicted(fold, inputs), {}
    for output in ("probability", "logit_difference"):
        score = ClassScore(fold.classifier, output)
        maps = MeaningfulPerturbation(score, fold.reference).attribute(inputs, targets)
        inside = []
        for m, brain in zip(maps, brains, strict=True):
            values = np.where(brain, m[0].detach().numpy(), -np.inf)
            strongest = values >= np.quantile(values[brain], 1 - FOUND_PERCENT / 100)
            inside.append([bool((strongest & place).any()) for place in places])
        for k, share in enumerate(np.mean(inside, 0), 1):
            found[f"place_{k}_found_{output}"] = float(share)
        found[f"three_places_found_{output}"] = float(np.all(inside, 1).mean())
    other = fold.reference.counterfactual_mean(targets)
    with torch.no_grad():
        before = score(inputs).gather(1, targets[:, None])
        for k, place in enumerate(places, 1):
            after = score(torch.where(torch.from_numpy(place), other, inputs)).gather(1, targets[:, None])
            found[f"place_{k}_used"] = float((before - after).mean())
    return found


def group_and_masker(fold: TrainedFold) -> dict[str, float]:
    """One mask for a group, and masks written by a network, against one mask per subject."""
    fold = fold.last(N_GROUP)
    inputs, truths, brains = fold.volumes(N_GROUP), fold.truths(N_GROUP), fold.brain_masks(N_GROUP)
    targets = predicted(fold, inputs)
    model = ClassScore(fold.classifier, "probability")
    method = MeaningfulPerturbation(model, fold.reference)
    start = time.perf_counter()
    single = method.attribute(inputs, targets)
    seconds = {"single": time.perf_counter() - start}
    start = time.perf_counter()
    shared = method.optimize_group(inputs, targets).evidence
    seconds["group"] = time.perf_counter() - start
    masker = AmortizedMasker(model, fold.reference)
    start = time.perf_counter()
    masker.fit()
    seconds["masker_training"] = time.perf_counter() - start
    start = time.perf_counter()
    written = masker.attribute(inputs, targets)
    seconds["masker"] = time.perf_counter() - start
    return {
        "group_mask_speedup": seconds["single"] / seconds["group"],
        "rra_group_mask": float(rra(shared.expand_as(inputs), truths, brains).mean()),
        "rra_single_masks": float(rra(single, truths, brains).mean()),
        "masker_speedup": seconds["single"] / seconds["masker"],
        "masker_training_seconds": seconds["masker_training"],
        "rra_masker": float(rra(written, truths, brains).mean()),
    }


def planted_part() -> dict[str, Any]:
    """All that needs a truth."""
    keep_freed_memory()
    keys: dict[str, Any] = {}
    folds = {}
    for radius in (30, 15):
        for kind in ("intensity", "shape"):
            fold = trained_fold(f"{kind}_{radius}", planted(kind, radius))
            folds[f"{kind}, {radius} mm"] = fold
            scores = compare(fold)
            print(f"\nRRA, {kind} effect, {radius} mm; network: test accuracy {fold.accuracy:.3f}")
            for name, values in scores.items():
                mean, low, high = bootstrap_mean(values)
                print(f"  {name:17s} {mean:.3f} ({low:.3f} to {high:.3f})", flush=True)
                end = "" if (kind, radius) == ("intensity", 30) else f"_{kind}_{radius}"
                keys[f"rra_{name}{end}"] = mean
    fill_study(folds)
    keys |= null_of_the_default(planted("intensity", 30))
    control = unlearned_effect()
    print(
        "\ntwo effects, one learned:", {name: round(value, 3) for name, value in control.items()}, flush=True
    )
    keys["rra_learned_effect"], keys["rra_unlearned_effect"] = control["learned"], control["unlearned"]
    keys["rra_unlearned_effect_difference_image"] = control["unlearned, |x - other mean|"]
    keys["rra_unlearned_effect_chance"] = control["chance"]
    keys |= three_places()
    keys |= group_and_masker(folds["intensity, 30 mm"])
    return keys


if __name__ == "__main__":
    planted_part()
