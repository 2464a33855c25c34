"""The configured attribution methods: their arguments, references and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.utils import instantiate

from xai_brain.attribution.outputs import ClassScore
from xai_brain.attribution.perturbation.replacement import OF_TRAINING_SUBJECTS
from xai_brain.attribution.protocol import method_info, takes
from xai_brain.attribution.reference import Reference
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.study.training.networks import is_weights_file
from xai_brain.task.build import build_task


def takes_reference(config: Config, label: str) -> bool:
    """Whether a method takes the `Reference` of the training participants."""
    return takes(instantiate(config.attribution[label]), "reference")


def _parameters(config: Config, label: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of the class or function that creates a method."""
    factory = instantiate(config.attribution[label])
    return inspect.signature(getattr(factory, "func", factory)).parameters


def check_references(config: Config) -> None:
    """Raise an error for methods that need training participants if these are not known.

    Raises
    ------
    ConfigError
        The network comes from a file of weights.
    """
    if not is_weights_file(config):
        return
    unknown = f"needs images of training participants, and those of {config.networks} are not known"
    for label, method in config.attribution.items():
        parameters = _parameters(config, label)
        needs = "reference" in parameters and parameters["reference"].default is inspect.Parameter.empty
        if needs:
            raise ConfigError(
                f"attribution.{label}: {unknown}; choose other methods, as in attribution=[lrp]"
            )
        for key in ("fill", "baseline"):
            chosen = method.get(key) or []
            if wrong := {*([chosen] if isinstance(chosen, str) else chosen)} & {*OF_TRAINING_SUBJECTS}:
                raise ConfigError(
                    f"attribution.{label}.{key}={wrong.pop()}: {unknown}; choose attribution.{label}.{key}="
                    f"{'blur' if 'voxel_size_mm' in parameters else 'zero'}"
                )


def build_method(
    config: Config, label: str, classifier: torch.nn.Module, reference: Reference | None
) -> tuple[Any, str]:
    """Build a configured method for the output that it explains.

    Returns
    -------
    method : object with ``attribute(inputs, target)``
    output : str
        One of the outputs of the task, e.g. logit, logit_difference or probability.
    """
    factory: Callable[..., Any] = instantiate(config.attribution[label])
    task = build_task(config.task)
    output = config.explain.output or task.default_output(method_info(factory).default_output)
    if reference is not None:
        reference = reference.of_network(classifier)
    extra: dict[str, Any] = {"reference": reference} if takes_reference(config, label) else {}
    if reference is None and "voxel_size_mm" in _parameters(config, label):
        spacing = (
            config.attribution[label].get("voxel_size_mm") or get_grid(config.preprocessing.grid).spacing_mm
        )
        extra["voxel_size_mm"] = [float(mm) for mm in spacing]
    return factory(ClassScore(classifier, output, task), **extra), output


def parameters_of(config: Config, label: str) -> dict[str, Any]:
    """All parameters of a configured method, including defaults."""
    return arguments_of(config.attribution[label])


def arguments_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a method, including defaults, from its settings."""
    factory = instantiate(given)
    known = inspect.signature(getattr(factory, "func", factory)).parameters.values()
    defaults = {
        p.name: p.default for p in known if isinstance(p.default, bool | int | float | str | tuple | None)
    }
    return {
        str(key): value
        for key, value in {**defaults, **given}.items()
        if key not in ("_partial_", "reference")
    }


def multiplies_by_inputs(method: Any, label: str) -> bool:
    """Whether the values of a method are contributions of voxels; otherwise they are per unit of intensity.

    Raises
    ------
    ConfigError
        The class does not state it.
    """
    stated = method_info(method).multiplies_by_inputs
    if stated is None:
        raise ConfigError(
            f"attribution.{label}: {type(method).__name__} does not state whether its values are multiplied "
            "by the input, which infidelity and completeness depend on; give the class the attribute "
            "multiplies_by_inputs = True or False, or remove both from evaluation.card.metrics"
        )
    return stated
