"""Layer-wise relevance propagation on volumes: batch norm folded, a rule for every linear layer.

Relevance over activation travels backwards as a gradient does: every rule is a forward hook that keeps a
layer's output and gives it the rule's gradient, and steps without bias that scale with their input (ReLU,
max and average pooling, sums) keep their own, which is the rule for them, whoever calls them. The map is
the input times what arrives.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xai_brain.attribution.eval_copy import BATCH_NORMS, CONVOLUTIONS
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.nonlinearities import check_logits, check_no_others

HOMOGENEOUS = ("ReLU", "LeakyReLU", "PReLU", "MaxPool3d")


class LRP:
    """Output shared out backwards, layer by layer; voxels of a network without biases sum to the output.

    Convolutions follow the gamma rule in its form for inputs of both signs, linear layers and batch norms
    that cannot be folded the epsilon rule. What a layer's bias adds is the bias's share and leaves the sum.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes) logits. Functional, in-place and reused ReLUs are explained as well.
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

    value_meaning = "raw and signed: relevance, the share of the voxel in the output explained"

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 0.25,
        epsilon: float = 1e-4,
        chunk_size: int | None = None,
    ):
        check_logits(model, "LRP")
        self.model, self.gamma, self.epsilon, self.chunk_size = model, gamma, epsilon, chunk_size

    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Explain a batch.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : int or Tensor of shape (N,)
            Class index.

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)

        Raises
        ------
        AttributionError
            The model has nonlinear steps that do not scale with their input (GELU, softmax, ...); or the
            inputs are not volumes.
        """
        check_volumes(inputs)
        with preserved(self.model):
            check_no_others(self.model, inputs, "LRP", HOMOGENEOUS)
            network = folded(self.model, inputs[:1].detach())
        for module in network.modules():
            if isinstance(module, CONVOLUTIONS):
                module.register_forward_hook(self._gamma_rule)
            elif isinstance(module, nn.Linear | nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(self._epsilon_rule)

        def explain(some: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            output = network(some).gather(1, targets[:, None])
            return some * torch.autograd.grad(output.sum(), some)[0]

        return in_chunks(network, inputs, target, explain, self.chunk_size)

    def _epsilon_rule(self, layer: nn.Module, args: Any, z: torch.Tensor) -> torch.Tensor:
        return self._with_gradient_of(z, z)

    def _gamma_rule(self, layer: Any, args: Any, z: torch.Tensor) -> torch.Tensor:
        if self.gamma == 0:
            return self._with_gradient_of(z, z)
        (x,) = args
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        # contributions that speak with a positive sum, and with a negative one
        speaks_for = layer._conv_forward(x.clamp(min=0), up, bias.clamp(min=0))
        against = layer._conv_forward(x.clamp(min=0), down, bias.clamp(max=0))
        if bool((x < 0).any()):
            speaks_for = speaks_for + layer._conv_forward(x.clamp(max=0), down, None)
            against = against + layer._conv_forward(x.clamp(max=0), up, None)
        return self._with_gradient_of(z, z + self.gamma * torch.where(z >= 0, speaks_for, against))

    def _with_gradient_of(self, z: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The value of z; the gradient of `other`, times z / other."""
        scale = z.detach().square().mean(tuple(range(1, z.ndim)), keepdim=True).sqrt()
        stable = other.detach() + torch.where(other >= 0, 1.0, -1.0) * self.epsilon * scale
        share = torch.where(stable == 0, 0.0, z.detach() / stable)
        return z.detach() + (other - other.detach()) * share


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
