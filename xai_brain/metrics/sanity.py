"""Parameter randomisation: whether a map depends on the trained weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from xai_brain.metrics.comparison.similarity import similarity, ssim_of_chance
from xai_brain.metrics.maps import Method, maps_of, seeded

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def parameter_randomization(
    model: nn.Module,
    make_method: Callable[[nn.Module], Method],
    inputs: torch.Tensor,
    target: int | torch.Tensor,
    brain_mask: np.ndarray,
    random_state: int = 0,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Randomise layers cumulatively from the output to the input and compare the maps.

    Parameters
    ----------
    model : torch.nn.Module
        A copy is randomised; the model is not changed.
    make_method : callable
        ``make_method(model)`` returns an object with ``attribute(inputs, target)``.
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)
        The same target is explained for all networks.
    brain_mask : bool ndarray of shape (X, Y, Z)
    random_state : int, default 0
        Seed of the weights.
    batch_size : int, default 8

    Returns
    -------
    pandas.DataFrame
        step (from 1), layer (randomised last), subject (position in `inputs`), spearman, ssim (see
        `similarity`) and ssim_chance. The chance level of spearman is 0. A method whose maps remain similar
        at the last step (see `full_randomization`) does not explain this network.

    References
    ----------
    Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
    """
    original = maps_of(make_method(model), inputs, target, batch_size)[:, 0].numpy()
    chance = [ssim_of_chance(one, brain_mask, random_state) for one in original]
    rows = []
    for step, (layer, randomized) in enumerate(randomized_models(model, inputs[:1], random_state), 1):
        maps = maps_of(make_method(randomized), inputs, target, batch_size)[:, 0].numpy()
        rows += [
            {
                "step": step,
                "layer": layer,
                "subject": i,
                **similarity(before, after, brain_mask),
                "ssim_chance": chance[i],
            }
            for i, (before, after) in enumerate(zip(original, maps, strict=True))
        ]
    return pd.DataFrame(rows)


def full_randomization(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `parameter_randomization` for the last step, with all weights random: one per volume."""
    return table[table["step"] == table["step"].max()].reset_index(drop=True)


def randomized_models(
    model: nn.Module, inputs: torch.Tensor, random_state: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a model whose layers are randomised cumulatively from the output to the input.

    The parameters of a layer are initialised again (``reset_parameters``); the values of layers without this
    method are permuted. A normalisation layer is reset together with the layer before it (scale 1, shift 0,
    running statistics 0 and 1). Otherwise its statistics would not match the new activations, and a large
    negative shift could make all following ReLUs zero, so that the map would be empty for any method.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : Tensor of shape (N, 1, X, Y, Z)
        Used in one forward pass to find the order of the layers.
    random_state : int, default 0

    Yields
    ------
    layer : str
        Dotted name of the layer that was randomised last.
    model : torch.nn.Module
        In eval mode; the same object is changed in every step.

    Raises
    ------
    ValueError
        The model has no parameters.
    """
    randomized = copy.deepcopy(model).eval()
    steps = _layers_in_order(randomized, inputs)
    if not steps:
        raise ValueError("the model has no parameters: there is nothing to randomise")
    for number, (name, modules) in enumerate(reversed(steps)):
        with seeded(inputs.device, random_state + number):
            for module in modules:
                _reinitialize(module)
        yield name, randomized


def _layers_in_order(model: nn.Module, inputs: torch.Tensor) -> list[tuple[str, list[nn.Module]]]:
    """Modules with parameters in the order in which they run, grouped into steps."""
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    started = {name: place for place, name in enumerate(called)}  # the last call of layers that run twice
    steps: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        # modules that are not called, whose weights the parent uses, are grouped with the parent
        while name not in started:
            name = name.rpartition(".")[0]
        steps.setdefault(name, []).append(module)
    grouped: list[tuple[str, list[nn.Module]]] = []
    for name in sorted(steps, key=started.__getitem__):
        if grouped and all(isinstance(module, NORMS) for module in steps[name]):
            grouped[-1][1].extend(steps[name])
        else:
            grouped.append((name, steps[name]))
    return grouped


def _reinitialize(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter in module.parameters(recurse=False):
        permute_values(parameter)


@torch.no_grad()
def permute_values(tensor: torch.Tensor) -> None:
    """Permute the values of a tensor, in place, by torch's generator of the CPU."""
    order = torch.randperm(tensor.numel()).to(tensor.device)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))
