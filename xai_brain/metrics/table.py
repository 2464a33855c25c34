"""Table of the metrics of the report card. Functions, and with them torch, are imported when they are used.

The report card, the check of the settings, the figures, the report and the ranking of sweeps read names,
titles, directions, chance levels and requirements from this table. A new metric is one file with its function
and one row here.

A metric that requires ``"network"`` is a function of a context and the label of a method,
``function(context, label) -> {name: (value, chance)}``. The context
(`xai_brain.study.evaluation.context.EvaluationContext`) gives one network with the inputs, saved maps,
targets, brain masks and true voxels of its test participants. ``value`` and ``chance`` have the shape
``(n_participants,)`` or are one number. One function may return several metrics, which then have a row each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

ALL = "all"  # in the settings: every metric that is not optional
REQUIREMENTS = {  # requirements of metrics, and the message if they are not met
    "truth": "the true location is not known",
    "atlas": "evaluation.atlas is not set",
    "seeds": "at least two seeds are needed",
    "network": "maps of a single network are needed",
}
_LOCALIZATION = "xai_brain.metrics.localization.localization"
_TRUE_EFFECT = "xai_brain.metrics.true_effect.TrueEffect"
_SEEDS = "xai_brain.metrics.comparison.stability.reseed_stability"
_NETWORK = "xai_brain.study.evaluation.network_metrics"
_RANDOM_MAP = "expectation for a map of random values"
_TRUTH, _ATLAS, _NULL = ("truth",), ("truth", "atlas"), ("truth", "network")


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Parameters
    ----------
    name : str
        Name in settings and tables.
    title : str
        Title in reports.
    description : str
        What is measured, in one sentence without a full stop.
    direction : {"higher", "lower"} or None
        Which values are better; None for null levels.
    best : float
        Value of a perfect map.
    chance : str
        Origin of the chance level; empty if there is none.
    function : str
        Dotted name. Metrics of the same function are computed together.
    requirements : tuple of str
        Keys of `REQUIREMENTS`.
    participants : str
        Setting of ``evaluation.card`` with the number of participants; empty: all.
    unit : {"participant", "network"}, default "participant"
        Unit of a value. Values of a network are repeated for its participants.
    cost : {"low", "high"}, default "low"
        Localisation metrics of high cost are computed only if the report card requires them.
    neutral : float, optional
        Value that the figure shows in the neutral colour; default: the chance level.
    heading : str, default ""
        Column heading in the figure of the card, with line breaks; default: the title.
    decimals : int, default 2
        In that figure.
    in_figure : bool, default True
    optional : bool, default False
        Whether ``evaluation.card.metrics=[all]`` excludes the metric.
    """

    name: str
    title: str
    description: str
    direction: Literal["higher", "lower"] | None
    best: float
    chance: str
    function: str
    requirements: tuple[str, ...] = ("network",)
    participants: str = "n_removal"
    unit: Literal["participant", "network"] = "participant"
    cost: Literal["low", "high"] = "low"
    neutral: float | None = None
    heading: str = ""
    decimals: int = 2
    in_figure: bool = True
    optional: bool = False

    @property
    def needs_network(self) -> bool:
        return "network" in self.requirements

    @property
    def is_localization(self) -> bool:
        """Whether the metric only compares a map with the true location."""
        return "truth" in self.requirements and not self.needs_network

    def load_function(self) -> Callable[..., Any]:
        module, _, name = self.function.rpartition(".")
        return getattr(import_module(module), name)


