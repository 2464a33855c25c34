"""Layer-wise relevance propagation on volumes: batch norm folded, a rule for every linear layer."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.operations import check_logits, check_operations
from xai_brain.attribution.perturbation.eval_copy import BATCH_NORMS, CONVOLUTIONS
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.relevance.conservation import conserved_relevance
from xai_brain.attribution.relevance.rules import ALLOWED, RelevanceRules


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
        per_channel=True,
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
        rules = partial(RelevanceRules, gamma=self.gamma, epsilon=self.epsilon)
        return conserved_relevance("LRP", network, inputs, target, rules, self.chunk_size)


def _check(model: nn.Module, inputs: torch.Tensor) -> None:
    rules = RelevanceRules(inputs.new_ones(1, requires_grad=True), 1.0, 0.0)
    check_operations(model, inputs[:1], "LRP", ALLOWED, rules)


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
