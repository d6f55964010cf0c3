"""Whose joint is whose, by name: side and part are found anywhere in it, in the words of many programs."""

import functools
import itertools
import re
from collections.abc import Mapping, Sequence

from mclip.pipeline.geometry.recording import MotionError

SIDES = {"left": "left", "lft": "left", "l": "left", "right": "right", "rgt": "right", "rt": "right", "r": "right"}
# What the joints of a limb are called from the trunk outwards, and how surely a word means that place. The same word
# means different joints in different programs ("LeftLeg" is Mixamo's shin and SOMA's thigh): the whole chain decides.
LEG = (
    {"upleg": 3, "upperleg": 3, "legupper": 3, "legup": 3, "thigh": 3, "femur": 3, "hip": 2, "leg": 1, "hipjoint": 1},
    {"lowerleg": 3, "lowleg": 3, "leglower": 3, "leglow": 3, "shin": 3, "calf": 3, "tibia": 3, "knee": 3, "leg": 2},
    {"ankle": 3, "foot": 2},
    {"toebase": 3, "toe": 3, "toes": 3, "ball": 3, "foot": 1},
)
ARM = (
    {"collar": 3, "clavicle": 3, "clav": 3, "scapula": 2, "shoulder": 2, "shldr": 1},
    {"upperarm": 3, "uparm": 3, "armupper": 3, "armup": 3, "humerus": 3, "shldr": 3, "arm": 2, "shoulder": 2},
    {"forearm": 3, "lowerarm": 3, "lowarm": 3, "armlower": 3, "armlow": 3, "radius": 3, "elbow": 3},
    {"wrist": 3, "hand": 2},
    {"handmiddle": 3, "middle": 3, "handindex": 2, "index": 2, "fingerbase": 2, "fingers": 2, "hand": 1},
)
LIMBS = {
    "leg": (LEG, ("hip", "knee", "ankle", "foot"), {"hip", "knee", "ankle"}),
    "arm": (ARM, ("collar", "shoulder", "elbow", "wrist", "hand"), {"shoulder", "elbow"}),
}
MIDDLE = {"pelvis": {"hips", "hip", "pelvis"}, "neck": {"neck", "lowerneck", "necklower"}, "head": {"head"}}
WORDS = {word for limb, _, _ in LIMBS.values() for words in limb for word in words} | set().union(*MIDDLE.values())
# Joints that bear a limb's name and are none of its bones.
BESIDE = set(
    "thumb ring pinky pinkie little twist roll ik pole ctrl target nub end site effector helper jaw eye tip aim goal "
    "palm carpal metacarpal tongue teeth breast hair skirt weapon prop part muscle".split()
)
ANIMALS = {"foreleg", "frontleg", "hindleg", "rearleg", "backleg", "paw", "hoof", "wing"}
# Skeletons by a name that only they have.
KNOWN = (
    ("Mixamo", r"mixamorig"),
    ("3ds Max Biped", r"Bip0"),
    ("VRM", r"J_Bip_"),
    ("Character Creator", r"CC_Base_"),
    ("SMPL", r"(m_avg_|^)(L_Hip|left_hip)$"),
    ("Rigify", r"DEF-"),
    ("Second Life", r"^mHipLeft$"),
    ("Azure Kinect", r"^(HIP_LEFT|SPINE_NAVAL)$"),
    ("Kinect", r"^HipLeft$"),
    ("ASF", r"^lfemur$"),
    ("Daz", r"^l(Shldr|ThighBend)"),
    ("CMU", r"^LHipJoint$"),
    ("SOMA", r"^LeftShin$"),
    ("Unreal", r"^thigh_l$"),
    ("Xsens", r"^(Chest4|L5)$"),
    ("Biovision", r"^(LeftHip|LeftUpArm|LeftLowLeg)$"),
    ("Mixamo's names", r"^LeftUpLeg$"),
)

Parents = Sequence[int]


def skeleton_name(names: Sequence[str]) -> str:
    """Which program's skeleton it looks like, or "other"."""
    return next((label for label, sign in KNOWN if any(re.search(sign, name) for name in names)), "other")


