"""Motions changed as a whole: mirrored, and turned to face the front."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.geometry.rotations import about_vertical, matrix_to_rot6d, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import MIRRORED


def mirror_motion(
    rot6d_NJD: Float[Tensor, "N 24 6"], trans_N3: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "N 24 6"], Float[Tensor, "N 3"]]:
    """The motion in a mirror at x = 0: joints change sides, a rotation R becomes M R M with M = diag(-1, 1, 1)."""
    sign = rot6d_NJD.new_tensor([1.0, -1, -1, -1, 1, 1])
    return rot6d_NJD[:, MIRRORED] * sign, trans_N3 * trans_N3.new_tensor([-1.0, 1, 1])


def face_front(
    rot6d_NJD: Float[Tensor, "N 24 6"], trans_N3: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "N 24 6"], Float[Tensor, "N 3"]]:
    """The motion turned about the vertical through its start, so that its first frame faces -y, as SMPL's rest pose.

    A body that faces straight up or down in that frame is left as it is.
    """
    root_N33 = rot6d_to_matrix(rot6d_NJD[:, 0].double())
    x, y, _ = root_N33[0, :, 2].tolist()  # where the body's own z points
    angle = -math.atan2(x, -y) if math.hypot(x, y) > 1e-3 else 0.0
    turn = about_vertical(torch.tensor(angle, dtype=torch.float64, device=root_N33.device))
    start = trans_N3[0].double() * trans_N3.new_tensor([1.0, 1, 0])
    turned = rot6d_NJD.clone()
    turned[:, 0] = matrix_to_rot6d(turn @ root_N33).float()
    return turned, ((trans_N3.double() - start) @ turn.T + start).float()
