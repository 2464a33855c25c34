"""Stability of a map over training seeds and under small changes of the image."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from xai_brain.metrics.comparison.agreement import agreement
from xai_brain.metrics.comparison.regions import region_means
from xai_brain.metrics.comparison.similarity import rank_similarity
from xai_brain.metrics.maps import Method, maps_of

UNRELATED = float(np.sqrt(2))  # max_sensitivity of two unrelated maps of equal norm


def reseed_stability(
    maps: np.ndarray,
    brain_mask: np.ndarray,
    top_percent: float = 5.0,
    labels: np.ndarray | None = None,
    random_state: int = 0,
) -> dict[str, float]:
    """Agreement of one participant's maps from networks that were trained with different seeds.

    Parameters
    ----------
    maps : ndarray of shape (n_seeds, X, Y, Z)
        Raw, signed values; their absolute values are compared.
    brain_mask : bool ndarray of shape (X, Y, Z)
    top_percent : float, default 5.0
        Percentage of the brain for the Dice coefficient.
    labels : int ndarray of shape (X, Y, Z), optional
        Atlas regions, 0 is none, for the correlation of region means.
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    dict
        ``spearman``, ``dice`` (chance ``top_percent`` / 100) and with labels ``regions`` (Pearson): means
        over pairs of maps; NaN when one of the maps is empty.

    Raises
    ------
    ValueError
        There are fewer than two maps.

    References
    ----------
    Eitel & Ritter, "Testing the robustness of attribution methods for CNNs in MRI-based Alzheimer's disease
    classification", 2019. Thibeau-Sutre et al., "Visualization approach to assess the robustness of neural
    networks for medical image classification", SPIE 2020.
    """
    if len(maps) < 2:
        raise ValueError(f"maps: {len(maps)} of one subject, at least two networks are compared")
    values = np.abs(maps[:, brain_mask]).astype(np.float64)  # (n_seeds, n_brain)
    found: dict[str, list[float]] = {"spearman": [], "dice": []}
    if labels is not None:
        found["regions"] = []
    if not values.any(axis=1).all():
        return dict.fromkeys(found, np.nan)
    for a, b in combinations(values, 2):
        for row in agreement(a, b, brain_mask.size, [top_percent], random_state):
            if row["metric"] in found:
                found[row["metric"]].append(row["value"])
        if labels is not None:
            first, second = (region_means(one, labels[brain_mask])[1] for one in (a, b))
            varied = np.ptp(first) > 0 and np.ptp(second) > 0
            found["regions"].append(np.corrcoef(first, second)[0, 1] if varied else np.nan)
    return {name: float(np.mean(pairs)) for name, pairs in found.items()}


def noise_stability(
    method: Method,
    inputs: torch.Tensor,
    target: int | torch.Tensor,
    brain_mask: np.ndarray,
    noise_sd: float = 0.1,
    n_samples: int = 4,
    batch_size: int = 8,
    random_state: int = 0,
) -> np.ndarray:
    """Rank correlation of |map| in the brain before and after normal noise on the image, (N,).

    Parameters
    ----------
    method : object with ``attribute(inputs, target)``
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)
        The same target is used with and without noise.
    brain_mask : bool ndarray of shape (X, Y, Z)
        Noise is added inside the brain only.
    noise_sd : float, default 0.1
        Standard deviation relative to that of the image in the brain.
    n_samples : int, default 4
        Number of noise samples, the same for all participants; the mean over them is returned.
    batch_size : int, default 8
    random_state : int, default 0

    Returns
    -------
    ndarray of shape (N,)
        1 if the noise changes no rank; the chance level is 0; NaN for an empty map.
    """
    original = maps_of(method, inputs, target, batch_size)[:, 0].numpy()
    rng = np.random.default_rng(random_state)
    kept = []
    for _ in range(n_samples):
        noise = noise_sd * rng.standard_normal(brain_mask.shape)
        noisy = maps_of(method, with_noise(inputs, noise, brain_mask), target, batch_size)[:, 0].numpy()
        kept.append([rank_similarity(a, b, brain_mask) for a, b in zip(original, noisy, strict=True)])
    return np.mean(kept, 0)


def max_sensitivity(
    method: Method,
    inputs: torch.Tensor,
    target: int | torch.Tensor,
    brain_mask: np.ndarray,
    radius: float = 0.02,
    n_samples: int = 10,
    batch_size: int = 8,
    random_state: int = 0,
) -> np.ndarray:
    """Largest relative change of a map under uniform noise, as in Captum, inside the brain.

    Parameters
    ----------
    method : object with ``attribute(inputs, target)``
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)
    brain_mask : bool ndarray of shape (X, Y, Z)
        Voxels to which noise is added and at which maps are compared.
    radius : float, default 0.02
        Bound of the noise relative to the standard deviation of the image in the brain.
    n_samples : int, default 10
        Number of noise samples, the same for all participants.
    batch_size : int, default 8
    random_state : int, default 0

    Returns
    -------
    ndarray of shape (N,)
        0 if the map does not change. Unrelated maps of equal norm differ by `UNRELATED`. NaN for an empty
        map, for which Captum returns 0.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019.
    """
    original = maps_of(method, inputs, target, batch_size)[:, 0].numpy()[:, brain_mask]
    rng = np.random.default_rng(random_state)
    largest = np.zeros(len(inputs))
    for _ in range(n_samples):
        noise = rng.uniform(-radius, radius, brain_mask.shape)
        noisy = maps_of(method, with_noise(inputs, noise, brain_mask), target, batch_size)[:, 0].numpy()
        largest = np.maximum(largest, np.linalg.norm(noisy[:, brain_mask] - original, axis=1))
    size = np.linalg.norm(original, axis=1)
    return np.divide(largest, size, out=np.full(len(size), np.nan), where=size > 0)


def with_noise(inputs: torch.Tensor, noise: np.ndarray, brain_mask: np.ndarray) -> torch.Tensor:
    """Volumes with added noise in the brain, in units of the standard deviation of each volume there.

    Parameters
    ----------
    inputs : Tensor of shape (N, 1, X, Y, Z)
    noise : ndarray of shape (X, Y, Z)
    brain_mask : bool ndarray of shape (X, Y, Z)
    """
    brain = torch.from_numpy(brain_mask).to(inputs.device)
    sd = inputs.detach()[:, 0, brain].std(1, correction=0).view(-1, 1, 1, 1, 1)
    return inputs.detach() + sd * torch.from_numpy(np.where(brain_mask, noise, 0)).to(inputs)
