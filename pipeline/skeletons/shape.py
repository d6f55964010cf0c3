"""Whose joint is whose, by the shape of the tree: two like legs, two like arms, a trunk; and which side is left."""

# T frames, J joints

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.skeletons.frames import Places, cross, hips_line, unit
from mclip.pipeline.skeletons.names import above, spine_of

Limbs = tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]  # two legs and two arms
ALIKE = 0.15  # difference of a left and a right limb's length: stretched and captured skeletons are not quite even
LEG_TO_ARM = (1.05, 2.5)  # hip to ankle against shoulder to wrist; 1.6 in people


def joints_by_shape(parents: Sequence[int], place_TJ3: Float[np.ndarray, "T J 3"]) -> dict[str, int]:
    """SMPL joint -> joint of the file, from its tree and bone lengths alone; {} where there is no body in it.

    Left and right are by where toes and knees point.
    """
    children: list[list[int]] = [[] for _ in parents]
    length_J = np.zeros(len(parents))
    for joint, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(joint)
            length_J[joint] = np.linalg.norm(place_TJ3[:, joint] - place_TJ3[:, parent], axis=-1).mean()
    longest = longest_ways(parents, children, length_J)
    pairs = [pair for node in range(len(parents)) for pair in even_pairs(children[node], longest, length_J)]
    bodies = [(legs, arms) for legs in pairs for arms in pairs if are_legs_and_arms(legs, arms, parents, length_J)]
    best = max(
        bodies,
        key=lambda both: sum(length_J[j] for limb in both[0] for j in limb) + sum(length_J[j] for j in both[1][0]),
        default=None,
    )
    if best is None:
        return {}
    if any(are_apart(best, other, parents) for other in bodies):
        raise MotionError("two bodies in it, by the tree's shape; export one of them")
    return body_of(*best, parents, longest, children)


def longest_ways(parents: Sequence[int], children: list[list[int]], length_J: np.ndarray) -> list[list[int]]:
    """From every joint the longest way down to a leaf, itself first."""
    ways: list[list[int]] = [[joint] for joint in range(len(parents))]
    far = np.zeros(len(parents))
    for joint in reversed(range(len(parents))):
        if children[joint]:
            below = max(children[joint], key=lambda child: far[child] + length_J[child])
            far[joint], ways[joint] = far[below] + length_J[below], [joint, *ways[below]]
    return ways


def even_pairs(
    children: list[int], longest: list[list[int]], length_J: np.ndarray
) -> list[tuple[list[int], list[int]]]:
    """Like limbs below a joint that are alike, each as the joints from the one that begins its two longest bones."""
    limbs = [limb for child in children if (limb := long_bones(longest[child], length_J))]
    return [
        (a, b)
        for a, b in itertools.combinations(limbs, 2)
        if abs(reach(a, length_J) - reach(b, length_J)) < ALIKE * max(reach(a, length_J), reach(b, length_J))
    ]


def long_bones(way: list[int], length_J: np.ndarray) -> list[int]:
    """A way down from the joint (hip, shoulder) whose two following bones are together the longest; [] without two."""
    tops = range(len(way) - 2)
    top = max(tops, key=lambda k: min(length_J[way[k + 1]], length_J[way[k + 2]]), default=None)
    return [] if top is None or not length_J[way[top + 2]] > 0 else way[top:]


def reach(limb: list[int], length_J: np.ndarray) -> float:
    """Length of a limb's two long bones."""
    return float(length_J[limb[1]] + length_J[limb[2]])


def are_legs_and_arms(
    legs: tuple[list[int], list[int]], arms: tuple[list[int], list[int]], parents: Sequence[int], length_J: np.ndarray
) -> bool:
    """Whether the arms hang at a joint that the legs' joint bears, on no leg, and are the shorter pair."""
    pelvis, chest = (meeting_of(pair, parents) for pair in (legs, arms))
    # Some rigs hang the pelvis with the legs beside the spine, both at a joint of their own.
    bears = pelvis in above(chest, parents) or parents[pelvis] in above(chest, parents)
    on_a_leg = any(leg[0] == chest or leg[0] in above(chest, parents) for leg in legs)
    least, most = LEG_TO_ARM
    return bears and not on_a_leg and least < reach(legs[0], length_J) / reach(arms[0], length_J) < most


def are_apart(one: Limbs, other: Limbs, parents: Sequence[int]) -> bool:
    """Whether two bodies share no limb, and neither's pelvis lies below the other's."""
    joints, others = ({joint for pair in body for limb in pair for joint in limb} for body in (one, other))
    a, b = meeting_of(one[0], parents), meeting_of(other[0], parents)
    return not joints & others and a != b and a not in above(b, parents) and b not in above(a, parents)


def meeting_of(pair: tuple[list[int], list[int]], parents: Sequence[int]) -> int:
    """The joint that two limbs hang at."""
    other = above(pair[1][0], parents)
    return next(joint for joint in above(pair[0][0], parents) if joint in other)


def body_of(
    legs: tuple[list[int], list[int]],
    arms: tuple[list[int], list[int]],
    parents: Sequence[int],
    longest: list[list[int]],
    children: list[list[int]],
) -> dict[str, int]:
    """SMPL's joints of two legs and two arms; which is left is decided by `exchanged` afterwards."""
    pelvis, chest = (meeting_of(pair, parents) for pair in (legs, arms))
    found = {"pelvis": pelvis} | spine_of(pelvis, chest, parents)
    for side, leg, arm in zip(("left", "right"), legs, arms, strict=True):
        found |= dict(zip((f"{side}_hip", f"{side}_knee", f"{side}_ankle", f"{side}_foot"), leg, strict=False))
        found |= dict(zip((f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"), arm, strict=False))
        if parents[arm[0]] != chest:
            found[f"{side}_collar"] = parents[arm[0]]
    lines = [above(arm[0], parents) + [arm[0]] for arm in arms]
    heads = [child for child in children[chest] if not any(child in line for line in lines)]
    if heads:
        way = longest[max(heads, key=lambda child: len(longest[child]))]
        found |= dict(zip(("neck", "head"), way, strict=False))
    return found


def exchanged(place: Places) -> bool:
    """Whether what is called left lies on the body's right, by where toes and bent knees point.

    Forward cross down is left: of a body whose names are right, (toes x shin) and a bent knee's (thigh x shin) lie
    along the line from the right hip to the left one.
    """
    line = unit(hips_line(place))
    toes, knees = [], []
    for side in ("left", "right"):
        hip, knee, ankle = (place[f"{side}_{part}"] for part in ("hip", "knee", "ankle"))
        knees.append((cross(unit(knee - hip), unit(ankle - knee)) * line).sum(-1).mean())
        if f"{side}_foot" in place:
            shin, foot = unit(ankle - knee), unit(place[f"{side}_foot"] - ankle)
            toes.append((cross(foot, shin) * line).sum(-1).mean())
    bend = float(np.mean(knees))
    return float(np.mean(toes)) < -0.3 and bend < 0.3 if toes else bend < -0.15


def swapped(joints: Mapping[str, int]) -> dict[str, int]:
    """The same joints with left and right exchanged."""
    sides = {"left": "right", "right": "left"}
    return {
        "_".join((sides.get(side, side), *rest)): joint
        for name, joint in joints.items()
        for side, *rest in [name.split("_")]
    }
