"""Images of the synthetic cohort: the deformed MNI152 template with a planted effect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from xai_brain.data.planted.local_change import falloff, scaled_about
from xai_brain.data.planted.smooth_fields import smooth_fields
from xai_brain.io.nifti import NYQUIST_SIGMA, get_grid

COARSE_MM, FINE_MM, BIAS_MM = 60.0, 25.0, 70.0  # distance of the control points of the random fields


@dataclass
class SyntheticSettings:
    """Settings of the cohort. Variations are standard deviations over participants.

    Parameters
    ----------
    n_subjects : int, default 240
        Participant k is the same in cohorts of any size.
    grid : str, default "t1w_4mm"
    seed : int, default 0
    effect_center_mm : list of 3 float, default [-34, -20, -14]
        World coordinates (RAS+) in the template; the default is the left hippocampus.
    effect_radius_mm : float, default 14
        The effect is constant up to half of the radius and falls smoothly to 0 at the radius.
    effect_volume_change : float in [-0.4, 1], default 0.28
        Change of volume in the inner half of the sphere; negative: atrophy, 0: none.
    effect_intensity_change : float in [-0.5, 1], default 0.35
        Relative change; negative: darker, 0: none.
    effect_variation : float, default 0.2
        Relative variation of the strength of both changes in class M; the strength is in [0.5, 1.5].
    dose : bool, default False
        Whether instead all participants of both classes have the effect, with a strength that is uniform in
        [0, 1.5]: the column dose, a continuous target.
    class_shares : list of float, default []
        Shares of the classes no_effect, effect_1, effect_2 ... (column group), independent of sex: class k
        has the effect at the k-th location only, of which `further_centers_mm` names all but the first.
        Default: sex is the class.
    further_centers_mm : list of (list of 3 float), default []
        Further locations of the effect in class M, with strengths of their own; the truth contains all.
    distractor_center_mm : list of 3 float, optional
        Location of a second, equal effect in half of the participants, independent of the class.
    distractor_follows_class : bool, default False
        Whether instead all participants of class M, and only they, have the second effect.
    deformation_mm : float, default 1.5
        Displacement along each axis.
    size_variation, contrast_variation, bias_field : float, default 0.015, 0.04, 0.04
        Variations of the extent along each axis; of the intensity of the image, grey and white matter; and
        of the smooth multiplicative field.
    noise : float, default 0.03
        Rician noise, relative to the maximum of the template.
    """

    n_subjects: int = 240
    grid: str = "t1w_4mm"
    seed: int = 0
    effect_center_mm: list[float] = field(default_factory=lambda: [-34.0, -20.0, -14.0])
    effect_radius_mm: float = 14.0
    effect_volume_change: float = 0.28
    effect_intensity_change: float = 0.35
    effect_variation: float = 0.2
    dose: bool = False
    class_shares: list[float] = field(default_factory=list)
    further_centers_mm: list[list[float]] = field(default_factory=list)
    distractor_center_mm: list[float] | None = None
    distractor_follows_class: bool = False
    deformation_mm: float = 1.5
    size_variation: float = 0.015
    contrast_variation: float = 0.04
    bias_field: float = 0.04
    noise: float = 0.03

    def __post_init__(self) -> None:
        self.effect_center_mm = [float(x) for x in self.effect_center_mm]  # also from a tuple or a ListConfig
        self.further_centers_mm = [[float(x) for x in center] for center in self.further_centers_mm]
        self.class_shares = [float(x) for x in self.class_shares]
        if self.distractor_center_mm is not None:
            self.distractor_center_mm = [float(x) for x in self.distractor_center_mm]


def make_synthetic_subject(
    index: int, settings: SyntheticSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Compute the images of one participant.

    Parameters
    ----------
    index : int
        Number of the participant, from 0.
    settings : SyntheticSettings

    Returns
    -------
    t1w : ndarray of shape grid.shape, int16
        0 outside the brain and only there.
    truth : ndarray of shape grid.shape, bool
        Location of the effect.
    participant : dict
        Row of participants.tsv.
    """
    grid, templates = get_grid(settings.grid), load_templates(settings.grid)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(0, index)))
    age = rng.uniform(20, 80)
    strength = float(np.clip(rng.normal(1, settings.effect_variation), 0.5, 1.5))
    sex = _sex(index, settings.seed)
    dose = _dose(index, settings.seed)
    group = _group(index, settings)
    carried = dose if settings.dose else strength if group == 1 or (group is None and sex == "M") else 0.0

    # Position of each voxel in the template: individual deformation, independent of the class.
    size = 1 + settings.size_variation * rng.standard_normal(3, np.float32)
    displacement = 0.9 * smooth_fields(rng, grid, COARSE_MM, 3)
    displacement += np.sqrt(1 - 0.9**2) * smooth_fields(rng, grid, FINE_MM, 3)
    places = _world(settings.grid) / size + settings.deformation_mm * np.moveaxis(displacement, 0, -1)
    brain = templates.sample(templates.brain, places)[0] > 0.5
    places = places[brain]  # (n_voxels, 3) from here on

    # Planted effects. The outline of the brain does not depend on them.
    source, gain = places, np.ones(len(places), np.float32)
    for effect, its_strength in _effects(index, sex, group, carried, settings):
        source = effect_pullback(source, effect, its_strength * effect.effect_volume_change)
        gain *= 1 + its_strength * effect.effect_intensity_change * effect_profile(places, effect)

    t1, grey, white = templates.sample(templates.tissue, source)
    weights = settings.contrast_variation * rng.standard_normal(3, np.float32)
    contrast = 1 + weights[0] + weights[1] * grey + weights[2] * white
    bias = np.exp(settings.bias_field * smooth_fields(rng, grid, BIAS_MM, 1)[0][brain])
    signal = t1 * contrast * bias * gain
    noise = settings.noise * rng.standard_normal((2, len(signal)), np.float32)
    magnitude = np.hypot(signal + noise[0], noise[1])

    t1w = np.zeros(grid.shape, np.int16)
    t1w[brain] = np.clip(np.rint(1000 * magnitude), 1, np.iinfo(np.int16).max)
    truth = np.zeros(grid.shape, bool)
    for center_mm in (settings.effect_center_mm, *settings.further_centers_mm):
        truth[brain] |= _radius(places, replace(settings, effect_center_mm=center_mm)) < 1
    volume_ml = float(brain.sum() * abs(np.linalg.det(grid.affine[:3, :3])) / 1000)
    participant = {
        "participant_id": f"sub-{index + 1:04d}",
        "sex": sex,
        "age": round(age, 1),
        "brain_volume_ml": round(volume_ml, 1),
        **({"dose": dose} if settings.dose else {}),
        **({} if group is None else {"group": f"effect_{group}" if group else "no_effect"}),
    }
    return t1w, truth, participant


