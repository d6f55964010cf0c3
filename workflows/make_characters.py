"""Write characters as other programs write theirs in GLB: their names, scales, axes at rest, poses and proportions.

    python -m mclip.workflows.make_characters FOLDER

The mesh is the embedded body, stretched; only the shapes of the files are theirs: for tests, and for pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.characters.gltf_nodes import VRM_BONES
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.training.show.writers import Buffer, primitive
from mclip.workflows.make_bvh_like import FORMS, arms_at

CHILD = {parent: joint for joint, parent in reversed(tuple(enumerate(PARENTS)))}  # of each joint its first child
EXTRA = ("left_wrist", "right_wrist", "head")  # that bear bones which SMPL has not: thumbs, and hair


@dataclass(frozen=True)
class Character:
    """A rig: whose names, how its arms hang, how long its parts are, and what its nodes' axes and scale are at rest."""

    form: str
    arms: float = 0.0  # degrees that they hang down by
    longer: Mapping[str, float] = field(default_factory=dict)  # part of a joint's name -> its bone's length over SMPL's
    size: float = 1.0
    along: bool = False  # y of every joint along its bone, as Blender and Mixamo have it; else as the world's
    armature: tuple[float, float] = (1.0, 0.0)  # scale, and degrees about x, of a node above the hips
    back: bool = False  # faces -z, as VRM 0 does
    vrm: str = ""  # "0" or "1"
    colour: tuple[float, float, float] = (0.6, 0.6, 0.6)


CHARACTERS = {
    "mixamo.glb": Character(
        "Mixamo",
        longer={"hip": 1.15, "knee": 1.1, "shoulder": 0.95, "spine": 0.95},
        along=True,
        armature=(0.01, -90.0),
        colour=(0.30, 0.45, 0.75),
    ),
    "vrm1.vrm": Character(
        "VRM, Unity",
        arms=35.0,
        longer={"knee": 1.2, "spine": 0.85, "elbow": 0.9},
        size=0.85,
        along=True,
        vrm="1",
        colour=(0.85, 0.5, 0.6),
    ),
    "vrm0.vrm": Character("VRM, Unity", longer={"knee": 1.2}, size=0.9, back=True, vrm="0", colour=(0.5, 0.7, 0.4)),
    "unreal.glb": Character(
        "Unreal", arms=50.0, longer={"hip": 1.05}, along=True, armature=(0.01, 90.0), colour=(0.8, 0.6, 0.3)
    ),
    "embedded.glb": Character("SMPL"),
}


def stretched(character: Character) -> Body:
    """The embedded body in a character's rest pose and proportions, its joints at their places there."""
    body, scale = load_body("low"), np.ones(len(JOINTS))
    for joint, name in enumerate(JOINTS):
        scale[joint] = next((each for part, each in character.longer.items() if part in name), 1.0)
    place, turns = body.joints_J3.double().numpy(), arms_at(character.arms)
    made, turn = place.copy(), np.repeat(np.eye(3)[None], len(JOINTS), axis=0)
    for joint, parent in enumerate(PARENTS[1:], start=1):
        turn[joint] = turns.get(JOINTS[joint], turn[parent])
        made[joint] = made[parent] + turn[parent] @ (scale[parent] * (place[joint] - place[parent]))
    skin = body.v_template_V3.double().numpy()[:, None] - place
    moved = (turn @ (scale[:, None] * skin)[..., None])[..., 0] + made
    vertices = (body.weights_VJ.double().numpy()[..., None] * moved).sum(1)
    facing = np.diag([-1.0, 1, -1]) if character.back else np.eye(3)
    floor = [0, vertices[:, 1].min(), 0]
    vertices, made = (character.size * (each - floor) @ facing.T for each in (vertices, made))
    tensors = (torch.from_numpy(each).float() for each in (vertices, made))
    return replace(body, **dict(zip(("v_template_V3", "joints_J3"), tensors, strict=True)))


def axes_of(character: Character, place: np.ndarray) -> np.ndarray:
    """World axes (24, 3, 3) of the joints at rest: y along the bone to the first child, or the world's."""
    axes = np.repeat(np.eye(3)[None], len(JOINTS), axis=0)
    for joint in range(len(JOINTS)) if character.along else ():
        start, end = (joint, CHILD[joint]) if joint in CHILD else (PARENTS[joint], joint)
        bone = place[end] - place[start]
        axes[joint] = Rotation.align_vectors([bone], [[0, 1, 0]])[0].as_matrix()
    return axes


