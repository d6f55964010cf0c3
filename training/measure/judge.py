"""A judge that no text model and no learned network can please: pieces of a motion, looked up in real motion.

A piece is half a second of joints in the world: the pelvis at the origin and the first frame facing front, and the
pelvis's path from where it begins. The distance of two pieces is the mean distance of these points. A motion *is* the
clip whose pieces are nearest to its own in the mean, and it is *natural* where the nearest pieces of any clip lie no
further off than twice as far as real motion lies from itself when it is played slower.

It knows real motion only by its clips: good motion that none of them shows is called unnatural.
"""

# P pieces, L frames seen of a piece, K points (24 joints and the pelvis's path), T frames, C clips

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mclip.pipeline.draw.camera import facing
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import (
    matrix_to_quaternion,
    matrix_to_rot6d,
    quaternion_to_matrix,
    rot6d_to_matrix,
    slerp,
)
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.data.augmentation import mirror_rows
from mclip.training.data.crops import Crops
from mclip.training.data.rows import joints_of, root_of, rows_of_motion

PIECE = 0.5  # seconds
PATH = 12  # how many joints the pelvis's path counts as: at 4 a walk on the spot is as natural as one that gets on
SEEN = 6  # frames of a piece that are compared, evenly chosen: as good as all, and faster
MOST = 20_000  # pieces of real motion that are kept, evenly chosen
SLOWER = 0.85  # speed at which real motion is still itself
# Real motion at that speed lies at 20 to 30 mm from itself, and at 80 to 170 mm from the nearest other clip.
BOUND = 2.0
TRIED = 32  # clips that the bound is measured on


@dataclass(frozen=True)
class Verdict:
    """What a motion is taken for."""

    clip: int
    natural_mm: float  # mean distance of its pieces from the nearest real ones
    natural: bool


