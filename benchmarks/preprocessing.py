"""How fast images are prepared, and what a large cached cohort costs.

    pip install scikit-image
    python benchmarks/preprocessing.py [--part speed|scale|second_run ...] [--cohort <bids>] [--folder <dir>]

speed       one image of the size of the HCP's, from file to array on one core, against scikit-image
            (anti-aliased) and nilearn (linear, not anti-aliased), in turns; places of landmarks
scale       opening a cached cohort of 5,000, and the private memory of an epoch over it, against 500.
            Volumes are links to a few real files: it is the number of them that is measured
second_run  a BIDS cohort that is in the cache already (skipped without --cohort)
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: one core for everybody

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data import cache
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.parallel.progress import log

GRID = get_grid("t1w_58x70x58")
HCP_SHAPE = (260, 311, 260)
HCP_AFFINE = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -126], [0, 0, 0.7, -72], [0, 0, 0, 1]])
LANDMARKS_MM = [(-40, -20, 15), (35, 20, 5), (5, -70, 30), (0, 45, 10), (-25, -60, -30), (50, -30, 0)]
REPEATS = 7
SUBJECTS = (500, 5000)
REAL_ENTRIES = 20


def hcp_image() -> nib.Nifti1Image:
    """The MNI152 template on the HCP's grid, brain only, noise of 1 % inside."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
    from nilearn.image import resample_img

    def on_grid(img: nib.Nifti1Image, how: str) -> np.ndarray:
        options = {"copy_header": True, "force_resample": True, "interpolation": how}
        return np.asanyarray(resample_img(img, HCP_AFFINE, HCP_SHAPE, **options).dataobj)

    t1w = on_grid(load_mni152_template(resolution=1), "continuous")
    brain = on_grid(load_mni152_brain_mask(resolution=1), "nearest") > 0
    noise = 0.01 * np.random.default_rng(0).standard_normal(HCP_SHAPE)
    data = np.where(brain, 1000 * (t1w / t1w.max() + noise), 0).astype(np.float32)
    return nib.Nifti1Image(data, HCP_AFFINE)


