"""The benchmark that settings request."""

from __future__ import annotations

from collections.abc import Callable

from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.detection.benchmark import detection_run
from xai_brain.study.regional.benchmark import regional_run
from xai_brain.study.settings import stage


def benchmark_of(config: Config) -> Callable[[Config], RunDirectory] | None:
    """The function of the benchmark in the settings; None for an ordinary run."""
    if config.regional.regions:
        return stage(regional_run)
    return stage(detection_run) if config.detection.cells else None
