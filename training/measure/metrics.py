"""Measures of a reconstruction and of a ranking. Arrays in, numbers out."""

# T frames, J joints, Q queries, M motions, L labels

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.geometry.rotations import geodesic
from mclip.pipeline.geometry.skeleton import forward_kinematics


def mpjpe_mm(
    rotmat: Float[Tensor, "*batch 24 3 3"], target: Float[Tensor, "*batch 24 3 3"], joints_J3: Float[Tensor, "24 3"]
) -> Float[Tensor, "*batch"]:
    """Mean per-joint position error in millimetres, roots together, on the rest skeleton `joints_J3` (metres)."""
    found, wanted = (forward_kinematics(each, joints_J3)[1] for each in (rotmat, target))
    distance: Tensor = (found - wanted).norm(dim=-1)
    return 1000 * distance.mean(-1)


def pa_mpjpe_mm(joints: Float[Tensor, "*batch J 3"], target: Float[Tensor, "*batch J 3"]) -> Float[Tensor, "*batch"]:
    """Mean joint distance in millimetres after the best rotation, scale and shift of each pose (Procrustes).

    The rotation is Kabsch's by SVD; a reflection is never used.
    """
    joints, target = (each - each.mean(-2, keepdim=True) for each in (joints, target))
    u, scale, vt = torch.linalg.svd(joints.mT @ target)
    sign = torch.ones_like(scale)
    sign[..., -1] = torch.linalg.det(u @ vt).sign()
    rotated = joints @ (u * sign[..., None, :] @ vt)
    size = (scale * sign).sum(-1) / joints.square().sum((-1, -2)).clamp_min(1e-12)
    distance: Tensor = (rotated * size[..., None, None] - target).norm(dim=-1)
    return 1000 * distance.mean(-1)


def geodesic_deg(
    rotmat: Float[Tensor, "*batch 24 3 3"], target: Float[Tensor, "*batch 24 3 3"]
) -> Float[Tensor, "*batch"]:
    """Mean angle in degrees between local joint rotations."""
    return torch.rad2deg(geodesic(rotmat, target)).mean(-1)


def turned_deg(
    rotmat: Float[Tensor, "*batch 24 3 3"], target: Float[Tensor, "*batch 24 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle in degrees by which the whole body is turned away from its source: that between the roots' rotations.

    A decoder whose root's 6D rows shrink in a fast turn gives any orientation there, for a frame or two: that is seen
    at once, and hardly moves a mean.
    """
    return torch.rad2deg(geodesic(rotmat[..., 0, :, :], target[..., 0, :, :]))


def best_ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rank (1 is first) of the best relevant item for every query; queries without any are left out.

    `similarity` (Q, M) and `relevant` (Q, M) booleans. Of equal scores the irrelevant one counts as the better: a model
    that gives one score to everything finds nothing.
    """
    asked = relevant.any(1)
    best = np.where(relevant, similarity, -np.inf).max(1)[asked]
    ahead = (similarity[asked] >= best[:, None]) & ~relevant[asked]
    ranks: np.ndarray = 1 + ahead.sum(1)
    return ranks


def average_precisions(score_NK: np.ndarray, relevant_NK: np.ndarray) -> np.ndarray:
    """Average precision of every class (columns) that any item has: the mean, over its items, of the precision there.

    Of equal scores the items that are not of the class come first, as in `best_ranks`.
    """
    found = []
    for score_N, relevant_N in zip(score_NK.T, relevant_NK.T, strict=True):
        if relevant_N.any():
            place_R = 1 + np.flatnonzero(relevant_N[np.lexsort((relevant_N, -score_N))])
            found.append((np.arange(1, len(place_R) + 1) / place_R).mean())
    return np.array(found)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity (Q, M) of vectors (Q, C) and (M, C)."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    cosine: np.ndarray = a @ b.T
    return cosine


def best_of_groups(similarity: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(Q, groups): each group's highest column of `similarity` (Q, M); `group` (M,) numbers the columns' groups."""
    best = np.full((len(similarity), groups), -np.inf, similarity.dtype)
    np.maximum.at(best.T, group, similarity.T)
    return best


def movement_mm(joints_TJ3: Float[Tensor, "*batch T J 3"]) -> Float[Tensor, "*batch"]:
    """How far joints stray from their mean place over time, in millimetres: near zero for a body that stands still."""
    strays: Tensor = (joints_TJ3 - joints_TJ3.mean(-3, keepdim=True)).norm(dim=-1)
    return 1000 * strays.mean((-1, -2))
