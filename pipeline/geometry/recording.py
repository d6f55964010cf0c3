"""One recording as a file holds it, and the error of a file that holds none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mclip.pipeline.geometry.skeleton import SMPLH_JOINTS, SMPLX_JOINTS

# Joints of a pose vector, by its length.
LAYOUTS = {156: SMPLH_JOINTS, 165: SMPLX_JOINTS, 72: tuple(range(24))}


class MotionError(ValueError):
    """A motion file that cannot be used, and why."""


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

    @property
    def poses_TJ3(self) -> np.ndarray:
        """Rotations (T, 24, 3) of SMPL's joints."""
        return self.poses_TK3[:, self.joints]
