"""The report of a real run: complete, self-contained, escaped, also if parts of the run are missing."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from report_runs import (
    METHODS,
    SMALL,
    assert_self_contained,
    text_of,
    without_truth,
)

from xai_brain import compose, run
from xai_brain.io.nifti import bids_name
from xai_brain.reporting import html_report, sections
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.values import Estimate
from xai_brain.reporting.wording import fixed, with_interval
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.runs.group_maps import find_group_maps


def test_complete_run(complete):
    html = complete.report.read_text()
    assert_self_contained(complete, html)
    text = text_of(html)
    metrics = read_json(complete.metrics)
    for name in ("auroc", "auroc_pooled", "balanced_accuracy", "accuracy"):
        value, low, high = (metrics[f"test/{name}{end}"] for end in ("", "_ci_low", "_ci_high"))
        assert fixed(value) in text
        interval = "without width" if low == high else f"{fixed(low)} to {fixed(high)}"
        assert interval in text
    summary = read_tsv(complete.evaluation("summary"))
    for value in summary.loc[summary["table"] == "localization", "mean"]:
        assert fixed(value) in text
    assert "sub-9999" in text
    assert "Excluded inputs (1)" in text
    assert "Voxel agreement" in text
    assert "compatible with a Dice coefficient of 0" in text
    assert not re.search(r"\bnan\b", text)
    commit = read_json(complete.provenance)["git_commit"]
    assert commit is None or commit in text
    n_figures = len(re.findall("<figure[ >]", html))
    assert n_figures == len(list((complete.path / "figures").glob("*.png")))
    order = [text.index(f"Figure {i}.") for i in range(1, n_figures + 1)]
    assert order == sorted(order)


def test_brain_size_is_compared_with_the_network(complete):
    text = text_of(complete.report.read_text())
    table = read_tsv(complete.evaluation("baselines"))
    size = table[(table["name"] == "brain_size") & (table["metric"] == "auroc")]["value"].item()
    assert f"A baseline that uses brain size only reaches {fixed(size)}; the network is " in text
    assert "RBF SVM on voxels" in text


def test_an_interval_of_equal_bootstrap_samples_is_without_width():
    assert with_interval(Estimate(1.0, 1.0, 1.0, 0.5)) == "1.000 (95 % CI without width)"
    assert with_interval(Estimate(0.9, 0.8, 1.0, 0.5)) == "0.900 (95 % CI 0.800 to 1.000)"


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.02, 0.2), "above"), ((-0.2, -0.02), "below"), ((-0.1, 0.1), "not distinguishable from")],
)
def test_words_about_baselines_follow_from_the_numbers(changed, undrawn, interval, word):
    table = read_tsv(changed.evaluation("baselines"))
    best = (table["name"] == "rbf_svm") & (table["metric"] == "auroc")
    columns = ["value", "difference", "difference_ci_low", "difference_ci_high", "p"]
    table.loc[best, columns] = [0.9123, np.mean(interval), *interval, 0.163]
    write_tsv(table, changed.evaluation("baselines"))
    text = text_of(write_report(changed).read_text())
    assert "The best baseline by AUROC, mean over folds, is RBF SVM on voxels with 0.912" in text
    assert f"the network is {word} it (difference {fixed(np.mean(interval))}" in text
    assert "p = 0.163" in text


def page_without_times(run):
    page, n = re.subn(r"<p>Computing time: .*?</p>", "", run.report.read_text())
    assert n == 1
    return page


def test_second_write_is_identical(small_run, tmp_path):
    run = RunDirectory(shutil.copytree(small_run.path, tmp_path / small_run.path.name))
    pictures = sorted((run.path / "figures").glob("*.png"))
    page, before = page_without_times(run), [file.read_bytes() for file in pictures]
    assert_self_contained(run, page)  # with all pictures
    assert 1e5 < len(page) < 6e6
    assert min(map(len, before)) > 1e3
    write_report(run)
    assert [file.read_bytes() for file in pictures] == before
    assert page_without_times(run) == page


def without_maps(run):
    for folder in ("attributions", "group", "evaluation"):
        shutil.rmtree(run.path / folder)


def without_baselines(run):
    run.evaluation("baselines").unlink()


@pytest.mark.parametrize(
    ("remove", "absent", "present"),
    [
        (without_maps, ['id="subjects"', 'id="localization"'], "No maps have been computed yet"),
        (without_truth, ['id="localization"', "Black outline"], "No true location is known"),
        (without_baselines, ['id="baseline"'], 'id="performance"'),
    ],
)
def test_partial_runs(changed, undrawn, remove, absent, present):
    remove(changed)
    html = write_report(changed).read_text()
    assert_self_contained(changed, html)
    assert present in html
    for piece in absent:
        assert piece not in html


def test_only_settings_and_an_empty_folder(changed, tmp_path):
    for path in list(changed.path.iterdir()):
        if path != changed.config:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "have not been evaluated" in write_report(changed).read_text()
    empty = RunDirectory(tmp_path / "empty")
    html = write_report(empty).read_text()
    assert "No maps have been computed yet" in html
    assert "z-scored" not in html


def test_maps_without_tables_of_the_evaluation(changed, undrawn):
    changed.evaluation("summary").unlink()  # then means come from the tidy tables, without intervals
    changed.predictions.unlink()
    changed.quarantine.write_text("")
    text = text_of(write_report(changed).read_text())
    rows = read_tsv(changed.evaluation("localization"))
    rows = rows[(rows["method"] == "LRP") & (rows["metric"] == "rma")]
    assert fixed(rows["value"].mean()) in text
    assert not re.search(r"\bnan\b", text)


def test_data_are_escaped(changed, undrawn):
    names = {"female": "<script>", "male": "$x_{1"}

    def renamed(text):
        return re.sub(r"\b(fe)?male\b", lambda match: names[match[0]], text.replace("prob_", "prob_\0"))

    for path in (changed.participants, changed.predictions, *changed.evaluation("any").parent.glob("*.tsv")):
        path.write_text(renamed(path.read_text()).replace("\0", ""))
    for path in (changed.path / "attributions").rglob("*_attribution.json"):
        about = read_json(path)
        write_json({**about, "TargetName": names[about["TargetName"]]}, path)
    for each in find_group_maps(changed, quantities=["class-*male"]):
        quantity = f"class-{names[each.quantity.removeprefix('class-')]}"
        write_json({**read_json(sidecar(each.path)), "Quantity": quantity}, sidecar(each.path))
    html = write_report(changed).read_text()
    assert html.count("<script") == 1
    assert "&lt;script&gt;" in html
    assert "$x_{1" in html


@pytest.mark.slow
def test_three_classes_and_two_seeds(tmp_path):
    settings = [
        "data=synthetic",
        "data.cohort.n_subjects=24",
        "data.label=age",
        "data.bins=[40,60]",
        "data.class_names=null",
        "seeds=[3,7]",
        "folds.n_folds=2",
        "attribution=[grad_cam,saliency]",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = run(compose("run", [*SMALL, *settings]))
    html = done.report.read_text()
    assert html.count("(4 networks: 2 folds × 2 seeds)") == 2  # of predictions, and of maps
    assert "48 predictions" in text_of(html)
    assert "the 4 networks (one for each fold and seed)" in text_of(html)


def test_names_of_files_follow_the_run_directory(complete):
    contents = ReportContents(complete)
    assert contents.run.space == "MNI152"
    assert contents.methods == METHODS
    targets = read_tsv(complete.predictions)["target"]
    assert contents.n_explained("GradCAM", "female") == (targets == 0).sum()
    name = bids_name("sub-0001", space="MNI152", desc="GradCAM", suffix="attribution")
    assert contents.maps_of("sub-0001", "", 0)["GradCAM"].name == f"{name}.nii.gz"
    assert sidecar(contents.maps_of("sub-0001", "", 0)["GradCAM"]).exists()


def test_a_section_is_a_module_and_a_template(changed, undrawn, tmp_path, monkeypatch):
    """Nothing else has to be changed for a further section."""
    folder = tmp_path / "sections"
    folder.mkdir()
    (folder / "laterality.py").write_text(
        'POSITION, TITLE = 99, "Laterality"\n\n\ndef section(contents, gallery):\n'
        '    return {"methods": contents.methods}\n'
    )
    (folder / "laterality.html.j2").write_text(
        "<h2>Laterality</h2><p>Methods: {{ laterality.methods | named }}.</p>\n"
    )
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(folder)])
    environment = html_report._environment()
    environment.loader.searchpath.append(str(tmp_path))
    monkeypatch.setattr(html_report, "_environment", lambda: environment)
    try:
        page = write_report(changed).read_text()
    finally:
        sys.modules.pop("xai_brain.reporting.sections.laterality", None)
    assert 'href="#laterality">Laterality</a>' in page
    assert "<p>Methods: " + " and ".join(", ".join(METHODS).rsplit(", ", 1)) + ".</p>" in page


def test_no_style_rule_is_written_twice():
    lines = (Path(html_report.__file__).parent / "report.css").read_text().splitlines()
    rules = [line.strip() for line in lines if "{" in line and "}" in line]
    assert len(rules) == len(set(rules))
