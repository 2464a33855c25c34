"""What is true of a map, method by method, in double precision: the checks of network_method_table.py."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import captum.attr
import layer_checks
import mask_checks
import numpy as np
import published
import torch
from table_case import Case, relative, scale

from xai_brain import attribution as xa
from xai_brain.attribution.inputs import seed_of
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer

# -- one check per method: the error, to be compared with its tolerance ------------------------------------


def saliency(case: Case) -> float:
    return relative(case.maps(xa.Saliency(case.score())), case.gradient)


def input_x_gradient(case: Case) -> float:
    return relative(case.maps(xa.InputXGradient(case.score())), case.inputs * case.gradient)


def smooth_grad(case: Case) -> float:
    maps = case.maps(xa.SmoothGrad(case.score(), case.reference, n_samples=4, noise=0.15))
    expected = torch.zeros_like(maps, dtype=torch.float64)
    for volume, total in zip(case.inputs, expected, strict=True):
        for sample in range(4):
            generator = torch.Generator().manual_seed(seed_of(volume, 0) + sample)
            noise = torch.randn(volume.shape, generator=generator)
            noisy = volume + 0.15 * volume.std(correction=0) * noise
            total += case.exact_gradient(noisy[None])[0] / 4
    return relative(maps, expected)


def integrated_gradients(case: Case) -> float:
    """The same quadrature in double precision; the change of the output."""
    maps = case.maps(xa.IntegratedGradients(case.score(), case.reference))
    start = case.reference.mean.double()
    errors = []
    for map_, volume in zip(maps, case.inputs.double(), strict=True):
        change = float(case.exact_score(volume[None]) - case.exact_score(start[None]))
        n_steps, expected = 16, torch.zeros(())
        while abs(float(expected.sum()) - change) > 0.05 * scale(change, expected):
            n_steps *= 2
            places, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n_steps))
            mean = torch.zeros_like(volume)
            for place, weight in zip(places.split(8), weights.split(8), strict=True):
                points = start + (place.view(-1, 1, 1, 1, 1) + 1) / 2 * (volume - start)
                mean += torch.einsum("p,p...->...", weight / 2, case.exact_gradient(points))
            expected = mean * (volume - start)
        errors += [
            relative(map_[None], expected[None]),
            abs(float(map_.sum()) - change) / scale(change, map_),
        ]
    return max(errors)


def gradient_shap(case: Case) -> float:
    method = xa.GradientShap(case.score(), case.reference, n_samples=4)
    expected = torch.zeros_like(case.inputs, dtype=torch.float64)
    for volume, total in zip(case.inputs.double(), expected, strict=True):
        subjects, places = method._draw(seed_of(volume.float(), 0))
        starts = case.reference.volumes[subjects].double()
        points = starts + places.view(-1, 1, 1, 1, 1).double() * (volume - starts)
        total += (case.exact_gradient(points) * (volume - starts)).mean(0)
    return relative(case.maps(method), expected)


def expected_gradients(case: Case) -> float:
    """The same quadrature in double precision; the mean change of the output."""
    maps = case.maps(xa.ExpectedGradients(case.score(), case.reference))
    starts, errors = case.reference.volumes.double(), []
    for map_, volume in zip(maps, case.inputs.double(), strict=True):
        change = float(case.exact_score(volume[None]) - case.exact_score(starts).mean())
        n_steps, expected = 2, torch.zeros(())
        while abs(float(expected.sum()) - change) > 0.05 * scale(change, expected):
            n_steps *= 2
            expected = torch.zeros_like(volume)
            for place, weight in zip(*np.polynomial.legendre.leggauss(n_steps), strict=True):
                points = starts + (place + 1) / 2 * (volume - starts)
                expected += weight / 2 * (case.exact_gradient(points) * (volume - starts)).mean(0)
        errors += [
            relative(map_[None], expected[None]),
            abs(float(map_.sum()) - change) / scale(change, map_),
        ]
    return max(errors)


def exact_guided_gradient(case: Case) -> torch.Tensor:
    assert case.kind.twin is not None, "a network without ReLU modules at every place has no guided gradient"
    twin = copy.deepcopy(case.kind.twin).double()
    leaf = case.inputs.double().requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
        return captum.attr.GuidedBackprop(twin).attribute(leaf, case.target)


def guided_backprop(case: Case) -> float:
    return relative(case.maps(xa.GuidedBackprop(case.score())), exact_guided_gradient(case))


def guided_grad_cam(case: Case) -> float:
    maps = case.maps(xa.GuidedGradCAM(case.score()))
    return relative(maps, exact_guided_gradient(case) * layer_checks.exact_grad_cam(case).clamp_min(0))


def deep_lift(case: Case) -> float:
    """Completeness, and the gradient in the limit of a baseline next to the volume."""
    total = case.maps(xa.DeepLift(case.score(), case.reference)).double().sum((1, 2, 3, 4))
    change = case.exact_score(case.inputs) - case.exact_score(case.reference.mean[None])
    near, step = [], 1e-5 * torch.randn(case.inputs.shape, generator=torch.Generator().manual_seed(3))
    for volume, start in zip(case.inputs, case.inputs - step, strict=True):
        around = case.around(start.expand(2, *start.shape), case.reference.volumes)
        map_ = xa.DeepLift(case.score(), around).attribute(volume[None], case.target)
        way = (volume.double() - start.double())[None]
        near.append(relative(map_, way * case.exact_gradient(start + way / 2)))
    return max(float(((total - change) / change).abs().max()), *near)


def lrp(case: Case) -> float:
    """With neither rule nor stabiliser it is the input times the gradient; the usual one checks its sum."""
    maps = case.maps(xa.LRP(case.score()))
    assert torch.isfinite(maps).all()
    plain = case.maps(xa.LRP(case.score(), gamma=0, epsilon=0))
    return relative(plain, case.inputs * case.gradient)


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
        errors += [
            abs(after - result.score_after),
            abs(before - result.score_before),
            max(0.0, after - start),
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
            errors += [abs(float(case.exact_score(perturbed[None], "probability")) - score)]
    return max(errors)


def amortized(case: Case) -> float:
    """Gradient of the mask; training lowers the mean score of the volumes that it is made with."""
    method = xa.AmortizedMasker(
        case.score("probability"), case.reference, n_steps=15, area_weight=0.0, tv_weight=0.0
    )
    volumes = case.reference.volumes
    error = mask_gradient_error(case)
    predicted = case.exact(volumes.double()).argmax(1)
    falls = []
    for volume, k in zip(volumes.double(), predicted.tolist(), strict=True):
        e = method.attribute(volume[None].float(), k).double()
        fill = case.reference.class_means[1 - k].double()
        # masks start at 1/2
        scores = [case.exact(volume[None] + m * (fill - volume)).softmax(1)[0, k] for m in (e, 0 * e + 0.5)]
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
    scores = torch.stack([case.exact(volumes)[:, case.target] for volumes in perturbed]).mean(0)
    expected = torch.autograd.grad(scores.sum(), leaf)[0]
    targets = torch.full((len(leaf),), case.target)
    with method.engine.prepared(case.inputs):
        found, gradient = method.engine.gradients(
            *(case.inputs, case.inputs, 1 - applied, targets, -shifts.expand(len(leaf), -1, -1)),
            moving="image",
        )
    score_error = (found.double() - scores.detach()).abs() / scores.detach().abs()
    return max(relative(-gradient, expected), float(score_error.max()))


@dataclass(frozen=True)
class Check:
    """Of one method.

    Parameters
    ----------
    name : str
    error : function of a case
    tolerance : float
    standard : str
        What the map is compared with.
    for_any : bool, default False
        Whether the method has to be correct for all networks with one channel and two outputs.
    """

    name: str
    error: Callable[[Case], float]
    tolerance: float
    standard: str
    for_any: bool = False


CHECKS = [
    Check("Saliency", saliency, 0.02, "gradient", True),
    Check("InputXGradient", input_x_gradient, 0.02, "input times gradient", True),
    Check("SmoothGrad", smooth_grad, 0.02, "mean gradient over the same noisy volumes", True),
    Check(
        "IntegratedGradients",
        integrated_gradients,
        0.05,
        "the same quadrature; change of the output",
        True,
    ),
    Check("GradientShap", gradient_shap, 0.01, "mean over the same training volumes and points"),
    Check(
        "ExpectedGradients",
        expected_gradients,
        0.05,
        "the same quadrature from all training volumes; mean change of the output",
    ),
    Check(
        "GradCAM",
        layer_checks.grad_cam,
        0.01,
        "weighted sum of the features of the last ReLU or convolution",
        True,
    ),
    Check("GradCAMPlusPlus", layer_checks.grad_cam_plus_plus, 0.01, "published formula"),
    Check("HiResCAM", layer_checks.hires_cam, 0.01, "sum of features times gradient", True),
    Check("LayerCAM", layer_checks.layer_cam, 0.01, "sum of features times positive gradient", True),
    Check("ScoreCAM", layer_checks.score_cam, 0.01, "one volume after the other", True),
    Check("GuidedBackprop", guided_backprop, 0.01, "Captum, on the same function with ReLU modules"),
    Check("GuidedGradCAM", guided_grad_cam, 0.01, "product of the two"),
    Check("DeepLift", deep_lift, 0.02, "difference of the output; gradient if the baseline is near"),
    Check("LRP", lrp, 0.02, "sum of the relevance; input times gradient without gamma and epsilon"),
    Check("Occlusion", mask_checks.occlusion, 0.01, "fall of the output of every box", True),
    Check("RISE", mask_checks.rise, 0.01, "published sum over the same masks, minus its mean", True),
    Check("RegionAblation", mask_checks.region_ablation, 0.01, "fall of the output of every region"),
    Check("KernelShap", mask_checks.kernel_shap, 0.01, "mean over all orders of the regions", True),
    Check(
        "MeaningfulPerturbation",
        meaningful_perturbation,
        0.01,
        "gradient of the mask; scores of the returned mask, not above that of the first",
        True,
    ),
    Check("AreaConstrainedPerturbation", area_constrained, 0.01, "gradient, areas and scores of the masks"),
    Check("AmortizedMasker", amortized, 0.01, "gradient of the mask; fall of the score during training"),
    Check("Kan2020Perturbation", kan2020, 0.01, "score and gradient of an iteration of the published code"),
]
