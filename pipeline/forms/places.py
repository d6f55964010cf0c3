"""Joint places without rotations -> a Recording: of data sets, cameras, pose networks and text-to-motion models.

Limbs point where the places say, and the trunk turns by hips and shoulders. How forearms and head turn about
themselves no place says, so their twists are none.
"""

# T frames, J joints of the file

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.forms.joint_sets import BETWEEN, SETS
from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.check import nearest, recorded
from mclip.pipeline.skeletons.frames import rest_places
from mclip.pipeline.skeletons.joints import Tree, at, understand
from mclip.pipeline.skeletons.solve import Moving, solve

ALIKE = 0.95  # cosine of bone lengths with SMPL's
STEADY = 0.1  # of itself that a bone changes by: generated ones do
SURE = 2.0  # times as steady as any other set's
MDM_FPS = 20.0  # of 22 joints, which are HumanML3D's; its other data sets have 21 and 24
GUESSED = "joint places alone: forearms and head have no twist of their own"

Places = Mapping[str, Float[np.ndarray, "T 3"]]


def places_by_name(place_TJ3: Float[np.ndarray, "T J 3"], name: str) -> dict[str, Float[np.ndarray, "T 3"]]:
    """Places of SMPL's joints, as far as a set of joints has them."""
    return {joint: place_TJ3[:, theirs].mean(1) for joint, theirs in SETS[name][1].items()}


def parent_in(joint: str, place: Places) -> str:
    """The nearest joint above one of which there are places."""
    return nearest(JOINTS[PARENTS[JOINTS.index(joint)]], place)


def unsteady(place: Places) -> float:
    """By how much of itself a bone changes, at the median; infinity where bones are not as long as people's."""
    pairs = [
        (name, nearest(JOINTS[PARENTS[joint]], place)) for joint, name in enumerate(JOINTS) if joint and name in place
    ]
    length_TB = np.stack([np.linalg.norm(place[a] - place[b], axis=-1) for a, b in pairs], axis=1)
    rest = rest_places()
    ours_B = np.array([np.linalg.norm(rest[a] - rest[b]) for a, b in pairs])
    theirs_B = np.nanmean(length_TB, axis=0)
    cosine = ours_B @ theirs_B / max(float(np.linalg.norm(ours_B) * np.linalg.norm(theirs_B)), 1e-12)
    if not cosine > ALIKE:
        return np.inf
    return float(np.median(length_TB.std(0) / np.maximum(theirs_B, 1e-12)))


def set_of(place_TJ3: Float[np.ndarray, "T J 3"], asked: str = "") -> str:
    """Which set of joints an array has places of: by their number, and by bones that stay as long as people's.

    "" where it holds no places; MotionError where two sets fit, and `asked` is neither.
    """
    fitting = [name for name, (count, _) in SETS.items() if count == place_TJ3.shape[1]]
    if asked:
        if asked not in fitting:
            counted = f"{asked} has {SETS[asked][0]}" if asked in SETS else f"expected one of {', '.join(SETS)}"
            raise MotionError(f"{place_TJ3.shape[1]} joints, and --joints {asked}: {counted}")
        return asked
    finite = np.nan_to_num(place_TJ3)
    off = sorted((unsteady(places_by_name(finite, name)), name) for name in fitting)
    if not off or not off[0][0] < STEADY:
        return ""
    if len(off) > 1 and off[1][0] < max(SURE * off[0][0], off[0][0] + 0.01):
        raise MotionError(f"{place_TJ3.shape[1]} joints, of {off[0][1]} or of {off[1][1]}: pass --joints to say which")
    return off[0][1]


def recording_of(place_TJ3: Float[np.ndarray, "T J 3"], fps: float, sha256: bytes, asked: Asked = NOTHING) -> Recording:
    """The motion whose joints are there, in any unit and with any axis up; MotionError where that is no human body."""
    if not np.isfinite(place_TJ3).all():
        frame = int(np.argwhere(~np.isfinite(place_TJ3))[0, 0])
        raise MotionError(f"joint places have NaN or infinity, first in frame {frame}")
    place_TJ3 = place_TJ3.astype(float)
    name = set_of(place_TJ3, asked.joints)
    if not name:
        raise MotionError(
            f"places {place_TJ3.shape} whose bones change their length, or are not as long as people's: expected those "
            f"of one of {', '.join(SETS)}, which --joints may name"
        )
    return motion_at(places_by_name(place_TJ3, name), fps, sha256, skeleton=name, up=asked.up)


def motion_at(place: Places, fps: float, sha256: bytes, *, skeleton: str, up: str = "") -> Recording:
    """The motion whose joints of SMPL's names are there; what a skeleton lacks is between others. MotionError."""
    place = {name: (place[a] + place[b]) / 2 for name, (a, b) in BETWEEN.items() if {a, b} <= set(place)} | {**place}
    names = tuple(joint for joint in JOINTS if joint in place)
    parents = tuple(names.index(parent_in(each, place)) for each in names[1:])
    stacked_TK3 = np.stack([place[each] for each in names], axis=1)
    found = understand(Tree(names, (-1, *parents), (False,) * len(names)), stacked_TK3)
    solved = solve(Moving(at(stacked_TK3, found.joints), {}, {}), up=up)
    motion = recorded(found, solved, fps=fps, sha256=sha256)
    told = {"skeleton": skeleton, "notes": [*motion.account["notes"], GUESSED]}
    return replace(motion, account={**motion.account, **told})
