"""The verdict of a report, its first screen, and the first line."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from report_runs import (
    METHODS,
    change_settings,
    set_scores,
    set_size_difference,
    text_of,
    without_truth,
)

from xai_brain import attribution
from xai_brain.metrics.report_card import COLUMNS
from xai_brain.reporting.brain_size import brain_size_column
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.differences import of_networks
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.method_descriptions import BASELINE_MAPS
from xai_brain.reporting.values import Estimate
from xai_brain.reporting.verdict import rate_performance, verdict_of
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import read_tsv, write_json, write_tsv

GOOD = {"auroc": (0.9, 0.8, 0.95), "balanced_accuracy": (0.85, 0.75, 0.9)}
MAP_SECTIONS = ("maps", "subjects", "localization", "agreement")


def test_the_verdict_names_methods_whose_maps_depend_on_the_network():
    shares = {"GradCAM": (0.0, 1.0), "Saliency": (0.7, 0.1), "Occlusion": (0.1, 0.9)}
    rows = [
        {"method": method, "component": component, "share": share}
        for method, pair in shares.items()
        for component, share in zip(("subject", "model"), pair, strict=True)
    ]
    (sentence,) = of_networks(pd.DataFrame(rows), ("GradCAM", "Saliency"))
    assert "GradCAM (100% of the variance)" in sentence
    assert "Saliency" not in sentence  # depends on the participant
    assert "Occlusion" not in sentence  # without a difference between the classes
    assert of_networks(pd.DataFrame(rows), ("Saliency",)) == []
    assert of_networks(None, ("GradCAM",)) == []


@pytest.mark.parametrize(
    ("scores", "size", "answer", "warning"),
    [
        (GOOD, (0.1, 0.3), "Yes", None),
        (GOOD | {"auroc": (0.6, 0.45, 0.7)}, (0.1, 0.3), "No evidence", "includes 0.50"),
        (
            GOOD | {"balanced_accuracy": (0.61, 0.52, 0.7)},
            (0.1, 0.3),
            "Above chance, imprecisely",
            "95 % interval of the balanced accuracy, 0.52 to 0.70, begins at most 0.05 above chance (0.50)",
        ),
        (
            GOOD,
            (-0.1, 0.2),
            "Yes, perhaps brain size",
            "Brain size may explain the performance: brain size only reaches",
        ),
    ],
)
def test_a_warning_is_in_the_verdict_and_in_the_section_of_performance(
    changed, undrawn, scores, size, answer, warning
):
    """Sections of maps repeat only, in short, that maps should not be interpreted."""
    set_scores(changed, **scores)
    set_size_difference(changed, *size)
    html = write_report(changed).read_text()
    text = text_of(html)
    assert f"Has the network learned? {answer} " in text
    assert "May the maps be interpreted?" in text
    assert "Do the methods agree?" in text
    sections = {part.split('"')[0]: part for part in html.split('<section id="')[1:]}
    if warning is not None:
        found = [name for name, section in sections.items() if warning in section]
        assert found == ["verdict", "performance"]
        assert text.count(warning) == 2
    for name in MAP_SECTIONS:
        assert ("should not be interpreted, because" in sections[name]) == (answer == "No evidence")
    assert ('See the <a href="#verdict">verdict</a>' in sections["maps"]) == (warning is not None)


@pytest.mark.parametrize(
    ("auroc", "balanced", "learned", "words"),
    [
        ((0.6, 0.45, 0.7), (0.55, 0.52, 0.6), "no", "AUROC (pooled), 0.45 to 0.70, includes 0.50"),
        ((0.3, 0.2, 0.41), (0.4, 0.3, 0.45), "no", "AUROC (pooled), 0.20 to 0.41, is below 0.50"),
        ((0.68, 0.55, 0.8), (0.6, 0.48, 0.7), "weak", "0.48 to 0.70, is not above chance (0.50)"),
        (
            (0.68, 0.55, 0.8),
            (0.63, 0.53, 0.73),
            "imprecise",
            "0.53 to 0.73, begins at most 0.05 above chance",
        ),
        ((0.9, 0.8, 0.95), (0.85, 0.75, 0.9), "yes", ""),
        ((0.9, None, None), (0.85, None, None), "yes", ""),
    ],
)
def test_the_intervals_decide_whether_a_network_has_learned(auroc, balanced, learned, words):
    estimates = (Estimate(*auroc, chance=0.5), Estimate(*balanced, chance=0.5))
    found, doubt = rate_performance("AUROC, pooled", *estimates)
    assert found == learned
    assert words in doubt
    assert (doubt == "") == (learned == "yes")


def test_a_method_at_chance_does_not_find_the_location(changed):
    ranking = {
        "MeaningfulPerturbation": Estimate(0.61, 0.5, 0.7, 0.011),
        "GuidedBackprop": Estimate(0.3, 0.2, 0.4, 0.011),
        "GradCAM": Estimate(0.03, 0.02, 0.04, 0.011),
        "LRP": Estimate(0.012, 0.01, 0.02, 0.011),
    }
    verdict = replace(verdict_of(ReportContents(changed)), ranking=ranking)
    assert verdict.localisation == (
        "3 of 4 methods are above chance at the known location, 1 of 4 reaches 0.5 (relevance rank accuracy, "
        "chance 0.011): highest MeaningfulPerturbation 0.610, lowest LRP 0.012."
    )
    one = replace(verdict, ranking={"GradCAM": ranking["GradCAM"]})
    assert one.localisation == (
        "GradCAM has a relevance rank accuracy of 0.030, chance 0.011: above chance and below 0.5."
    )


def test_performance_at_chance_is_stated(changed, undrawn):
    metrics = json.loads(changed.metrics.read_text())
    at_chance = {"test/auroc": 0.55, "test/auroc_ci_low": 0.41, "test/auroc_ci_high": 0.68}
    write_json({**metrics, **at_chance}, changed.metrics)
    assert "includes 0.5" in write_report(changed).read_text()


def test_verdict_and_figure_come_first(complete):
    html = complete.report.read_text()
    assert html.index('<section id="verdict"') < html.index("<figure>") < html.index('<p class="lead">')
    assert html.index("Figure 1.") < html.index('<p class="lead">')
    summary = read_tsv(complete.evaluation("summary"))
    rho = summary.loc[summary["metric"] == "spearman", "mean"]
    assert f"Mean rank correlation of the maps of two methods: {fixed(rho.mean(), 2)} (" in text_of(html)
    rra = summary[(summary["table"] == "localization") & (summary["metric"] == "rra")]
    best = rra.sort_values("mean").iloc[-1]
    lead = text_of(html.replace("<main>", "</style><main>").split("</style>", 1)[1])
    start = f"(relevance rank accuracy): {best['method']} {fixed(best['mean'])} ("
    assert start in lead
    assert lead.index(start) < lead.index("A network was trained")


def test_maps_that_do_not_depend_on_the_network_are_not_part_of_the_verdict(changed, undrawn):
    classes = [getattr(attribution, name) for name in attribution.__all__]
    known = [each.__name__ for each in classes if getattr(getattr(each, "info", None), "is_baseline", False)]
    assert sorted(known) == sorted(BASELINE_MAPS)
    config = yaml.safe_load(changed.config.read_text())
    config["attribution"]["LRP"]["_target_"] = "xai_brain.attribution.TMap"
    changed.config.write_text(yaml.safe_dump(config))
    verdict = verdict_of(ReportContents(changed))
    assert sorted(verdict.ranking) == sorted(set(METHODS) - {"LRP"})
    assert verdict.n_pairs == 6


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, "Cohort with a planted effect: the location"),
        (
            {"data": {"layout": "synthetic", "cohort": {"effect_volume_change": 0.2}}},
            "Synthetic cohort with a",
        ),
        ({"data": {"layout": "synthetic", "cohort": {}}}, "Synthetic cohort without a planted effect"),
        ({"planted": {"kind": "atrophy"}}, "Planted effect (atrophy) in the images of a cohort"),
    ],
)
def test_report_and_methods_paragraph_begin_with_the_origin_of_the_effect(changed, undrawn, settings, first):
    change_settings(changed, **settings)
    html = write_report(changed).read_text()
    header = text_of("</style>" + html.split('<header id="summary">')[1]).strip()
    assert re.sub(r" :", ":", header).startswith(first)
    paragraph = text_of("</style>" + html.split('id="methods-text">')[1].split("</section>")[0]).strip()
    assert paragraph.removeprefix("Participants and images. ").startswith(first)
    assert ("synthetic participants" in paragraph) == ("layout" in settings.get("data", {}))


def test_a_study_of_people_has_no_such_line(changed, undrawn):
    without_truth(changed)
    html = write_report(changed).read_text()
    assert 'class="origin"' not in html
    assert "planted effect" not in html.split('<section id="methods">')[1].split("</section>")[0]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, True) for name in ("icv", "TIV", "eTIV", "brain_size", "brain_volume", "icv_ml")),
        *((name, True) for name in ("EstimatedTotalIntraCranialVol", "BrainSegVol", "tiv_mm3", "TBV")),
        *((name, False) for name in ("age", "civil_status", "brain", "activity", "hippocampus_volume")),
    ],
)
def test_columns_that_look_like_brain_size(name, found):
    table = pd.DataFrame({"participant_id": ["a", "b"], name: [1300.0, 1500.0]})
    assert brain_size_column(table) == (name if found else None)
    assert brain_size_column(table.assign(**{name: "n/a"})) is None


def test_report_says_how_to_set_a_column_that_looks_like_brain_size(changed, undrawn):
    assert "looks like brain size" not in write_report(changed).read_text()
    change_settings(changed, data={"brain_size_column": None})
    assert "data.brain_size_column=brain_volume_ml" in text_of(write_report(changed).read_text())


@pytest.mark.parametrize(
    "settings",
    [
        {"data": {"layout": "synthetic", "cohort": {}, "brain_size_column": None}},
        {"data": {"brain_size_column": None}, "planted": {"kind": "atrophy"}},
    ],
)
def test_brain_size_is_not_advised_where_the_classes_are_made(changed, undrawn, settings):
    changed.evaluation("baselines").unlink()
    change_settings(changed, **settings)
    assert "data.brain_size_column" not in write_report(changed).read_text()


# -- planted effects in the same cohort, and methods without evaluation -----------------------------


@pytest.fixture
def calibrated(changed):
    """A run without a known location, and a report card of planted effects with three of its methods."""
    without_truth(changed)
    set_scores(changed, **GOOD)
    rows = []
    values = [("LRP", "rra", 0.6), ("GradCAM", "rra", 0.03), ("GuidedGradCAM", "rra", 0.6)]
    for method, metric, value in [*values, ("LRP", "parameter_randomization", 0.1)]:
        about = {"method": method, "kind": "method", "metric": metric, "title": "", "n_subjects": 12}
        low, high = value - 0.01, value + 0.01
        rows.append({**about, "value": value, "ci_low": low, "ci_high": high, "chance": 0.01})
    card = pd.DataFrame(rows)[COLUMNS]
    write_tsv(card.assign(planted="atrophy, size 12"), changed.evaluation("calibration"))
    return changed


def test_results_of_planted_effects_are_stated_at_the_beginning_and_below_maps(calibrated, undrawn):
    html = write_report(calibrated).read_text()
    text = text_of(html)
    assert "validate the methods on planted effects" not in text.lower()
    first = text_of("</style>" + html.split('<section id="verdict"')[1].split("</section>")[0])
    assert (
        "On planted effects in this cohort: can be interpreted: LRP; with caution: GradCAM; not rated for "
        "lack of metrics: GuidedGradCAM; not part of it, so not rated: InputXGradient and GradientShap."
    ) in first
    notes = re.findall(r"On a planted effect in this cohort: (.*?) See ", text)
    assert len(notes) > len(METHODS)
    assert all(notes)
    assert "LRP ● 0.60 of its highest voxels inside the effect (chance 0.01)." in notes
    assert any(note.startswith("GradientShap not rated, because the report card") for note in notes)
    section = text_of("</style>" + html.split('<section id="calibration"')[1].split("</section>")[0])
    assert "Not rated, because the report card lacks its location or its maps of random weights." in section
    assert "InputXGradient not rated – – Not rated, because the report card of planted effects" in section


def test_methods_that_failed_on_planted_effects_are_not_interpreted(calibrated):
    table = read_tsv(calibrated.evaluation("calibration"))
    write_tsv(table.assign(ci_low=0.0), calibrated.evaluation("calibration"))
    assert verdict_of(ReportContents(calibrated)).interpretable == "no"


def test_maps_without_evaluation_are_listed_with_the_command(changed, complete, undrawn):
    assert "Maps without evaluation" not in complete.report.read_text()
    for name in ("agreement", "localization"):
        table = read_tsv(changed.evaluation(name))
        columns = ["method_a", "method_b"] if name == "agreement" else ["method"]
        write_tsv(table[~table[columns].eq("LRP").any(axis=1)], changed.evaluation(name))
    text = text_of(write_report(changed).read_text())
    assert "Maps without evaluation: LRP. xai-brain evaluate , then xai-brain report on the run" in text
