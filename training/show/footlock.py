"""Feet that stand where they stand: found, held in place by bending the legs, and let go again over some frames."""

# T frames, N feet: left, right

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.joining import Track
from mclip.pipeline.geometry.legs import bend_legs
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle
from mclip.pipeline.geometry.skeleton import ANKLES, HIPS, KNEES
from mclip.training.measure.physics import pivot_steps, planted_speed, runs, standing_feet
from mclip.training.show.motion import Heights, Motion, floor_of, heights

LETS_GO = 0.2  # seconds over which a foot leaves its place, or comes to it
SETTLES = 0.5  # seconds over which the root is lowered for a leg that is too short
STRETCH = 0.995  # of a leg's length: at 1 the knee would snap


@dataclass(frozen=True)
class Lock:
    """What a foot lock did: before and after, of the same feet and frames."""

    speed_mm_s: tuple[float, float]  # of the planted foot, while one stands
    floor_mm: tuple[float, float]  # mean distance of standing soles from the floor
    moved_mm: float  # mean over joints and frames
    most_mm: float
    stands: float  # share of frames in which a foot stands

    def __str__(self) -> str:
        (speed, still), (off, on) = self.speed_mm_s, self.floor_mm
        if not self.stands:
            return "no foot stands anywhere: none was held"
        return (
            f"feet stand in {100 * self.stands:.0f} % of the frames, at {speed:.0f} mm/s and now {still:.0f}, "
            f"{off:.0f} mm off the floor and now {on:.0f}; joints moved by {self.moved_mm:.0f} mm, at most "
            f"{self.most_mm:.0f}"
        )


def locked(motion: Motion) -> tuple[Motion, Lock]:
    """The motion with feet that stand held in place and on the floor, and what was changed.

    Legs are bent, and the root is lowered, smoothly, where they are too short; all else stays. On the embedded body.
    """
    body, fps = load_body("low"), motion.fps
    height = heights(motion, body)
    floor = floor_of(motion, height)
    track = Track(motion.rotmat_TJ33.double(), motion.trans_T3.double())
    places = track.points(body.joints_J3)
    sole_TN = height.sole_TN.double() - floor
    stands_TN = standing_feet(places, sole_TN, fps=fps, carries_TN=height.on_feet_TN)
    moves_TN3 = torch.stack(
        [held(stands_TN[:, n], pivot_steps(places)[:, n], sole_TN[:, n], fps=fps) for n in range(2)], dim=1
    )
    target_TN3 = places[:, ANKLES] + moves_TN3
    length = (body.joints_J3[list(HIPS)] - body.joints_J3[list(KNEES)]).norm(dim=-1)
    length = length + (body.joints_J3[list(KNEES)] - body.joints_J3[list(ANKLES)]).norm(dim=-1)
    down_T = lowered(places[:, HIPS] - target_TN3, STRETCH * length.double(), fps=fps)
    root_T3 = track.trans_T3 - torch.nn.functional.pad(down_T[:, None], (2, 0))
    rotmat = bend_legs(track.rotmat_TJ33, root_T3, body.joints_J3.double(), target_TN3=target_TN3)
    made = with_legs(motion, rotmat.to(motion.rotmat_TJ33.dtype), root_T3.to(motion.trans_T3.dtype))
    after = heights(made, body)
    return made, compared(places, Track(rotmat, root_T3).points(body.joints_J3), stands_TN, height, after, floor, fps)


def held(
    stands_T: Bool[Tensor, " T"], steps_T2: Float[Tensor, "T 2"], sole_T: Float[Tensor, " T"], *, fps: float
) -> Float[Tensor, "T 3"]:
    """By how much a foot is moved (T, 3), metres, to stay where it stands: in the middle of where it slid to.

    While it stands its steps are undone and its sole is on the floor. Before and after, what it was moved by last fades
    over LETS_GO; the first and last frame of a stand are eased, or knees would pop. A sole is never under the floor.
    """
    moved_T3 = torch.zeros(len(stands_T), 3, dtype=steps_T2.dtype)
    stances = runs(stands_T)
    for start, stop in stances:
        slid_T2 = torch.cat((steps_T2[:1] * 0, steps_T2[start + 1 : stop])).cumsum(0)
        moved_T3[start:stop, :2] = slid_T2.mean(0) - slid_T2
        moved_T3[start:stop, 2] = -sole_T[start:stop]
    frames = max(1, round(LETS_GO * fps))
    ends = [0, *itertools.chain.from_iterable(stances), len(stands_T)]
    for start, stop in zip(ends[::2], ends[1::2], strict=True):
        between = torch.arange(1, stop - start + 1, dtype=steps_T2.dtype)[:, None]
        fade = min(frames, stop - start)
        if start > 0:
            moved_T3[start:stop] += faded(between / (fade + 1)) * moved_T3[start - 1]
        if stop < len(stands_T):
            moved_T3[start:stop] += faded((stop - start + 1 - between) / (fade + 1)) * moved_T3[stop]
    moved_T3 = torch.where(within(stands_T)[:, None], moved_T3, eased(moved_T3))
    moved_T3[:, 2] = torch.maximum(moved_T3[:, 2], -sole_T)
    return moved_T3


