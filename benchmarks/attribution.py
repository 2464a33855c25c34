"""Grad-CAM and guided backpropagation of the predicted class, against what users would run instead.

    pip install monai                             # brings MONAI
    python benchmarks/attribution.py --data /path/to/ixi        # 32 subjects: about 10 minutes on 2 cores

The paper's network with random weights, images of IXI, or of the embedded cohort on the same grid. Every side
has a process of its own, gets the volumes in memory, and finds the predicted class itself:

ours        batches of 8, as the explain stage makes them
published   one subject at a time, two passes forward for each method
MONAI       monai.visualize.GradCAM and GuidedBackpropGrad, which explain one subject at a time
Captum      LayerGradCam, LayerAttribution.interpolate and GuidedBackprop, batches of 8
Captum, our network   the same, not on the plain network but on ours, whose layout and order are quicker

All others work on the network as anybody would write it: conv, batch norm, ReLU, pooling, in the usual memory
layout. Maps are compared with ours: the largest difference as a share of the largest value. MONAI clips
Grad-CAM at 0 before it enlarges it, and is compared with a map that is made in the same order.

The last line is JSON: `speedup_vs_published` (bar: 3), `speedup_vs_best_peer` (bar: 1.3) against the quicker
of MONAI and Captum on the plain network, `speedup_vs_captum_on_our_network`, `largest_difference`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published import LAST_RELU, published_grad_cam, published_guided_backprop, published_layers
from torch import nn
from turns import Side, in_turns, ratio, seconds_of, serve, show
from untrained import IXI, cohort_root, settings

from xai_brain import compose
from xai_brain.attribution import ClassScore, GradCAM, GuidedBackprop, preserved
from xai_brain.attribution.perturbation.masks import upsampled
from xai_brain.config.checks import read_config
from xai_brain.models.calibrated import channels_last
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.settings import open_run

BATCH_SIZE = 8
Maps = tuple[torch.Tensor, torch.Tensor]  # of Grad-CAM and guided backpropagation, each (N, 1, X, Y, Z)
Explain = Callable[[torch.Tensor], Maps]  # of a batch


def ours(network: nn.Module) -> tuple[int, Explain]:
    keep_freed_memory()  # as the stages do
    model = ClassScore(network)
    grad_cam, guided = GradCAM(model), GuidedBackprop(model)

    def explain(batch: torch.Tensor) -> Maps:
        with torch.no_grad():
            targets = network(batch).argmax(1)
        with preserved(network):
            return grad_cam.attribute(batch, target=targets), guided.attribute(batch, target=targets)

    return BATCH_SIZE, explain


def published(network: nn.Module) -> tuple[int, Explain]:
    layers = published_layers(network).eval()
    return 1, lambda x: (published_grad_cam(layers, x), published_guided_backprop(layers, x))


def monai(network: nn.Module) -> tuple[int, Explain]:
    from monai.visualize import GradCAM, GuidedBackpropGrad

    layers = published_layers(network).eval()
    # the default postprocessing scales every map to 0..1, upside down
    grad_cam = GradCAM(layers, "relu3", postprocessing=lambda maps: maps)
    guided = GuidedBackpropGrad(layers)
    return 1, lambda x: (grad_cam(x), guided(x.clone()))


def captum(network: nn.Module) -> tuple[int, Explain]:
    layers = published_layers(network).eval()
    return BATCH_SIZE, _by_captum(layers, layers[LAST_RELU])


def captum_on_our_network(network: nn.Module) -> tuple[int, Explain]:
    return BATCH_SIZE, _by_captum(network, network.block3.relu)


def _by_captum(network: nn.Module, layer: nn.Module) -> Explain:
    from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam

    grad_cam, guided = LayerGradCam(network, layer), GuidedBackprop(network)

    def explain(batch: torch.Tensor) -> Maps:
        with torch.no_grad():
            targets = network(batch).argmax(1)
        coarse = grad_cam.attribute(batch, targets)
        maps = LayerAttribution.interpolate(coarse, tuple(batch.shape[2:]), "trilinear")
        return maps, guided.attribute(batch, targets)

    return explain


SIDES: dict[str, Callable[[nn.Module], tuple[int, Explain]]] = {
    "ours": ours,
    "published": published,
    "MONAI": monai,
    "Captum": captum,
    "Captum, our network": captum_on_our_network,
}


def first_weights() -> Kan2020:
    torch.manual_seed(0)
    return channels_last(Kan2020()).eval()


def side(args: argparse.Namespace) -> None:
    """In a process of its own: all maps at every turn; those of the first are kept."""
    warnings.filterwarnings("ignore")  # Captum warns that it registers hooks
    size, explain = SIDES[args.side](first_weights())
    volumes = torch.load(args.folder / "volumes.pt")
    kept = args.folder / f"{args.side}.pt"

    def turn() -> dict[str, float]:
        start = time.perf_counter()
        maps = [explain(batch) for batch in volumes.split(size)]
        seconds = time.perf_counter() - start
        if not kept.exists():
            torch.save([torch.cat(of_method).detach() for of_method in zip(*maps, strict=True)], kept)
        return {"seconds": seconds}

    serve(turn)


def clipped_first(volumes: torch.Tensor) -> torch.Tensor:
    """Grad-CAM that is clipped at 0 before it is brought to the grid, (N, 1, X, Y, Z)."""
    from captum.attr import LayerGradCam

    network = first_weights()
    grad_cam, coarse = LayerGradCam(network, network.block3.relu), []
    for batch in volumes.split(BATCH_SIZE):
        with torch.no_grad():
            targets = network(batch).argmax(1)
        coarse.append(grad_cam.attribute(batch, targets, relu_attributions=True).detach())
    return upsampled(torch.cat(coarse), volumes.shape)


def differences(folder: Path) -> dict[str, list[float]]:
    """Of each side's maps by both methods from ours, as a share of the largest value."""
    our_maps = torch.load(folder / "ours.pt")
    found = {}
    for name in list(SIDES)[1:]:
        pairs = list(zip(torch.load(folder / f"{name}.pt"), our_maps, strict=True))
        if name == "MONAI":
            pairs[0] = (pairs[0][0], clipped_first(torch.load(folder / "volumes.pt")))
        found[name] = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return found


