"""Networks whose parameters are in random order: the reference for networks that cannot be trained again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.metrics.maps import seeded
from xai_brain.metrics.sanity import permute_values

BATCH_NORM = nn.modules.batchnorm._BatchNorm
RUNNING = ("running_mean", "running_var")


def check_parameters(network: nn.Module) -> None:
    """Raise an error if the parameters of a network cannot be randomised.

    Raises
    ------
    AttributionError
        No parameter has two different values, or statistics of a layer cannot be estimated again.
    """
    if not any(len(values.unique()) > 1 for values in network.parameters()):
        raise AttributionError(
            f"threshold: {type(network).__name__} has no parameter tensor with different values, so that "
            "there is nothing to randomise; use maps without a corrected threshold"
        )
    known = {id(getattr(layer, name)) for layer in _batch_norms(network) for name in RUNNING}
    for name, values in network.named_buffers():
        if name.rpartition(".")[2] in RUNNING and id(values) not in known:
            raise AttributionError(
                f"threshold: {name} are statistics of activations that cannot be estimated again for "
                "randomised parameters, as those of batch normalisation in a torch.nn.Module can; use maps "
                "without a corrected threshold"
            )


def randomize_parameters(network: nn.Module, volumes: Iterable[torch.Tensor], random_state: int) -> None:
    """Permute the values of every parameter within its tensor, in place.

    Every tensor keeps its values and therefore its mean, variance and range, whatever the initialisation of
    the network was; only their arrangement, which training has determined, is lost. If the arrangement of
    the given network were random, too, it and its copies would be exchangeable. Single values have no
    arrangement and are kept. Running statistics of batch normalisation are estimated again, because those of
    the given network do not belong to the activations of the copy; other buffers are kept.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    volumes : iterable of Tensor of shape (N, C, X, Y, Z)
        Batches of inputs, for the statistics of batch normalisation.
    random_state : int

    Raises
    ------
    AttributionError
        See `check_parameters`; or there are too few volumes for batch normalisation.

    References
    ----------
    Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (all parameters are randomised, as in the
    last step of the cascading randomisation there).
    """
    check_parameters(network)
    with seeded(next(network.parameters()).device, random_state):
        for values in network.parameters():
            permute_values(values)
    if not _batch_norms(network):
        return
    with _estimating(network), torch.no_grad():
        for batch in volumes:
            try:
                network(batch)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise AttributionError(
                    "threshold: the statistics of batch normalisation cannot be estimated from one image; "
                    "explain two images or more"
                ) from error


def _batch_norms(network: nn.Module) -> list[BATCH_NORM]:
    """Layers with running statistics."""
    layers = [layer for layer in network.modules() if isinstance(layer, BATCH_NORM)]
    return [layer for layer in layers if layer.running_mean is not None]


@contextmanager
def _estimating(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes estimate the running statistics anew, as the mean over all batches."""
    layers = _batch_norms(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
