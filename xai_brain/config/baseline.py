"""Settings of one baseline: a classifier on features, or another network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from xai_brain.config.setting import ConfigError, check_values, setting
from xai_brain.config.training import TrainerConfig

NEEDED = {  # settings that each kind of features needs, and that it may have
    "voxels": ({"steps", "block_voxels"}, {"choices"}),
    "morphometry": ({"steps"}, {"choices"}),
    "slabs": ({"network", "n_slices"}, {"trainer", "n_seeds"}),
    "volumes": ({"network"}, {"trainer", "n_seeds"}),
}
TRAINER_SETTINGS = {each.name for each in fields(TrainerConfig)} - {"devices", "num_nodes", "strategy"}
TAKEN = ("brain_size", "network", "chosen_network")  # names of other rows of the comparison


@dataclass
class BaselineConfig:
    """A baseline; see ``conf/baselines``."""

    features: str = setting("voxels", "input of the classifier", choices=tuple(NEEDED))
    steps: list[Any] = setting([], "steps of a scikit-learn pipeline, each with its _target_")
    choices: dict[str, Any] = setting({}, "values of parameters that are chosen within the training part")
    block_voxels: int | None = setting(None, "edge of the blocks that are averaged, voxels", at_least=1)
    network: dict[str, Any] = setting({}, "another network: _target_ and its arguments")
    n_slices: int | None = setting(None, "slices per slab", at_least=1)
    trainer: dict[str, Any] = setting({}, "settings of the trainer that differ from those of the run")
    n_seeds: int | None = setting(None, "seeds that are trained; default: those of the run", at_least=1)


def read_baseline(name: str, settings: object) -> BaselineConfig:
    """Settings of a baseline that are complete.

    Parameters
    ----------
    name : str
        Key in the settings ``baselines``.
    settings : mapping
        Values by name.

    Raises
    ------
    ConfigError
        A name is taken, or a setting is missing, unknown or has a wrong value.
    """
    where = f"baselines.{name}"
    given = dict(settings) if isinstance(settings, Mapping) else {}
    features = given.get("features")
    if features not in NEEDED:
        raise ConfigError(f"{where}.features={features}: one of {', '.join(NEEDED)} is needed")
    if name in TAKEN or name.endswith("_ensemble"):
        raise ConfigError(f"{where}: this name is taken; choose another")
    needed, optional = NEEDED[features]
    if missing := sorted(key for key in needed if not given.get(key)):
        raise ConfigError(f"no value for {where}.{missing[0]}")
    if unknown := sorted(set(given) - needed - optional - {"features"}):
        known = ", ".join(sorted(needed | optional))
        raise ConfigError(f"there is no setting {where}.{unknown[0]}; it has features, {known}")
    if unknown := sorted(set(given.get("trainer") or {}) - TRAINER_SETTINGS):
        raise ConfigError(f"there is no setting {where}.trainer.{unknown[0]}; see conf/trainer")
    for key in ("block_voxels", "n_slices", "n_seeds"):
        value = given.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{where}.{key}={value!r}: a whole number from 1 on is needed")
    if "network" in given and not given["network"].get("_target_"):
        raise ConfigError(f"no value for {where}.network._target_: the dotted name of a torch.nn.Module")
    baseline = BaselineConfig(**{key: value for key, value in given.items() if value is not None})
    check_values(baseline, where)
    return baseline
