"""Every method with quick settings, and a reference for toy networks."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from conftest import SHAPE

from xai_brain.attribution import (
    LRP,
    RISE,
    ClassScore,
    DeepLift,
    Edges,
    ExpectedGradients,
    GradCAM,
    GradCAMPlusPlus,
    GradientShap,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    Intensity,
    KernelShap,
    LayerCAM,
    MeanDifference,
    MeaningfulPerturbation,
    Occlusion,
    RandomMap,
    Reference,
    RegionAblation,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    TMap,
)


def reference_for(shape, n_classes=2):
    generator = torch.Generator().manual_seed(3)
    return Reference(
        class_means=torch.randn(n_classes, 1, *shape, generator=generator),
        volumes=torch.randn(4, 1, *shape, generator=generator),
        targets=torch.tensor([0, 1, 0, 1]),
        brain_mask=torch.ones(shape, dtype=torch.bool),
        voxel_size_mm=(2.0, 2.0, 2.0),
        class_variances=torch.rand(n_classes, 1, *shape, generator=generator) + 0.5,
        class_counts=torch.arange(n_classes) + 5,
        affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)),
    )


def quarters():
    """Labels 1 to 4 on the grid of the volumes."""
    x, y = np.indices(SHAPE)[:2]
    labels = 1 + (x > 5) + 2 * (y > 6)
    return nib.Nifti1Image(labels.astype(np.int16), np.diag([2.0, 2, 2, 1]))


REFERENCE = reference_for(SHAPE)
NAMES = pd.DataFrame({"index": [1, 2, 3, 4], "name": ["first", "second", "third", "fourth"]})
METHODS = {
    "GradCAM": GradCAM,
    "GradCAMPlusPlus": GradCAMPlusPlus,
    "HiResCAM": HiResCAM,
    "LayerCAM": LayerCAM,
    "ScoreCAM": lambda model: ScoreCAM(model, REFERENCE, chunk_size=4),
    "GuidedBackprop": GuidedBackprop,
    "GuidedGradCAM": GuidedGradCAM,
    "Saliency": Saliency,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": lambda model: IntegratedGradients(model, REFERENCE, n_steps=6),
    "IntegratedGradients-zero": lambda model: IntegratedGradients(model, n_steps=6, chunk_size=4),
    "SmoothGrad": lambda model: SmoothGrad(model, n_samples=5, chunk_size=3),
    "GradientShap": lambda model: GradientShap(model, REFERENCE, n_samples=6),
    "ExpectedGradients": lambda model: ExpectedGradients(model, REFERENCE, n_steps=3),
    "DeepLift": lambda model: DeepLift(model, REFERENCE),
    "LRP": LRP,
    "Occlusion": lambda model: Occlusion(model, REFERENCE, window_mm=14, n_levels=2, n_refined=2),
    "RegionAblation": lambda model: RegionAblation(model, REFERENCE, quarters(), NAMES),
    "KernelShap": lambda model: KernelShap(model, REFERENCE, size_mm=12, n_samples=100),
    "KernelShap-atlas": lambda model: KernelShap(model, REFERENCE, quarters(), NAMES),
    "RISE": lambda model: RISE(model, REFERENCE, n_masks=10, cell_mm=10, chunk_size=4),
    "MeaningfulPerturbation": lambda model: MeaningfulPerturbation(
        ClassScore(model, "probability"), REFERENCE, n_iter=8, area_weight=0.0
    ),
    "MeaningfulPerturbation-blur": lambda model: MeaningfulPerturbation(
        ClassScore(model, "probability"),
        fill="blur",
        blur_sigma_mm=1.5,
        voxel_size_mm=(1, 1, 1),
        n_iter=8,
        area_weight=0.0,
    ),
    "RandomMap": RandomMap,
    "Intensity": Intensity,
    "Edges": Edges,
    "MeanDifference": lambda model: MeanDifference(model, REFERENCE),
    "TMap": lambda model: TMap(model, REFERENCE),
}
OF_THE_IMAGE = ["RandomMap", "Intensity", "Edges", "MeanDifference"]  # they know no class
OF_NO_MODEL = [*OF_THE_IMAGE, "TMap"]
OF_A_CLASS = [name for name in METHODS if name not in OF_THE_IMAGE]
OF_A_MODEL = [name for name in METHODS if name not in OF_NO_MODEL]
