"""200 calls of every method leave nothing behind: no memory, no tensor, hook, graph or file handle."""

from __future__ import annotations

import gc
import mmap
import os
import weakref
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import SHAPE, ToyNet
from hydra.utils import instantiate
from transformer_networks import SmallViT

from xai_brain.attribution import ClassScore, Reference
from xai_brain.attribution.model_state import HOOKS, preserved
from xai_brain.attribution.protocol import method_info
from xai_brain.attribution.target_distribution import TargetDistribution
from xai_brain.config.compose import conf_dir

FILES = sorted(path.stem for path in (conf_dir() / "attribution").glob("*.yaml"))
FOR_ATTENTION = ("attention_rollout", "attention_relevance", "token_grad_cam", "attn_lrp")
FOR_NUMBERS = ("correlation_map", "opposite_difference")
N_CALLS, N_FIRST = 200, 15  # memory is counted after the first calls, which fill what is kept once
FEW = {
    "n_iter": 2,
    "n_steps": 2,
    "n_samples": 2,
    "n_masks": 2,
    "n_shifts": 1,
    "n_levels": 1,
    "areas": [0.1],
    "first_kept_iteration": 0,
}


def method_of(name, model, folder):
    """The configured method with the least work per call."""
    ((_, settings),) = yaml.safe_load((conf_dir() / "attribution" / f"{name}.yaml").read_text()).items()
    settings |= {key: value for key, value in FEW.items() if key in settings}
    if "labels_img" in settings:
        labels = np.zeros(SHAPE, np.uint8)
        labels[2:7, 3:8, 4:9], labels[7:, 8:, 9:] = 1, 2
        nib.Nifti1Image(labels, np.eye(4)).to_filename(folder / "labels.nii.gz")
        settings["labels_img"] = str(folder / "labels.nii.gz")
        (folder / "labels.tsv").write_text("index\tname\n1\tone\n2\ttwo\n")
    factory = instantiate(settings)
    wants = factory.func.__init__.__code__.co_varnames if isinstance(factory.func, type) else ()
    generator = torch.Generator().manual_seed(3)
    volumes = torch.randn(4, 1, *SHAPE, generator=generator)
    reference = Reference(
        class_means=torch.stack([volumes[::2].mean(0), volumes[1::2].mean(0)]),
        volumes=volumes,
        targets=torch.arange(4) % 2,
        brain_mask=torch.ones(SHAPE, dtype=torch.bool),
        voxel_size_mm=(8.0, 8.0, 8.0),
        class_variances=torch.stack([volumes[::2].var(0), volumes[1::2].var(0)]),
        class_counts=torch.tensor([2, 2]),
        affine=torch.eye(4, dtype=torch.float64),
    )
    if name in FOR_NUMBERS:
        low, high = volumes[:2].mean(0), volumes[2:].mean(0)
        found = TargetDistribution(low, high, high - low, low=-1.0, high=1.0, median=0.0, sd=1.0)
        reference = replace(reference, distribution=found.of_network(lambda inputs: model(inputs)[:, :1]))
    extra = {"reference": reference} if "reference" in wants else {}
    return factory(ClassScore(model, method_info(factory).default_output), **extra)


def rss_mb():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def n_handles():
    return len(os.listdir("/proc/self/fd"))


def n_tensors():
    gc.collect()
    return sum(type(each) in (torch.Tensor, torch.nn.Parameter) for each in gc.get_objects())


def n_hooks(model):
    everywhere = [
        vars(torch.nn.modules.module)[name] for name in vars(torch.nn.modules.module) if "_global_" in name
    ]
    own = [getattr(module, name) for module in model.modules() for name in HOOKS]
    return sum(len(hooks) for hooks in [*own, *everywhere] if isinstance(hooks, dict))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", FILES)
def test_two_hundred_calls_leave_nothing(name, tmp_path):
    torch.manual_seed(0)
    model = (SmallViT() if name in FOR_ATTENTION else ToyNet()).eval()
    method = method_of(name, model, tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    known = {module: set(vars(module)) for module in model.modules()}

    def call(seed):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(1, 1, *SHAPE, generator=generator).requires_grad_()
        torch.manual_seed(seed)
        with preserved(model):
            maps = method.attribute(inputs, target=torch.tensor([seed % 2]))
        assert maps.shape == inputs.shape
        maps = maps.detach()
        return weakref.ref(inputs)

    for seed in range(N_FIRST):
        call(seed)
    # a leak is an increase: what other tests left behind may go at any time
    tensors, handles, hooks, memory = n_tensors(), n_handles(), n_hooks(model), rss_mb()
    alive = [call(seed) for seed in range(N_CALLS)]
    assert n_tensors() <= tensors
    assert [ref for ref in alive if ref() is not None] == []  # no graph holds what it was made of
    assert n_handles() <= handles
    assert n_hooks(model) <= hooks
    assert {module: set(vars(module)) for module in model.modules()} == known
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert rss_mb() - memory < 50


def test_what_is_counted_would_be_found():
    """The counts rise with each kind of leak."""
    model = ToyNet()
    tensors, kept = n_tensors(), []
    inputs = torch.randn(1, 1, *SHAPE).requires_grad_()
    alive = weakref.ref(inputs)
    kept.append(model(inputs).sum())
    del inputs
    assert alive() is not None
    assert n_tensors() > tensors
    hooks = n_hooks(model)
    handle = model.conv1.register_full_backward_hook(lambda *a: None)
    assert n_hooks(model) == hooks + 1
    handle.remove()
    handles = n_handles()
    with open("/proc/self/status") as file:
        assert n_handles() == handles + 1
    assert file.closed
    memory = rss_mb()
    # 60 MiB from the kernel: the C library would reuse memory that other tests have freed
    with mmap.mmap(-1, 60 * 2**20) as held:
        held[:: mmap.PAGESIZE] = bytes([1]) * (60 * 2**20 // mmap.PAGESIZE)
        assert rss_mb() - memory > 50
