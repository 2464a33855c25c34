"""Outputs of networks that were trained elsewhere: which tensor is explained, and what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.task.build import build_task
from xai_brain.task.selected_output import select_tensor


class OutputKind(Protocol):
    """Meaning of the outputs (N, n_outputs) of a network; the tasks of `xai_brain.task` are such, too."""

    outputs: ClassVar[tuple[str, ...]]  # names of what can be explained, the default first
    has_classes: ClassVar[bool]  # whether one of them is the predicted class

    def explained_output(self, outputs: torch.Tensor, name: str) -> torch.Tensor:
        """Values that are explained, (N, n_outputs)."""

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities or numbers, (N, n_outputs)."""


class Probabilities:
    """One probability for each of two or more exclusive classes; they sum to 1."""

    outputs: ClassVar[tuple[str, ...]] = ("probability",)
    has_classes: ClassVar[bool] = True

    def explained_output(self, outputs: torch.Tensor, name: str) -> torch.Tensor:
        """The outputs themselves: they are probabilities."""
        return outputs

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs themselves, (N, n_outputs)."""
        return outputs


class OneLogit:
    """One logit z of two classes: the logit of class 1 is z, that of class 0 is -z."""

    outputs: ClassVar[tuple[str, ...]] = ("logit", "probability")
    has_classes: ClassVar[bool] = True

    def explained_output(self, outputs: torch.Tensor, name: str) -> torch.Tensor:
        """Logits or probabilities of both classes, (N, 2)."""
        both = torch.cat([-outputs, outputs], 1)
        return both.sigmoid() if name == "probability" else both

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities of both classes, (N, 2)."""
        return torch.cat([-outputs, outputs], 1).sigmoid()


class Labels:
    """One logit for each of several labels, each of which may be present or not."""

    outputs: ClassVar[tuple[str, ...]] = ("logit", "probability")
    has_classes: ClassVar[bool] = False

    def explained_output(self, outputs: torch.Tensor, name: str) -> torch.Tensor:
        """Logits or probabilities of all labels, (N, n_labels)."""
        return outputs.sigmoid() if name == "probability" else outputs

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probability of each label, (N, n_labels); they need not sum to 1."""
        return outputs.sigmoid()


class Numbers:
    """One number, such as an age, or several."""

    outputs: ClassVar[tuple[str, ...]] = ("value",)
    has_classes: ClassVar[bool] = False

    def explained_output(self, outputs: torch.Tensor, name: str) -> torch.Tensor:
        """The numbers themselves, (N, n_outputs)."""
        return outputs

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """The numbers themselves, (N, n_outputs)."""
        return outputs


KINDS: dict[str, OutputKind] = {
    "classes": build_task(),
    "probabilities": Probabilities(),
    "one_logit": OneLogit(),
    "labels": Labels(),
    "numbers": Numbers(),
}


@dataclass(frozen=True)
class SegmentationTarget:
    """Sum of the logits of one label of a segmentation over a region.

    Parameters
    ----------
    label : int
        Channel of the output (N, K, X, Y, Z).
    region : "predicted" or bool Tensor or array of shape (X, Y, Z), default "predicted"
        ``predicted``: the voxels to which the network assigns the label in the unchanged image.
    exclusive : bool, default True
        Whether a voxel has one label, that with the largest logit (softmax). Otherwise labels overlap, and a
        voxel has those whose logits are above 0 (sigmoid), as in BraTS. One channel is always of this kind.

    Examples
    --------
    >>> outputs = torch.zeros(1, 2, 3, 4, 5)  # logits of two labels
    >>> outputs[0, 1, 0] = 1
    >>> int(SegmentationTarget(1).region_of(outputs).sum())
    20
    """

    label: int
    region: Any = "predicted"
    exclusive: bool = True

    def region_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """The region in one image, bool, (X, Y, Z), from the output (1, K, X, Y, Z) for this image.

        Raises
        ------
        AttributionError
            The output is no segmentation, has no such label, or the region is empty or has another shape.
        """
        if outputs.ndim != 5:
            raise AttributionError(
                f"target={self!r}: the network returns shape {tuple(outputs.shape)}; a segmentation "
                "(N, n_labels, X, Y, Z) is needed"
            )
        if not 0 <= self.label < outputs.shape[1]:
            raise AttributionError(
                f"label={self.label}: the segmentation has labels 0 to {outputs.shape[1] - 1}"
            )
        if isinstance(self.region, str):
            if self.region != "predicted":
                raise AttributionError(f"region={self.region!r}: 'predicted' or a mask is needed")
            is_exclusive = self.exclusive and outputs.shape[1] > 1
            region = outputs[0].argmax(0) == self.label if is_exclusive else outputs[0, self.label] > 0
        else:
            region = torch.as_tensor(self.region, device=outputs.device) != 0
            if region.shape != outputs.shape[2:]:
                raise AttributionError(
                    f"region has shape {tuple(region.shape)}: the segmentation has {tuple(outputs.shape[2:])}"
                )
        if not region.any():
            raise AttributionError(
                f"label={self.label}: its region is empty in this image, so that nothing is explained"
            )
        return region

    def __repr__(self) -> str:
        return f"SegmentationTarget(label={self.label})"


class AdaptedNetwork(nn.Module):
    """A network that returns one tensor (N, n_outputs).

    Parameters
    ----------
    network : torch.nn.Module
    key : str or int, optional
        Which part of a tuple, dictionary or dataclass is meant; not needed if there is one tensor only.
    segmentation : SegmentationTarget, optional
        Set `region` to the region in an image before the image is explained.
    """

    def __init__(
        self,
        network: nn.Module,
        key: str | int | None = None,
        segmentation: SegmentationTarget | None = None,
    ):
        super().__init__()
        self.network, self.key, self.segmentation = network, key, segmentation
        self.region: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs as one tensor, (N, n_outputs); of a segmentation, its sum over the region, (N, 1)."""
        outputs = select_tensor(self.network(inputs), self.key)
        if self.segmentation is None:
            return outputs[:, None] if outputs.ndim == 1 else outputs
        if self.region is None:  # asked for the segmentation itself
            return outputs
        return (outputs[:, self.segmentation.label] * self.region).sum((1, 2, 3))[:, None]


