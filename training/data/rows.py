"""The rows that the model reads: 24 joints in 6D, and the root's place in the 25th."""

# T frames, R rows (25), J joints (24), D rotation numbers (6)

import torch
from jaxtyping import Float
from torch import Tensor

ROTATIONS = slice(24)  # the rows of the joints
ROOT = 24  # the row of the root: three numbers of its place in metres, and three zeros


def rows_of_motion(rot6d_TJD: Float[Tensor, "*T 24 6"], trans_T3: Float[Tensor, "*T 3"]) -> Float[Tensor, "*T 25 6"]:
    """The model's rows of rotations and the root's place in metres."""
    return torch.cat((rot6d_TJD, torch.nn.functional.pad(trans_T3, (0, 3))[..., None, :]), dim=-2)


def joints_of(rows_TRD: Float[Tensor, "*T 25 6"]) -> Float[Tensor, "*T 24 6"]:
    """The rotations in rows of the model."""
    return rows_TRD[..., ROTATIONS, :]


def root_of(rows_TRD: Float[Tensor, "*T 25 6"]) -> Float[Tensor, "*T 3"]:
    """The root's place in rows of the model, metres."""
    return rows_TRD[..., ROOT, :3]


def from_origin(rows_TRD: Float[Tensor, "*batch T 25 6"]) -> Float[Tensor, "*batch T 25 6"]:
    """The rows of the same motion whose path begins at the origin, as the model is shown every crop."""
    moved = rows_TRD.clone()
    moved[..., ROOT, :] -= rows_TRD[..., :1, ROOT, :]
    return moved
