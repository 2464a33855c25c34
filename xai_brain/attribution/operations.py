"""Which operations a network applies to the image, and whether a method may explain a network that uses them.

A method whose rules are valid only for certain operations has an allow-list of kinds of operations. One
forward pass is traced below autograd, where every call arrives as an operation of ATen, whether a module, a
function or a method of a tensor made it. Only operations on values that depend on the image count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import ClassScore, check_outputs
from xai_brain.attribution.rules import Rules

GENERAL_METHODS = (
    "Saliency, InputXGradient, SmoothGrad, IntegratedGradients, GradientShap, ExpectedGradients, Occlusion, "
    "RISE, KernelShap, MeaningfulPerturbation, and GradCAM where there is a convolution"
)

# Copies and rearrangements of values.
SHAPE = frozenset([
    "alias", "as_strided", "cat", "clone", "contiguous", "copy", "detach", "diagonal", "expand", "flip",
    "im2col", "index", "index_select", "gather", "lift_fresh", "narrow", "native_channel_shuffle",
    "permute", "pixel_shuffle", "pixel_unshuffle", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "repeat", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "reshape", "_reshape_alias", "roll", "select", "select_scatter", "slice", "slice_scatter", "split",
    "split_with_sizes", "squeeze", "stack", "t", "_to_copy", "to", "transpose", "unbind", "unfold",
    "_unsafe_view", "unsafe_split", "unsqueeze", "view",
])  # fmt: skip
INDEXED = frozenset({"index", "index_select", "gather"})
LINEAR = frozenset([
    "adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "col2im", "cumsum", "mean", "neg", "sum",
])  # fmt: skip
MAX = frozenset([
    "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "max", "max_pool2d_with_indices",
    "max_pool3d_with_indices",
])  # fmt: skip
HOMOGENEOUS = frozenset({"relu", "leaky_relu", "_prelu_kernel"})
NORMALISATION = frozenset([
    "native_layer_norm", "native_group_norm", "_softmax", "_log_softmax", "native_batch_norm",
    "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit",
])  # fmt: skip
FIXED_NORMALISATION = frozenset({"_native_batch_norm_legit_no_training", "_batch_norm_no_update"})
# The result depends on the shape of the argument only.
WITHOUT_VALUES = frozenset([
    "empty_like", "full_like", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros",
    "ones_like", "rand_like", "randn_like", "zeros_like",
])  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """An operation on values that depend on the image.

    Parameters
    ----------
    name : str
        In ATen, without the underscore of the in-place form.
    kind : str
        shape, linear, affine, max, homogeneous, normalisation, product, division or other.
    place : str
        Module that calls it, for messages.
    """

    name: str
    kind: str
    place: str

    def __str__(self) -> str:
        what = {
            "product": f"the product of two activations ({self.name})",
            "division": f"the division by an activation ({self.name})",
            "normalisation": f"the normalisation by statistics of the image ({self.name})",
        }.get(self.kind, f"the operation {self.name}")
        return f"{what} in {self.place}"


class Tracer(TorchDispatchMode):
    """Records the operations on values that depend on the image, except those inside the rules of a method.

    Parameters
    ----------
    image : Tensor
    rules : Rules, optional
        Active in the same pass.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing has to be hidden from a compiler: otherwise torch imports it first, 1.6 s."""
        return False

    def __init__(self, image: torch.Tensor, rules: Rules | None = None):
        super().__init__()
        self.rules, self.operations = rules, list[Operation]()
        self.modules: list[str] = []  # that run, outermost first
        self._storages: dict[int, torch.UntypedStorage] = {}  # kept, so that no address comes twice
        self._note(image)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        depending = [self.depends(value) for value in args]
        by_name = self.depends(list((kwargs or {}).values()))
        name = _name(func)
        if name in WITHOUT_VALUES or not (any(depending) or by_name):
            return result
        for value in tree_leaves(result):
            self._note(value)
        if self.rules is None or not self.rules.applying:
            kind = "other" if by_name else _kind(func, name, args, depending)
            place = self.modules[-1] if self.modules else "the network"
            self.operations.append(Operation(name, kind, place))
        return result

    def depends(self, value: Any) -> bool:
        """Whether a tensor, or any of a list, depends on the image."""
        return any(
            isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata in self._storages
            for leaf in tree_leaves(value)
        )

    def _note(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            self._storages[storage._cdata] = storage


@contextmanager
def track_modules(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the modules that run in a list, outermost first, as they are called in messages.

    Parameters
    ----------
    model : torch.nn.Module
    running : list of str
        Changed while the model runs.
    """

    def enter(place: str) -> Callable[..., None]:
        return lambda *_: running.append(place)

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
            continue
        kind = type(module).__name__
        place = f"module {name!r} ({kind})" if name else f"the forward method of {kind}"
        handles += [
            module.register_forward_pre_hook(enter(place)),
            module.register_forward_hook(lambda *_: running.pop() and None),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _name(func: Any) -> str:
    name = func._schema.name.removeprefix("aten::")
    return name if name.endswith("__") else name.removesuffix("_")


def _kind(func: Any, name: str, args: tuple[Any, ...], depending: list[bool]) -> str:
    """Kind of an operation; `depending` says which of its arguments depend on the image."""
    first_only = depending[0] and not any(depending[1:])
    factors = depending[:2]
    if name in SHAPE:
        return "shape" if first_only or name not in INDEXED else "other"
    if name in LINEAR or name.startswith("upsample_"):
        return "linear"
    if name in ("mul", "mm", "bmm", "mv", "dot"):
        return "product" if all(factors) else "linear"
    if name == "div":
        rounds = "mode" in func._overloadname
        return "division" if depending[1] else "other" if rounds else "linear"
    if name in ("add", "sub", "rsub"):
        return "linear" if all(factors) else "affine"
    if name in ("addmm", "baddbmm"):
        return "product" if all(depending[1:3]) else "affine"
    if name == "convolution":
        return "affine" if first_only else "product"
    if "batch_norm" in name:
        fixed = name in FIXED_NORMALISATION or (name in NORMALISATION and not args[5])
        return "affine" if fixed and first_only else "normalisation"
    if name in NORMALISATION:
        return "normalisation"
    if name == "constant_pad_nd":
        return "affine" if len(args) > 2 and args[2] else "linear"
    if name in MAX:
        return "max" if first_only else "other"
    is_relu = name in ("clamp", "clamp_min") and list(args[1:]) in ([0], [0, None])
    return "homogeneous" if first_only and (is_relu or name in HOMOGENEOUS) else "other"


def trace(model: nn.Module, volume: torch.Tensor, rules: Rules | None = None) -> list[Operation]:
    """Operations that a network applies to a volume, except those inside the rules of a method.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volume : Tensor of shape (1, C, X, Y, Z)
    rules : Rules, optional
        Active during the pass.
    """
    volume = volume.detach().clone().requires_grad_()  # as in the pass that is explained
    tracer = Tracer(volume, rules)
    with torch.enable_grad(), track_modules(model, tracer.modules), tracer, rules or nullcontext():
        check_outputs(model(volume))
    return tracer.operations


def check_operations(
    model: nn.Module, volume: torch.Tensor, method: str, allowed: Collection[str], rules: Rules | None = None
) -> None:
    """Refuse a network with operations for which a method is not valid.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volume : Tensor of shape (1, C, X, Y, Z)
    method : str
        For the message.
    allowed : collection of str
        Kinds of operations, see `Operation`.
    rules : Rules, optional
        Of the method; what they reach is allowed.

    Raises
    ------
    AttributionError
        Names the first operation that is not allowed, where it is, and the methods that are valid for it.
    """
    operations = trace(model, volume, rules)
    for operation in operations:
        if operation.kind not in allowed:
            has_attention = any("attention" in each.name or each.name == "_softmax" for each in operations)
            advice = "AttnLRP has rules for transformers; " if has_attention and method != "AttnLRP" else ""
            if is_scripted(model):
                advice = "rules do not apply inside a TorchScript archive, only to the original network; "
            raise AttributionError(
                f"{method} has no rule for {operation}; {advice}methods for any network: {GENERAL_METHODS}"
            )


def is_scripted(model: nn.Module) -> bool:
    """Whether a network contains TorchScript, whose modules take no hooks and hide functions."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def check_logits(model: nn.Module, method: str) -> None:
    """Refuse to explain probabilities by a method that decomposes logits.

    Raises
    ------
    AttributionError
    """
    if isinstance(model, ClassScore) and model.output == "probability":
        raise AttributionError(
            f"{method} decomposes a logit, not a probability: set explain.output to logit or logit_difference"
        )
