"""Which joint of a file is which of SMPL's: by a map, by names, or by the tree's shape; and what cannot be a body."""

# T frames, J joints of the file

import functools
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mclip.pipeline.files.documents import read_text
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.skeletons.frames import CROWN, Places, shoulders_line, unit
from mclip.pipeline.skeletons.names import ANIMALS, above, joints_by_name, skeleton_name, words_of
from mclip.pipeline.skeletons.shape import exchanged, joints_by_shape, swapped
from mclip.pipeline.skeletons.solve import UPS

LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow")
SIDES = ("left", "right")
NEEDED = {"pelvis", *(f"{side}_{part}" for side in SIDES for part in LIMBS)}
ARM = ("collar", "shoulder", "elbow", "wrist")
SHOWN = 60  # names in a refusal
UP = "up"  # the line of a map that is no joint: the file's axis that points up
RIGID = 0.005  # of its length that a bone may change by; the way from a still hip to the knee changes by 2 % and more


@dataclass(frozen=True)
class Tree:
    """A file's joints: names, parents (-1 for a root) and which are only the ends of bones."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    ends: tuple[bool, ...]


@dataclass(frozen=True)
class Understood:
    """SMPL joint -> joint of the file, and how that was found."""

    joints: Mapping[str, int]
    ends: Mapping[str, int]  # the same of joints that have a place and no rotation: the ends of bones
    how: str  # "names", "shape", "map", or "names and map"
    skeleton: str
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> dict[str, int]:
        """All that have a place: joints and ends."""
        return {**self.joints, **self.ends}


def understand(
    tree: Tree, place_TJ3: Float[np.ndarray, "T J 3"], mapped: Mapping[str, str] | None = None
) -> Understood:
    """Whose joint is whose, from names, tree and places of some frames. MotionError saying what is missing.

    `mapped` names joints of SMPL as the file calls them, and goes first.
    """
    given = joints_of_map(tree, mapped or {})
    named = given if NEEDED <= set(given) else joints_by_name(tree.names, tree.parents)
    named = with_neck(tree, bearing(tree, named, place_TJ3), place_TJ3) | given
    joints, how = named, "map" if given else "names"
    if missing_of(joints):
        joints = by_shape(tree, place_TJ3, named) | given
        how = "shape"
    if missing := missing_of(joints):
        refuse(tree, named, missing_of(named) or missing)
    ends = ends_of(tree, joints, place_TJ3)
    notes = []
    if exchanged(at(place_TJ3, joints | ends)) and not given:
        joints, ends = swapped(joints), swapped(ends)
        if how == "names":
            notes.append("left and right are exchanged in it: taken by where toes and knees point")
    require_human(tree, at(place_TJ3, joints | ends))
    return Understood(joints, ends, how, skeleton_name(tree.names), tuple(notes))


def bearing(tree: Tree, joints: Mapping[str, int], place_TJ3: Float[np.ndarray, "T J 3"]) -> dict[str, int]:
    """The joints with each limb's bones beginning where they do: a joint that only leads there is passed by.

    Files have hips that lie in the pelvis ("LeftUpLegJoint") above those that turn. A bone does not change its length:
    the first joint on the way down whose distance to the bone's end is constant is where it begins.
    """
    found = dict(joints)
    for side, (start, end) in itertools.product(SIDES, (("hip", "knee"), ("shoulder", "elbow"))):
        first, last = joints.get(f"{side}_{start}"), joints.get(f"{side}_{end}")
        if first is None or last is None:
            continue
        way = [first, *(joint for joint in above(last, tree.parents)[::-1] if first in above(joint, tree.parents))]
        length_TW = np.linalg.norm(place_TJ3[:, way] - place_TJ3[:, [last]], axis=-1)
        rigid = length_TW.std(0) <= RIGID * length_TW.mean(0)
        found[f"{side}_{start}"] = way[int(rigid.argmax())]
    return found


def with_neck(tree: Tree, joints: dict[str, int], place_TJ3: Float[np.ndarray, "T J 3"]) -> dict[str, int]:
    """The joints with a neck and head where no name tells them: what goes on from the chest as the trunk does."""
    if {"neck", "head"} & set(joints) or "spine3" not in joints or missing_of(joints) != ["neck"]:
        return joints
    chest = joints["spine3"]
    arms = {a for side in SIDES for j in [joints[f"{side}_shoulder"]] for a in (j, *above(j, tree.parents))}
    trunk = unit(place_TJ3[:, chest] - place_TJ3[:, joints["pelvis"]])

    def next_of(joint: int) -> int | None:
        straight = {
            child: float(np.median((unit(place_TJ3[:, child] - place_TJ3[:, joint]) * trunk).sum(-1)))
            for child, parent in enumerate(tree.parents)
            if parent == joint and child not in arms and not tree.ends[child]
        }
        best = max(straight, key=lambda child: straight[child], default=None)
        return best if best is not None and straight[best] > 0.7 else None

    neck = next_of(chest)
    head = neck if neck is None else next_of(neck)
    return joints | {name: joint for name, joint in (("neck", neck), ("head", head)) if joint is not None}


def missing_of(joints: Mapping[str, int]) -> list[str]:
    """Joints without which there is no body; a neck or a head is enough."""
    return sorted(NEEDED - set(joints)) + ([] if {"neck", "head"} & set(joints) else ["neck"])


def refuse(tree: Tree, named: Mapping[str, int], missing: Sequence[str]) -> None:
    """MotionError that tells what was not found, what was found instead, and the remedy."""
    real = [name for name, end in zip(tree.names, tree.ends, strict=True) if not end]
    more = f" and {len(real) - SHOWN} more" if len(real) > SHOWN else ""
    raise MotionError(
        f"no joint for {', '.join(missing)} among {', '.join(real[:SHOWN])}{more}; {len(named)} of SMPL's "
        f"{len(JOINTS)} are found. `mclip skeleton FILE --write-map map.toml` shows them and writes a map for --map"
    )


@functools.lru_cache(maxsize=8)
def read_map(path: str) -> dict[str, str]:
    """SMPL joint -> joint of the file, and maybe its up, from a .toml of `left_hip = "THEIR NAME"`; {} of no path.

    ValueError where it is no such file.
    """
    if not path:
        return {}
    try:
        found = tomllib.loads(read_text(Path(path)))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f'{path}: no TOML ({error}): expected lines as left_hip = "LeftUpLeg"') from error
    if unknown := sorted(name for name in found if name not in (*JOINTS, UP)):
        raise ValueError(f"{path}: {', '.join(unknown)}: no joint of SMPL; expected {UP}, {', '.join(JOINTS)}")
    if odd := [name for name, theirs in found.items() if not isinstance(theirs, str)]:
        raise ValueError(f'{path}: {odd[0]}: expected a name in quotes, as left_hip = "LeftUpLeg"')
    if found.get(UP, "y") not in UPS:
        raise ValueError(f"{path}: {UP} is {found[UP]!r}: expected {', '.join(UPS)}")
    return found


def map_text(tree: Tree, joints: Mapping[str, int]) -> str:
    """A map to edit: what was found, what was not as comments, and the names to choose from."""
    lines = [
        "# SMPL's joint = the file's; for --map. Joints that are not named are found by name or shape.",
        f'# {UP} = "y"',
    ]
    for name in JOINTS:
        known = name in joints
        theirs = json.dumps(tree.names[joints[name]] if known else "", ensure_ascii=False)
        lines.append(f"{'' if known else '# '}{name} = {theirs}")
    names = (name for name, end in zip(tree.names, tree.ends, strict=True) if not end)
    return "\n".join([*lines, "", "# Joints of the file:", *(f"#   {name}" for name in names)]) + "\n"


def joints_of_map(tree: Tree, mapped: Mapping[str, str]) -> dict[str, int]:
    """A map's joints by their number; MotionError for a name that the file has not."""
    theirs = {joint: name for joint, name in mapped.items() if joint != UP}
    if unknown := sorted(set(theirs.values()) - set(tree.names)):
        raise MotionError(f"the map names {', '.join(unknown)}, and it has only {', '.join(tree.names[:SHOWN])}")
    return {joint: tree.names.index(name) for joint, name in theirs.items()}


