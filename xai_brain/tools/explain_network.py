"""Explain a network that was trained elsewhere, on a cohort: predictions and maps in a run directory."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from xai_brain.config.setting import ConfigError
from xai_brain.config.trust import KNOWN_PACKAGES, import_trusted
from xai_brain.data.cache import default_cache_dir
from xai_brain.io.atomic import write_atomic
from xai_brain.models.networks.archive import archive_kind
from xai_brain.study.explanation.missing_maps import explain_run
from xai_brain.study.given.explain_cohort import explain_cohort
from xai_brain.study.settings import stage
from xai_brain.study.training.predict_participants import predict_run
from xai_brain.study.training.predict_settings import predict_settings

PREFIX = "network."
PREPROCESS = "network.preprocess="
UNUSED_PREPROCESSING = "preprocessing=t1w_2mm"  # has to be stated for a file of weights
ARCHIVES = "xai_brain.models.networks.archive"


def explain_network(arguments: list[str]) -> int:
    """Predict and explain the participants of a cohort with a given network.

    Parameters
    ----------
    arguments : list of str
        ``network._target_=package.Class network.weights=<file>``, or ``network.load=package.function``, and
        further arguments of the network as ``network.<name>=<value>``; ``data=...``, ``preprocessing=...`` or
        ``network.preprocess=package.function``, ``data.class_names=[...]``, ``attribution=[...]`` and
        ``run_dir=...``.

    Returns
    -------
    int
        0.

    Raises
    ------
    ConfigError
        The network is not stated, or its file contains a program and is not trusted.
    """
    given = [text for text in arguments if text.startswith(PREPROCESS)]
    if given:
        others = [text for text in arguments if text not in given]
        if repeated := [text for text in others if text.startswith("preprocessing")]:
            raise ConfigError(
                f"{repeated[0]}: is given together with network.preprocess; leave one of them out"
            )
        preprocess = _trusted_function("network.preprocess", given[-1].removeprefix(PREPROCESS), others)
        config = predict_settings(network_overrides([*others, UNUSED_PREPROCESSING]))
        explain_cohort(config, preprocess, arguments)
        return 0
    config = predict_settings(network_overrides(arguments))
    stage(predict_run)(config)
    stage(explain_run)(config)
    return 0


def network_overrides(arguments: list[str]) -> list[str]:
    """Settings of `xai-brain predict` for the settings ``network.*``."""
    given = dict(text.split("=", 1) for text in arguments if text.startswith(PREFIX) and "=" in text)
    values = {name.removeprefix(PREFIX): value for name, value in given.items()}
    others = [text for text in arguments if not text.startswith(PREFIX)]
    trusted = values.pop("trusted", "false").lower() == "true"
    function = values.pop("load", None)
    if function is not None:
        if "_target_" in values or "weights" in values:
            raise ConfigError("network.load: is given instead of network._target_ and network.weights")
        values |= {"_target_": function, "weights": str(_stored(function, others))}
    if not values.get("weights"):
        raise ConfigError(
            "no network is given: network._target_=package.Class network.weights=<file>, or "
            "network.load=package.function"
        )
    path = Path(values["weights"]).expanduser()
    if "_target_" not in values:
        values["_target_"] = _target_of_archive(path, trusted)
    known = ("_target_", "weights")
    return [
        "model=custom",
        *(f"{'' if name in known else '+'}model.{name}={value}" for name, value in values.items()),
        *others,
    ]


def _target_of_archive(path: Path, trusted: bool) -> str:
    kind = archive_kind(path)
    if kind is None:
        raise ConfigError(
            f"network.weights={path}: contains weights only; network._target_=package.Class names the network"
        )
    if kind != "MonaiBundle" and not trusted:
        raise ConfigError(
            f"network.weights={path}: contains a program, which is not run unless you trust its source; add "
            "network.trusted=true"
        )
    return f"{ARCHIVES}.{kind}"


def _stored(function: str, others: list[str]) -> Path:
    """Weights of the network that a function returns, as a file that identifies them."""
    try:
        made: Any = _trusted_function("network.load", function, others)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"network.load={function}: cannot be called ({error})") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"network.load={function}: returns a {type(made).__name__}, no torch.nn.Module")
    state = {key: value.detach().cpu().clone().contiguous() for key, value in made.state_dict().items()}
    digest = sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode() + value.to(torch.float64).numpy().tobytes())
    path = default_cache_dir() / "networks" / f"{digest.hexdigest()[:32]}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: save_file(state, temporary))
    return path


def _trusted_function(setting: str, function: str, others: list[str]) -> Callable[..., Any]:
    """The function of a dotted name, whose package is known or trusted."""
    module, _, name = function.rpartition(".")
    package = module.partition(".")[0]
    trusted = next((text for text in others if text.startswith("trusted_modules=")), "")
    if package not in KNOWN_PACKAGES and package not in trusted.partition("=")[2].strip("[]").split(","):
        raise ConfigError(
            f"{setting}={function}: runs code of the package {package}; add trusted_modules=[{package}]"
        )
    import_trusted([package])
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{setting}={function}: cannot be imported ({error}); start the command in the folder of its file"
        ) from error
    if not callable(found):
        raise ConfigError(f"{setting}={function}: is a {type(found).__name__}, no function")
    return found
