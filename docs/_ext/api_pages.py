"""Pages of the Python interface: which public names there are, in which order, and the page of each."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import xai_brain
import xai_brain.attribution

GROUPS: dict[str, tuple[str, ...]] = {
    "Cohorts and studies": (
        "load_cohort", "Cohort", "cross_validate", "open_study", "Study", "report_card", "ReportCard",
        "PlantedEffect", "regional_benchmark", "RegionalBenchmark",
    ),
    "Maps": ("open_maps", "Maps", "ThresholdedMaps", "SliceViewer", "ColourScale", "load_atlas"),
    "Networks that were trained elsewhere": (
        "explain", "network_card", "NetworkCard", "SegmentationTarget", "Reference",
    ),
    "Methods and networks": (
        "GradCAM", "GuidedBackprop", "MeaningfulPerturbation", "Kan2020", "BrainClassifier",
    ),
    "Settings and runs": ("compose", "run", "RunDirectory", "set_verbosity", "versions"),
    "Participants and images": ("load_participants", "make_folds", "preprocess_t1w"),
}  # fmt: skip

# parts of the package that the notebooks use, below xai_brain
BUILDING_BLOCKS = (
    "attribution.ClassScore", "attribution.preserved", "config.compose.conf_dir",
    "data.datamodule.BrainDataModule", "data.folds.splits.split_fold",
    "data.layouts.synthetic.SyntheticSettings", "data.layouts.synthetic.make_synthetic_cohort",
    "data.preprocessing.PreprocessingConfig", "data.spaces.space_check.check_mni152",
    "io.nifti.ImageError", "io.problems.DataError", "metrics.localization.localization",
    "metrics.ranking.ranking", "metrics.sanity.parameter_randomization", "models.fitting.History",
    "models.fitting.quiet_lightning", "statistics.bootstrap.bootstrap_mean", "statistics.group.smooth",
    "statistics.group.voxelwise_test", "statistics.group_design.make_design",
    "statistics.map_rows.MapRows", "statistics.sweeps.read_sweep",
)  # fmt: skip


def find(name: str) -> Any:
    """Object of a dotted name below ``xai_brain``."""
    home, _, last = f"xai_brain.{name}".rpartition(".")
    return getattr(import_module(home), last)


def first_line(obj: Any) -> str:
    """Purpose of an object, which is the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(obj) or "").partition("\n\n")[0].split())


def entry_pages() -> dict[str, str]:
    """File name below ``reference/api`` and reStructuredText of every page."""
    return {f"{name}.rst": _page(name) for names in (*GROUPS.values(), BUILDING_BLOCKS) for name in names}


def overview() -> str:
    """Markdown of the page that lists the names of ``xai_brain``, with the order of the pages."""
    groups = {**GROUPS, "Building blocks of the notebooks": BUILDING_BLOCKS}
    parts = [f"## {title}\n\n{_table(names)}\n\n{_contents(names)}" for title, names in groups.items()]
    return "\n\n".join(parts)


def _table(names: tuple[str, ...]) -> str:
    rows = [f"| [`{name}`](api/{name}.rst) | {first_line(find(name))} |" for name in names]
    return "\n".join(["| name | purpose |", "|---|---|", *rows])


def _contents(names: tuple[str, ...]) -> str:
    files = "\n".join(f"api/{name}" for name in names)
    return f"```{{toctree}}\n:hidden:\n\n{files}\n```"


def _page(name: str) -> str:
    title = name if name not in xai_brain.__all__ else f"xai_brain.{name}"
    head = f"{title}\n{'=' * len(title)}\n\n"
    if not inspect.isclass(find(name)):
        return f"{head}.. autofunction:: xai_brain.{name}\n"
    return f"{head}.. autoclass:: xai_brain.{name}\n   :members:\n   :inherited-members:\n"