def by_shape(tree: Tree, place_TJ3: Float[np.ndarray, "T J 3"], named: Mapping[str, int]) -> dict[str, int]:
    """The tree's joints by its shape, where that does not contradict the names; {} otherwise."""
    found = joints_by_shape(tree.parents, place_TJ3)
    sure = {name: joint for name, joint in named.items() if name in NEEDED}
    for shape in (found, swapped(found)):
        if found and all(shape.get(name) == joint for name, joint in sure.items()):
            return arms_beside_legs(shape, place_TJ3) if not sure else shape
    return {}


def arms_beside_legs(joints: dict[str, int], place_TJ3: Float[np.ndarray, "T J 3"]) -> dict[str, int]:
    """The same with the arm called left on the side of the left leg: a tree's shape does not say so."""
    line = place_TJ3[:, joints["left_hip"]] - place_TJ3[:, joints["right_hip"]]
    if np.median((unit(shoulders_line(at(place_TJ3, joints))) * unit(line)).sum(-1)) > 0:
        return joints
    arms = {
        name: joint for name, joint in joints.items() if name.split("_")[-1] in ("collar", "shoulder", "elbow", "wrist")
    }
    return joints | swapped(arms)


def ends_of(tree: Tree, joints: Mapping[str, int], place_TJ3: Float[np.ndarray, "T J 3"]) -> dict[str, int]:
    """Ends of bones that stand for joints that the file lacks: toes, wrists, the head of a neck; and a head's crown.

    A toe's end must lie across the shin: some files let the foot end at the sole or the heel.
    """
    found = {}
    limbs = [(f"{side}_{a}", f"{side}_{b}") for side in SIDES for a, b in (("foot", "ankle"), ("wrist", "elbow"))]
    for name, parent in (("head", "neck"), (CROWN, "head"), *limbs):
        below = [j for j, up in enumerate(tree.parents) if parent in joints and up == joints[parent] and tree.ends[j]]
        if name in joints or not below:
            continue
        bone = unit(place_TJ3[:, below[0]] - place_TJ3[:, joints[parent]])
        if name.endswith("foot"):
            knee = joints[parent.replace("ankle", "knee")]
            shin = unit(place_TJ3[:, joints[parent]] - place_TJ3[:, knee])
            if abs(np.median((bone * shin).sum(-1))) > 0.8:
                continue
        if bone.any():
            found[name] = below[0]
    return found


