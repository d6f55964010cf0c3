"""The nodes of a glTF file as a skeleton: names, parents, the pose at rest, and VRM's word on whose joint is whose."""

# F frames (or poses), K nodes that are kept

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mclip.pipeline.characters.gltf_file import Gltf, is_index
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.skeletons.bvh_text import MOST_JOINTS
from mclip.pipeline.skeletons.joints import Tree, Understood, understand
from mclip.pipeline.skeletons.names import words_of

MOST_NODES = 50_000
ENDS = {"end", "nub", "leaf"}  # words of nodes that only end a bone, as Blender, Mixamo and 3ds Max write them
# SMPL's joint -> VRM's bone. A VRM without upperChest has its last spine joint in chest.
VRM_BONES = {
    "pelvis": "hips",
    "spine1": "spine",
    "spine2": "chest",
    "spine3": "upperChest",
    "neck": "neck",
    "head": "head",
    **{
        f"{side}_{ours}": f"{side}{theirs}"
        for side in ("left", "right")
        for ours, theirs in (
            ("hip", "UpperLeg"),
            ("knee", "LowerLeg"),
            ("ankle", "Foot"),
            ("foot", "Toes"),
            ("collar", "Shoulder"),
            ("shoulder", "UpperArm"),
            ("elbow", "LowerArm"),
            ("wrist", "Hand"),
            ("hand", "MiddleProximal"),
        )
    },
}


@dataclass(frozen=True)
class Pose:
    """Local transforms of the kept nodes, in one or more poses."""

    place_FK3: Float[np.ndarray, "F K 3"]
    quaternion_FK4: Float[np.ndarray, "F K 4"]  # xyzw, of length one
    scale_FK3: Float[np.ndarray, "F K 3"]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a skeleton and all above them, parents first; `number_K` are theirs in the file."""

    tree: Tree
    number_K: tuple[int, ...]
    rest: Pose
    humanoid: Mapping[str, str]  # SMPL's joint -> name of a node, where a VRM says so


def nodes_of(gltf: Gltf) -> Nodes:
    """The skeleton in a file: what its skins name, and all above; all nodes of a file without skins. MotionError."""
    nodes, order = gltf.items("nodes"), parents_first(gltf)
    bones = humanoid_of(gltf.document)
    wanted = {number for skin in gltf.items("skins") for number in skin.get("joints", [])}
    wanted = {number for number in wanted | set(bones.values()) if is_index(number, len(nodes))} or set(order)
    for number in list(wanted):
        while (number := order[number]) >= 0 and number not in wanted:
            wanted.add(number)
    kept = [number for number in order if number in wanted]
    if not kept or len(kept) > MOST_JOINTS:
        raise MotionError(f"a skeleton of {len(kept):,} nodes: expected a body of at most {MOST_JOINTS:,}")
    at = {number: k for k, number in enumerate(kept)}
    names = unique([str(nodes[number].get("name") or f"node {number}") for number in kept])
    parents = tuple(at.get(order[number], -1) for number in kept)
    ends = tuple(k not in parents and bool(ENDS & set(words_of(name))) for k, name in enumerate(names))
    rest = [local_of(nodes[number], name) for number, name in zip(kept, names, strict=True)]
    pose = Pose(*(np.array(part)[None] for part in zip(*rest, strict=True)))
    humanoid = {joint: names[at[number]] for joint, number in bones.items() if number in at}
    return Nodes(Tree(names, parents, ends), tuple(kept), pose, humanoid)


def parents_first(gltf: Gltf) -> dict[int, int]:
    """Every node -> its parent, -1 for a root, parents before children; MotionError for a circle or two parents."""
    nodes = gltf.items("nodes")
    if len(nodes) > MOST_NODES:
        raise MotionError(f"{len(nodes):,} nodes, at most {MOST_NODES:,}")
    parent: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for child in node.get("children", []):
            if not is_index(child, len(nodes)) or child in parent:
                raise MotionError(f"node {number} has a child {str(child)[:40]!r} that is none, or another's too")
            parent[child] = number
    order: dict[int, int] = {}
    waiting = [number for number in range(len(nodes)) if number not in parent][::-1]
    while waiting:
        number = waiting.pop()
        order[number] = parent.get(number, -1)
        waiting += nodes[number].get("children", [])[::-1]
    if len(order) < len(nodes):
        raise MotionError(f"{len(nodes) - len(order)} of its nodes lie below themselves")
    return order


def unique(names: list[str]) -> tuple[str, ...]:
    """Names of which no two are alike: "Hips", "Hips#2"."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)


