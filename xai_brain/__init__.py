"""Explain 3-D CNNs on brain MRI voxel by voxel, and know which map to believe.

Importing this package loads neither torch nor nilearn; names are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.atlas import load_atlas as load_atlas
    from xai_brain.attribution.grad_cam import GradCAM as GradCAM
    from xai_brain.attribution.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_brain.attribution.meaningful_perturbation import MeaningfulPerturbation as MeaningfulPerturbation
    from xai_brain.attribution.reference import Reference as Reference
    from xai_brain.commands.evaluate import evaluate as evaluate
    from xai_brain.commands.explain import explain as explain
    from xai_brain.commands.report import report as report
    from xai_brain.commands.run import run as run
    from xai_brain.commands.train import train as train
    from xai_brain.commands.validate import validate as validate
    from xai_brain.config import compose as compose
    from xai_brain.data.participants import load_participants as load_participants
    from xai_brain.data.preprocessing import preprocess_t1w as preprocess_t1w
    from xai_brain.data.splits import make_folds as make_folds
    from xai_brain.models.classifier import BrainClassifier as BrainClassifier
    from xai_brain.models.kan2020 import Kan2020 as Kan2020
    from xai_brain.runs import RunDirectory as RunDirectory
    from xai_brain.viewer.slice_viewer import SliceViewer as SliceViewer

_HOMES = {
    "BrainClassifier": "models.classifier",
    "GradCAM": "attribution",
    "GuidedBackprop": "attribution",
    "Kan2020": "models.kan2020",
    "MeaningfulPerturbation": "attribution",
    "Reference": "attribution",
    "RunDirectory": "runs",
    "SliceViewer": "viewer.slice_viewer",
    "compose": "config",
    "evaluate": "commands.evaluate",
    "explain": "commands.explain",
    "load_atlas": "atlas",
    "load_participants": "data.participants",
    "make_folds": "data.splits",
    "preprocess_t1w": "data.preprocessing",
    "report": "commands.report",
    "run": "commands.run",
    "train": "commands.train",
    "validate": "commands.validate",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
