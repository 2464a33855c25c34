"""Differences between classes in a report: one direction, the same confounds, significant regions."""

from __future__ import annotations

import re
import shutil

import nibabel as nib
import nilearn.plotting
import numpy as np
import pandas as pd
import pytest
from report_runs import METHODS, set_differences, text_of

from xai_brain.io.nifti import load_img
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.differences import Differences, differences_of, named_places
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures.regions import glass_brain_figure
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.sections import groups, maps, regions
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv


def test_differences_have_one_direction_in_all_sections(compared):
    done, atlas = compared
    html = done.report.read_text()
    text = text_of(html)
    assert "female minus male" not in re.sub(r"\([^)]*\)", "", text)
    sections_of = {part.split('"')[0]: text_of("</style>" + part) for part in html.split('<section id="')[1:]}
    assert "t for male minus female" in sections_of["groups"]
    assert "Red: higher in male; blue: higher in female" in sections_of["groups"]
    assert "male minus female, adjusted: the 2 regions of halves_dseg with" in sections_of["regions"]
    assert "red: higher in male; blue: higher in female" in sections_of["regions"]
    assert "male minus female; filled" in sections_of["first-layer"]
    assert "(male minus female)" in sections_of["cohort"]
    assert "male minus female" in sections_of["agreement"]  # of the differences of two methods
    assert "Classes were compared (male minus female) at each voxel" in sections_of["methods"]
    assert "compared between the classes (male minus female) by a linear model" in sections_of["methods"]
    pictures = [path.name for path in (done.path / "figures").glob("*minus*")]
    assert len(pictures) > len(METHODS)
    assert all("male-minus-female" in name.replace("female-minus", "") for name in pictures)
    names = {path.name for path in (done.path / "group").rglob("*female*") if "minus" in path.name}
    assert names
    assert all("+male+minus+female+" in name for name in names)
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
    assert "brain size (brain_volume_ml)" in confounds
    assert f"as in the voxel-wise tests, and adjusted for {confounds}." in text
    tests = read_tsv(done.evaluation("group_tests")).query("method != 'image'")
    assert set(tests["confounds"]) == set(read_tsv(done.evaluation("region_groups"))["confounds"])
    assert "Freedman" in text[text.rindex("References") :]


@pytest.fixture
def tested(compared, tmp_path):
    """A copy of the compared run, to be changed."""
    done, _ = compared
    shutil.copytree(done.path, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "figures"))
    return RunDirectory(tmp_path / "run")


def regions_of(method, **columns):
    """Rows of region_groups.tsv of both measures and four regions."""
    names = ["amygdala", "cuneus", "insula", "pons"]
    rows = [pd.DataFrame({"index": range(4), "region": names, **columns}).assign(measure="mean")]
    rows.append(rows[0].assign(measure="mass_share", q=1.0))
    return pd.concat(rows).assign(method=method)


def test_significant_regions_are_named_in_the_order_of_the_table():
    rows = regions_of(
        "LRP", p=[0.5, 0.001, 0.001, 0.04], q=[0.5, 0.002, 0.002, 0.06], difference=[9.0, -1.0, 2.0, 1.0]
    )
    assert regions.in_order(rows[rows["measure"] == "mean"])["region"].tolist() == [
        "insula", "cuneus", "pons", "amygdala"
    ]  # fmt: skip
    assert regions.significant_regions(rows, "male") == (
        "In the mean value, 2 of 4 regions differ: insula (higher in male, q = 0.002) and cuneus (lower in "
        "male, q = 0.002). In the share of the whole map, none of 4 regions differ."
    )


