"""The interface of attribution methods: `attribute`, and `info`, which describes the method.

This module contains the only description of the arguments and results of `attribute`. The report card, the
sidecars of maps and the report read `MethodInfo`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch


@dataclass(frozen=True)
class MethodInfo:
    """Description of a method.

    Parameters
    ----------
    name : str
        Name of the class.
    value_meaning : str
        Meaning of the values of a map.
    multiplies_by_inputs : bool or None
        Whether a value is the contribution of a voxel; otherwise it is a change per unit of intensity.
        Infidelity is defined differently for the two. None: not stated, infidelity cannot be computed.
    citation : str, default ""
        Full reference of the publication.
    default_output : {"logit", "logit_difference", "probability"}, default "logit"
        Quantity that is explained if ``explain.output`` is not set.
    per_channel : bool, default False
        Whether every channel of the inputs has a map of its own; otherwise all channels have the same one.
    is_baseline : bool, default False
        Whether maps do not depend on the network.
    needs_classes : bool, default False
        Whether the method is defined for the evidence for a class only, and not for a predicted number.
    operations : tuple of str, default ()
        Kinds of operations for which the method has rules (see `xai_brain.attribution.operations`); all
        others are refused by name. Empty: the method has no such restriction.
    trial_settings : mapping of str to object, default {}
        Arguments with which one map is computed quickly, to test before training whether the method applies
        to a network.
    """

    name: str
    value_meaning: str
    multiplies_by_inputs: bool | None
    citation: str = ""
    default_output: str = "logit"
    per_channel: bool = False
    is_baseline: bool = False
    needs_classes: bool = False
    operations: tuple[str, ...] = ()
    trial_settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """A method that explains one network.

    The first argument of its constructor is the network, a `torch.nn.Module` that returns (N, n_classes). A
    constructor with the argument ``reference`` receives the `Reference` of the training participants.
    """

    info: MethodInfo

    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Explain a batch of volumes.

        The map of a volume does not depend on the other volumes of the batch. The network is left as it was:
        mode, parameters, gradients and hooks.

        Parameters
        ----------
        inputs : Tensor of shape (N, C, X, Y, Z)
            Volumes as the network receives them, on the device of the network. Some methods require C = 1.
        target : int or Tensor of shape (N,)
            Index of the class or output that is explained, one for all volumes or one for each. Only methods
            that do not depend on the network (``info.is_baseline``) and attention rollout may ignore it.

        Returns
        -------
        Tensor of shape (N, C, X, Y, Z)
            Raw, signed values with the dtype and device of the inputs; ``info.value_meaning`` states what
            they mean.

        Raises
        ------
        AttributionError
            The inputs are not volumes or have a number of channels that the method cannot explain; the
            target is missing or does not exist; the network does not return (N, n_classes) or uses an
            operation for which the method has no rule; or a completeness property of the method does not
            hold for a volume.

        Notes
        -----
        Methods that optimise a mask for each volume also accept ``show_progress=True``, which shows a bar.
        """


def method_info(method: Any) -> MethodInfo:
    """Description of a method, of its class, or of the function or partial that makes it.

    Methods that are not of this package need no ``info``: the classes of Captum state themselves whether they
    multiply by the input, and other classes may have an attribute ``multiplies_by_inputs``.

    Parameters
    ----------
    method : object, class, function or functools.partial

    Returns
    -------
    MethodInfo
    """
    method = getattr(method, "func", method)
    if isinstance(info := getattr(method, "info", None), MethodInfo):
        return info
    kind = method if inspect.isclass(method) or inspect.isfunction(method) else type(method)
    stated = getattr(method, "multiplies_by_inputs", None)
    meaning = f"raw values of {kind.__module__}.{kind.__name__}"
    return MethodInfo(kind.__name__, meaning, stated if isinstance(stated, bool) else None)


def takes(method: Any, argument: str) -> bool:
    """Whether the class, function or partial that makes a method has an argument of this name."""
    return argument in inspect.signature(getattr(method, "func", method)).parameters
