"""A motion written onto a GLB or VRM that somebody has: one animation more, and all else as it was."""

# T frames, K nodes that are kept, V vertices

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mclip.pipeline.characters.carry import Carried, Rig, carry, local_turns, rig_of
from mclip.pipeline.characters.gltf_file import FLOAT, WIDTHS, Gltf, glb_bytes, read_gltf
from mclip.pipeline.characters.gltf_nodes import Nodes, local_of, nodes_of, turns_of, understood, world_of
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.rotations import matrix_to_quaternion, same_sign
from mclip.pipeline.skeletons.check import farthest
from mclip.pipeline.skeletons.frames import Turns
from mclip.pipeline.skeletons.names import above
from mclip.pipeline.skeletons.solve import UPS

LEAST_SKIN = 8  # vertices of a joint that say where its skin ends


def on_gltf(
    content: bytes,
    turns: Turns,
    place: Mapping[str, Float[np.ndarray, "T 3"]],
    *,
    fps: float,
    name: str,
    joint_map: Mapping[str, str],
) -> tuple[bytes, Rig, Carried]:
    """The GLB with the motion as its first animation, for viewers play that one; the others follow as they were.

    MotionError for a .gltf, and for a skeleton that is not understood, or none.
    """
    if content[:4] != b"glTF":
        raise MotionError("no GLB: pack it into one file, as by `gltf-transform copy CHAR.gltf CHAR.glb`")
    gltf = read_gltf(content)
    nodes = nodes_of(gltf)
    places, linear = world_of(nodes.tree.parents, nodes.rest)
    try:
        found = understood(nodes, places, joint_map)
    except MotionError as error:
        if gltf.items("skins"):
            raise
        raise MotionError(f"no skeleton in it: no skin has joints, and of its nodes: {error}") from error
    rig = rig_of(nodes.tree, found, places[0], turns_of(linear[0]), up="y")
    carried = carry(rig, turns, place, skin_points(gltf, nodes, rig))
    pelvis = nodes.tree.parents[found.joints["pelvis"]]
    to_parent = np.linalg.inv(linear[0, pelvis]) if pelvis >= 0 else np.eye(3)
    origin = places[0, pelvis] if pelvis >= 0 else np.zeros(3)
    root_T3 = (rig.from_world(carried.place["pelvis"]) - origin) @ to_parent.T
    return (
        with_animation(gltf, nodes, local_turns(rig, carried.turn), root_T3, rig=rig, fps=fps, name=name),
        rig,
        carried,
    )


