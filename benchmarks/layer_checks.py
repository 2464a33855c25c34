"""Checks of methods that combine the channels of one layer."""

from __future__ import annotations

import torch
from table_case import Case, relative
from torch import nn

from xai_brain import attribution as xa


def features_and_gradient(case: Case, name: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of the layer and gradient of the score with respect to it, both (N, K, x, y, z)."""
    kept = []
    layer = case.exact.get_submodule(name or case.kind.layer)
    handle = layer.register_forward_hook(
        lambda module, args, output: (kept.append(output), output.clone())[1]
    )
    leaf = case.inputs.double().requires_grad_()
    scores = case.exact_columns(leaf)[:, case.target]
    handle.remove()
    return kept[-1].detach(), torch.autograd.grad(scores.sum(), kept[-1])[0]


def resized(case: Case, coarse: torch.Tensor) -> torch.Tensor:
    """Map on the grid of the inputs, from the grid of the layer (N, x, y, z)."""
    map_ = nn.functional.interpolate(coarse[:, None], case.shape, mode="trilinear", align_corners=False)
    return map_.expand_as(case.inputs)


def exact_grad_cam(case: Case) -> torch.Tensor:
    features, gradient = features_and_gradient(case)
    return resized(case, torch.einsum("nk,nk...->n...", gradient.mean((2, 3, 4)), features))


def grad_cam(case: Case) -> float:
    return relative(case.maps(xa.GradCAM(case.score())), exact_grad_cam(case))


def grad_cam_plus_plus(case: Case) -> float:
    maps = case.maps(xa.GradCAMPlusPlus(case.score()))
    features, gradient = features_and_gradient(case)
    total = features.sum((2, 3, 4), keepdim=True)
    below = 2 * gradient**2 + total * gradient**3
    alpha = torch.where(below != 0, gradient**2 / below, 0.0)
    weights = (alpha * gradient.clamp_min(0)).sum((2, 3, 4))
    return relative(maps, resized(case, torch.einsum("nk,nk...->n...", weights, features)))


def hires_cam(case: Case) -> float:
    features, gradient = features_and_gradient(case)
    return relative(case.maps(xa.HiResCAM(case.score())), resized(case, (features * gradient).sum(1)))


def layer_cam(case: Case) -> float:
    features, gradient = features_and_gradient(case)
    expected = resized(case, (features * gradient.clamp_min(0)).sum(1))
    return relative(case.maps(xa.LayerCAM(case.score())), expected)


def score_cam(case: Case) -> float:
    """Every channel of the first volume."""
    volume = case.inputs[:1].double()
    layer = case.kind.score_layer
    method = xa.ScoreCAM(case.score(), case.reference, layer=layer)
    maps = method.attribute(case.inputs[:1], case.target)
    features = features_and_gradient(case, layer)[0][0]
    scores = torch.full((len(features),), -torch.inf, dtype=torch.float64)
    varying = (features.flatten(1).amax(1) > features.flatten(1).amin(1)).nonzero()[:, 0]
    for some in varying.split(16):
        masks = torch.stack([resized(case, channel[None])[0] for channel in features[some]])
        low, high = (edge(masks.flatten(1), 1).view(-1, 1, 1, 1, 1) for edge in (torch.amin, torch.amax))
        masks = (masks - low) / (high - low)
        scores[some] = case.exact_score(masks * volume + (1 - masks) * case.fill)
    weights = scores.softmax(0)
    return relative(maps, resized(case, torch.einsum("k,k...->...", weights, features)[None])[:1])
