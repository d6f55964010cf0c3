"""Two motions made one: where they differ least, one is turned and moved on the floor to meet the other, and blended.

The distance of two pieces of motion is that of motion graphs (Kovar, Gleicher and Pighin, SIGGRAPH 2002, section 3.1):
between the points of some frames, after the turn about the vertical and the shift on the floor that bring them nearest.
"""

# T frames, J joints, I and L first frames of pieces in the earlier and the later motion, N frames of a piece

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mclip.pipeline.geometry.continuation import yaw_between
from mclip.pipeline.geometry.rotations import about_vertical, axis_angle_to_matrix, matrix_to_quaternion, same_sign
from mclip.pipeline.geometry.skeleton import forward_kinematics


class Track(NamedTuple):
    """Local joint rotations, and the root's place in metres; world z up."""

    rotmat_TJ33: Float[Tensor, "T 24 3 3"]
    trans_T3: Float[Tensor, "T 3"]

    def cut(self, start: int, stop: int) -> "Track":
        """The frames from `start` on, before `stop`."""
        return Track(self.rotmat_TJ33[start:stop], self.trans_T3[start:stop])

    def moved(self, yaw: float, shift_2: Float[Tensor, "2"]) -> "Track":
        """Turned about the vertical through the origin by `yaw` radians, then shifted on the floor."""
        turn_33 = about_vertical(torch.tensor(yaw, dtype=self.trans_T3.dtype))
        rotmat = self.rotmat_TJ33.clone()
        rotmat[:, 0] = turn_33 @ rotmat[:, 0]
        trans_T3 = self.trans_T3 @ turn_33.T
        trans_T3[:, :2] += shift_2
        return Track(rotmat, trans_T3)

    def points(self, joints_J3: Float[Tensor, "24 3"]) -> Float[Tensor, "T 24 3"]:
        """Places of the joints of a skeleton whose pelvis is at the root's place."""
        bones_J3 = (joints_J3 - joints_J3[0]).to(self.trans_T3.dtype)
        return forward_kinematics(self.rotmat_TJ33, bones_J3, root_B3=self.trans_T3)[1]


def joined(*tracks: Track) -> Track:
    """The motions one after the other, as they are."""
    return Track(*(torch.cat(each) for each in zip(*tracks, strict=True)))


@dataclass(frozen=True)
class Meetings:
    """How near every piece of one motion comes to every piece of another, and what brings the later one there."""

    distance_IL: Float[Tensor, "I L"]  # metres, root of the mean square over the points
    yaw_IL: Float[Tensor, "I L"]  # radians by which the later motion is turned
    earlier_I2: Float[Tensor, "I 2"]  # middle of a piece on the floor
    later_L2: Float[Tensor, "L 2"]

    @classmethod
    def of(cls, earlier_TJ3: Float[Tensor, "_ J 3"], later_TJ3: Float[Tensor, "_ J 3"], frames: int) -> "Meetings":
        """Those of all pieces of so many frames, given the places of joints; Kovar et al. 2002, equations 1 to 4."""
        (earlier, earlier_I2), (later, later_L2) = (pieces(each, frames) for each in (earlier_TJ3, later_TJ3))
        (ax, ay, az), (bx, by, bz) = earlier.unbind(-1), later.unbind(-1)
        along, across = ax @ bx.T + ay @ by.T, ay @ bx.T - ax @ by.T
        square = (earlier**2).sum((1, 2))[:, None] + (later**2).sum((1, 2)) - 2 * (az @ bz.T)
        square = square - 2 * torch.hypot(along, across)
        distance = (square.clamp_min(0) / earlier.shape[1]).sqrt()
        return cls(distance, torch.atan2(across, along), earlier_I2, later_L2)

    def bring(self, later: Track, pair: tuple[int, int]) -> Track:
        """The later motion where, and turned as, its piece comes nearest to the earlier one's."""
        yaw = float(self.yaw_IL[pair])
        turned_2 = about_vertical(self.yaw_IL[pair])[:2, :2] @ self.later_L2[pair[1]]
        return later.moved(yaw, self.earlier_I2[pair[0]] - turned_2)


def best_pair(cost_IL: Float[Tensor, "I L"], allowed_IL: Bool[Tensor, "I L"]) -> tuple[int, int]:
    """The pair of pieces that costs least among those that are allowed, of which there is one."""
    before, after = divmod(int(cost_IL.masked_fill(~allowed_IL, torch.inf).argmin()), cost_IL.shape[1])
    return before, after


