"""Section of the report: mean maps."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.reporting.anatomy import cuts_through, underlay_of
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.method_descriptions import describe_methods
from xai_brain.statistics.colour_scale import ColourScale

POSITION, TITLE, REPORTED_AS = 50, "Mean maps", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any]:
    """Mean maps; empty if there are none, so that the section states how to compute them."""
    if not contents.mean_maps:
        return {}
    underlay = underlay_of(contents, next(iter(next(iter(contents.mean_maps.values())).values())))
    if underlay is None:
        return {}
    loaded = {
        method: {name: load_img(path) for name, path in contents.mean_maps[method].items()}
        for method in [*contents.methods]
        if method in contents.mean_maps
    }
    truth = load_img(contents.group_truth) if contents.group_truth else None
    centre = slices.centre_mm(truth) if truth is not None else None
    every = [img for classes in loaded.values() for img in classes.values()]
    point = centre if centre is not None else slices.strongest_mm(every, underlay)
    cuts = cuts_through(point, underlay)
    meanings = {about["name"]: about["meaning"] for about in describe_methods(contents)}
    sidecars = [subject.sidecars for subject in contents.shown_subjects()]
    shown = []
    for method, classes in loaded.items():
        scale = ColourScale.of(
            np.concatenate([slices.brain_values(img, underlay) for img in classes.values()])
        )
        of = "each true class" if contents.task.has_classes else "all participants"
        label = f"Mean of the maps of {of}; values: {meanings[method]}"
        figures = brain_figures.slice_figures(underlay, classes, cuts, scale, truth, label=label)
        shown.append(
            {
                "method": method,
                "figure": gallery.add(f"mean-map_{method}", raster=True, **figures),
                "surface": _surface(contents, gallery, method, classes, scale),
                "scale": scale,
                "explains": _explained([each[method] for each in sidecars if method in each]),
                "n": {name: contents.n_explained(method, name) for name in classes},
                "n_empty": contents.metrics.get(f"empty_maps/{method}", 0),
            }
        )
    return {
        "shown": shown,
        "point": [round(float(mm)) for mm in point],
        "truth": centre is not None,
        "truth_share": float(np.max(truth.dataobj)) if truth is not None else None,
        "on_template": is_mni152(contents.run.space),
    }


def _surface(
    contents: ReportContents,
    gallery: Gallery,
    method: str,
    classes: dict[str, nib.Nifti1Image],
    scale: ColourScale,
) -> dict[str, Any] | None:
    """The mean maps on the cortical surface, if ``report.surfaces`` asks for them."""
    if not contents.setting("report.surfaces") or not is_mni152(contents.run.space):
        return None
    from xai_brain.reporting.figures.surface import surface_figure

    return gallery.add(f"surface_{method}", raster=True, **for_screens(surface_figure, classes, scale))


def _explained(sidecars: list[dict[str, Any]]) -> str:
    """What the maps of a method explain, in words, from the sidecars of some of them."""
    sidecars = [about for about in sidecars if about.get("Kind") != "baseline"]  # which explain no network
    if any(about.get("TargetRule") in ("predicted", "true") for about in sidecars):
        return f"Each map explains the {sidecars[0]['TargetRule']} class of its participant."
    names = {str(about.get("TargetName")) for about in sidecars}
    if len(names) != 1 or not all(about.get("TargetRule") for about in sidecars):
        return ""  # without a rule, maps that are not shown may explain another class
    return f"All maps explain the class {names.pop()}, also those of participants of other classes."
