"""The report of a real run: complete, self-contained, escaped, also if parts of the run are missing.

Left stays left on slices.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from xai_brain import attribution, compose, run
from xai_brain.config.saved import stage_settings
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.io.nifti import bids_name, load_img, save_img
from xai_brain.metrics.table import METRICS
from xai_brain.reporting import gallery, html_report, sections
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.method_descriptions import BASELINE_MAPS
from xai_brain.reporting.methods_text import methods_text
from xai_brain.reporting.references import short_citation
from xai_brain.reporting.study_design import image_preparation
from xai_brain.reporting.verdict import brain_size_column, verdict_of
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.run import print_summary
from xai_brain.statistics.colour_scale import ColourScale

METHODS = ["GradCAM", "GuidedGradCAM", "LRP", "InputXGradient", "GradientShap"]
SMALL = [
    "preprocessing=t1w_4mm",
    "trainer.max_epochs=2",
    "trainer.batch_size=6",
    "model.channels=[2,3,4]",
    "evaluation.n_bootstrap=50",
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """BIDS folder of 12 participants with a planted effect, and one truncated image."""
    root = make_synthetic_cohort(
        tmp_path_factory.mktemp("cohort") / "bids", SyntheticSettings(n_subjects=12, seed=2020)
    )
    table = pd.read_csv(root / "participants.tsv", sep="\t")
    source = next(root.glob("sub-0001/anat/*T1w.nii.gz"))
    truncated = root / "sub-9999" / "anat" / source.name.replace("sub-0001", "sub-9999")
    truncated.parent.mkdir(parents=True)
    truncated.write_bytes(source.read_bytes()[:2000])
    extra = table.iloc[:1].assign(participant_id="sub-9999")
    pd.concat([table, extra]).to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


@pytest.fixture(scope="module")
def complete(cohort, tmp_path_factory):
    """A finished run with baselines and a report; do not change it."""
    run_dir = tmp_path_factory.mktemp("runs") / "complete"
    settings = [
        "data=bids",
        f"data.root={cohort}",
        "data.label=sex",
        "data.brain_size_column=brain_volume_ml",
        "data.on_error=skip",
        "folds.n_folds=3",
        "attribution=[grad_cam,guided_grad_cam,lrp,input_x_gradient,gradient_shap]",
        "attribution.GradientShap.n_samples=2",
        "baselines=[rbf_svm]",
    ]
    return run(compose("run", [*SMALL, *settings, f"run_dir={run_dir}"]))


@pytest.fixture
def changed(complete, tmp_path):
    """A copy of the run, to be changed."""
    shutil.copytree(complete.path, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "figures"))
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are built but not drawn if only the text of the page is tested."""
    monkeypatch.setattr(gallery, "_rendered", lambda fig, kind, **options: b"")
    monkeypatch.setattr(gallery, "_palette", lambda png: b"")


def text_of(html):
    html = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).replace("&nbsp;", " ").replace("&#39;", "'")
    return re.sub(r"\s+", " ", text)


def assert_self_contained(run, html):
    for outside in ('src="http', "<link", "@import", "url(http", "<script ", 'href="http', "file://"):
        assert outside not in html
    assert html.count("<script") == 1  # of the page itself
    assert str(run.path) not in html
    assert set(re.findall(r'src="([^,"]+)', html)) <= {
        f"data:image/{kind};base64" for kind in ("png", "svg+xml", "webp")
    }
    anchors = re.findall(r'href="#([^"]+)"', html)
    assert anchors
    assert all(f'id="{anchor}"' in html for anchor in anchors)


def test_complete_run(complete):
    html = complete.report.read_text()
    assert_self_contained(complete, html)
    text = text_of(html)
    metrics = read_json(complete.metrics)
    for name in ("auroc", "auroc_pooled", "balanced_accuracy", "accuracy"):
        value, low, high = (metrics[f"test/{name}{end}"] for end in ("", "_ci_low", "_ci_high"))
        assert fixed(value) in text
        assert f"{fixed(low)} to {fixed(high)}" in text
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
    assert len(html) < 6e6
    n_figures = len(re.findall("<figure[ >]", html))
    assert n_figures == len(list((complete.path / "figures").glob("*.png")))
    order = [text.index(f"Figure {i}.") for i in range(1, n_figures + 1)]
    assert order == sorted(order)


def test_training_curves_count_each_network_once(complete):
    curves = ReportContents(complete).curves
    assert sorted(curves["run"].unique()) == ["fold-0", "fold-1", "fold-2"]
    assert set(curves["epoch"]) == {0, 1}
    assert "Thin lines: the 3 networks (one for each fold)." in text_of(complete.report.read_text())


