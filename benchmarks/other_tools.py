"""Trials of other attribution tools on volumes: methods, operations without a rule, agreement of Grad-CAM.

    python benchmarks/other_tools.py                # tools that are installed; the others are named
    pip install grad-cam torchcam zennit medcam shap torchray      # in an environment of your own

Volumes: which methods return a finite map of a volume of 20 x 28 x 24 voxels.

Rules: what guided backpropagation and DeepLIFT do on networks with a ReLU that is called as a function, with
a GELU and (DeepLIFT) with group normalisation. `guided` is the map of the same network with ReLU modules,
`gradient` the plain gradient. For DeepLIFT, the sum of the map is divided by the change of the output.

Grad-CAM: Pearson correlation with the map of xai_brain of the MNI152 template. The weights of the last layer
are positive, so that the map is positive, and clipping at 0 changes nothing.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from tool_methods import KINDS, METHODS, TARGET, Explain, gradient, small, volume
from torch import nn

GUIDED = {
    "xai_brain": "GuidedBackprop",
    "captum": "GuidedBackprop",
    "monai": "GuidedBackpropGrad",
    "zennit": "GuidedBackprop",
    "medcam": "gbp",
}
DEEP_LIFT = {"xai_brain": "DeepLift", "captum": "DeepLift", "shap": "DeepExplainer"}
GRAD_CAM = {
    "captum": "LayerGradCam",
    "monai": "GradCAM",
    "grad-cam": "GradCAM",
    "torchcam": "GradCAM",
    "medcam": "gcam",
    "torchray": "grad_cam",
}


def array(found: Any) -> np.ndarray:
    return np.asarray(found.detach() if torch.is_tensor(found) else found, dtype=float)


def is_installed(tool: str) -> bool:
    try:
        version(tool)
    except PackageNotFoundError:
        return False
    return True


def attempt(explain: Explain, network: nn.Module, x: torch.Tensor) -> np.ndarray | str:
    """The map, or the first line of the error."""
    try:
        found = array(explain(network, x.clone()))
    except Exception as error:  # of any kind: it is the result of the trial
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
    return found if np.isfinite(found).all() else "values that are not finite"


def trials(tool: str) -> dict[str, np.ndarray | str]:
    """Map or error of every method of a tool."""
    return {name: attempt(explain, small(), volume()) for name, explain in METHODS[tool]()}


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def guided(explain: Explain, kind: str) -> str:
    """What a guided backpropagation computes: `guided`, `gradient`, another map, or its refusal."""
    from captum.attr import GuidedBackprop

    network, x = small(kind), volume()
    plain = array(gradient(network, x))
    expected = array(GuidedBackprop(small()).attribute(x.clone(), target=TARGET))
    found = attempt(explain, network, x)
    if isinstance(found, str):
        return found
    if alike(found, plain) > 0.9999:
        return "gradient"
    return "guided" if alike(found, expected) > 0.9999 else "another map"


def sum_of_deep_lift(explain: Explain, kind: str) -> str:
    """Sum of a map as a share of the change of the output from a baseline of zeros, or the refusal."""
    network, x = small(kind), volume()
    with torch.no_grad():
        change = float((network(x) - network(0 * x))[0, TARGET])
    found = attempt(explain, network, x)
    return found if isinstance(found, str) else f"{found.sum() / change:.2f}"


def own() -> dict[str, Explain]:
    from xai_brain.attribution import DeepLift, GuidedBackprop

    return {
        "GuidedBackprop": lambda net, x: GuidedBackprop(net).attribute(x, TARGET),
        "DeepLift": lambda net, x: DeepLift(net).attribute(x, TARGET),
    }


def grad_cam_agreement(tool: str) -> float:
    """Pearson correlation of the tool's Grad-CAM, on the grid of the volume, with that of xai_brain."""
    from nilearn.datasets import load_mni152_template

    from xai_brain.attribution import GradCAM

    template = torch.from_numpy(load_mni152_template(resolution=3).get_fdata()).float()[None, None]
    x, network = (template - template.mean()) / template.std(), small()
    network.linear.weight.data.abs_()
    expected = array(GradCAM(network, "relu2").attribute(x, TARGET))
    found = attempt(dict(METHODS[tool]())[GRAD_CAM[tool]], network, x)
    if isinstance(found, str):
        raise ValueError(f"{tool}: {found}")
    found = torch.from_numpy(found).view(1, 1, *found.shape[-3:])
    return alike(array(nn.functional.interpolate(found, x.shape[2:], mode="trilinear")), expected)


def show_volumes(tool: str) -> None:
    found = trials(tool)
    errors = {name: text for name, text in found.items() if isinstance(text, str)}
    print(f"  {tool} {version(tool)}: {len(found) - len(errors)} of {len(found)}")
    for text, n_methods in Counter(errors.values()).items():
        first = next(name for name in errors if errors[name] == text)
        print(f"      {first}{f' and {n_methods - 1} others' if n_methods > 1 else ''}: {text}")


def show_rules(tool: str) -> None:
    methods = own() if tool == "xai_brain" else dict(METHODS[tool]())
    for names, examine in ((GUIDED, guided), (DEEP_LIFT, sum_of_deep_lift)):
        if name := names.get(tool):
            for kind in KINDS if examine is sum_of_deep_lift else KINDS[:3]:
                print(f"  {tool} {name}, {kind}: {examine(methods[name], kind)}")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    warnings.simplefilter("ignore")
    tools = [tool for tool in METHODS if is_installed(tool)]
    print("not installed:", ", ".join(tool for tool in METHODS if tool not in tools) or "none")
    print("\nmethods that return a map of a volume (Quantus: metrics that return a score)")
    for tool in tools:
        show_volumes(tool)
    print("\nguided backpropagation, and the sum of DeepLIFT as a share of the change of the output")
    for tool in ("xai_brain", *tools):
        show_rules(tool)
    print("\nGrad-CAM, correlation with that of xai_brain")
    for tool in filter(GRAD_CAM.get, tools):
        print(f"  {tool}: {grad_cam_agreement(tool):.4f}")


if __name__ == "__main__":
    main()
