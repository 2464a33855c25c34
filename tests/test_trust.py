"""Files of strangers: checkpoints, settings and names that would run code or lead out of a run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from conftest import SMALL
from omegaconf import OmegaConf

from xai_brain import BrainClassifier, compose
from xai_brain.cli import main
from xai_brain.config.checks import read_config
from xai_brain.config.setting import ConfigError
from xai_brain.study.training.networks import load_classifier


class Payload:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def test_a_checkpoint_with_a_payload_is_refused_in_one_line(copied, tmp_path, capsys):
    path, victim = copied.checkpoint(0, 0), tmp_path / "victim"
    content = torch.load(path, weights_only=True)
    for kind in ("torch", "pickle"):
        if kind == "torch":
            torch.save({**content, "payload": Payload(victim)}, path)
        else:
            path.write_bytes(pickle.dumps(Payload(victim), protocol=2))
        with pytest.raises(ConfigError, match=r"fold-0\.ckpt: .*not loaded; .*remove it") as caught:
            load_classifier(path)
        assert "\n" not in str(caught.value)
    assert main(["explain", f"run_dir={copied.path}", "attribution=[saliency]"]) == 1
    assert "fold-0.ckpt" in capsys.readouterr().err.splitlines()[-1]
    assert not victim.exists()


@pytest.mark.parametrize("target", ["os.mkdir", "subprocess.Popen", "torch.load", "builtins.eval"])
def test_a_checkpoint_cannot_name_a_function_to_be_called(copied, tmp_path, target):
    path, victim = copied.checkpoint(0, 0), tmp_path / "victim"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["network"] = {"_target_": target, "path": str(victim)}
    torch.save(content, path)
    with pytest.raises(ConfigError, match=f"{target}: is not a torch.nn.Module"):
        load_classifier(path)
    with pytest.raises(ValueError, match=r"is not a torch\.nn\.Module"):
        BrainClassifier.load_from_checkpoint(path, weights_only=True)
    assert not victim.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_one_line(copied, damage):
    path = copied.checkpoint(0, 0)
    content = path.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(
        ConfigError, match=r"fold-0\.ckpt: .*remove it and run `xai-brain train` again"
    ) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)


def test_settings_of_a_stranger_run_nothing(copied, tmp_path, capsys):
    victim = tmp_path / "victim"
    text = copied.config.read_text()
    copied.config.write_text(text + f"evil: !!python/object/apply:os.mkdir ['{victim}']\n")
    assert main(["report", f"run_dir={copied.path}"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    cfg = OmegaConf.create(text)
    cfg.attribution.GradCAM = {"_target_": "os.mkdir", "path": str(victim)}
    copied.config.write_text(OmegaConf.to_yaml(cfg))
    assert main(["explain", f"run_dir={copied.path}"]) == 1
    assert "os.mkdir: its package is not trusted" in capsys.readouterr().err
    cfg.trusted_modules = ["os"]  # it cannot trust itself
    copied.config.write_text(OmegaConf.to_yaml(cfg))
    assert main(["explain", f"run_dir={copied.path}"]) == 1
    assert (
        f"{copied.config}: runs code of os; if you trust it, add trusted_modules=[os]"
        in capsys.readouterr().err
    )
    assert not victim.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.hub.load_state_dict_from_url", "xai_brain.parallel.locks.os.mkdir",
     "sklearn.datasets.load_files",
     "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
     "xai_brain.models.fitting_in_processes.multiprocessing.Process"],
)  # fmt: skip
def test_of_known_packages_only_methods_networks_and_estimators_are_made(target):
    method = f"+attribution.Mine={{_target_: {target}}}"
    with pytest.raises(
        ConfigError, match=r"attribution\.Mine\._target_=.*: is not a torch\.nn\.Module, a method"
    ):
        compose("run", [*SMALL, method])


@pytest.mark.parametrize("section", ["attribution", "baselines"])
def test_names_of_settings_cannot_lead_out_of_the_run(section):
    cfg = compose("run", SMALL)
    cfg[section] = {"../../x": {"_target_": "xai_brain.attribution.GradCAM", "_partial_": True}}
    with pytest.raises(ConfigError, match=r"a name can hold letters|features=None"):
        read_config(cfg)


def test_a_checkpoint_imports_no_package_that_nobody_has_trusted(tmp_path, monkeypatch):
    (tmp_path / "evil_package.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"evil_package\.Net: its package is not trusted; if it is yours, import it"
    ):
        BrainClassifier({"_target_": "evil_package.Net"}, ["a", "b"], [4, 4, 4])
