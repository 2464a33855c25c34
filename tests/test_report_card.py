"""The report card: values over participants, verdicts that follow from them, and a small run."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from hydra.utils import instantiate

from xai_brain import RunDirectory, compose, run
from xai_brain.attribution import ClassScore
from xai_brain.config.checks import read_config
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.metrics.report_card import COLUMNS, report_card, verdicts
from xai_brain.metrics.table import METRICS, REQUIREMENTS, Metric, missing_requirements, select_metrics
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.reporting.figures.card import card_figure, goodness
from xai_brain.runs.directory import read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.report import report
from xai_brain.study.evaluation.metrics import choose_subjects


def test_settings_accept_the_names_of_the_table_only():
    names = ",".join(METRICS)
    cfg = compose("run", ["data=synthetic", f"evaluation.card.metrics=[{names}]"])
    assert select_metrics(cfg.evaluation.card.metrics) == list(METRICS)
    with pytest.raises(
        ConfigError, match=r"evaluation\.card\.metrics: there is no metric 'rar'; .* rra, rma"
    ):
        compose("run", ["data=synthetic", "evaluation.card.metrics=[rar]"])
    with pytest.raises(ConfigError, match="one of zero, blur, training_mean"):
        compose("run", ["data=synthetic", "evaluation.card.removal=mean"])
    with pytest.raises(ConfigError, match="at least 1"):
        compose("run", ["data=synthetic", "evaluation.card.n_steps=0"])


def test_the_table_is_complete_and_consistent():
    settings = compose("run", ["data=synthetic"]).evaluation.card
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.title
        assert not metric.description.endswith(".")
        assert set(metric.requirements) <= set(REQUIREMENTS)
        assert callable(metric.load_function()), name
        assert metric.needs_network + metric.is_localization + ("seeds" in metric.requirements) == 1
        assert not metric.participants or settings[metric.participants] >= 1
        assert np.isfinite(metric.best) or metric.direction is None
    optional = {"pointing_near", "region_hit_top3", "false_positive", "completeness"}
    assert set(METRICS) - set(select_metrics(["all"])) == optional
    both = "the true location is not known; evaluation.atlas is not set"
    assert missing_requirements(["region_hit", "rra"]) == both
    assert missing_requirements(["region_hit"], computed=["rra"]) == "evaluation.atlas is not set"


def test_the_table_needs_no_torch():
    code = "import sys, xai_brain.metrics.table; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def rows_of(method, kind="method", n=12, chance=0.05, **means):
    """Rows of n participants around the given means, spread by 0.02."""
    spread = np.linspace(-0.02, 0.02, n)
    return [
        {
            "method": method,
            "kind": kind,
            "metric": metric,
            "participant_id": f"sub-{i}",
            "value": mean + spread[i],
            "chance": chance,
        }
        for metric, mean in means.items()
        for i in range(n)
    ]


def verdicts_of(*rows) -> dict[str, object]:
    card = report_card(pd.DataFrame([row for part in rows for row in part]))
    return {verdict.method: verdict for verdict in verdicts(card)}


def test_sessions_and_seeds_of_a_subject_count_once():
    rows = [
        {
            "method": "A",
            "kind": "method",
            "metric": "rra",
            "participant_id": who,
            "value": value,
            "chance": 0.1,
        }
        for who, value in [("sub-1", 0.0), ("sub-1", 0.2), ("sub-1", 0.4), ("sub-2", 0.6)]
    ]
    card = report_card(pd.DataFrame(rows)).iloc[0]
    assert card["value"] == pytest.approx(0.4)  # mean of 0.2 and 0.6
    assert card["n_subjects"] == 2
    assert card["ci_low"] == pytest.approx(0.2)
    assert card["ci_high"] == pytest.approx(0.6)


def test_verdicts_follow_from_the_values():
    blind = rows_of("RandomMap", "baseline", rra=0.05) + rows_of("Edges", "baseline", rra=0.2)
    t_map = rows_of("TMap", "baseline", rra=0.9)
    good = rows_of("Good", rra=0.6, parameter_randomization=0.05, deletion=0.02, label_randomization=0.0)
    fixed = rows_of("Fixed", rra=0.6, parameter_randomization=0.97)
    blinded = rows_of("Blind", rra=0.05, parameter_randomization=0.05)
    like_edges = rows_of("LikeEdges", rra=0.2, parameter_randomization=0.05)
    lucky = rows_of("Lucky", rra=0.4, permutation_null=0.4, parameter_randomization=0.0)
    found = verdicts_of(blind, t_map, good, fixed, blinded, like_edges, lucky)
    assert found["Good"].believe == "yes"
    assert found["Good"].sentences[0].startswith("Finds the planted effect (relevance rank accuracy 0.60")
    assert "better than every baseline" in " ".join(found["Good"].sentences)
    assert "training images localises the effect better (0.90)" in " ".join(found["Good"].sentences)
    assert "probability of the class falls faster" in " ".join(found["Good"].sentences)
    assert found["Fixed"].believe == "no"
    assert "not an explanation of this network" in " ".join(found["Fixed"].sentences)
    assert found["Blind"].believe == "no"
    assert "not find the planted effect better than chance" in " ".join(found["Blind"].sentences)
    assert found["LikeEdges"].believe == "with care"
    assert "not better than Edges" in " ".join(found["LikeEdges"].sentences)
    assert found["Lucky"].believe == "no"  # no better than after learning nothing
    assert "trained on permuted labels" in " ".join(found["Lucky"].sentences)
    assert found["TMap"].believe == "not rated"
    assert list(found)[-1] in ("RandomMap", "Edges", "TMap")  # baselines last


def test_a_place_that_is_found_among_much_else_is_read_with_care():
    blind, t_map = rows_of("RandomMap", "baseline", rra=0.05), rows_of("TMap", "baseline", rra=0.6)
    found = verdicts_of(blind, t_map, rows_of("Scattered", rra=0.2, parameter_randomization=0.0))["Scattered"]
    assert found.believe == "with care"
    assert (
        "80% of its highest voxels are outside the effect (40% for a t-map of the training images)"
        in found.sentences[1]
    )


def test_an_interval_that_touches_chance_is_no_finding():
    wide = [
        {**row, "value": value} for row, value in zip(rows_of("Wide", rra=0), [0.0, 0.4] * 6, strict=True)
    ]
    sure = rows_of("Sure", rra=0.2)
    found = verdicts_of(wide, sure, rows_of("RandomMap", "baseline", rra=0.05))
    assert report_card(pd.DataFrame(wide))["value"].item() == pytest.approx(0.2)
    assert "Is above chance at the planted effect (relevance rank accuracy 0.20" in found["Sure"].sentences[0]
    high_chance = [{**row, "chance": 0.15} for row in wide]
    assert "Does not find" in verdicts_of(high_chance)["Wide"].sentences[0]


@pytest.mark.parametrize(
    ("metric", "value", "chance", "expected"),
    [
        ("rra", 1.0, 0.1, 1.0),
        ("rra", 0.1, 0.1, 0.0),
        ("deletion", 0.0, 0.4, 1.0),
        ("deletion", 0.4, 0.4, 0.0),
        ("parameter_randomization", 1.0, 0.0, -1.0),
        ("parameter_randomization", 0.0, 0.0, 1.0),
        ("seconds", 3.0, np.nan, np.nan),
    ],
)
def test_colour_is_the_distance_from_chance_to_the_best_value(metric, value, chance, expected):
    np.testing.assert_allclose(goodness(metric, value, chance), expected)


def test_subjects_are_taken_in_turns_of_class_and_fold():
    maps = pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(8)] * 2,
            "session_id": "",
            "seed": [0] * 8 + [1] * 8,
            "fold": [0, 0, 0, 0, 1, 1, 1, 1] * 2,
            "label": ["a", "a", "a", "b", "a", "b", "b", "b"] * 2,
            "method": "M",
        }
    )
    chosen = choose_subjects(maps, 4)
    assert set(chosen["seed"]) == {0}
    assert sorted(zip(chosen["fold"], chosen["label"], strict=True)) == [
        (0, "a"),
        (0, "b"),
        (1, "a"),
        (1, "b"),
    ]
    assert choose_subjects(maps, 2)["participant_id"].tolist() == chosen["participant_id"].tolist()[:2]


CARD = [
    "experiment=report_card",
    *(text for text in SMALL if not text.startswith(("experiment", "attribution", "folds"))),
    "data.cohort.seed=2020",
    "attribution=[saliency,guided_backprop,intensity,t_map]",
    "seeds=[0,1]",
    "evaluation.card.n_removal=4",
    "evaluation.card.n_sanity=4",
    "evaluation.card.n_noise=2",
    "evaluation.card.n_steps=4",
    "evaluation.card.n_blocks=8",
]


@pytest.fixture(scope="module")
def carded(tmp_path_factory) -> RunDirectory:
    return run(compose("run", [*CARD, f"run_dir={tmp_path_factory.mktemp('card') / 'run'}"]))


@pytest.mark.slow
def test_every_metric_is_computed_for_every_method(carded):
    card = read_tsv(carded.evaluation("report_card"))
    assert list(card) == COLUMNS
    methods = {"Saliency", "GuidedBackprop", "Intensity", "TMap"}
    assert set(card["metric"]) == set(select_metrics(["all"])) - {"region_hit"}  # no atlas
    for metric, rows in card.groupby("metric"):
        assert set(rows["method"]) == methods, metric
        assert set(rows["title"]) == {METRICS[metric].title}
    assert dict(zip(card["method"], card["kind"], strict=True)) == {
        "Saliency": "method", "GuidedBackprop": "method", "Intensity": "baseline", "TMap": "baseline"
    }  # fmt: skip
    cells = card.set_index(["method", "metric"])
    assert cells.loc[("Intensity", "parameter_randomization"), "value"] == pytest.approx(
        1
    )  # does not use the network
    assert cells.loc[("Intensity", "reseed_stability"), "value"] == pytest.approx(1)
    assert cells.loc[("Saliency", "parameter_randomization"), "value"] < 0.9
    assert cells.loc[("Saliency", "deletion"), "n_subjects"] == 4
    assert (
        cells.loc[("Saliency", "rra"), "n_subjects"]
        == read_tsv(carded.predictions)["participant_id"].nunique()
    )
    page = carded.report.read_text()
    assert "which map to believe" in page
    assert "Similarity while weights are randomised" in page


def mean_inside(context, label):
    """A toy metric: mean absolute value of the map in the brain, and half of it as chance level."""
    maps, _ = context.saved(label)
    brains = context.brains()
    values = np.array([np.abs(a[0].numpy()[brain]).mean() for a, brain in zip(maps, brains, strict=True)])
    return {"mean_inside": (values, values / 2)}


@pytest.mark.slow
def test_a_new_metric_is_one_function_and_one_row(carded, tmp_path, monkeypatch):
    shutil.copytree(carded.path, tmp_path / "run")
    copy = RunDirectory(tmp_path / "run")
    row = Metric(
        "mean_inside", "Mean inside the brain", "mean absolute value in the brain", "higher", 1.0,
        "half of the value", f"{__name__}.mean_inside", participants="n_noise",
    )  # fmt: skip
    before = verdicts(read_tsv(copy.evaluation("report_card")))
    monkeypatch.setitem(METRICS, row.name, row)
    evaluate(stage_settings("evaluate", [f"run_dir={copy.path}"]))  # the settings ask for all metrics
    card = read_tsv(copy.evaluation("report_card"))
    rows = card[card["metric"] == "mean_inside"]
    assert set(rows["method"]) == {"Saliency", "GuidedBackprop", "Intensity", "TMap"}
    assert set(rows["title"]) == {"Mean inside the brain"}
    assert set(rows["n_subjects"]) == {2}
    np.testing.assert_allclose(rows["chance"], rows["value"] / 2)
    assert verdicts(card) == before
    headings = [text.get_text() for text in card_figure(card, before).axes[0].get_xticklabels()]
    assert headings[-1] == "Mean inside the brain"
    report(stage_settings("report", [f"run_dir={copy.path}"]))
    described = "mean absolute value in the brain; higher is better; chance: half of the value"
    assert described in copy.report.read_text()


@pytest.mark.slow
def test_existing_values_are_not_computed_again(carded, tmp_path):
    shutil.copytree(carded.path, tmp_path / "run")
    copy = RunDirectory(tmp_path / "run")
    files = sorted((copy.path / "evaluation" / "metrics").glob("*.tsv"))
    before = {path: path.stat().st_mtime_ns for path in files}
    metrics = ["rra", "deletion", "parameter_randomization"]
    cfg = stage_settings(
        "evaluate", [f"run_dir={copy.path}", f"evaluation.card.metrics=[{','.join(metrics)}]"]
    )
    evaluate(cfg)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert set(read_tsv(copy.evaluation("report_card"))["metric"]) == set(metrics)
    evaluate(stage_settings("evaluate", [f"run_dir={copy.path}", "evaluation.card.n_steps=5"]))
    changed = [path for path in files if path.stat().st_mtime_ns != before[path]]
    assert changed


@pytest.mark.slow
def test_a_real_run_shows_the_card_of_planted_effects(carded, small_run, tmp_path):
    shutil.copytree(small_run.path, tmp_path / "real")
    real = RunDirectory(tmp_path / "real")
    calibrated = [f"run_dir={real.path}", f"evaluation.calibration={carded.path}"]
    evaluate(stage_settings("evaluate", calibrated))
    report(stage_settings("report", [f"run_dir={real.path}"]))
    page = real.report.read_text()
    assert "How far maps can be trusted here" in page
    assert "On a planted effect in this cohort" in page
    shutil.copy(carded.evaluation("report_card"), real.evaluation("report_card"))
    shutil.copytree(small_run.path, tmp_path / "other")
    other = [f"run_dir={tmp_path / 'other'}", f"evaluation.calibration={real.path}"]
    settings = (tmp_path / "other" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="no effect was planted there"):
        evaluate(stage_settings("evaluate", other))
    assert (tmp_path / "other" / "config.yaml").read_bytes() == settings  # a refused value is not kept
    evaluate(stage_settings("evaluate", other[:1]))
    with pytest.raises(ConfigError, match="has no report card"):
        evaluate(stage_settings("evaluate", [f"run_dir={real.path}", "evaluation.calibration=nowhere"]))


@pytest.mark.slow
def test_methods_for_attention_explain_the_transformer_of_its_experiment():
    pytest.importorskip("monai")
    cfg = read_config(compose("run", ["experiment=report_card_transformer"]))
    shape = get_grid(cfg.preprocessing.grid).shape
    network = CalibratedNetwork(cfg.model, ["without", "with"], list(shape), task=cfg.task).eval()
    volumes = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    for label in ("AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP"):
        found = instantiate(cfg.attribution[label])(ClassScore(network, "logit")).attribute(volumes, 1)
        assert found.shape == volumes.shape
        assert bool(found.isfinite().all())
        assert bool(found.any())
