"""Text for the methods section of a paper: it follows the settings and results of a run."""

from __future__ import annotations

import html
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from report_runs import (
    METHODS,
    change_settings,
    text_of,
)

from xai_brain import attribution
from xai_brain.io.nifti import GRIDS
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.models.networks.sfcn import SFCN
from xai_brain.models.networks.shallow import ShallowNet
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.texts.architecture import architecture
from xai_brain.reporting.texts.methods_text import methods_text
from xai_brain.reporting.texts.references import REFERENCES, short_citation
from xai_brain.reporting.texts.study_design import image_preparation
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_json, write_tsv


def test_methods_paragraph_describes_the_preparation(complete):
    text = text_of(complete.report.read_text())
    assert "Images of 12 participants".lower() in text.lower()
    assert " mm in MNI152 space and z-scored inside the brain. Values outside the brain" in text
    assert (
        "The 3-D convolutional network of Kan 2020 (3 blocks of a 3×3×3 convolution with 2, 3 and 4 filters, "
        "batch normalisation, ReLU and 2×2×2 maximum pooling, then dropout of 0.5 and a linear layer; "
    ) in text
    assert "was trained to classify sex (female and male)." in text
    table = read_tsv(complete.participants)
    assert f"Their age was {table['age'].mean():.1f} ± {table['age'].std():.1f} years" in text
    assert "Brain extraction and alignment to MNI152 space had been done before, with other software" in text
    assert "resampled (linear interpolation, smoothed against aliasing" in text
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
    change_settings(changed, preprocessing=scaling)
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


def test_methods_text_describes_the_tests_that_were_made(compared):
    done, _ = compared
    text = dict(methods_text(ReportContents(done)))
    tests = read_tsv(done.evaluation("group_tests")).query("reason.isna()").iloc[0]
    group = text["Group comparison"]
    images = "for the images the confounds age and brain size (brain_volume_ml)"
    assert f"the confounds age, brain size (brain_volume_ml) and fold, {images}, was fitted to one" in group
    assert "(family-wise error rate 0.05), without correction over the 5 methods. Voxels" in group
    assert "without correction over the 5 methods, and intervals" in text["Regions"]
    assert "from 20 permutations of the residuals" in group
    assert "maximum of |t| (family-wise error rate 0.05)" in group
    assert f"({int(tests['n_voxels'])} voxels)" in group
    assert "the prepared images" in group
    assert "one output for all participants" in group
    assert "in 2 regions of the atlas halves" in text["Regions"]
    assert "50 permutations of residuals within folds" in text["Regions"]
    assert "false discovery rate" in text["Regions"]
    assert "the confounds age, brain size (brain_volume_ml) and fold" in text["Regions"]
    assert "first layer" in text["Further analyses"]
    assert (
        "Baselines were fitted on the same folds: brain size only and RBF SVM on voxels." in text["Baselines"]
    )
    cited = done.report.read_text().split('<section id="references">')[1]
    for author in ("Freedman D", "Winkler AM", "Guo C", "Arras L", "Zhang J", "Kokhlikyan N", "Adebayo J"):
        assert author in cited


def test_brackets_are_not_nested_in_the_methods_text(compared, small_run):
    for run in (compared[0], small_run):
        for topic, text in methods_text(ReportContents(run)):
            depth = np.cumsum([(char in "([") - (char in ")]") for char in text])
            assert depth.max(initial=0) <= 1 or topic == "Attribution", text  # values of parameters are lists
            assert not re.search(r"\(\(|\[\[", text)


def test_methods_text_follows_the_settings(copied):
    change_settings(
        copied,
        trainer={
            "lr": 0.0125,
            "weight_decay": 0.5,
            "patience": 9,
            "scheduler": "constant",
            "standardize": "mean",
        },
        folds={"validation_fraction": 0.25, "balance_on": ["age"], "random_state": 77},
        augmentation={"max_shift_mm": 3.0, "noise_sd": 0.1},
        preprocessing={"brain": "template"},
    )
    text = dict(methods_text(ReportContents(copied)))
    assert list(text)[:4] == [
        "Participants and images", "Network and training", "Cross-validation", "Calibration and performance",
    ]  # fmt: skip
    assert "of 24 synthetic participants (12 female, 12 male)" in text["Participants and images"]
    assert "the brain of the MNI152 template" in text["Participants and images"]
    trained = text["Network and training"]
    for words in (
        "AdamW (Loshchilov & Hutter 2019), a learning rate of 0.0125 and a weight decay of 0.5, a constant "
        "learning rate, batches of 6 images and up to 2 epochs",
        "stopped after 9 epochs",
        "subtracting the mean of the training participants",
        "augmented by shifts of up to 3 mm along each axis and noise (0.1 SD of the brain).",
        "The random seed of training was 0.",
    ):
        assert words in trained
    assert "2-fold cross-validation" in text["Cross-validation"]
    assert "25 % of the training participants" in text["Cross-validation"]
    assert "Folds were balanced for age." in text["Cross-validation"]
    assert "random state of the division was 77" in text["Cross-validation"]
    assert "(Guo 2017)" in text["Calibration and performance"]
    assert "AUROC, mean over folds" in text["Calibration and performance"]
    assert "(50 draws)" in text["Calibration and performance"]
    assert "relevance rank accuracy" in text["Localisation"]
    assert "strongest 1, 2, 5, 10, 20 and 50 % of voxels" in text["Agreement of methods"]
    assert "Parameters: " in text["Attribution"]
    assert "PyTorch" in text["Software"]
    assert not {"Group comparison", "Regions", "Baselines", "Further analyses"} & set(text)


