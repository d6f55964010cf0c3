"""C3D files whose points are joints of a solved body -> a Recording; of markers on skin, why they are none."""

# T frames, P points

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mclip.pipeline.forms.places import motion_at
from mclip.pipeline.geometry.recording import MotionError, Recording, require_length
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.skeletons.joints import UP, missing_of

ENDING = ".c3d"
SOLVE = "markers have to be solved into a body first, by MoSh++ or SOMA: or name the joints' labels in a --map"
# What a label may say beside its side. The short ones are joint centres of gait laboratories.
PARTS = {name.removeprefix("left_"): name.removeprefix("left_") for name in JOINTS if not name.startswith("right_")}
PARTS |= {"hips": "pelvis", "toe": "foot", "toes": "foot", "clavicle": "collar"}
PARTS |= {"hjc": "hip", "kjc": "knee", "ajc": "ankle", "sjc": "shoulder", "ejc": "elbow", "wjc": "wrist"}
LABEL = re.compile(
    rf"(?:(?P<before>left|right|l|r)[_. ]?)?(?P<part>{'|'.join(PARTS)})(?:[_. ]?(?P<after>left|right|l|r))?",
    re.IGNORECASE,
)
RIGID = 0.02  # of its length that a bone between joints changes by at most; skin moves over bones by more
BONES = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))


def open_points(content: bytes | memoryview) -> Any:
    """A c3d.Reader of a file's bytes, its header checked against them; MotionError."""
    try:
        import c3d
    except ImportError as error:
        raise MotionError("C3D is read by a package of its own: pip install 'mclip[c3d]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are missing and not asked for
        try:
            reader = c3d.Reader(io.BytesIO(content))
            frames, points = int(reader.frame_count), int(reader.point_used)
            size = 4 if reader.point_scale < 0 else 2
        except Exception as error:  # a damaged file makes it raise nearly anything
            raise MotionError(f"cannot be read as C3D ({type(error).__name__}: {error})") from error
    if not points:
        raise MotionError("no points in it, only analog channels: expected joints' places")
    if not 0 < frames * points * 4 * size <= len(content):
        raise MotionError(f"says {frames:,} frames of {points:,} points, and has {len(content):,} bytes")
    return reader


def probe_motion(content: bytes | memoryview) -> tuple[int, float]:
    """Number of frames and frames per second of a C3D file, from its header; MotionError."""
    reader = open_points(content)
    frames, fps = int(reader.frame_count), float(reader.point_rate)
    require_length(frames, fps)
    return frames, fps


def parse_motion(content: bytes | memoryview, mapped: Mapping[str, str]) -> Recording:
    """The motion of a C3D file's joints, in metres, z up, feet on the floor; `mapped` is SMPL joint -> label.

    MotionError where its points are markers, where a joint is out of sight, or where the file is damaged.
    """
    reader = open_points(content)
    frames, fps = int(reader.frame_count), float(reader.point_rate)
    require_length(frames, fps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            labels = [label.strip() for label in reader.point_labels[: reader.point_used]]
            points_TP4 = np.stack([points[:, :4] for _, points, _ in reader.read_frames()]).astype(float)
        except Exception as error:
            raise MotionError(f"cannot be read as C3D ({type(error).__name__}: {error})") from error
    if len(points_TP4) < frames:
        raise MotionError(f"says {frames:,} frames and has {len(points_TP4):,}: copy or export it again")
    place = places_of(points_TP4, joints_of(labels, mapped), labels)
    sha256 = hashlib.sha256(content).digest()
    return motion_at(place, fps, sha256, skeleton="C3D", up=mapped.get(UP, ""))


def joints_of(labels: list[str], mapped: Mapping[str, str]) -> dict[str, int]:
    """SMPL joint -> number of the point that a label or the map says to be it; MotionError where too few are."""
    found = {name: number for number, label in reversed([*enumerate(labels)]) if (name := joint_of(label))}
    theirs = {name: label for name, label in mapped.items() if name != UP}
    if unknown := sorted(set(theirs.values()) - set(labels)):
        raise MotionError(f"the map names {', '.join(unknown)}, and its points are {', '.join(labels[:60])}")
    found |= {name: labels.index(label) for name, label in theirs.items()}
    if missing := missing_of({**found, "pelvis": 0, "neck": 0}):  # both are between others
        raise MotionError(f"no joint for {', '.join(missing)} among its points {', '.join(labels[:60])}; {SOLVE}")
    return found


def joint_of(label: str) -> str:
    """SMPL's name of a label that is a joint's and no more, as LeftKnee, L_Knee, knee_r, Subject:LKJC; else ""."""
    found = LABEL.fullmatch(label.split(":")[-1])
    if not found or (found["before"] and found["after"]):
        return ""
    side = (found["before"] or found["after"] or "").lower()[:1]
    name = {"l": "left_", "r": "right_", "": ""}[side] + PARTS[found["part"].lower()]
    return name if name in JOINTS else ""


def places_of(
    points_TP4: Float[np.ndarray, "T P 4"], joints: Mapping[str, int], labels: list[str]
) -> dict[str, Float[np.ndarray, "T 3"]]:
    """Places of the joints in every frame; MotionError where one is out of sight, or bones change as skin does."""
    for number in joints.values():
        unseen_T = (points_TP4[:, number, 3] < 0) | ~np.isfinite(points_TP4[:, number]).all(-1)
        if unseen_T.any():
            raise MotionError(
                f"{labels[number]} is out of sight in {unseen_T.sum():,} frames, first in frame "
                f"{int(unseen_T.argmax())}: fill the gaps first"
            )
    place = {name: points_TP4[:, number, :3] for name, number in joints.items()}
    for side in ("left", "right"):
        for start, end in BONES:
            a, b = f"{side}_{start}", f"{side}_{end}"
            if {a, b} <= set(place):
                length_T = np.linalg.norm(place[a] - place[b], axis=-1)
                if not length_T.std() <= RIGID * length_T.mean():
                    changed = 100 * length_T.std() / max(length_T.mean(), 1e-12)
                    raise MotionError(
                        f"{labels[joints[a]]} to {labels[joints[b]]} changes its length by {changed:.0f} %, as markers "
                        f"on skin do; {SOLVE}"
                    )
    return place