def speed(folder: Path) -> dict[str, float]:
    from nilearn.image import resample_img
    from skimage.transform import resize

    path = folder / "hcp.nii.gz"
    img = hcp_image()
    img.to_filename(path)
    log(f"{path.stat().st_size / 1e6:.1f} MB, {HCP_SHAPE}, float32")
    ways: dict[str, Callable[[], object]] = {
        "xai_brain": lambda: preprocess_t1w(load_img(path), PreprocessingConfig(GRID.name), space="MNI152"),
        "skimage": lambda: resize(nib.load(path).get_fdata(), GRID.shape),
        "nilearn": lambda: resample_img(
            str(path), GRID.affine, GRID.shape, interpolation="linear", copy_header=True, force_resample=True
        ).get_fdata(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first imports
    for name, values in seconds.items():
        log(f"{name}: {median[name]:.3f} s ({min(values[1:]):.3f} to {max(values[1:]):.3f})")
    return {
        "seconds": median["xai_brain"],
        "speedup_vs_skimage": median["skimage"] / median["xai_brain"],
        "speedup_vs_nilearn": median["nilearn"] / median["xai_brain"],
        "landmark_error_voxels": landmark_error(np.asanyarray(img.dataobj)),
    }


def landmark_error(data: np.ndarray) -> float:
    """Largest distance of a bright spot's centre from where it was put, in target voxels."""
    settings = PreprocessingConfig(GRID.name, scaling="none")
    plain = preprocess_t1w(nib.Nifti1Image(data, HCP_AFFINE), settings, space="MNI152")
    errors = []
    world = nib.affines.apply_affine(GRID.affine, np.stack(np.indices(GRID.shape), -1))
    for landmark in LANDMARKS_MM:
        axes = [
            np.exp(-((HCP_AFFINE[i, i] * np.arange(n) + HCP_AFFINE[i, 3] - landmark[i]) ** 2) / (2 * 4.0**2))
            for i, n in enumerate(HCP_SHAPE)
        ]
        spot = np.einsum("i,j,k->ijk", *(axis.astype(np.float32) for axis in axes))
        marked = nib.Nifti1Image(np.where(data != 0, data + 1000 * spot, 0).astype(np.float32), HCP_AFFINE)
        found = preprocess_t1w(marked, settings, space="MNI152").volume - plain.volume
        found = np.where(
            np.linalg.norm(world - landmark, axis=-1) < 16, found, 0
        )  # not what float32 leaves far off
        centre = (world * found[..., None]).sum((0, 1, 2)) / found.sum()
        errors.append(float(np.linalg.norm((centre - landmark) / GRID.spacing_mm)))
    return max(errors)


def cached_cohort(n_subjects: int, folder: Path) -> pd.DataFrame:
    """A cache as `prepare_cohort` would have filled it, and the table of its subjects."""
    settings, folder = PreprocessingConfig(GRID.name), folder / "cache"
    rng = np.random.default_rng(0)
    real = []
    for i in range(REAL_ENTRIES):
        entry = cache.entry_of(f"real{i}", folder)
        entry.volume.parent.mkdir(parents=True, exist_ok=True)
        np.save(entry.volume, rng.standard_normal(GRID.shape, np.float32))
        np.save(entry.mask, np.ones(GRID.shape, bool))
        real.append(entry)
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for i in range(n_subjects):
        path = folder / "images" / f"sub-{i:05d}_T1w.nii.gz"
        path.write_bytes(b"%d" % i)
        os.utime(path, (1e9, 1e9))  # long ago: files that are changing just now are hashed again
        source = cache.Source(str(path), None, "MNI152")
        key = cache.entry_key(cache.content_hash(str(path), folder), None, source, settings)
        entry = cache.entry_of(key, folder)
        for target, source in zip(entry[:2], real[i % REAL_ENTRIES][:2], strict=True):
            os.link(source, target)
        cache._write_record(entry, str(path), asdict(settings), "")
        rows.append({"participant_id": f"sub-{i:05d}", "t1w_path": path, "space": "MNI152", "target": i % 2})
    return pd.DataFrame(rows)


def epoch(table: Path, folder: Path) -> dict[str, float]:
    """In a process of its own: open the cached cohort, go through it once, print seconds and memory."""
    from xai_brain.data.datamodule import BrainDataModule

    participants = pd.read_csv(table, sep="\t")
    start = time.perf_counter()
    cohort = prepare_cohort(participants, PreprocessingConfig(GRID.name), cache_dir=folder / "cache")
    seconds = time.perf_counter() - start
    assert len(cohort) == len(participants)
    module = BrainDataModule({"train": cohort, "validation": cohort[:1], "test": cohort[:1]}, batch_size=8)
    peak = 0.0
    for number, batch in enumerate(module.train_dataloader()):
        assert batch["volume"].shape[1:] == (1, *GRID.shape)
        if number % 20 == 0:
            peak = max(peak, private_mb())
    return {"open_seconds": seconds, "epoch_mb": max(peak, private_mb())}


def private_mb() -> float:
    """RssAnon of this process: what is not shared with files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def scale(folder: Path) -> dict[str, float]:
    found: dict[int, dict[str, float]] = {}
    for n_subjects in SUBJECTS:
        where = folder / f"of_{n_subjects}"
        where.mkdir(parents=True)
        cached_cohort(n_subjects, where).to_csv(where / "table.tsv", sep="\t", index=False)
        command = [sys.executable, __file__, "--epoch", str(where)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[n_subjects] = json.loads(output.splitlines()[-1])
        log(
            f"{n_subjects} subjects: opened in {found[n_subjects]['open_seconds']:.2f} s, "
            f"{found[n_subjects]['epoch_mb']:.0f} MB private in an epoch"
        )
    few, many = (found[n] for n in SUBJECTS)
    return {
        f"open_{SUBJECTS[1]}_seconds": many["open_seconds"],
        "epoch_memory_growth_mb": many["epoch_mb"] - few["epoch_mb"],
    }


def second_run(folder: Path, root: Path) -> dict[str, float]:
    from xai_brain.data.participants import load_participants

    participants = load_participants("bids", root, entities={"desc": "brain"})
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        prepare_cohort(participants, PreprocessingConfig(GRID.name), cache_dir=folder / "second_run")
        seconds.append(time.perf_counter() - start)
    log(f"{len(participants)} images: {seconds[0]:.1f} s, then {seconds[1]:.3f} s")
    return {"first_run_seconds": seconds[0], "second_run_seconds": seconds[1]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", action="append", choices=["speed", "scale", "second_run"])
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--folder", type=Path, help="for what is written; emptied at the end")
    parser.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.epoch:
        print(json.dumps(epoch(given.epoch / "table.tsv", given.epoch)))
        return
    parts = given.part or ["speed", "scale", "second_run"]
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        if "speed" in parts:
            result |= speed(folder)
        if "scale" in parts:
            result |= scale(folder)
        if "second_run" in parts and given.cohort:
            result |= second_run(folder, given.cohort)
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