def test_the_figure_of_regions_shows_those_of_the_table_and_outlines_significant_ones(monkeypatch):
    data = np.zeros((20, 24, 18), np.float32)
    data[4:8, 8:12, 6:10], data[12:16, 8:12, 6:10], data[8:10, 2:5, 3:6] = 0.1, -0.5, 0.7
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-80, -110, -70)
    drawn = []
    draw = nilearn.plotting.plot_glass_brain
    monkeypatch.setattr(
        nilearn.plotting, "plot_glass_brain", lambda img, **options: drawn.append(img) or draw(img, **options)
    )
    fig = glass_brain_figure(
        {"LRP": nib.Nifti1Image(data, affine)}, {"LRP": [0.1, -0.5]}, {"LRP": [float(np.float32(-0.5))]}
    )
    assert set(np.unique(drawn[0].get_fdata().round(3))) == {-0.5, 0.0, 0.1}
    texts = [text.get_text() for text in fig.texts]
    assert any("the 2 regions with the lowest p; outlined: significant" in text for text in texts)


def test_regions_that_differ_are_named_in_the_report(tested, undrawn):
    table = read_tsv(tested.evaluation("region_groups"))
    one = (table["method"] == "LRP") & (table["region"] == "half_L") & (table["measure"] == "mean")
    table["q"] = np.where(one, 0.004, 0.8)
    table.loc[one, ["p", "difference"]] = [0.002, -0.3]
    write_tsv(table, tested.evaluation("region_groups"))
    html = write_report(tested).read_text()
    section = text_of("</style>" + html.split('<section id="regions"')[1].split("</section>")[0])
    assert (
        "LRP (q ≤ 0.05). In the mean value, 1 of 2 regions differs: half_L (lower in male, q = 0.004)."
        in section
    )
    assert "GradCAM (q ≤ 0.05). In the mean value, none of 2 regions differ." in section
    assert "half_L *" in section
    assert "half_R *" not in section


@pytest.mark.parametrize(
    ("n", "n_clusters", "words"),
    [
        (0, 0, "No voxel is significant (family-wise p ≤ 0.05): no evidence of a difference"),
        (1, 0, "No cluster of at least 5 voxels is significant (family-wise p ≤ 0.05); 1 scattered voxel is"),
        (
            3,
            0,
            "No cluster of at least 5 voxels is significant (family-wise p ≤ 0.05); 3 scattered voxels are",
        ),
        (9, 1, "1 significant cluster (family-wise p ≤ 0.05, at least 5 voxels)"),
        (20, 2, "2 significant clusters (family-wise p ≤ 0.05, at least 5 voxels)"),
    ],
)
def test_significance_in_words(n, n_clusters, words):
    row = {"n_significant": n, "min_cluster_voxels": 5, "alpha": 0.05}
    assert groups.significance(row, n_clusters) == words


def test_maps_that_are_not_significant_say_so_in_text_and_figure(tested, undrawn, monkeypatch):
    table = read_tsv(tested.evaluation("group_tests"))
    write_tsv(table.assign(threshold_t=1e6, n_significant=0), tested.evaluation("group_tests"))
    n_tests = int(table["reason"].isna().sum())
    assert n_tests == len(METHODS) + 1  # and the images
    notes = []
    draw = brain_figures.slice_figure

    def noted(*args, note="", **options):
        notes.append(note)
        return draw(*args, note=note, **options)

    monkeypatch.setattr(brain_figures, "slice_figure", noted)
    section = write_report(tested).read_text().split('<section id="groups"')[1].split("</section>")[0]
    sentence = "No voxel is significant (family-wise p ≤ 0.05): no evidence of a difference."
    assert notes.count(sentence) == 2 * n_tests  # for the page and for narrow screens
    assert section.count(f"<b>{sentence}</b>") == n_tests
    assert section.count("The colours show where |t| is largest, not a significant difference.") == n_tests
    assert section.count("<source media=") == n_tests + 1  # and the overlap of the maps


