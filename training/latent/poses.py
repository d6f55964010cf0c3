"""A vector whose decoded motion goes through given poses, found by gradient from where a training motion has them."""

# S beginnings, M training motions, T frames, K keyframes, J joints, D directions, C latent width, R rows (25)

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.continuation import continue_motion
from mclip.pipeline.geometry.rotations import about_vertical, axis_angle_to_matrix, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.pipeline.prepare.sources import read_recording
from mclip.training.data.augmentation import mirror_rows
from mclip.training.data.rows import joints_of, root_of, rows_of_motion
from mclip.training.latent.space import decode, encode, latent
from mclip.training.model.run import Run

STEPS, RATE = 200, 0.03
BEGINNINGS = 7  # training motions to begin from, beside the text's own vector
MOTIONS = 512  # of the training motions that are looked through for them
DIRECTIONS = 64  # in which z may move
# What is worth as much as what: metres of a pose, and 1 - cosine from the text's z.
POSE, NEAR = 0.01, 0.1


@dataclass(frozen=True)
class Keyframe:
    """A pose to be met: at which frame, and its name and rotations."""

    frame: int
    name: str
    rotmat_J33: Float[Tensor, "24 3 3"]


def keyframe(words: str, *, frames: int, asked: Asked = NOTHING) -> Keyframe:
    """A keyframe out of "FRAME=FILE" or "FRAME=FILE:FRAME", frames counted from 0; ValueError naming what is wrong."""
    number, equals, source = words.partition("=")
    if not equals or not number.strip().isdecimal():
        raise ValueError(f"--pose {words}: expected FRAME=FILE or FRAME=FILE:FRAME, such as 30=walk.npz:12")
    if int(number) >= frames:
        raise ValueError(f"--pose {words}: frame {int(number)} of a motion of {frames}; expected 0 to {frames - 1}")
    file, colon, of_file = source.rpartition(":")
    if not colon or not of_file.isdecimal():
        file, of_file = source, "0"
    poses_TJ3 = read_recording(Path(file), asked).poses_TJ3
    if int(of_file) >= len(poses_TJ3):
        raise ValueError(f"--pose {words}: {file} has the frames 0 to {len(poses_TJ3) - 1}")
    rotmat = axis_angle_to_matrix(torch.from_numpy(poses_TJ3[int(of_file)].copy())).float()
    return Keyframe(int(number), source, rotmat)


def posed(run: Run, z_C: Float[Tensor, " C"], keyframes: Sequence[Keyframe], frames: int) -> Float[Tensor, " C"]:
    """The vector (C,) whose motion of so many frames goes nearest through the poses, and is not far from the text's.

    One pose is made by many motions, and between them lies none: from the text's vector alone, the poses of another
    motion are not found. So it begins at several (`beginnings`), each moves in the directions in which the training
    motions' z differ, and the best is taken.
    """
    begin_SC, directions_DC = beginnings(run, z_C, keyframes, frames), directions_of(run)
    weight_SD = torch.zeros(len(begin_SC), len(directions_DC), requires_grad=True)
    optimizer = torch.optim.Adam([weight_SD], lr=RATE)
    frame_K = torch.tensor([each.frame for each in keyframes])
    for step in range(STEPS):
        moved_SC = begin_SC + z_C.norm() * weight_SD @ directions_DC
        rows = run.model.decode(moved_SC.to(run.device), frames).cpu()[:, frame_K]
        off_SKJ = off_poses(rot6d_to_matrix(joints_of(rows)), keyframes)
        loss_S = far_from(z_C, moved_SC) + off_SKJ.square().mean((1, 2)) / POSE**2
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        loss_S.sum().backward()
        optimizer.step()
    return moved_SC[loss_S.argmin()].detach()


def far_from(z_C: Float[Tensor, " C"], moved_SC: Float[Tensor, "*S C"]) -> Float[Tensor, "*S"]:
    """What it costs to be led away from the text's vector."""
    return (1 - F.cosine_similarity(moved_SC, z_C, dim=-1)) / NEAR


