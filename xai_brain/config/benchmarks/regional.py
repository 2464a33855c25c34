"""Settings of the regional benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xai_brain.config.setting import ConfigError, check_values, setting


@dataclass
class RegionalConfig:
    """Regional benchmark: one network per region of an atlas, which regresses a measure of this region."""

    regions: list[Any] = setting(
        [], "regions of the atlas; a name without its side is both sides; none: no benchmark", role="label"
    )
    atlas: str | None = setting(
        None, "labels image of regional.regions in MNI152, or a name of nilearn, e.g. aal", role="path"
    )
    atlas_table: str | None = setting(
        None, "names of the labels of regional.atlas; default: the table beside the image", role="path"
    )
    columns: list[Any] | None = setting(
        None,
        "columns of participants.tsv with a measure of each region; default: doses are planted",
        role="label",
    )
    kind: str = setting("intensity", "what a planted dose changes", choices=("intensity", "volume"))
    size: float = setting(
        10.0,
        "change by a dose of one standard deviation: of intensity in standard deviations of the mean of the "
        "region, of volume in percent",
        above=0,
    )
    random_state: int = setting(0, "random state of the doses of regions")

    def __post_init__(self) -> None:
        check_values(self, "regional")
        self.regions = [str(region) for region in self.regions]
        if not self.regions:
            return
        if len(self.regions) < 2 or len(set(self.regions)) != len(self.regions):
            raise ConfigError(f"regional.regions={self.regions}: two or more different regions are needed")
        if not self.atlas:
            raise ConfigError("no value for regional.atlas: the labels image of the regions")
        if self.columns is not None and len(self.columns) != len(self.regions):
            raise ConfigError(
                f"regional.columns={list(self.columns)}: one column for each of the "
                f"{len(self.regions)} regional.regions is needed"
            )
