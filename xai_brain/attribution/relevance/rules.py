"""Rules of layer-wise relevance propagation.

Relevance over activation travels backwards as a gradient does: a rule keeps the output of a layer and gives
it the gradient of the rule. Operations without constants that scale with their input (ReLU, max and average
pooling, sums) keep their own gradient, which is the rule for them. The map is the input times what arrives.

Biases and other constants are multiplied by a leaf that is 1: its gradient is the relevance that they absorb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from xai_brain.attribution.rules import Rules, depends, with_gradient_of

ALLOWED = ("shape", "linear", "max", "homogeneous")  # kinds of operations beside what the rules reach


class RelevanceRules(Rules):
    """Gamma rule of convolutions, epsilon rule of other affine layers.

    Parameters
    ----------
    constants : Tensor of shape (N,)
        1 for each volume; its gradient is the relevance of the constants.
    gamma, epsilon : float
    """

    def __init__(self, constants: torch.Tensor, gamma: float, epsilon: float):
        affine = ("linear", "batch_norm", *(f"conv_transpose{n}d" for n in (1, 2, 3)))
        convolutions = ("conv1d", "conv2d", "conv3d")
        rules = dict.fromkeys(affine, self._affine)
        rules |= dict.fromkeys(convolutions, self._convolution if gamma else self._affine)
        rules |= dict.fromkeys(("add", "sub", "subtract", "rsub", "__rsub__"), self._constant)
        super().__init__(rules)
        self.constants, self.gamma, self.epsilon = constants, gamma, epsilon

    def _constant(self, function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Sum of an activation and a constant."""
        result = function(*args, **kwargs)
        if sum(map(depends, args[:2])) != 1 or not self._counts_volumes(result):
            return NotImplemented
        offset = function(*(torch.zeros_like(a).detach() if depends(a) else a for a in args), **kwargs)
        return self._with_constants(result, offset)

    def _affine(self, function: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        others = (*args, *kwargs.values())
        if not self._counts_volumes(x) or any(map(depends, others)) or kwargs.get("training"):
            return NotImplemented
        z = function(x, *args, **kwargs)
        offset = function(torch.zeros_like(x).detach(), *args, **kwargs)
        return self._decomposed(z, self._with_constants(z, offset))

    def _convolution(
        self,
        function: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if not self._counts_volumes(x) or depends(weight):
            return NotImplemented

        def sums_of(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return function(values, weights, None, *args, **kwargs)

        return self._gamma_rule(sums_of, x, weight, bias, self.gamma)

    def _gamma_rule(
        self,
        sums_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        gamma: float,
        axes: tuple[int, ...] | None = None,
    ) -> torch.Tensor:
        """Sums of weighted inputs, in which contributions of the sign of the sum are preferred."""
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        z = sums_of(x, weight)
        # positive and negative contributions
        positive, negative = sums_of(x.clamp(min=0), up), sums_of(x.clamp(min=0), down)
        if bool((x < 0).any()):
            positive = positive + sums_of(x.clamp(max=0), down)
            negative = negative + sums_of(x.clamp(max=0), up)
        if bias is not None:
            b = bias.detach().view(-1, *[1] * (weight.ndim - 2)).expand_as(z)
            z = self._with_constants(z + b, b)
            positive = self._with_constants(positive + b.clamp(min=0), b.clamp(min=0))
            negative = self._with_constants(negative + b.clamp(max=0), b.clamp(max=0))
        return self._decomposed(z, z + gamma * torch.where(z >= 0, positive, negative), axes)

    def _counts_volumes(self, activation: torch.Tensor) -> bool:
        """Whether a tensor depends on the image and its first axis counts volumes."""
        return depends(activation) and activation.shape[:1] == self.constants.shape

    def _with_constants(self, value: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """The value, whose gradient also reaches the constants through the offset that it contains."""
        constants = self.constants.view(-1, *[1] * (value.ndim - 1))
        return value + offset.detach() * (constants - 1)

    def _decomposed(
        self, z: torch.Tensor, other: torch.Tensor, axes: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """The value of z; the gradient of `other`, times z / other.

        Epsilon is relative to the root mean square of z over some axes, by default all but the first.
        """
        z, values = z.detach(), other.detach()
        scale = z.square().mean(axes or tuple(range(1, z.ndim)), keepdim=True).sqrt()
        stable = values + torch.where(values >= 0, 1.0, -1.0) * self.epsilon * scale
        share = torch.where(stable == 0, 0.0, z / stable)
        return with_gradient_of(z, other * share)
