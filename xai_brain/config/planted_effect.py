"""Settings of an effect that is planted into a cohort, and which of them make sense. No torch, no images."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

KINDS = ("atrophy", "expansion", "intensity", "lesion")


class PlantedError(ValueError):
    """An effect that cannot be planted: one line with the setting, what is wrong and what to do."""


@dataclass
class PlantedEffect:
    """An effect at a known place in one of two random classes; see `xai_brain.data.planted.effects.plant`.

    Parameters
    ----------
    kind : {"atrophy", "expansion", "intensity", "lesion"}, optional
        None plants nothing.
    size : float, default 20.0
        Of atrophy and expansion: change of the region's volume, percent. Of intensity: difference of the
        region's mean between the classes as Cohen's d; negative is darker. Of lesion: intensity added in the
        lesions, in standard deviations of the brain's voxels.
    absolute : bool, default False
        The size of intensity and lesion is in the units of the prepared volumes instead.
    variation : float, default 0.2
        Standard deviation of the strength over the subjects who carry the effect, relative to its mean. For
        atrophy and expansion it varies the change of volume, for lesion the volume of the lesions.
    center_mm : list of 3 float, optional
        Centre of a sphere, world mm (RAS+, MNI152).
    radius_mm : float, default 10.0
        Radius of the sphere.
    further_centers_mm : list of lists of 3 float
        Centres of further spheres of this radius. An image with the effect has it at all places; size, volume
        and number of lesions are those of each place.
    mask_img : str, optional
        NIfTI in MNI152 whose voxels above one half of its maximum are the region; instead of the sphere.
    labels_img, table : str, optional
        Atlas and its table, as for `xai_brain.atlas.atlas.load_atlas`; instead of the sphere.
    region : str or int, optional
        Name or index of a region of the atlas.
    edge_mm : float, optional
        Width of the soft edge. Of intensity it lies inside the region; default: half of the greatest depth.
        Of atrophy and expansion it is the surrounding tissue that makes up for the change; default: the
        radius of a sphere with the volume of the region.
    lesion_volume_ml : float, default 1.0
        Of all lesions of a subject.
    lesion_count : int, default 3
        Number of lesions of a participant.
    lesion_compactness : float, default 0.6
        36 pi V^2 / S^3 of each lesion, 1 for a sphere; in [0.4, 0.95].
    distractor_center_mm : list of 3 float, optional
        A second effect, alike but at this place (a sphere of the same volume), in half of each class.
    confound_center_mm : list of 3 float, optional
        A second place whose intensity varies over subjects with a correlation of `confound_rho` with the
        class.
    confound_radius_mm : float, default 10.0
        Radius of the second place.
    confound_size : float, default 1.0
        Standard deviation that it adds to its region's mean, in standard deviations of that mean over
        subjects.
    confound_rho : float in [-1, 1], default 0.0
        If it is not 0, the second place depends on the class too: a confound, which is used with
        good reason and is not the truth.
    suppression : float, default 0.0
        How much of the same variation also lies on the region of an intensity effect (same unit). With
        `confound_rho` 0 the second place is a suppressor: alone it says nothing of the class, and yet the
        best classifier subtracts it.
    n_sites : int, default 1
        Above 1 every subject belongs to one of as many sites, independently of the class; it is written to
        the column site.
    site_gain_sd, site_offset_sd : float, default 0.1
        Standard deviation over sites and places of a smooth factor and of a smooth offset (in standard
        deviations of the brain's voxels) that all images of a site share.
    random_state : int, default 0
        Random state of classes, strengths and lesions.

    Examples
    --------
    >>> effect = PlantedEffect(kind="intensity", center_mm=[34, -20, -10], radius_mm=22.0)
    >>> effect.kind, effect.radius_mm
    ('intensity', 22.0)

    References
    ----------
    .. [1] Haufe et al. (2014). On the interpretation of weight vectors of linear models in multivariate
       neuroimaging. NeuroImage 87 (suppressors).
    .. [2] Clark, Wilming, Haufe (2024). XAI-TRIS: non-linear image benchmarks to quantify false positive
       post-hoc attribution of feature importance. Machine Learning 113.
    """

    kind: str | None = None
    size: float = 20.0
    absolute: bool = False
    variation: float = 0.2
    center_mm: list[float] | None = None
    radius_mm: float = 10.0
    further_centers_mm: list[list[float]] = field(default_factory=list)
    mask_img: str | None = field(default=None, metadata={"role": "path"})
    labels_img: str | None = field(default=None, metadata={"role": "path"})
    table: str | None = field(default=None, metadata={"role": "path"})
    region: Any = field(default=None, metadata={"role": "label"})
    edge_mm: float | None = None
    lesion_volume_ml: float = 1.0
    lesion_count: int = 3
    lesion_compactness: float = 0.6
    distractor_center_mm: list[float] | None = None
    confound_center_mm: list[float] | None = None
    confound_radius_mm: float = 10.0
    confound_size: float = 1.0
    confound_rho: float = 0.0
    suppression: float = 0.0
    n_sites: int = 1
    site_gain_sd: float = 0.1
    site_offset_sd: float = 0.1
    random_state: int = 0

    def __post_init__(self) -> None:
        for name in ("center_mm", "distractor_center_mm", "confound_center_mm"):
            if (center := getattr(self, name)) is not None:
                setattr(self, name, [float(x) for x in center])  # also of a tuple or a ListConfig
        self.further_centers_mm = [[float(x) for x in center] for center in self.further_centers_mm]

    @property
    def deforms(self) -> bool:
        """Whether the effect changes the shape of a region."""
        return self.kind in ("atrophy", "expansion")

    @property
    def by_d(self) -> bool:
        """Whether `size` is a standardised difference (Cohen's d) and not a share of the intensity."""
        return self.kind == "intensity" and not self.absolute


def check_planted(settings: PlantedEffect) -> None:
    """Refuse settings that cannot be planted.

    Raises
    ------
    PlantedError
        One line that names the setting.
    """
    if settings.kind is None:
        return
    if settings.kind not in KINDS:
        raise PlantedError(f"planted.kind={settings.kind}: one of {', '.join(KINDS)}, null is needed")
    _check_place(settings)
    _check_size(settings)
    _check_lesions(settings)
    if settings.confound_center_mm is None and (settings.confound_rho or settings.suppression):
        raise PlantedError(
            "no value for planted.confound_center_mm: the place of the confound, [x,y,z] in mm"
        )
    if not -1 <= settings.confound_rho <= 1:
        raise PlantedError(f"planted.confound_rho={settings.confound_rho}: a correlation, from -1 to 1")
    if settings.suppression and (settings.kind != "intensity" or settings.confound_rho):
        raise PlantedError(
            f"planted.suppression={settings.suppression}: only with kind=intensity and confound_rho=0"
        )
    if settings.n_sites < 1:
        raise PlantedError(f"planted.n_sites={settings.n_sites}: at least 1 is needed")
    for name in ("confound_size", "site_gain_sd", "site_offset_sd"):
        if not getattr(settings, name) >= 0:
            raise PlantedError(f"planted.{name}={getattr(settings, name)}: at least 0 is needed")


def _check_place(settings: PlantedEffect) -> None:
    atlas = settings.labels_img is not None or settings.region is not None
    if atlas and settings.mask_img is not None:
        raise PlantedError("planted.mask_img and planted.labels_img: one place only; set the other to null")
    if atlas and (settings.labels_img is None or settings.region is None):
        missing = "labels_img" if settings.labels_img is None else "region"
        raise PlantedError(f"no value for planted.{missing}: an atlas needs labels_img and region")
    if not atlas and settings.mask_img is None and settings.center_mm is None:
        raise PlantedError(
            "no value for planted.center_mm: the place of the effect, "
            "[x,y,z] in mm of MNI152 (or mask_img, or labels_img and region)"
        )
    if settings.further_centers_mm and (atlas or settings.mask_img is not None or settings.suppression):
        raise PlantedError(
            "planted.further_centers_mm: only with planted.center_mm, and without planted.suppression"
        )
    single = ("center_mm", "distractor_center_mm", "confound_center_mm")
    centers = [(name, getattr(settings, name)) for name in single]
    centers += [("further_centers_mm", center) for center in settings.further_centers_mm]
    for name, center in centers:
        if center is not None and len(center) != 3:
            raise PlantedError(f"planted.{name}={center}: three numbers are needed, x, y and z in mm")
    for name in ("radius_mm", "confound_radius_mm", "edge_mm"):
        if (value := getattr(settings, name)) is not None and not value > 0:
            raise PlantedError(f"planted.{name}={value}: above 0 is needed")


def _check_size(settings: PlantedEffect) -> None:
    size, variation = settings.size, settings.variation
    if not 0 <= variation <= 0.3:
        raise PlantedError(f"planted.variation={variation}: from 0 to 0.3")
    if settings.deforms and not 0 <= size <= (60 if settings.kind == "atrophy" else 150):
        most = 60 if settings.kind == "atrophy" else 150
        raise PlantedError(f"planted.size={size}: percent of the region's volume, from 0 to {most}")
    if settings.by_d and abs(size) * variation > 1:
        raise PlantedError(
            f"planted.size={size}: a strength that varies by {variation} cannot make this d; "
            f"at most {1 / variation:g}, or a smaller planted.variation"
        )


def _check_lesions(settings: PlantedEffect) -> None:
    if settings.lesion_count < 1:
        raise PlantedError(f"planted.lesion_count={settings.lesion_count}: at least 1 is needed")
    if not settings.lesion_volume_ml > 0:
        raise PlantedError(f"planted.lesion_volume_ml={settings.lesion_volume_ml}: above 0 is needed")
    if not 0.4 <= settings.lesion_compactness <= 0.95:
        raise PlantedError(f"planted.lesion_compactness={settings.lesion_compactness}: from 0.4 to 0.95")


def difference_of_means(d: float, sd: float, variation: float) -> float:
    """Mean change that makes the d asked for, when the change itself varies.

    With strengths of mean 1 and standard deviation v the class that carries the effect has the variance
    sd^2 + (v delta)^2, the other sd^2; d is delta by the root of their mean.

    Parameters
    ----------
    d : float
    sd : float
        Of the region's mean over subjects without the effect.
    variation : float
        v; abs(d) v is below sqrt(2).

    Returns
    -------
    float
        delta, in the units of `sd`.
    """
    return d * sd / sqrt(1 - (d * variation) ** 2 / 2)