def test_methods_paragraph_describes_the_preparation(complete):
    text = text_of(complete.report.read_text())
    assert "Images of 12 participants".lower() in text.lower()
    assert " mm in MNI152 space and z-scored inside the brain. Values outside the brain" in text
    assert (
        "A 3-D convolutional network (xai_brain.models.networks.kan2020.Kan2020, after Kan 2020) was trained"
        in text
    )
    assert "in 3-fold cross-validation, stratified and split by participant" in text


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"scaling": "zscore"}, "z-scored inside the brain"),
        ({"scaling": "percentile"}, "scaled linearly (1st percentile inside the brain to 0"),
        ({"scaling": "none"}, "not scaled in intensity"),
        ({"scaling": "none", "brain_median": 700.0}, "scaled to a median of 700 inside the brain"),
        (
            {"raw": True},
            "prepared from raw images (brain extraction, bias field correction, affine",
        ),
    ],
)
def test_every_scaling_is_stated(changed, scaling, expected):
    config = yaml.safe_load(changed.config.read_text())
    config["preprocessing"] |= scaling
    changed.config.write_text(yaml.safe_dump(config))
    assert expected in image_preparation(ReportContents(changed))


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_cited(complete, method):
    files = sorted((complete.path / "attributions").rglob(f"*_desc-{method}_attribution.json"))
    assert len(files) == 12
    citation = getattr(attribution, method).info.citation
    assert {read_json(file)["Citation"] for file in files} == {citation}
    text = text_of(complete.report.read_text())
    assert f"{method} ({short_citation(citation)})" in text
    assert citation in text[text.rindex("References") :]


def test_permutation_tests_are_cited_only_if_they_were_made(complete):
    assert read_tsv(complete.evaluation("group_tests"))["reason"].notna().all()
    assert "Freedman" not in complete.report.read_text()


def test_brain_size_is_compared_with_the_network(complete):
    text = text_of(complete.report.read_text())
    table = read_tsv(complete.evaluation("baselines"))
    size = table[(table["name"] == "brain_size") & (table["metric"] == "auroc")]["value"].item()
    assert f"A baseline that uses brain size only reaches {fixed(size)}; the network is " in text
    assert "RBF SVM on voxels" in text


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


def test_second_write_is_identical(complete):
    pictures = sorted((complete.path / "figures").glob("*.png"))
    page, before = page_without_times(complete), [file.read_bytes() for file in pictures]
    write_report(complete)
    assert [file.read_bytes() for file in pictures] == before
    assert page_without_times(complete) == page


def without_maps(run):
    for folder in ("attributions", "group", "evaluation"):
        shutil.rmtree(run.path / folder)


def without_truth(run):
    for path in [*(run.path / "images").glob("*_mask.nii.gz"), *(run.path / "group").glob("desc-truth*")]:
        path.unlink()
    run.evaluation("localization").unlink()
    summary = read_tsv(run.evaluation("summary"))
    write_tsv(summary[summary["table"] != "localization"], run.evaluation("summary"))


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
    for path in (changed.path / "group").glob("*_class-*male_*"):
        path.rename(path.with_name(re.sub("female|male", lambda match: names[match[0]], path.name)))
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
    assert "2 folds, 2 seeds" in html
    assert "48 predictions" in text_of(html)
    assert "the 4 networks (one for each fold and seed)" in text_of(html)


def test_performance_at_chance_is_stated(changed, undrawn):
    metrics = json.loads(changed.metrics.read_text())
    at_chance = {"test/auroc": 0.55, "test/auroc_ci_low": 0.41, "test/auroc_ci_high": 0.68}
    write_json({**metrics, **at_chance}, changed.metrics)
    assert "includes 0.5" in write_report(changed).read_text()


def test_shown_participants_are_the_most_confident(complete):
    table = read_tsv(complete.predictions)
    names = ["female", "male"]
    prob = table[[f"prob_{name}" for name in names]].to_numpy()
    right = prob.argmax(1) == table["target"]
    shown = ReportContents(complete).shown_subjects()
    assert [s.correct for s in shown] == sorted([s.correct for s in shown], reverse=True)
    for subject in shown:
        same = (right == subject.correct) & (table["target"] == names.index(subject.label))
        assert subject.probability == prob[same].max()