def pieces(points_TJ3: Float[Tensor, "T J 3"], frames: int) -> tuple[Float[Tensor, "I P 3"], Float[Tensor, "I 2"]]:
    """The points of every piece of so many frames about their middle on the floor, and that middle."""
    found_IP3 = points_TJ3.unfold(0, frames, 1).permute(0, 1, 3, 2).flatten(1, 2)
    middle_I2 = found_IP3[..., :2].mean(1)
    return found_IP3 - torch.nn.functional.pad(middle_I2, (0, 1))[:, None], middle_I2


def blended(earlier: Track, later: Track) -> Track:
    """From the earlier motion to the later over frames of both: rotations slerped, the root's place between.

    The share goes from 0 to 1 without a kink in speed or acceleration (10 s^3 - 15 s^4 + 6 s^5), and neither end is one
    of the frames: what comes before is the earlier motion, and what comes after the later one.
    """
    frames = len(earlier.trans_T3)
    time = torch.arange(1, frames + 1, dtype=earlier.trans_T3.dtype) / (frames + 1)
    share_T1 = (time**3 * (10 - 15 * time + 6 * time**2))[:, None]
    turn_TJ3 = turns_between(earlier.rotmat_TJ33, later.rotmat_TJ33)
    rotmat = earlier.rotmat_TJ33 @ axis_angle_to_matrix(share_T1[..., None] * turn_TJ3)
    return Track(rotmat, torch.lerp(earlier.trans_T3, later.trans_T3, share_T1))


def turns_between(
    earlier_TJ33: Float[Tensor, "T J 3 3"], later_TJ33: Float[Tensor, "T J 3 3"]
) -> Float[Tensor, "T J 3"]:
    """What turns one motion's joints into the other's, as axis-angle: the same way round in all frames.

    The shorter way alone would jump to the other side where two poses are half a turn apart, as of a body that lies on
    its back and one that lies on its face.
    """
    turn_TJ4 = same_sign(matrix_to_quaternion(earlier_TJ33.mT @ later_TJ33))
    turn_TJ4 = torch.where(turn_TJ4[..., 0].mean(0)[:, None] < 0, -turn_TJ4, turn_TJ4)
    length = turn_TJ4[..., 1:].norm(dim=-1, keepdim=True)
    return 2 * torch.atan2(length, turn_TJ4[..., :1]) * turn_TJ4[..., 1:] / length.clamp_min(1e-12)


def closed(track: Track, joints_J3: Float[Tensor, "24 3"], *, start: int, stop: int, frames: int) -> Track:
    """The frames from `start` to `stop`, both included, as a loop: over its last `frames` it becomes its own beginning.

    What is blended in are the frames before `start`, so the last pose is the first, but for place and heading, and
    it is reached at the speed at which the first is left. At least `frames` frames lie before `start`.
    """
    lead_in, end = track.cut(start - frames, start + 1), track.cut(stop - frames, stop + 1)
    meeting = Meetings.of(end.points(joints_J3), lead_in.points(joints_J3), frames + 1)
    lead_in = meeting.bring(lead_in, (0, 0))
    turned = blended(end.cut(0, frames), lead_in.cut(0, frames))
    return joined(track.cut(start, stop - frames), turned, lead_in.cut(frames, frames + 1))


def straightened(track: Track, most: float) -> Track:
    """A motion whose last frame faces as its first does, where they are at most `most` radians apart.

    The heading is led back evenly, and every step of the path is turned with it. A motion that turns farther means to.
    """
    turn_33 = yaw_between(track.rotmat_TJ33[0, 0], track.rotmat_TJ33[-1, 0])
    angle = math.atan2(float(turn_33[1, 0]), float(turn_33[0, 0]))
    if abs(angle) > most:
        return track
    return veered(track, torch.linspace(0, -angle, len(track.trans_T3), dtype=track.trans_T3.dtype))


def veered(track: Track, yaw_T: Float[Tensor, " T"]) -> Track:
    """A motion turned about the vertical by an angle (radians) of each frame, every step of its path with it."""
    turn_T33 = about_vertical(yaw_T)
    rotmat = torch.cat((turn_T33[:, None] @ track.rotmat_TJ33[:, :1], track.rotmat_TJ33[:, 1:]), dim=1)
    steps_T3 = (turn_T33[1:] @ track.trans_T3.diff(dim=0)[..., None])[..., 0]
    return Track(rotmat, torch.cat((track.trans_T3[:1], track.trans_T3[:1] + steps_T3.cumsum(0))))


def on_the_spot(track: Track) -> Track:
    """A motion whose root stays over one point of the floor; its height is as it was."""
    trans_T3 = track.trans_T3.clone()
    trans_T3[:, :2] = trans_T3[:1, :2]
    return Track(track.rotmat_TJ33, trans_T3)
