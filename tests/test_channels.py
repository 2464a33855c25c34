"""Maps of inputs with several channels: their files, their shares, the report and the viewer."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import SHAPE, without_rendering
from report_runs import text_of
from torch import nn

import xai_brain as xb
from xai_brain.cli import main
from xai_brain.metrics.comparison.channels import channel_shares
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import RunDirectory, read_json, sidecar
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.viewer import SliceViewer

AFFINE = np.diag([-2.0, 2.5, 3.0, 1.0])
METHODS = ["Saliency", "InputXGradient", "GradCAM"]
CHANNELS = ["T1", "FLAIR"]


class TwoChannels(nn.Module):
    """The second channel has three times the weight of the first."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        x = x * torch.tensor([1.0, 3.0])[:, None, None, None]
        return self.linear(self.relu(self.conv(x)).mean((2, 3, 4)))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of two channels of three participants: the second is 0 where the first is high."""
    folder, rng, pairs = tmp_path_factory.mktemp("images"), np.random.default_rng(1), []
    for k in range(3):
        first = np.zeros(SHAPE, np.float32)
        first[2:-2, 2:-2, 2:-2] = rng.uniform(0.2, 1, [n - 4 for n in SHAPE])
        pair = {"T1w": first, "FLAIR": np.where(first > 0, 1.5 - first, 0).astype(np.float32)}
        for name, data in pair.items():
            nib.save(nib.Nifti1Image(data, AFFINE), folder / f"sub-{k}_{name}.nii.gz")
        pairs.append([folder / f"sub-{k}_{name}.nii.gz" for name in pair])
    return pairs


@pytest.fixture(scope="module")
def explained(images, tmp_path_factory):
    """Maps of three methods in a folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("maps") / "run"
    classes = ["female", "male"]
    xb.explain(TwoChannels(), images, METHODS, class_names=classes, channel_names=CHANNELS, folder=folder)
    return RunDirectory(folder)


@pytest.fixture(scope="module")
def page(explained):
    with pytest.MonkeyPatch.context() as patch:
        without_rendering(patch)
        return write_report(explained).read_text()


def values(run, participant, name):
    return np.asanyarray(nib.load(run.attribution(participant, None, name, 0)).dataobj)


def test_shares_are_those_of_absolute_values_with_intervals_over_participants():
    rng = np.random.default_rng(0)
    maps = [[[rng.normal(0, 1 + k, SHAPE) for k in range(2)]] for _ in range(5)]
    maps.append([[np.zeros(SHAPE)] * 2])  # an empty map has no shares
    shares = [np.abs(a).sum() / (np.abs(a).sum() + np.abs(b).sum()) for [[a, b]] in maps[:5]]
    table = channel_shares([("Saliency", maps)], CHANNELS).set_index("channel")
    assert table.loc["T1", ["mean", "ci_low", "ci_high"]].tolist() == pytest.approx(
        bootstrap_mean(np.array(shares)), rel=1e-12
    )
    assert table["mean"].sum() == pytest.approx(1)
    assert set(table["n"]) == {5}


def test_every_channel_has_its_image_and_its_meaning(explained, images):
    for k, (first, second) in enumerate(images):
        for path, own in ((first, explained.image(f"sub-{k}", None)),
                          (second, explained.channel_image(f"sub-{k}", None, "FLAIR"))):  # fmt: skip
            given, written = nib.load(path).get_fdata(), nib.load(own)
            assert np.allclose(written.affine, AFFINE)
            inside = given > 0
            assert np.corrcoef(given[inside], written.get_fdata()[inside])[0, 1] > 0.999
    meanings = {
        name: read_json(sidecar(explained.attribution("sub-0", None, name, 0)))["ValueMeaning"]
        for name in ("Saliency", "Saliency+T1", "GradCAM")
    }
    assert meanings["Saliency"] == f"sum over channels; of each: {meanings['Saliency+T1']}"
    assert "sum over channels" not in meanings["GradCAM"]