def local_of(node: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A node's translation, quaternion (xyzw) and scale, of its matrix where it has one. MotionError."""
    if "matrix" in node:
        matrix = numbers(node["matrix"], 16, name).reshape(4, 4).T
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        if np.linalg.det(matrix[:3, :3]) < 0:
            scale[0] = -scale[0]
        if not np.abs(scale).min() > 0:
            raise MotionError(f"{name} has a matrix that flattens all below it")
        return matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3] / scale).as_quat(), scale
    quaternion = numbers(node.get("rotation", [0, 0, 0, 1]), 4, name)
    if not np.linalg.norm(quaternion) > 1e-6:
        raise MotionError(f"{name} has a rotation of length zero")
    place, scale = (numbers(node.get(key, [least] * 3), 3, name) for key, least in (("translation", 0), ("scale", 1)))
    return place, quaternion / np.linalg.norm(quaternion), scale


def numbers(value: Any, count: int, name: str) -> np.ndarray:
    """So many finite numbers; MotionError naming the node that has other things."""
    try:
        found = np.array(value, float)
    except (TypeError, ValueError) as error:
        raise MotionError(f"{name}: {str(value)[:60]}: expected {count} numbers") from error
    if found.shape != (count,) or not np.abs(found).max() < 1e9:
        raise MotionError(f"{name}: {str(value)[:60]}: expected {count} finite numbers")
    return found


def world_of(parents: tuple[int, ...], pose: Pose) -> tuple[Float[np.ndarray, "F K 3"], Float[np.ndarray, "F K 3 3"]]:
    """Places and the linear parts of the world's transforms, scales and all."""
    frames, count = pose.place_FK3.shape[:2]
    turn = Rotation.from_quat(pose.quaternion_FK4.reshape(-1, 4)).as_matrix().reshape(frames, count, 3, 3)
    local = turn * pose.scale_FK3[:, :, None, :]
    place, linear = pose.place_FK3.copy(), local.copy()
    for k, parent in enumerate(parents):
        if parent >= 0:
            place[:, k] = place[:, parent] + (linear[:, parent] @ pose.place_FK3[:, k, :, None])[..., 0]
            linear[:, k] = linear[:, parent] @ local[:, k]
    return place, linear


def turns_of(linear: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """The rotations nearest to linear maps; of a mirror the nearest mirror of equal lengths."""
    length = np.linalg.norm(linear, axis=-2, keepdims=True)
    turns = linear / np.maximum(length, 1e-12)
    if np.abs(turns.swapaxes(-1, -2) @ turns - np.eye(3)).max(initial=0) < 1e-4:
        return turns
    u, _, v = np.linalg.svd(linear)
    return u @ v


def humanoid_of(document: Mapping[str, Any]) -> dict[str, int]:
    """SMPL's joint -> node number, as a VRM of version 0 or 1 or a VRMA says; {} where none does. MotionError.

    Hips are not guessed where a VRM names other bones: the format asks for them.
    """
    extensions = document.get("extensions", {})
    if not isinstance(extensions, dict):
        return {}
    bones: dict[str, Any] = {}
    for name in ("VRM", "VRMC_vrm", "VRMC_vrm_animation"):
        told = extensions.get(name, {})
        human = told.get("humanoid", {}) if isinstance(told, dict) else {}
        named = human.get("humanBones", {}) if isinstance(human, dict) else {}
        if isinstance(named, list):
            bones |= {each["bone"]: each.get("node") for each in named if isinstance(each, dict) and "bone" in each}
        elif isinstance(named, dict):
            bones |= {bone: each.get("node") for bone, each in named.items() if isinstance(each, dict)}
    if "upperChest" not in bones and "chest" in bones:
        bones["upperChest"] = bones.pop("chest")
    return {joint: bones[bone] for joint, bone in VRM_BONES.items() if is_index(bones.get(bone), MOST_NODES)}


def understood(nodes: Nodes, place_FK3: Float[np.ndarray, "F K 3"], joint_map: Mapping[str, str]) -> Understood:
    """Whose joint is whose: by a map, by VRM's own word, else by names and shape. MotionError as `understand`."""
    mapped = {**nodes.humanoid, **joint_map}
    if nodes.humanoid and "pelvis" not in mapped:
        raise MotionError('a VRM whose humanoid names no hips: name them in a map, as pelvis = "Hips"')
    found = understand(nodes.tree, place_FK3, mapped)
    if not nodes.humanoid:
        return found
    return replace(found, how="VRM and map" if joint_map else "VRM", skeleton="VRM")
