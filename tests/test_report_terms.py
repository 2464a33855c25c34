"""One name for each measure, fold and method in all sections of a report, and in the summary of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from report_runs import (
    text_of,
)

from xai_brain.config.build import similar_method_file
from xai_brain.config.saved import stage_settings
from xai_brain.metrics.table import METRICS
from xai_brain.metrics.titles import figure_title
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.stages.run import print_summary
from xai_brain.task.classification import Classification

CONF = Path(__file__).parents[1] / "conf"


def test_measures_have_one_name_in_all_sections(compared):
    done, _ = compared
    html = done.report.read_text().split('<section id="settings"')[0]
    text = text_of(html)
    for short, full in (("relevance rank", " accuracy"), ("relevance mass", " accuracy"), ("Dice", "")):
        ends = {text[match.end() :][: len(full)] for match in re.finditer(short, text, re.IGNORECASE)}
        assert ends == {full}
    assert not re.search(r"\b(RRA|RMA|rra|rma|DSC|balanced_accuracy|roc_auc|AUC)\b", text)
    titles = {METRICS[name].title for name in ("rra", "rma", "pointing")}
    header = html.split('<section id="localization">')[1].split("</thead>")[0]
    assert titles == set(re.findall(r'<th class="num">([^×<]+)</th>', header))
    assert METRICS["rra"].title in html.split('<section id="verdict"')[1].split("</section>")[0]


def test_every_auroc_has_its_name(compared):
    done, _ = compared
    text = text_of(done.report.read_text().split('<section id="settings"')[0])
    names = r", mean over folds|, pooled| \((mean over folds|pooled)\)|, matched for brain size| within pairs"
    others = [
        text[match.start() : match.start() + 60]
        for match in re.finditer(rf"AUROC(?!{names})", text)
        if not re.match(r"AUROC by the test of DeLong|AUROC in pairs", text[match.start() :])
    ]
    assert others == []
    metrics = read_json(done.metrics)
    assert f"AUROC (mean over folds) of {fixed(metrics['test/auroc'])}" in text
    assert f"AUROC, pooled {fixed(metrics['test/auroc_pooled'])}" in text


def test_folds_are_numbered_from_one(compared):
    done, _ = compared
    html = done.report.read_text().split('<section id="settings"')[0]
    text = text_of(html)
    numbers = {int(number) for number in re.findall(r"\bfold[ =](\d+)", text)}
    assert numbers <= {1, 2, 3}
    assert numbers
    assert re.findall(r"seed 0, fold (\d)", text_of("</style>" + html.split('id="first-layer"')[1]))[-3:] == [
        "1",
        "2",
        "3",
    ]
    tests = read_tsv(done.evaluation("group_tests")).query("method != 'image'")
    assert tests["confounds"].str.endswith("fold=1, fold=2").all()  # files count from 0, the page does not
    assert "fold=" not in text
    table = html.split("<h3>Folds</h3>")[1].split("</table>")[0]
    assert re.findall(r"<tr><td>(\d+)</td>", table) == ["1", "2", "3"]
    shown = ReportContents(done).shown_subjects()
    folds = read_tsv(done.predictions).set_index("participant_id")["fold"]
    assert [s.fold for s in shown] == [folds[s.participant_id] + 1 for s in shown]


def test_summary_of_a_run_names_both_auroc(complete, capsys):
    print_summary(stage_settings("report", [f"run_dir={complete.path}"]), complete)
    lines = capsys.readouterr().out.splitlines()
    metrics = read_json(complete.metrics)
    for name, title in (("auroc", "AUROC, mean over folds"), ("auroc_pooled", "AUROC, pooled")):
        [line] = [line for line in lines if f"{title} " in line]
        assert f"test/{name}" not in line
        assert f"{metrics[f'test/{name}']:.3f}" in line


def test_training_curves_count_each_network_once(complete):
    curves = ReportContents(complete).curves
    assert sorted(curves["run"].unique()) == ["fold-0", "fold-1", "fold-2"]
    assert set(curves["epoch"]) == {0, 1}
    assert "Thin lines: the 3 networks (one for each fold)." in text_of(complete.report.read_text())


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("test/auroc_size_matched", "AUROC, matched for brain size"),
        ("localization/GradCAM/rma", "Relevance mass accuracy: GradCAM"),
        ("baseline/rbf_svm/auroc", "AUROC, mean over folds: rbf_svm"),
        ("seconds/train", "seconds/train"),
    ],
)
def test_figures_of_a_run_have_titles(name, title):
    assert figure_title(name, Classification.score_titles) == title


def test_methods_have_the_name_that_a_user_types_in_the_settings_of_the_report(complete):
    html = complete.report.read_text().split('<section id="settings"')[1]
    table = text_of("</style>" + html.split("</table>")[0])
    for name, setting in (("GradCAM", "grad_cam"), ("LRP", "lrp"), ("InputXGradient", "input_x_gradient")):
        assert f"{name} attribution=[{setting}] xai_brain.attribution.{name}" in table


@pytest.mark.parametrize("path", sorted((CONF / "attribution").glob("*.yaml")), ids=lambda path: path.stem)
def test_names_of_methods_are_those_of_the_files_of_settings(path):
    [(label, values)] = [
        (label, values) for label, values in yaml.safe_load(path.read_text()).items() if "_target_" in values
    ]
    settings = {key: value for key, value in values.items() if not key.startswith("_")}
    assert similar_method_file(label, settings) == path.stem
    if settings:
        changed = {**settings, next(iter(settings)): -1}  # one setting that a user has changed
        assert len(settings) < 2 or similar_method_file(label, changed) == path.stem
