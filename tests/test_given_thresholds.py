"""Corrected thresholds of networks that cannot be trained again: copies with randomised parameters."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from given_networks import Pooled
from torch import nn

import xai_brain as xb
from xai_brain.attribution.model_state import AttributionError
from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.runs.threshold_statement import CLAIM, RANDOMIZED, WEAKER_CLAIM
from xai_brain.study.given import randomized
from xai_brain.study.thresholds import null_networks
from xai_brain.study.thresholds.random_parameters import randomize_parameters
from xai_brain.study.thresholds.statistic import corrected_threshold, map_statistics

SHAPE, AFFINE = (9, 11, 10), np.diag([-4.0, 4, 4, 1])
FEW = {"alpha": 0.25, "n_perm": 3}  # 3 networks suffice for this alpha


def volumes(n=5):
    """Smooth images on a background of 0."""
    from scipy import ndimage

    noise = np.random.default_rng(3).normal(size=(n, *SHAPE))
    images = np.zeros_like(noise)
    images[:, 1:-1, 1:-1, 1:-1] = ndimage.gaussian_filter(noise, (0, 1, 1, 1))[:, 1:-1, 1:-1, 1:-1]
    return images.astype(np.float32)


class Normalised(nn.Module):
    """Convolutions with batch normalisation whose parameters are all different."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 9, 3))
        self.head = nn.Linear(9, 7)
        with torch.no_grad():
            for values in self.parameters():
                values.copy_(torch.randn_like(values) / 2)
            self.layers[1].running_mean.fill_(5)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3, 4)))


class Sphere(nn.Module):
    """Logits that are the sum of the intensities in a sphere, and its negative."""

    def __init__(self):
        super().__init__()
        distance = np.linalg.norm(np.stack(np.indices(SHAPE), -1) - (4, 3, 6), axis=-1)
        self.inside = distance < 2.2
        self.linear = nn.Linear(self.inside.size, 1, bias=False)
        self.linear.weight.data[0] = torch.from_numpy(self.inside.ravel()).float()

    def forward(self, x):
        value = self.linear(x.flatten(1))
        return torch.cat([-value, value], 1)


class Mean(nn.Module):
    """Logits without parameters."""

    def forward(self, x):
        value = x.mean((1, 2, 3, 4))
        return torch.stack([-value, value], 1)


def explained(network, methods=("Saliency",), **more):
    return xb.explain(network, volumes(), list(methods), target=1, affine=AFFINE, **more)


