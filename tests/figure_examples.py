"""All charts of the report and of sweeps, drawn from tables with any number of methods, classes and seeds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from xai_brain import attribution
from xai_brain.metrics.comparison.method_clusters import cluster_methods
from xai_brain.metrics.report_card import Verdict
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.figures import (
    card,
    clusters,
    comparison,
    first_layer,
    masks,
    regions,
    scores,
    sweeps,
    verdict,
)
from xai_brain.reporting.figures.style import class_colours, method_styles
from xai_brain.reporting.values import Estimate

ALL = [name for name in attribution.__all__ if hasattr(getattr(attribution, name, None), "info")]
METHODS = {
    2: ALL[:2],
    3: ALL[:3],
    14: [*ALL[:12], "CounterfactualPerturbationWithAnAtlas", "method of my own, version 2"],
}
CLASSES = {2: ["female", "male"], 3: ["Alzheimer's disease, late", "mild cognitive impairment", "control"]}
REGIONS = ["Left parahippocampal gyrus, posterior division (PHG)", "Precuneus", "III ventricle"]
RNG = np.random.default_rng(0)


def estimates(names, chance=0.1):
    return [
        {
            "name": name,
            "value": 0.1 + 0.05 * i,
            "low": 0.05 + 0.04 * i,
            "high": 0.2 + 0.05 * i,
            "chance": chance,
        }
        for i, name in enumerate(names)
    ]


def predictions(classes, n=60, seeds=(0,)):
    rows = []
    for seed in seeds:
        prob = RNG.dirichlet(np.ones(len(classes)), n)
        table = pd.DataFrame(prob, columns=[f"prob_{name}" for name in classes])
        about = {"seed": seed, "fold": np.arange(n) % 5, "target": np.arange(n) % len(classes)}
        rows.append(table.assign(participant_id=[f"sub-{i}" for i in range(n)], **about))
    return pd.concat(rows, ignore_index=True)


def performance(methods, classes, seeds, narrow=False):
    return scores.performance_figure(
        predictions(classes, seeds=range(seeds)), classes, "AUROC, pooled: 0.612", narrow=narrow
    )


def probabilities(methods, classes, seeds, narrow=False):
    return scores.probability_figure(predictions(classes, seeds=range(seeds)), classes, narrow=narrow)


def cohort(methods, classes, seeds, narrow=False):
    n = 40
    values = {"age": (20, 80), "icv": (1100, 1700), "education": (8, 20)}
    table = pd.DataFrame({name: RNG.uniform(*limits, n) for name, limits in values.items()})
    table["label"] = [classes[i % len(classes)] for i in range(n)]
    labels = {"age": "age (years)", "icv": "estimated_total_intracranial_volume", "education": "education"}
    return scores.cohort_figure(table, labels, classes, narrow=narrow)


def training(methods, classes, seeds, narrow=False):
    rows = [
        {"run": f"seed-{seed}_fold-{fold}", "epoch": epoch, "metric": metric, "value": RNG.uniform(0.4, 1)}
        for seed in range(seeds) for fold in range(5) for epoch in range(30)
        for metric in ("train/loss", "val/loss", "val/balanced_accuracy", "val/auroc")
    ]  # fmt: skip
    return scores.training_figure(pd.DataFrame(rows), len(classes), narrow=narrow)


def pairs_of(methods):
    return pd.DataFrame(
        {"method_a": a, "method_b": b, "top_percent": percent, "mean": percent / 100 + 0.1,
         "ci_low": percent / 100, "ci_high": percent / 100 + 0.2}
        for a, b in combinations(methods, 2) for percent in (1, 2, 5, 10, 20, 50)
    )  # fmt: skip


def dice(methods, classes, seeds, narrow=False):
    return comparison.dice_figure(pairs_of(methods), methods, narrow=narrow)


def overlap(methods, classes, seeds, narrow=False):
    percents = np.arange(1, 51)
    lines = {name: (percents, percents / 100 + 0.01 * i) for i, name in enumerate(methods)}
    return comparison.curve_figure(lines, method_styles(methods), narrow=narrow)


def localization(methods, classes, seeds, narrow=False):
    titles = ("Relevance rank", "Relevance mass", "Pointing game")
    panels = {title: estimates(methods) for title in titles}
    return comparison.interval_figure(panels, method_styles(methods), narrow=narrow)


def baselines(methods, classes, seeds, narrow=False):
    titles = ("AUROC, mean over folds", "Balanced accuracy", "AUROC, matched for brain size")
    names = ["network", "PCA, logistic regression", "2-D network, slabs of 3, mean of seeds"][: len(methods)]
    return comparison.interval_figure({title: estimates(names) for title in titles}, {}, narrow=narrow)


def first_screen(methods, classes, seeds, narrow=False):
    rows = {
        row["name"]: Estimate(**{k: v for k, v in row.items() if k != "name"})
        for row in estimates(methods[:6])
    }
    network = {"AUROC (mean over folds)": Estimate(0.8, 0.7, 0.9, 0.5), "brain size only": Estimate(0.6)}
    panels = {"Network against chance": network, "Relevance rank accuracy": rows, "Rank correlation ρ": rows}
    return verdict.verdict_figure(panels, method_styles(methods), {}, narrow=narrow)


def clusters_of_methods(methods, classes, seeds, narrow=False):
    rows = [
        {"level": "subject", "name": f"sub-{i}", "session_id": "", "seed": 0, "method_a": a, "method_b": b,
         "metric": "spearman", "value": RNG.uniform(-0.6, 0.9)}
        for a, b in combinations(methods, 2) for i in range(4)
    ]  # fmt: skip
    merges, _ = cluster_methods(pd.DataFrame(rows), 5)
    similarity = pd.DataFrame(RNG.uniform(-0.99, -0.5, (len(methods),) * 2), methods, methods)
    return clusters.cluster_figure(merges, similarity, narrow=narrow)


def report_card(methods, classes, seeds):
    rows = [
        {"method": method, "metric": name, "value": -0.25, "chance": 0.1}
        for method in methods
        for name in METRICS
    ]
    rated = [Verdict(name, "baseline" if i > 8 else "method", [], "yes") for i, name in enumerate(methods)]
    return card.card_figure(pd.DataFrame(rows), rated)


def random_weights(methods, classes, seeds, narrow=False):
    rows = [
        {"method": method, "step": step, "layer": f"network.block{step}.conv.weight", "spearman": 0.9 / step}
        for method in methods for step in range(1, 9)
    ]  # fmt: skip
    return card.cascade_figure(pd.DataFrame(rows), method_styles(methods), narrow=narrow)


def top_regions(methods, classes, seeds, narrow=False):
    rows = [
        {"method": method, "class": name, "rank": rank, "region": REGIONS[rank % 3], "mean": -1e-6 * rank,
         "ci_low": -2e-6 * rank, "ci_high": 1e-6}
        for method in methods for name in classes for rank in range(1, 6)
    ]  # fmt: skip
    return regions.top_regions_figure(pd.DataFrame(rows), methods, class_colours(classes), narrow=narrow)


def channels(methods, classes, seeds, narrow=False):
    rows = [
        {"feature": feature, "channel": i, "mean_a": 1.0, "mean_b": 1.2, "d": 0.3 * (-1) ** i, "q": 0.01 * i,
         "q_adjusted": 0.02 * i}
        for feature in first_layer.TITLES for i in range(32)
    ]  # fmt: skip
    pair = dict(list(class_colours(classes).items())[-2:])
    return first_layer.first_layer_figure(pd.DataFrame(rows), pair, narrow=narrow)


def masked(methods, classes, seeds, narrow=False):
    about = {"metric": "balanced_accuracy", "chance": 0.5, "ci_low": 0.6, "ci_high": 0.8}
    rows = [{**about, "control": "none", "value": 0.9}]
    for method, area, kept in [(m, a, k) for m in methods for a in (5, 10, 20) for k in masks.SIDES]:
        here = {**about, "method": method, "area_percent": area, "kept": kept, "value": 0.5 + area / 100}
        rows += [{**here, "control": control, "mask": "joint"} for control in ("map", "random", "regions")]
        rows += [{**here, "control": "map", "mask": name} for name in classes]
    return masks.mask_figure(pd.DataFrame(rows), methods, classes, narrow=narrow)


UNITS = ("Cohen's d", "atrophy, % of volume")
PLACES = ["Left hippocampus", "(12, −40, 8) mm", "Right middle frontal gyrus"]


def detection(methods):
    methods = [*methods[:-1], "MeanDifference"]  # the longest name of a baseline
    kinds = {"(the network)": "network"} | dict.fromkeys(methods, "method") | {methods[-1]: "baseline"}
    rows = [
        {"method": method, "kind": kind, "place": place, "unit": unit, "size": size, "value": 0.6,
         "ci_low": 0.5, "ci_high": 0.7, "null": 0.1, "blind": 0.2, "found": size > 2}
        for method, kind in kinds.items() for place in PLACES for unit in UNITS
        for size in (0.5, 1.0, 2.0, 5.0, 12.5)
    ]  # fmt: skip
    curve = pd.DataFrame(rows)
    smallest = curve.drop_duplicates(["method", "place", "unit"]).assign(smallest=2.0)
    smallest.loc[smallest["place"] == PLACES[1], "smallest"] = np.nan
    return curve, smallest


def detection_curves(methods, classes, seeds):
    return sweeps.curves_figure(*detection(methods))


def smallest_effects(methods, classes, seeds):
    return sweeps.smallest_figure(*detection(methods))


def ranking(methods, classes, seeds):
    rows = [
        {"metric": "test/balanced_accuracy", "rank": i, "model.learning_rate": 1e-4 * i,
         "model": "resnet18_pretrained", "augmentation": "intensity_and_flips", "value": 0.7, "ci_low": 0.6,
         "ci_high": 0.8, "n_jobs": 12, "n_planned": 12}
        for i in range(30)
    ]  # fmt: skip
    return sweeps.ranking_figure(pd.DataFrame(rows))


NARROW = (
    performance, probabilities, cohort, training, dice, overlap, localization, baselines, first_screen,
    clusters_of_methods, random_weights, top_regions, channels, masked,
)  # fmt: skip
CHARTS = (*NARROW, report_card, detection_curves, smallest_effects, ranking)
