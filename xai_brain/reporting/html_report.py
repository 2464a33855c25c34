"""One self-contained HTML page of a run: what was found, on whom, how, and what it does not show.

>>> from xai_brain.runs.directory import RunDirectory
>>> write_report(RunDirectory("outputs/demo"))  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from xai_brain.io.atomic import write_atomic
from xai_brain.io.nifti import GRIDS
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.references import PUBLISHED_RMA, reference_list
from xai_brain.reporting.sections import card as card_sections
from xai_brain.reporting.sections import groups as group_sections
from xai_brain.reporting.sections import maps as map_sections
from xai_brain.reporting.sections import masks as mask_sections
from xai_brain.reporting.sections import model as model_sections
from xai_brain.reporting.sections import participants as people_sections
from xai_brain.reporting.sections import regions as region_sections
from xai_brain.reporting.values import number
from xai_brain.runs.directory import RunDirectory


def write_report(run: RunDirectory) -> Path:
    """Write ``report.html`` and the figures as PNG files into ``figures/``.

    Only the run directory is read; a section whose files do not exist is left out or says so. The same
    run gives the same bytes.

    Parameters
    ----------
    run : RunDirectory

    Returns
    -------
    Path of the page, which needs neither network nor other files
    """
    contents = RunContents(run)
    with figures.style():
        html = _environment().get_template("report.html.j2").render(_context(contents))
    return write_atomic(run.report, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = fixed
    environment.filters["significant"] = significant
    environment.globals["interval"] = interval
    environment.filters["named"] = lambda names: " and ".join(", ".join(names).rsplit(", ", 1))
    return environment


def fixed(value: float | None, digits: int = 3) -> str:
    """Number with a true minus sign; a dash where there is none."""
    return "–" if number(value) is None else f"{value:.{digits}f}".replace("-", "−")


def significant(value: float | None, digits: int = 2) -> str:
    """Number of any magnitude, such as values of a map, with a true minus sign."""
    return "–" if number(value) is None else f"{value:.{digits}g}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    known = number(low) is not None and number(high) is not None
    return f"{fixed(low, digits)} to {fixed(high, digits)}" if known else "–"


def _context(contents: RunContents) -> dict[str, Any]:
    gallery = Gallery(contents.run.path / "figures")
    planted = contents.setting("planted.kind")
    return {
        "c": contents,
        "label": f"planted {planted}" if planted else contents.setting("data.label", "the label"),
        "title": contents.setting("name", contents.run.path.resolve().name),
        "cohort": people_sections.cohort(contents, gallery),
        "performance": people_sections.performance(contents, gallery),
        "training": people_sections.training(contents, gallery),
        "baseline": people_sections.baseline(contents, gallery),
        "maps": map_sections.mean_maps(contents, gallery),
        "groups": group_sections.groups(contents, gallery),
        "subjects": map_sections.subjects(contents, gallery),
        "localization": map_sections.localization(contents, gallery),
        "card": card_sections.card(contents, gallery),
        "calibration": card_sections.calibration(contents),
        "agreement": map_sections.agreement(contents, gallery),
        "variance": model_sections.variance(contents, gallery),
        "first_layer": model_sections.first_layer(contents, gallery),
        "regions": region_sections.regions(contents, gallery),
        "masks": mask_sections.masks(contents, gallery),
        "methods": (methods := [map_sections.method(contents, name) for name in contents.methods]),
        "references": reference_list(_cited(contents), [each["reference"] for each in methods]),
        "grid": _grid(contents.setting("preprocessing.grid")),
        "published_rma": PUBLISHED_RMA,
        "percentile": slices.PERCENTILE,
    }


def _grid(name: str | None) -> str | None:
    if name not in GRIDS:
        return name
    shape = "×".join(str(n) for n in GRIDS[name].shape)
    return f"{shape} voxels of {GRIDS[name].spacing_mm.max():g} mm"


def _cited(contents: RunContents) -> list[str]:
    always = (
        "Adebayo 2018",
        "Arras 2022",
        "Guo 2017",
        "Kan 2020",
        "Kokhlikyan 2020",
        "Siegel 2025",
        "Zhang 2018",
    )
    tested = (
        ("Freedman & Lane 1983", "Winkler 2014") if contents.evaluation("group_tests") is not None else ()
    )
    overlap = ("Wang 2023",) if contents.evaluation("group_overlap") is not None else ()
    masked = ("Hooker 2019",) if contents.evaluation("mask_validation") is not None else ()
    return [*always, *tested, *overlap, *masked]