def test_verify_checks_every_channel(explained, images, tmp_path, capsys):
    assert main(["verify", str(explained.path)]) == 0
    assert "6 images" in capsys.readouterr().out
    folder = tmp_path / "copy"
    shutil.copytree(explained.path, folder)
    run = RunDirectory(folder)
    altered, gone = (run.attribution(f"sub-{k}", None, "Saliency+FLAIR", 0) for k in range(2))
    altered.write_bytes(altered.read_bytes()[:-1])
    gone.unlink()
    sidecar(gone).unlink()
    second = images[2][1]
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    try:
        assert main(["verify", str(folder)]) == 1
    finally:
        second.write_bytes(content)
    printed = capsys.readouterr().out
    assert [f"{path}: is {word}" in printed for path, word in ((altered, "altered"), (gone, "missing"))] == [
        True
    ] * 2
    assert f"{second}: is altered" in printed
    assert "; 3 missing or altered" in printed


def test_a_channel_is_not_a_method(explained, page):
    contents = ReportContents(explained)
    assert contents.methods == METHODS
    assert contents.channels == CHANNELS
    assert "Saliency+" not in text_of(page)


def test_the_report_shows_the_share_of_each_channel(explained, page):
    section = text_of("</style>" + page.split('<section id="channels"')[1].split("</section>")[0])
    assert "Saliency and InputXGradient have a map for each channel" in section
    assert "GradCAM has one map for all channels." in section
    shares = []
    for k in range(3):
        parts = [np.abs(values(explained, f"sub-{k}", f"Saliency+{name}")).sum() for name in CHANNELS]
        shares.append(parts[1] / sum(parts))
    mean, low, high = bootstrap_mean(np.array(shares))
    assert mean > 0.6
    assert f"{mean:.3f} {low:.3f} to {high:.3f}" in section
    assert 'href="#channels">Channels</a>' in page


def test_the_report_states_nothing_about_the_training_of_a_given_network(page):
    text = text_of(page)
    for words in ("fold", "AdamW", "Kan2020", "z-scored", "classify sex", "1 networks", "(wrong", "nan"):
        assert words not in text.split("Settings and provenance")[0].split("Cohort", 2)[-1], words
    assert "It is not known whether it was trained on some of these 3 participants." in text
    assert "Images of 3 participants were prepared elsewhere [to be added]." in text
    assert "The true classes are not known here." in text


def test_a_channel_is_shown_on_its_own_image(explained, sent):
    viewer = SliceViewer(explained)
    assert [panel["name"] for panel in sent[-1][0]["panels"]] == METHODS
    assert sent[-1][0]["explained"].endswith("Maps of all channels (T1, FLAIR), on the image of T1.")
    at = nib.affines.apply_affine(AFFINE, (5, 6, 7))
    of_sum = {row["name"]: row["value"] for row in viewer.readout(at)["values"]}
    assert [name for name, _ in viewer.channel.options] == ["all", *CHANNELS]
    for name, image in (("T1", explained.image("sub-0", None)),
                        ("FLAIR", explained.channel_image("sub-0", None, "FLAIR"))):  # fmt: skip
        viewer.channel.value = name
        content, _ = sent[-1]
        assert content["title"].endswith(f" · {name}")
        assert f"Channel {name}; one map for all channels: GradCAM." in content["explained"]
        shown = viewer.readout(at)
        assert shown["intensity"] == nib.load(image).get_fdata()[5, 6, 7]
        found = {row["name"]: row["value"] for row in shown["values"]}
        assert found["Saliency"] == values(explained, "sub-0", f"Saliency+{name}")[5, 6, 7]
        assert found["GradCAM"] == of_sum["GradCAM"]
    json.dumps(sent[-1][0])
    assert sent[-1][0]["title"].startswith("sub-0 · predicted ")
    [(meaning, names)] = [each for each in sent[-1][0]["meanings"].items() if "Saliency" in each[1]]
    assert meaning.startswith("positive: higher intensity raises the score of ")
    assert names == ["Saliency"]
    viewer.show("sub-1")  # the channel stays
    assert sent[-1][0]["title"].endswith(" · FLAIR")
    viewer.channel.value = ""
    assert "FLAIR ·" not in sent[-1][0]["title"]


def test_inputs_with_one_channel_have_no_choice(small_run, sent):
    assert SliceViewer(small_run).channel.layout.display == "none"
