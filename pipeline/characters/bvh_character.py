"""A motion written onto the skeleton of somebody's BVH: its hierarchy as it stands, and other numbers behind it."""

# T frames, J joints, C channels

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mclip.pipeline.characters.carry import Carried, Rig, carry, local_turns, rig_of
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.skeletons.bvh_text import MOTION, POSITION, ROTATION, Bvh, plain_text, read_bvh
from mclip.pipeline.skeletons.check import bone_degrees, require_agreement
from mclip.pipeline.skeletons.frames import Turns
from mclip.pipeline.skeletons.joints import Understood, understand
from mclip.pipeline.skeletons.kinematics import moving_of, seen_places, tree_of, world_of
from mclip.pipeline.skeletons.names import above
from mclip.pipeline.skeletons.solve import solve, standing_rest, upright_axis


def on_bvh(
    content: bytes,
    turns: Turns,
    place: Mapping[str, Float[np.ndarray, "T 3"]],
    *,
    fps: float,
    joint_map: Mapping[str, str],
) -> tuple[bytes, Rig, Carried]:
    """The BVH with the motion in place of its own; joints that are not SMPL's stay as at rest. MotionError.

    Rest is where no joint is turned, or the first frame where that is none of a standing body.
    """
    bvh = read_bvh(content)
    found = understand(tree_of(bvh), seen_places(bvh), joint_map)
    still, rig = rig_in(bvh, found)
    carried = carry(rig, turns, place)
    values_TC = np.repeat(still.values_TC, len(carried.place["pelvis"]), axis=0)
    for joint, turn in local_turns(rig, carried.turn).items():
        channels, order = rotations_of(bvh, joint)
        values_TC[:, channels] = euler_degrees(turn, order)
    root, channels = root_of(bvh, found.joints["pelvis"])
    parent = bvh.parents_J[root]
    to_parent = rig.turn_K33[parent] if parent >= 0 else np.eye(3)
    moved_T3 = rig.from_world(carried.place["pelvis"]) - rig.place_K3[found.joints["pelvis"]]
    values_TC[:, channels] += (moved_T3 @ to_parent)[:, bvh.axis_C[channels]]
    return bvh_bytes(content, values_TC, fps=fps), rig, carried


def rig_in(bvh: Bvh, found: Understood) -> tuple[Bvh, Rig]:
    """The file with the one frame that is its rest, and the rig in it.

    Joints' axes are told by a rest pose that stands, else by the file's own motion. The world's up is that of its
    motion: a rest pose may have another.
    """
    tree, joints, moving = tree_of(bvh), np.arange(len(bvh.names)), moving_of(bvh, found)
    if standing_rest(moving.rest) is not None:
        still = replace(bvh, values_TC=np.where(bvh.kind_C == POSITION, bvh.values_TC.mean(0), 0.0)[None])
        world = world_of(still, joints)
        up, _ = upright_axis(moving)
        return still, rig_of(tree, found, world.place_TW3[0], world.turn_TW33[0], up=up)
    still, solved = replace(bvh, values_TC=bvh.values_TC[:1]), solve(moving)
    require_agreement(bone_degrees(solved))
    turns, target = ({name: each[:1] for name, each in part.items()} for part in (solved.turns, solved.target))
    first = replace(solved, turns=turns, root_T3=solved.root_T3[:1], target=target)
    world = world_of(still, joints)
    return still, Rig(tree, found, world.place_TW3[0], world.turn_TW33[0], first)


def rotations_of(bvh: Bvh, joint: int) -> tuple[list[int], str]:
    """A joint's three channels of rotation, and their axes in order ("ZXY"); MotionError where there are others."""
    channels = [c for c in range(bvh.first_J[joint], bvh.first_J[joint + 1]) if bvh.kind_C[c] == ROTATION]
    order = "".join("XYZ"[axis] for axis in bvh.axis_C[channels])
    if sorted(order) != ["X", "Y", "Z"]:
        raise MotionError(f"{bvh.names[joint]} turns about {order or 'no axis'}: expected three rotation channels")
    return channels, order


def euler_degrees(turn_T33: Float[np.ndarray, "T 3 3"], order: str) -> Float[np.ndarray, "T 3"]:
    """Angles in degrees about a joint's own axes, without jumps of a whole turn between frames."""
    from pybvh.rotations import rotmat_to_euler

    return np.degrees(np.unwrap(rotmat_to_euler(turn_T33, order), axis=0))


def root_of(bvh: Bvh, pelvis: int) -> tuple[int, list[int]]:
    """The joint whose position moves the pelvis, and its three channels; MotionError where none has any."""
    for joint in (pelvis, *above(pelvis, bvh.parents_J.tolist())):
        channels = [c for c in range(bvh.first_J[joint], bvh.first_J[joint + 1]) if bvh.kind_C[c] == POSITION]
        if len(channels) == 3:
            return joint, channels
    raise MotionError(f"neither {bvh.names[pelvis]} nor a joint above it has three position channels: nothing can walk")


def bvh_bytes(content: bytes, values_TC: Float[np.ndarray, "T C"], *, fps: float) -> bytes:
    """A BVH file's bytes with other numbers."""
    text = plain_text(content)
    motion = MOTION.search(text)
    assert motion
    rows = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in values_TC.tolist())
    told = f"MOTION\nFrames: {len(values_TC)}\nFrame Time: {1 / fps:.9g}\n{rows}\n"
    return bytes(text[: motion.start()]) + told.encode()
