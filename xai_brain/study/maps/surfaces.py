"""Views of maps on the cortical surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from xai_brain.study.maps.images import MapImages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xai_brain.statistics.colour_scale import ColourScale


class MapSurfaces(MapImages):
    """Maps and their views on fsaverage; see `xai_brain.Maps`.

    A vertex shows the mean of the map over the thickness of the cortex. Maps below the cortex, and in the
    cerebellum, are not visible there.
    """

    def plot_surface(
        self,
        method: str,
        participant_id: str | None = None,
        *,
        label: str | None = None,
        session_id: str | None = None,
        seed: int | None = None,
    ) -> Figure:
        """Lateral and medial views of both inflated hemispheres (fsaverage5).

        Parameters
        ----------
        method : str
        participant_id : str, optional
            Default: the mean over participants.
        label : str, optional
            Class of the mean.
        session_id, seed : optional
            As in `img`.

        Raises
        ------
        ConfigError
            A name does not exist, or the maps are not in MNI152.
        """
        from xai_brain.reporting.figures.style import style
        from xai_brain.reporting.figures.surface import surface_figure

        title, img, scale = self._for_surface(method, participant_id, label, session_id, seed)
        with style():
            return surface_figure({title: img}, scale)

    def view_surface(
        self,
        method: str,
        participant_id: str | None = None,
        *,
        label: str | None = None,
        session_id: str | None = None,
        seed: int | None = None,
    ) -> Any:
        """The same as `plot_surface`, to be turned in a notebook.

        Returns
        -------
        nilearn.plotting.surface.html_surface.SurfaceView
            ``save_as_html(path)`` writes a page that works without a network connection.
        """
        from xai_brain.reporting.figures.surface import surface_view

        title, img, scale = self._for_surface(method, participant_id, label, session_id, seed)
        return surface_view(img, scale, title)

    def _for_surface(
        self,
        method: str,
        participant_id: str | None,
        label: str | None,
        session_id: str | None,
        seed: int | None,
    ) -> tuple[str, nib.Nifti1Image, ColourScale]:
        """Title, map and colour scale; the scale is that of all voxels of the map, as in the slices."""
        from xai_brain.statistics.colour_scale import ColourScale

        self._require_common_space("surface views")
        if participant_id is None:
            img = self.mean_img(method, label, seed=seed)
            title = f"{method}, mean of {label or 'all participants'}"
        else:
            img = self.img(participant_id, method, session_id=session_id, seed=seed)
            title = f"{method}, {participant_id}"
        values = img.get_fdata(dtype=np.float32)
        return title, img, ColourScale.of(values[values != 0])