def test_empty_and_nan_maps_are_drawn(changed, undrawn):
    for file in (changed.path / "attributions").rglob("*_desc-LRP_attribution.nii.gz"):
        img = load_img(file)
        save_img(np.zeros(img.shape, np.float32), img.affine, file)
    for name, value in (("female", np.nan), ("male", 0)):
        path = changed.group_map("LRP", f"class-{name}", "mean")
        img = load_img(path)
        save_img(np.full(img.shape, value, np.float32), img.affine, path)
    assert "All values are zero" in write_report(changed).read_text()


def test_maps_in_another_space_are_shown_on_the_images(changed, undrawn):
    for file in list(changed.path.rglob("*_space-MNI152_*")):
        file.rename(file.with_name(file.name.replace("space-MNI152", "space-native")))
    html = write_report(changed).read_text()
    assert "not in MNI152" in html
    assert "MNI152 template" not in html
    assert 'id="subjects"' in html


def test_names_of_files_follow_the_run_directory(complete):
    contents = ReportContents(complete)
    assert contents.run.space == "MNI152"
    assert contents.methods == METHODS
    targets = read_tsv(complete.predictions)["target"]
    assert contents.n_explained("GradCAM", "female") == (targets == 0).sum()
    name = bids_name("sub-0001", space="MNI152", desc="GradCAM", suffix="attribution")
    assert contents.maps_of("sub-0001", "", 0)["GradCAM"].name == f"{name}.nii.gz"
    assert sidecar(contents.maps_of("sub-0001", "", 0)["GradCAM"]).exists()


BOUNDS = ((-80.0, 80.0), (-110.0, 80.0), (-70.0, 90.0))


