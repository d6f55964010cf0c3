"""A motion as a file that others read: AMASS .npz, BVH, GLB; its pictures as MP4, GIF, or a PNG strip.

AMASS has world z up; BVH and glTF have y up by custom. SMPL's rest pose is y up already, so only the root turns.
"""

# T frames, J joints, V vertices, F faces, S picture side in pixels

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mclip.pipeline.characters.gltf_nodes import VRM_BONES
from mclip.pipeline.draw.looks import CLAY
from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.forms import humanml3d
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion, same_sign
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.prepare.amass import write_motion, write_recording
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.sheets import picture_row, stack, stick_figures
from mclip.pipeline.render.video import write_mp4
from mclip.training.show.motion import Motion, pictures, slerped

STRIP, STRIP_SIZE = 8, 320  # pictures of a row, and the pixels of each before it is cut to the body
GIF_FPS, GIF_COLOURS = 50, 64
Y_UP = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # of points whose z is up
HUMANML3D_FOLDERS = ("new_joint_vecs", "new_joints")  # of the data set
CENTIMETRES = 100  # a BVH has no unit; MotionBuilder and Maya take centimetres


def write_npz(path: Path, motion: Motion) -> None:
    """AMASS: what `mclip prepare` reads; of the body model, shape, gender and fingers that the motion was read with.

    Its soft tissue (`dmpls`) is not kept: those are zeros.
    """
    read = motion.recording
    if read is not None and "model" in read.account:
        write_recording(path, read)
        return
    told: dict[str, Any] = {} if read is None else {"betas": read.betas.astype(np.float64), "gender": read.gender}
    write_motion(path, rotmat_TJ33=motion.rotmat_TJ33, trans_T3=motion.trans_T3, fps=motion.fps, **told)


def y_up(motion: Motion, joints_J3: Float[Tensor, "24 3"]) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]:
    """Local rotations (T, 24, 3, 3) and the pelvis's place (T, 3), float64 metres, in a world whose y is up."""
    local = motion.rotmat_TJ33.double().clone()
    local[:, 0] = Y_UP @ local[:, 0]
    return local, (motion.trans_T3.double() + joints_J3[0].double()) @ Y_UP.T


def write_bvh(path: Path, motion: Motion) -> None:
    """BVH by pybvh: SMPL's joints under their names on the embedded body's bones, y up, centimetres."""
    import pybvh
    from pybvh.rotations import rotmat_to_euler

    joints_J3 = load_body("low").joints_J3
    local, root_T3 = y_up(motion, joints_J3)
    nodes, order = bvh_nodes(CENTIMETRES * joints_J3.numpy().astype(float))
    # Without jumps of a whole turn, for those who interpolate between frames.
    angles = np.unwrap(rotmat_to_euler(local[:, order].numpy(), "ZYX"), axis=0)
    place = CENTIMETRES * root_T3.numpy()
    pybvh.Bvh(nodes, root_pos=place, joint_angles=angles, frame_time=1 / motion.fps, world_up="+y").write(path)


def bvh_nodes(joints_J3: np.ndarray) -> tuple[list[Any], list[int]]:
    """pybvh's nodes of a rest skeleton, and its joints, both depth first, as the format lists them."""
    from pybvh.bvhnode import BvhEndSite, BvhJoint, BvhRoot

    nodes: list[Any] = []
    order: list[int] = []

    def add(joint: int, parent: Any) -> Any:
        bone = joints_J3[joint] - joints_J3[PARENTS[joint]]
        # The root's channels say where it is; an offset would be added by some readers and not by others.
        node = BvhJoint(JOINTS[joint], bone, parent=parent) if parent else BvhRoot(JOINTS[joint])
        order.append(joint)
        nodes.append(node)
        children = [child for child, its_parent in enumerate(PARENTS) if its_parent == joint]
        node.children = [add(child, node) for child in children]
        if not children:
            node.children = [BvhEndSite(f"End Site {JOINTS[joint]}", bone / 2, parent=node)]
            nodes.append(node.children[0])
        return node

    add(0, None)
    return nodes, order


