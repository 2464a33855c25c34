"""One network trained by several processes: the same training, and files that are written once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE, ToyNet
from killed_runs import SETTINGS
from torch import nn

from xai_brain import compose
from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.data.augmentation import Augmentation
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.models.fitting import fit_fold, predict_outputs
from xai_brain.models.fitting_in_processes import fit_in_processes, start_method
from xai_brain.models.process_group import check_processes
from xai_brain.models.trainer_setup import check_trainer_arguments
from xai_brain.models.training_callbacks import TrainingError
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.stages.train import train


class NetWithoutNorm(ToyNet):
    """Without batch normalisation, whose statistics depend on how a batch is divided."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Identity()


class FailingNet(ToyNet):
    """Fails in training in the process of rank one."""

    def __init__(self, channels=None):  # which the demo sets
        super().__init__()

    def forward(self, x):
        if self.training and int(os.environ.get("LOCAL_RANK", 0)) == 1:
            raise ValueError("no such operation")
        return super().forward(x)


def toy(folder, network="NetWithoutNorm", batch_size=4, n_train=16):
    """`n_train` training and 5 validation participants; a weak signal and much noise."""
    rows = []
    for i in range(n_train + 7):
        volume = np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32)
        volume[2:6, 3:8, 4:9] += 0.5 * (i % 2)
        np.save(folder / f"{i}.npy", volume)
        rows.append((f"sub-{i}", i % 2, str(folder / f"{i}.npy")))
    table = pd.DataFrame(rows, columns=["participant_id", "target", "volume_path"])
    parts = {"train": table[:n_train], "validation": table[n_train:-2], "test": table[-2:]}
    model = {"network": {"_target_": f"test_several_processes.{network}"}, "output_names": ["a", "b"]}
    model |= {"input_shape": list(SHAPE), "lr": 1e-2, "standardize": "mean"}
    settings = dict(compose("train", ["data=synthetic", "trainer.tensorboard=false"]).trainer)
    settings |= {"max_epochs": 3, "accelerator": "cpu"}
    return lambda: BrainDataModule(parts, batch_size, seed=5), model, settings


def two(settings, **changes):
    return settings | {"devices": 2} | changes


def values(history, metric):
    return history.loc[history["metric"] == metric, "value"].to_numpy()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["trainer.batch_size=8", "trainer.devices=3"], r"^trainer.batch_size=8: cannot be divided evenly"),
        (["trainer.batch_size=6", "trainer.devices=2", "trainer.num_nodes=2"], "trainer.num_nodes=2$"),
        (["trainer.devices=0"], r"^trainer.devices=0: at least 1"),
        (["trainer.strategy=dp"], r"^trainer.strategy=dp: one of auto, ddp, ddp_spawn"),
        (["trainer.extra=5"], r"^trainer.extra=5: names and values are needed"),
        (["trainer.extra.max_epochs=5"], r"^trainer.extra.max_epochs: .* use trainer.max_epochs$"),
        (["trainer.extra.callbacks=[]"], r"^trainer.extra.callbacks: .* it cannot be changed$"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        compose("train", ["experiment=demo", *wrong])


def test_arguments_that_the_trainer_does_not_have_are_refused(tmp_path, capsys):
    check_trainer_arguments({"gradient_clip_val": 1})
    settings = ["experiment=demo", "trainer.extra.gradient_clip=1", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", *settings]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xai-brain: trainer.extra.gradient_clip: Lightning's Trainer has no such argument")
    assert "did you mean 'gradient_clip_" in line
    assert not (tmp_path / "run").exists()


def test_further_arguments_reach_the_trainer(tmp_path):
    data, model, settings = toy(tmp_path)
    free, _, _ = fit_fold(data(), model, settings, seed=5, work_dir=tmp_path / "free")
    clipped = settings | {"extra": {"limit_train_batches": 1}}
    few, _, _ = fit_fold(data(), model, clipped, seed=5, work_dir=tmp_path / "few")
    assert not torch.equal(free.network.conv1.weight, few.network.conv1.weight)


def test_processes_that_are_not_there_are_refused(monkeypatch):
    settings = compose("train", ["experiment=demo", "trainer.accelerator=cpu"]).trainer
    check_processes(settings)
    with pytest.raises(ConfigError, match=r"num_nodes=2: start one process per device with torchrun or srun"):
        check_processes({**settings, "num_nodes": 2})
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^trainer.devices=2: this machine has 0 GPUs"):
            check_processes({**settings, "devices": 2, "accelerator": "gpu"})
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"devices=1 .*: torchrun has started 2 processes, not 1"):
        check_processes(settings)


def test_processes_are_spawned_and_in_notebooks_forked(monkeypatch):
    assert [start_method(name) for name in ("auto", "ddp", "ddp_find_unused_parameters_true")] == [
        "spawn"
    ] * 3
    assert [start_method(name) for name in ("ddp_fork", "ddp_notebook")] == ["fork"] * 2
    monkeypatch.setattr(sys, "ps1", "In", raising=False)
    assert start_method("auto") == "fork"
    assert start_method("ddp_spawn") == "spawn"


