"""Where a file's joints are and how they are turned, frame by frame, by the file's own forward kinematics."""

# T frames, J joints, W wanted joints, C channels

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mclip.pipeline.machine.compiled import compiled
from mclip.pipeline.skeletons.bvh_text import POSITION, ROTATION, Bvh
from mclip.pipeline.skeletons.joints import Tree, Understood, at
from mclip.pipeline.skeletons.solve import Moving

SEEN = 64  # frames that are enough to know a skeleton by


@dataclass(frozen=True)
class World:
    """Places and turns of joints in the file's own world: a turn takes the joint's axes to the world's."""

    place_TW3: Float[np.ndarray, "T W 3"]
    turn_TW33: Float[np.ndarray, "T W 3 3"]


def world_of(bvh: Bvh, wanted_W: Int[np.ndarray, " W"], *, frames: slice = slice(None)) -> World:
    """Places (T, W, 3) and turns (T, W, 3, 3) of the wanted joints.

    A position channel stands for that number of the OFFSET, as programs write it that give all joints six channels;
    where a file's inner positions lie about zero and its OFFSETs do not, they are added to them.
    """
    slot_J = np.full(len(bvh.names), -1)
    slot_J[wanted_W] = np.arange(len(wanted_W))
    values_TC = bvh.values_TC[frames]
    place_TW3 = np.empty((len(values_TC), len(wanted_W), 3))
    turn_TW33 = np.empty((len(values_TC), len(wanted_W), 3, 3))
    place_joints(
        bvh.parents_J,
        bvh.offsets_J3,
        bvh.first_J,
        bvh.kind_C,
        bvh.axis_C,
        values_TC,
        added_to_offsets(bvh),
        slot_J,
        place_TW3,
        turn_TW33,
    )
    return World(place_TW3, turn_TW33)


def added_to_offsets(bvh: Bvh) -> bool:
    """Whether the positions of inner joints are displacements: far nearer to zero than to the joints' OFFSETs."""
    joint_C = np.searchsorted(bvh.first_J, np.arange(len(bvh.kind_C)), side="right") - 1
    inner_C = (bvh.kind_C == POSITION) & (bvh.parents_J[joint_C] >= 0)
    offset_C = bvh.offsets_J3[joint_C, bvh.axis_C][inner_C]
    found_TC = bvh.values_TC[:: seen_every(bvh)][:, inner_C]
    return bool(np.abs(found_TC).sum() < 0.25 * np.abs(found_TC - offset_C).sum())


@compiled
def place_joints(  # type: ignore[no-untyped-def]
    parents_J, offsets_J3, first_J, kind_C, axis_C, values_TC, added, slot_J, place_TW3, turn_TW33
):
    """Fill places and turns: Euler rotations about a joint's own axes one after the other, in the order of channels."""
    place_J3, turn_J33 = np.zeros((len(parents_J), 3)), np.zeros((len(parents_J), 3, 3))
    offset_3, still_33 = np.zeros(3), np.eye(3)
    for t in range(len(values_TC)):
        for j in range(len(parents_J)):
            parent = parents_J[j]
            turn_33 = turn_J33[j]
            for row in range(3):
                offset_3[row] = offsets_J3[j, row]
                for column in range(3):
                    turn_33[row, column] = turn_J33[parent, row, column] if parent >= 0 else still_33[row, column]
            for c in range(first_J[j], first_J[j + 1]):
                axis = axis_C[c]
                if kind_C[c] == POSITION:
                    keep = offset_3[axis] if added and parent >= 0 else 0.0
                    offset_3[axis] = keep + values_TC[t, c]
                elif kind_C[c] == ROTATION:
                    angle = math.radians(values_TC[t, c])
                    cosine, sine = math.cos(angle), math.sin(angle)
                    second, third = (axis + 1) % 3, (axis + 2) % 3
                    for row in range(3):
                        y, z = turn_33[row, second], turn_33[row, third]
                        turn_33[row, second] = cosine * y + sine * z
                        turn_33[row, third] = cosine * z - sine * y
            for row in range(3):
                place_J3[j, row] = offset_3[row]
                if parent >= 0:
                    place_J3[j, row] = place_J3[parent, row]
                    for column in range(3):
                        place_J3[j, row] += turn_J33[parent, row, column] * offset_3[column]
            if slot_J[j] >= 0:
                place_TW3[t, slot_J[j]] = place_J3[j]
                turn_TW33[t, slot_J[j]] = turn_33


def rest_of(bvh: Bvh) -> Float[np.ndarray, "J 3"]:
    """Places (J, 3) of all joints at rest, where no joint is turned: OFFSETs, or what stands for them, added up.

    Programs that write positions for every joint leave OFFSETs at anything; their mean position is the bone.
    """
    place_J3 = bvh.offsets_J3.astype(float).copy()
    if not added_to_offsets(bvh):
        for joint in np.flatnonzero(bvh.parents_J >= 0).tolist():
            for channel in range(bvh.first_J[joint], bvh.first_J[joint + 1]):
                if bvh.kind_C[channel] == POSITION:
                    place_J3[joint, bvh.axis_C[channel]] = bvh.values_TC[:, channel].mean()
    for joint, parent in enumerate(bvh.parents_J.tolist()):
        if parent >= 0:
            place_J3[joint] += place_J3[parent]
    return place_J3


def tree_of(bvh: Bvh) -> Tree:
    """The file's joints without their motion."""
    return Tree(bvh.names, tuple(bvh.parents_J.tolist()), tuple(bvh.ends_J.tolist()))


def seen_places(bvh: Bvh) -> Float[np.ndarray, "T J 3"]:
    """Places (T, J, 3) of all joints in some frames spread over the clip."""
    return world_of(bvh, np.arange(len(bvh.names)), frames=slice(None, None, seen_every(bvh))).place_TW3


def seen_every(bvh: Bvh) -> int:
    """Every how many frames SEEN of them are spread over the clip."""
    return -(-len(bvh.values_TC) // SEEN)


def moving_of(bvh: Bvh, found: Understood) -> Moving:
    """The understood joints' places and turns in every frame, and their places at rest."""
    wanted = {**found.joints, **found.ends}
    world = world_of(bvh, np.array(list(wanted.values())))
    slots = {name: slot for slot, name in enumerate(wanted)}
    turn = {name: world.turn_TW33[:, slots[name]] for name in found.joints}
    rest_J3 = rest_of(bvh)[None]
    rest = {name: place[0] for name, place in at(rest_J3, wanted).items()}
    return Moving(at(world.place_TW3, slots), turn, rest)
