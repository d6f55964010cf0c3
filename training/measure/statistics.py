"""Measures of whole sets of vectors, and how sure a mean is."""

# N, M vectors, C width

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap


def frechet_distance(a_NC: np.ndarray, b_MC: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians fitted to vectors (FID, Heusel et al. 2017, eq. 6).

    |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^1/2). With fewer vectors than their width the covariances are of lower
    rank, and the value is comparable only between sets of the same size.
    """
    if min(len(a_NC), len(b_MC)) < 2:
        raise ValueError(f"{len(a_NC)} and {len(b_MC)} vectors, expected at least two of each for a covariance")
    a, b = (np.cov(each.astype(np.float64), rowvar=False) for each in (a_NC, b_MC))
    value, vector = np.linalg.eigh(a)
    half = (vector * np.sqrt(value.clip(0))) @ vector.T
    # The trace of (A B)^1/2 is that of (A^1/2 B A^1/2)^1/2, which is symmetric: real roots, no complex dust.
    cross = np.sqrt(np.linalg.eigvalsh(half @ b @ half).clip(0)).sum()
    shift = a_NC.mean(0, dtype=np.float64) - b_MC.mean(0, dtype=np.float64)
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2 * cross)


def diversity(vectors_NC: np.ndarray, *, pairs: int = 300, seed: int = 0) -> float:
    """Mean distance of random pairs of different vectors (Guo et al. 2020); 0 of a single one."""
    if len(vectors_NC) < 2:
        return 0.0
    generator = np.random.default_rng(seed)
    first = generator.integers(len(vectors_NC), size=pairs)
    second = (first + generator.integers(1, len(vectors_NC), size=pairs)) % len(vectors_NC)
    return float(np.linalg.norm(vectors_NC[first] - vectors_NC[second], axis=1).mean())


def linear_cka(a_NC: np.ndarray, b_NM: np.ndarray) -> float:
    """Linear centred kernel alignment, 0 to 1, of two vectors an item (Kornblith et al. 2019, eq. 3)."""
    a, b = (each.astype(np.float64) - each.mean(0, dtype=np.float64) for each in (a_NC, b_NM))
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(a.T @ b) ** 2 / scale) if scale else 0.0


@dataclass(frozen=True)
class Measured:
    """A figure with the items that it is the mean of, or the median: NaN where an item is not known."""

    values: np.ndarray
    median: bool = False

    @property
    def figure(self) -> float:
        """Mean or median of what is known; NaN where nothing is."""
        known = self.values[~np.isnan(self.values)]
        return float(np.median(known) if self.median else known.mean()) if len(known) else float("nan")

    @property
    def interval(self) -> list[float]:
        """95 % confidence interval [low, high] of the figure."""
        return interval(self.values, statistic=np.median if self.median else np.mean)


def figures_of(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a number for each `Measured` in it."""
    return {
        name: figures_of(each) if isinstance(each, dict) else each.figure if isinstance(each, Measured) else each
        for name, each in tree.items()
    }


def intervals_of(tree: dict[str, Any]) -> dict[str, Any]:
    """The same tree with the interval of each `Measured`, and without what is none."""
    found = {
        name: intervals_of(each) if isinstance(each, dict) else each.interval
        for name, each in tree.items()
        if isinstance(each, dict | Measured)
    }
    return {name: each for name, each in found.items() if each}


def known(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of numbers and intervals without those that are NaN, which JSON does not have."""
    found = {name: known(each) if isinstance(each, dict) else each for name, each in tree.items()}
    return {name: each for name, each in found.items() if isinstance(each, dict | str) or not np.isnan(each).any()}


def interval(
    values: np.ndarray, *, statistic: Callable[..., Any] = np.mean, repeats: int = 1000, seed: int = 0
) -> list[float]:
    """95 % confidence interval [low, high] of a statistic of what is not NaN, by the percentile bootstrap (Efron 1979).

    Items count as independent: windows of one sequence are not quite, so the truth is a little less sure than this.
    """
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return [float("nan"), float("nan")]
    if len(known) == 1:  # of which scipy draws nothing
        return [float(known[0])] * 2
    rng = np.random.default_rng(seed)
    found = bootstrap((known,), statistic, n_resamples=repeats, batch=100, method="percentile", rng=rng)
    return [float(each) for each in found.confidence_interval]


def principal_axes(vectors_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) of vectors on their two principal axes, and the share of the variance that lies on each (2,).

    The sign of an axis is chosen so that its largest coefficient is positive; a set without a second axis has zeros.
    """
    centred = vectors_NC.astype(np.float64) - vectors_NC.mean(0, dtype=np.float64)
    value, axis = np.linalg.eigh(centred.T @ centred)
    value, axis = value[::-1].clip(0), axis[:, ::-1]
    axis = axis * np.sign(axis[np.abs(axis).argmax(0), np.arange(axis.shape[1])])
    total = value.sum()
    return centred @ axis[:, :2], value[:2] / total if total else np.zeros(2)
