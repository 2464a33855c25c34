"""Methods of other tools with one signature, and the small network and volume that they explain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

SHAPE = (20, 28, 24)
TARGET = 1
Explain = Callable[[nn.Module, torch.Tensor], Any]  # a map of a volume, (1, 1, X, Y, Z)


class Small(nn.Module):
    """Two convolutions. The names of ReLU modules contain "relu", by which MONAI finds them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        name, activation = ("gelu", nn.GELU) if kind == "GELU" else ("relu", nn.ReLU)
        norm = nn.GroupNorm(2, 4) if kind == "group normalisation" else nn.BatchNorm3d(4)
        self.conv1, self.norm, self.pool = nn.Conv3d(1, 4, 3, padding=1), norm, nn.MaxPool3d(2)
        self.conv2, self.mean = nn.Conv3d(4, 8, 3, padding=1), nn.AdaptiveAvgPool3d(1)
        self.flatten, self.linear = nn.Flatten(), nn.Linear(8, 2)
        for number in "12":
            self.add_module(name + number, activation())
        self.names = None if kind == "ReLU function" else (name + "1", name + "2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = map(self.get_submodule, self.names) if self.names else (torch.relu, torch.relu)
        x = self.pool(first(self.norm(self.conv1(x))))
        return self.linear(self.flatten(self.mean(second(self.conv2(x)))))


KINDS = ("ReLU modules", "ReLU function", "GELU", "group normalisation")


def small(kind: str = KINDS[0]) -> nn.Module:
    torch.manual_seed(1)
    return Small(kind).eval()


def volume() -> torch.Tensor:
    return torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(3))


def gradient(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x)[0, TARGET], x)[0]