@pytest.fixture
def left_blob():
    """An anisotropic image with a blob at (-30, -50, 20) mm."""
    affine = np.diag([4.0, 5.0, 3.0, 1])
    affine[:3, 3] = (-82, -115, -71)
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices((42, 40, 55)), 0, -1))
    data = np.exp(-(((world - (-30, -50, 20)) / 15) ** 2).sum(-1))
    return nib.Nifti1Image(data.astype(np.float32), affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("cut", [("x", -28.0), ("y", -47.0), ("z", 21.0)])
def test_slices_do_not_depend_on_the_axes_of_the_file(left_blob, axis, cut):
    affine = left_blob.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (left_blob.shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = nib.Nifti1Image(np.flip(left_blob.get_fdata(), axis).astype(np.float32), affine)
    same = slices.world_slice(left_blob, *cut, BOUNDS)
    np.testing.assert_allclose(slices.world_slice(flipped, *cut, BOUNDS), same, atol=1e-6)
    assert same.max() > 0.9


def test_left_is_on_the_left_side(left_blob):
    for cut, peak in ((("z", 20.0), (-30, -50)), (("y", -50.0), (-30, 20)), (("x", -30.0), (-50, 20))):
        picture = slices.world_slice(left_blob, *cut, BOUNDS)
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        right, up = slices.IN_PLANE[cut[0]]
        assert abs(BOUNDS[right][0] + column - peak[0]) <= 2
        assert abs(BOUNDS[up][0] + row - peak[1]) <= 2
    head = nib.Nifti1Image(np.ones(left_blob.shape, np.float32), left_blob.affine)
    scale = ColourScale(1, False)
    fig = brain_figures.slice_figure(head, {"a": left_blob}, [("z", 20.0)], scale, label="a")
    (board,) = fig.axes
    x0, x1, bottom, top = board.images[0].get_extent()
    assert x0 < x1
    assert bottom > top  # inches from above
    assert board.images[0].origin == "lower"
    letters = {text.get_text(): text.get_position()[0] for text in board.texts}
    assert letters["L"] == x0
    assert letters["R"] == x1
    green = np.asarray(board.images[0].get_array())[..., 1]  # least where the map is strongest
    row, column = np.unravel_index(green.argmin(), green.shape)
    (left, _), (back, _), _ = slices.world_bounds(head)
    assert abs(left + column + 30) <= 4
    assert abs(back + row + 50) <= 4


def test_roc_matches_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    target = rng.random(80) < 0.4
    score = (target + rng.normal(0, 1, 80)).round(1)  # with ties
    weights = rng.integers(0, 3, 80)
    grid = np.linspace(0, 1, 4001)
    area = np.trapezoid(figures.roc(target, score, weights, grid), grid)
    assert area == pytest.approx(roc_auc_score(target, score, sample_weight=weights), abs=2e-3)


def test_plotting_needs_no_torch():
    code = (
        "import sys, xai_brain.reporting.html_report\n"
        "bad = {'torch', 'captum', 'pytorch_lightning', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


# -- the first screen, and one report that does not contradict itself ------------------------------


def set_scores(run, **scores):
    """Change scores of metrics.json: name to (value, low, high)."""
    metrics = json.loads(run.metrics.read_text())
    for name, values in scores.items():
        for end, value in zip(("", "_ci_low", "_ci_high"), values, strict=True):
            metrics[f"test/{name}{end}"] = value
    write_json(metrics, run.metrics)


def set_size_difference(run, low, high):
    """Interval of the AUROC of the network minus that of brain size."""
    table = read_tsv(run.evaluation("baselines"))
    size = (table["name"] == "brain_size") & (table["metric"] == "auroc")
    columns = ["difference", "difference_ci_low", "difference_ci_high"]
    table.loc[size, columns] = [(low + high) / 2, low, high]
    table.loc[table["metric"] == "auroc_size_matched", "ci_low"] = 0.3
    write_tsv(table, run.evaluation("baselines"))


GOOD = {"auroc": (0.9, 0.8, 0.95), "balanced_accuracy": (0.85, 0.75, 0.9)}
MAP_SECTIONS = ("maps", "subjects", "localization", "agreement")


@pytest.mark.parametrize(
    ("scores", "size", "answer", "warning"),
    [
        (GOOD, (0.1, 0.3), "Yes", None),
        (GOOD | {"auroc": (0.6, 0.45, 0.7)}, (0.1, 0.3), "No evidence", "These maps should not be interpr"),
        (
            GOOD | {"balanced_accuracy": (0.61, 0.52, 0.7)},
            (0.1, 0.3),
            "Barely",
            "The network is close to chance: the balanced accuracy is 0.61 (95 % CI 0.52 to 0.70",
        ),
        (GOOD, (-0.1, 0.2), "Yes", "Brain size may explain the performance: brain size only reaches"),
    ],
)
def test_verdict_and_its_warning_in_every_section_of_maps(changed, undrawn, scores, size, answer, warning):
    set_scores(changed, **scores)
    set_size_difference(changed, *size)
    html = write_report(changed).read_text()
    text = text_of(html)
    assert f"Has the network learned? {answer} " in text
    assert "May the maps be interpreted?" in text
    assert "Do the methods agree?" in text
    for name in MAP_SECTIONS:
        section = html.split(f'<section id="{name}">')[1].split("</section>")[0]
        assert ("callout warn" in section) == (warning is not None)
        assert warning is None or warning in section


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
    config = yaml.safe_load(changed.config.read_text())
    for group, values in settings.items():
        config[group] = {**(config.get(group) or {}), **values}
    changed.config.write_text(yaml.safe_dump(config))
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
    config = yaml.safe_load(changed.config.read_text())
    config["data"]["brain_size_column"] = None
    changed.config.write_text(yaml.safe_dump(config))
    assert "data.brain_size_column=brain_volume_ml" in text_of(write_report(changed).read_text())


@pytest.fixture(scope="module")
def compared(complete, tmp_path_factory):
    """A copy of the run: by their sidecars all maps explain one output; with groups, regions, channels."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(complete.path, folder / "run", ignore=shutil.ignore_patterns("report.html", "figures"))
    done = RunDirectory(folder / "run")
    for file in (done.path / "attributions").rglob("*_attribution.json"):
        output = {"TargetRule": "male", "TargetName": "male", "Output": "logit_difference"}
        write_json({**read_json(file), **output}, file)
    grid = load_img(next((done.path / "images").glob("*_T1w.nii.gz")))
    x_mm, y_mm, z_mm = np.moveaxis(
        nib.affines.apply_affine(grid.affine, np.stack(np.indices(grid.shape), -1)), -1, 0
    )
    box = (np.abs(x_mm) < 50) & (y_mm > -60) & (y_mm < 25) & (z_mm > -10) & (z_mm < 45)
    save_img(
        np.where(box, np.where(x_mm < 0, 1, 2), 0).astype(np.int16),
        grid.affine,
        folder / "halves_dseg.nii.gz",
    )
    (folder / "halves_dseg.tsv").write_text("index\tname\n1\thalf_L\n2\thalf_R\n")
    changes = [
        f"run_dir={done.path}",
        f"evaluation.atlas={folder / 'halves_dseg.nii.gz'}",
        "evaluation.n_perm=50",
        "evaluation.group.n_perm=20",
        "evaluation.first_layer=true",
    ]
    evaluate(stage_settings("evaluate", changes))
    write_report(done)
    return done, folder / "halves_dseg.nii.gz"


def test_differences_have_one_direction_in_all_sections(compared):
    done, atlas = compared
    html = done.report.read_text()
    text = text_of(html)
    assert "female minus male" not in re.sub(r"\([^)]*\)", "", text)
    sections_of = {part.split('"')[0]: text_of("</style>" + part) for part in html.split('<section id="')[1:]}
    assert "t for male minus female" in sections_of["groups"]
    assert "Red: higher in male; blue: higher in female" in sections_of["groups"]
    assert "male minus female, adjusted: the ten regions" in sections_of["regions"]
    assert "red: higher in male; blue: higher in female" in sections_of["regions"]
    assert "male minus female; filled" in sections_of["first-layer"]
    assert "(male minus female)" in sections_of["cohort"]
    assert "male minus female" in sections_of["agreement"]  # of the differences of two methods
    assert "Classes were compared (male minus female) at each voxel" in sections_of["methods"]
    assert "compared between the classes (male minus female) by a linear model" in sections_of["methods"]
    pictures = [path.name for path in (done.path / "figures").glob("*minus*")]
    assert len(pictures) > len(METHODS)
    assert all("male-minus-female" in name.replace("female-minus", "") for name in pictures)
    names = {path.name for path in (done.path / "group").glob("*female*") if "minus" in path.name}
    assert names
    assert all("_male-minus-female_" in name for name in names)
    labels = np.asanyarray(load_img(atlas).dataobj)
    table = read_tsv(done.evaluation("region_groups")).query("measure == 'mean'")
    for row in table.to_dict("records"):
        voxels = load_img(done.group_map(row["method"], "male-minus-female", "difference")).get_fdata()
        means = [
            load_img(done.group_map(row["method"], f"class-{name}", "mean")).get_fdata()
            for name in ("male", "female")
        ]
        here = (labels == row["index"]) & (voxels != 0)
        expected = (means[0] - means[1])[here].mean()
        assert voxels[here].mean() == pytest.approx(expected, rel=1e-4, abs=1e-12)
        assert row["mean_b"] - row["mean_a"] == pytest.approx(
            expected, rel=0.1, abs=1e-3 * abs(row["mean_a"])
        )


def test_regions_and_voxels_have_the_same_confounds(compared):
    done, _ = compared
    text = text_of(done.report.read_text())
    confounds = re.search(r"Confounds: (age[^.]*)\.", text)[1]
    assert confounds.endswith(" and fold")
    assert "brain_volume_ml" in confounds
    assert f"as in the voxel-wise tests, and adjusted for {confounds}." in text
    tests = read_tsv(done.evaluation("group_tests")).query("method != 'image'")
    assert set(tests["confounds"]) == set(read_tsv(done.evaluation("region_groups"))["confounds"])
    assert "Freedman" in text[text.rindex("References") :]


def test_methods_text_describes_the_tests_that_were_made(compared):
    done, _ = compared
    text = dict(methods_text(ReportContents(done)))
    tests = read_tsv(done.evaluation("group_tests")).query("reason.isna()").iloc[0]
    group = text["Group comparison"]
    images = "(the confounds age and brain_volume_ml for the images)"
    assert f"the confounds age, brain_volume_ml and fold {images} was fitted to one map" in group
    assert "from 20 permutations of the residuals" in group
    assert "maximum of |t| (family-wise error rate 0.05)" in group
    assert f"({int(tests['n_voxels'])} voxels)" in group
    assert "the prepared images" in group
    assert "one output for all participants" in group
    assert "in 2 regions of the atlas halves" in text["Regions"]
    assert "50 permutations of residuals within folds" in text["Regions"]
    assert "false discovery rate" in text["Regions"]
    assert "the confounds age, brain_volume_ml and fold" in text["Regions"]
    assert "first layer" in text["Further analyses"]
    assert (
        "Baselines were fitted on the same folds: brain size only and RBF SVM on voxels." in text["Baselines"]
    )
    cited = done.report.read_text().split('<section id="references">')[1]
    for author in ("Freedman D", "Winkler AM", "Guo C", "Arras L", "Zhang J", "Kokhlikyan N", "Adebayo J"):
        assert author in cited


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
        if not re.match(r"AUROC by DeLong|AUROC in pairs", text[match.start() :])
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
        [line] = [line for line in lines if f"(test/{name})" in line]
        assert title in line
        assert f"{metrics[f'test/{name}']:.3f}" in line


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


def test_no_style_rule_is_written_twice():
    lines = (Path(html_report.__file__).parent / "report.css").read_text().splitlines()
    rules = [line.strip() for line in lines if "{" in line and "}" in line]
    assert len(rules) == len(set(rules))
