"""Section of the report: share of each channel of the inputs in the maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xai_brain.io.nifti import load_img
from xai_brain.metrics.comparison.channels import channel_shares
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import number
from xai_brain.runs.directory import of_channel

POSITION, TITLE = 75, "Channels"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Shares of the channels with intervals over participants; None for inputs with one channel."""
    if not contents.channels:
        return None
    maps = {method: list(_participants(contents, method)) for method in contents.methods}
    own = {method: found for method, found in maps.items() if found}
    table = channel_shares(own.items(), contents.channels)
    known = table[table["mean"].notna()]
    panels = {
        str(channel): [
            {"name": row["method"], "value": row["mean"], "low": number(row["ci_low"]),
             "high": number(row["ci_high"]), "chance": 1 / len(contents.channels)}
            for row in rows.to_dict("records")
        ]
        for channel, rows in known.groupby("channel", sort=False)
    }  # fmt: skip
    figure = None
    if panels:
        charts = for_screens(
            comparison_figures.interval_figure, panels, method_styles(contents.methods), shares=True
        )
        figure = gallery.add("channels", **charts)
    return {
        "names": contents.channels,
        "rows": {
            method: {row["channel"]: row for row in rows.to_dict("records")}
            for method, rows in table.groupby("method", sort=False)
        },
        "common": [method for method in contents.methods if method not in own],
        "figure": figure,
        "files": contents.files("attributions/**/*_desc-*+*_attribution.nii.gz")[:1],
    }


def _participants(contents: ReportContents, method: str) -> Iterator[list[list[np.ndarray]]]:
    """Maps of each participant, each with one array per channel, as far as all channels have a map."""
    for _, rows in contents.explained.groupby("participant_id", sort=False):
        found = []
        for row in rows.itertuples():
            ids = (row.participant_id, row.session_id)
            names = [of_channel(method, channel) for channel in contents.channels]
            paths = [contents.run.attribution(*ids, name, row.seed) for name in names]
            if all(path.exists() for path in paths):
                found.append([np.asanyarray(load_img(path).dataobj) for path in paths])
        if found:
            yield found