def save_volumes(args: argparse.Namespace, folder: Path) -> None:
    cfg = compose("train", settings(cohort_root(args.data), folder / "run", range(args.subjects)))
    paths = prepared_cohort(read_config(cfg), open_run(read_config(cfg)))["volume_path"]
    torch.save(torch.from_numpy(np.stack([np.load(path) for path in paths]))[:, None], folder / "volumes.pt")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=IXI, help="folder of the IXI cohort")
    parser.add_argument("--subjects", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side(args)
        return
    if importlib.util.find_spec("monai") is None:
        raise SystemExit("MONAI is one of the sides: pip install monai")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_volumes(args, folder)
        sides = {each: Side([__file__, "--folder", name, "--side", each]) for each in SIDES}
        ways: dict[str, Callable[[], dict[str, Any]]] = {each: sides[each].turn for each in sides}
        seconds = seconds_of(in_turns(ways, args.turns))
        for each in sides.values():
            each.close()
        found = differences(folder)
    show(f"Grad-CAM and guided backpropagation of {args.subjects} subjects", seconds)
    print("\nlargest difference from our maps, as a share of their largest value")
    for name, (of_grad_cam, of_guided) in found.items():
        print(f"  {name:<20} Grad-CAM {of_grad_cam:.1e}, guided backpropagation {of_guided:.1e}")
    figures = {
        "speedup_vs_published": ratio(seconds["published"], seconds["ours"]),
        "speedup_vs_best_peer": min(ratio(seconds[peer], seconds["ours"]) for peer in ("MONAI", "Captum")),
        "speedup_vs_captum_on_our_network": ratio(seconds["Captum, our network"], seconds["ours"]),
        "largest_difference": float(f"{max(map(max, found.values())):.2e}"),
        "n_subjects": args.subjects,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
