"""The viewer: selection of participant and maps, and the canvas in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import nibabel as nib
import pandas as pd

from xai_brain.io.atomic import write_atomic
from xai_brain.io.orientation import validate_orientation
from xai_brain.runs.directory import RunDirectory
from xai_brain.runs.threshold_statement import threshold_name, threshold_text
from xai_brain.viewer.canvas import CORRECTED, DIALS, KINDS, TEXTS, SliceCanvas
from xai_brain.viewer.catalogue import Entry, GivenImages, Image, Images, RunCatalogue
from xai_brain.viewer.controls import (
    MAX_PANELS,
    EntryChooser,
    channel_choice,
    display_controls,
    method_buttons,
)
from xai_brain.viewer.last_view import LastView
from xai_brain.viewer.loading import common_limits, load_scene
from xai_brain.viewer.page import page_of
from xai_brain.viewer.readout import as_text, clusters_of, readout_at
from xai_brain.viewer.regions import given_regions, regions_of_run
from xai_brain.viewer.scene import Scene


class SliceViewer(widgets.VBox):
    """Interactive viewer of the maps of a run: linked planes and 3-D, up to four methods side by side.

    Only tables are read at first; images are read for one participant at a time. All controls change the
    display and not the maps.

    Parameters
    ----------
    run_dir : path or RunDirectory
    labels_img : image or path, optional
        Atlas in the space of the maps, on any grid: its outline, and the names of regions. Default: the atlas
        of the run (setting ``evaluation.atlas``).
    lut : pandas.DataFrame, optional
        Columns ``index`` and ``name``. Default: the table beside the file of the atlas.

    Examples
    --------
    >>> SliceViewer("outputs/demo")  # doctest: +SKIP
    """

    def __init__(
        self,
        run_dir: str | Path | RunDirectory | GivenImages,
        labels_img: Image | None = None,
        lut: pd.DataFrame | None = None,
    ):
        if isinstance(run_dir, GivenImages):
            self._catalogue: GivenImages | RunCatalogue = run_dir
        else:
            run = run_dir if isinstance(run_dir, RunDirectory) else RunDirectory(Path(run_dir))
            self._catalogue = RunCatalogue(run)
        self._labels_img, self._lut, messages = given_regions(labels_img, lut)
        if labels_img is None and isinstance(self._catalogue, RunCatalogue):
            atlas = (self._catalogue.setting(f"evaluation.{name}") for name in ("atlas", "atlas_table"))
            self._labels_img, self._lut, messages = regions_of_run(*atlas)
        self._messages = [*self._catalogue.messages, *messages]
        self._methods = list(self._catalogue.methods[:MAX_PANELS])
        self._common: dict[str, dict[str, float]] = {}  # limits of each channel
        self._scene: Scene | None = None
        self._view: dict[str, Any] = {}  # as the browser reported it: position, zoom, settings
        self._last_view = LastView()
        self.canvas = SliceCanvas(view_id=self._last_view.view_id)
        self.canvas.on_msg(self._received)
        display, self.controls = display_controls(self.canvas)
        reference = self._catalogue.reference
        self.canvas.statement, self.canvas.corrected = threshold_text(reference), threshold_name(reference)
        named = [self.canvas.corrected] if self._catalogue.corrected else []
        self.controls["threshold_kind"].options = (*KINDS[:CORRECTED], *named)
        self.controls["scale"].observe(lambda change: self._send_limits(), "value")
        self.chooser = EntryChooser(self._catalogue.entries, self._show)
        self.methods = method_buttons(self._catalogue.methods, self._choose_methods)
        self.channel = channel_choice(self._catalogue.channels, lambda name: self._show(self._entry))
        super().__init__([self.chooser, self.methods, self.channel, display, self.canvas])
        if self._catalogue.entries:
            self._show(self._catalogue.entries[0])

    @classmethod
    def from_images(
        cls,
        background_img: Image,
        maps: Mapping[str, Image],
        labels_img: Image | None = None,
        lut: pd.DataFrame | None = None,
        *,
        truth_img: Image | None = None,
        title: str = "images",
        orientation: str | None = None,
    ) -> SliceViewer:
        """View given images and maps, also of other software.

        Parameters
        ----------
        background_img : image or path
        maps : mapping of name to image or path
            On any grid in the same world space.
        labels_img, lut : optional
            As for the class.
        truth_img : image or path, optional
            Outlined at half of its maximum.
        title : str, default "images"
        orientation : str, optional
            Directions in which the voxel indices increase, such as ``LAS``, for files without orientation;
            without it, such files are not shown.
        """
        if orientation is not None:
            validate_orientation(orientation)
        given = GivenImages(Images(title, [background_img], maps, truth_img, orientation))
        return cls(given, labels_img=labels_img, lut=lut)

    # -- for code ------------------------------------------------------------------------------
    def show(self, participant_id: str) -> None:
        """Show a participant, or group maps, by name.

        Raises
        ------
        KeyError
            The name does not exist.
        """
        names = [entry.name for entry in self._catalogue.entries]
        if participant_id not in names:
            raise KeyError(f"{participant_id} is not in this run")
        self.chooser.pick(names.index(participant_id))

    def go_to(self, mm: Sequence[float]) -> None:
        """Move the crosshair to a position, (x, y, z) in RAS+ mm."""
        self._view["mm"] = [float(x) for x in mm]  # for a viewer that is not displayed yet
        self.canvas.send({"kind": "go", "mm": self._view["mm"]})

    def readout(self, mm: Sequence[float]) -> dict[str, Any]:
        """Voxel, region, intensity, and value and percentile of every method at (x, y, z) mm.

        See `xai_brain.viewer.readout.readout_at`.
        """
        if self._scene is None:
            raise ValueError("nothing is shown")
        return readout_at(self._scene, mm)

    def save_html(self, path: str | Path) -> Path:
        """Write the current view as an HTML page that requires neither Python nor a network connection.

        Position, zoom and clusters are those of the browser if the viewer is displayed.
        """
        text = self._page(self._view)
        return write_atomic(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _ipython_display_(self) -> None:
        """Show the viewer and the picture of the last view, which is hidden while the viewer is active."""
        from IPython.display import display

        display({**self._repr_mimebundle_(), "text/plain": ""}, raw=True)
        self._last_view.display()

    # -- inside --------------------------------------------------------------------------------
    def _show(self, entry: Entry) -> None:
        self._entry = entry
        images = self._catalogue.images_of(entry, self.channel.value)
        loaded = load_scene(images, self._labels_img, self._lut)
        self._scene = loaded if isinstance(loaded, Scene) else None
        self._problems = loaded.messages if isinstance(loaded, Scene) else loaded
        for name, useful in self._useful().items():  # controls only for what can be shown
            self.controls[name].layout.display = "" if useful else "none"
        self._send_scene()

    def _useful(self) -> dict[str, bool]:
        """Which controls change something in this scene."""
        scene, entries = self._scene, self._catalogue.entries
        layers = [] if scene is None else list(scene.layers.values())
        many = layers if isinstance(self._catalogue, GivenImages) else [e for e in entries if not e.group]
        return {
            "threshold_kind": bool(layers),
            "colours": bool(layers),
            "truth": scene is not None and scene.truth is not None,
            "atlas": self._labels_img is not None,
            "inside": scene is not None and not scene.brain.all(),
            "scale": len(many) > 1,
            "sign": any(layer.signed for layer in layers) or self.controls["sign"].index > 0,
        }

    def _page(self, view: Mapping[str, Any]) -> str:
        if self._scene is None:
            raise ValueError("nothing is shown")
        chosen = {
            name: control.index if isinstance(control, widgets.Dropdown) else control.value
            for name, control in self.controls.items()
        }
        chosen |= {name: getattr(self.canvas, name) for name in (*DIALS, *TEXTS)} | view.get("settings", {})
        limits, layers = self._limits(), self._scene.layers
        thresholds = {name: value for name, value in view.get("thresholds", {}).items() if name in layers}
        if not thresholds:  # of a viewer that is not displayed
            thresholds = {
                name: layers[name].threshold(chosen, limits.get(name, layers[name].limit))
                for name in self._methods
                if name in layers
            }
        return page_of(self._scene, self._methods, limits, chosen, {**view, "thresholds": thresholds})

    def _choose_methods(self, methods: list[str]) -> None:
        self._methods = methods
        self._send_scene()

    def _send_scene(self) -> None:
        messages = [*self._messages, *(self._problems if self._catalogue.entries else [])]
        if self._scene is None:
            self.canvas.send({"kind": "scene", "messages": messages})
            return
        description, buffers = self._scene.message(self._methods, self._limits())
        self.canvas.send({**description, "messages": messages, "view": self._view or None}, buffers)

    def _limits(self) -> dict[str, float]:
        """Limit of the colour scale of each method; empty: each map has its own limit."""
        if self.controls["scale"].value != "common" or self._scene is None:
            return {}
        if isinstance(self._catalogue, GivenImages):
            return dict.fromkeys(
                self._scene.layers, max((m.limit for m in self._scene.layers.values()), default=0.0)
            )
        channel = self.channel.value
        if channel not in self._common:
            self._common[channel] = common_limits(self._catalogue, channel)
        return self._common[channel]

    def _send_limits(self) -> None:
        if self._scene is not None:
            own = {name: layer.limit for name, layer in self._scene.layers.items()}
            self.canvas.send({"kind": "limits", "limits": {**own, **self._limits()}})

    def _received(self, canvas: SliceCanvas, content: dict[str, Any], buffers: list[Any]) -> None:
        """Handle a message of the browser; errors are shown in the widget, not as a traceback."""
        try:
            self._answer(content, buffers)
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            canvas.send({"kind": "note", "text": f"{content.get('kind')}: {text}"})
            if content.get("kind") == "point":  # the browser asks again only when it has an answer
                canvas.send({"kind": "readout", "mm": None})

    def _answer(self, content: dict[str, Any], buffers: list[Any]) -> None:
        kind, scene = content["kind"], self._scene
        if kind == "ready":
            self._send_scene()
        elif kind == "picture":
            self._view = content.get("view", {})
            self._last_view.update(bytes(buffers[0]))
        elif scene is None:
            if kind == "point":
                self.canvas.send({"kind": "readout", "mm": None})
        elif kind == "point":
            mm = nib.affines.apply_affine(scene.background.affine, content["voxel"])
            self.canvas.send({"kind": "readout", **as_text(readout_at(scene, mm))})
        elif kind == "clusters" and content["method"] in scene.layers:
            layer = scene.layers[content["method"]]
            rows = clusters_of(
                scene, layer, content["threshold"], sign=content["sign"], inside=content["inside"]
            )
            self.canvas.send({"kind": "clusters", "method": layer.name, "rows": rows})
        elif kind == "save_html":
            self._view = content["view"]
            self.canvas.send({"kind": "page"}, [self._page(self._view).encode()])
