"""10,000 permutations of 181 maps inside the brain: python benchmarks/group_statistics.py

Random numbers in the place of maps, at the voxels of the template's brain on the grid t1w_58x70x58, with
age, brain size, two site columns and four fold columns as confounds. Bar: 5 minutes on 2 cores. CPU seconds
are those of this process and its workers, and do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

import numpy as np
import pandas as pd

from xai_brain.io.nifti import template_brain_mask
from xai_brain.statistics.group import voxelwise_test
from xai_brain.statistics.group_design import make_design
from xai_brain.statistics.map_rows import MapRows

BAR_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-perm", type=int, default=10_000)
    parser.add_argument("--n-subjects", type=int, default=181)
    parser.add_argument("--n-jobs", type=int, default=2)
    given = parser.parse_args()

    rng = np.random.default_rng(0)
    n, n_voxels = given.n_subjects, int(template_brain_mask("t1w_58x70x58").sum())
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(n)],
            "label": np.where(rng.permutation(n) % 2, "male", "female"),
            "age": rng.uniform(20, 80, n),
            "icv_ml": rng.normal(1450, 130, n),
            "site": rng.choice(["Guys", "HH", "IOP"], n),
            "fold": np.arange(n) % 5,
        }
    )
    maps = MapRows(n, n_voxels)
    for i in range(n):
        maps[i] = rng.standard_normal(n_voxels, np.float32)
    design = make_design(table, ("female", "male"), ["age", "icv_ml", "site", "fold"])

    begun, cpu = time.perf_counter(), cpu_seconds()
    test = voxelwise_test(maps, np.arange(n), design, n_perm=given.n_perm, n_jobs=given.n_jobs)
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds(stop_workers=True) - cpu
    print(f"{n} maps, {n_voxels} voxels, {len(design.names)} confounds, {given.n_perm} permutations")
    print(f"smallest corrected p of noise: {10 ** -test.logp_fwe.max():.3f}")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    result = {"n_perm": given.n_perm, "n_jobs": given.n_jobs, "cpu_seconds": round(cpu, 1)}
    print(json.dumps({**result, "bar_seconds": BAR_SECONDS, "seconds": round(seconds, 1)}))


def cpu_seconds(*, stop_workers: bool = False) -> float:
    """Of this process and of its children that have ended."""
    if stop_workers:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
