"""How a motion goes on that is shorter than a crop: as a cycle where its end meets its beginning, else it stays.

A model that sees short motions only as padding decodes nothing meaningful behind their end, and tells motions apart by
their length. DeepMimic's gait cycles are a second long: going on is what they are made for.
"""

# N frames given, T frames wanted, J joints (24), D rotation numbers (6)

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mclip.pipeline.geometry.rotations import about_vertical, geodesic, matrix_to_rot6d, rot6d_to_matrix

MEETS = math.radians(10)  # mean joint angle between first and last pose of a cycle; kicks and punches are above


def yaw_between(start_33: Float[Tensor, "3 3"], end_33: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation (3, 3) about the vertical that brings `start_33` nearest to `end_33` (least squares)."""
    between = end_33 @ start_33.T
    return about_vertical(torch.atan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1]))


def continue_motion(
    rot6d_NJD: Float[Tensor, "N 24 6"], trans_N3: Float[Tensor, "N 3"], frames: int
) -> tuple[Float[Tensor, "T 24 6"], Float[Tensor, "T 3"]]:
    """The motion at `frames` frames: 6D rotations (T, 24, 6) and root translation (T, 3), metres, z up.

    Where the last pose is the first but for place and heading, the next round begins there and its last frame is the
    next one's first; any other motion holds its last pose. A motion that is long enough comes back cut.
    """
    last = len(rot6d_NJD) - 1
    time = torch.arange(frames, device=rot6d_NJD.device)
    first_pose, last_pose = rot6d_to_matrix(rot6d_NJD[[0, last]]).unbind(0)
    turn_33 = yaw_between(first_pose[0], last_pose[0])
    first_pose = torch.cat((turn_33 @ first_pose[:1], first_pose[1:]))
    if last < 1 or geodesic(first_pose, last_pose).mean() > MEETS:
        held = time.clamp_max(last)
        return rot6d_NJD[held], trans_N3[held]
    return next_rounds(rot6d_NJD, trans_N3, turn_33, rounds_T=time // last, frame_T=time % last)


def next_rounds(
    rot6d_NJD: Float[Tensor, "N 24 6"],
    trans_N3: Float[Tensor, "N 3"],
    turn_33: Float[Tensor, "3 3"],
    *,
    rounds_T: Int64[Tensor, " T"],
    frame_T: Int64[Tensor, " T"],
) -> tuple[Float[Tensor, "T 24 6"], Float[Tensor, "T 3"]]:
    """Frame `frame_T` of round `rounds_T`, each round beginning where, and facing as, the last one ended."""
    rot6d_TJD, trans_T3 = rot6d_NJD[frame_T].clone(), trans_N3[frame_T] - trans_N3[0]
    facing, place = torch.eye(3, dtype=turn_33.dtype, device=turn_33.device), trans_N3[0]
    for number in range(int(rounds_T.max()) + 1):
        now = rounds_T == number
        rot6d_TJD[now, 0] = matrix_to_rot6d(facing @ rot6d_to_matrix(rot6d_TJD[now, 0]))
        trans_T3[now] = place + trans_T3[now] @ facing.T
        place = place + facing @ (trans_N3[-1] - trans_N3[0])
        facing = turn_33 @ facing
    return rot6d_TJD, trans_T3
