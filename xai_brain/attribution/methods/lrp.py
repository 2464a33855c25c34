"""Layer-wise relevance propagation on volumes: batch norm folded, a rule for every linear layer.

Relevance over activation travels backwards as a gradient does: a rule keeps the output of a layer and gives
it the gradient of the rule. Operations without constants that scale with their input (ReLU, max and average
pooling, sums) keep their own gradient, which is the rule for them. The map is the input times what arrives.

Biases and other constants are multiplied by a leaf that is 1: its gradient is the relevance that they absorb.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.completeness import check_completeness, sums
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.operations import GENERAL_METHODS, check_logits, check_operations
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.perturbation.eval_copy import BATCH_NORMS, CONVOLUTIONS
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.rules import Rules, depends, with_gradient_of

ALLOWED = ("shape", "linear", "max", "homogeneous")  # beside what the rules reach


class LRP:
    """Output decomposed backwards, layer by layer.

    Convolutions follow the gamma rule in its form for inputs of both signs, linear layers and batch norms
    that cannot be folded the epsilon rule. ReLU, leaky ReLU and max pooling pass relevance on unchanged; a
    network with other nonlinear operations is refused.

    What is conserved: the relevances of a volume's voxels plus the relevance of the network's constants
    (biases, offsets of batch norms, what is added to or subtracted from an activation) sum to the output
    explained. Only in a network without constants do the voxels alone sum to it. The sum is checked for every
    volume, with a tolerance of 5 % (see `completeness_error`), which also covers what epsilon absorbs.
    Conservation is necessary, not sufficient, for a correct map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes) logits. Functional, in-place and reused activations are explained as well.
    gamma : float, default 0.25
        How much contributions of the sign of the sum are preferred; 0: the epsilon rule everywhere.
    epsilon : float, default 1e-4
        Of the root mean square of a layer's output for the subject: sums smaller than that pass on less.
    chunk_size : int, optional
        Subjects in one pass; default: what fits into memory.

    References
    ----------
    Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
    Propagation", PLOS ONE 2015; Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019.
    """

    info = MethodInfo(
        name="LRP",
        value_meaning="raw and signed: relevance, the share of the voxel in the output explained",
        multiplies_by_inputs=True,
        citation=(
            "Bach S, Binder A, Montavon G, Klauschen F, Müller KR, Samek W. On pixel-wise "
            "explanations for non-linear classifier decisions by layer-wise relevance propagation. "
            "PLoS ONE 2015;10(7):e0130140."
        ),
        operations=ALLOWED,
    )

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 0.25,
        epsilon: float = 1e-4,
        chunk_size: int | None = None,
    ):
        check_logits(model, "LRP")
        self.model, self.gamma, self.epsilon, self.chunk_size = model, gamma, epsilon, chunk_size
        self._checked = CachedCheck(_check)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the relevance of each volume is checked for conservation."""
        check_volumes(inputs)
        with preserved(self.model):
            self._checked.result_for(self.model, inputs)
            network = folded(self.model, inputs[:1].detach())
        done = 0

        def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            nonlocal done
            constants = torch.ones(len(volumes), dtype=volumes.dtype, device=volumes.device).requires_grad_()
            with RelevanceRules(constants, self.gamma, self.epsilon):
                output = select_outputs(network(volumes), targets)
            gradient, of_constants = torch.autograd.grad(
                output.sum(), (volumes, constants), allow_unused=True, materialize_grads=True
            )
            maps, output = (volumes * gradient).detach(), output.detach().double()
            total, absolute = sums(maps)
            check_completeness(
                "LRP",
                *(total, output - of_constants, absolute, torch.maximum(output.abs(), of_constants.abs())),
                meaning="the output explained minus the relevance of biases and other constants",
                advice=f"use another method ({GENERAL_METHODS})",
                volumes=range(done, done + len(volumes)),
            )
            done += len(volumes)
            return maps

        return in_chunks(network, inputs, target, explain, self.chunk_size)


def _check(model: nn.Module, inputs: torch.Tensor) -> None:
    rules = RelevanceRules(inputs.new_ones(1, requires_grad=True), 1.0, 0.0)
    check_operations(model, inputs[:1], "LRP", ALLOWED, rules)


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

        up, down = weight.clamp(min=0), weight.clamp(max=0)
        z = sums_of(x, weight)
        # positive and negative contributions
        positive, negative = sums_of(x.clamp(min=0), up), sums_of(x.clamp(min=0), down)
        if bool((x < 0).any()):
            positive = positive + sums_of(x.clamp(max=0), down)
            negative = negative + sums_of(x.clamp(max=0), up)
        if bias is not None:
            b = bias.detach().view(-1, *[1] * (z.ndim - 2)).expand_as(z)
            z = self._with_constants(z + b, b)
            positive = self._with_constants(positive + b.clamp(min=0), b.clamp(min=0))
            negative = self._with_constants(negative + b.clamp(max=0), b.clamp(max=0))
        return self._decomposed(z, z + self.gamma * torch.where(z >= 0, positive, negative))

    def _counts_volumes(self, activation: torch.Tensor) -> bool:
        """Whether a tensor depends on the image and its first axis counts volumes."""
        return depends(activation) and activation.shape[:1] == self.constants.shape

    def _with_constants(self, value: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """The value, whose gradient also reaches the constants through the offset that it contains."""
        constants = self.constants.view(-1, *[1] * (value.ndim - 1))
        return value + offset.detach() * (constants - 1)

    def _decomposed(self, z: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The value of z; the gradient of `other`, times z / other."""
        z, values = z.detach(), other.detach()
        scale = z.square().mean(tuple(range(1, z.ndim)), keepdim=True).sqrt()
        stable = values + torch.where(values >= 0, 1.0, -1.0) * self.epsilon * scale
        share = torch.where(stable == 0, 0.0, z / stable)
        return with_gradient_of(z, other * share)


def folded(model: nn.Module, volume: torch.Tensor) -> nn.Module:
    """Copy of a model in eval mode in which convolutions hold the batch norm that follows them.

    Found by a forward pass: a batch norm whose input is a convolution's output, both run once. Where that
    would change the outputs (something else uses that output too), the copy is left unfolded.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volume : Tensor of shape (1, 1, X, Y, Z)
    """
    plain, fused = copy.deepcopy(model), copy.deepcopy(model)
    made: list[tuple[str, torch.Tensor]] = []  # holds the tensors, so that no id comes twice
    used: list[tuple[str, torch.Tensor]] = []

    def note(name: str, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, CONVOLUTIONS):
            made.append((name, output))
        else:
            used.append((name, args[0]))

    kinds = (*CONVOLUTIONS, *BATCH_NORMS)
    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: note(name, m, args, output))
        for name, module in plain.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        expected = plain(volume)
    for handle in handles:
        handle.remove()
    for group in (made, used):
        names = [name for name, _ in group]
        group[:] = [(name, tensor) for name, tensor in group if names.count(name) == 1]
    of_output = {id(tensor): name for name, tensor in made}
    for norm, tensor in used:
        if id(tensor) in of_output:
            conv = of_output[id(tensor)]
            both: Any = fused.get_submodule(conv), fused.get_submodule(norm)
            fused.set_submodule(conv, fuse_conv_bn_eval(*both))
            fused.set_submodule(norm, nn.Identity())
    with torch.no_grad():
        same = torch.allclose(fused(volume), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    return fused if same else plain
