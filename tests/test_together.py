"""A network that several processes fit together is the one that a single process fits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE
from killed_runs import SETTINGS

from xai_brain import compose, train
from xai_brain.config.compose import ConfigError
from xai_brain.data.augmentation import Augmentation
from xai_brain.data.datamodule import BrainDataModule, PartOfBatches
from xai_brain.models.fitting import fit_fold, predict_logits
from xai_brain.models.together import RankError, fit_together
from xai_brain.runs.directory import RunDirectory, read_tsv

# In single precision rounding errors grow from step to step; double shows what two processes compute.
EXACT = ["trainer.precision=64-true"]
TOLERANCE = 1e-6


def test_parts_of_batches_are_together_those_of_one_process():
    order = torch.utils.data.RandomSampler(range(11))

    def batches(part, size=4, drop_last=False):
        torch.manual_seed(3)
        return list(PartOfBatches(order, size, part, drop_last))

    whole = batches((0, 1))
    assert [len(batch) for batch in whole] == [4, 4, 3]
    first, second = batches((0, 2)), batches((1, 2))
    assert [batch[::2] for batch in whole] == first
    assert [batch[1::2] for batch in whole] == second
    assert [len(batch) for batch in second] == [2, 2, 1]
    assert len(batches((0, 2), drop_last=True)) == 2
    assert [len(batch) for batch in batches((3, 5), size=5)] == [1, 1]  # the eleventh is left out: no parts


def test_a_part_of_a_batch_is_changed_as_it_would_be_in_the_batch():
    strength = {
        "max_shift_mm": 2.0,
        "max_rotation_degrees": 5.0,
        "elastic_sd_mm": 1.0,
        "flip_probability": 0.5,
    }
    strength |= {"intensity_sd": 0.1, "gamma_sd": 0.2, "bias_field_sd": 0.1, "noise_sd": 0.1}
    volumes = torch.randn(5, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    whole = Augmentation(**strength, seed=4)
    parts = [Augmentation(**strength, seed=4) for _ in range(2)]
    for _ in range(2):  # also the next batch
        expected = whole(volumes)
        for rank, augmentation in enumerate(parts):
            found = augmentation(volumes[rank::2], (rank, 2, 5))
            torch.testing.assert_close(found, expected[rank::2], rtol=0, atol=1e-5)


def test_devices_that_do_not_divide_a_batch_or_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^trainer.batch_size=8: cannot be divided evenly over"):
        compose("train", ["experiment=demo", "trainer.batch_size=8", "trainer.devices=3"])
    with pytest.raises(ConfigError, match=r"^trainer.devices=0: at least 1"):
        compose("train", ["experiment=demo", "trainer.devices=0"])
    data, model, settings = toy(tmp_path)
    fit = {"seed": 5, "work_dir": tmp_path / "work"}
    with pytest.raises(RankError, match=r"^trainer.devices=6: there are 5 validation subjects only"):
        fit_together(data(), model, settings, devices=6, **fit)
    if not torch.cuda.is_available():
        with pytest.raises(RankError, match=r"^trainer.devices=2: there are 0 GPUs; trainer.accelerator=cpu"):
            fit_together(data(), model, settings | {"accelerator": "gpu"}, devices=2, **fit)


def toy(folder, n=23):
    """15 subjects to train, in batches of 4, 4, 4 and 3; a weak signal and much noise."""
    rows = []
    for i in range(n):
        volume = np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32)
        volume[2:6, 3:8, 4:9] += 0.5 * (i % 2)
        np.save(folder / f"{i}.npy", volume)
        rows.append((f"sub-{i}", i % 2, str(folder / f"{i}.npy")))
    table = pd.DataFrame(rows, columns=["participant_id", "target", "volume_path"])
    parts = {"train": table.iloc[:15], "validation": table.iloc[15:20], "test": table.iloc[20:]}
    model = {"network": {"_target_": "conftest.ToyNet"}, "class_names": ["a", "b"]}
    model |= {"input_shape": list(SHAPE), "lr": 1e-3, "standardize": "mean"}
    settings = dict(compose("train", ["data=synthetic", "trainer.tensorboard=false"]).trainer)
    settings |= {"max_epochs": 3, "accelerator": "cpu"}

    def data():
        augmentation = Augmentation(max_shift_mm=1.0, noise_sd=0.1, seed=2)
        return BrainDataModule(parts, 4, augmentation=augmentation)

    return data, model, settings


def state_of_process():
    names = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "LOCAL_RANK", "WORLD_SIZE")
    return {name: os.environ.get(name) for name in names}, torch.get_num_threads()


@pytest.mark.slow
def test_two_processes_fit_the_network_of_one(tmp_path):
    data, model, settings = toy(tmp_path)
    before = state_of_process()
    told = []
    together = fit_together(
        data(), model, settings, devices=2, seed=5, work_dir=tmp_path / "together",
        tell=lambda epoch, metrics: told.append(epoch),
    )  # fmt: skip
    alone = fit_fold(data(), model, settings, seed=5, work_dir=tmp_path / "alone")
    assert told == [1, 2, 3]
    assert state_of_process() == before
    assert not torch.distributed.is_initialized()
    one, two = alone[2], together[2]
    assert one[["epoch", "metric"]].equals(two[["epoch", "metric"]])
    np.testing.assert_allclose(two["value"], one["value"], rtol=0, atol=2e-5)
    assert one.query("metric == 'train/loss'")["value"].diff().max() < -1e-4  # it has learned more than that
    assert list(together[0].state_dict()) == list(alone[0].state_dict())
    loader = data().test_dataloader()
    torch.testing.assert_close(
        predict_logits(together[0], loader)[0], predict_logits(alone[0], loader)[0], atol=1e-3, rtol=0
    )
    assert int(together[0].network.norm.num_batches_tracked) == int(alone[0].network.norm.num_batches_tracked)


@pytest.mark.slow
def test_a_process_that_fails_is_told_of_in_one_line(tmp_path, monkeypatch):
    data, model, settings = toy(tmp_path)
    broken = data()
    broken.parts["train"] = broken.parts["train"].assign(volume_path=str(tmp_path / "gone.npy"))
    model |= {"standardize": None}
    with pytest.raises((RankError, FileNotFoundError)) as caught:
        fit_together(broken, model, settings, devices=2, seed=5, work_dir=tmp_path / "a")
    assert "gone.npy" in str(caught.value)
    module = types.ModuleType("only_here")  # as what is written in a notebook
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(RankError, match=r"^process 2 of trainer.devices=2 has ended: ModuleNotFoundError"):
        fit_together(
            data(), model, settings | {"of": module.Thing()}, devices=2, seed=5, work_dir=tmp_path / "b"
        )
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_run_trained_by_two_processes_has_the_figures_and_files_of_one(tmp_path):
    settings = [*SETTINGS, "model.dropout=0", "trainer.accelerator=cpu", "trainer.max_epochs=2", *EXACT]
    settings += [f"data.cache_dir={tmp_path / 'cache'}"]
    one = train(compose("train", [*settings, f"run_dir={tmp_path / 'one'}"]))
    command = [sys.executable, "-m", "xai_brain", "train", *settings, f"run_dir={tmp_path / 'two'}"]
    done = subprocess.run([*command, "trainer.devices=2"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("epoch 2/2") == 2  # folds: the first process alone speaks
    # convolutions in double precision leave gradients in the layout that channels-last networks do not have
    assert "Warning" not in done.stderr.replace("UserWarning: Grad strides do not match", "")
    two = RunDirectory(tmp_path / "two")

    def files(run):
        return sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())

    assert files(two) == files(one)
    for fold in (0, 1):
        found, expected = read_tsv(two.history(fold, 0, [0])), read_tsv(one.history(fold, 0, [0]))
        np.testing.assert_allclose(found["value"], expected["value"], atol=TOLERANCE)
    found, expected = read_tsv(two.predictions), read_tsv(one.predictions)
    assert found["participant_id"].equals(expected["participant_id"])
    np.testing.assert_allclose(found["prob_male"], expected["prob_male"], atol=TOLERANCE)
    # how many processes there are is no other run
    again = [*settings, f"run_dir={two.path}", "trainer.devices=1"]
    before = two.predictions.stat().st_mtime_ns
    assert train(compose("train", again)).predictions.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_of_torchrun_train_the_run_of_one(tmp_path, nodes):
    """Two processes of one machine; and two machines with a process each, which are both this one."""
    settings = [*SETTINGS, "model.dropout=0", "trainer.accelerator=cpu", "trainer.max_epochs=2", *EXACT]
    settings += [f"data.cache_dir={tmp_path / 'cache'}"]
    one = train(compose("train", [*settings, f"run_dir={tmp_path / 'one'}"]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    torchrun += [f"--nproc-per-node={2 // nodes}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command = ["-m", "xai_brain", "train", *settings, f"run_dir={tmp_path / 'two'}"]
    machines = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={node}", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for node in range(nodes)
    ]  # fmt: skip
    try:
        told = [machine.communicate(timeout=300) for machine in machines]
    finally:
        for machine in machines:
            machine.terminate()  # torchrun ends what it has started
    assert [machine.returncode for machine in machines] == [0] * nodes, told
    assert sum(out.count("epoch 2/2") for out, _ in told) == 2  # folds: the first process alone speaks
    two = RunDirectory(tmp_path / "two")
    found, expected = read_tsv(two.predictions), read_tsv(one.predictions)
    assert found["participant_id"].equals(expected["participant_id"])
    np.testing.assert_allclose(found["prob_male"], expected["prob_male"], atol=TOLERANCE)
    refused = subprocess.run(
        [*torchrun[:3], "--nproc-per-node=2", "-m", "xai_brain", "explain", f"run_dir={two.path}"],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "xai-brain: torchrun starts processes that train networks together" in refused.stderr
