"""Rules of layer-wise relevance propagation for transformers (AttnLRP).

As in `xai_brain.attribution.relevance.rules`, relevance over activation travels backwards as a gradient
does, and relevance that constants absorb is the gradient of leaves that are 1.
"""

from __future__ import annotations

from typing import Any

import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.relevance.rules import RelevanceRules
from xai_brain.attribution.rules import depends, with_gradient_of
from xai_brain.attribution.transformers.explicit_attention import ExplicitAttention

ACTIVATIONS = ("gelu", "silu", "mish", "tanh", "elu", "selu", "celu", "hardswish", "softsign")  # f(0) = 0
PRODUCTS = ("matmul", "__matmul__", "bmm", "mm", "mul", "multiply", "__mul__", "einsum")
JOINS = ("cat", "concat", "concatenate")


class TransformerRelevanceRules(ExplicitAttention, RelevanceRules):
    """Rules of AttnLRP, for tokens in any layout.

    Linear layers and convolutions follow the gamma rule, batch norms the epsilon rule, products of two
    activations the uniform rule (half of the relevance for each), activation functions and the division by
    the standard deviation in a layer normalisation the identity rule, and a softmax its Taylor expansion: the
    share of the offset of the expansion is counted with the constants.

    Parameters
    ----------
    constants : Tensor of shape (N,)
        1 for each volume; its gradient is the relevance of the constants.
    gamma, gamma_linear, epsilon : float
        Of convolutions, of linear layers, and of both.
    shapes : list of torch.Size
        Of what constants are added to, for one volume: they show which axis counts volumes. Filled if empty,
        which needs one volume.
    """

    def __init__(
        self,
        constants: torch.Tensor,
        gamma: float,
        gamma_linear: float,
        epsilon: float,
        shapes: list[torch.Size],
    ):
        super().__init__(constants, gamma, epsilon)
        self.gamma_linear, self.shapes, self.n_sums = gamma_linear, shapes, 0
        self.rules = {
            **self.rules,
            **dict.fromkeys(PRODUCTS, self._product),
            **dict.fromkeys(ACTIVATIONS, self._activation),
            "linear": self._linear,
            "layer_norm": self._layer_norm,
            "softmax": self._softmax,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "einsum":  # rules get tensors first

            def einsum(*factors: torch.Tensor, equation: str = args[0]) -> torch.Tensor:
                return func(equation, *factors)

            factors = args[1] if isinstance(args[1], list | tuple) else args[1:]
            return super().__torch_function__(einsum, types, tuple(factors), kwargs)
        if name in JOINS and args and torch.is_grad_enabled() and any(map(depends, args[0])):
            parts = [part if depends(part) else self._with_constants(part, part) for part in args[0]]
            args = (parts, *args[1:])
        return super().__torch_function__(func, types, args, kwargs)

    def _linear(
        self, function: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if not depends(x) or depends(weight) or depends(bias):
            return NotImplemented
        return self._gamma_rule(function, x, weight, bias, self.gamma_linear, axes=(-1,))

    def _product(self, function: Any, *factors: Any, **kwargs: Any) -> torch.Tensor:
        """Uniform rule: each of two activations gets half of the relevance."""
        n_activations = sum(map(depends, factors))
        if n_activations < 2:
            return NotImplemented
        z = function(*factors, **kwargs)
        return with_gradient_of(z, z / n_activations)

    def _activation(self, function: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Identity rule of a function with f(0) = 0: the relevance of the result is that of the argument."""
        if not depends(x):
            return NotImplemented
        y = function(x, *args, **kwargs).detach()
        return with_gradient_of(y, x * torch.where(x == 0, 0.0, y / x).detach())

    def _layer_norm(
        self,
        function: Any,
        x: torch.Tensor,
        normalized_shape: Any,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """Identity rule of the division by the standard deviation, which is a constant therefore."""
        if not depends(x):
            return NotImplemented
        axes = tuple(range(-len(normalized_shape), 0))
        centred = x - x.mean(axes, keepdim=True)
        result = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt().detach()
        if weight is not None:
            result = result * weight
        return result if bias is None else self._with_constants(result + bias, bias.expand_as(result))

    def _softmax(self, function: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """First-order Taylor expansion at x: its gradient, and the rest as a constant."""
        if not depends(x):
            return NotImplemented
        s = function(x, *args, **kwargs)
        axis = kwargs["dim"] if "dim" in kwargs else args[0]
        weighted = torch.where(s > 0, s * x, 0.0).detach()  # a logit of -inf has no weight
        expansion = weighted - s.detach() * weighted.sum(axis, keepdim=True)  # J x
        return self._with_constants(s, s - expansion)

    def _counts_volumes(self, activation: torch.Tensor) -> bool:
        return depends(activation)

    def _with_constants(self, value: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """The value, whose gradient also reaches the constants; the axis that counts volumes is found."""
        n_volumes = len(self.constants)
        if n_volumes == 1:
            if len(self.shapes) == self.n_sums:
                self.shapes.append(value.shape)
            constants = self.constants.view([1] * value.ndim)
        else:
            one = self.shapes[self.n_sums]
            longer = [axis for axis in range(value.ndim) if value.shape[axis] == n_volumes * one[axis]]
            if len(longer) != 1 or len(one) != value.ndim:
                raise AttributionError(
                    f"AttnLRP: an activation of shape {tuple(one)} for one volume has {tuple(value.shape)} "
                    f"for {n_volumes}: no axis counts volumes; give one volume at a time (chunk_size=1)"
                )
            view = [-1 if axis == longer[0] else 1 for axis in range(value.ndim)]
            constants = self.constants.repeat_interleave(one[longer[0]]).view(view)
        self.n_sums += 1
        finite = torch.where(offset.isfinite(), offset, 0.0).detach()  # masks of attention add -inf
        return value + finite * (constants - 1)