def _effects(
    index: int, sex: str, group: int | None, carried: float, settings: SyntheticSettings
) -> list[tuple[SyntheticSettings, float]]:
    """Effects of a participant with their strengths: those of the class and the distractor."""
    effects = [(settings, carried)]
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(3, index)))
    for number, center_mm in enumerate(settings.further_centers_mm, 2):
        own = float(np.clip(rng.normal(1, settings.effect_variation), 0.5, 1.5))
        present = sex == "M" if group is None else group == number
        effects.append((replace(settings, effect_center_mm=center_mm), own * present))
    if settings.distractor_center_mm is not None:
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(2, index)))
        present = sex == "M" if settings.distractor_follows_class else bool(rng.integers(2))
        own = float(np.clip(rng.normal(1, settings.effect_variation), 0.5, 1.5))
        effects.append((replace(settings, effect_center_mm=settings.distractor_center_mm), own * present))
    return effects


def effect_profile(places: np.ndarray, settings: SyntheticSettings) -> np.ndarray:
    """Profile of the effect in the template: 1 up to half of the radius, 0 from the radius on.

    Parameters
    ----------
    places : ndarray of shape (..., 3)
        World mm.

    Returns
    -------
    ndarray of shape (...)
    """
    return falloff(2 * _radius(places, settings) - 1)


