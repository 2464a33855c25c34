"""Meaningful Perturbation as published for brain MRI, written plainly and apart from the library.

One subject, one shift after another, the blur computed anew for each, in the usual memory layout. This is
what the engine is measured against.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn


class PublishedNetwork(nn.Module):
    """The network of the paper with a classifier's weights, as anybody would write it; probabilities."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        network = copy.deepcopy(classifier.network)
        layers: list[nn.Module] = []
        for block in (network.block1, network.block2, network.block3):
            layers += [block.conv, block.norm, nn.ReLU(), nn.MaxPool3d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), network.linear)
        self.temperature = float(classifier.temperature)
        for parameter in self.parameters():
            parameter.data = parameter.data.contiguous()
            parameter.requires_grad_(False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.layers(x) / self.temperature, dim=1)


def box_blur(x: torch.Tensor) -> torch.Tensor:
    """Size 5, sigma 10: nearly a box; one voxel off, zeros outside."""
    weights = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    weights = torch.exp(-(weights**2) / (2 * 10.0**2))
    weights = weights / weights.sum()
    kernel = weights[:, None, None] * weights[None, :, None] * weights[None, None, :]
    return F.conv3d(F.pad(x, (1, 3, 1, 3, 1, 3)), kernel[None, None])


def shifted(x: torch.Tensor, shift: list[int]) -> torch.Tensor:
    """Moved to higher indices, zeros coming in."""
    a, b, c = shift
    result = torch.zeros_like(x)
    result[:, :, a:, b:, c:] = x[:, :, : x.shape[2] - a, : x.shape[3] - b, : x.shape[4] - c]
    return result


def total_variation(mask: torch.Tensor, beta: float = 7) -> torch.Tensor:
    return sum(mask.diff(dim=axis).abs().pow(beta).mean() for axis in (2, 3, 4))


def published_perturbation(
    network: nn.Module,
    x: torch.Tensor,
    target: int,
    n_iter: int = 300,
    n_shifts: int = 10,
    seed: int = 0,
    stop: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One subject, (1, 1, X, Y, Z): the map, and the mask that was applied. `stop` ends early, for timing."""
    generator = torch.Generator().manual_seed(seed)
    size = x.shape[2:]
    mask = torch.ones(1, 1, *(n // 4 for n in size), requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=0.3, betas=(0.9, 0.99), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    best, best_mask = float("inf"), mask.detach().clone()
    for iteration in range(n_iter if stop is None else stop):
        optimizer.zero_grad()
        up = F.interpolate(mask, size, mode="trilinear", align_corners=False)
        applied = box_blur(up)
        shifts = torch.randint(0, 5, (n_shifts, 3), generator=generator).tolist()
        score = 0.0
        for shift in shifts:
            moved = shifted(x.clone(), shift)
            perturbed = moved * applied + box_blur(moved) * (1 - applied)
            score = score + F.relu(network(perturbed)[0, target] - 0.05) / n_shifts
        weight = min(1.0, iteration / (n_iter / 5))
        loss = score + weight * (3 * (1 - mask).abs().mean() + total_variation(up))
        loss.backward()
        if iteration > n_iter / 6 and loss.item() < best:
            best, best_mask = loss.item(), mask.detach().clone()
        optimizer.step()
        scheduler.step()
        mask.data.clamp_(0, 1)
    up = F.interpolate(best_mask, size, mode="trilinear", align_corners=False)
    return 1 - up, box_blur(up)


@torch.no_grad()
def published_objective(network: nn.Module, x: torch.Tensor, applied: torch.Tensor, target: int) -> float:
    """Full-weight objective of a mask on 27 fixed shifts."""
    shifts = [[a, b, c] for a in (0, 2, 4) for b in (0, 2, 4) for c in (0, 2, 4)]
    blurred = box_blur(x)
    volumes = torch.cat([shifted(x, s) * applied + shifted(blurred, s) * (1 - applied) for s in shifts])
    scores = torch.cat([network(part)[:, target] for part in volumes.split(9)])
    area = (1 - applied).abs().mean()
    return float(F.relu(scores - 0.05).mean() + 3 * area + total_variation(applied))
