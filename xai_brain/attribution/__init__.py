"""Methods that explain a decision of any network, voxel by voxel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.attribution.amortized_masker import AmortizedMasker as AmortizedMasker
    from xai_brain.attribution.area_constrained import (
        AreaConstrainedPerturbation as AreaConstrainedPerturbation,
    )
    from xai_brain.attribution.baselines import Edges as Edges
    from xai_brain.attribution.baselines import Intensity as Intensity
    from xai_brain.attribution.baselines import MeanDifference as MeanDifference
    from xai_brain.attribution.baselines import RandomMap as RandomMap
    from xai_brain.attribution.baselines import TMap as TMap
    from xai_brain.attribution.deep_lift import DeepLift as DeepLift
    from xai_brain.attribution.grad_cam import GradCAM as GradCAM
    from xai_brain.attribution.gradients import InputXGradient as InputXGradient
    from xai_brain.attribution.gradients import Saliency as Saliency
    from xai_brain.attribution.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_brain.attribution.guided_grad_cam import GuidedGradCAM as GuidedGradCAM
    from xai_brain.attribution.integrated_gradients import IntegratedGradients as IntegratedGradients
    from xai_brain.attribution.kan2020_perturbation import Kan2020Perturbation as Kan2020Perturbation
    from xai_brain.attribution.lrp import LRP as LRP
    from xai_brain.attribution.meaningful_perturbation import MeaningfulPerturbation as MeaningfulPerturbation
    from xai_brain.attribution.model_state import preserved as preserved
    from xai_brain.attribution.occlusion import Occlusion as Occlusion
    from xai_brain.attribution.outputs import ClassScore as ClassScore
    from xai_brain.attribution.reference import Reference as Reference
    from xai_brain.attribution.region_ablation import RegionAblation as RegionAblation
    from xai_brain.attribution.sampled_gradients import GradientShap as GradientShap
    from xai_brain.attribution.sampled_gradients import SmoothGrad as SmoothGrad

_HOMES = {
    "DeepLift": "deep_lift",
    "Edges": "baselines",
    "GradientShap": "sampled_gradients",
    "GuidedGradCAM": "guided_grad_cam",
    "InputXGradient": "gradients",
    "IntegratedGradients": "integrated_gradients",
    "Intensity": "baselines",
    "LRP": "lrp",
    "MeanDifference": "baselines",
    "Occlusion": "occlusion",
    "RandomMap": "baselines",
    "RegionAblation": "region_ablation",
    "Saliency": "gradients",
    "SmoothGrad": "sampled_gradients",
    "TMap": "baselines",
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
