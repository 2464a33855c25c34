"""Checks of methods that optimise a perturbation mask."""

from __future__ import annotations

import numpy as np
import published
import torch
from table_case import Case, relative

from xai_brain import attribution as xa
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer


def mask_gradient_error(case: Case) -> float:
    """Of the gradient of the score with respect to a mask, which every mask method descends."""
    engine = BatchedScorer(case.score())
    half = torch.full_like(case.inputs, 0.4)
    fill = case.fill.expand_as(case.inputs)
    with engine.prepared(case.inputs):
        targets = torch.full((len(case.inputs),), case.target)
        _, gradient = engine.gradients(case.inputs, fill.float(), half, targets)
    volumes = torch.lerp(case.inputs.double(), fill, half.double())
    expected = case.exact_gradient(volumes) * (fill - case.inputs)
    return relative(gradient, expected)


def meaningful_perturbation(case: Case) -> float:
    """Gradient of the mask; scores of the returned mask; a score no higher than that of the first mask."""
    method = xa.MeaningfulPerturbation(
        case.score("probability"), case.reference, n_iter=12, area_weight=0.0, tv_weight=0.0
    )
    errors = [mask_gradient_error(case)]
    for volume, result in zip(case.inputs, method.optimize(case.inputs, case.target), strict=True):
        e, x = result.evidence.double(), volume.double()
        assert 0 <= float(e.min()) <= float(e.max()) <= 1
        after, before, start = (
            float(case.exact_score((x + mask * (case.fill - x))[None], "probability"))
            for mask in (e, 0 * e, 0.5)
        )
        size = max(1.0, abs(before))
        errors += [
            abs(after - result.score_after) / size,
            abs(before - result.score_before) / size,
            max(0.0, after - start) / size,
        ]
    return max(errors)


def area_constrained(case: Case) -> float:
    """Gradient of the mask; its areas; its scores."""
    method = xa.AreaConstrainedPerturbation(
        case.score("probability"), case.reference, areas=(0.1, 0.3), n_iter=4
    )
    errors = [mask_gradient_error(case)]
    for volume, curve in zip(case.inputs, method.optimize(case.inputs, case.target), strict=True):
        for area, score, e in zip(curve.areas, curve.scores, curve.evidence.double(), strict=True):
            perturbed = volume.double() + e * (case.fill - volume.double())
            errors += [abs(float(e.mean()) - area) / area]
            exact = float(case.exact_score(perturbed[None], "probability"))
            errors += [abs(exact - score) / max(1.0, abs(exact))]
    return max(errors)


def amortized(case: Case) -> float:
    """Gradient of the mask; training lowers the mean score of the volumes that it is made with."""
    method = xa.AmortizedMasker(
        case.score("probability"), case.reference, n_steps=15, area_weight=0.0, tv_weight=0.0
    )
    volumes = case.reference.volumes
    error = mask_gradient_error(case)
    with torch.no_grad():
        predicted = case.exact_columns(volumes).argmax(1)
    falls = []
    for volume, k in zip(volumes.double(), predicted.tolist(), strict=True):
        e = method.attribute(volume[None].float(), k).double()
        fill = case.exact_fill(k)
        with torch.no_grad():  # masks start at 1/2
            scores = [
                case.exact_columns(volume[None] + mask * (fill - volume), "probability")[0, k]
                for mask in (e, 0 * e + 0.5)
            ]
        falls.append(float(scores[1] - scores[0]))
    return max(error, -float(np.mean(falls)))


def kan2020(case: Case) -> float:
    """Score and gradient of an iteration, against the published code in double precision.

    Logits are explained without the floor of the published loss, because probabilities of perturbed noise are
    0 or 1 to seven digits. The rest of the algorithm does not depend on the network and is compared with the
    published mask in tests/test_masks.py. Whole masks of two precisions are not compared here: the first
    steps of Adam have the same size however small the gradient is, so that they amplify rounding.
    """
    shifts = published.published_shifts(1, 3, seed=2)
    method = xa.Kan2020Perturbation(case.score(), shifts=shifts, first_kept_iteration=0)
    maps = case.maps(method)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1

    applied = torch.rand(case.inputs.shape, generator=torch.Generator().manual_seed(4))
    leaf = applied.double().requires_grad_()
    images = [published.shifted(case.inputs.double(), shift) for shift in shifts[0].tolist()]
    perturbed = [image * leaf + published.box_blur(image) * (1 - leaf) for image in images]
    scores = torch.stack([case.exact_columns(volumes)[:, case.target] for volumes in perturbed]).mean(0)
    expected = torch.autograd.grad(scores.sum(), leaf)[0]
    targets = torch.full((len(leaf),), case.target)
    with method.engine.prepared(case.inputs):
        found, gradient = method.engine.gradients(
            *(case.inputs, case.inputs, 1 - applied, targets, -shifts.expand(len(leaf), -1, -1)),
            moving="image",
        )
    score_error = (found.double() - scores.detach()).abs() / scores.detach().abs()
    return max(relative(-gradient, expected), float(score_error.max()))
