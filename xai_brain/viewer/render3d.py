"""3-D rendering with ipyniivue, which is imported only when its tab is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets as widgets
import nibabel as nib
import numpy as np

from xai_brain.io.extras import install_command
from xai_brain.viewer.layers import Layer
from xai_brain.viewer.scene import Scene


class RenderTab:
    """The content of the 3-D tab.

    Parameters
    ----------
    scene : function that returns the scene shown, or None
    methods : function that returns the methods shown; the first is rendered
    """

    def __init__(self, scene: Callable[[], Scene | None], methods: Callable[[], Sequence[str]]):
        self._scene, self._methods = scene, methods
        self._open = False
        self._niivue: Any = None
        self.box = widgets.VBox([])

    def opened(self, is_open: bool) -> None:
        """Called when the tab is opened or closed."""
        self._open = is_open
        self.changed()

    def changed(self) -> None:
        """Called when the scene or the methods change; nothing is drawn while the tab is closed."""
        self._close()
        if not self._open:
            return
        scene = self._scene()
        if scene is None:
            self._show_message("There is nothing to show.")
            return
        if find_spec("ipyniivue") is None:
            self._show_message(
                f"3-D rendering needs ipyniivue: {install_command('render')}, then restart the kernel."
            )
            return
        try:
            self._draw(scene)
        except Exception as error:  # the slices also work without the rendering
            self._show_message(f"3-D rendering failed: {type(error).__name__}: {error}")

    def _draw(self, scene: Scene) -> None:
        from ipyniivue import NiiVue, SliceType

        layer = next((scene.layers[name] for name in self._methods() if name in scene.layers), None)
        niivue = NiiVue(height=480)
        with TemporaryDirectory() as folder:
            volumes = [{"path": _write(scene.background, Path(folder) / "image.nii.gz"), "colormap": "gray"}]
            if layer is not None and layer.maximum > 0:
                volumes.append(_overlay(scene, layer, Path(folder) / "map.nii.gz"))
            niivue.load_volumes(volumes)
        niivue.set_slice_type(SliceType.RENDER)
        niivue.set_clip_plane(0.1, 180, 20)  # a clip plane, so that the map inside the head is visible
        self._niivue = niivue
        title = f"{scene.title}: {layer.name if layer else 'image only'}, highest 5 % of the brain. "
        self.box.children = [widgets.Label(title + "Drag turns; right drag moves the cut."), niivue]

    def _show_message(self, text: str) -> None:
        self.box.children = [widgets.Label(text)]

    def _close(self) -> None:
        self.box.children = []
        if self._niivue is not None:
            self._niivue.close()  # otherwise its volumes stay in the kernel and in a saved notebook
            self._niivue = None


def _write(img: nib.Nifti1Image, path: Path) -> Path:
    nib.Nifti1Image(np.asanyarray(img.dataobj, dtype=np.float32), img.affine).to_filename(path)
    return path


def _overlay(scene: Scene, layer: Layer, path: Path) -> dict[str, Any]:
    values = np.where(scene.brain, np.abs(layer.shown), 0)
    low = float(np.percentile(layer.ranked, 95)) if layer.ranked.size else 0.0
    _write(nib.Nifti1Image(values, scene.background.affine), path)
    scale = {"cal_min": low or layer.limit / 2, "cal_max": layer.limit}
    return {"path": path, "colormap": "warm", "opacity": 1.0, **scale}