@pytest.mark.slow
def test_with_whole_batches_two_processes_train_the_network_of_one(tmp_path):
    """A batch of all participants: their order does not matter, and the gradients are means of shares."""
    data, model, settings = toy(tmp_path, batch_size=16)
    reported = []
    one, _, history = fit_fold(
        data(),
        model,
        settings,
        seed=5,
        work_dir=tmp_path / "one",
        report_epoch=lambda epoch, _: reported.append(epoch),
    )
    both, checkpoint, history_of_two = fit_in_processes(
        data(), model, two(settings), seed=5, work_dir=tmp_path / "two"
    )
    assert reported == [1, 2, 3]
    assert not {"MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)
    assert not torch.distributed.is_initialized()
    assert history[["epoch", "metric"]].equals(history_of_two[["epoch", "metric"]])
    np.testing.assert_allclose(history_of_two["value"], history["value"], rtol=0, atol=2e-5)
    assert np.diff(values(history, "train/loss")).max() < -1e-4  # it has learned more than that
    loader = data().test_dataloader()
    logits = [predict_outputs(network, loader)[0] for network in (one, both)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)
    assert checkpoint.exists()


@pytest.mark.slow
def test_the_first_epoch_has_the_loss_of_one_process(tmp_path):
    """Same weights, participants and size of batches over all processes; another order, no batch norm."""
    data, model, settings = toy(tmp_path, batch_size=4, n_train=32)
    settings["max_epochs"] = 1
    losses = [
        values(fit(data(), model, given, seed=5, work_dir=tmp_path / fit.__name__)[2], "train/loss")[0]
        for fit, given in ((fit_fold, settings), (fit_in_processes, two(settings)))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_processes_have_different_participants_and_change_images_differently(tmp_path):
    datamodules = []
    for rank in (0, 1):
        datamodule = toy(tmp_path, n_train=15)[0]()
        datamodule.augmentation = Augmentation(noise_sd=1.0, seed=2)
        datamodule.trainer = SimpleNamespace(
            world_size=2, global_rank=rank, strategy=SimpleNamespace(root_device=torch.device("cpu"))
        )
        datamodule.setup("fit")
        datamodules.append(datamodule)
    first, second = (list(datamodule.train_dataloader().sampler) for datamodule in datamodules)
    assert len(first) == len(second) == 8
    assert set(first) | set(second) == set(range(15))
    volumes = torch.rand(2, 1, *SHAPE)
    changed = [datamodule.augmentation(volumes) for datamodule in datamodules]
    assert not torch.equal(*changed)
    assert torch.equal(changed[0], Augmentation(noise_sd=1.0, seed=2)(volumes))
    validation = [next(iter(datamodule.val_dataloader()))["participant_id"] for datamodule in datamodules]
    assert validation[0] == validation[1]


@pytest.mark.slow
def test_a_process_that_fails_gives_one_line(tmp_path):
    data, model, settings = toy(tmp_path, network="FailingNet")
    with pytest.raises(TrainingError, match=r"^process 2 of 2: ValueError: no such operation") as caught:
        fit_in_processes(data(), model, two(settings), seed=5, work_dir=work(tmp_path, "failing"))
    assert "\n" not in str(caught.value)
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_processes_can_be_forked(tmp_path):
    """In a process of its own, as a notebook has: forking needs one without other threads."""
    script = (
        "import sys; from pathlib import Path; from test_several_processes import *; "
        "folder = Path(sys.argv[1]); data, model, settings = toy(folder); "
        "settings = two(settings, strategy='ddp_notebook', max_epochs=1); "
        "fit_in_processes(data(), model, settings, seed=5, work_dir=work(folder, 'work'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "work" / "network.ckpt").exists()


def work(folder, name):
    (folder / name).mkdir()
    return folder / name


def run_settings(tmp_path):
    settings = [*SETTINGS, "model.dropout=0", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    return [*settings, f"data.cache_dir={tmp_path / 'cache'}"]


def files(run):
    return sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_run_trained_by_two_processes_has_the_files_and_participants_of_one(tmp_path):
    settings = run_settings(tmp_path)
    one = train(compose("train", [*settings, f"run_dir={tmp_path / 'one'}"]))
    command = [sys.executable, "-m", "xai_brain", "train", *settings, f"run_dir={tmp_path / 'two'}"]
    done = subprocess.run([*command, "trainer.devices=2"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("epoch 2/2") == 2  # folds: the process of rank zero alone reports
    assert done.stderr == ""
    of_two = RunDirectory(tmp_path / "two")
    assert files(of_two) == files(one)
    found, expected = read_tsv(of_two.predictions), read_tsv(one.predictions)
    assert found["participant_id"].equals(expected["participant_id"])
    assert found["participant_id"].is_unique
    history, of_one = read_tsv(of_two.history(0, 0)), read_tsv(one.history(0, 0))
    assert history[["epoch", "metric"]].equals(of_one[["epoch", "metric"]])
    again = compose("train", [*settings, f"run_dir={of_two.path}", "trainer.devices=2"])
    before = of_two.predictions.stat().st_mtime_ns
    assert train(again).predictions.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"trainer\.devices: 2 before, 1 now"):
        train(compose("train", [*settings, f"run_dir={of_two.path}"]))


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_finished_folds(tmp_path):
    settings = [*run_settings(tmp_path), f"run_dir={tmp_path / 'run'}", "trainer.devices=2"]
    run = RunDirectory(tmp_path / "run")
    first = run.path / "checkpoints" / "fold-0_predictions.tsv"
    command = [sys.executable, "-m", "xai_brain", "train", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 200
        while not first.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert first.exists()
    assert not run.predictions.exists()
    written = first.stat().st_mtime_ns
    train(compose("train", settings))
    assert first.stat().st_mtime_ns == written
    assert read_tsv(run.predictions)["participant_id"].is_unique
    assert not run.locks.exists()
    assert not list(run.path.rglob(".partial-*"))


@pytest.mark.slow
def test_a_training_that_diverges_in_all_processes_gives_one_line(tmp_path):
    settings = [
        *run_settings(tmp_path),
        f"run_dir={tmp_path / 'run'}",
        "trainer.devices=2",
        "trainer.lr=1e30",
    ]
    command = [sys.executable, "-m", "xai_brain", "train", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("xai-brain: train seed 0 fold 1/2: ")
    assert "trainer.lr (now 1e+30)" in line
    assert not RunDirectory(tmp_path / "run").locks.exists()


def torchrun(nodes, n_processes, port):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    return [*command, f"--nproc-per-node={n_processes}", "--master-addr=127.0.0.1", f"--master-port={port}"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(commands, environments=None):
    """Exit codes and outputs of commands that run at the same time."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environments = environments or [{} for _ in commands]
    running = [
        subprocess.Popen(command, env={**os.environ, **environment}, **streams)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=280) for process in running]
    finally:
        for process in running:
            process.terminate()  # torchrun ends what it has started
    return [process.returncode for process in running], outputs


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_of_torchrun_train_one_run(tmp_path, nodes):
    """Two processes of one machine; and two machines with a process each, which are both this one."""
    settings = [*run_settings(tmp_path), f"run_dir={tmp_path / 'run'}"]
    settings += [f"trainer.devices={2 // nodes}", f"trainer.num_nodes={nodes}"]
    port = free_port()
    commands = [
        [*torchrun(nodes, 2 // nodes, port), f"--node-rank={node}", "-m", "xai_brain", "train", *settings]
        for node in range(nodes)
    ]
    codes, outputs = started(commands)
    assert codes == [0] * nodes, outputs
    assert sum(out.count("epoch 2/2") for out, _ in outputs) == 2
    run = RunDirectory(tmp_path / "run")
    assert sorted(read_tsv(run.predictions)["participant_id"]) == sorted(
        read_tsv(run.participants)["participant_id"]
    )
    assert not run.locks.exists()


@pytest.mark.slow
def test_torchrun_is_for_training(tmp_path):
    command = [*torchrun(1, 2, free_port()), "-m", "xai_brain", "explain", f"run_dir={tmp_path / 'run'}"]
    (code,), ((_, err),) = started([command])
    assert code != 0
    assert "xai-brain: torchrun starts processes that train one network" in err


@pytest.mark.slow
@pytest.mark.parametrize("network", ["ToyNet", "FailingNet"])
def test_tasks_of_slurm_train_one_run(tmp_path, network):
    """Two tasks with the environment variables of srun, on one machine."""
    settings = [*run_settings(tmp_path), f"run_dir={tmp_path / 'run'}", "trainer.devices=2"]
    if network == "FailingNet":
        settings = [text for text in settings if not text.startswith(("model.", "attribution="))]
        settings += ["model=custom", "trusted_modules=[test_several_processes]"]
        settings += ["model._target_=test_several_processes.FailingNet", "attribution=[saliency]"]
    common = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "1", "SLURM_NODEID": "0"}
    common |= {"SLURM_JOB_NAME": "training", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    of_rank = ("SLURM_PROCID", "SLURM_LOCALID", "LOCAL_RANK")  # the last for `FailingNet`
    tasks = [common | dict.fromkeys(of_rank, str(rank)) for rank in (0, 1)]
    codes, outputs = started([[sys.executable, "-m", "xai_brain", "train", *settings]] * 2, tasks)
    run = RunDirectory(tmp_path / "run")
    assert not run.locks.exists()
    if network == "FailingNet":
        assert codes == [1, 1], outputs
        assert "xai-brain: process 2 of 2: ValueError: no such operation" in outputs[1][1], outputs[0][1]
        assert "another process has failed" in outputs[0][1], outputs
        assert [len(err.splitlines()) for _, err in outputs] == [1, 1]
        return
    assert codes == [0, 0], outputs
    assert outputs[0][0].count("epoch 2/2") == 2
    assert outputs[1] == ("", "")
    assert read_tsv(run.predictions)["participant_id"].is_unique