def beginnings(run: Run, z_C: Float[Tensor, " C"], keyframes: Sequence[Keyframe], frames: int) -> Float[Tensor, "S C"]:
    """Vectors (S, C) to begin from: the text's, and those of training motions that have the poses.

    Each, and its mirror image, is decoded, shifted in time so that it has the poses at the frames where they are asked
    for, and encoded again: the vectors that a run keeps show every motion at one time of its own.
    """
    if run.z_NC is None:
        return z_C[None]
    kept_MC = run.z_NC.unique(dim=0)  # a motion of several texts may be kept once for each
    kept_MC = kept_MC[torch.linspace(0, len(kept_MC) - 1, min(MOTIONS, len(kept_MC))).long()]
    rows = decode(run, latent(run, kept_MC), frames).cpu()
    rows_MTRD = torch.cat((rows, mirror_rows(rows)))
    rotmat_MT1J33 = rot6d_to_matrix(joints_of(rows_MTRD))[:, :, None]
    off_MTK = torch.cat([off_poses(rotmat_MT1J33, [each]).square().mean(-1) for each in keyframes], dim=-1)
    frame_K = torch.tensor([each.frame for each in keyframes])
    shifts = range(int(frame_K.max()) - frames + 1, int(frame_K.min()) + 1)
    each_K = torch.arange(len(keyframes))
    off_MH = torch.stack([off_MTK[:, frame_K - shift, each_K].mean(1) for shift in shifts], dim=1)
    least_M, shift_M = off_MH.min(1)
    nearest = least_M.argsort()[:BEGINNINGS].tolist()
    shifted = [encode(run, later(rows_MTRD[motion], shifts[int(shift_M[motion])])) for motion in nearest]
    return torch.stack([z_C, *(each.cpu() for each in shifted)])


def later(rows_TRD: Float[Tensor, "T 25 6"], shift: int) -> Float[Tensor, "T 25 6"]:
    """A motion so many frames later, or earlier where they are negative; what lacks is continued, in either sense."""
    frames = len(rows_TRD)
    kept = rows_TRD[-shift:] if shift < 0 else rows_TRD[: frames - shift].flip(0)
    whole = rows_of_motion(*continue_motion(joints_of(kept), root_of(kept), frames))
    return whole if shift < 0 else whole.flip(0)


def directions_of(run: Run) -> Float[Tensor, "D C"]:
    """Unit directions in which the training motions' z differ most; all there are in a run that keeps none."""
    if run.z_NC is None or len(run.z_NC) < 2:
        return torch.eye(run.model.config.latent)
    z_NC = F.normalize(run.z_NC.cpu(), dim=-1)
    return torch.linalg.svd(z_NC - z_NC.mean(0), full_matrices=False)[2][:DIRECTIONS]


def off_poses(
    rotmat_KJ33: Float[Tensor, "*batch K 24 3 3"], keyframes: Sequence[Keyframe]
) -> Float[Tensor, "*batch K J"]:
    """How far the joints are from those of the keyframes, metres; about the pelvis, and whatever way both face."""
    bones_J3 = load_body("low").joints_J3
    bones_J3 = bones_J3 - bones_J3[0]
    wanted_KJ33 = torch.stack([each.rotmat_J33 for each in keyframes])
    at, wanted = (forward_kinematics(each, bones_J3)[1] for each in (rotmat_KJ33, wanted_KJ33))
    return (at - wanted @ facing_alike(at, wanted).mT).norm(dim=-1)


def facing_alike(at: Float[Tensor, "*batch K J 3"], wanted: Float[Tensor, "K J 3"]) -> Float[Tensor, "*batch K 3 3"]:
    """Turns about the vertical that bring wanted joints nearest to others (as in `joining.Meetings`)."""
    (ax, ay, _), (bx, by, _) = at.detach().unbind(-1), wanted.unbind(-1)
    return about_vertical(torch.atan2((ay * bx - ax * by).sum(-1), (ax * bx + ay * by).sum(-1)))
