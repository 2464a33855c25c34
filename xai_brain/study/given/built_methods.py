"""Methods on a network that was trained elsewhere, with the arguments that they need."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from hydra.utils import instantiate

from xai_brain.attribution.network_outputs import AdaptedNetwork, OutputKind
from xai_brain.attribution.outputs import ClassScore
from xai_brain.attribution.perturbation.replacement import FILLS, OF_TRAINING_SUBJECTS
from xai_brain.attribution.protocol import method_info, takes
from xai_brain.attribution.reference import Reference
from xai_brain.config.setting import ConfigError
from xai_brain.study.explanation.configured_methods import arguments_of

NEEDS_FILL = ("MeaningfulPerturbation", "AreaConstrainedPerturbation")


class GivenMethods:
    """Methods on one network.

    Parameters
    ----------
    settings : mapping of label to settings
        See `xai_brain.study.methods.method_settings`.
    adapted : AdaptedNetwork
    kind : OutputKind
        Meaning of its outputs.
    output : str, optional
        What is explained; default: that of each method.
    reference : Reference, optional
    fill : str, optional
        For methods with a ``fill``.

    Raises
    ------
    ConfigError
        A method needs a reference or a fill, or the outputs are not what `output` names.
    """

    def __init__(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        adapted: AdaptedNetwork,
        kind: OutputKind,
        output: str | None,
        reference: Reference | None,
        fill: str | None,
    ):
        self.settings = {label: _with_fill(own, fill) for label, own in settings.items()}
        self.adapted, self.kind, self.reference = adapted, kind, reference
        self.output = output
        if output is not None and output not in kind.outputs:
            raise ConfigError(f"output={output!r}: one of {', '.join(kind.outputs)}")
        self._made: dict[Any, Any] = {}
        self.network_hash = network_hash(adapted)
        for label in settings:
            self._check(label, fill_is_given=fill is not None)

    def make(self, label: str, voxel_size_mm: tuple[float, float, float]) -> tuple[Any, str]:
        """A method for volumes with this voxel size, and the output that it explains."""
        factory = instantiate(self.settings[label])
        of_method = method_info(factory).default_output
        output = self.output or (of_method if of_method in self.kind.outputs else self.kind.outputs[0])
        key = label, voxel_size_mm
        if key not in self._made:
            extra: dict[str, Any] = {}
            if takes(factory, "reference") and self.reference is not None:
                extra["reference"] = self.reference
            elif takes(factory, "voxel_size_mm") and not self.settings[label].get("voxel_size_mm"):
                extra["voxel_size_mm"] = list(voxel_size_mm)
            self._made[key] = factory(ClassScore(self.adapted, output, self.kind), **extra)
        return self._made[key], output

    def on(self, network: AdaptedNetwork) -> GivenMethods:
        """The same methods on another network."""
        return GivenMethods(self.settings, network, self.kind, self.output, self.reference, None)

    def parameters(self, label: str) -> dict[str, Any]:
        """All parameters of a method, including defaults."""
        return arguments_of(self.settings[label])

    def _check(self, label: str, fill_is_given: bool) -> None:
        factory = instantiate(self.settings[label])
        parameters = inspect.signature(getattr(factory, "func", factory)).parameters
        fill = self.settings[label].get("fill")
        if self.reference is not None:
            return
        if "reference" in parameters and parameters["reference"].default is inspect.Parameter.empty:
            raise ConfigError(
                f"{label}: needs reference=(images, labels), images that are prepared in the same way"
            )
        chosen = [fill] if isinstance(fill, str) else list(fill or ())
        wrong = {*chosen} & {*OF_TRAINING_SUBJECTS}
        if label in NEEDS_FILL and not fill_is_given and (wrong or not chosen):
            raise ConfigError(
                f"{label}: without reference=(images, labels), which finds most, fill= states what replaces "
                f"tissue: {', '.join(name for name in FILLS if name not in OF_TRAINING_SUBJECTS)}; see "
                "the page Perturbation masks of the documentation for what each of them finds"
            )
        baseline = self.settings[label].get("baseline")
        if "baseline" in parameters and baseline in OF_TRAINING_SUBJECTS:
            raise ConfigError(
                f"{label}: baseline={baseline!r} needs reference=(images, labels); without one give "
                f"partial(xai_brain.attribution.{label}, baseline='zero') or baseline='brain_mean'"
            )
        if "fill" in parameters and wrong:
            raise ConfigError(
                f"{label}: fill={wrong.pop()!r} needs reference=(images, labels); else give fill=, one of "
                f"{', '.join(name for name in FILLS if name not in OF_TRAINING_SUBJECTS)}"
            )


def _with_fill(settings: Mapping[str, Any], fill: str | None) -> dict[str, Any]:
    """Settings of a method, with the fill that is given for all methods that have one."""
    return {**settings, "fill": fill} if fill and takes(instantiate(settings), "fill") else dict(settings)


def network_hash(network: AdaptedNetwork) -> str:
    """Hash of all weights."""
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