def with_animation(
    gltf: Gltf,
    nodes: Nodes,
    turns: Mapping[int, Float[np.ndarray, "T 3 3"]],
    root_T3: Float[np.ndarray, "T 3"],
    *,
    rig: Rig,
    fps: float,
    name: str,
) -> bytes:
    """The file's bytes with one animation before its others."""
    document = dict(gltf.document)
    writer = Appended(document, gltf.binary)
    time = writer.add(np.arange(len(root_T3), dtype=np.float32)[:, None] / np.float32(fps), "SCALAR", bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def track(node: int, path: str, values: np.ndarray, kind: str) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": nodes.number_K[node], "path": path}})
        samplers.append({"input": time, "output": writer.add(values, kind), "interpolation": "LINEAR"})

    for node, turn in turns.items():
        xyzw = same_sign(matrix_to_quaternion(torch.from_numpy(turn))[:, None].roll(-1, dims=-1))[:, 0].numpy()
        track(node, "rotation", xyzw / np.linalg.norm(xyzw, axis=-1, keepdims=True), "VEC4")
    track(rig.found.joints["pelvis"], "translation", root_T3, "VEC3")
    document["nodes"] = [dict(node) for node in gltf.items("nodes")]
    for node in turns:
        without_matrix(document["nodes"][nodes.number_K[node]], nodes.tree.names[node])
    animation = {"name": name, "samplers": samplers, "channels": channels}
    document["animations"] = [animation, *gltf.items("animations")]
    return glb_bytes(document, writer.binary)


class Appended:
    """Arrays put behind a GLB's binary chunk, in a document whose lists of views and accessors grow."""

    def __init__(self, document: dict[str, Any], binary: bytes | memoryview) -> None:
        self.document, self.binary = document, bytearray(binary)
        for kind in ("bufferViews", "accessors", "buffers"):
            document[kind] = [dict(each) for each in document.get(kind, [])]
        if not document["buffers"]:
            document["buffers"].append({"byteLength": 0})
        if "uri" in document["buffers"][0]:
            raise MotionError("its first buffer lies in another file: pack it into one, as by `gltf-transform copy`")
        del self.binary[document["buffers"][0]["byteLength"] :]

    def add(self, values: np.ndarray, kind: str, *, bounds: bool = False) -> int:
        """Number of the accessor of an array (count, width), as float32; `bounds` states its least and greatest."""
        rows = np.ascontiguousarray(values, dtype="<f4")
        assert rows.shape[1] == WIDTHS[kind]
        self.binary += bytes(-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": rows.nbytes}
        self.binary += rows.tobytes()
        limits = {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()} if bounds else {}
        accessor = {"bufferView": len(self.document["bufferViews"]), "componentType": FLOAT, "count": len(rows)}
        self.document["bufferViews"].append(view)
        self.document["accessors"].append(accessor | {"type": kind} | limits)
        self.document["buffers"][0]["byteLength"] = len(self.binary)
        return len(self.document["accessors"]) - 1


def without_matrix(node: dict[str, Any], name: str) -> None:
    """A node's matrix as translation, rotation and scale: no animation may move a node that has one."""
    if "matrix" in node:
        place, quaternion, scale = local_of(node, name)
        del node["matrix"]
        node |= {"translation": place.tolist(), "rotation": quaternion.tolist(), "scale": scale.tolist()}


def skin_points(gltf: Gltf, nodes: Nodes, rig: Rig) -> dict[str, Float[np.ndarray, "P 3"]] | None:
    """Points of the skins that belong to each joint, from that joint at rest, z up, scaled to SMPL's legs.

    None where there is no skin to be read, as in a VRMA, or where it is packed by Draco.
    """
    parts: dict[str, list[np.ndarray]] = {}
    owner = owners(rig)
    for node in gltf.items("nodes"):
        if "mesh" in node and "skin" in node:
            for primitive in gltf.item("meshes", node["mesh"])["primitives"]:
                try:
                    skinned(gltf, nodes, gltf.item("skins", node["skin"]), primitive, owner, parts)
                except (MotionError, KeyError):  # packed, or a mesh without weights: others tell enough
                    continue
    feet = [name for name in parts if name.endswith(("ankle", "foot"))]
    if sum(len(each) for name in feet for each in parts[name]) < LEAST_SKIN:
        return None
    up, rest = UPS[rig.solved.up], rig.rest
    points = {name: rig.solved.metres * np.concatenate(each) @ up.T - rest[name] for name, each in parts.items()}
    return {name: farthest(each) for name, each in points.items()}


def owners(rig: Rig) -> dict[int, str]:
    """Every kept node -> the understood joint that it goes with: itself, or the nearest above it."""
    ours = {node: name for name, node in rig.found.joints.items()}
    line = {node: [node, *above(node, rig.tree.parents)] for node in range(len(rig.tree.names))}
    found = {node: next((ours[each] for each in nodes if each in ours), "") for node, nodes in line.items()}
    return {node: name for node, name in found.items() if name}


def skinned(
    gltf: Gltf,
    nodes: Nodes,
    skin: Mapping[str, Any],
    primitive: Mapping[str, Any],
    owner: Mapping[int, str],
    parts: dict[str, list[np.ndarray]],
) -> None:
    """Add a primitive's vertices, as its skin places them at rest in the rig's world, to the joints that own them."""
    attributes = primitive["attributes"]
    at_V3, joints_V4, weights_V4 = (gltf.array(attributes[key]) for key in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    slots = {number: k for k, number in enumerate(nodes.number_K)}
    kept_J = np.array([slots.get(number, -1) for number in skin["joints"]])
    inverse_J44 = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    place, linear = world_of(nodes.tree.parents, nodes.rest)
    main_V = np.take_along_axis(joints_V4, weights_V4.argmax(1)[:, None], 1)[:, 0]
    bound_V3 = (inverse_J44[main_V, :3, :3] @ at_V3[..., None])[..., 0] + inverse_J44[main_V, :3, 3]
    node_V = kept_J[main_V]
    world_V3 = (linear[0, node_V] @ bound_V3[..., None])[..., 0] + place[0, node_V]
    for node in np.unique(node_V):
        if int(node) in owner:
            parts.setdefault(owner[int(node)], []).append(world_V3[node_V == node])
