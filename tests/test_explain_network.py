"""``xai-brain explain-network``: a network that was trained elsewhere, on a cohort, in a run directory."""

from __future__ import annotations

import json
import sys
import types

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import nn

from xai_brain import RunDirectory, load_cohort, open_maps
from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.models.networks.archive import MonaiBundle, TorchScript, archive_kind
from xai_brain.models.weights import WeightsError
from xai_brain.runs.directory import read_json, read_tsv, sidecar
from xai_brain.tools.explain_network import explain_network, network_overrides

DATA = [
    *("data=synthetic", "data.cohort.n_subjects=4", "data.class_names=[female,male]"),
    *("preprocessing=t1w_4mm", "attribution=[saliency,grad_cam]"),
]


class Small(nn.Module):
    """Returns logits, or what `returns` makes of them."""

    def __init__(self, n_classes: int = 2, returns: str = "logits"):
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 3, stride=2)
        self.head = nn.Linear(3, n_classes)
        self.returns = returns

    def forward(self, x):
        logits = self.head(torch.relu(self.conv(x)).mean((2, 3, 4)))
        return {"logits": logits, "other": logits[:, :1]} if self.returns == "dictionary" else logits


@pytest.fixture
def package(monkeypatch):
    """The network in a module that can be imported by name."""
    module = types.ModuleType("networks_of_the_test")
    module.Small = Small

    def make() -> nn.Module:
        torch.manual_seed(4)
        return Small()

    module.make = make
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def saved(tmp_path, n_classes=2):
    torch.manual_seed(3)
    network = Small(n_classes)
    path = tmp_path / "network.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def arguments(package, path, run_dir, *more):
    return [
        *(f"network._target_={package}.Small", f"network.weights={path}", f"trusted_modules=[{package}]"),
        *(*DATA, f"run_dir={run_dir}", *more),
    ]


def test_a_run_directory_that_the_other_commands_accept(package, tmp_path, capsys):
    _, path = saved(tmp_path)
    run_dir = tmp_path / "run"
    assert main(["explain-network", *arguments(package, path, run_dir)]) == 0
    run = RunDirectory(run_dir)
    table = read_tsv(run.predictions)
    assert np.allclose(table["prob_female"] + table["prob_male"], 1)
    maps = open_maps(run_dir, trusted_modules=[package])
    about = read_json(sidecar(maps.table["path"].iloc[0]))
    assert about["CheckpointSHA256"]
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.nii.gz")}
    capsys.readouterr()
    assert main(["explain-network", *arguments(package, path, run_dir)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.nii.gz")}
    trusted = f"trusted_modules=[{package}]"
    assert main(["evaluate", str(run_dir), trusted]) == 0
    assert main(["verify", str(run_dir)]) == 0


def test_predictions_are_those_of_the_network(package, tmp_path):
    network, path = saved(tmp_path)
    explain_network(arguments(package, path, tmp_path / "run", "attribution=[saliency]"))
    table = read_tsv(RunDirectory(tmp_path / "run").predictions)
    volumes = load_cohort("synthetic", n_subjects=4).prepare("t1w_4mm").volumes()
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(volumes)[:, None]).softmax(1).numpy()
    assert np.allclose(table[["prob_female", "prob_male"]], expected, atol=1e-5)


def test_one_logit_and_a_part_of_an_output(package, tmp_path):
    _, path = saved(tmp_path, 1)
    explain_network(
        arguments(package, path, tmp_path / "one", "network.one_logit=true", "attribution=[saliency]")
    )
    table = read_tsv(RunDirectory(tmp_path / "one").predictions)
    assert np.allclose(table["prob_female"] + table["prob_male"], 1)
    _, path = saved(tmp_path)
    for name, more in (("plain", []), ("part", ["network.returns=dictionary", "network.output_key=logits"])):
        explain_network(arguments(package, path, tmp_path / name, "attribution=[saliency]", *more))
    plain, part = (
        open_maps(tmp_path / name, trusted_modules=[package]).img("sub-0001", "Saliency")
        for name in ("plain", "part")
    )
    assert np.array_equal(plain.get_fdata(), part.get_fdata())


def test_a_function_that_returns_a_network(package, tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_BRAIN_CACHE", str(tmp_path / "cache"))
    more = [*DATA, f"run_dir={tmp_path / 'run'}", "attribution=[saliency]"]
    with pytest.raises(ConfigError, match=rf"runs code of the package {package}; add trusted_modules="):
        explain_network([f"network.load={package}.make", *more])
    explain_network([f"network.load={package}.make", f"trusted_modules=[{package}]", *more])
    assert len(read_tsv(RunDirectory(tmp_path / "run").predictions)) == 4


def halved(img):
    """A preparation: every second voxel of the image, divided by its largest value."""
    small = img.slicer[::2, ::2, ::2]
    return nib.Nifti1Image((small.get_fdata() / img.get_fdata().max()).astype(np.float32), small.affine)


def test_images_that_a_function_of_the_user_prepares(package, tmp_path, capsys):
    network, path = saved(tmp_path)
    sys.modules[package].halved = halved
    run_dir = tmp_path / "run"
    given = [text for text in arguments(package, path, run_dir) if not text.startswith("preprocessing")]
    given += [f"network.preprocess={package}.halved", "explain.target=true"]
    given += ["attribution=[saliency]"]
    assert main(["explain-network", *given]) == 0
    maps = open_maps(run_dir)
    cohort = load_cohort("synthetic", n_subjects=4)
    image = nib.load(cohort.table["t1w_path"].iloc[0])
    assert maps.img("sub-0001", "Saliency").shape == image.shape
    assert np.allclose(maps.img("sub-0001", "Saliency").affine, image.affine)
    predicted = read_tsv(RunDirectory(run_dir).predictions)
    assert predicted["target"].tolist() == cohort.table["target"].tolist()
    male = predicted["target"] == 1
    assert read_json(RunDirectory(run_dir).metrics)["test/auroc_pooled"] == pytest.approx(
        roc_auc_score(male, predicted["prob_male"])
    )
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(halved(image).get_fdata()).float()[None, None]).softmax(1)
    assert np.allclose(predicted.loc[0, ["prob_female", "prob_male"]].to_numpy(float), expected, atol=1e-5)
    assert main(["verify", str(run_dir)]) == 0
    assert "4 images, 1 tables, 4 maps; 0 missing" in capsys.readouterr().out
    assert main(["explain-network", *given]) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"was made with other settings \(attribution="):
        explain_network([*given, "attribution=[grad_cam]"])