@dataclass(frozen=True)
class Judge:
    """Real motion in pieces, which clip each is of, and the distance within which a motion counts as natural."""

    piece_PX: Float[Tensor, "P X"]
    clip_P: Int64[Tensor, " P"]
    names: Sequence[str]
    length: int  # frames of a piece
    bound_mm: float

    @classmethod
    def of(cls, clips: Sequence[tuple[str, Float[Tensor, "_ 25 6"]]], *, fps: float, mirrored: bool = True) -> "Judge":
        """A judge that knows these motions (name, rows), at least one, and their mirror images unless names tell sides.

        Several motions of one name are pieces of one clip. One under half a second is held at its last frame.
        """
        length = max(2, round(PIECE * fps))
        long = [(name, held(rows, length)) for name, rows in clips]
        names = list(dict.fromkeys(name for name, _ in long))
        sides = both_sides if mirrored else one_side
        stride = max(1, -(-(1 + mirrored) * sum(len(rows) for _, rows in long) // MOST))
        parts = [(names.index(name), pieces(each, length, stride)) for name, rows in long for each in sides(rows)]
        owner = torch.cat([torch.full((len(part),), number) for number, part in parts])
        judge = cls(torch.cat([part for _, part in parts]), owner, names, length, np.inf)
        tried = [long[i][1] for i in np.unique(np.linspace(0, len(long) - 1, min(len(long), TRIED)).astype(int))]
        slowed = [judge(at_speed(rows, SLOWER)).natural_mm for rows in tried]
        return replace(judge, bound_mm=BOUND * float(np.mean(slowed)))

    def distances(self, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, "N C"]:
        """(N, C) mm: from every piece of a motion to the nearest piece of every clip."""
        found_NX = pieces(rows_TRD, self.length, max(1, self.length // 3))
        bank_PK3 = self.piece_PX.unflatten(1, (-1, 3))
        mm_NP = torch.stack(
            [1000 * (bank_PK3 - piece).norm(dim=-1).mean(1) for piece in found_NX.unflatten(1, (-1, 3))]
        )
        nearest = torch.full((len(mm_NP), len(self.names)), torch.inf)
        return nearest.scatter_reduce(1, self.clip_P.expand_as(mm_NP), mm_NP, "amin")

    def __call__(self, rows_TRD: Float[Tensor, "T 25 6"]) -> Verdict:
        """The verdict on a motion in the model's rows; one under half a second is held at its last frame."""
        mm_NC = self.distances(held(rows_TRD, self.length))
        natural_mm = float(mm_NC.amin(1).mean())
        return Verdict(int(mm_NC.mean(0).argmin()), natural_mm, natural_mm <= self.bound_mm)


def judge_of(crops: Sequence[Crops], names: Sequence[Sequence[str]], *, fps: float) -> Judge:
    """A judge by the windows of splits; `names` has the clip's name of every window."""
    clips = []
    for split, called in zip(crops, names, strict=True):
        for name, row, frames in zip(called, split.row.tolist(), split.frames.tolist(), strict=True):
            at = slice(row, row + frames)
            clips.append((name, rows_of_motion(split.rot6d[at].float(), split.trans[at]).cpu()))
    return Judge.of(clips, fps=fps)


def pieces(rows_TRD: Float[Tensor, "T 25 6"], length: int, stride: int) -> Float[Tensor, "P X"]:
    """Pieces (P, L * K * 3), metres, that begin every `stride` frames; a last one ends where the motion does."""
    rotmat, path_T3 = rot6d_to_matrix(joints_of(rows_TRD).float()), root_of(rows_TRD).float()
    joints = forward_kinematics(rotmat, load_body("low").joints_J3)[1]
    last = len(rows_TRD) - length
    first_P = torch.tensor(sorted({*range(0, last + 1, stride), last}))
    at_PL = first_P[:, None] + torch.linspace(0, length - 1, min(SEEN, length)).round().long()
    path_PL3 = (path_T3[at_PL] - path_T3[first_P, None])[:, :, None].expand(-1, -1, PATH, -1)
    points_PLK3 = torch.cat(((joints - joints[:, :1])[at_PL], path_PL3), dim=2)
    return (points_PLK3 @ to_front(facing(rotmat[first_P, 0])).mT[:, None]).flatten(1)


def to_front(heading_P2: Float[Tensor, "P 2"]) -> Float[Tensor, "P 3 3"]:
    """Turns about the vertical that bring headings on the ground to -y."""
    x, y = (heading_P2 / heading_P2.norm(dim=-1, keepdim=True).clamp_min(1e-9)).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack((-y, x, zero, -x, -y, zero, zero, zero, one), dim=-1).unflatten(-1, (3, 3))


def one_side(rows_TRD: Float[Tensor, "T 25 6"]) -> tuple[Tensor]:
    """A motion alone."""
    return (rows_TRD,)


def both_sides(rows_TRD: Float[Tensor, "T 25 6"]) -> tuple[Tensor, Tensor]:
    """A motion, and its mirror image."""
    return rows_TRD, mirror_rows(rows_TRD)


def held(rows_TRD: Float[Tensor, "T 25 6"], frames: int) -> Float[Tensor, "N 25 6"]:
    """A motion of at least so many frames: a shorter one stays where it ends."""
    return rows_TRD[torch.arange(max(frames, len(rows_TRD))).clamp_max(len(rows_TRD) - 1)]


def at_speed(rows_TRD: Float[Tensor, "T 25 6"], speed: float) -> Float[Tensor, "N 25 6"]:
    """A motion played at another speed: rotations slerped, the path linear."""
    time_N = torch.arange(0, len(rows_TRD) - 1 + 1e-6, speed)
    before = time_N.long().clamp(max=len(rows_TRD) - 1)
    after, share = (before + 1).clamp(max=len(rows_TRD) - 1), (time_N - before)[:, None, None]
    quaternion = matrix_to_quaternion(rot6d_to_matrix(joints_of(rows_TRD).float()))
    rot6d = matrix_to_rot6d(quaternion_to_matrix(slerp(quaternion[before], quaternion[after], share)))
    path_T3 = root_of(rows_TRD).float()
    return rows_of_motion(rot6d, torch.lerp(path_T3[before], path_T3[after], share[:, 0]))
