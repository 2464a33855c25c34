"""What of a model's output is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.task.build import build_task
from xai_brain.task.protocol import Task

if TYPE_CHECKING:
    from xai_brain.attribution.network_outputs import OutputKind


class ClassScore(nn.Module):
    """A network whose output columns are what is to be explained.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits (N, n_classes), or the outputs of another task.
    output : str, default "logit"
        One of the task's outputs, for classification logit, logit_difference or probability.
        ``logit_difference`` is the logit minus the mean of the other classes' logits: it is the same
        quantity for all participants, whatever was predicted.
    task : Task or OutputKind, optional
        Meaning of the model's outputs; default: classification.

    Raises
    ------
    AttributionError
        When called: the model returns something else, or a single logit, of which there is neither a
        difference nor a softmax.
    """

    def __init__(self, model: nn.Module, output: str = "logit", task: Task | OutputKind | None = None):
        super().__init__()
        self.model, self.output, self.task = model, output, task or build_task()
        if output not in self.task.outputs:
            raise ValueError(f"output={output!r}: one of {', '.join(self.task.outputs)}")
        # only outputs of which there is one for each class are compared with each other
        self.compared = "logit_difference" in self.task.outputs and output != "logit"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = check_outputs_of(self.model(inputs), self.output, self.compared)
        return self.task.explained_output(outputs, self.output)


def check_outputs(outputs: Any) -> torch.Tensor:
    """Refuse outputs of a network that are not a tensor of shape (N, n_classes).

    Raises
    ------
    AttributionError
    """
    if isinstance(outputs, torch.Tensor) and outputs.ndim == 2 and outputs.shape[1]:
        return outputs
    what = "None" if outputs is None else f"a {type(outputs).__name__}"
    if isinstance(outputs, torch.Tensor):
        what = f"a tensor of shape {tuple(outputs.shape)}"
    raise AttributionError(
        f"the network returns {what}: one tensor of shape (N, n_classes) is needed; "
        "wrap the network in a torch.nn.Module that returns its logits"
    )


def check_outputs_of(outputs: Any, output: str, compared: bool) -> torch.Tensor:
    """Refuse outputs of which `output` cannot be computed; `compared`: it compares several classes.

    Raises
    ------
    AttributionError
    """
    outputs = check_outputs(outputs)
    if compared and outputs.shape[1] == 1:
        raise AttributionError(
            f"the network returns one logit: output={output!r} needs one logit per class, (N, n_classes) "
            "with n_classes of at least 2; use output='logit', or a network with two outputs"
        )
    return outputs


fx.wrap("check_outputs_of")  # a value decides: kept as one call in a traced copy of the network


@torch.no_grad()
def gives_probabilities(model: nn.Module, volumes: torch.Tensor) -> bool:
    """Whether the outputs of a model are probabilities.

    A `ClassScore` states it. The outputs of other models are probabilities if they lie in [0, 1] and, for
    several classes, sum to 1 for every volume.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; returns (N, n_classes).
    volumes : Tensor of shape (N, C, X, Y, Z)
    """
    if isinstance(model, ClassScore):
        return model.output == "probability"
    outputs = check_outputs(model(volumes)).float()
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    one = outputs.new_ones(len(outputs))
    return inside and (outputs.shape[1] == 1 or torch.allclose(outputs.sum(1), one, rtol=0, atol=1e-3))


def check_targets(targets: torch.Tensor, n_classes: int, what: str = "the network") -> None:
    """Refuse class indices that something does not have.

    Raises
    ------
    AttributionError
    """
    wrong = (targets < 0) | (targets >= n_classes)
    if bool(wrong.any()):
        possible = "one output, target 0" if n_classes == 1 else f"{n_classes} classes, 0 to {n_classes - 1}"
        raise AttributionError(f"target {int(targets[wrong][0])}: {what} has {possible}")


def select_outputs(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Output for the target of every volume, (N,), of outputs (N, n_classes) and targets (N,).

    Raises
    ------
    AttributionError
        The outputs have another shape, or a target is not one of the classes.
    """
    outputs = check_outputs(outputs)
    check_targets(targets, outputs.shape[1])
    return outputs.gather(1, targets[:, None])[:, 0]
