"""A small run for tests of the viewer without a browser, and the messages of the viewer."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from conftest import awkward_affine

from xai_brain.io.nifti import save_img
from xai_brain.runs.directory import RunDirectory, write_tsv

SHAPE = (12, 14, 16)
METHODS = ("GradCAM", "GuidedBackprop", "Mask")
EVIL = "<img src=x onerror=alert(1)>"


def write_run(path, n_subjects=3, n_written=None):
    """A run of three methods; only the first `n_written` participants have images and maps."""
    run = RunDirectory(path)
    run.path.mkdir()
    ids = [f"sub-{i:04d}" for i in range(n_subjects)]
    target = np.arange(n_subjects) % 2
    table = pd.DataFrame({"participant_id": ids, "session_id": "", "seed": 0, "fold": target})
    table = table.assign(target=target, prob_f=0.8 - 0.2 * target, prob_m=0.2 + 0.2 * target)
    write_tsv(table, run.predictions)
    for i, name in enumerate(ids[:n_written]):
        brain = np.zeros(SHAPE, np.uint8)
        brain[2:-2, 2:-2, 2:-2] = 100 + i
        save_img(brain, awkward_affine(), run.image(name, None))
        for k, method in enumerate(METHODS):
            save_img(values_of(i, k), awkward_affine(), run.attribution(name, None, method, 0))
    return run


def values_of(subject, method):
    rng = np.random.default_rng([subject, method])
    values = rng.standard_normal(SHAPE).astype(np.float32)
    return np.abs(values) if method == 2 else values


def receive(viewer, **content):
    viewer.canvas._handle_custom_msg(content, [])


def first(viewer):
    return viewer._catalogue.entries[0]


def content_of(page):
    start = page.index('type="application/json">') + len('type="application/json">')
    return json.loads(page[start : page.index("</script>")])