def state(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


# -- randomised networks ---------------------------------------------------------------------------
def test_every_tensor_of_a_copy_has_the_same_values_in_another_order():
    given = Normalised().eval()
    network, before = copy.deepcopy(given), state(given)
    inputs = torch.from_numpy(volumes())[:, None]
    randomize_parameters(network, inputs.split(3), 1)
    for (name, old), new in zip(given.named_parameters(), network.parameters(), strict=True):
        assert not torch.equal(old, new), name
        assert len(old.unique()) > 6
        assert torch.equal(old.flatten().sort()[0], new.flatten().sort()[0])
    again, other = (copy.deepcopy(given) for _ in range(2))
    randomize_parameters(again, inputs.split(3), 1)
    randomize_parameters(other, inputs.split(3), 2)
    assert torch.equal(again.head.weight, network.head.weight)
    assert not torch.equal(other.head.weight, network.head.weight)
    assert all(torch.equal(before[name], values) for name, values in given.state_dict().items())


def test_batch_normalisation_has_the_statistics_of_the_random_activations():
    network = Normalised().eval()
    inputs = torch.from_numpy(volumes(4))[:, None]
    randomize_parameters(network, inputs.split(2), 1)
    convolution, norm = network.layers[:2]
    with torch.no_grad():
        activations = convolution(inputs)
    assert torch.allclose(norm.running_mean, activations.mean((0, 2, 3, 4)), atol=1e-5)
    assert norm.momentum == 0.1
    assert not any(module.training for module in network.modules())


def test_the_given_network_is_left_unchanged():
    network = Normalised().train()
    before = state(network)
    explained(network).threshold(**FEW)
    assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(values.requires_grad for values in network.parameters())


# -- error and power -------------------------------------------------------------------------------
def test_random_networks_exceed_the_threshold_in_at_most_alpha_of_their_maps():
    """The first 39 random networks give the threshold, and 20 further ones are compared with it."""
    images = volumes()
    found = {"max": [], "mass": []}
    for number in range(1, 60):
        network = Pooled().eval()
        randomize_parameters(network, [], number)
        inputs = torch.from_numpy(images)[:, None].requires_grad_()
        (gradients,) = torch.autograd.grad(network(inputs)[:, 1].sum(), inputs)
        products = (inputs * gradients).detach().numpy()[:, 0]
        statistics = [map_statistics(values, values != 0, 64, 2) for values in products]
        for name, of_networks in found.items():
            of_networks.append(np.array([each[name] for each in statistics]))
    for values in found.values():
        assert len({float(each[0]) for each in values}) > 50  # other networks, other maps
        threshold = corrected_threshold(values[:39], 0.05)
        errors = np.array([(each > threshold).mean() for each in values[39:]])
        assert errors.mean() <= 0.05 + 2 * errors.std() / np.sqrt(20)
        assert (np.concatenate(values) > threshold).any()


def test_a_network_that_reads_a_sphere_exceeds_inside_it():
    network = Sphere()
    maps = explained(network)
    clusters = maps.threshold(**FEW, statistic="mass")
    for name in maps.participants:
        above = clusters.img(name, "Saliency").get_fdata() != 0
        assert above.any()
        assert network.inside[above].all()
    assert (
        maps.threshold(**FEW, statistic="max").empty["Saliency"] == 5
    )  # the largest weight is that of every copy


# -- what is stated --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of maps with thresholds; do not change it."""
    path = tmp_path_factory.mktemp("given") / "maps"
    maps = explained(Pooled(), ["Saliency", "GradCAM", "RandomMap"], folder=path)
    maps.threshold(**FEW)
    return path


def test_every_output_carries_the_weaker_statement(folder, tmp_path):
    thresholded = xb.open_maps(folder).threshold(**FEW)
    assert thresholded.reference == RANDOMIZED
    assert thresholded.statement == WEAKER_CLAIM
    assert "reference randomised parameters" in repr(thresholded)
    assert WEAKER_CLAIM in thresholded._repr_html_()
    assert set(read_tsv(folder / "evaluation" / "thresholds.tsv")["reference"]) == {RANDOMIZED}
    assert read_json(folder / "evaluation" / "thresholds.json")["Statement"] == WEAKER_CLAIM
    header = thresholded.img("sub-0001", "GradCAM").header
    assert RANDOMIZED in header["descrip"].item().decode()
    viewer = xb.open_maps(folder).view()
    assert viewer.controls["threshold_kind"].options[-1] == RANDOMIZED
    page = viewer.save_html(tmp_path / "page.html").read_text()
    assert WEAKER_CLAIM in page
    assert CLAIM not in page


def test_the_report_carries_the_weaker_statement(folder):
    assert main(["report", str(folder)]) == 0
    text = RunDirectory(folder).report.read_text()
    section = text[text.index('<section id="thresholds">') :].partition("</section>")[0]
    assert "what exceeds maps of networks with randomised parameters" in section
    assert WEAKER_CLAIM in section
    assert "permuted labels" not in section.replace("cannot be trained on permuted labels", "")
    assert main(["verify", str(folder)]) == 0


def test_results_are_kept_and_the_network_is_needed_only_for_new_ones(folder, monkeypatch, capsys):
    monkeypatch.setattr(randomized, "randomize_parameters", lambda *_: pytest.fail("computed again"))
    maps = xb.open_maps(folder)
    maps.threshold(**FEW, statistic="extent")
    maps.threshold(**FEW, statistic="max")
    maps.threshold()
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="the network is not stored with its maps; call threshold") as error:
        maps.threshold(alpha=0.25, n_perm=4)
    assert "\n" not in str(error.value)


