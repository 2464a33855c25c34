"""What of a model's output is explained."""

from __future__ import annotations

import torch
from torch import nn

OUTPUTS = ("logit", "logit_difference", "probability")


class ClassScore(nn.Module):
    """A classifier whose output columns are what is to be explained.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits (N, n_classes).
    output : {"logit", "logit_difference", "probability"}, default "logit"
        ``logit_difference`` is the logit minus the mean of the other classes' logits: it is the same
        evidence for everybody, whatever was predicted.
    """

    def __init__(self, model: nn.Module, output: str = "logit"):
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r}: one of {', '.join(OUTPUTS)}")
        self.model, self.output = model, output

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.model(inputs)
        if self.output == "probability":
            return logits.softmax(1)
        if self.output == "logit_difference":
            others = (logits.sum(1, keepdim=True) - logits) / (logits.shape[1] - 1)
            return logits - others
        return logits