def write_humanml3d(paths: Sequence[Path], motion: Motion) -> None:
    """HumanML3D: features (T, 263) and places (T, 22, 3) in float32, at 20 fps, one frame less than the motion has.

    Bones are as long as the embedded body's; the data set's are those of its sample 000021.
    """
    if motion.recording is not None and motion.fps != humanml3d.FPS:
        slow = slerped(motion.recording, humanml3d.FPS)
        rotmat = axis_angle_to_matrix(torch.from_numpy(slow.poses_TJ3))
        motion = Motion(rotmat, torch.from_numpy(slow.trans_T3), humanml3d.FPS)
    place_TJ3 = (motion.joints()[:, : humanml3d.JOINTS].double() @ Y_UP.T).numpy()
    feature_TF = humanml3d.features_of(place_TJ3)
    for path, values in zip(paths, (feature_TF, humanml3d.places_of(feature_TF)), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with by_rename(path) as aside, open(aside, "wb") as file:
            np.save(file, values.astype(np.float32))


def write_glb(path: Path, motion: Motion) -> None:
    """Binary glTF 2.0 by pygltflib: the reduced embedded body as a mesh with a skin and one animation."""
    import pygltflib as gltf

    body = load_body("low")
    local, root_T3 = y_up(motion, body.joints_J3)
    data = Buffer(gltf)
    mesh = gltf.Mesh(name="body", primitives=[primitive(gltf, data, body)])
    # Joint j is node j; the mesh is the node after them.
    nodes = [joint_node(gltf, body, joint) for joint in range(24)] + [gltf.Node(name="body", mesh=0, skin=0)]
    inverse_J44 = torch.eye(4).repeat(24, 1, 1)
    inverse_J44[:, 3, :3] = -body.joints_J3  # column-major: the translation is the last row here
    skin = gltf.Skin(joints=list(range(24)), skeleton=0, inverseBindMatrices=data.add(inverse_J44.numpy(), "MAT4"))
    shape = gltf.PbrMetallicRoughness(baseColorFactor=[*linear(CLAY), 1.0], metallicFactor=0.0, roughnessFactor=0.8)
    scene = gltf.GLTF2(
        asset=gltf.Asset(generator="mclip"),
        scene=0,
        scenes=[gltf.Scene(nodes=[0, 24])],
        nodes=nodes,
        meshes=[mesh],
        skins=[skin],
        materials=[gltf.Material(name="clay", pbrMetallicRoughness=shape)],
        animations=[animation(gltf, data, local, root_T3, fps=motion.fps)],
        accessors=data.accessors,
        bufferViews=data.views,
        buffers=[gltf.Buffer(byteLength=len(data.blob))],
    )
    scene.set_binary_blob(bytes(data.blob))
    scene.save_binary(path)


def write_vrma(path: Path, motion: Motion) -> None:
    """VRM's own animation file by pygltflib: the joints at rest under VRM's names, no mesh, one animation."""
    import pygltflib as gltf

    body = load_body("low")
    local, root_T3 = y_up(motion, body.joints_J3)
    data = Buffer(gltf)
    bones = {bone: {"node": JOINTS.index(joint)} for joint, bone in VRM_BONES.items() if not joint.endswith("hand")}
    scene = gltf.GLTF2(
        asset=gltf.Asset(generator="mclip"),
        scene=0,
        scenes=[gltf.Scene(nodes=[0])],
        nodes=[joint_node(gltf, body, joint) for joint in range(24)],
        animations=[animation(gltf, data, local, root_T3, fps=motion.fps)],
        accessors=data.accessors,
        bufferViews=data.views,
        buffers=[gltf.Buffer(byteLength=len(data.blob))],
        extensionsUsed=["VRMC_vrm_animation"],
        extensions={"VRMC_vrm_animation": {"specVersion": "1.0", "humanoid": {"humanBones": bones}}},
    )
    scene.set_binary_blob(bytes(data.blob))
    scene.save_binary(path)


def linear(colour: tuple[float, float, float]) -> list[float]:
    """A colour as glTF wants it, in linear light."""
    return [((share + 0.055) / 1.055) ** 2.4 for share in colour]


class Buffer:
    """The binary part of a GLB: arrays one after the other, each with its view and accessor."""

    def __init__(self, gltf: Any) -> None:
        self.gltf, self.blob = gltf, bytearray()
        self.views: list[Any] = []
        self.accessors: list[Any] = []

    def add(self, values: np.ndarray, kind: str, *, target: int | None = None, bounds: bool = False) -> int:
        """Number of the accessor of an array of SCALAR, VEC3, VEC4 or MAT4; `bounds` states its least and greatest."""
        columns = values.reshape(len(values), -1)
        limits = {"min": columns.min(0).tolist(), "max": columns.max(0).tolist()} if bounds else {}
        view = self.gltf.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=values.nbytes, target=target)
        self.blob += np.ascontiguousarray(values).tobytes()
        self.blob += bytes(-len(self.blob) % 4)  # every view begins at a multiple of four
        self.views.append(view)
        types = {"f": self.gltf.FLOAT, "B": self.gltf.UNSIGNED_BYTE, "H": self.gltf.UNSIGNED_SHORT}
        number, component = len(self.views) - 1, types[values.dtype.char]
        accessor = self.gltf.Accessor(
            bufferView=number, componentType=component, count=len(values), type=kind, **limits
        )
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def primitive(gltf: Any, data: Buffer, body: Body) -> Any:
    """The body's triangles with normals, and four joints and weights a vertex."""
    weights_V4, joints_V4 = body.weights_VJ.sort(dim=1, descending=True, stable=True)
    weights_V4, joints_V4 = weights_V4[:, :4], joints_V4[:, :4].where(weights_V4[:, :4] > 0, 0)
    vertex = gltf.ARRAY_BUFFER
    attributes = gltf.Attributes(
        POSITION=data.add(body.v_template_V3.numpy(), "VEC3", target=vertex, bounds=True),
        NORMAL=data.add(normals(body).numpy(), "VEC3", target=vertex),
        JOINTS_0=data.add(joints_V4.numpy().astype(np.uint8), "VEC4", target=vertex),
        WEIGHTS_0=data.add((weights_V4 / weights_V4.sum(1, keepdim=True)).numpy(), "VEC4", target=vertex),
    )
    corners = body.faces_F3.numpy().astype(np.uint16).ravel()
    return gltf.Primitive(
        attributes=attributes, indices=data.add(corners, "SCALAR", target=gltf.ELEMENT_ARRAY_BUFFER), material=0
    )


