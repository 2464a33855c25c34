"""Methods that explain a decision of any network, voxel by voxel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.attribution.amortized_masker import AmortizedMasker as AmortizedMasker
    from xai_brain.attribution.area_constrained import (
        AreaConstrainedPerturbation as AreaConstrainedPerturbation,
    )
    from xai_brain.attribution.grad_cam import GradCAM as GradCAM
    from xai_brain.attribution.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_brain.attribution.kan2020_perturbation import Kan2020Perturbation as Kan2020Perturbation
    from xai_brain.attribution.meaningful_perturbation import MeaningfulPerturbation as MeaningfulPerturbation
    from xai_brain.attribution.model_state import preserved as preserved
    from xai_brain.attribution.outputs import ClassScore as ClassScore
    from xai_brain.attribution.reference import Reference as Reference

_HOMES = {
    "AmortizedMasker": "amortized_masker",
    "AreaConstrainedPerturbation": "area_constrained",
    "Kan2020Perturbation": "kan2020_perturbation",
    "GradCAM": "grad_cam",
    "GuidedBackprop": "guided_backprop",
    "MeaningfulPerturbation": "meaningful_perturbation",
    "ClassScore": "outputs",
    "Reference": "reference",
    "preserved": "model_state",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
