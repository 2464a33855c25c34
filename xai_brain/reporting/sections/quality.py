"""Section of the report: one mosaic of the prepared images of all participants, outliers first."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.data.spaces.space_check import check_mni152
from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.parallel.progress import track
from xai_brain.reporting.anatomy import underlay_of
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import mosaic
from xai_brain.reporting.figures.slices import world_bounds
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.wording import fixed

POSITION, TITLE = 15, "Quality control"
MOST = 200  # images in the mosaic; 200 take about 1 MB
FIRST = 24  # that are visible at once
MARGIN_MM = 6.0  # around the brain of the template
ROBUST_SD = 3.0  # distance from the median from which images are marked


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Images in the order of their correlation with the template, the lowest first; None without images."""
    images = _images(contents)
    if images.empty:
        return None
    on_template = is_mni152(contents.run.space)
    if on_template:
        images["correlation"] = [
            check_mni152(load_img(path)).correlation
            for path in track(list(images["path"]), "quality control", "images")
        ]
        images = images.sort_values(["correlation", "name"], na_position="first")
    limit = _limit(images["correlation"]) if on_template else None
    drawn = images.head(MOST)
    template = underlay_of(contents, drawn["path"].iloc[0]) if on_template else None
    captions = [_caption(row) for row in drawn.to_dict("records")]
    figure = gallery.add_tiles("quality-control", _tiles(drawn, template), captions)
    marked = [] if limit is None else (~(drawn["correlation"] >= limit)).tolist()
    return {
        "figure": figure,
        "items": list(zip(figure["tiles"], captions, marked or [False] * len(drawn), strict=True)),
        "first": FIRST,
        "n": len(images),
        "n_shown": len(drawn),
        "n_participants": len(set(images["participant_id"])),
        "on_template": on_template,
        "limit": limit,
        "n_marked": sum(marked),
    }


def _images(contents: ReportContents) -> pd.DataFrame:
    """Prepared images of all participants: participant_id, name (as shown) and path, by name."""
    table = contents.participants
    columns = ["participant_id", "name", "path"]
    if table is None or "participant_id" not in table:
        return pd.DataFrame(columns=columns)
    rows = table.assign(session_id=table.get("session_id", ""))[["participant_id", "session_id"]].itertuples()
    found = [
        (pid, f"{contents.shown_name(pid)} {contents.shown_session(pid, session)}".strip(), path)
        for _, pid, session in rows
        if (path := contents.run.image(pid, session)).exists()
    ]
    return pd.DataFrame(found, columns=columns).sort_values("name")


def _limit(correlations: pd.Series) -> float:
    """Correlation below which an image is marked: the median minus 3 robust standard deviations."""
    median = float(correlations.median())
    return median - ROBUST_SD * 1.4826 * float((correlations - median).abs().median())


def _caption(row: dict[str, Any]) -> str:
    return f"{row['name']}  {fixed(row['correlation'])}" if "correlation" in row else str(row["name"])


def _tiles(drawn: pd.DataFrame, template: nib.Nifti1Image | None) -> list[np.ndarray]:
    images = map(load_img, drawn["path"])
    if template is None:
        return mosaic.draw_tiles(images, world_bounds(load_img(drawn["path"].iloc[0])))
    data = np.asanyarray(template.dataobj)
    brain = nib.Nifti1Image((data > 0.05 * data.max()).astype(np.float32), template.affine)
    return mosaic.draw_tiles(images, world_bounds(template, MARGIN_MM), brain)