def effect_pullback(places: np.ndarray, settings: SyntheticSettings, volume_change: float) -> np.ndarray:
    """Source positions in the template of the content at given positions after the change of volume.

    Radial about the centre: 1 + volume_change is the Jacobian of the change in the inner half of the sphere.
    The outer half compensates for it, so that the sphere and everything outside it are unchanged.

    Parameters
    ----------
    places : ndarray of shape (..., 3)
        World mm.
    settings : SyntheticSettings
    volume_change : float
        Above -0.6; 0 is the identity.

    Returns
    -------
    ndarray of shape (..., 3)
    """
    center_mm = np.asarray(settings.effect_center_mm, places.dtype)
    return scaled_about(places, center_mm, effect_profile(places, settings), volume_change)


def _radius(places: np.ndarray, settings: SyntheticSettings) -> np.ndarray:
    """Distance from the centre of the effect, in radii."""
    from_center = places - np.asarray(settings.effect_center_mm, places.dtype)
    return np.linalg.norm(from_center, axis=-1) / settings.effect_radius_mm


def _sex(index: int, seed: int) -> str:
    """Sex of a participant: each consecutive pair has both, so that any n_subjects is balanced."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index // 2)))
    return "M" if rng.integers(2) == index % 2 else "F"


def _group(index: int, settings: SyntheticSettings) -> int | None:
    """Class of a participant of a cohort with `class_shares`: 0 no effect, k the k-th location.

    Multiples of the golden ratio, modulo 1, are evenly distributed for any number of participants.
    """
    if not settings.class_shares:
        return None
    start = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(5,))).uniform()
    place = (start + index * (np.sqrt(5) - 1) / 2) % 1
    return int(np.searchsorted(np.cumsum(settings.class_shares)[:-1], place, side="right"))


def _dose(index: int, seed: int) -> float:
    """Strength of the effect of a participant of a cohort with doses, in [0, 1.5]."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, index)))
    return round(float(rng.uniform(0, 1.5)), 3)


@dataclass(frozen=True)
class Templates:
    """Template maps at 1 mm, smoothed for the resolution of the grid."""

    brain: torch.Tensor  # (1, 1, X, Y, Z)
    tissue: torch.Tensor  # (1, 3, X, Y, Z): T1, grey and white matter
    origin_mm: np.ndarray  # voxel (0, 0, 0); voxels of 1 mm along the world axes

    def sample(self, maps: torch.Tensor, places: np.ndarray) -> np.ndarray:
        """Trilinear values at world mm (..., 3), as (n_maps, ...); 0 outside the maps."""
        last = np.array(maps.shape[2:], np.float32) - 1
        unit = 2 * (places.reshape(-1, 3) - self.origin_mm) / last - 1
        points = torch.from_numpy(unit[:, ::-1].copy())  # grid_sample needs z, y, x in [-1, 1]
        values = F.grid_sample(maps, points[None, None, None], align_corners=True)
        return values.numpy().reshape(maps.shape[1], *places.shape[:-1])


@lru_cache(maxsize=2)
def load_templates(grid_name: str) -> Templates:
    from nilearn import datasets

    t1_img = datasets.load_mni152_template(resolution=1)
    others = [datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1)]
    t1, grey, white = (np.asanyarray(img.dataobj, dtype=np.float32) for img in (t1_img, *others))
    brain = (t1 > 0.2).astype(np.float32)  # as nilearn's load_mni152_brain_mask
    sigma_voxels = NYQUIST_SIGMA * np.sqrt(get_grid(grid_name).spacing_mm.max() ** 2 - 1)
    smooth = [ndimage.gaussian_filter(data, sigma_voxels) for data in (brain, t1, grey, white)]
    maps = torch.from_numpy(np.stack(smooth))[None]
    return Templates(maps[:, :1], maps[:, 1:], t1_img.affine[:3, 3].astype(np.float32))


@lru_cache(maxsize=2)
def _world(grid_name: str) -> np.ndarray:
    """World mm of the voxel centres, (X, Y, Z, 3)."""
    grid = get_grid(grid_name)
    voxels = np.moveaxis(np.indices(grid.shape), 0, -1)
    return nib.affines.apply_affine(grid.affine, voxels).astype(np.float32)