def test_the_cost_is_stated_first_and_maps_without_a_network_are_left_out(capsys):
    maps = explained(Pooled(), ["RandomMap", "Saliency"])
    thresholded = maps.threshold(**FEW)
    lines = capsys.readouterr().out.splitlines()
    stated = next(n for n, line in enumerate(lines) if "3 networks with randomised parameters" in line)
    assert "the maps of 5 images by each, about" in lines[stated]
    assert any("randomised networks" in line for line in lines[stated + 1 :])
    assert any("the maps of RandomMap do not depend on the parameters" in line for line in lines)
    assert set(thresholded.thresholds["method"]) == {"Saliency"}
    with pytest.raises(ConfigError, match="RandomMap"):
        thresholded.img("sub-0001", "RandomMap")


@pytest.mark.parametrize(
    ("network", "methods", "more", "reason"),
    [
        (Mean(), ["Saliency"], {}, "Mean has no parameter tensor with different values"),
        (Pooled(), ["RandomMap"], {}, "the maps of RandomMap do not depend on the parameters"),
        (Pooled(), ["Saliency"], {"blocks": ["site"]}, "the network cannot be trained again"),
        (Pooled(), ["Saliency"], {"n_perm": 2}, "fewer than 3 permutations cannot control"),
    ],
)
def test_what_cannot_be_randomised_is_refused_in_one_line(network, methods, more, reason):
    maps = explained(network, methods)
    with pytest.raises((ConfigError, AttributionError), match=reason) as error:
        maps.threshold(**FEW | more)
    assert len(str(error.value).splitlines()) == 1


def test_a_network_that_was_changed_after_its_maps_were_made_is_refused():
    network = Pooled()
    maps = explained(network)
    with torch.no_grad():
        network.head.weight.mul_(2)
    with pytest.raises(ConfigError, match="have changed since its maps were made"):
        maps.threshold(**FEW)


def test_channels_and_own_targets():
    pairs = np.stack([volumes(3), volumes(3)[::-1]], 1)
    maps = xb.explain(Pooled(n_channels=2), pairs, ["Saliency"], target=[0, 1, 0], affine=AFFINE)
    assert len(maps.threshold(alpha=0.25, n_perm=3, n_participants=2).table) == 3


# -- from the command line -------------------------------------------------------------------------
def test_a_folder_of_explain_network(tmp_path, monkeypatch, capsys):
    from safetensors.torch import save_file

    network, run_dir = Pooled(), tmp_path / "run"
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    trusted = "trusted_modules=[given_networks]"
    given = ["network._target_=given_networks.Pooled", f"network.weights={tmp_path / 'network.safetensors'}"]
    given += ["data=synthetic", "data.cohort.n_subjects=4", "data.class_names=[female,male]"]
    given += ["preprocessing=t1w_4mm", "attribution=[saliency]", f"run_dir={run_dir}", trusted]
    assert main(["explain-network", *given]) == 0
    settings = [f"evaluation.threshold.{name}={value}" for name, value in FEW.items()]
    assert main(["threshold", str(run_dir), trusted, *settings]) == 0
    assert "3 networks with randomised parameters, and the maps of 4 images" in capsys.readouterr().out
    table = read_tsv(run_dir / "evaluation" / "thresholds.tsv")
    assert set(table["reference"]) == {RANDOMIZED}
    monkeypatch.setattr(null_networks, "randomize_parameters", lambda *_: pytest.fail("computed again"))
    assert main(["threshold", str(run_dir), trusted, *settings]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["verify", str(run_dir)]) == 0
    thresholded = xb.open_maps(run_dir, trusted_modules=["given_networks"]).threshold(**FEW)
    assert thresholded.statement == WEAKER_CLAIM


def test_all_networks_of_an_ensemble_are_randomised(small_run, tmp_path, monkeypatch):
    run_dir = tmp_path / "predicted"
    given = [f"networks={small_run.path}", "data=synthetic", "data.cohort.n_subjects=4"]
    given += ["data.cohort.seed=5", "attribution=[saliency]", f"run_dir={run_dir}"]
    assert main(["predict", *given]) == 0
    assert main(["explain", str(run_dir)]) == 0
    states = []
    original = null_networks.randomize_parameters

    def recorded(network, volumes, random_state):
        states.append(random_state)
        original(network, volumes, random_state)

    monkeypatch.setattr(null_networks, "randomize_parameters", recorded)
    thresholded = xb.open_maps(run_dir).threshold(**FEW)
    assert thresholded.reference == RANDOMIZED
    assert len(set(states)) == 3 * 2  # the networks of two folds