def _localization(
    name: str, title: str, description: str, heading: str = "", cost: Literal["low", "high"] = "high",
    requirements: tuple[str, ...] = _TRUTH, direction: Literal["higher", "lower"] = "higher",
    optional: bool = False,
) -> Metric:  # fmt: skip
    best, function = float(direction == "higher"), _LOCALIZATION if cost == "low" else _TRUE_EFFECT
    return Metric(
        name, title, description, direction, best, _RANDOM_MAP, function, requirements, "", cost=cost,
        heading=heading, optional=optional,
    )  # fmt: skip


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _localization("rra", "Relevance rank accuracy", "share of the N highest voxels that are true, where "
                      "N is the number of true voxels", "rank\ninside", "low"),
        _localization("rma", "Relevance mass accuracy", "share of the map's sum that lies in the true "
                      "location", "mass\ninside", "low"),
        _localization("pointing", "Pointing game", "whether the highest voxel is true",
                      "peak\ninside", "low"),
        _localization("auprc", "AUPRC", "area under the precision-recall curve of the true voxels"),
        _localization("emd", "Nearness", "1 minus the earth mover's distance of the map from the true "
                      "location, relative to the largest possible one", "near-\nness"),
        _localization("region_hit", "Region hit", "whether the atlas region with the highest mean is the "
                      "planted one", "region\nhit", requirements=_ATLAS),
        _localization("pointing_near", "Pointing game with tolerance", "whether the highest voxel is at most "
                      "6 mm away from a true one", optional=True),
        _localization("region_hit_top3", "Region among the top 3", "whether the planted atlas region is one "
                      "of the three regions with the highest means", requirements=_ATLAS, optional=True),
        _localization("false_positive", "False positive", "whether a voxel far from the true location is "
                      "higher than 99 % of the voxels in it", direction="lower", optional=True),
        Metric("permutation_null", "Permutation null", "relevance rank accuracy of the maps of a "
               "network that was trained on permuted labels: the null level of the method", None,
               float("nan"), _RANDOM_MAP,
               f"{_NETWORK}.label_randomization_scores", _NULL, "n_sanity",
               in_figure=False),
        Metric("deletion", "Deletion", "mean probability of the class while the highest voxels are removed",
               "lower", 0.0, "removal in random order", f"{_NETWORK}.deletion_insertion_scores",
               ("network",), heading="dele-\ntion"),
        Metric("insertion", "Insertion", "mean probability of the class while only the highest voxels are "
               "shown", "higher", 1.0, "insertion in random order", f"{_NETWORK}.deletion_insertion_scores",
               ("network",), heading="inser-\ntion"),
        Metric("infidelity", "Infidelity", "error of the change of the score that the map predicts for the "
               "removal of a block", "lower", 0.0, "a map of random values",
               f"{_NETWORK}.infidelity_scores", ("network",), heading="infi-\ndelity"),
        Metric("completeness", "Completeness", "difference between the sum of the map and the change of the "
               "output when the whole image is replaced, relative to the sum of both", "lower", 0.0,
               "1, a map whose sum is 0", f"{_NETWORK}.completeness_scores", ("network",),
               heading="comple-\nteness", optional=True),
        Metric("parameter_randomization", "Parameter randomisation", "similarity (Spearman) to the map of "
               "the network with random weights", "lower", 0.0, "0, no similarity",
               f"{_NETWORK}.parameter_randomization_scores", ("network",), "n_sanity", neutral=0.5,
               heading="random\nweights"),
        Metric("label_randomization", "Label randomisation", "similarity (Spearman) to the map of a network "
               "that was trained on permuted labels", "lower", 0.0, "0, no similarity",
               f"{_NETWORK}.label_randomization_scores", ("network",), "n_sanity", neutral=0.5,
               heading="permuted\nlabels"),
        Metric("reseed_stability", "Stability over seeds", "similarity (Spearman) between the maps of "
               "networks trained with different seeds", "higher", 1.0, "0, no similarity", _SEEDS,
               ("seeds",), "", heading="other\nseeds"),
        Metric("noise_stability", "Stability under noise", "similarity (Spearman) to the maps of slightly "
               "noisy images", "higher", 1.0, "0, no similarity", f"{_NETWORK}.noise_stability_scores",
               ("network",), "n_noise", heading="noise"),
        Metric("max_sensitivity", "Maximum sensitivity", "largest relative change of the map under small "
               "noise", "lower", 0.0, "two unrelated maps", f"{_NETWORK}.max_sensitivity_scores",
               ("network",), "n_noise", heading="sensi-\ntivity"),
        Metric("seconds", "Seconds", "computing time per participant in seconds", "lower", 0.0, "",
               f"{_NETWORK}.cost_scores", ("network",), "n_cost", "network", heading="s"),
        Metric("peak_mb", "Memory", "peak memory in MB", "lower", 0.0, "", f"{_NETWORK}.cost_scores",
               ("network",), "n_cost", "network", heading="MB", decimals=0),
    )
}  # fmt: skip


def select_metrics(names: Iterable[str]) -> list[str]:
    """Names of the metrics that ``evaluation.card.metrics`` selects, in the order of the table.

    Parameters
    ----------
    names : iterable of str
        Names of the table, or ``"all"`` for all metrics that are not optional.

    Raises
    ------
    KeyError
        There is no metric of this name.

    Examples
    --------
    >>> select_metrics(["deletion", "rra"])
    ['rra', 'deletion']
    """
    chosen = set(names)
    if unknown := sorted(chosen - set(METRICS) - {ALL}):
        raise KeyError(f"there is no metric {unknown[0]!r}; there are {', '.join((ALL, *METRICS))}")
    return [
        name for name, metric in METRICS.items() if name in chosen or (ALL in chosen and not metric.optional)
    ]


def missing_requirements(names: Iterable[str], computed: Iterable[str] = ()) -> str:
    """Reasons why metrics have no values.

    Parameters
    ----------
    names : iterable of str
        Metrics without values.
    computed : iterable of str
        Metrics with values, whose requirements are met.
    """
    met = {need for name in computed for need in METRICS[name].requirements}
    needed = dict.fromkeys(need for name in names for need in METRICS[name].requirements)
    return "; ".join(REQUIREMENTS[need] for need in needed if need not in met)
