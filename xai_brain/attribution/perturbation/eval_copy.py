"""A faster copy of a model for explaining it: the same function, in eval mode only."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xai_brain.attribution.first_convolution import FirstConvolution
from xai_brain.attribution.reduced_precision import full_float32, output_and_gradient

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Rounding turns a few near ties of ReLU and pooling the other way: that moves the gradient at some voxels by
# percents of its largest value, and its norm by less than one. A copy that is wrong is wrong everywhere.
GRADIENT_TOLERANCE = 0.05


def eval_copy(model: nn.Module, inputs: torch.Tensor, tolerance: float = 1e-4) -> nn.Module:
    """Copy of a model with batch norm folded into convolutions and pooling before ReLU; or the model itself.

    On CPUs the first convolution also gets a faster way back to the image. All this keeps the function: an
    affine map after a linear one is linear, and ReLU is monotone, so that it commutes with max pooling.
    The copy is compared with the original, output and gradient, in float32 before it is returned; where they
    differ, or where the model cannot be traced, the model itself is returned. Whether both may be used in a
    reduced precision is another question, see `reliable_precision`.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    inputs : Tensor of shape (N, 1, X, Y, Z)
        The first volume is what both are compared on.
    tolerance : float, default 1e-4
        Largest difference, relative to the largest value.

    Returns
    -------
    torch.nn.Module
    """
    try:
        fast = _rewritten(copy.deepcopy(model))
        same = _same_function(model, fast, inputs[:1].detach(), tolerance)
    except Exception:  # a model of anybody: whatever cannot be copied or traced is used as it is
        return model
    return fast if same else model


def _rewritten(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1 or _is_shared(traced, before):
            continue
        first, second = modules[str(before.target)], modules[str(node.target)]
        if isinstance(first, CONVOLUTIONS) and isinstance(second, BATCH_NORMS):
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(first, second))
            modules = dict(traced.named_modules())
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif isinstance(first, nn.ReLU) and isinstance(second, nn.MaxPool3d) and not second.return_indices:
            node.target, before.target = before.target, node.target
    traced.graph.lint()
    traced.recompile()
    # nearly half of the time of a 3-D convolution on CPUs goes into layouts otherwise
    traced = traced.to(memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    for name, module in list(traced.named_modules()):
        if name and FirstConvolution.fits(module):
            traced.set_submodule(name, FirstConvolution(module))
    return traced


def _is_shared(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a module runs more than once: changing it for one place would change the other."""
    return sum(other.op == "call_module" and other.target == node.target for other in traced.graph.nodes) > 1


def _same_function(model: nn.Module, fast: nn.Module, volume: torch.Tensor, tolerance: float) -> bool:
    with full_float32():
        output, gradient = output_and_gradient(model, volume)
        of_copy, gradient_of_copy = output_and_gradient(fast, volume)
    return bool(
        (output - of_copy).abs().max() <= tolerance * output.abs().max()
        and (gradient - gradient_of_copy).norm() <= GRADIENT_TOLERANCE * gradient.norm()
    )
