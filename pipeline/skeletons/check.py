"""What a solved motion is held to: its bones' directions and joints' places against the file's, and the floor."""

# T frames, P points of a joint

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.recording import FARTHEST, MotionError, Recording
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.frames import Turns, placed, rest_joints, rest_places, unit
from mclip.pipeline.skeletons.joints import Understood
from mclip.pipeline.skeletons.solve import Solved

BONES = [
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("hip", "knee"), ("knee", "ankle"), ("ankle", "foot"), ("shoulder", "elbow"), ("elbow", "wrist"))
]
BONES += [("pelvis", "neck"), ("neck", "head"), ("right_hip", "left_hip"), ("right_shoulder", "left_shoulder")]
MOST_DEGREES = 5.0  # the mean of a bone over a clip; a skeleton that was understood has limbs at 0.0
STANCE = 5  # per cent of the frames, in which the body's lowest point is the floor: feet sink in for a moment
OWN_BONES = 0.005  # metres between bones of SMPL's skeleton in other files and ours


def recorded(found: Understood, solved: Solved, *, fps: float, sha256: bytes) -> Recording:
    """A solved motion with its account, feet on the floor; MotionError where bones come out elsewhere than in it."""
    account = account_of(found, solved)
    lift = np.array([0, 0, account["floor_shift_m"]])
    trans_T3 = solved.root_T3 - rest_joints()[0].numpy() + lift
    if not np.abs(trans_T3).max() < FARTHEST:
        raise MotionError(f"its body reaches {np.abs(trans_T3).max():g} m from the origin")
    poses = matrix_to_axis_angle(torch.from_numpy(solved.local_TJ33)).numpy()
    source = {name: each + lift for name, each in solved.target.items()}
    return Recording(poses, trans_T3, fps, np.zeros(16, np.float32), "neutral", sha256, account=account, source=source)


def account_of(found: Understood, solved: Solved) -> dict[str, Any]:
    """How a file was understood, for the manifest; MotionError where bones come out elsewhere than in it."""
    bone, degrees = require_agreement(bone_degrees(solved))
    return {
        "skeleton": found.skeleton,
        "joints": len(found.joints),
        "by": found.how,
        "axes": solved.axes,
        "up": solved.up,
        "metres": round(solved.metres, 6),
        "floor_shift_m": round(floor_shift(solved), 4),
        "worst_bone": bone,
        "degrees": round(degrees, 3),
        "mm": round(joint_millimetres(solved), 1),
        "notes": [*found.notes, *solved.notes],
    }


def bone_degrees(solved: Solved) -> dict[str, float]:
    """Mean angle in degrees between each bone of the motion and the file's own, over all frames."""
    place = placed(solved.turns, solved.root_T3)
    angles = {}
    for start, end in BONES:
        if start in solved.target and end in solved.target:
            theirs, ours = (unit(each[end] - each[start]) for each in (solved.target, place))
            if theirs.any():
                # The angle from the chord: exact where an arc cosine of nearly one loses its digits.
                chord = np.linalg.norm(theirs - ours, axis=-1).clip(0, 2)
                angles[f"{start} to {end}"] = float(np.degrees(2 * np.arcsin(chord / 2)).mean())
    return angles


def require_agreement(angles: dict[str, float]) -> tuple[str, float]:
    """The bone that is farthest off, and by how many degrees; MotionError above MOST_DEGREES."""
    bone = max(angles, key=lambda name: angles[name])
    if not angles[bone] <= MOST_DEGREES:
        raise MotionError(
            f"{bone} comes out {angles[bone]:.0f} degrees off the file's own, more than {MOST_DEGREES:g}: its joints "
            "are not understood"
        )
    return bone, angles[bone]


def joint_millimetres(solved: Solved) -> float:
    """Mean distance in mm between the limbs' joints and the file's, scaled to our legs."""
    place = placed(solved.turns, solved.root_T3)
    limbs = {joint for bone in BONES for joint in bone if "_" in joint and joint in solved.target}
    return 1000 * float(np.mean([np.linalg.norm(place[j] - solved.target[j], axis=-1).mean() for j in limbs]))


def floor_shift(solved: Solved) -> float:
    """Metres to lift the motion by so that its lowest points stand at zero; none for a skeleton of SMPL's own bones.

    Hips lie elsewhere in other skeletons' pelvises, and their soles elsewhere below their ankles, so that scaling by
    the legs alone leaves feet some centimetres above or under the floor.
    """
    if has_own_bones(solved):
        return 0.0
    return -float(np.percentile(lowest_points(solved.turns, placed(solved.turns, solved.root_T3)), STANCE))


def has_own_bones(solved: Solved) -> bool:
    """Whether the file's bones are as long as SMPL's, all of them."""
    rest, target = rest_places(), solved.target
    pairs = [(name, nearest(JOINTS[PARENTS[joint]], target)) for joint, name in enumerate(JOINTS) if joint]
    lengths = [
        np.linalg.norm(target[a] - target[b], axis=-1).mean() - np.linalg.norm(rest[a] - rest[b])
        for a, b in pairs
        if a in target
    ]
    return bool(np.abs(lengths).max() < OWN_BONES)


def nearest(joint: str, known: Mapping[str, object]) -> str:
    """The joint, or the first of its ancestors that is known."""
    return joint if joint in known else nearest(JOINTS[PARENTS[JOINTS.index(joint)]], known)


def lowest_points(
    turns: Turns,
    place: Mapping[str, Float[np.ndarray, "T 3"]],
    points: Mapping[str, Float[np.ndarray, "P 3"]] | None = None,
) -> Float[np.ndarray, " T"]:
    """Height in metres of the body's lowest point in each frame; of another skin by its `points`."""
    heights = [
        (turns[name][:, 2] @ points_P3.T).min(1) + place[name][:, 2]
        for name, points_P3 in (surface_points() if points is None else points).items()
    ]
    return np.min(heights, axis=0)


@functools.cache
def surface_points() -> dict[str, Float[np.ndarray, "P 3"]]:
    """Points of the skin that belong to each joint, from that joint at rest: the farthest in 26 directions."""
    with np.load(ASSETS / "body_low.npz", allow_pickle=False) as body:
        vertices_V3, weights_VJ = body["v_template"].astype(float), body["weights"]
    found = {}
    for joint, (name, at_3) in enumerate(rest_places().items()):
        skin_P3 = vertices_V3[weights_VJ.argmax(1) == joint] - at_3
        if len(skin_P3):
            found[name] = farthest(skin_P3)
    return found


def farthest(points_P3: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "N 3"]:
    """The points that lie farthest in 26 directions: what a body can touch the floor with."""
    ways = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z], float)
    return points_P3[np.unique((points_P3 @ ways.T).argmax(0))]
