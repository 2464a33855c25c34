"""Removal of site effects and confounds from features: fitted to training images, applied to others."""

from __future__ import annotations

import numpy as np

MIN_IMAGES_OF_SITE = 2  # in training: the variance of one image is not defined
MIN_IMAGES_OF_UNSEEN_SITE = 20
CONVERGENCE = 1e-4  # of the published implementation


class HarmonizationError(ValueError):
    """Features cannot be harmonised; one line says why."""


class ComBat:
    """Location and scale of each site and feature, shrunk by empirical Bayes with parametric priors.

    Constant features are not changed.

    Parameters
    ----------
    unseen_site : {"refuse", "standardize"}, default "refuse"
        What `transform` does with a site without training images. ``standardize``: its images, at least 20,
        get the mean and variance that the training images have after ComBat.

    References
    ----------
    Johnson, Li, Rabinovic, "Adjusting batch effects in microarray expression data using empirical Bayes
    methods", Biostatistics 8:118-127, 2007. Fortin et al., NeuroImage 167:104-120, 2018 (brain images).
    """

    def __init__(self, unseen_site: str = "refuse"):
        self.unseen_site = unseen_site

    def fit(self, features: np.ndarray, site: np.ndarray, covariates: np.ndarray | None = None) -> ComBat:
        """Estimate the effects of the sites.

        Parameters
        ----------
        features : ndarray of shape (n, p), finite
        site : ndarray of shape (n,)
        covariates : ndarray of shape (n, q), optional
            Numbers whose linear effects on the features are preserved.

        Raises
        ------
        HarmonizationError
            There is one site only, a site has one image, or covariates and site cannot be separated.
        """
        self.sites, index = np.unique(np.asarray(site, str), return_inverse=True)
        counts = np.bincount(index)
        if len(self.sites) < 2:
            raise HarmonizationError(f"there is one site only among the training images, {self.sites[0]}")
        if counts.min() < MIN_IMAGES_OF_SITE:
            few = self.sites[counts.argmin()]
            raise HarmonizationError(f"site {few} has one training image, from which no variance is known")
        preserved = _columns(covariates, len(features))
        dummies = np.eye(len(self.sites))[index]  # (n, n_sites)
        design = np.hstack([dummies, preserved])
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise HarmonizationError("site and preserved covariates cannot be separated in training images")
        beta = np.linalg.lstsq(design, features, rcond=None)[0]
        self.mean = counts / len(features) @ beta[: len(self.sites)]  # (p,)
        self.effects = beta[len(self.sites) :]  # (q, p)
        self.sd = np.sqrt(((features - design @ beta) ** 2).mean(0))
        self.varies = self.sd > 1e-10 * np.maximum(np.abs(features).max(0), 1e-300)
        values = self._standardized(features, preserved)
        self.shift, self.scale = np.zeros((2, len(self.sites), features.shape[1]))
        self.scale += 1
        for k in range(len(self.sites)):
            estimates = _empirical_bayes(values[index == k][:, self.varies])
            self.shift[k, self.varies], self.scale[k, self.varies] = estimates
        return self

    def transform(
        self, features: np.ndarray, site: np.ndarray, covariates: np.ndarray | None = None
    ) -> np.ndarray:
        """Features without the effects of the sites; arguments as of `fit`.

        Raises
        ------
        HarmonizationError
            A site has no training images, and `unseen_site` does not allow it.
        """
        site, preserved = np.asarray(site, str), _columns(covariates, len(features))
        if preserved.shape[1] != len(self.effects):
            raise HarmonizationError(f"{len(self.effects)} covariates were fitted, not {preserved.shape[1]}")
        values = self._standardized(features, preserved)
        for name in np.unique(site):
            rows = site == name
            if name in self.sites:
                k = int(np.searchsorted(self.sites, name))
                values[rows] = (values[rows] - self.shift[k]) / np.sqrt(self.scale[k])
                continue
            if self.unseen_site != "standardize":
                raise HarmonizationError(f"site {name} has no training images; see harmonization.unseen_site")
            if rows.sum() < MIN_IMAGES_OF_UNSEEN_SITE:
                raise HarmonizationError(
                    f"site {name} has no training images and {rows.sum()} others; its mean and variance need "
                    f"at least {MIN_IMAGES_OF_UNSEEN_SITE}"
                )
            spread = values[rows].std(0)
            values[rows] = (values[rows] - values[rows].mean(0)) / np.where(spread > 0, spread, 1)
        harmonized = values * self.sd + self.mean + preserved @ self.effects
        return np.where(self.varies, harmonized, features)

    def _standardized(self, features: np.ndarray, preserved: np.ndarray) -> np.ndarray:
        return (features - self.mean - preserved @ self.effects) / np.where(self.varies, self.sd, 1)


def _empirical_bayes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior shift and variance of the features (n, p) of one site, (p,) each."""
    n = len(values)
    shift, variance = values.mean(0), values.var(0, ddof=1)
    if values.shape[1] < 2:  # no prior can be estimated from one feature
        return shift, variance
    prior_mean, prior_variance = shift.mean(), shift.var(ddof=1)
    mean, spread = variance.mean(), variance.var(ddof=1)
    a, b = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread  # inverse gamma
    new_shift, new_variance = shift, variance
    change = np.inf
    while change > CONVERGENCE:
        old_shift, old_variance = new_shift, new_variance
        weight = prior_variance * n
        new_shift = (weight * shift + old_variance * prior_mean) / (weight + old_variance)
        squares = ((values - new_shift) ** 2).sum(0)
        new_variance = (squares / 2 + b) / (n / 2 + a - 1)
        # without the absolute value of the old shift, as published
        moved = (np.abs(new_shift - old_shift) / old_shift).max()
        change = max(moved, (np.abs(new_variance - old_variance) / old_variance).max())
    return new_shift, new_variance


class Residualization:
    """Features minus their linear regression on confounds; the mean of the training images is kept."""

    def fit(self, features: np.ndarray, confounds: np.ndarray) -> Residualization:
        """Estimate the effects of confounds (n, q) on features (n, p) in the training images."""
        self.center = confounds.mean(0)
        self.effects = np.linalg.lstsq(confounds - self.center, features - features.mean(0), rcond=None)[0]
        return self

    def transform(self, features: np.ndarray, confounds: np.ndarray) -> np.ndarray:
        """Features without the effects of the confounds."""
        return features - (confounds - self.center) @ self.effects


def _columns(covariates: np.ndarray | None, n: int) -> np.ndarray:
    return np.zeros((n, 0)) if covariates is None else np.asarray(covariates, float).reshape(n, -1)
