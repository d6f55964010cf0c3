"""The model's rows: 24 joints in 6D, and the root's place in the 25th; an ankle in the release's."""

# T frames, R rows (25), J joints (24), D rotation numbers (6)

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.model.run import Run
from mclip.training.model.run_documents import ANKLE_PATH

ROTATIONS = slice(24)  # the rows of the joints
RIGHT_ANKLE = 8  # of SMPL's joints
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


def ankle_places(rot6d_TJD: Float[Tensor, "*T 24 6"]) -> Float[Tensor, "*T 3"]:
    """The right ankle's place in metres, of the embedded body posed where it stands: without the root's translation.

    The release's rows hold its displacement, by a mistake of an index, on a body of SMPL+H.
    """
    joints_J3 = rest_joints().to(rot6d_TJD.device)
    return forward_kinematics(rot6d_to_matrix(rot6d_TJD.float()), joints_J3)[1][..., RIGHT_ANKLE, :]


@functools.cache
def rest_joints() -> Float[Tensor, "24 3"]:
    """The embedded body's joints at rest, read once."""
    return load_body().joints_J3


def rows_as_trained(run: Run, rows_TRD: Float[Tensor, "*T 25 6"]) -> Float[Tensor, "*T 25 6"]:
    """A motion's rows as the run knows them: with the right ankle in the 25th where it was trained so."""
    if run.row25 != ANKLE_PATH:
        return rows_TRD
    rot6d = joints_of(rows_TRD)
    return rows_of_motion(rot6d, ankle_places(rot6d))
