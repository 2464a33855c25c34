"""Train and explain 3-D CNNs on brain MRI, and measure which maps can be believed.

Importing this package loads neither torch nor nilearn; names are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_brain.atlas.atlas import load_atlas as load_atlas
    from xai_brain.attribution.methods.grad_cam import GradCAM as GradCAM
    from xai_brain.attribution.methods.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_brain.attribution.methods.meaningful_perturbation import (
        MeaningfulPerturbation as MeaningfulPerturbation,
    )
    from xai_brain.attribution.network_outputs import SegmentationTarget as SegmentationTarget
    from xai_brain.attribution.reference import Reference as Reference
    from xai_brain.config.compose import compose as compose
    from xai_brain.config.planted_effect import PlantedEffect as PlantedEffect
    from xai_brain.data.folds.splits import make_folds as make_folds
    from xai_brain.data.participants import load_participants as load_participants
    from xai_brain.data.preprocessing import preprocess_t1w as preprocess_t1w
    from xai_brain.models.module import BrainClassifier as BrainClassifier
    from xai_brain.models.networks.kan2020 import Kan2020 as Kan2020
    from xai_brain.parallel.verbosity import set_verbosity as set_verbosity
    from xai_brain.runs.directory import RunDirectory as RunDirectory
    from xai_brain.runs.provenance import versions as versions
    from xai_brain.stages.run import run as run
    from xai_brain.statistics.colour_scale import ColourScale as ColourScale
    from xai_brain.study.card import ReportCard as ReportCard
    from xai_brain.study.card import report_card as report_card
    from xai_brain.study.cohort import Cohort as Cohort
    from xai_brain.study.cohort import load_cohort as load_cohort
    from xai_brain.study.cross_validate import cross_validate as cross_validate
    from xai_brain.study.given.card import NetworkCard as NetworkCard
    from xai_brain.study.given.card import network_card as network_card
    from xai_brain.study.given.explain import explain as explain
    from xai_brain.study.maps.maps import Maps as Maps
    from xai_brain.study.maps.opening import open_maps as open_maps
    from xai_brain.study.maps.thresholded import ThresholdedMaps as ThresholdedMaps
    from xai_brain.study.regional.result import RegionalBenchmark as RegionalBenchmark
    from xai_brain.study.regional.result import regional_benchmark as regional_benchmark
    from xai_brain.study.study import Study as Study
    from xai_brain.study.study import open_study as open_study
    from xai_brain.viewer.slice_viewer import SliceViewer as SliceViewer

    __version__: str

_HOMES = {
    "BrainClassifier": "models.module",
    "Cohort": "study.cohort",
    "ColourScale": "statistics.colour_scale",
    "GradCAM": "attribution",
    "GuidedBackprop": "attribution",
    "Kan2020": "models.networks.kan2020",
    "Maps": "study.maps.maps",
    "ThresholdedMaps": "study.maps.thresholded",
    "MeaningfulPerturbation": "attribution",
    "NetworkCard": "study.given.card",
    "PlantedEffect": "config.planted_effect",
    "Reference": "attribution",
    "RegionalBenchmark": "study.regional.result",
    "ReportCard": "study.card",
    "RunDirectory": "runs.directory",
    "SliceViewer": "viewer.slice_viewer",
    "SegmentationTarget": "attribution.network_outputs",
    "Study": "study.study",
    "compose": "config.compose",
    "cross_validate": "study.cross_validate",
    "explain": "study.given.explain",
    "load_atlas": "atlas.atlas",
    "load_cohort": "study.cohort",
    "load_participants": "data.participants",
    "make_folds": "data.folds.splits",
    "network_card": "study.given.card",
    "open_maps": "study.maps.opening",
    "open_study": "study.study",
    "preprocess_t1w": "data.preprocessing",
    "regional_benchmark": "study.regional.result",
    "report_card": "study.card",
    "run": "stages.run",
    "set_verbosity": "parallel.verbosity",
    "versions": "runs.provenance",
}
__all__ = sorted(_HOMES)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("xai-brain")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
