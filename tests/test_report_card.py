"""The report card: figures over subjects, words that follow from them, and a whole small run."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

from xai_brain import RunDirectory, compose, evaluate, report, run
from xai_brain.config import schema as config_types
from xai_brain.config.compose import ConfigError
from xai_brain.metrics.report_card import JUDGES, report_card, verdicts
from xai_brain.reporting.figures.card import goodness
from xai_brain.runs.directory import read_tsv
from xai_brain.study.evaluation.metrics import choose_subjects
from xai_brain.study.settings import stage_settings
from xai_brain.study.training.permuted import permute_labels


def test_the_settings_know_all_judges_and_refuse_others():
    assert set(config_types.JUDGES) == set(JUDGES)
    with pytest.raises(ConfigError, match="there is no 'rar'"):
        compose("run", ["data=synthetic", "evaluation.card.judges=[rar]"])
    with pytest.raises(ConfigError, match="one of zero, blur, training_mean"):
        compose("run", ["data=synthetic", "evaluation.card.removal=mean"])
    with pytest.raises(ConfigError, match="at least 1"):
        compose("run", ["data=synthetic", "evaluation.card.n_steps=0"])


def rows_of(method, kind="method", n=12, chance=0.05, **judges):
    """Rows of n subjects around the given means, spread by 0.02."""
    spread = np.linspace(-0.02, 0.02, n)
    return [
        {
            "method": method,
            "kind": kind,
            "judge": judge,
            "participant_id": f"sub-{i}",
            "value": mean + spread[i],
            "chance": chance,
        }
        for judge, mean in judges.items()
        for i in range(n)
    ]


def told(*rows) -> dict[str, object]:
    card = report_card(pd.DataFrame([row for part in rows for row in part]))
    return {verdict.method: verdict for verdict in verdicts(card)}


def test_sessions_and_seeds_of_a_subject_count_once():
    rows = [
        {
            "method": "A",
            "kind": "method",
            "judge": "rra",
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


def test_the_words_follow_from_the_figures():
    blind = rows_of("RandomMap", "baseline", rra=0.05) + rows_of("Edges", "baseline", rra=0.2)
    t_map = rows_of("TMap", "baseline", rra=0.9)
    good = rows_of("Good", rra=0.6, mprt=0.05, deletion=0.02, label_randomization=0.0)
    fixed = rows_of("Fixed", rra=0.6, mprt=0.97)
    blinded = rows_of("Blind", rra=0.05, mprt=0.05)
    like_edges = rows_of("LikeEdges", rra=0.2, mprt=0.05)
    lucky = rows_of("Lucky", rra=0.4, rra_permuted=0.4, mprt=0.0)
    found = told(blind, t_map, good, fixed, blinded, like_edges, lucky)
    assert found["Good"].believe == "yes"
    assert "better than every baseline" in " ".join(found["Good"].sentences)
    assert "t-map of the training images finds it better (0.90)" in " ".join(found["Good"].sentences)
    assert "loses its class sooner" in " ".join(found["Good"].sentences)
    assert found["Fixed"].believe == "no"
    assert "not an explanation of this model" in " ".join(found["Fixed"].sentences)
    assert found["Blind"].believe == "no"
    assert "not find the planted effect better than chance" in " ".join(found["Blind"].sentences)
    assert found["LikeEdges"].believe == "with care"
    assert "not better than Edges" in " ".join(found["LikeEdges"].sentences)
    assert found["Lucky"].believe == "no"  # no better than after learning nothing
    assert "learned nothing" in " ".join(found["Lucky"].sentences)
    assert found["TMap"].believe == "not judged"
    assert list(found)[-1] in ("RandomMap", "Edges", "TMap")  # baselines last


def test_a_place_that_is_found_among_much_else_is_read_with_care():
    blind, t_map = rows_of("RandomMap", "baseline", rra=0.05), rows_of("TMap", "baseline", rra=0.6)
    found = told(blind, t_map, rows_of("Scattered", rra=0.2, mprt=0.0))["Scattered"]
    assert found.believe == "with care"
    assert (
        "80% of its highest voxels lie elsewhere (of a t-map of the training images 40%)"
        in found.sentences[1]
    )


def test_an_interval_that_touches_chance_is_no_finding():
    wide = [
        {**row, "value": value} for row, value in zip(rows_of("Wide", rra=0), [0.0, 0.4] * 6, strict=True)
    ]
    sure = rows_of("Sure", rra=0.2)
    found = told(wide, sure, rows_of("RandomMap", "baseline", rra=0.05))
    assert report_card(pd.DataFrame(wide))["value"].item() == pytest.approx(0.2)
    assert "Finds the planted effect" in found["Sure"].sentences[0]
    high_chance = [{**row, "chance": 0.15} for row in wide]
    assert "Does not find" in told(high_chance)["Wide"].sentences[0]


@pytest.mark.parametrize(
    ("judge", "value", "chance", "expected"),
    [
        ("rra", 1.0, 0.1, 1.0),
        ("rra", 0.1, 0.1, 0.0),
        ("deletion", 0.0, 0.4, 1.0),
        ("deletion", 0.4, 0.4, 0.0),
        ("mprt", 1.0, 0.0, -1.0),
        ("mprt", 0.0, 0.0, 1.0),
        ("seconds", 3.0, np.nan, np.nan),
    ],
)
def test_colours_say_how_far_from_chance(judge, value, chance, expected):
    np.testing.assert_allclose(goodness(judge, value, chance), expected)


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


def test_permuted_labels_keep_people_whole_and_classes_in_number():
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i // 2}" for i in range(80)],  # two images each
            "target": [i // 2 % 2 for i in range(80)],
            "label": ["ab"[i // 2 % 2] for i in range(80)],
        }
    )
    permuted = permute_labels(table)
    assert permuted["target"].sum() == table["target"].sum()
    assert (permuted.groupby("participant_id")["target"].nunique() == 1).all()
    assert (permuted["label"] == permuted["target"].map({0: "a", 1: "b"})).all()
    kept = (permuted["target"] == table["target"]).mean()
    assert 0.25 < kept < 0.75
    assert permute_labels(table).equals(permuted)


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
def test_every_judge_speaks_of_every_method(carded):
    card = read_tsv(carded.evaluation("report_card"))
    assert list(card) == ["method", "kind", "judge", "value", "ci_low", "ci_high", "chance", "n_subjects"]
    methods = {"Saliency", "GuidedBackprop", "Intensity", "TMap"}
    for judge in set(JUDGES) - {"region_hit"}:  # no atlas
        assert set(card.loc[card["judge"] == judge, "method"]) == methods, judge
    assert dict(zip(card["method"], card["kind"], strict=True)) == {
        "Saliency": "method", "GuidedBackprop": "method", "Intensity": "baseline", "TMap": "baseline"
    }  # fmt: skip
    cells = card.set_index(["method", "judge"])
    assert cells.loc[("Intensity", "mprt"), "value"] == pytest.approx(1)  # knows no weights
    assert cells.loc[("Intensity", "reseed_stability"), "value"] == pytest.approx(1)
    assert cells.loc[("Saliency", "mprt"), "value"] < 0.9
    assert cells.loc[("Saliency", "deletion"), "n_subjects"] == 4
    assert (
        cells.loc[("Saliency", "rra"), "n_subjects"]
        == read_tsv(carded.predictions)["participant_id"].nunique()
    )
    page = carded.report.read_text()
    assert "which map to believe" in page
    assert "Similarity while weights are randomised" in page


@pytest.mark.slow
def test_what_is_judged_is_not_judged_again(carded, tmp_path):
    shutil.copytree(carded.path, tmp_path / "run")
    copy = RunDirectory(tmp_path / "run")
    files = sorted((copy.path / "evaluation" / "judges").glob("*.tsv"))
    before = {path: path.stat().st_mtime_ns for path in files}
    cfg = stage_settings("evaluate", [f"run_dir={copy.path}", "evaluation.card.judges=[rra,deletion,mprt]"])
    evaluate(cfg)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert set(read_tsv(copy.evaluation("report_card"))["judge"]) == {"rra", "deletion", "mprt"}
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
    with pytest.raises(ConfigError, match="nothing was planted there"):
        evaluate(stage_settings("evaluate", other))
    with pytest.raises(ConfigError, match="has no report card"):
        evaluate(stage_settings("evaluate", [f"run_dir={real.path}", "evaluation.calibration=nowhere"]))