def write_character(path: Path, character: Character, *, clip: bool = True) -> None:
    """Write a character's GLB by pygltflib, with a nod of its head as an animation of its own where `clip` says so."""
    import pygltflib as gltf

    body, names = stretched(character), FORMS[character.form].names
    place = body.joints_J3.double().numpy()
    scale, tilt = character.armature
    above = Rotation.from_euler("x", tilt, degrees=True).as_matrix()
    axes, data = axes_of(character, place), Buffer(gltf)
    nodes = [gltf.Node(name="Armature", scale=[scale] * 3, rotation=quaternion(above), children=[])]
    number: dict[int, int] = {}
    for joint, parent in enumerate(PARENTS):
        if JOINTS[joint] not in names:
            continue
        while parent >= 0 and parent not in number:
            parent = PARENTS[parent]
        turn, origin = (axes[parent], place[parent]) if parent >= 0 else (above, np.zeros(3))
        number[joint] = len(nodes)
        nodes[number[parent] if parent >= 0 else 0].children.append(len(nodes))
        nodes.append(
            gltf.Node(
                name=names[JOINTS[joint]],
                translation=(turn.T @ (place[joint] - origin) / scale).tolist(),
                rotation=quaternion(turn.T @ axes[joint]),
                children=[],
            )
        )
    for joint in EXTRA:
        nodes[number[JOINTS.index(joint)]].children.append(len(nodes))
        nodes.append(
            gltf.Node(name=f"extra_{joint}", translation=[0, 0.05 / scale, 0], rotation=[0.2, 0, 0, 0.96**0.5])
        )
    joints = list(number)
    world = np.zeros((len(joints), 4, 4))
    world[:, :3, :3], world[:, :3, 3], world[:, 3, 3] = scale * axes[joints], place[joints], 1
    inverse = np.linalg.inv(world).swapaxes(1, 2).astype(np.float32)
    inverse[:, :, 3] = [0, 0, 0, 1]
    skin = gltf.Skin(joints=[number[joint] for joint in joints], inverseBindMatrices=data.add(inverse, "MAT4"))
    rigged = replace(body, weights_VJ=joined_weights(body, joints), joints_J3=body.joints_J3[joints])
    mesh = gltf.Mesh(name="body", primitives=[primitive(gltf, data, rigged)])
    nodes.append(gltf.Node(name="body", mesh=0, skin=0))
    shape = gltf.PbrMetallicRoughness(baseColorFactor=[*character.colour, 1.0], metallicFactor=0.0, roughnessFactor=0.8)
    head = number[JOINTS.index("head")]
    scene = gltf.GLTF2(
        asset=gltf.Asset(generator="mclip's make_characters", extras={"kept": [1, None, "as it is"]}),
        scene=0,
        scenes=[gltf.Scene(nodes=[0, len(nodes) - 1])],
        nodes=nodes,
        meshes=[mesh],
        skins=[skin],
        materials=[gltf.Material(name="clay", pbrMetallicRoughness=shape, doubleSided=False)],
        animations=[nod(gltf, data, head, nodes[head].rotation)] if clip else [],
        **humanoid(character, number),
    )
    scene.accessors, scene.bufferViews = data.accessors, data.views
    scene.buffers = [gltf.Buffer(byteLength=len(data.blob))]
    scene.set_binary_blob(bytes(data.blob))
    path.write_bytes(b"".join(scene.save_to_bytes()))


def quaternion(turn: np.ndarray) -> list[float]:
    """xyzw of a rotation matrix."""
    found: list[float] = Rotation.from_matrix(turn).as_quat().tolist()
    return found


def joined_weights(body: Body, joints: list[int]) -> torch.Tensor:
    """Skin weights (V, N) of the joints that a rig has; those that it lacks give theirs to the nearest above."""
    weights = body.weights_VJ.new_zeros(len(body.v_template_V3), len(joints))
    for joint in range(len(JOINTS)):
        owner = joint
        while owner not in joints:
            owner = PARENTS[owner]
        weights[:, joints.index(owner)] += body.weights_VJ[:, joint]
    return weights


def nod(gltf: Any, data: Buffer, head: int, rest: list[float]) -> Any:
    """An animation that turns the head: CUBICSPLINE, three keys unevenly set."""
    times = data.add(np.array([0, 0.4, 1.5], np.float32), "SCALAR", bounds=True)
    turns = [Rotation.from_quat(rest) * Rotation.from_euler("x", angle, degrees=True) for angle in (0, 20, 0)]
    values = np.zeros((9, 4), np.float32)
    values[1::3] = [turn.as_quat() for turn in turns]
    sampler = gltf.AnimationSampler(input=times, output=data.add(values, "VEC4"), interpolation="CUBICSPLINE")
    channel = gltf.AnimationChannel(sampler=0, target=gltf.AnimationChannelTarget(node=head, path="rotation"))
    return gltf.Animation(name="nod", samplers=[sampler], channels=[channel])


def humanoid(character: Character, number: Mapping[int, int]) -> dict[str, Any]:
    """The VRM extension of a character, and the list that names it; {} of one that is no VRM."""
    bones = {bone: number[JOINTS.index(joint)] for joint, bone in VRM_BONES.items() if JOINTS.index(joint) in number}
    if character.vrm == "0":
        named = [{"bone": bone, "node": node, "useDefaultValues": True} for bone, node in bones.items()]
        told = {"exporterVersion": "mclip", "specVersion": "0.0", "meta": {"title": "body"}}
        return {"extensionsUsed": ["VRM"], "extensions": {"VRM": told | {"humanoid": {"humanBones": named}}}}
    if character.vrm == "1":
        meta = {"name": "body", "authors": ["MakeHuman"], "licenseUrl": "https://vrm.dev/licenses/1.0/"}
        human = {"humanBones": {bone: {"node": node} for bone, node in bones.items()}}
        told = {"specVersion": "1.0", "meta": meta, "humanoid": human}
        return {"extensionsUsed": ["VRMC_vrm"], "extensions": {"VRMC_vrm": told}}
    return {}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write a character of each kind into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, character in CHARACTERS.items():
        write_character(folder / name, character)
        click.echo(folder / name)


if __name__ == "__main__":
    main()
