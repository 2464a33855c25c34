"""Records of a comparison of classes: rows of the tables, sidecars, and agreement of tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.evaluation import EvaluationConfig, GroupConfig
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.comparison.group_overlap import group_agreement, group_overlap
from xai_brain.runs.contents import IMAGE
from xai_brain.statistics.group import BRAIN_SHARE, GroupTest
from xai_brain.statistics.group_design import Design
from xai_brain.study.participants import refuse_label_as_confound
from xai_brain.task.labels import is_label

COMPARISONS, SHARES = "desc-*-minus-*_statmap.*", "desc-*_mask-*_stat-share_statmap.*"  # files of group/
REGION_MEAN = "regionmean"  # statistic of comparisons of regions

MEANING = {
    True: "the prepared images of the classes differ at this voxel, given the confounds",
    False: "the attribution of these networks at this voxel differs between the classes, given the "
    "confounds; this does not imply that the brains differ",
}
Results = dict[tuple[str, str], GroupTest]  # by method and comparison


def chosen_confounds(config: Config, participants: pd.DataFrame) -> list[str]:
    """Confounds of the maps: those of the settings, or the available ones and the fold.

    Parameters
    ----------
    config : Config
    participants : pandas.DataFrame

    Returns
    -------
    list of str
        By default the columns among age, sex, brain size and site that have values, except that of the
        classes, and ``fold``, because maps of different folds come from different networks.

    Raises
    ------
    ConfigError
        There is no such column, or it is that of the classes.
    """
    refuse_label_as_confound(config)
    given = config.evaluation.group.confounds
    if given is None:
        names = ("age", "sex", config.data.brain_size_column, "site")
        there = [name for name in names if name and name in participants and participants[name].notna().any()]
        return [*(name for name in there if not is_label(name, config.data.label)), "fold"]
    if unknown := [name for name in given if name not in (*participants, "fold")]:
        raise ConfigError(
            f"evaluation.group.confounds: participants.tsv has no column {unknown[0]!r}; "
            f"there are {', '.join(participants)}"
        )
    return list(given)


def voxelwise_files(folder: Path) -> list[Path]:
    """Files of the voxel-wise comparisons in group/, without those of the regions."""
    return [path for path in folder.glob(COMPARISONS) if not is_region_map(path)]


def is_region_map(path: Path) -> bool:
    """Whether a file of group/ shows the comparison of the regions of an atlas."""
    return f"_stat-{REGION_MEAN}_" in path.name


def row_of(
    name: str, comparison: str, design: Design, test: GroupTest, n_empty: int, settings: GroupConfig
) -> dict[str, Any]:
    """Row of group_tests.tsv."""
    n = class_sizes(design)
    threshold = test.threshold(settings.alpha)
    return {
        "method": name,
        "comparison": comparison,
        "reason": "",
        "explains": "",
        "n_first": n[0],
        "n_second": n[1],
        "n_empty": n_empty,
        "n_left_out": len(design.left_out),
        "confounds": ", ".join(design.names),
        "dropped": "; ".join(f"{column}: {why}" for column, why in design.dropped.items()),
        "dof": design.dof,
        "n_voxels": len(test.t),
        "n_constant": test.n_constant,
        "n_perm": settings.n_perm,
        "alpha": settings.alpha,
        "min_cluster_voxels": settings.min_cluster_voxels,
        "threshold_t": threshold,
        "largest_t": float(np.abs(test.t).max()),
        "smallest_p": float(10 ** -test.logp_fwe.max()),
        "n_significant": int((np.abs(test.t) > threshold).sum()),
    }


def record_of(
    classes: Sequence[str], design: Design, test: GroupTest, n_empty: int, settings: GroupConfig
) -> dict[str, Any]:
    """Description of a test in the sidecar of its statistical map."""
    threshold = test.threshold(settings.alpha)
    return {
        "Difference": f"{classes[1]} minus {classes[0]}",
        "NumberOfSubjects": dict(zip(classes, class_sizes(design), strict=True)),
        "NumberOfEmptyMaps": n_empty,
        "LeftOut": design.left_out,
        "Confounds": design.names,
        "DroppedConfounds": design.dropped,
        "DegreesOfFreedom": design.dof,
        "Smoothing": f"{settings.fwhm_mm:g} mm FWHM inside the brain" if settings.fwhm_mm else "none",
        "Brain": f"voxels in at least {BRAIN_SHARE:.0%} of the participants' brains",
        "NumberOfVoxels": len(test.t),
        "NumberOfConstantVoxels": test.n_constant,
        "Test": "two-sided, permuted residuals (nilearn.mass_univariate.permuted_ols)",
        "NumberOfPermutations": settings.n_perm,
        "Correction": "family-wise over voxels, by the largest |t| of each permutation",
        "Alpha": settings.alpha,
        "ThresholdT": threshold if np.isfinite(threshold) else None,
        "ClusterFormingP": settings.cluster_p,
        "MinimumClusterVoxels": settings.min_cluster_voxels,
        "Exchangeability": "participants are permuted across folds and sites; differences in mean between "
        "these are confounds, differences in variance are not modelled; family members count as independent",
    }


def class_sizes(design: Design) -> list[int]:
    """Number of participants of the first and of the second class."""
    return [int((design.tested == k).sum()) for k in (0, 1)]


def agreements_of(results: Results, n_voxels: int, settings: EvaluationConfig) -> list[dict[str, Any]]:
    """Rows of group_agreement.tsv: agreement of the group maps of every pair of methods."""
    rows: list[dict[str, Any]] = []
    for comparison in dict.fromkeys(comparison for _, comparison in results):
        tests = {m: test for (m, c), test in results.items() if c == comparison and m != IMAGE}
        for what in ("t", "difference"):
            maps = {method: getattr(test, what) for method, test in tests.items()}
            found = group_agreement(maps, n_voxels, settings.top_percents, settings.random_state)
            rows += [{"comparison": comparison, "map": what, **row} for row in found]
    return rows


def overlaps_of(results: Results, random_state: int) -> list[dict[str, Any]]:
    """Rows of group_overlap.tsv: overlap of the group map of each method with the test of the images."""
    rows: list[dict[str, Any]] = []
    for (name, comparison), test in results.items():
        reference = results.get((IMAGE, comparison))
        if name == IMAGE or reference is None:
            continue
        for what in ("t", "difference"):
            about = {"method": name, "comparison": comparison, "map": what}
            found = group_overlap(getattr(test, what), reference.t, random_state)
            rows += [{**about, **row} for row in found]
    return rows


def overlap_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of the overlaps by their names in metrics.json."""
    return {
        f"group_overlap/{r['method']}/{r['comparison']}/{r['map']}/{r['metric']}": float(r["value"])
        for r in rows
        if r["metric"] in ("dice_auc", "spearman")
    }
