"""Public names, and the examples of their docstrings."""

from __future__ import annotations

import doctest
import importlib
import logging

import pytest

import xai_brain as xb
from xai_brain.parallel.verbosity import LOGGER


@pytest.fixture(scope="module")
def cohort(synthetic_cohort):
    return synthetic_cohort


MODULES = [f"study.{name}" for name in ("card", "cohort", "cross_validate", "study")]
MODULES += [f"attribution.methods.{name}" for name in ("grad_cam", "guided_backprop")]
MODULES += [
    "atlas.atlas",
    "attribution.methods.meaningful_perturbation",
    "attribution.network_outputs",
    "attribution.reference",
    "config.build",
    "config.planted_effect",
    "data.folds.splits",
    "models.module",
    "models.networks.kan2020",
    "runs.provenance",
    "study.trained_networks",
    *(f"study.maps.{name}" for name in ("images", "maps", "opening")),
]


def test_public_names_are_listed():
    assert {"load_cohort", "cross_validate", "open_study", "open_maps", "report_card"} <= set(dir(xb))
    assert {"Cohort", "Study", "Maps", "ReportCard", "PlantedEffect"} <= set(dir(xb))


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_the_docstrings(module, small_run, cohort, monkeypatch):
    names = {"run_dir": small_run.path, "cohort": cohort}
    names |= {"study": xb.open_study(small_run.path), "maps": xb.open_maps(small_run.path)}
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)  # how long work takes is not part of an example
    assert doctest.testmod(importlib.import_module(f"xai_brain.{module}"), extraglobs=names).failed == 0
