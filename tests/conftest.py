"""Fixtures: volumes with unequal axes and awkward affines, small BIDS trees, one finished small run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache, partial
from pathlib import Path

# pytest-xdist runs one process per core: more threads would only wait for each other. Set before numpy and
# torch are loaded, and inherited by the processes that tests start.
N_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
if N_THREADS == 1:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.datasets import load_mni152_template
from scipy import ndimage
from torch import nn

REAL_DATA = Path(os.environ.get("XAI_BRAIN_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


REQUIRE_ALL = os.environ.get("XAI_BRAIN_REQUIRE_ALL") == "1"
MAY_BE_SKIPPED = ("gpu", "real_data")  # what no command can install
ELSEWHERE = "make test-raw"  # tests of raw heads have an environment of their own


def pytest_collection_modifyitems(config, items):
    """Tests that download run only when they are asked for by their mark: pytest -m network."""
    if "network" in (config.option.markexpr or ""):
        return
    downloads = [item for item in items if item.get_closest_marker("network")]
    if downloads:
        config.hook.pytest_deselected(items=downloads)
        items[:] = [item for item in items if item not in downloads]


def pytest_runtest_setup(item):
    """Before the fixtures of a test: random numbers that do not depend on other tests; is there a browser?"""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    if item.get_closest_marker("browser"):
        import lab

        if reason := lab.missing():
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With XAI_BRAIN_REQUIRE_ALL=1, as in CI, a test that would be skipped fails: it would never run."""
    report = yield
    if REQUIRE_ALL and report.skipped and not any(map(item.get_closest_marker, MAY_BE_SKIPPED)):
        reason = str(report.longrepr)
        if ELSEWHERE not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped, although XAI_BRAIN_REQUIRE_ALL=1 asks for all tests: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    os.environ["XAI_BRAIN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    torch.set_num_threads(N_THREADS)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not (REAL_DATA / "ixi" / "participants.tsv").exists():
        pytest.skip(f"the IXI cohort is not at {REAL_DATA}; set XAI_BRAIN_REAL_DATA to its folder")
    return REAL_DATA


def awkward_affine() -> np.ndarray:
    """Anisotropic, oblique by 12 degrees, with one flipped axis and an offset."""
    angle = np.deg2rad(12)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-2.0, 1.5, 2.5])
    shape = np.array([96, 150, 80])
    affine[:3, 3] = np.array([0, -18, 12]) - affine[:3, :3] @ ((shape - 1) / 2)
    return affine


AWKWARD_SHAPE = (96, 150, 80)


def world_coordinates(shape, affine) -> np.ndarray:
    """(X, Y, Z, 3) mm."""
    return nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))


@lru_cache(maxsize=1)
def mni_brain() -> nib.Nifti1Image:
    """The MNI152 template, 0 outside the brain, with a median of 100 in it."""
    img = load_mni152_template(resolution=1)
    data = np.asarray(img.dataobj, dtype=np.float32)
    data = np.where(data > 0.2, data, 0)  # as in nilearn's load_mni152_brain_mask
    return nib.Nifti1Image(100 * data / np.median(data[data > 0]), img.affine)


def template_values(mm, order=1) -> np.ndarray:
    """Intensities of `mni_brain` at places (..., 3) in mm."""
    voxels = nib.affines.apply_affine(np.linalg.inv(mni_brain().affine), mm)
    return ndimage.map_coordinates(mni_brain().dataobj, np.moveaxis(voxels, -1, 0), order=order)


def fake_brain(shape, affine, seed=0, blob_mm=None) -> nib.Nifti1Image:
    """The MNI152 template with noise, exactly 0 outside the brain; `blob_mm` adds a bright spot."""
    mm = world_coordinates(shape, affine)
    data = template_values(mm)
    inside = data > 20
    data = 100 * data / np.median(data[inside]) + 5 * np.random.default_rng(seed).standard_normal(shape)
    if blob_mm is not None:
        data = data + 400 * np.exp(-((mm - blob_mm) ** 2).sum(-1) / (2 * 6.0**2))
    return nib.Nifti1Image(np.where(inside, data, 0).astype(np.float32), affine)