def within(mask_T: Bool[Tensor, " T"]) -> Bool[Tensor, " T"]:
    """The frames of a mask whose neighbours are in it; the ends of a motion have none."""
    before_T, after_T = (torch.nn.functional.pad(mask_T, ends, value=True) for ends in ((1, 0), (0, 1)))
    return mask_T & before_T[:-1] & after_T[1:]


def eased(moved_T3: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3"]:
    """Half of every frame, and a quarter of each neighbour's."""
    ends_T3 = torch.cat((moved_T3[:1], moved_T3, moved_T3[-1:]))
    return (ends_T3[:-2] + 2 * moved_T3 + ends_T3[2:]) / 4


def faded(share: Tensor) -> Tensor:
    """From 1 at 0 to 0 at 1 and beyond, without a kink."""
    share = share.clamp(0, 1)
    return 1 - share**2 * (3 - 2 * share)


def lowered(leg_TN3: Float[Tensor, "T 2 3"], length_N: Float[Tensor, " N"], *, fps: float) -> Float[Tensor, " T"]:
    """By how much the root is lowered (T) so that legs reach their ankles, from where these are to the hips.

    The need of every frame is spread to those around it and smoothed: never less than is needed.
    """
    level_TN = leg_TN3[..., :2].norm(dim=-1)
    tall_TN = (length_N**2 - level_TN**2).clamp_min(0).sqrt()
    need_11T = (leg_TN3[..., 2] - tall_TN).clamp_min(0).amax(1)[None, None]
    reach = max(1, round(SETTLES / 2 * fps))
    window = torch.hann_window(2 * reach + 3, periodic=False, dtype=leg_TN3.dtype)[1:-1]
    spread = torch.nn.functional.max_pool1d(need_11T, 2 * reach + 1, stride=1, padding=reach)
    padded = torch.nn.functional.pad(spread, (reach, reach), mode="replicate")
    return torch.nn.functional.conv1d(padded, (window / window.sum())[None, None])[0, 0]


def with_legs(motion: Motion, rotmat_TJ33: Tensor, trans_T3: Tensor) -> Motion:
    """A motion whose legs and root are others; fingers and shape of the recording that it was read from are kept."""
    recording = motion.recording
    if recording is not None:
        poses = recording.poses_TK3.copy()
        for joint in (*HIPS, *KNEES, *ANKLES):
            poses[:, recording.joints[joint]] = matrix_to_axis_angle(rotmat_TJ33[:, joint].double()).numpy()
        recording = replace(recording, poses_TK3=poses, trans_T3=trans_T3.double().numpy())
    return Motion(rotmat_TJ33, trans_T3, motion.fps, recording)


def compared(
    was: Tensor, made: Tensor, stands_TN: Bool[Tensor, "T 2"], height: Heights, after: Heights, floor: float, fps: float
) -> Lock:
    """What the lock did, from joints and heights before and after."""
    standing_1T = stands_TN.any(1)[None]  # in a run feet are in the air for half of the time
    before_mm_s, after_mm_s = (float(planted_speed(each[None], standing_1T, fps=fps)) for each in (was, made))
    off, on = (1000 * float((each.sole_TN[stands_TN] - floor).abs().mean()) for each in (height, after))
    moved = 1000 * (made - was).norm(dim=-1)
    share = float(stands_TN.any(1).float().mean())
    return Lock((before_mm_s, after_mm_s), (off, on), float(moved.mean()), float(moved.max()), share)