def normals(body: Body) -> Float[Tensor, "V 3"]:
    """Unit normals (V, 3) of the rest pose: the mean over a vertex's faces, by area."""
    corner = body.v_template_V3[body.faces_F3]
    face_F3 = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = torch.zeros_like(body.v_template_V3)
    for place in range(3):
        total.index_add_(0, body.faces_F3[:, place], face_F3)
    return torch.nn.functional.normalize(total, dim=-1)


def joint_node(gltf: Any, body: Body, joint: int) -> Any:
    """A joint at rest, with its children."""
    parent = PARENTS[joint]
    offset = body.joints_J3[joint] - (body.joints_J3[parent] if joint else 0)
    children = [child for child, its_parent in enumerate(PARENTS) if its_parent == joint]
    return gltf.Node(name=JOINTS[joint], translation=offset.tolist(), children=children)


def animation(gltf: Any, data: Buffer, local: Tensor, root_T3: Tensor, *, fps: float) -> Any:
    """A rotation a joint and the root's place over time, linear between frames."""
    times = data.add(np.arange(len(root_T3), dtype=np.float32) / np.float32(fps), "SCALAR", bounds=True)
    wxyz = matrix_to_quaternion(local)
    xyzw = same_sign(wxyz.roll(-1, dims=-1)).float()
    tracks = [("rotation", data.add(xyzw[:, joint].numpy(), "VEC4"), joint) for joint in range(24)]
    tracks.append(("translation", data.add(root_T3.float().numpy(), "VEC3"), 0))
    return gltf.Animation(
        name="motion",
        samplers=[gltf.AnimationSampler(input=times, output=output, interpolation="LINEAR") for _, output, _ in tracks],
        channels=[
            gltf.AnimationChannel(sampler=number, target=gltf.AnimationChannelTarget(node=node, path=path))
            for number, (path, _, node) in enumerate(tracks)
        ],
    )


def write_video(path: Path, motion: Motion, looks: RenderOptions) -> None:
    """An MP4 of every frame at the motion's rate."""
    write_mp4(path, pictures(motion, looks), motion.fps)


def write_gif(path: Path, motion: Motion, looks: RenderOptions) -> None:
    """A GIF that loops, as fast as the motion: every n-th frame, so that no browser takes a delay for a mistake."""
    shown, delays = gif_frames(len(motion.trans_T3), motion.fps)
    first, *others = (Image.fromarray(picture).quantize(GIF_COLOURS) for picture in pictures(motion, looks, shown))
    first.save(path, save_all=True, append_images=others, duration=delays, loop=0)


def gif_frames(frames: int, fps: float) -> tuple[list[int], list[int]]:
    """Which of a motion's frames a GIF shows, and for how many milliseconds each.

    A GIF counts hundredths of a second, and browsers read 0 and 1 of them as 10. So at most 50 frames a second are
    shown, each until the hundredth that is nearest to the next one's time: rounding never adds up.
    """
    shown = list(range(0, frames, max(1, math.ceil(fps / GIF_FPS - 1e-6))))
    begins = [round(100 * frame / fps) for frame in (*shown, frames)]
    return shown, [10 * max(end - start, 100 // GIF_FPS) for start, end in itertools.pairwise(begins)]


def write_strip(path: Path, motion: Motion, looks: RenderOptions) -> None:
    """Evenly spaced frames side by side, cut to the body, with their seconds; above them the joints of the source.

    Those of a file that has another skeleton, or joint places alone.
    """
    rows = [strip(motion, looks)]
    if motion.recording is not None and motion.recording.source:
        shown = evenly(len(motion.trans_T3), STRIP)
        drawn = stick_figures(motion.recording.source, shown, side=STRIP_SIZE)
        skeleton = motion.recording.account.get("skeleton", "")
        rows = [picture_row(drawn, title=f"joints of the file: {skeleton}", captions=[""] * len(shown)), *rows]
    stack(rows).save(path)


def strip(motion: Motion, looks: RenderOptions, *, title: str = "") -> Image.Image:
    """A row of evenly spaced frames, cut to the body, under a title and over their seconds."""
    frames = evenly(len(motion.trans_T3), STRIP)
    drawn = np.stack([*pictures(motion, replace(looks, size=STRIP_SIZE, antialias=2, ground=False), frames)])
    return picture_row(drawn, title=title, captions=[f"{frame / motion.fps:.1f} s" for frame in frames])


def evenly(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()


# Writers by file ending: of a motion, and of its pictures in the looks that are asked for.
DATA = {"npz": write_npz, "bvh": write_bvh, "glb": write_glb}
DRAWN = {"mp4": write_video, "gif": write_gif, "png": write_strip}
