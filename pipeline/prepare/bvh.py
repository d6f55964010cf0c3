"""BVH files -> SMPL's joints: text, names, axes and check joined; nothing of it is BVH's alone but the text."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.skeletons.bvh_text import MOTION, Bvh, read_bvh, read_times
from mclip.pipeline.skeletons.check import recorded
from mclip.pipeline.skeletons.joints import UP, understand
from mclip.pipeline.skeletons.kinematics import moving_of, seen_places, tree_of
from mclip.pipeline.skeletons.solve import solve


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


def thinned(bvh: Bvh, fps: float | None) -> Bvh:
    """Every n-th of its frames where these are `fps` a second; the same file where none are, or only one would stay."""
    every = rate_of(bvh.frame_time) / (fps or np.inf)
    if every < 2 or every % 1 or len(bvh.values_TC) <= every:
        return bvh
    return replace(bvh, values_TC=bvh.values_TC[:: int(every)], frame_time=1 / fps if fps else bvh.frame_time)


def rate_of(frame_time: float) -> float:
    """Frames per second; 0.033333 s is 30 of them, written short. MotionError where it is none of a recording."""
    if not 1e-3 <= frame_time <= 1:
        raise MotionError(f"Frame Time is {frame_time:g} s, expected 0.001 to 1")
    fps = 1 / frame_time
    return float(round(fps)) if abs(fps - round(fps)) < 1e-3 * fps else fps


def parse_motion(
    content: bytes | memoryview, joint_map: Mapping[str, str] | None = None, *, fps: float | None = None
) -> Recording:
    """The motion in a BVH file's bytes, on SMPL's joints, in metres, z up, feet on the floor.

    `joint_map` says what SMPL's joints are called in it, and its up, where the file itself does not. MotionError where
    it cannot be read, is no human body, or where a bone would come out elsewhere than in the file. Who keeps only `fps`
    frames a second gets those alone, where they are every second, third, ... of the file's.
    """
    return motion_of(read_bvh(content), joint_map, fps=fps, sha256=hashlib.sha256(content).digest())


def motion_of(bvh: Bvh, joint_map: Mapping[str, str] | None, *, fps: float | None, sha256: bytes) -> Recording:
    """`parse_motion` of what a BVH file holds, or of what is brought into its form."""
    require_motion(len(bvh.values_TC))
    bvh = thinned(bvh, fps)
    found = understand(tree_of(bvh), seen_places(bvh), joint_map)
    solved = solve(moving_of(bvh, found), up=(joint_map or {}).get(UP, ""))
    return recorded(found, solved, fps=rate_of(bvh.frame_time), sha256=sha256)
