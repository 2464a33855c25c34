"""A run whose maps differ between classes in one place, and its evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from conftest import awkward_affine

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.io.nifti import save_img
from xai_brain.runs.directory import RunDirectory, read_tsv, sidecar, write_json, write_tsv
from xai_brain.study.evaluation.found_maps import find_maps
from xai_brain.study.evaluation.groups import evaluate_groups, groups_are_compared

SHAPE, N = (10, 12, 14), 24
PLACE = (slice(4, 7), slice(5, 8), slice(6, 9))
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:-1, 1:-1, 1:-1] = True
COMMON = {"TargetName": "male", "Output": "logit_difference", "TargetRule": "male"}


def settings(*overrides):
    common = ["data=synthetic", "attribution=[grad_cam,guided_backprop]", "seeds=[0,1]"]
    common += ["evaluation.group.n_perm=99", "evaluation.group.images=false"]
    return read_config(compose("run", [*common, *overrides]))


def write_run(path) -> RunDirectory:
    """Maps of two seeds and two methods; men have more in one place.

    GuidedBackprop explains the predicted class.
    """
    rng, run = np.random.default_rng(0), RunDirectory(path)
    ids, sex = [f"sub-{i:02d}" for i in range(N)], np.where(np.arange(N) % 2, "male", "female")
    people = {"participant_id": ids, "session_id": "", "label": sex, "sex": sex, "target": np.arange(N) % 2}
    people |= {"age": rng.uniform(20, 80, N), "site": "HH"}
    write_tsv(pd.DataFrame(people), run.participants)
    run.config.write_text("seeds: [0, 1]\n")
    rows = []
    for seed in (0, 1):
        for i, participant_id in enumerate(ids):
            rows.append({"participant_id": participant_id, "session_id": "", "seed": seed, "fold": i % 3})
            save_img((200 * BRAIN).astype(np.uint8), awkward_affine(), run.image(participant_id, ""))
            for method in ("GradCAM", "GuidedBackprop"):
                values = rng.normal(size=SHAPE)
                values[PLACE] += 3 * (i % 2)
                path = run.attribution(participant_id, "", method, seed)
                save_img(values.astype(np.float32), awkward_affine(), path)
                predicted = {**COMMON, "TargetName": str(sex[i]), "TargetRule": "predicted"}
                write_json(COMMON if method == "GradCAM" else predicted, sidecar(path))
    write_tsv(pd.DataFrame(rows), run.predictions)
    return run


def evaluated(run, *overrides):
    cfg = settings(*overrides)
    assert not groups_are_compared(cfg, run, find_maps(cfg, run))
    evaluate_groups(cfg, run, find_maps(cfg, run))
    return read_tsv(run.evaluation("group_tests")).set_index("method")


def map_of(run, participant_id, seed=0):
    return run.attribution(participant_id, "", "GradCAM", seed)
