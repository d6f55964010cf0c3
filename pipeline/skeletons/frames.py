"""Turns of SMPL's joints as the places of joints alone show them: trunk by hips and shoulders, limbs by bone and hinge.

A turn (3, 3) takes a joint's axes at SMPL's rest (y up, x to the body's left, z forward) to the world's, whose z is up.
"""

# T frames

import functools
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS

X, Y = np.eye(3)[:2]
CROWN = "crown"  # the end of the head's bone: no joint of SMPL, but the one sign of where a head's up is
Places = Mapping[str, Float[np.ndarray, "T 3"]]
Turns = dict[str, Float[np.ndarray, "T 3 3"]]
STRAIGHT, BENT = 0.15, 0.4  # sine of a knee's bend: below the first its hinge is not seen, above the second wholly
NEXT = {
    "spine1": ("spine2", "spine3", "neck"),
    "spine2": ("spine3", "neck"),
    "spine3": ("neck",),
    "neck": ("head",),
    **{
        f"{side}_{a}": (f"{side}_{b}",)
        for side in ("left", "right")
        for a, b in (
            ("hip", "knee"),
            ("knee", "ankle"),
            ("ankle", "foot"),
            ("collar", "shoulder"),
            ("shoulder", "elbow"),
            ("elbow", "wrist"),
            ("wrist", "hand"),
        )
    },
}


@functools.cache
def rest_joints() -> Float[Tensor, "24 3"]:
    """Rest joints (24, 3) of the body that mclip ships, in metres."""
    with np.load(ASSETS / "body_low.npz", allow_pickle=False) as body:
        return torch.from_numpy(body["joints"].astype(np.float64))


@functools.cache
def rest_places() -> dict[str, Float[np.ndarray, "3"]]:
    """The same by name."""
    return dict(zip(JOINTS, rest_joints().numpy(), strict=True))


def unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Vectors of length one; zero stays zero."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(-1, keepdims=True)), 1e-12)


def cross(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """np.cross, three times as fast."""
    (ax, ay, az), (bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), axis=-1)


