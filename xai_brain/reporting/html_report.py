"""The report of a run, a self-contained HTML page: results, cohort, methods and limits.

>>> from xai_brain.runs.directory import RunDirectory
>>> write_report(RunDirectory("outputs/demo"))  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import jinja2

from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import write_atomic
from xai_brain.parallel.progress import log_seconds, track
from xai_brain.reporting import sections
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures.style import style
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.texts.methods_text import methods_text
from xai_brain.reporting.texts.references import PUBLISHED_RMA, cited_keys, reference_list
from xai_brain.reporting.texts.study_design import origin
from xai_brain.reporting.wording import fixed, interval, listed, significant
from xai_brain.runs.directory import RunDirectory
from xai_brain.statistics.colour_scale import PERCENTILE


def write_report(run: RunDirectory) -> Path:
    """Write ``report.html`` and the figures as PNG files into ``figures/``.

    Only the run directory is read. Sections whose files do not exist are omitted or contain a note. The same
    run gives the same bytes.

    Parameters
    ----------
    run : RunDirectory

    Returns
    -------
    Path of the page, which requires neither a network connection nor other files

    Raises
    ------
    ConfigError
        The networks have learned something else than classes or a number.
    """
    contents = ReportContents(run)
    if contents.task.reported_as is None:
        target = contents.task.settings()["_target_"]
        raise ConfigError(
            f"task._target_={target}: the report describes classes and numbers only; see {run.predictions} "
            f"and {run.metrics}"
        )
    environment = _environment()
    environment.globals["linked"] = contents.anonymity is None  # links to files of the run
    # all values that templates show, without paths of this computer
    environment.finalize = lambda value: _shown(contents, value)
    with style():
        page = environment.get_template("report.html.j2")
        context = _context(contents)
        # once without the list of references, to find those that the page cites
        cited = cited_keys(page.render(context | {"references": []}))
        html = page.render(context | {"references": reference_list(cited, context["references"])})
    return write_atomic(run.report, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def _shown(contents: ReportContents, value: Any) -> Any:
    """A value of a template; texts that are not HTML or embedded pictures are cleaned."""
    return contents.clean(value) if type(value) is str and not value.startswith("data:image/") else value


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
    environment.filters["named"] = listed
    return environment


@dataclass(frozen=True)
class Section:
    """A section of the report: a module of `xai_brain.reporting.sections` and the template beside it.

    Parameters
    ----------
    name : str
        Name of the module and of the template.
    title : str
    content : object
        Content for the template; None: the section is omitted.
    """

    name: str
    title: str
    content: Any

    @property
    def id(self) -> str:
        """Anchor in the page."""
        return self.name.replace("_", "-")


def _sections(contents: ReportContents, gallery: Gallery) -> list[Section]:
    """All sections in the order of their POSITION, which also determines the numbers of the figures.

    A section with REPORTED_AS is for tasks that are reported in this way; of others its content is None.
    """
    names = [module.name for module in iter_modules(sections.__path__)]
    modules = [import_module(f"{sections.__name__}.{name}") for name in names]
    found = []
    for module in track(sorted(modules, key=lambda module: module.POSITION), "report", "sections"):
        name = module.__name__.rpartition(".")[2]
        applies = getattr(module, "REPORTED_AS", contents.task.reported_as) == contents.task.reported_as
        with log_seconds(f"report section {name}"):
            content = module.section(contents, gallery) if applies else None
            found.append(Section(name, module.TITLE, content))
    return found


def _context(contents: ReportContents) -> dict[str, Any]:
    shown = _sections(contents, Gallery(contents.run.path / "figures"))
    planted = contents.setting("planted.kind")
    return {
        "c": contents,
        "label": f"planted {planted}" if planted else contents.setting("data.label", "the label"),
        "title": contents.setting("name", "run" if contents.anonymity else contents.run.path.resolve().name),
        "sections": shown,
        **{section.name: section.content for section in shown},
        "origin": origin(contents),
        "methods_text": methods_text(contents),
        "published_rma": PUBLISHED_RMA,
        "percentile": PERCENTILE,
    }
