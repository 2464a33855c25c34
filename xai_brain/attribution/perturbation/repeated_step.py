"""An iteration on fixed tensors, on CUDA devices as a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UP = 3  # iterations before a graph is captured, in which libraries choose their algorithms


class RepeatedStep:
    """Calls a function that reads and writes the same tensors each time.

    On a CUDA device the calls after the first ones replay a CUDA graph, which starts hundreds of kernels at
    once. If the function cannot be captured, it is called as on other devices, with a warning.

    Parameters
    ----------
    step : function without arguments
        Changes tensors in place, transfers nothing to the host and draws no random numbers.
    device : torch.device
    """

    def __init__(self, step: Callable[[], None], device: torch.device):
        self.step, self.device = step, device
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls_left = WARM_UP if device.type == "cuda" else None  # until the capture; None: never

    def __call__(self) -> None:
        if self.calls_left == 0:
            self.calls_left = None
            self._capture()
        if self.graph is not None:
            self.graph.replay()
        elif self.calls_left is None:
            self.step()
        else:
            self.calls_left -= 1
            self._call_on_another_stream()

    def _call_on_another_stream(self) -> None:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def _capture(self) -> None:
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self.device), torch.cuda.graph(graph):
                self.step()
            self.graph = graph
        except RuntimeError as error:
            warnings.warn(
                f"no CUDA graph of this network can be captured ({str(error).splitlines()[0]}): "
                "its masks are optimised without one, which is slower",
                RuntimeWarning,
                stacklevel=2,
            )