def at(place_TJ3: Float[np.ndarray, "T J 3"], joints: Mapping[str, int]) -> Places:
    """Places by SMPL's names; a skeleton without a neck has its head's instead."""
    place = {name: place_TJ3[:, joint] for name, joint in joints.items()}
    if "neck" not in place:
        place["neck"] = place["head"]
    return place


def require_human(tree: Tree, place: Places) -> None:
    """MotionError for a body that goes on four legs most of the time."""
    hind = unit(sum((place[f"{side}_ankle"] - place[f"{side}_hip"] for side in SIDES), np.zeros(3)))
    fore = unit(sum((place[f"{side}_elbow"] - place[f"{side}_shoulder"] for side in SIDES), np.zeros(3)))
    trunk = unit(place["neck"] - place["pelvis"])
    across, beside = np.median(np.abs((trunk * hind).sum(-1))) < 0.6, np.median((hind * fore).sum(-1)) > 0.5
    words = {word for name in tree.names for word in words_of(name)}
    animal = "tail" in words or words & ANIMALS or fore_reach(place) > 0.85
    if animal and across and beside:
        raise MotionError("a body on four legs: its trunk lies across its legs most of the time; expected a human")


def fore_reach(place: Places) -> float:
    """Length of the arms over that of the legs; 0.6 in people."""

    def length(*parts: str) -> float:
        return float(
            sum(
                np.linalg.norm(place[f"left_{b}"] - place[f"left_{a}"], axis=-1).mean()
                for a, b in zip(parts, parts[1:], strict=False)
            )
        )

    arm = ("shoulder", "elbow", "wrist") if "left_wrist" in place else ("shoulder", "elbow")
    return length(*arm) / length("hip", "knee", "ankle")


def told_tree(tree: Tree, understood: Understood | None) -> str:
    """The tree as text, a joint a line, with SMPL's name beside each joint that was understood."""
    ours = {joint: name for name, joint in {**understood.joints, **understood.ends}.items()} if understood else {}
    lines = []
    for joint, name in enumerate(tree.names):
        if tree.ends[joint] and joint not in ours:
            continue
        lines.append(
            f"{'  ' * len(above(joint, tree.parents))}{name}" + (f"  = {ours[joint]}" if joint in ours else "")
        )
    return "\n".join(lines)
