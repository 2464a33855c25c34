"""Guided backpropagation, for ReLUs wherever a network calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.first_convolution import use_fast_backward
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import AttributionError, CachedCheck, preserved
from xai_brain.attribution.operations import GENERAL_METHODS, check_operations
from xai_brain.attribution.outputs import ClassScore, select_outputs
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.rules import Rules

ALLOWED = ("shape", "linear", "affine", "max", "normalisation")  # beside ReLU
NAME = "guided backpropagation"


class GuidedBackprop:
    """Gradient of the output in which ReLUs let only positive gradients pass backwards.

    Linear operations, max pooling and normalisation keep their gradient. Networks with other gates (GELU,
    clamp, products of two activations, ...) are refused, because the method has no rule for them.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes). Functional, in-place and reused ReLUs are explained as well.

    Examples
    --------
    >>> import torch
    >>> from xai_brain import Kan2020
    >>> network = Kan2020(input_shape=(30, 28, 26), channels=(2, 3, 4)).eval()
    >>> volumes = torch.rand(1, 1, 30, 28, 26)
    >>> GuidedBackprop(network).attribute(volumes, target=1).shape
    torch.Size([1, 1, 30, 28, 26])

    References
    ----------
    Springenberg et al., "Striving for Simplicity", ICLR workshop 2015.
    """

    info = MethodInfo(
        name="GuidedBackprop",
        value_meaning="raw and signed: guided gradient of the output explained",
        multiplies_by_inputs=False,
        per_channel=True,
        citation=(
            "Springenberg JT, Dosovitskiy A, Brox T, Riedmiller M. Striving for simplicity: the all "
            "convolutional net. ICLR workshop 2015. arXiv:1412.6806."
        ),
        operations=ALLOWED,
    )

    def __init__(self, model: nn.Module):
        self.model = model
        self._checked = CachedCheck(_check)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        check_volumes(inputs)
        with preserved(self.model):
            self._checked.result_for(self.model, inputs)
            use_fast_backward(self.model)

            def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                with Rules({"relu": _guided}):
                    scores = select_outputs(self.model(volumes), targets)
                return torch.autograd.grad(scores.sum(), volumes)[0]

            return in_chunks(self.model, inputs, target, explain)


def _guided(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    out: torch.Tensor = function(*args, **kwargs)
    if out.requires_grad:
        out.register_hook(lambda gradient: gradient.clamp_min(0))
    return out


def _check(model: nn.Module, inputs: torch.Tensor) -> None:
    rules = Rules({"relu": _guided})
    inner = model.model if isinstance(model, ClassScore) else model  # softmax of the output is no gate
    check_operations(inner, inputs[:1], NAME, ALLOWED, rules)
    if not rules.n_applied:
        raise AttributionError(
            f"the network applies no ReLU: {NAME} would be the plain gradient; use another method "
            f"({GENERAL_METHODS})"
        )
