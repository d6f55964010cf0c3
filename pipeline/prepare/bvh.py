"""BVH files -> SMPL's joints: text, names, axes and check joined; nothing of it is BVH's alone but the text."""

# T frames, J joints of the file

import hashlib
import io
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle
from mclip.pipeline.skeletons import check
from mclip.pipeline.skeletons.bvh_text import MOTION, Bvh, read_bvh, read_times
from mclip.pipeline.skeletons.frames import rest_joints
from mclip.pipeline.skeletons.joints import Tree, Understood, at, understand
from mclip.pipeline.skeletons.kinematics import rest_of, world_of
from mclip.pipeline.skeletons.solve import Moving, solve

SEEN = 64  # frames that are enough to know a skeleton by
FARTHEST = 1e5  # metres from the origin


def probe_motion(file: io.BufferedIOBase | io.FileIO) -> tuple[int, float]:
    """Number of frames and frames per second of an open BVH file, from the head of its MOTION part; MotionError."""
    text = file.read(1 << 20)
    motion = MOTION.search(text)
    if not motion:
        raise MotionError("no `Frames:` and `Frame Time:` in it: expected a BVH file")
    frames, time, _ = read_times(text, motion.end())
    return require_motion(frames), rate_of(time)


def require_motion(frames: int) -> int:
    """The number of frames; MotionError for one alone."""
    if frames < 2:
        raise MotionError("one frame, a pose and no motion: expected at least 2")
    return frames


def rate_of(frame_time: float) -> float:
    """Frames per second; 0.033333 s is 30 of them, written short. MotionError where it is none of a recording."""
    if not 1e-3 <= frame_time <= 1:
        raise MotionError(f"Frame Time is {frame_time:g} s, expected 0.001 to 1")
    fps = 1 / frame_time
    return float(round(fps)) if abs(fps - round(fps)) < 1e-3 * fps else fps


def parse_motion(content: bytes | memoryview, joint_map: Mapping[str, str] | None = None) -> Recording:
    """The motion in a BVH file's bytes, on SMPL's joints, in metres, z up, feet on the floor.

    `joint_map` says what SMPL's joints are called in it, where names and shape do not. MotionError where it cannot be
    read, is no human body, or where a bone would come out elsewhere than in the file.
    """
    bvh = read_bvh(content)
    require_motion(len(bvh.values_TC))
    found = understand(tree_of(bvh), seen_places(bvh), joint_map)
    solved = solve(moving_of(bvh, found))
    bone, degrees = check.require_agreement(check.bone_degrees(solved))
    shift = check.floor_shift(solved)
    trans_T3 = solved.root_T3 - rest_joints()[0].numpy() + [0, 0, shift]
    if not np.abs(trans_T3).max() < FARTHEST:
        raise MotionError(f"its body reaches {np.abs(trans_T3).max():g} m from the origin")
    poses = matrix_to_axis_angle(torch.from_numpy(solved.local_TJ33)).numpy()
    account = {
        "skeleton": found.skeleton, "joints": len(found.joints), "by": found.how, "axes": solved.axes, "up": solved.up,
        "metres": round(solved.metres, 6), "floor_shift_m": round(shift, 4), "worst_bone": bone,
        "degrees": round(degrees, 3), "mm": round(check.joint_millimetres(solved), 1), "notes": list(found.notes),
    }  # fmt: skip
    sha256 = hashlib.sha256(content).digest()
    return Recording(poses, trans_T3, rate_of(bvh.frame_time), np.zeros(16, np.float32), "neutral", sha256,
                     account=account)  # fmt: skip


def tree_of(bvh: Bvh) -> Tree:
    """The file's joints without their motion."""
    return Tree(bvh.names, tuple(bvh.parents_J.tolist()), tuple(bvh.ends_J.tolist()))


def seen_places(bvh: Bvh) -> Float[np.ndarray, "T J 3"]:
    """Places (T, J, 3) of all joints in some frames spread over the clip."""
    step = -(-len(bvh.values_TC) // SEEN)
    return world_of(bvh, np.arange(len(bvh.names)), frames=slice(None, None, step)).place_TW3


def moving_of(bvh: Bvh, found: Understood) -> Moving:
    """The understood joints' places and turns in every frame, and their places at rest."""
    wanted = {**found.joints, **found.ends}
    world = world_of(bvh, np.array(list(wanted.values())))
    slots = {name: slot for slot, name in enumerate(wanted)}
    turn = {name: world.turn_TW33[:, slots[name]] for name in found.joints}
    rest_J3 = rest_of(bvh)[None]
    rest = {name: place[0] for name, place in at(rest_J3, wanted).items()}
    return Moving(at(world.place_TW3, slots), turn, rest)
