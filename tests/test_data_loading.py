"""Training volumes are the same from files and from the memory of a device."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from xai_brain.data import datamodule
from xai_brain.data.datamodule import BrainDataModule, VolumeDataset
from xai_brain.models import training_callbacks


@pytest.fixture
def table(tmp_path):
    rows = []
    for k in range(5):
        path = tmp_path / f"{k}.npy"
        np.save(path, np.random.default_rng(k).standard_normal((4, 5, 6)).astype(np.float32))
        rows.append((str(path), k % 2, f"sub-{k}"))
    return pd.DataFrame(rows, columns=["volume_path", "target", "participant_id"])


def test_volumes_in_memory_are_those_of_the_files(table):
    files, memory = VolumeDataset(table), VolumeDataset(table, torch.device("cpu"))
    for index in range(len(table)):
        assert torch.equal(files[index]["volume"], memory[index]["volume"])
        assert files[index]["participant_id"] == memory[index]["participant_id"]


@pytest.mark.parametrize(
    ("free", "workers", "resident"),
    [(5 * 480 / 0.2, 0, True), (5 * 480 / 0.2 - 1, 0, False), (1e9, 1, False)],
)
def test_volumes_are_kept_on_the_device_if_they_take_a_fifth_of_its_memory(
    free, workers, resident, table, monkeypatch
):
    monkeypatch.setattr(datamodule, "free_bytes", lambda device: free)
    module = BrainDataModule({"train": table, "validation": table}, batch_size=2, num_workers=workers)
    module.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1, training=True
    )
    for loader in (module.train_dataloader(), module.val_dataloader()):
        assert (loader.dataset.on_device is not None) is resident


def test_on_cpus_volumes_are_read_from_their_files(table):
    module = BrainDataModule({"train": table}, batch_size=2)
    module.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=1, training=True
    )
    assert module.train_dataloader().dataset.on_device is None


def test_the_time_that_training_waits_for_batches_is_reported(monkeypatch, caplog):
    now = iter([0.0, 1.0, 3.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(training_callbacks.time, "monotonic", lambda: next(now))
    waiting, trainer = training_callbacks.DataWaiting(), SimpleNamespace(current_epoch=1)
    with caplog.at_level(logging.DEBUG, "xai_brain"):
        waiting.on_train_epoch_start(trainer, None)  # 0
        for _ in range(2):
            waiting.on_train_batch_start()  # 1, 5: waited 1 and 2 s
            waiting.on_train_batch_end()  # 3, 6
        waiting.on_train_epoch_end(trainer, None)  # 10
    assert caplog.messages == ["epoch 2: 10.00 s, of these 30% waiting for batches"]
