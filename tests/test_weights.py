"""Files of weights: layouts and prefixes that occur, and files that hold no weights of the network."""

from __future__ import annotations

import argparse
import os

import numpy as np
import pytest
import torch
from conftest import SMALL, ToyNet
from safetensors.torch import save_file
from torch import nn

from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.models.calibrated import build_network, read_checkpoint
from xai_brain.models.networks.kan2020 import Kan2020, is_published
from xai_brain.models.weights import WeightsError, is_calibrated, load_weights, read_state_dict

PUBLISHED = {
    "best_model_all": ("hidden{}.0", "hidden{}.1", "linear", (1, 2, 3), (1, 2, 3)),
    "best_model_all_grad": ("features.{}", "features.{}", "classifier.3", (0, 4, 8), (1, 5, 9)),
}


@pytest.fixture
def trained() -> ToyNet:
    torch.manual_seed(3)
    network = ToyNet()
    network.norm.running_mean.normal_()
    return network


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def assert_loaded(path, trained, **options):
    torch.manual_seed(4)
    network = ToyNet()
    load_weights(network, path, **options)
    for key, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "net.", "network.", "module._orig_mod.", "_orig_mod.module.",
     "model.net.", "module.model._orig_mod.net.", "module.module."],
)  # fmt: skip
@pytest.mark.parametrize(
    "container",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best_accuracy": np.float64(0.9)},
        lambda state: {
            "epoch": torch.tensor(3),
            "model_state_dict": state,
            "optimizer_state_dict": {"lr": 1},
        },
        lambda state: {"model": {"state_dict": state}},
    ],
    ids=["bare", "state_dict", "model_state_dict", "nested"],
)
def test_prefixes_and_containers_of_training_frameworks(tmp_path, trained, prefix, container):
    torch.save(container(prefixed(trained.state_dict(), prefix)), tmp_path / "x.pt")
    assert_loaded(tmp_path / "x.pt", trained)


def test_wrappers_of_pytorch_itself(tmp_path, trained):
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(trained))
    torch.save(averaged.state_dict(), tmp_path / "averaged.pt")
    assert_loaded(tmp_path / "averaged.pt", trained)
    state = {key.replace("conv1.", "conv1._orig_mod."): v for key, v in trained.state_dict().items()}
    torch.save(state, tmp_path / "compiled.pt")  # of network.conv1 = torch.compile(network.conv1)
    assert_loaded(tmp_path / "compiled.pt", trained)


def test_a_loss_with_weights_of_its_own_is_not_of_the_network(tmp_path, trained):
    state = {**prefixed(trained.state_dict(), "model."), "criterion.weight": torch.tensor([1.0, 2.0])}
    torch.save({"state_dict": state}, tmp_path / "lightning.ckpt")
    assert_loaded(tmp_path / "lightning.ckpt", trained)


def test_a_prefix_that_is_part_of_the_network_stays(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("model", nn.Linear(3, 2))
    other = nn.Sequential()
    other.add_module("model", nn.Linear(3, 2))
    torch.save(
        {"module.model.weight": network.model.weight, "module.model.bias": network.model.bias}, tmp_path / "x"
    )
    load_weights(other, tmp_path / "x")
    assert torch.equal(other.model.weight, network.model.weight)


def test_safetensors_half_precision_and_files_without_batch_counters(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "x.safetensors")
    assert_loaded(tmp_path / "x.safetensors", trained)
    (tmp_path / "x.safetensors").rename(tmp_path / "x.bin")  # recognised by content
    assert_loaded(tmp_path / "x.bin", trained)
    state = {key: value.half() for key, value in trained.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "half.pt", _use_new_zipfile_serialization=False)
    assert_loaded(tmp_path / "half.pt", trained.half().float())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_both_published_layouts_of_the_paper(tmp_path, name, prefix):
    convolution, norm, linear, at_conv, at_norm = PUBLISHED[name]
    torch.manual_seed(1)
    source = Kan2020((22, 23, 24), channels=(2, 3, 4)).eval()
    source.block2.norm.running_var.uniform_(0.5, 2)
    state = {}
    for key, value in source.state_dict().items():
        block, _, leaf = key.partition(".")
        kind, _, leaf = leaf.rpartition(".")
        number = int(block[-1]) - 1 if block != "linear" else 0
        module = {"conv": convolution.format(at_conv[number]), "norm": norm.format(at_norm[number])}
        state[f"{prefix}{module.get(kind, linear)}.{leaf}"] = value
    torch.save(state, tmp_path / name)
    loaded = Kan2020((22, 23, 24), channels=(2, 3, 4), weights=str(tmp_path / name)).eval()
    volumes = torch.randn(2, 1, 22, 23, 24)
    assert torch.equal(loaded(volumes), source(volumes))
    assert is_published(tmp_path / name)
    torch.save(source.state_dict(), tmp_path / "own")
    assert not is_published(tmp_path / "own")


def test_own_checkpoints_load_into_the_bare_network(small_run):
    checkpoint = small_run.checkpoint(0, 0)
    calibrated = read_checkpoint(checkpoint)
    network = build_network(
        "xai_brain.models.networks.kan2020.Kan2020",
        {"channels": [2, 3, 4], "weights": str(checkpoint)},
        [46, 55, 46],
        2,
    ).eval()
    volumes = torch.randn(2, 1, 46, 55, 46)
    torch.testing.assert_close(network(volumes) / calibrated.temperature, calibrated(volumes))
    assert is_calibrated(checkpoint)
    assert not is_published(checkpoint)


def test_weights_of_networks_without_a_parameter_for_them(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "x.pt")
    network = build_network("conftest.ToyNet", {"weights": str(tmp_path / "x.pt")}, [12, 14, 16], 2)
    assert torch.equal(network.conv2.weight, trained.conv2.weight)


class Payload:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


class Scripted(nn.Module):
    def forward(self, x):
        return x


def save_bytes(content):
    return lambda path, network: path.write_bytes(content)


def save_cut(path, network):
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_cut_safetensors(path, network):
    save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-40])


