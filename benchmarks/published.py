"""The published way of training and explaining for brain MRI, written plainly and apart from the library.

Training evaluates both parts twice an epoch; methods take one subject at a time, Meaningful Perturbation one
shift after another; all in the usual memory layout. This is what the library is measured against.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def published_layers(network: nn.Module) -> nn.Sequential:
    """The paper's network with the weights of ours, as anybody would write it; logits."""
    network = copy.deepcopy(network)
    layers: dict[str, nn.Module] = {}
    for k, block in enumerate((network.block1, network.block2, network.block3), 1):
        layers |= {f"conv{k}": block.conv, f"norm{k}": block.norm}
        layers |= {f"relu{k}": nn.ReLU(), f"pool{k}": nn.MaxPool3d(2)}
    layers |= {"flatten": nn.Flatten(), "dropout": nn.Dropout(), "linear": network.linear}
    plain = nn.Sequential(OrderedDict(layers))
    for parameter in plain.parameters():
        # `contiguous` would leave the first one its strides, which say channels last to all that follow
        parameter.data = torch.empty(parameter.shape, device=parameter.device).copy_(parameter.data)
    return plain


LAST_RELU = 10  # of the layers: Grad-CAM looks at its output


class PublishedNetwork(nn.Module):
    """The same with a classifier's temperature; probabilities, in eval mode."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.layers = published_layers(classifier.network)
        self.temperature = float(classifier.temperature)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.layers(x) / self.temperature, dim=1)


# -- training ----------------------------------------------------------------------------------------


def published_step(
    layers: nn.Module, optimizer: torch.optim.Optimizer, volumes: torch.Tensor, targets: torch.Tensor
) -> float:
    """Loss of one training step."""
    optimizer.zero_grad()
    loss = F.cross_entropy(layers(volumes), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def published_evaluation(layers: nn.Module, batches: Iterable[dict[str, Any]]) -> tuple[float, float]:
    """Mean loss and accuracy."""
    layers.eval()
    losses, right, n = 0.0, 0, 0
    for batch in batches:
        logits = layers(batch["volume"])
        losses += F.cross_entropy(logits, batch["target"], reduction="sum").item()
        right += int((logits.argmax(1) == batch["target"]).sum())
        n += len(logits)
    return losses / n, right / n


def published_epoch(
    layers: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Iterable[dict[str, Any]],
    validation: Iterable[dict[str, Any]],
) -> float:
    """A pass over the training part, then both parts evaluated twice: for the loss and for the accuracy."""
    layers.train()
    for batch in train:
        published_step(layers, optimizer, batch["volume"], batch["target"])
    for _ in range(2):
        train_loss, _ = published_evaluation(layers, train)
        published_evaluation(layers, validation)
    return train_loss


# -- Grad-CAM and guided backpropagation, one subject, (1, 1, X, Y, Z) --------------------------------


def published_grad_cam(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """For the predicted class, before it is clipped and scaled; a second pass for the feature maps."""
    convolutions, rest = layers[: LAST_RELU + 1], layers[LAST_RELU + 1 :]
    gradients: list[torch.Tensor] = []
    features = convolutions(x)
    features.register_hook(gradients.append)
    logits = rest(features)
    layers.zero_grad()
    logits[0, logits.argmax()].backward()
    weights = gradients[0].mean((2, 3, 4), keepdim=True)
    features = convolutions(x).detach()
    coarse = (weights * features).sum(1, keepdim=True)
    return F.interpolate(coarse, x.shape[2:], mode="trilinear", align_corners=False)


def published_guided_backprop(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """For the predicted class, which takes a pass of its own. Hooks are removed; as published they stay."""
    with torch.no_grad():
        target = layers(x).argmax()

    def positive(module: nn.Module, into: Any, out: Any) -> Any:
        return (into[0].clamp_min(0),)

    handles = [m.register_full_backward_hook(positive) for m in layers if isinstance(m, nn.ReLU)]
    x = x.clone().requires_grad_()
    layers.zero_grad()
    layers(x)[0, target].backward()
    for handle in handles:
        handle.remove()
    assert x.grad is not None
    return x.grad


# -- Meaningful Perturbation --------------------------------------------------------------------------


def box_blur(x: torch.Tensor) -> torch.Tensor:
    """The kernel of 5x5x5 equal weights that the published code calls a Gaussian; zeros outside."""
    return F.conv3d(x, torch.full((1, 1, 5, 5, 5), 1 / 125, dtype=x.dtype, device=x.device), padding=2)


def shifted(x: torch.Tensor, shift: Sequence[int]) -> torch.Tensor:
    """Padded with zeros at the end of each axis and cropped: the content moves to lower indices."""
    a, b, c = shift
    return F.pad(x, (0, c, 0, b, 0, a))[:, :, a:, b:, c:]


def total_variation(mask: torch.Tensor, beta: float = 7) -> torch.Tensor:
    return sum(mask.diff(dim=axis).abs().pow(beta).mean() for axis in (2, 3, 4))


def published_shifts(n_iter: int = 300, n_shifts: int = 10, seed: int = 0) -> torch.Tensor:
    """0 to 4 voxels per axis, (n_iter, n_shifts, 3)."""
    return torch.randint(0, 5, (n_iter, n_shifts, 3), generator=torch.Generator().manual_seed(seed))


def published_perturbation(
    network: nn.Module,
    x: torch.Tensor,
    target: int,
    shifts: torch.Tensor,
    first_kept_iteration: int = 51,
    stop: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One subject, (1, 1, X, Y, Z): the map, and the mask that was applied. `stop` ends early, for timing."""
    n_iter, n_shifts = len(shifts), len(shifts[0])
    size = x.shape[2:]
    mask = torch.ones(1, 1, *(n // 4 for n in size), device=x.device, requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=0.3, betas=(0.9, 0.99), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    best, best_mask = float("inf"), mask.detach().clone()
    for iteration in range(n_iter if stop is None else stop):
        optimizer.zero_grad()
        applied = box_blur(F.interpolate(mask, size, mode="trilinear", align_corners=False))
        score = 0.0
        for shift in shifts[iteration].tolist():
            image = shifted(x.clone(), shift)
            perturbed = image * applied + box_blur(image) * (1 - applied)
            score = score + F.relu(network(perturbed)[0, target] - 0.05) / n_shifts
        weight = min(1.0, iteration / max(n_iter // 5, 1))
        loss = score + weight * (3 * (1 - mask).abs().mean() + total_variation(applied))
        loss.backward()
        if iteration >= first_kept_iteration and loss.item() <= best:
            best, best_mask = loss.item(), mask.detach().clone()
        optimizer.step()
        scheduler.step()
        mask.data.clamp_(0, 1)
    up = F.interpolate(best_mask, size, mode="trilinear", align_corners=False)
    return 1 - up, box_blur(up)


@torch.no_grad()
def published_objective(
    network: nn.Module, x: torch.Tensor, map_: torch.Tensor, applied: torch.Tensor, target: int
) -> float:
    """Full-weight objective of a mask on 27 fixed shifts.

    As published, the area is that of the mask before it is blurred (1 - `map_`), the total variation that of
    the mask that is applied: the blur lowers the mask at the edges of the volume, which is no area.
    """
    shifts = [[a, b, c] for a in (0, 2, 4) for b in (0, 2, 4) for c in (0, 2, 4)]
    images = torch.cat([shifted(x, shift) for shift in shifts])
    volumes = images * applied + box_blur(images) * (1 - applied)
    scores = torch.cat([network(part)[:, target] for part in volumes.split(9)])
    return float(F.relu(scores - 0.05).mean() + 3 * map_.abs().mean() + total_variation(applied))
