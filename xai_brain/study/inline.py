"""Display of objects in notebooks: figures without pyplot, HTML pages in a frame."""

from __future__ import annotations

import html
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_inline(figure: Figure) -> Figure:
    """Make notebooks display a figure that was created without pyplot; returns the figure."""

    def png() -> bytes:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    setattr(figure, "_repr_png_", png)  # noqa: B010 (the class has no such attribute)
    return figure


@dataclass(frozen=True)
class ReportPage:
    """A report that notebooks show inline.

    Parameters
    ----------
    path : pathlib.Path
        ``report.html``, a single file that can be read offline.
    height : int, default 700
        Height of the frame in a notebook, px.
    """

    path: Path
    height: int = 700

    def __repr__(self) -> str:
        return f"ReportPage({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{self.height}" frameborder="0"></iframe>'