def test_the_verdict_names_the_places_of_significant_differences(tested, undrawn):
    set_differences(tested)
    found = differences_of(ReportContents(tested))
    assert found.found == ("GradCAM", "LRP")
    assert found.answer == "In 2 of 5 methods"
    assert found.sentences == (
        "Clusters (family-wise p ≤ 0.05): GradCAM: insula, cuneus and (0, 0, 0) mm; none in the 4 other "
        "methods and the prepared images.",
        "Regions (q ≤ 0.05): LRP: half_L; none in the 4 other methods.",
    )
    html = write_report(tested).read_text()
    verdict = text_of("</style>" + html.split('<section id="verdict"')[1].split("</section>")[0])
    assert "Where do the maps of the classes differ? In 2 of 5 methods " in verdict
    for words in found.sentences:
        assert words in verdict
    assert "Thresholds are corrected within each method, not over the 5 methods." in verdict
    section = text_of("</style>" + html.split('<section id="groups"')[1].split("</section>")[0])
    assert "not corrected over the 6 tests of this table" in section
    section = text_of("</style>" + html.split('<section id="regions"')[1].split("</section>")[0])
    assert "Hochberg 1995), not over the 5 methods" in section


def test_the_verdict_names_scattered_voxels_and_shares_of_regions(tested):
    set_differences(tested)
    tests, regions = read_tsv(tested.evaluation("group_tests")), read_tsv(tested.evaluation("region_groups"))
    scattered = tests["method"] == "GuidedGradCAM"
    write_tsv(tests.assign(n_significant=np.where(scattered, 3, 0)), tested.evaluation("group_tests"))
    share = (regions["measure"] == "mass_share") & (regions["region"] == "half_R")
    in_share = (regions["method"] == "GuidedGradCAM") & share
    write_tsv(regions.assign(q=np.where(in_share, 0.03, regions["q"])), tested.evaluation("region_groups"))
    found = differences_of(ReportContents(tested))
    assert found.found == ("GradCAM", "GuidedGradCAM", "LRP")
    assert "GuidedGradCAM: 3 voxels in no cluster of at least 5" in found.sentences[0]
    assert "GuidedGradCAM: half_R (share of the map)" in found.sentences[1]


def test_without_a_comparison_the_verdict_has_no_such_question(small_run):
    assert differences_of(ReportContents(small_run)) is None
    assert "Where do the maps" not in small_run.report.read_text()


def test_places_without_a_region_have_their_coordinates():
    rows = pd.DataFrame({"x_mm": [-12.0, 3.4], "y_mm": 0.0, "z_mm": [8.0, 1.0], "peak_t": [5.0, -6.0]})
    assert named_places(rows) == "(3, 0, 1) mm and (−12, 0, 8) mm"
    assert named_places(rows, most=1) == "(3, 0, 1) mm and 1 more"
    assert named_places(rows.head(0)) == ""


def test_one_method_and_one_pair_of_classes_need_no_statement_about_other_tests():
    assert Differences(("LRP",), (), ("",), 1).correction == ""
    assert Differences(("LRP",), (), ("",), 1).answer == "No evidence"
    assert Differences(("LRP",), ("LRP",), ("",), 3).correction == (
        "Thresholds are corrected within each method and pair of classes, not over the 3 pairs of classes"
    )


def test_dropped_confounds_are_listed_once():
    rows = [{"method": name, "dropped": "site: the same for all"} for name in ("LRP", "GradCAM", "image")]
    assert groups.dropped_confounds(rows) == ["site: the same for all"]
    rows[0]["dropped"] = "fold=1: follows from age"
    assert groups.dropped_confounds(rows) == [
        "fold 2: follows from age (LRP)",
        "site: the same for all (GradCAM and Prepared images)",
    ]


def test_mean_maps_state_the_class_that_they_explain():
    predicted = {"TargetName": "male", "TargetRule": "predicted"}
    assert maps._explained([predicted, {"TargetName": "female", "TargetRule": "predicted"}]) == (
        "Each map explains the predicted class of its participant."
    )
    one = {"TargetName": "male", "TargetRule": "given"}
    assert maps._explained([one, one]) == (
        "All maps explain the class male, also those of participants of other classes."
    )
    assert maps._explained([{**one, "Kind": "baseline"}]) == ""
    assert maps._explained([{"TargetName": "male"}]) == ""