def words_of(name: str) -> list[str]:
    """A name's words in small letters, without namespace and numbers: "mixamorig:LeftUpLeg" is left, up, leg."""
    name = re.split(r"[:|]", name)[-1]
    return [word.lower() for word in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", name)]


@functools.lru_cache(maxsize=4096)
def side_and_part(name: str) -> tuple[str, str]:
    """Side ("left", "right" or "") and the known word of a joint's name ("" where it has none)."""
    words = [piece for word in words_of(name) for piece in unglued(word)]
    if BESIDE & set(words):
        return "", ""
    sides = {SIDES[word] for word in words if word in SIDES}
    parts = [word for word in words if word not in SIDES]
    runs = ("".join(parts[a:b]) for a, b in itertools.combinations(range(len(parts) + 1), 2))
    known = [run for run in runs if run in WORDS]
    return sides.pop() if len(sides) == 1 else "", max(known, key=len, default="")


def unglued(word: str) -> list[str]:
    """A word with a side written to it without a sign ("lfemur", "kneeleft") as two."""
    for side in ("left", "right", "l", "r"):
        for rest in (word.removeprefix(side), word.removesuffix(side)):
            if rest != word and rest in WORDS and word not in WORDS:
                return [side, rest]
    return [word]


@functools.lru_cache(maxsize=256)
def joints_by_name(names: tuple[str, ...], parents: tuple[int, ...]) -> dict[str, int]:
    """SMPL joint -> joint of the file, as far as names tell. MotionError for two bodies."""
    told = [side_and_part(name) for name in names]
    found: dict[str, int] = {}
    for side in ("left", "right"):
        for limb, parts, needed in LIMBS.values():
            chain = best_chain(limb, side, told, names, parents, needed=[part in needed for part in parts])
            found |= {f"{side}_{part}": joint for part, joint in zip(parts, chain, strict=False) if joint is not None}
    return found | trunk_of(found, told, parents)


def best_chain(
    limb: Sequence[Mapping[str, int]],
    side: str,
    told: Sequence[tuple[str, str]],
    names: Sequence[str],
    parents: Parents,
    *,
    needed: Sequence[bool],
) -> tuple[int | None, ...]:
    """The likeliest joints of a limb, each below the one before; () where needed ones are not there."""
    options: list[list[int | None]] = []
    for words, must in zip(limb, needed, strict=True):
        here: list[int | None] = [j for j, (its_side, word) in enumerate(told) if its_side == side and word in words]
        options.append(here[:12] if must else [*here[:12], None])
    chains = [chain for chain in itertools.product(*options) if is_chain(chain, parents)]

    def worth(chain: tuple[int | None, ...]) -> tuple[int, int]:
        real = [(words[told[j][1]], j) for words, j in zip(limb, chain, strict=True) if j is not None]
        return sum(each for each, _ in real), -sum(depth(j, parents) for _, j in real)

    best = max(chains, key=worth, default=())
    top = next((joint for joint in best if joint is not None), -1)
    if other := next((c for c in chains if apart(c, top, parents) and worth(c)[0] == worth(best)[0]), None):
        first = next(joint for joint in other if joint is not None)
        raise MotionError(
            f"two bodies in it, or one twice: {names[top]!r} and {names[first]!r} both begin a {side} limb; export one "
            "of them"
        )
    return best


def is_chain(chain: Sequence[int | None], parents: Parents) -> bool:
    """Whether each joint of it lies below the one before."""
    real = [joint for joint in chain if joint is not None]
    return all(a in above(b, parents) for a, b in itertools.pairwise(real))


def apart(chain: Sequence[int | None], top: int, parents: Parents) -> bool:
    """Whether a chain lies neither above nor below a joint."""
    first = next(joint for joint in chain if joint is not None)
    return first != top and top not in above(first, parents) and first not in above(top, parents)


def above(joint: int, parents: Parents) -> list[int]:
    """A joint's ancestors, its parent first."""
    found = []
    while (joint := parents[joint]) >= 0:
        found.append(joint)
    return found


def depth(joint: int, parents: Parents) -> int:
    """How many joints lie above it."""
    return len(above(joint, parents))


def meeting(joints: Sequence[int], parents: Parents) -> int | None:
    """The lowest joint that all of them lie below, or None."""
    lines = [set(above(joint, parents)) for joint in joints]
    common = set.intersection(*lines) if lines else set()
    return max(common, key=lambda joint: depth(joint, parents), default=None)


def trunk_of(found: Mapping[str, int], told: Sequence[tuple[str, str]], parents: Parents) -> dict[str, int]:
    """Pelvis, spine, neck and head, by where the limbs meet; names decide only between neck and head."""
    legs, arms = ([found[j] for j in found if j.endswith(ends)] for ends in (("hip", "knee"), ("shoulder", "elbow")))
    sides = {joint.split("_")[0] for joint in found if joint.endswith("_hip")}
    if len(sides) < 2 or not arms:
        return {}
    pelvis, chest = meeting(legs, parents), meeting(arms, parents)
    if pelvis is None or chest is None:
        return {}
    heads = [j for j, (side, word) in enumerate(told) if not side and word in MIDDLE["head"]]
    necks = [j for j, (side, word) in enumerate(told) if not side and word in MIDDLE["neck"]]
    below = [pelvis, *above(chest, parents), chest]
    trunk = {"pelvis": pelvis}
    if heads:
        trunk["head"] = heads[0]
        line = [
            j for j in [*reversed(above(heads[0], parents)), heads[0]] if j not in below and chest in above(j, parents)
        ]
        necks = [j for j in line if j in necks] or line[:1]
    if necks and necks[0] != trunk.get("head"):
        trunk["neck"] = necks[0]
    return trunk | spine_of(pelvis, chest, parents)


def spine_of(pelvis: int, chest: int, parents: Parents) -> dict[str, int]:
    """The spine's joints between pelvis and chest: the first, the middle one and the last."""
    if pelvis not in above(chest, parents):
        return {}
    line = [chest, *above(chest, parents)]
    chain = line[: line.index(pelvis)][::-1]
    if len(chain) < 3:
        return dict(zip(("spine1", "spine3"), chain, strict=False))
    return {"spine1": chain[0], "spine2": chain[len(chain) // 2], "spine3": chain[-1]}