COARSE = np.diag([8.0, 8.0, 8.0, 1.0])
COARSE[:3, 3] = [-88, -124, -70]
COARSE_SHAPE = (23, 28, 22)


@pytest.fixture
def bids_tree(tmp_path) -> Path:
    """Six subjects, three of each sex, brain only, MNI space by their names."""
    root = tmp_path / "bids"
    rows = []
    for i in range(6):
        participant_id = f"sub-{i:02d}"
        path = root / participant_id / "anat" / f"{participant_id}_space-MNI152_desc-brain_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        fake_brain(COARSE_SHAPE, COARSE, seed=i).to_filename(path)
        rows.append({"participant_id": participant_id, "sex": "MF"[i % 2], "age": 20 + i})
    pd.DataFrame(rows).to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


def add_subject(root: Path, number: int, sex: str, **columns: object) -> str:
    """One more subject with an image of its own in the tree of `bids_tree`; returns the id."""
    participant_id = f"sub-{number:02d}"
    path = root / participant_id / "anat" / f"{participant_id}_space-MNI152_desc-brain_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    fake_brain(COARSE_SHAPE, COARSE, seed=number).to_filename(path)
    table = pd.read_csv(root / "participants.tsv", sep="\t", dtype=str)
    row = {"participant_id": participant_id, "sex": sex, "age": "30", **columns}
    pd.concat([table, pd.DataFrame([row])]).to_csv(
        root / "participants.tsv", sep="\t", index=False, na_rep="n/a"
    )
    return participant_id


