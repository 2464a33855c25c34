"""Section of the report: maps of single participants."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xai_brain.io.nifti import load_img
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures.style import NARROW
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import ShownSubject, number

POSITION, TITLE, REPORTED_AS = 70, "Single participants", "classes"


def section(contents: ReportContents, gallery: Gallery) -> list[dict[str, Any]] | None:
    return [
        _subject(contents, subject, gallery)
        for subject in contents.shown_subjects()
        if subject.image.exists()
    ] or None


def _subject(contents: ReportContents, subject: ShownSubject, gallery: Gallery) -> dict[str, Any]:
    truth = load_img(subject.truth) if subject.truth.exists() else None
    truth = truth if truth is not None and np.max(truth.dataobj) > 0 else None
    maps = {method: load_img(path) for method, path in subject.maps.items()}
    shown = load_img(subject.image), maps, truth
    fig, point = brain_figures.subject_figure(*shown)

    def narrow() -> Figure:
        return brain_figures.subject_figure(*shown, max_columns=2, width_inches=NARROW)[0]

    folder = next(iter(subject.maps.values())).parent
    # methods that explain the same output of the same class are grouped
    explains: dict[tuple[str, str, float | None], list[str]] = {}
    for method, sidecar in subject.sidecars.items():
        key = (str(sidecar.get("TargetName")), str(sidecar.get("Output", "")).replace("_", " "),
               number(sidecar.get("TargetProbability")))  # fmt: skip
        explains.setdefault(key, []).append(method)
    name = "_".join(part for part in ("subject", subject.name, subject.session) if part)
    return {
        "subject": subject,
        "figure": gallery.add(name, fig, raster=True, narrow=narrow),
        "point": [round(float(mm)) for mm in point],
        "files": contents.files(folder.relative_to(contents.run.path).as_posix()),
        "truth": truth is not None,
        "explains": [
            {"class": k[0], "output": k[1], "probability": k[2], "methods": m} for k, m in explains.items()
        ],
    }
