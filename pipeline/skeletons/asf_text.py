"""Acclaim's ASF skeletons and AMC motions, CMU's own form, as a BVH's content: the same tree, offsets and channels.

A bone of an ASF begins where its parent ends, points along `direction` in the world, and turns by C M C^-1: C is its
`axis`, M the AMC's angles (Acclaim's specification, as CMU's motions are written). A joint's channels turn it in that
order, so those of C stand in every row.
"""

# T frames, C channels

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.skeletons.bvh_text import MOST_JOINTS, POSITION, ROTATION, Bvh, plain_text

ROOT = "root"
TURNS, PLACES = {"rx", "ry", "rz"}, {"tx", "ty", "tz"}
FRAME = re.compile(rb"^[ \t]*\d+[ \t]*\r?$", re.MULTILINE)  # a line that is a number alone


@dataclass
class Bone:
    """A bone: its vector at rest in the world, its axes' Euler angles in degrees, and what the motion turns."""

    offset_3: np.ndarray
    axis: tuple[float, ...]  # about x, then y, then z: the order XYZ, as all of CMU's have it
    dof: tuple[str, ...]


def sections(text: str) -> dict[str, list[list[str]]]:
    """The words of every line of each `:section`, comments left out; the section's own line is its first."""
    found: dict[str, list[list[str]]] = {}
    name = ""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0].startswith(":"):
            name = words.pop(0)[1:].lower()
        if words:
            found.setdefault(name, []).append(words)
    return found


def numbers(words: list[str], count: int, where: str) -> tuple[float, ...]:
    """So many numbers; MotionError where there are others."""
    try:
        found = tuple(float(word) for word in words[:count])
    except ValueError as error:
        raise MotionError(f"{where}: {error}") from error
    if len(found) < count or not all(math.isfinite(each) and abs(each) < 1e9 for each in found):
        raise MotionError(f"{where}: {' '.join(words)[:60]!r}, expected {count} finite numbers")
    return found


def read_asf(text: str) -> tuple[dict[str, Bone], dict[str, str]]:
    """Bones by name, the root among them, and each one's parent; MotionError saying what is not as it should be."""
    part = sections(text)
    if "bonedata" not in part or "hierarchy" not in part:
        raise MotionError("no :bonedata or no :hierarchy in the skeleton: expected an .asf file")
    if ["angle", "deg"] not in [[word.lower() for word in line[:2]] for line in part.get("units", [])]:
        raise MotionError("no line `angle deg` in its :units: expected degrees, as CMU's have them")
    said = {line[0].lower(): line[1:] for line in part.get(ROOT, [])}
    turned = numbers(said.get("orientation", ["0"] * 3), 3, "the root's orientation")
    dof = tuple(word.lower() for word in said.get("order", ()))
    if not set(dof) >= PLACES:
        raise MotionError("its root has no order with TX, TY and TZ: nothing walks")
    require_xyz(said.get("axis", ["XYZ"])[-1])
    bones = {ROOT: Bone(np.zeros(3), turned, dof)}
    line: dict[str, list[str]] = {}
    for words in part["bonedata"]:
        if words[0] == "begin":
            line = {}
        elif words[0] == "end":
            bones[(line.get("name") or ["bone without a name"])[0]] = bone_of(line)
        else:
            line[words[0].lower()] = words[1:]
    if len(bones) > MOST_JOINTS:
        raise MotionError(f"more than {MOST_JOINTS:,} bones: no body has so many")
    parents = {child: words[0] for words in part["hierarchy"] if words[0] in bones for child in words[1:]}
    if lost := sorted(set(parents) - set(bones) | set(bones) - {ROOT} - set(parents)):
        raise MotionError(f"bones without data or without a place in the :hierarchy: {', '.join(lost)[:200]}")
    return bones, parents


def bone_of(line: Mapping[str, list[str]]) -> Bone:
    """A bone by its lines; MotionError for one that grows or moves along its parent, which BVH knows nothing of."""
    (length,), way = numbers(line.get("length", []), 1, "length"), numbers(line.get("direction", []), 3, "direction")
    axis, dof = line.get("axis", ["0", "0", "0", "XYZ"]), tuple(word.lower() for word in line.get("dof", ()))
    if not set(dof) <= TURNS:
        raise MotionError(f"dof {' '.join(dof)[:40]!r} of a bone: expected rx, ry and rz")
    require_xyz(axis[-1])
    return Bone(np.array(way) * length, numbers(axis, 3, "axis"), dof)


def require_xyz(word: str) -> None:
    """MotionError for Euler angles of another order: no such file was at hand to learn which number comes first."""
    if word.upper() != "XYZ":
        raise MotionError(f"axis {word[:20]!r}: expected XYZ, as CMU's have it")