@pytest.fixture(scope="session")
def brains(tmp_path_factory) -> Path:
    """The six images of `tree`, made once; every case changes a copy."""
    from bad_inputs import EVERYBODY

    folder = tmp_path_factory.mktemp("brains")
    for i, name in enumerate(EVERYBODY):
        fake_brain(COARSE_SHAPE, COARSE, seed=i).to_filename(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def tree(tmp_path, brains) -> Path:
    """Six participants in a BIDS folder, to be changed as tests of bad input do."""
    from bad_inputs import make_tree

    return make_tree(tmp_path / "bids", brains)


class ToyNet(nn.Module):
    """A small 3-D network with batch norm; logits of two classes."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.conv1 = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool3d(2)
        self.conv2 = nn.Conv3d(4, 6, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.linear = nn.Linear(6, 2)

    def forward(self, x):
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        return self.linear(self.relu2(self.conv2(x)).mean((2, 3, 4)))


@pytest.fixture
def toy_net() -> ToyNet:
    torch.manual_seed(0)
    return ToyNet().eval()


SHAPE = (12, 14, 16)
BOX = (slice(4, 8), slice(6, 11), slice(8, 13))


class BoxDetector(nn.Module):
    """Class 1 is the mean inside a box; nothing else matters."""

    def forward(self, x):
        evidence = 8 * (x[:, 0][:, *BOX].mean((1, 2, 3)) - 0.5)
        return torch.stack([-evidence, evidence], 1)


def boxed_reference(n=8):
    """Class 1 has a bright box, class 0 has not."""
    from xai_brain.attribution import Reference

    generator = torch.Generator().manual_seed(1)
    means = torch.zeros(2, 1, *SHAPE)
    means[1, 0][BOX] = 1
    targets = torch.arange(n) % 2
    volumes = means[targets] + 0.3 * torch.randn(n, 1, *SHAPE, generator=generator)
    return Reference(means, volumes, targets, torch.ones(SHAPE, dtype=torch.bool), (2.0, 2.0, 2.0))


@pytest.fixture(scope="session")
def synthetic_cohort():
    """16 synthetic participants, prepared for networks; no test may change it."""
    import xai_brain

    return xai_brain.load_cohort("synthetic", n_subjects=16).prepare("t1w_4mm")


SMALL = [
    "experiment=demo",
    "data.cohort.n_subjects=24",
    "folds.n_folds=2",
    "trainer.max_epochs=2",
    "trainer.batch_size=6",
    "model.channels=[2,3,4]",
    "attribution.MeaningfulPerturbation.n_iter=4",
    "evaluation.n_bootstrap=50",
]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A finished run of the embedded cohort, small enough for every test; no test may change it."""
    from xai_brain import compose, run

    run_dir = tmp_path_factory.mktemp("runs") / "small"
    done = run(compose("run", [*SMALL, f"run_dir={run_dir}"]))
    before = hashes(run_dir)
    yield done
    after = hashes(run_dir)
    assert not [name for name, value in before.items() if after.get(name) != value], "copy it before a change"


def hashes(folder):
    """Hash of every file in a folder, by its relative path."""
    from xai_brain.io.atomic import file_hash

    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(small_run, tmp_path):
    """A copy of the finished run, to be changed."""
    from xai_brain import RunDirectory

    shutil.copytree(small_run.path, tmp_path / "moved")
    return RunDirectory(tmp_path / "moved")


@pytest.fixture(scope="session")
def report_cohort(tmp_path_factory):
    """BIDS folder of 12 participants with a planted effect, and one truncated image."""
    from report_runs import make_cohort

    return make_cohort(tmp_path_factory.mktemp("report_cohort") / "bids")


@pytest.fixture(scope="session")
def complete(report_cohort, tmp_path_factory):
    """A finished run with baselines and a report without pictures; do not change it."""
    from report_runs import make_run

    with pytest.MonkeyPatch.context() as patch:
        without_rendering(patch)
        return make_run(report_cohort, tmp_path_factory.mktemp("runs") / "complete")


@pytest.fixture
def changed(complete, tmp_path):
    """A copy of `complete` without its report, to be changed."""
    from xai_brain import RunDirectory

    shutil.copytree(complete.path, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "figures"))
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="session")
def compared(complete, tmp_path_factory):
    """A copy of `complete` whose maps explain one output, with all comparisons; and its atlas."""
    from report_runs import make_compared_run

    with pytest.MonkeyPatch.context() as patch:
        without_rendering(patch)
        return make_compared_run(complete, tmp_path_factory.mktemp("compared"))


def without_rendering(monkeypatch, *, slices=False):
    """Figures are built, with or without the slices of images, but not rendered."""
    from xai_brain.reporting import gallery
    from xai_brain.reporting.figures import brain

    monkeypatch.setattr(gallery, "_rendered", lambda fig, kind, **options: b"")
    monkeypatch.setattr(gallery, "_palette", lambda png: b"")
    if not slices:
        monkeypatch.setattr(brain, "_draw_slice", lambda *args: None)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are built but not drawn if only the text of the page is tested."""
    without_rendering(monkeypatch)


def map_of(folder, method="GradCAM", number=0):
    """Path of one of the maps of a run."""
    return sorted((folder.path / "attributions").rglob(f"*desc-{method}_attribution.nii.gz"))[number]


def in_another_process(code, **env):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=300, env={**os.environ, **env},
    )  # fmt: skip


@pytest.fixture
def inputs():
    return torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def make_run(tmp_path):
    """Writes a small run for the viewer, see `viewer_runs.write_run`."""
    from viewer_runs import write_run

    return partial(write_run, tmp_path / "run")


@pytest.fixture
def few():
    """Two volumes of the shape of `known_networks.WEIGHTS`."""
    return torch.randn(2, 1, 4, 6, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def training():
    """Four training volumes of the shape of `inputs`."""
    return torch.randn(4, 1, *SHAPE, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def sent(monkeypatch):
    """Messages to the browser, in their order."""
    from xai_brain.viewer.canvas import SliceCanvas

    messages = []
    monkeypatch.setattr(
        SliceCanvas, "send", lambda self, content, buffers=None: messages.append((content, buffers or []))
    )
    return messages