def test_a_run_without_augmentation_and_calibration_says_so(copied):
    change_settings(copied, trainer={"calibrate": False})
    text = dict(methods_text(ReportContents(copied)))
    assert "No augmentation was used." in text["Network and training"]
    assert "Guo" not in text["Calibration and performance"]


@pytest.mark.parametrize(
    ("network", "settings", "words"),
    [
        (Kan2020, {"channels": [4, 6, 8], "dropout": 0.3}, "with 4, 6 and 8 filters, batch normalisation"),
        (SFCN, {"channels": [4, 6, 8, 5]}, "a 1×1×1 convolution with 5 filters"),
        (ShallowNet, {"channels": 7}, "a 3×3×3 convolution with 7 filters"),
    ],
)
def test_layers_and_number_of_parameters_are_those_of_the_network(copied, network, settings, words):
    target = f"{network.__module__}.{network.__name__}"
    config = yaml.safe_load(copied.config.read_text())
    config["model"] = {"_target_": target, **settings, "weights": None}
    copied.config.write_text(yaml.safe_dump(config))
    grid = GRIDS[config["preprocessing"]["grid"]]
    n = sum(parameter.numel() for parameter in network(grid.shape, 2, **settings).parameters())
    text = architecture(ReportContents(copied))
    assert words in text
    assert f"{n:,} parameters" in text
    assert target not in text


def test_a_network_of_the_user_is_named_with_its_settings(copied):
    config = yaml.safe_load(copied.config.read_text())
    config["model"] = {"_target_": "mine.Net", "width": 8, "weights": None}
    copied.config.write_text(yaml.safe_dump(config))
    assert architecture(ReportContents(copied)) == "A 3-D convolutional network (mine.Net; width = 8)"


def test_every_citation_has_a_reference_and_every_reference_is_cited(compared):
    done, _ = compared
    text, listed = done.report.read_text().split('<section id="references">')
    listed = html.unescape(listed.split("</section>")[0])
    text = html.unescape(text_of(text))
    cited = {key for key in REFERENCES if key in text}
    assert {"DeLong 1988", "Nadeau & Bengio 2003", "Benjamini & Hochberg 1995"} <= cited
    assert {key for key, reference in REFERENCES.items() if reference in listed} == cited
    entries = re.findall(r"<li>(.*?)</li>", listed)
    found = set(re.findall(r"\b([A-Z][A-Za-z]+)(?: & [A-Z][a-z]+)? ((?:19|20)\d\d)\b", text))
    assert len(found) > 8
    for author, year in found:
        assert any(entry.startswith(author) and year in entry for entry in entries), (author, year)


def test_regions_without_voxels_are_counted_separately(compared, tmp_path):
    shutil.copytree(compared[0].path, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    table = read_tsv(run.evaluation("regions"))
    empty = table[table["index"] == 1].assign(index=9, region="elsewhere", n_voxels=0, mean=np.nan)
    write_tsv(pd.concat([table, empty]), run.evaluation("regions"))
    text = dict(methods_text(ReportContents(run)))["Regions"]
    assert "computed in 2 regions of the atlas halves_dseg" in text
    assert "1 further region has no such voxel" in text


def test_variables_that_are_confounds_already_are_not_advised_as_confounds(changed, undrawn):
    metrics = read_json(changed.metrics)
    differences = {"confound/brain_volume_ml": 0.9, "confound/education": 1.2, "confound/sex": 2.0}
    write_json({**metrics, **differences}, changed.metrics)
    text = text_of(write_report(changed).read_text())
    assert "Group comparisons of this run have brain_volume_ml as a confound" in text or (
        "Group comparisons of this run have age and brain_volume_ml as confounds" in text
    )
    assert "Add education to the confounds of the group comparisons" in text
    assert "sex (2.00 SD)" not in text
