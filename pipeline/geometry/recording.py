"""One recording as a file holds it, the error of a file that holds none, and the check that every recording passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mclip.pipeline.geometry.skeleton import SMPLH_JOINTS, SMPLX_JOINTS
from mclip.pipeline.machine.compiled import compiled

# Joints of a pose vector, by its length.
LAYOUTS = {156: SMPLH_JOINTS, 165: SMPLX_JOINTS, 72: tuple(range(24))}

SLOWEST, FASTEST = 1.0, 1000.0  # frames per second that a recording can have
LARGEST_ANGLE = 100.0  # radians; CMU's own files reach 12
FARTHEST = 1e5  # metres from the origin
LONGEST = 36_000.0  # seconds: AMASS is 43 hours in 14,000 files; the store's rows are planned before a file is read


class MotionError(ValueError):
    """A motion file that cannot be used, and why."""


class NoMotion(MotionError):
    """A file that holds no motion at all, as a body's shape or a camera's calibration: passed over, and no failure."""


def file_and_member(name: str, endings: tuple[str, ...]) -> tuple[str, str]:
    """The file that a recording called FILE/NAME lies in, and which of several motions it is there, or "".

    The file is the last part of the path that ends in one of `endings`, or all of it where none does.
    """
    parts = name.split("/")
    files = [place for place, part in enumerate(parts) if part.lower().endswith(endings)]
    after = (files or [len(parts)])[-1] + 1
    return "/".join(parts[:after]), "/".join(parts[after:])


@dataclass(frozen=True)
class Recording:
    """One recording: local joint rotations as axis-angle in radians, root translation in metres, z up."""

    poses_TK3: np.ndarray  # of every joint in the file; a view of its bytes where they allow it
    trans_T3: np.ndarray
    fps: float
    betas: np.ndarray
    gender: str
    sha256: bytes
    joints: tuple[int, ...] = LAYOUTS[72]  # which of the file's joints are SMPL's 24
    account: Mapping[str, Any] = field(default_factory=dict)  # how the file was understood, for the manifest
    source: Mapping[str, np.ndarray] = field(default_factory=dict)  # its joints' places (T, 3), by SMPL's names

    @property
    def poses_TJ3(self) -> np.ndarray:
        """Rotations (T, 24, 3) of SMPL's joints."""
        return self.poses_TK3[:, self.joints]


def require_length(frames: int, fps: float) -> None:
    """MotionError for what is too short, too slow, too fast or too long to be a recording."""
    if frames < 2:
        raise MotionError(f"{frames} frames, expected at least 2")
    if not SLOWEST <= fps <= FASTEST:
        raise MotionError(f"{fps:g} frames per second, expected {SLOWEST:g} to {FASTEST:g}")
    if frames / fps > LONGEST:
        hours = LONGEST / 3600
        raise MotionError(f"{frames:,} frames at {fps:g} fps are {frames / fps / 3600:,.0f} hours, at most {hours:g}")


def require_finite(motion: Recording) -> Recording:
    """The recording; MotionError for numbers that are not finite or beyond any body's reach. Its fingers may be."""
    require_length(len(motion.trans_T3), motion.fps)
    if count_beyond(motion.poses_TK3.reshape(-1), LARGEST_ANGLE):
        refuse_beyond("poses", motion.poses_TJ3, LARGEST_ANGLE, "has an angle of {:g}, expected radians, at most 100")
    if count_beyond(motion.trans_T3.reshape(-1), FARTHEST):
        refuse_beyond("trans", motion.trans_T3, FARTHEST, "reaches {:g}, expected metres")
    return motion


@compiled
def count_beyond(flat, limit):  # type: ignore[no-untyped-def]
    """How many numbers are not within a limit of zero; NaN is not. Counting vectorises."""
    count = 0
    for i in range(len(flat)):
        count += not (abs(flat[i]) <= limit)
    return count


def refuse_beyond(name: str, values: np.ndarray, limit: float, told: str) -> None:
    """MotionError for numbers that are not finite, with the first frame, or beyond the limit."""
    if not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise MotionError(f"{name} has NaN or infinity, first in frame {frame}")
    if (largest := float(np.abs(values).max())) > limit:
        raise MotionError(f"{name} {told.format(largest)}")