def captum_methods() -> Iterator[tuple[str, Explain]]:
    from captum import attr

    for name in ("Saliency", "InputXGradient", "DeepLift", "Deconvolution", "LRP"):
        yield name, lambda net, x, name=name: getattr(attr, name)(net).attribute(x, target=TARGET)
    integrated = attr.IntegratedGradients
    yield "IntegratedGradients", lambda net, x: integrated(net).attribute(x, target=TARGET, n_steps=5)
    yield "GuidedBackprop", lambda net, x: attr.GuidedBackprop(net).attribute(x, target=TARGET)
    yield "LayerGradCam", lambda net, x: attr.LayerGradCam(net, net.relu2).attribute(x, target=TARGET)
    yield "GuidedGradCam", lambda net, x: attr.GuidedGradCam(net, net.relu2).attribute(x, target=TARGET)
    baselines, boxes = torch.zeros(2, 1, *SHAPE), (1, 10, 14, 12)
    yield "GradientShap", lambda net, x: attr.GradientShap(net).attribute(x, baselines, target=TARGET)
    yield "Occlusion", lambda net, x: attr.Occlusion(net).attribute(x, boxes, boxes, target=TARGET)
    regions = {"feature_mask": torch.arange(np.prod(SHAPE)).view(1, 1, *SHAPE) // 3360}
    few = {"FeatureAblation": {}, "KernelShap": {"n_samples": 10}, "ShapleyValueSampling": {"n_samples": 2}}
    for name, n_samples in few.items():
        settings = regions | n_samples
        yield (
            name,
            lambda net, x, name=name, settings=settings: getattr(attr, name)(net).attribute(
                x, target=TARGET, **settings
            ),
        )


def monai_methods() -> Iterator[tuple[str, Explain]]:
    from monai import visualize

    yield "CAM", lambda net, x: visualize.CAM(net, "relu2", "linear")(x, class_idx=[TARGET])
    for name in ("GradCAM", "GradCAMpp"):
        yield name, lambda net, x, name=name: getattr(visualize, name)(net, "relu2")(x, class_idx=TARGET)
    for name in ("VanillaGrad", "GuidedBackpropGrad"):
        yield name, lambda net, x, name=name: getattr(visualize, name)(net)(x, index=TARGET)
    few = {"n_samples": 3, "verbose": False}
    for name in ("SmoothGrad", "GuidedBackpropSmoothGrad"):
        yield name, lambda net, x, name=name: getattr(visualize, name)(net, **few)(x, index=TARGET)
    boxes = {"mask_size": 10, "overlap": 0.0, "n_batch": 8, "verbose": False}
    yield "OcclusionSensitivity", lambda net, x: visualize.OcclusionSensitivity(net, **boxes)(x)[0]


def grad_cam_methods() -> Iterator[tuple[str, Explain]]:
    import pytorch_grad_cam as tool
    from pytorch_grad_cam.base_cam import BaseCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def explain(kind: Any, net: nn.Module, x: torch.Tensor) -> np.ndarray:
        with kind(model=net, target_layers=[net.relu2]) as cam:
            return cam(input_tensor=x, targets=[ClassifierOutputTarget(TARGET)])

    for name, kind in vars(tool).items():
        if inspect.isclass(kind) and issubclass(kind, BaseCAM) and kind is not BaseCAM:
            yield name, lambda net, x, kind=kind: explain(kind, net, x)


def torchcam_methods() -> Iterator[tuple[str, Explain]]:
    from torchcam import methods

    def explain(name: str, net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with getattr(methods, name)(net, target_layer=net.relu2) as cam:
            return cam(TARGET, net(x))[0]

    names = ("CAM", "GradCAM", "GradCAMpp", "SmoothGradCAMpp", "XGradCAM", "LayerCAM", "ScoreCAM")
    for name in (*names, "SSCAM", "ISCAM"):
        yield name, lambda net, x, name=name: explain(name, net, x)


def zennit_methods() -> Iterator[tuple[str, Explain]]:
    from zennit import attribution, composites

    wanted = torch.eye(2)[[TARGET]]

    def explain(attributor: Any, x: torch.Tensor) -> torch.Tensor:
        with attributor as active:
            return active(x, wanted)[1]

    for name in (
        "EpsilonPlus",
        "EpsilonPlusFlat",
        "EpsilonAlpha2Beta1",
        "GuidedBackprop",
        "ExcitationBackprop",
    ):
        yield (
            name,
            lambda net, x, name=name: explain(attribution.Gradient(net, getattr(composites, name)()), x),
        )
    for name in ("SmoothGrad", "IntegratedGradients"):
        yield name, lambda net, x, name=name: explain(getattr(attribution, name)(net, n_iter=3), x)
    boxes = (10, 14, 12)
    yield "Occlusion", lambda net, x: explain(attribution.Occlusion(net, window=boxes, stride=boxes), x)


def medcam_methods() -> Iterator[tuple[str, Explain]]:
    from medcam import medcam

    for name in ("gcam", "gcampp", "gbp", "ggcam"):
        settings = {"backend": name, "layer": "relu2", "label": TARGET, "return_attention": True}
        yield name, lambda net, x, settings=settings: medcam.inject(net, **settings)(x)[1]


def shap_methods() -> Iterator[tuple[str, Explain]]:
    import shap

    baselines = torch.zeros(2, 1, *SHAPE)
    yield "DeepExplainer", lambda net, x: shap.DeepExplainer(net, baselines).shap_values(x)[..., TARGET]
    yield (
        "GradientExplainer",
        lambda net, x: shap.GradientExplainer(net, baselines).shap_values(x, nsamples=5),
    )


def torchray_methods() -> Iterator[tuple[str, Explain]]:
    def explain(name: str, net: nn.Module, x: torch.Tensor, **settings: Any) -> Any:
        return getattr(import_module(f"torchray.attribution.{name}"), name)(net, x, TARGET, **settings)

    for name in ("gradient", "guided_backprop", "deconvnet"):
        yield name, lambda net, x, name=name: explain(name, net, x)
    for name in ("grad_cam", "linear_approx"):
        yield name, lambda net, x, name=name: explain(name, net, x, saliency_layer="relu2")
    yield "excitation_backprop", lambda net, x: explain("excitation_backprop", net, x, saliency_layer="pool")
    yield "rise", lambda net, x: explain("rise", net, x, num_masks=4)
    yield "extremal_perturbation", lambda net, x: explain("extremal_perturbation", net, x, max_iter=2)[0]


def quantus_metrics() -> Iterator[tuple[str, Explain]]:
    """The public call of every metric, with a map of the gradient; its score stands for the map."""
    import quantus

    def explained(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        return np.abs(gradient(model, torch.as_tensor(inputs).float()).numpy())

    def score(metric: Any, net: nn.Module, x: torch.Tensor) -> Any:
        few = {"nr_samples": 3, "nr_runs": 3, "features_in_step": 3360, "disable_warnings": True}
        known = {key: few[key] for key in few if key in inspect.signature(metric.__init__).parameters}
        mask = np.zeros((1, 1, *SHAPE))
        mask[:, :, 5:10, 5:10, 5:10] = 1
        maps, labels = explained(net, x, TARGET), np.array([TARGET])
        call = {"x_batch": x.numpy(), "y_batch": labels, "a_batch": maps, "s_batch": mask, "device": "cpu"}
        return metric(**known)(model=net, explain_func=explained, **call)

    for family in quantus.AVAILABLE_METRICS.values():
        for name, metric in family.items():
            yield name, lambda net, x, metric=metric: score(metric, net, x)


METHODS: dict[str, Callable[[], Iterator[tuple[str, Explain]]]] = {
    "captum": captum_methods,
    "monai": monai_methods,
    "grad-cam": grad_cam_methods,
    "torchcam": torchcam_methods,
    "zennit": zennit_methods,
    "medcam": medcam_methods,
    "shap": shap_methods,
    "torchray": torchray_methods,
    "quantus": quantus_metrics,
}
