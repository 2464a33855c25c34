"""Local changes of known size: profile at the border of an effect, and scaling about a centre."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def falloff(t: np.ndarray) -> np.ndarray:
    """Half a period of a cosine, from 1 at t <= 0 to 0 at t >= 1; continuously differentiable."""
    return 0.5 + 0.5 * np.cos(np.pi * np.clip(t, 0, 1))


def scaled_about(
    places: np.ndarray, center_mm: np.ndarray, profile: np.ndarray, volume_change: float
) -> np.ndarray:
    """Source positions of the content at given positions after a change of volume about a centre.

    c + (x - c) (1 - a profile), with (1 - a)^-3 = 1 + volume_change: where the profile is 1, the content is
    scaled about the centre and the Jacobian of the change is 1 + volume_change; where it is 0, nothing moves.

    Parameters
    ----------
    places : ndarray of shape (..., 3)
        World mm.
    center_mm : ndarray of shape (3,)
    profile : ndarray of shape (...)
        In [0, 1].
    volume_change : float
        Above -1; 0 is the identity.

    Returns
    -------
    ndarray of shape (..., 3)
    """
    a = 1 - (1 + volume_change) ** (-1 / 3)
    return places - a * profile[..., None] * (places - center_mm)


def jacobian_determinant(
    pullback: Callable[[np.ndarray], np.ndarray], places: np.ndarray, step_mm: float = 0.25
) -> np.ndarray:
    """Determinant of the Jacobian of a map, by central differences.

    If the determinant of a pullback is J, the volume of the content is multiplied by 1 / J. If J is not
    positive, the map folds.

    Parameters
    ----------
    pullback : function from (n, 3) mm to (n, 3) mm
    places : ndarray of shape (n, 3)
        World mm.
    step_mm : float, default 0.25

    Returns
    -------
    ndarray of shape (n,)
    """
    columns = [
        (pullback(places + step) - pullback(places - step)) / (2 * step_mm) for step in step_mm * np.eye(3)
    ]
    return np.linalg.det(np.stack(columns, axis=-1))
