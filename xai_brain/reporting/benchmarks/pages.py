"""What the pages of benchmarks share: figures as files and in the page, and the frame of the page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from xai_brain.io.atomic import write_atomic
from xai_brain.reporting.html_report import _environment

PNG_DPI = 160


def write_benchmark_page(
    folder: Path, template: str, figures: Mapping[str, Figure], context: Mapping[str, Any]
) -> None:
    """Write ``<name>.png`` of each figure and ``report.html``.

    Parameters
    ----------
    folder : Path
    template : str
        File beside this module, which extends ``base.html.j2``.
    figures : mapping of name to Figure
        The template receives them as ``figures[name]``, base64 PNG.
    context : mapping
        Values of the template, with ``title``.
    """
    pngs = {}
    for name, figure in figures.items():
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=PNG_DPI)
        pngs[name] = buffer.getvalue()
        write_atomic(folder / f"{name}.png", partial(_write_bytes, content=pngs[name]))
    encoded = {name: b64encode(png).decode() for name, png in pngs.items()}
    html = _environment().get_template(f"benchmarks/{template}").render({**context, "figures": encoded})
    write_atomic(folder / "report.html", lambda temporary: temporary.write_text(html, encoding="utf-8"))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