def axes_of(main: Float[np.ndarray, "*n 3"], second: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Three right-handed unit axes as columns: the first along `main`, the second as near to `second` as can be."""
    x = unit(main)
    z = unit(cross(x, second))
    return np.stack((x, cross(z, x), z), axis=-1)


def turned_to(
    main: Float[np.ndarray, "*n 3"],
    second: Float[np.ndarray, "*n 3"],
    rest_main: Float[np.ndarray, "3"],
    rest_second: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "*n 3 3"]:
    """The turn that takes one direction at rest exactly to `main`, and another as near to `second` as can be."""
    return axes_of(main, second) @ axes_of(rest_main, rest_second).T


def turn_onto(start: Float[np.ndarray, "*n 3"], end: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """The shortest turn from one direction to another; none where they are opposite, or one is zero."""
    a, b = unit(start), unit(end)
    x, y, z = np.moveaxis(cross(a, b), -1, 0)
    cosine = (a * b).sum(-1)
    none = (cosine < -0.99999) | ~(a.any(-1) & b.any(-1))
    zero = np.zeros_like(x)
    skew = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), axis=-1).reshape(*x.shape, 3, 3)
    turn = np.eye(3) + skew + skew @ skew / np.where(none, 1, 1 + cosine)[..., None, None]
    return np.where(none[..., None, None], np.eye(3), turn)


def aimed(
    turn_T33: Float[np.ndarray, "T 3 3"], rest_bone: Float[np.ndarray, "3"], bone_T3: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, "T 3 3"]:
    """A turn and then the shortest one that makes it take a bone at rest to where that bone points."""
    return turn_onto(turn_T33 @ rest_bone, bone_T3) @ turn_T33


def bone_of(joint: str, place: Places) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "T 3"]] | None:
    """The bone from a joint to the next one that is there: at SMPL's rest, and as it points; None without one."""
    following = next((each for each in NEXT.get(joint, ()) if each in place), "")
    if not following or joint not in place:
        return None
    bone_T3 = place[following] - place[joint]
    if np.abs(bone_T3).max() < 1e-6:
        return None
    return rest_places()[following] - rest_places()[joint], bone_T3


def hips_line(place: Mapping[str, Float[np.ndarray, "*n 3"]]) -> Float[np.ndarray, "*n 3"]:
    """From the right hip to the left one."""
    return place["left_hip"] - place["right_hip"]


def shoulders_line(place: Mapping[str, Float[np.ndarray, "*n 3"]]) -> Float[np.ndarray, "*n 3"]:
    """From the right shoulder to the left one."""
    return place["left_shoulder"] - place["right_shoulder"]


def body_frames(place: Places) -> Turns:
    """Turns (T, 3, 3) of every joint of SMPL, of the joints' places alone.

    Trunk: pelvis by the hips and the neck above them, chest by the shoulders and the neck. Limbs: along the bone, and
    about it by the normal of the plane in which knee or elbow bends; where it is straight, by the shortest turn from
    the trunk. The head looks where the chest does, its crown above it; hands and toes go on as forearms and feet.
    """
    line, across = unit(hips_line(place)), unit(shoulders_line(place))
    up = place["neck"] - place["pelvis"]
    turns: Turns = {"pelvis": turned_to(line, up, X, Y)}
    chest_up = place["neck"] - place.get("spine3", place["pelvis"])
    rest = rest_places()
    for joint, beside in (("spine1", line), ("spine2", unit(line + across))):
        bone = bone_of(joint, place)
        turns[joint] = turned_to(bone[1], beside, bone[0], X) if bone else turns["pelvis"]
    rest_up = rest["neck"] - rest["spine3"] if "spine3" in place else Y
    turns["spine3"] = turned_to(across, chest_up, X, rest_up)
    for joint in ("neck", "left_collar", "right_collar"):
        bone = bone_of(joint, place)
        turns[joint] = aimed(turns["spine3"], *bone) if bone else turns["spine3"]
    turns["head"] = turns["spine3"]
    if CROWN in place:
        turns["head"] = turned_to(place[CROWN] - place["head"], across, Y, X)
    for side, hinge in (("left", -Y), ("right", Y)):
        limb(turns, place, side, ("hip", "knee", "ankle"), turns["pelvis"], X)
        limb(turns, place, side, ("shoulder", "elbow", "wrist"), turns[f"{side}_collar"], hinge)
        foot, hand = bone_of(f"{side}_ankle", place), bone_of(f"{side}_wrist", place)
        knee, elbow = turns[f"{side}_knee"], turns[f"{side}_elbow"]
        turns[f"{side}_ankle"] = turned_to(foot[1], knee @ X, foot[0], X) if foot else knee
        turns[f"{side}_wrist"] = aimed(elbow, *hand) if hand else elbow
        turns[f"{side}_foot"], turns[f"{side}_hand"] = turns[f"{side}_ankle"], turns[f"{side}_wrist"]
    return turns


def limb(
    turns: Turns,
    place: Places,
    side: str,
    parts: tuple[str, str, str],
    trunk_T33: Float[np.ndarray, "T 3 3"],
    hinge: Float[np.ndarray, "3"],
) -> None:
    """Add the turns of a limb's two long bones; `hinge` is the axis at rest about which the second bends."""
    first, middle, last = (f"{side}_{part}" for part in parts)
    upper = bone_of(first, place)
    lower = bone_of(middle, place)
    assert upper
    still = aimed(trunk_T33, *upper) @ hinge
    second = still
    if lower:
        normal = cross(unit(upper[1]), unit(lower[1]))
        seen = np.clip((np.sqrt((normal * normal).sum(-1, keepdims=True)) - STRAIGHT) / (BENT - STRAIGHT), 0, 1)
        second = seen * unit(normal) + (1 - seen) * still
        # An elbow that bends the other way round for a moment would turn the arm by half a circle.
        second = np.where((second * second).sum(-1, keepdims=True) < 1e-4, still, second)
    turns[first] = turned_to(upper[1], second, upper[0], hinge)
    turns[middle] = turned_to(lower[1], second, lower[0], hinge) if lower else turns[first]


def bends(place: Places) -> dict[str, Float[np.ndarray, " T"]]:
    """How far a joint's frame can be trusted in each frame, 0 to 1, where that is not always alike.

    The long bones' by how well their hinge is seen; the trunk's by how straight the body stands, because a bowed back
    says nothing about the pelvis.
    """
    weight: dict[str, np.ndarray] = {}
    for side in ("left", "right"):
        for parts in (("hip", "knee"), ("shoulder", "elbow")):
            bones = [bone_of(f"{side}_{part}", place) for part in parts]
            if bones[0] and bones[1]:
                sine = np.linalg.norm(cross(unit(bones[0][1]), unit(bones[1][1])), axis=-1)
                seen = np.clip((sine - STRAIGHT) / (BENT - STRAIGHT), 0, 1)
                weight |= {f"{side}_{part}": seen for part in parts}
    thighs = place["left_hip"] + place["right_hip"] - place["left_knee"] - place["right_knee"]
    straight = (unit(thighs) * unit(place["neck"] - place["pelvis"])).sum(-1)
    upright = np.clip(straight, 0, 1) ** 8
    return weight | dict.fromkeys(("pelvis", "spine1", "spine2", "spine3"), upright)


def placed(turns: Turns, root_T3: Float[np.ndarray, "T 3"]) -> dict[str, Float[np.ndarray, "T 3"]]:
    """Places (T, 3) of SMPL's joints from the pelvis's and all turns."""
    rest, place = rest_places(), {"pelvis": root_T3}
    for joint, name in enumerate(JOINTS[1:], start=1):
        parent = JOINTS[PARENTS[joint]]
        place[name] = place[parent] + turns[parent] @ (rest[name] - rest[parent])
    return place
