"""Joint places without rotations -> a Recording: HumanML3D's new_joints, and what text-to-motion models write.

Limbs point where the places say, and the trunk turns by hips and shoulders. How forearms and head turn about
themselves no place says, so their twists are none.
"""

# T frames, J joints (22 or 24), N motions

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.check import account_of
from mclip.pipeline.skeletons.frames import rest_joints
from mclip.pipeline.skeletons.joints import Tree, at, understand
from mclip.pipeline.skeletons.solve import Moving, solve

COUNTS = (22, 24)  # joints of SMPL without and with hands
ALIKE, STEADY = (
    0.95,
    0.1,
)  # cosine of bone lengths with SMPL's, and how much of itself a bone changes: generated ones do
MDM_FPS = 20.0  # of 22 joints, which are HumanML3D's; its other data sets have 21 and 24
GUESSED = "joint places alone: forearms and head have no twist of their own"


def are_places(values: Float[np.ndarray, "T J 3"]) -> bool:
    """Whether an array holds places of SMPL's joints: bones as long as people's, that stay so. Rotations never do."""
    child, parent = np.arange(1, values.shape[1]), np.array(PARENTS[1 : values.shape[1]])
    length_TB = np.linalg.norm(values[:, child] - values[:, parent], axis=-1)
    rest = rest_joints().numpy()
    ours_B, theirs_B = np.linalg.norm(rest[child] - rest[parent], axis=-1), length_TB.mean(0)
    cosine = ours_B @ theirs_B / max(float(np.linalg.norm(ours_B) * np.linalg.norm(theirs_B)), 1e-12)
    return bool(cosine > ALIKE and np.median(length_TB.std(0) / np.maximum(theirs_B, 1e-12)) < STEADY)


def recording_of(place_TJ3: Float[np.ndarray, "T J 3"], fps: float, sha256: bytes) -> Recording:
    """The motion whose joints are there, in metres, z up; MotionError where that is no human body."""
    if not np.isfinite(place_TJ3).all():
        frame = int(np.argwhere(~np.isfinite(place_TJ3))[0, 0])
        raise MotionError(f"joint places have NaN or infinity, first in frame {frame}")
    count = place_TJ3.shape[1]
    place_TJ3 = place_TJ3.astype(float)
    found = understand(Tree(JOINTS[:count], PARENTS[:count], (False,) * count), place_TJ3)
    solved = solve(Moving(at(place_TJ3, found.joints), {}, {}))
    account = account_of(found, solved)
    account["notes"] = [*account["notes"], GUESSED]
    trans_T3 = solved.root_T3 - rest_joints()[0].numpy() + [0, 0, account["floor_shift_m"]]
    poses = matrix_to_axis_angle(torch.from_numpy(solved.local_TJ33)).numpy()
    return Recording(poses, trans_T3, fps, np.zeros(16, np.float32), "neutral", sha256, account=account)


def places_of_mdm(value: Mapping[str, Any]) -> Float[np.ndarray, "T J 3"] | None:
    """The places in MDM's results.npy, whose `motion` is (N, J, 3, T); None for what is none.

    MotionError for several motions, of which one file holds one.
    """
    motion, lengths = value.get("motion"), value.get("lengths")
    if not isinstance(motion, np.ndarray) or motion.ndim != 4 or motion.shape[1:3] != (22, 3):
        return None
    if len(motion) != 1:
        raise MotionError(
            f"{len(motion)} motions in it, expected one: save motion[i, :, :, :lengths[i]].transpose(2, 0, 1) of each "
            "to a .npy of its own"
        )
    length = int(np.asarray(lengths).reshape(-1)[0]) if lengths is not None else motion.shape[-1]
    return np.ascontiguousarray(motion[0].transpose(2, 0, 1)[:length])