def output_kind(kind: str | None, outputs: torch.Tensor) -> OutputKind:
    """Meaning of outputs (N, n_outputs): as stated, or classes if there are several logits.

    Parameters
    ----------
    kind : str, optional
        A name of `KINDS`.
    outputs : Tensor of shape (N, n_outputs)

    Raises
    ------
    AttributionError
        It is not known what the outputs are, or they cannot be what is stated.
    """
    if outputs.ndim != 2:
        raise AttributionError(
            f"the network returns a tensor of shape {tuple(outputs.shape)}: (N, n_outputs) is needed; for a "
            "segmentation give target=SegmentationTarget(label)"
        )
    n = outputs.shape[1]
    between = bool(((outputs >= 0) & (outputs <= 1)).all())
    sums = torch.allclose(outputs.float().sum(1), outputs.new_ones(len(outputs)).float(), rtol=0, atol=1e-3)
    if kind is None:
        if n == 1:
            raise AttributionError(
                "the network returns one value, whose meaning is not known: give outputs='one_logit' (two "
                "classes), outputs='labels' (one label) or outputs='numbers' (a number such as an age)"
            )
        kind = "probabilities" if between and sums else "classes"
    if kind not in KINDS:
        raise AttributionError(f"outputs={kind!r}: one of {', '.join(KINDS)}")
    if kind in ("classes", "probabilities") and n < 2:
        raise AttributionError(f"outputs={kind!r}: the network returns one value; see outputs='one_logit'")
    if kind == "one_logit" and n != 1:
        raise AttributionError(f"outputs='one_logit': the network returns {n} values")
    if kind == "probabilities" and not (between and sums):
        raise AttributionError(
            "outputs='probabilities': the values of an image do not lie in [0, 1] or do not sum to 1; "
            "for logits give outputs='classes'"
        )
    return KINDS[kind]
