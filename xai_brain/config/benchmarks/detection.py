"""Settings of the detection benchmark: cells of a network, a kind of effect, its places and its size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.config.setting import ConfigError, check_values, setting

KEYS = ("network", "effect", "places", "sizes")  # of an entry of detection.cells
NETWORK_KEYS = ("model", "trainer", "n_perm")
FIXED = ("size", "center_mm", "further_centers_mm")  # fields of an effect that the cells determine


@dataclass(frozen=True)
class Cell:
    """One network, one kind of effect, its places and its size.

    Parameters
    ----------
    network, effect, places : str
        Names in ``detection.networks``, ``detection.effects`` and ``detection.places``.
    size : float
        ``planted.size``.
    """

    network: str
    effect: str
    places: str
    size: float

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.network}_{self.effect}_{self.places}_{self.size:g}"


@dataclass
class DetectionConfig:
    """Detection benchmark: one network per cell, which distinguishes random classes with a planted effect."""

    cells: list[Any] = setting(
        [], "entries with network, effect, places and a list of sizes; one network is trained for each size"
    )
    networks: dict[str, Any] = setting(
        {}, "by name: model and trainer, fields that differ from those of the settings, and n_perm"
    )
    effects: dict[str, Any] = setting({}, "by name: fields of planted, without size and centres")
    places: dict[str, Any] = setting({}, "by name: list of centres, world mm (RAS+, MNI152)")
    n_perm: int = setting(4, "networks of each cell that are trained on permuted labels", at_least=1)
    n_participants: int = setting(
        8, "test participants who are explained by each of these networks", at_least=1
    )

    def __post_init__(self) -> None:
        check_values(self, "detection")
        for number, entry in enumerate(self.cells):
            where = f"detection.cells[{number}]"
            if not isinstance(entry, dict) or set(entry) != set(KEYS) or not entry["sizes"]:
                raise ConfigError(f"{where}: needs {', '.join(KEYS)}")
            for key, group in (("network", "networks"), ("effect", "effects"), ("places", "places")):
                if entry[key] not in getattr(self, group):
                    known = ", ".join(getattr(self, group))
                    raise ConfigError(f"{where}.{key}={entry[key]}: not in detection.{group} ({known})")
        cells = list(self.all_cells())
        if len({cell.name for cell in cells}) < len(cells):
            raise ConfigError("detection.cells: the same cell occurs twice")
        for cell in cells:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", cell.name):
                raise ConfigError(f"detection: {cell.name}: names can hold letters, digits, _ and - only")
            try:
                check_planted(self.planted(cell))
            except PlantedError as error:
                raise ConfigError(f"detection.cells: {cell.name}: {error}") from error
        for name, network in self.networks.items():
            if unknown := sorted(set(network or {}) - set(NETWORK_KEYS)):
                raise ConfigError(
                    f"detection.networks.{name}.{unknown[0]}: one of {', '.join(NETWORK_KEYS)} is needed"
                )

    def all_cells(self) -> Iterator[Cell]:
        """Cells in the order of the settings."""
        for entry in self.cells:
            for size in entry["sizes"]:
                yield Cell(str(entry["network"]), str(entry["effect"]), str(entry["places"]), float(size))

    def planted(self, cell: Cell) -> PlantedEffect:
        """The effect of a cell.

        Raises
        ------
        ConfigError
            A field that does not exist, or that the cell determines.
        """
        first, *further = self.places[cell.places]
        effect = dict(self.effects[cell.effect])
        valid = {each.name for each in fields(PlantedEffect)} - set(FIXED)
        if unknown := sorted(set(effect) - valid):
            raise ConfigError(f"detection.effects.{cell.effect}.{unknown[0]}: not a field of an effect")
        return PlantedEffect(**effect, size=cell.size, center_mm=first, further_centers_mm=further)

    def n_perm_of(self, network: str) -> int:
        """Networks on permuted labels of each cell of a network."""
        return int((self.networks[network] or {}).get("n_perm", self.n_perm))
