"""Methods that explain a decision of any network, voxel by voxel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.attribution.methods.amortized_masker import AmortizedMasker as AmortizedMasker
    from xai_brain.attribution.methods.area_constrained import (
        AreaConstrainedPerturbation as AreaConstrainedPerturbation,
    )
    from xai_brain.attribution.methods.attention_relevance import AttentionRelevance as AttentionRelevance
    from xai_brain.attribution.methods.attention_rollout import AttentionRollout as AttentionRollout
    from xai_brain.attribution.methods.attn_lrp import AttnLRP as AttnLRP
    from xai_brain.attribution.methods.baselines import CorrelationMap as CorrelationMap
    from xai_brain.attribution.methods.baselines import Edges as Edges
    from xai_brain.attribution.methods.baselines import Intensity as Intensity
    from xai_brain.attribution.methods.baselines import MeanDifference as MeanDifference
    from xai_brain.attribution.methods.baselines import OppositeDifference as OppositeDifference
    from xai_brain.attribution.methods.baselines import RandomMap as RandomMap
    from xai_brain.attribution.methods.baselines import TMap as TMap
    from xai_brain.attribution.methods.deep_lift import DeepLift as DeepLift
    from xai_brain.attribution.methods.expected_gradients import ExpectedGradients as ExpectedGradients
    from xai_brain.attribution.methods.grad_cam import GradCAM as GradCAM
    from xai_brain.attribution.methods.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
    from xai_brain.attribution.methods.gradients import InputXGradient as InputXGradient
    from xai_brain.attribution.methods.gradients import Saliency as Saliency
    from xai_brain.attribution.methods.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_brain.attribution.methods.guided_grad_cam import GuidedGradCAM as GuidedGradCAM
    from xai_brain.attribution.methods.hires_cam import HiResCAM as HiResCAM
    from xai_brain.attribution.methods.integrated_gradients import IntegratedGradients as IntegratedGradients
    from xai_brain.attribution.methods.kan2020_perturbation import Kan2020Perturbation as Kan2020Perturbation
    from xai_brain.attribution.methods.kernel_shap import KernelShap as KernelShap
    from xai_brain.attribution.methods.layer_cam import LayerCAM as LayerCAM
    from xai_brain.attribution.methods.lrp import LRP as LRP
    from xai_brain.attribution.methods.meaningful_perturbation import (
        MeaningfulPerturbation as MeaningfulPerturbation,
    )
    from xai_brain.attribution.methods.occlusion import Occlusion as Occlusion
    from xai_brain.attribution.methods.region_ablation import RegionAblation as RegionAblation
    from xai_brain.attribution.methods.rise import RISE as RISE
    from xai_brain.attribution.methods.sampled_gradients import GradientShap as GradientShap
    from xai_brain.attribution.methods.sampled_gradients import SmoothGrad as SmoothGrad
    from xai_brain.attribution.methods.score_cam import ScoreCAM as ScoreCAM
    from xai_brain.attribution.methods.token_grad_cam import TokenGradCAM as TokenGradCAM
    from xai_brain.attribution.model_state import preserved as preserved
    from xai_brain.attribution.outputs import ClassScore as ClassScore
    from xai_brain.attribution.reference import Reference as Reference

_HOMES = {
    "AttentionRelevance": "methods.attention_relevance",
    "AttentionRollout": "methods.attention_rollout",
    "AttnLRP": "methods.attn_lrp",
    "CorrelationMap": "methods.baselines",
    "DeepLift": "methods.deep_lift",
    "Edges": "methods.baselines",
    "ExpectedGradients": "methods.expected_gradients",
    "GradientShap": "methods.sampled_gradients",
    "GuidedGradCAM": "methods.guided_grad_cam",
    "HiResCAM": "methods.hires_cam",
    "InputXGradient": "methods.gradients",
    "IntegratedGradients": "methods.integrated_gradients",
    "Intensity": "methods.baselines",
    "KernelShap": "methods.kernel_shap",
    "LRP": "methods.lrp",
    "LayerCAM": "methods.layer_cam",
    "MeanDifference": "methods.baselines",
    "Occlusion": "methods.occlusion",
    "OppositeDifference": "methods.baselines",
    "RISE": "methods.rise",
    "RandomMap": "methods.baselines",
    "RegionAblation": "methods.region_ablation",
    "Saliency": "methods.gradients",
    "ScoreCAM": "methods.score_cam",
    "SmoothGrad": "methods.sampled_gradients",
    "TMap": "methods.baselines",
    "TokenGradCAM": "methods.token_grad_cam",
    "AmortizedMasker": "methods.amortized_masker",
    "AreaConstrainedPerturbation": "methods.area_constrained",
    "Kan2020Perturbation": "methods.kan2020_perturbation",
    "GradCAM": "methods.grad_cam",
    "GradCAMPlusPlus": "methods.grad_cam_plus_plus",
    "GuidedBackprop": "methods.guided_backprop",
    "MeaningfulPerturbation": "methods.meaningful_perturbation",
    "ClassScore": "outputs",
    "Reference": "reference",
    "preserved": "model_state",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
