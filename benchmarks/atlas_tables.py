"""How long the tables of an atlas take: 181 subjects, 3 methods, 100 regions on 58x70x58 voxels.

    python benchmarks/atlas_tables.py [--atlas <labels image>] [--subjects 181] [--methods 3]

Maps of random numbers in the brain are written first, untimed. Timed is what the evaluate stage does with
evaluation.atlas set: reading atlas, prepared images and maps (NIfTI), the table of all subjects, the
comparison of two classes with 10,000 permutations and 1,000 bootstrap draws, and writing the tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy.spatial import cKDTree

from xai_brain.config.checks import read_config
from xai_brain.config.evaluation import EvaluationConfig
from xai_brain.io.nifti import get_grid, save_img, template_brain_mask
from xai_brain.runs.directory import RunDirectory, sidecar, write_json, write_tsv
from xai_brain.study.evaluation.regions import evaluate_regions

GRID = get_grid("t1w_58x70x58")
CLASSES = ["female", "male"]


def write_atlas(path: Path, n_regions: int) -> None:
    """Brain voxels by the nearest of some random points."""
    places = np.argwhere(template_brain_mask(GRID.name))
    centres = places[np.random.default_rng(0).choice(len(places), n_regions, replace=False)]
    labels = np.zeros(GRID.shape, np.int16)
    labels[tuple(places.T)] = 1 + cKDTree(centres).query(places)[1]
    save_img(labels, GRID.affine, path)
    names = pd.DataFrame({"index": range(1, n_regions + 1)})
    names["name"] = names["index"].map("region {}".format)
    names.to_csv(path.with_name(path.name.replace(".nii.gz", ".tsv")), sep="\t", index=False)


def write_maps(run: RunDirectory, n_subjects: int, n_methods: int) -> list[dict[str, Any]]:
    rng, brain = np.random.default_rng(0), template_brain_mask(GRID.name)
    maps = []
    for i in range(n_subjects):
        participant_id = f"sub-{i:04d}"
        save_img((200 * brain).astype(np.uint8), GRID.affine, run.image(participant_id, ""))
        for k in range(n_methods):
            path = run.attribution(participant_id, "", f"Method{k}", 0)
            values = np.where(brain, rng.standard_normal(GRID.shape), 0).astype(np.float32)
            save_img(values, GRID.affine, path)
            write_json({"Output": "logit_difference", "TargetRule": "male"}, sidecar(path))
            about = {"participant_id": participant_id, "session_id": "", "seed": 0, "fold": i % 5}
            maps.append({**about, "label": CLASSES[i // 5 % 2], "method": f"Method{k}", "path": path})
    people = pd.DataFrame(maps)[["participant_id", "session_id", "label"]].drop_duplicates()
    write_tsv(people, run.participants)
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", help="labels image with its table beside it; default: 100 random regions")
    parser.add_argument("--subjects", type=int, default=181)
    parser.add_argument("--methods", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        maps = write_maps(run, args.subjects, args.methods)
        atlas = Path(args.atlas) if args.atlas else Path(folder) / "tpl-MNI152_atlas-random_dseg.nii.gz"
        if not args.atlas:
            write_atlas(atlas, 100)
        cfg = OmegaConf.create({"evaluation": OmegaConf.structured(EvaluationConfig(atlas=str(atlas)))})
        start, cpu = time.perf_counter(), time.process_time()
        evaluate_regions(read_config(cfg), run, maps)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        groups = pd.read_csv(run.evaluation("region_groups"), sep="\t")
        result = {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "n_maps": len(maps),
            "n_regions": int(groups["index"].nunique()),
            "share_q_below_0.05": float((groups["q"] <= 0.05).mean()),  # of random maps: about none
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