def test_a_preparation_needs_trust_and_excludes_another(package, tmp_path):
    _, path = saved(tmp_path)
    given = arguments(package, path, tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"preprocessing=t1w_4mm: is given together with network.preprocess"
    ):
        explain_network([*given, f"network.preprocess={package}.make"])
    given = [text for text in given if not text.startswith("preprocessing")]
    with pytest.raises(ConfigError, match=r"preprocess=another.f: runs code of the package another; add"):
        explain_network([*given, "network.preprocess=another.f"])
    with pytest.raises(ConfigError, match=r"network.preprocess=.*\.nothing: cannot be imported"):
        explain_network([*given, f"network.preprocess={package}.nothing"])


def test_a_trusted_module_can_be_a_file_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "beside_the_command.py").write_text("def network():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    given = ["network.load=beside_the_command.network", *DATA, f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"returns a int, no torch\.nn\.Module"):
        explain_network([*given, "trusted_modules=[beside_the_command]"])
    with pytest.raises(ConfigError, match="add trusted_modules="):
        explain_network(given)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_runs_only_if_it_is_trusted(tmp_path):
    network, _ = saved(tmp_path)
    path = tmp_path / "network.pt"
    torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 1, 8, 8, 8)), path)
    assert archive_kind(path) == "TorchScript"
    given = [f"network.weights={path}", *DATA, f"run_dir={tmp_path / 'run'}", "attribution=[saliency]"]
    with pytest.raises(ConfigError, match=r"contains a program, .*network.trusted=true"):
        explain_network(given)
    explain_network([*given, "network.trusted=true"])
    found = open_maps(tmp_path / "run").img("sub-0001", "Saliency").get_fdata()
    assert found.any()
    volumes = torch.rand(2, 1, 12, 12, 12)
    assert torch.allclose(TorchScript(str(path))(volumes), network(volumes), atol=1e-6)


def test_an_exported_program_is_explained(tmp_path):
    network, _ = saved(tmp_path)
    path = tmp_path / "network.pt2"
    batch = torch.export.Dim("batch", min=1, max=64)
    volumes = torch.zeros(2, 1, 46, 55, 46)
    program = torch.export.export(network.eval(), (volumes,), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, path)
    assert archive_kind(path) == "Exported"
    given = [f"network.weights={path}", "network.trusted=true", *DATA, f"run_dir={tmp_path / 'run'}"]
    explain_network([*given, "attribution=[saliency]"])
    found = open_maps(tmp_path / "run").img("sub-0001", "Saliency").get_fdata()
    inputs = torch.from_numpy(load_cohort("synthetic", n_subjects=4).prepare("t1w_4mm").volumes())[:1, None]
    inputs.requires_grad_()
    outputs = network(inputs)
    (expected,) = torch.autograd.grad(outputs[0, outputs[0].argmax()], inputs)
    assert np.allclose(found, expected[0, 0].numpy(), atol=1e-6)


def bundle(folder, network_def, weights):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    content = {"channels": [4, 8], "network_def": network_def}
    (folder / "configs" / "inference.json").write_text(json.dumps(content))
    torch.save({"model": weights}, folder / "models" / "model.pt")
    return folder / "models" / "model.pt"


def test_a_monai_bundle_is_read_without_running_its_configuration(tmp_path):
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = nets.DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2))
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "init_features": 8}
    definition = {"_target_": "DenseNet", **arguments, "growth_rate": 4, "block_config": [2, 2]}
    path = bundle(tmp_path / "good", definition, network.state_dict())
    assert archive_kind(path) == "MonaiBundle"
    volumes = torch.rand(2, 1, 24, 24, 24)
    assert torch.equal(MonaiBundle(str(path)).eval()(volumes), network.eval()(volumes))
    referring = {**definition, "init_features": "@channels#1"}
    path = bundle(tmp_path / "referring", referring, network.state_dict())
    assert torch.equal(MonaiBundle(str(path)).eval()(volumes), network(volumes))
    for name, change, message in (
        ("expression", {"growth_rate": "$print('run')"}, r"contains the expression .*not evaluated"),
        ("other", {"_target_": "os.system"}, "only networks of MONAI"),
        ("unknown", {"_target_": "NoSuchNetwork"}, "no network of MONAI"),
    ):
        path = bundle(tmp_path / name, {**definition, **change}, network.state_dict())
        with pytest.raises(WeightsError, match=message):
            MonaiBundle(str(path))


def test_what_is_missing_is_named(tmp_path):
    _, path = saved(tmp_path)
    with pytest.raises(ConfigError, match=r"no network is given: network._target_="):
        network_overrides(["data=synthetic"])
    with pytest.raises(ConfigError, match=r"contains weights only; network._target_=package.Class"):
        network_overrides([f"network.weights={path}"])
    with pytest.raises(ConfigError, match=r"network.load: is given instead of"):
        network_overrides(["network.load=a.b", "network.weights=c"])
