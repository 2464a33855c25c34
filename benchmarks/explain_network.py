"""`xai_brain.explain` on 32 volumes against the method on tensors plus reading and writing of files.

    python benchmarks/explain_network.py [--turns 5]

The images are those of the embedded cohort; network and method are the same on both sides. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from turns import in_turns, ratio, seconds_of, show

import xai_brain as xb
from xai_brain.attribution import ClassScore
from xai_brain.io.nifti import load_img, save_img
from xai_brain.parallel.threads import write_all

N, BATCH = 32, 8


def on_tensors(network: torch.nn.Module, paths: list[str], method: Callable[..., object]) -> None:
    """Read, explain and write by hand; the files are removed, as those of `explain` are with its maps."""
    with tempfile.TemporaryDirectory() as folder:
        explain_by_hand(network, paths, method, Path(folder))


def explain_by_hand(
    network: torch.nn.Module, paths: list[str], method: Callable[..., object], folder: Path
) -> None:
    network.eval()
    for start in range(0, len(paths), BATCH):
        images = [load_img(path) for path in paths[start : start + BATCH]]
        inputs = torch.from_numpy(np.stack([np.asanyarray(img.dataobj) for img in images]))[:, None]
        with torch.no_grad():
            targets = network(inputs).argmax(1)
        maps = method(ClassScore(network, "logit")).attribute(inputs, targets)

        def write(k: int, images: list = images, maps: torch.Tensor = maps, start: int = start) -> None:
            save_img(maps[k, 0].detach().numpy(), images[k].affine, folder / f"{start + k}.nii.gz")

        write_all(write, range(len(images)))


def timed(work: Callable[[], object]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        start = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - start}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    cohort = xb.load_cohort("synthetic", n_subjects=N, grid="t1w_58x70x58")
    paths = [str(path) for path in cohort.table["t1w_path"]]
    torch.manual_seed(0)
    network = xb.Kan2020(input_shape=(58, 70, 58))
    measured = {}
    for name, label in (("grad_cam", "GradCAM"), ("guided_backprop", "GuidedBackprop")):
        kind = getattr(xb, label)
        ways = {
            "tensors": timed(lambda kind=kind: on_tensors(network, paths, kind)),
            "explain": timed(lambda kind=kind: xb.explain(network, paths, [kind])),
        }
        seconds = seconds_of(in_turns(ways, turns))
        show(f"{N} volumes, {label}", seconds)
        measured[f"{name}_explain_over_tensors"] = ratio(seconds["explain"], seconds["tensors"])
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