def in_order(bones: Mapping[str, Bone], parents: Mapping[str, str]) -> list[str]:
    """The bones with parents before children; MotionError where some hang on each other and not on the root."""
    below: dict[str, list[str]] = {name: [] for name in bones}
    for child, parent in parents.items():
        below[parent].append(child)
    found, waiting = [], [ROOT]
    while waiting:
        found.append(name := waiting.pop())
        waiting += below[name][::-1]
    if len(found) < len(bones):
        raise MotionError("bones of its :hierarchy hang in a circle, not on the root")
    return found


def count_frames(content: bytes | memoryview) -> int:
    """Frames of an AMC: lines that are a number alone."""
    return sum(1 for _ in FRAME.finditer(content))


def read_amc(content: bytes | memoryview, skeleton: bytes, fps: float) -> Bvh:
    """A motion on its skeleton; `fps`, which no AMC says, are its frames a second. MotionError."""
    bones, parents = read_asf(bytes(plain_text(skeleton)).decode("utf-8", "replace"))
    order = in_order(bones, parents)
    values = read_values(bytes(plain_text(content)).decode("utf-8", "replace"), bones)
    slot = {name: place for place, name in enumerate(order)}
    leaves = [name for name in order if name not in set(parents.values())]
    columns = [[*channels_of(bones[name], values.get(name, {}))] for name in order]
    every = list(itertools.chain(*columns))
    return Bvh(
        (*order, *(f"{name} end" for name in leaves)),
        np.array([slot.get(parents.get(name, ""), -1) for name in order] + [slot[name] for name in leaves]),
        np.array([bones[name].offset_3 for name in (*(parents.get(name, ROOT) for name in order), *leaves)]),
        np.arange(len(order) + len(leaves)) >= len(order),
        np.cumsum([0, *map(len, columns), *[0] * len(leaves)]),
        np.array([kind for kind, _, _ in every], int),
        np.array([axis for _, axis, _ in every], int),
        np.stack([values_T for _, _, values_T in every], axis=1),
        1 / fps,
    )


def channels_of(bone: Bone, values: Mapping[str, np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(kind, axis, values) of a bone's channels: its place, then C, M and C^-1, whose last turn is written first."""
    turned = [(axis, values[f"r{letter}"]) for axis, letter in enumerate("xyz") if f"r{letter}" in values]
    for axis, letter in enumerate("xyz"):
        if f"t{letter}" in values:
            yield POSITION, axis, values[f"t{letter}"]
    if turned:
        still_T = np.ones(len(turned[0][1]))
        yield from ((ROTATION, axis, still_T * bone.axis[axis]) for axis in (2, 1, 0))
        yield from ((ROTATION, axis, values_T) for axis, values_T in reversed(turned))
        yield from ((ROTATION, axis, -still_T * bone.axis[axis]) for axis in (0, 1, 2))


def read_values(text: str, bones: Mapping[str, Bone]) -> dict[str, dict[str, np.ndarray]]:
    """Numbers of every frame, by bone and degree of freedom; MotionError naming frame and bone."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in bones if bones[name].dof}
    frame = 0
    for words in (line.split("#")[0].split() for line in text.splitlines()):
        where = f"frame {frame}: {words[0][:40] if words else ''}"
        if not words or words[0].startswith(":"):
            if words and words[0].lower() == ":radians":
                raise MotionError("its angles are radians: expected degrees, as CMU's have them")
        elif len(words) == 1 and words[0].isdecimal():
            require_whole(rows, frame)
            frame += 1
        elif words[0] not in rows or len(rows[words[0]]) != frame - 1:
            raise MotionError(f"{where} is twice in it, or no moving bone of the skeleton")
        elif len(words) - 1 != (count := len(bones[words[0]].dof)):
            raise MotionError(f"{where} has {len(words) - 1} numbers, its dof in the skeleton are {count}")
        else:
            rows[words[0]].append(numbers(words[1:], count, where))
    require_whole(rows, frame)
    if not frame:
        raise MotionError("no frame in it: expected an .amc file")
    return {name: dict(zip(bones[name].dof, np.array(rows_T).T, strict=True)) for name, rows_T in rows.items()}


def require_whole(rows: Mapping[str, list[tuple[float, ...]]], frame: int) -> None:
    """MotionError where a frame lacks a bone that the skeleton says to move."""
    if lacking := next((name for name, found in rows.items() if len(found) != frame), ""):
        raise MotionError(f"frame {frame}: nothing of {lacking}, which the skeleton says to move")
