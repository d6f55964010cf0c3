"""A motion on SMPL's joints -> the world rotations of somebody's rig, by what each of its joints does from its rest."""

# T frames, K nodes of the rig, P points of the skin

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.skeletons.check import BONES, STANCE, lowest_points, require_agreement, surface_points
from mclip.pipeline.skeletons.check import bone_degrees as rest_degrees
from mclip.pipeline.skeletons.frames import NEXT, Turns, aimed, hips_line, turn_onto, unit
from mclip.pipeline.skeletons.joints import Tree, Understood, at
from mclip.pipeline.skeletons.names import above
from mclip.pipeline.skeletons.solve import UPS, Moving, Solved, solve

Places = Mapping[str, Float[np.ndarray, "T 3"]]
Points = Mapping[str, Float[np.ndarray, "P 3"]]


@dataclass(frozen=True)
class Rig:
    """A skeleton at rest, in its own world and unit, and SMPL solved in that one pose."""

    tree: Tree
    found: Understood
    place_K3: Float[np.ndarray, "K 3"]
    turn_K33: Float[np.ndarray, "K 3 3"]
    solved: Solved

    @property
    def rest(self) -> dict[str, Float[np.ndarray, "3"]]:
        """Places of the joints at rest, z up, as large as SMPL's body."""
        return {name: place[0] for name, place in self.solved.target.items()}

    def from_world(self, vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Vectors of the world (z up, scaled to SMPL's legs) in the rig's own axes and unit."""
        return vectors @ UPS[self.solved.up] / self.solved.metres


def rig_of(
    tree: Tree,
    found: Understood,
    place_K3: Float[np.ndarray, "K 3"],
    turn_K33: Float[np.ndarray, "K 3 3"],
    *,
    up: str = "",
) -> Rig:
    """A rig by its pose at rest; MotionError where that is none of a body."""
    slots = found.places
    place = at(place_K3[None], slots)
    still = {name: np.eye(3)[None] for name in found.joints}
    solved = solve(Moving(place, still, {name: each[0] for name, each in place.items()}), up=up)
    require_agreement(rest_degrees(solved))
    mirrored = [tree.names[joint] for joint in found.joints.values() if np.linalg.det(turn_K33[joint]) < 0]
    if mirrored:
        raise MotionError(f"{mirrored[0]} is mirrored by a negative scale: apply the rig's scales, and export it again")
    return Rig(tree, found, place_K3, turn_K33, solved)


@dataclass(frozen=True)
class Carried:
    """A motion on a rig: what each joint does from rest, and its places, z up, scaled to SMPL's legs."""

    turn: Turns
    place: Places
    degrees: float  # the worst bone's, as a mean over all frames, from the motion's own


def carry(rig: Rig, turns: Turns, place: Places, points: Points | None = None) -> Carried:
    """The motion of SMPL's `turns` and `place`s (z up, metres) on a rig.

    Each bone of the rig points where the motion's does, turned about itself as from the one rest pose to the other;
    the middle of the hips goes the motion's way, and the rig is lifted so that it stands where the motion's body does.
    `points` are of the rig's skin, from its joints at rest; else SMPL's own are taken.
    """
    rest, rested = rig.rest, rig.solved.turns
    if "neck" not in rig.found.places:
        place = {**place, "neck": place["head"]}
    moved: Turns = {}
    for name in JOINTS:
        if name in rig.found.joints:
            turn = turns[name] @ rested[name][0].T
            bone = bone_of(name, rest, place)
            moved[name] = aimed(turn, *bone) if bone else turn
    lean(moved, rig, place)
    middle = (rest["left_hip"] + rest["right_hip"]) / 2 - rest["pelvis"]
    root_T3 = (place["left_hip"] + place["right_hip"]) / 2 - moved["pelvis"] @ middle
    if points is None:
        points = {name: each @ rested[name][0].T for name, each in surface_points().items() if name in moved}
    made = placed(rig, moved, root_T3)
    lift = stance(turns, place, surface_points()) - stance(moved, made, points)
    return Carried(moved, {name: each + [0, 0, lift] for name, each in made.items()}, bone_degrees(made, place))


def bone_of(joint: str, rest: Mapping[str, np.ndarray], place: Places) -> tuple[np.ndarray, np.ndarray] | None:
    """A joint's bone of the rig at rest, and as the motion's points; the pelvis's is the line of the hips."""
    if joint == "pelvis":
        return hips_line(rest), hips_line(place)
    following = next((each for each in NEXT.get(joint, ()) if each in rest), "")
    return (rest[following] - rest[joint], place[following] - place[joint]) if following else None


def trunk(rig: Rig) -> list[str]:
    """The rig's joints from the pelvis up to the neck, or to the head of one without."""
    nodes = rig.found.places
    top = "neck" if "neck" in nodes else "head"
    ours = {node: name for name, node in nodes.items()}
    return [ours[node] for node in (*above(nodes[top], rig.tree.parents)[::-1], nodes[top]) if node in ours]


def lean(moved: Turns, rig: Rig, place: Places) -> None:
    """Turn the rig's spine as a whole so that its neck lies from its pelvis where the motion's does.

    As `solve.lean` does it for SMPL's: |towards * far - below| = |spine| gives how far the neck is.
    """
    chain, rest = trunk(rig), rig.rest
    if len(chain) < 3 or chain[0] != "pelvis":
        return
    bones = [moved[a] @ (rest[b] - rest[a]) for a, b in itertools.pairwise(chain)]
    below, spine = bones[0], sum(bones[1:], np.zeros(3))
    towards = unit(place[chain[-1]] - place["pelvis"])
    along = (towards * below).sum(-1)
    far = along + np.sqrt(np.maximum(along**2 - (below * below).sum(-1) + (spine * spine).sum(-1), 0))
    turn = turn_onto(spine, towards * far[:, None] - below)
    for name in chain[1:-1]:
        moved[name] = turn @ moved[name]


def placed(rig: Rig, moved: Turns, root_T3: Float[np.ndarray, "T 3"]) -> dict[str, Float[np.ndarray, "T 3"]]:
    """Places of the rig's joints from its pelvis's and all turns from rest."""
    nodes, rest = rig.found.places, rig.rest
    ours = {node: name for name, node in rig.found.joints.items()}
    found = {"pelvis": root_T3}
    for name in sorted(nodes, key=lambda each: len(above(nodes[each], rig.tree.parents))):
        parent = next((ours[node] for node in above(nodes[name], rig.tree.parents) if node in ours), "")
        if parent:
            found[name] = found[parent] + moved[parent] @ (rest[name] - rest[parent])
    if "neck" not in found:
        found["neck"] = found["head"]
    return found


def stance(turns: Turns, place: Places, points: Points) -> float:
    """Height in metres of the floor under a body: what its lowest point is in all but few frames."""
    return float(np.percentile(lowest_points(turns, place, points), STANCE))


def bone_degrees(made: Places, place: Places) -> float:
    """The greatest mean angle in degrees between a bone of the rig and the motion's."""
    worst = 0.0
    for start, end in BONES:
        # The line of the shoulders is no bone: it is another where collars have other lengths.
        if start in made and end in made and (start, end) != ("right_shoulder", "left_shoulder"):
            ours, theirs = (unit(each[end] - each[start]) for each in (made, place))
            chord = np.linalg.norm(theirs - ours, axis=-1).clip(0, 2)
            worst = max(worst, float(np.degrees(2 * np.arcsin(chord / 2)).mean()))
    return worst


def world_turns(rig: Rig, moved: Turns) -> dict[int, np.ndarray]:
    """World rotations (T, 3, 3), in the rig's own world, of the moved nodes; (1, 3, 3) of still ones above them."""
    up, ours = UPS[rig.solved.up], {node: name for name, node in rig.found.joints.items()}
    needed = set(ours).union(*(above(node, rig.tree.parents) for node in ours))
    world: dict[int, np.ndarray] = {}
    for node in sorted(needed):
        parent = rig.tree.parents[node]
        if node in ours:
            world[node] = up.T @ moved[ours[node]] @ up @ rig.turn_K33[node]
        elif parent in world:
            world[node] = world[parent] @ rig.turn_K33[parent].T @ rig.turn_K33[node]
        else:
            world[node] = rig.turn_K33[node][None]
    return world


def local_turns(rig: Rig, moved: Turns) -> dict[int, Float[np.ndarray, "T 3 3"]]:
    """Local rotations (T, 3, 3) of the nodes that are moved, each in its parent's axes."""
    world, parents = world_turns(rig, moved), rig.tree.parents
    locals_ = {}
    for node in rig.found.joints.values():
        parent = world[parents[node]] if parents[node] >= 0 else np.eye(3)[None]
        locals_[node] = parent.swapaxes(-1, -2) @ world[node]
    return locals_
