"""What is true of a map, method by method, in double precision: the checks of network_method_table.py."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import attention_checks
import captum.attr
import layer_checks
import mask_checks
import numpy as np
import perturbation_checks
import torch
from table_case import Case, relative, scale

from xai_brain import attribution as xa
from xai_brain.attribution.inputs import seed_of

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
        column = min(case.target, case.kind.n_outputs - 1)  # one logit is that of class 1
        return captum.attr.GuidedBackprop(twin).attribute(leaf, column)


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
    required : {"", "usual", "all"}, default ""
        Networks for which the method has to be correct: those with one channel, two outputs and modules that
        can be looked into, or all.
    """

    name: str
    error: Callable[[Case], float]
    tolerance: float
    standard: str
    required: str = ""


CHECKS = [
    Check("Saliency", saliency, 0.02, "gradient", "all"),
    Check("InputXGradient", input_x_gradient, 0.02, "input times gradient", "all"),
    Check("SmoothGrad", smooth_grad, 0.02, "mean gradient over the same noisy volumes", "all"),
    Check(
        "IntegratedGradients",
        integrated_gradients,
        0.05,
        "the same quadrature; change of the output",
        "all",
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
        "usual",
    ),
    Check("GradCAMPlusPlus", layer_checks.grad_cam_plus_plus, 0.01, "published formula"),
    Check("HiResCAM", layer_checks.hires_cam, 0.01, "sum of features times gradient", "usual"),
    Check("LayerCAM", layer_checks.layer_cam, 0.01, "sum of features times positive gradient", "usual"),
    Check(
        "ScoreCAM", layer_checks.score_cam, 0.01, "channels weighted by the softmax of their scores", "usual"
    ),
    Check("GuidedBackprop", guided_backprop, 0.01, "Captum, on the same function with ReLU modules"),
    Check("GuidedGradCAM", guided_grad_cam, 0.01, "product of the two"),
    Check("DeepLift", deep_lift, 0.02, "difference of the output; gradient if the baseline is near"),
    Check("LRP", lrp, 0.02, "sum of the relevance; input times gradient without gamma and epsilon"),
    Check("Occlusion", mask_checks.occlusion, 0.01, "fall of the output of every box", "all"),
    Check("RISE", mask_checks.rise, 0.01, "published sum over the same masks, minus its mean", "usual"),
    Check("RegionAblation", mask_checks.region_ablation, 0.01, "fall of the output of every region"),
    Check("KernelShap", mask_checks.kernel_shap, 0.01, "mean over all orders of the regions", "usual"),
    Check(
        "MeaningfulPerturbation",
        perturbation_checks.meaningful_perturbation,
        0.01,
        "gradient of the mask; scores of the returned mask, not above that of the first",
        "all",
    ),
    Check(
        "AreaConstrainedPerturbation",
        perturbation_checks.area_constrained,
        0.01,
        "gradient, areas and scores of the masks",
    ),
    Check(
        "AmortizedMasker",
        perturbation_checks.amortized,
        0.01,
        "gradient of the mask; fall of the score during training",
    ),
    Check(
        "Kan2020Perturbation",
        perturbation_checks.kan2020,
        0.01,
        "score and gradient of an iteration of the published code",
    ),
    Check("AttentionRollout", attention_checks.rollout, 0.01, "product of (attention + identity) / 2"),
    Check("AttentionRelevance", attention_checks.relevance, 0.01, "published sum over layers"),
    Check("TokenGradCAM", attention_checks.token_grad_cam, 0.01, "weighted sum of the features of tokens"),
    Check(
        "AttnLRP",
        attention_checks.attn_lrp,
        0.02,
        "sum of the relevance; input times gradient of the rules without gamma and epsilon",
    ),
]
