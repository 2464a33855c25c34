"""Files of maps: of groups, of single channels, and means of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.config.build import valid_choice
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory, of_channel
from xai_brain.runs.group_maps import find_group_maps
from xai_brain.study.run_images import map_values


def path_of_channel(path: Path, method: str, channel: str) -> Path:
    """Map of one channel, beside the sum over channels.

    Raises
    ------
    ConfigError
        The method has one map for all channels.
    """
    name = of_channel(method, channel)
    own = path.with_name(path.name.replace(f"_desc-{method}_", f"_desc-{name}_"))
    if not own.exists():
        raise ConfigError(f"{method}: has one map for all channels, and none of {channel}")
    return own


def find_group_map(run: RunDirectory, method: str, what: str | None, stat: str) -> Path:
    """File of a statistical map of a method; see `xai_brain.Maps.group_img`.

    Raises
    ------
    ConfigError
        There is no such map; the names of those that exist are listed.
    """
    found = find_group_maps(run)
    valid_choice("statistical map of", method, sorted({each.method for each in found}))
    found = [each for each in found if each.method == method]
    valid_choice(f"statistic of {method}:", stat, sorted({each.statistic for each in found}))
    present = sorted(each.quantity for each in found if each.statistic == stat)
    if what is None and len(present) > 1:
        raise ConfigError(f"{method} has several maps of {stat}; what is needed, one of {', '.join(present)}")
    what = present[0] if what is None else what
    valid_choice(f"map of {method}, {stat}:", what, present)
    return run.group_map(method, what, stat)


def mean_of_maps(paths: Sequence[Path] | pd.Series) -> np.ndarray:
    """Mean of the maps that are not empty, (X, Y, Z) float64; 0 everywhere when all are empty."""
    arrays = [map_values(path) for path in paths]
    found = [values for values in arrays if values.any()] or arrays
    return np.asarray(np.mean(found, axis=0, dtype=np.float64))
