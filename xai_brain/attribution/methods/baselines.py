"""Baseline maps that do not depend on the network; useful methods must perform better."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets, check_volumes, seed_of
from xai_brain.attribution.methods.sampled_gradients import normal_noise
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.masks import brain_of
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class RandomMap:
    """Standard normal numbers, the same for the same volume.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    reference : Reference, optional
        For its brain mask: 0 outside.
    random_state : int, default 0
    """

    info = MethodInfo(
        name="RandomMap",
        value_meaning="random numbers: a baseline that depends neither on the network nor on the image",
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    def __init__(self, model: nn.Module, reference: Reference | None = None, random_state: int = 0):
        self.model = model
        self.reference, self.random_state = reference, random_state

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used."""
        check_volumes(inputs)
        inputs = inputs.detach()
        noise = torch.stack([normal_noise(volume, seed_of(volume, self.random_state)) for volume in inputs])
        return noise * brain_of(inputs, self.reference)


class Intensity:
    """Absolute value of the input of the network.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    """

    info = MethodInfo(
        name="Intensity",
        value_meaning="|image| as the network receives it: a baseline independent of the network",
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used."""
        check_volumes(inputs)
        return inputs.detach().abs()


class Edges:
    """Magnitude of the 3-D Sobel gradient, with the border voxels repeated outwards.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    """

    info = MethodInfo(
        name="Edges",
        value_meaning="3-D Sobel magnitude of the image: a baseline independent of the network",
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used."""
        check_volumes(inputs, one_channel="Edges")
        edges = [
            ndimage.generic_gradient_magnitude(volume[0], ndimage.sobel, mode="nearest")
            for volume in inputs.detach().cpu().numpy()
        ]
        return torch.from_numpy(np.stack(edges))[:, None].to(inputs)


class MeanDifference:
    """Absolute difference from the mean of the training participants.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    reference : Reference
    """

    info = MethodInfo(
        name="MeanDifference",
        value_meaning="|image - mean of the training participants|: a baseline independent of the network",
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    def __init__(self, model: nn.Module, reference: Reference):
        self.reference, self.mean = reference, reference.mean
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used."""
        check_volumes(inputs)
        self.reference.check(inputs)
        return (inputs.detach() - self.mean.to(inputs)).abs()


class TMap:
    """Welch t of the training participants, explained class against the rest; equal for all participants.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    reference : Reference
        With class variances and counts.

    Raises
    ------
    AttributionError
        The reference has none, or a class or the rest has fewer than two subjects.

    References
    ----------
    Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 1947.
    """

    info = MethodInfo(
        name="TMap",
        value_meaning="Welch's t of the training participants, class explained minus the rest, per voxel",
        multiplies_by_inputs=True,
        citation=(
            "Welch BL. The generalization of ‘Student’s’ problem when several different population "
            "variances are involved. Biometrika 1947;34:28–35."
        ),
        is_baseline=True,
        needs_classes=True,
    )

    def __init__(self, model: nn.Module, reference: Reference):
        self.reference = reference
        self.model = model
        self.statistics = [reference.welch_t(k) for k in range(len(reference.class_means))]

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the map is 0 outside the brain."""
        targets = as_targets(target, inputs)
        self.reference.check(inputs, targets)
        return torch.stack([self.statistics[k] for k in targets.tolist()]).to(inputs)


class _OfTheTarget:
    """A baseline made from the distribution of a continuous target over the training participants."""

    def __init__(self, model: nn.Module, reference: Reference):
        if reference.distribution is None:
            raise AttributionError(
                f"{type(self).__name__}: needs a continuous target, and the reference is made of classes"
            )
        self.model, self.reference, self.distribution = model, reference, reference.distribution


class OppositeDifference(_OfTheTarget):
    """Absolute difference from the mean of the training participants at the opposite end of the target.

    It is the difference that a perturbation with the fill ``counterfactual_mean`` can make. The network
    decides only which end is the opposite one.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    reference : Reference
        With the distribution of a continuous target.

    Raises
    ------
    AttributionError
        The reference has no such distribution.
    """

    info = MethodInfo(
        name="OppositeDifference",
        value_meaning=(
            "|image - mean of the training participants at the opposite end of the target|: a baseline "
            "independent of the network"
        ),
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used."""
        check_volumes(inputs)
        self.reference.check(inputs)
        inputs = inputs.detach()
        return (inputs - self.distribution.opposite_mean(inputs)).abs()


class CorrelationMap(_OfTheTarget):
    """Pearson's r of intensity and target over the training participants; equal for all participants.

    Parameters
    ----------
    model : torch.nn.Module
        Not used.
    reference : Reference
        With the distribution of a continuous target.

    Raises
    ------
    AttributionError
        The reference has no such distribution.
    """

    info = MethodInfo(
        name="CorrelationMap",
        value_meaning=(
            "Pearson's r of intensity and target over the training participants, per voxel: a baseline "
            "independent of the network"
        ),
        multiplies_by_inputs=True,
        is_baseline=True,
    )

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; `target` is not used. The map is 0 outside the brain."""
        check_volumes(inputs)
        self.reference.check(inputs)
        brain = self.reference.brain_mask.to(inputs.device)
        return (self.distribution.correlation.to(inputs) * brain).expand_as(inputs).clone()