def save_with_nan(path, network):
    torch.save({**network.state_dict(), "conv2.weight": torch.full((6, 4, 3, 3, 3), torch.nan)}, path)


USELESS = {
    "empty file": (save_bytes(b""), "is empty; download or save it again"),
    "web page": (save_bytes(b"\n<!DOCTYPE html><html>Sign in</html>"), "is a web page; the download"),
    "Git LFS pointer": (save_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "text": (save_bytes(b"hello"), "is neither a PyTorch nor a safetensors file"),
    "HDF5": (save_bytes(b"\x89HDF\r\n\x1a\n"), "is an HDF5 file"),
    "gzip": (save_bytes(b"\x1f\x8b\x08"), "is compressed with gzip"),
    "half of a file": (save_cut, "is damaged, incomplete"),
    "pickle of something": (save_bytes(b"\x80\x02}q\x00."), "is damaged, incomplete or not a PyTorch"),
    "half of safetensors": (save_cut_safetensors, "is a damaged safetensors file"),
    "a whole module": (
        lambda path, network: torch.save(network, path),
        r"contains Python objects \(conftest\.ToyNet\)",
    ),
    "settings of argparse": (
        lambda path, network: torch.save({"state_dict": {}, "args": argparse.Namespace()}, path),
        r"contains Python objects \(argparse\.Namespace\), which could run code, .*and is not loaded",
    ),
    "TorchScript": (
        lambda path, network: torch.jit.trace(Scripted(), torch.zeros(1)).save(path),
        "is a TorchScript archive",
    ),
    "no state dict": (
        lambda path, network: torch.save({"epoch": 3}, path),
        r"contains no state dict \(epoch\)",
    ),
    "a tensor": (
        lambda path, network: torch.save(torch.zeros(3), path),
        r"contains no state dict \(Tensor\)",
    ),
    "folder": (lambda path, network: path.mkdir(), "is a folder, and a file is needed"),
    "nothing": (lambda path, network: None, "does not exist"),
    "NaN": (save_with_nan, r"conv2\.weight holds NaN"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", USELESS)
def test_a_file_that_holds_no_weights_is_one_line_without_unsafe_advice(tmp_path, trained, name):
    save, message = USELESS[name]
    path = tmp_path / "weights.pt"
    save(path, trained)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(ToyNet(), path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_no_code_of_a_weights_file_is_run(tmp_path):
    torch.save({"linear.weight": Payload(tmp_path / "victim")}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"contains Python objects \(\w+\.mkdir\), which could run code"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "victim").exists()


def test_keys_that_do_not_match_are_named_from_both_sides(tmp_path, trained):
    state = prefixed(trained.state_dict(), "module.")
    state["module.head.weight"] = state.pop("module.linear.weight")
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError) as caught:
        load_weights(ToyNet(), tmp_path / "x.pt")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pt'}: its weights are not those of the network ToyNet; "
        "only in the file: head.weight; only in the network: linear.weight"
    )
    torch.save(Kan2020((22, 23, 24), channels=(2, 3, 4)).state_dict(), tmp_path / "x.pt")
    with pytest.raises(
        WeightsError, match=r"only in the file: block1\.conv\.bias, .* and \d+ more; only in"
    ) as caught:
        load_weights(ToyNet(), tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_weights_of_another_grid_are_refused_with_both_shapes(tmp_path):
    torch.save(Kan2020((30, 30, 30), channels=(2, 3, 4)).state_dict(), tmp_path / "x.pt")
    with pytest.raises(
        WeightsError, match=r"linear\.weight has shape \(2, 32\) in the file, \(2, 4\) in the network"
    ):
        Kan2020((22, 23, 24), channels=(2, 3, 4), weights=str(tmp_path / "x.pt"))


def test_training_stops_before_any_work_on_a_useless_file(tmp_path, capsys):
    path = tmp_path / "best_model.pt"
    path.write_text("<html>")
    arguments = [*SMALL, f"run_dir={tmp_path / 'run'}", f"model.weights={path}"]
    assert main(["train", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"xai-brain: {path}: is a web page")
    assert not (tmp_path / "run" / "participants.tsv").exists()


def test_a_network_that_cannot_be_created_is_named_with_its_settings():
    with pytest.raises(
        ConfigError, match=r"model: ShallowNet cannot be created with channels=\[8, 16, 32\]: "
    ):
        build_network(
            "xai_brain.models.networks.shallow.ShallowNet", {"channels": [8, 16, 32]}, [12, 14, 16], 2
        )
