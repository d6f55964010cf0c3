"""BVH files -> SMPL's joints: parsed by pybvh, bones matched by name, rest poses by the directions of their bones."""

# T frames, J joints (24)

import functools
import hashlib
import io
import itertools
import re
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS

# What SMPL's joints are called elsewhere: Mixamo and CMU, then Truebones and others; compared without case and signs.
NAMES = {
    "pelvis": ("hips", "hip", "root"),
    "hip": ("upleg", "upperleg", "thigh"),
    "knee": ("leg", "lowerleg", "shin", "calf"),
    "ankle": ("foot",),
    "foot": ("toebase", "toe", "toes"),
    "neck": ("neck", "neck1"),
    "head": ("head",),
    "collar": ("shoulder", "clavicle"),
    "shoulder": ("arm", "upperarm", "uparm"),
    "elbow": ("forearm", "lowerarm", "lowarm"),
    "wrist": ("hand",),
    "hand": ("handmiddle1", "handindex1", "fingerbase"),
}
# The joint that a bone points at, where it is not the only child.
TOWARDS = {"pelvis": "spine1", "spine3": "neck", "neck": "head"}
Z_UP = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)


def probe_motion(file: io.BufferedIOBase | io.FileIO) -> tuple[int, float]:
    """Number of frames and frames per second of an open BVH file, from the head of its MOTION part; MotionError."""
    text = file.read(1 << 20)
    frames, time = re.search(rb"Frames:\s*(\d+)", text), re.search(rb"Frame Time:\s*([\d.eE+-]+)", text)
    if not frames or not time:
        raise MotionError("no `Frames:` and `Frame Time:` in it: expected a BVH file")
    return int(frames[1]), rate_of(float(time[1]))


def rate_of(frame_time: float) -> float:
    """Frames per second; 0.033333 s is 30 of them, written short. MotionError where it is none of a recording."""
    if not 1e-3 <= frame_time <= 1:
        raise MotionError(f"Frame Time is {frame_time:g} s, expected 0.001 to 1")
    fps = 1 / frame_time
    return float(round(fps)) if abs(fps - round(fps)) < 1e-3 * fps else fps


def parse_motion(content: bytes | memoryview) -> Recording:
    """The motion in a BVH file's bytes, on SMPL's joints, in metres, z up. MotionError where that cannot be."""
    import pybvh  # type: ignore[import-untyped,unused-ignore]

    with tempfile.NamedTemporaryFile(suffix=".bvh") as file:  # pybvh reads paths only
        file.write(content)
        file.flush()
        try:
            with warnings.catch_warnings(action="ignore"):  # which way is up is found by `axes_of`
                parsed = pybvh.read_bvh_file(file.name)
        except Exception as error:
            raise MotionError(f"pybvh cannot read it: {error}") from error
    return motion_of(parsed, hashlib.sha256(content).digest())


def motion_of(parsed: Any, sha256: bytes) -> Recording:
    """A parsed BVH on SMPL's joints."""
    parents = parents_of(parsed)
    place = matched(parsed.joint_names, parents)
    rest = torch.from_numpy(parsed.rest_pose_positions()[[parsed.node_index[name] for name in parsed.joint_names]])
    axes = axes_of(rest, place)
    root, local = map(torch.from_numpy, parsed.to_rotmat())
    rotmat = retargeted(local, parents, rest=rest @ axes.T, place=place, axes=axes)
    smpl = rest_joints()
    metres = leg_length(smpl, {name: joint for joint, name in enumerate(JOINTS)}) / leg_length(rest, place)
    trans = root * metres @ (Z_UP @ axes).T - smpl[0]
    poses = matrix_to_axis_angle(rotmat).numpy()
    fps = rate_of(parsed.frame_time)
    return Recording(poses, trans.numpy(), fps, np.zeros(16, np.float32), "neutral", sha256)


def matched(names: list[str], parents: Mapping[int, int]) -> dict[str, int]:
    """SMPL joint -> joint of the file, by name. MotionError when hips, legs or arms are not found."""
    known = {re.sub(r"[^a-z0-9]", "", name.lower().rpartition(":")[2]): joint for joint, name in enumerate(names)}
    place: dict[str, int] = {}
    for joint in JOINTS:
        side, _, part = joint.rpartition("_")
        spellings = (side + each for each in NAMES.get(part, ()))
        candidates = [joint.replace("_", ""), *spellings, *(side[:1] + each for each in NAMES.get(part, ()) if side)]
        found = next((known[each] for each in candidates if each in known and known[each] not in place.values()), None)
        if found is not None and part in NAMES:
            place[joint] = found
    needed = {f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "shoulder", "elbow")}
    if missing := ({"pelvis", "neck"} | needed) - set(place):
        raise MotionError(f"no joint for {', '.join(sorted(missing))} among {', '.join(names[:60])}")
    return place | spine_of(place, parents)


def spine_of(place: Mapping[str, int], parents: Mapping[int, int]) -> dict[str, int]:
    """The spine's joints, by their place between pelvis and neck: files agree on no names for them."""
    chain: list[int] = []
    bone = parents.get(place["neck"])
    while bone is not None and bone != place["pelvis"]:
        chain.insert(0, bone)
        bone = parents.get(bone)
    if len(chain) < 3:
        return dict(zip(("spine1", "spine3"), chain, strict=False))
    return {"spine1": chain[0], "spine2": chain[len(chain) // 2], "spine3": chain[-1]}


def parents_of(parsed: Any) -> dict[int, int]:
    """Joint -> its parent, of a parsed BVH."""
    joints = [node for node in parsed.nodes if not node.is_end_site() and node.parent is not None]
    return {parsed.joint_index[joint.name]: parsed.joint_index[joint.parent.name] for joint in joints}


def axes_of(rest_J3: Float[Tensor, "joints 3"], place: Mapping[str, int]) -> Float[Tensor, "3 3"]:
    """Rotation (3, 3) from the file's rest pose to SMPL's axes: y up, x to the body's left.

    To the nearest quarter turn, for a file's axes are its axes and a bent rest pose must not tilt the world.
    """
    up = rest_J3[place["neck"]] - rest_J3[place["pelvis"]]
    left = rest_J3[place["left_hip"]] - rest_J3[place["right_hip"]]
    x, y = (
        torch.eye(3, dtype=torch.float64)[each.abs().argmax()] * each[each.abs().argmax()].sign() for each in (left, up)
    )
    if (x @ y).abs() > 0.5:
        raise MotionError("its rest pose has hips above one another: expected a standing skeleton")
    return torch.stack((x, y, torch.linalg.cross(x, y)))


def retargeted(
    local_TB33: Float[Tensor, "T bones 3 3"], parents: Mapping[int, int], *, rest: Float[Tensor, "bones 3"],
    place: Mapping[str, int], axes: Float[Tensor, "3 3"],
) -> Float[Tensor, "T 24 3 3"]:  # fmt: skip
    """Local rotations (T, 24, 3, 3) of SMPL's joints; a joint that the file lacks moves with its parent.

    A bone b of the file is turned by G; SMPL's bone s by G A, where A turns s onto b by the shortest way.
    """
    world: dict[int, Tensor] = {}
    for bone in range(local_TB33.shape[1]):  # parents come first in a BVH file
        world[bone] = world[parents[bone]] @ local_TB33[:, bone] if bone in parents else local_TB33[:, bone]
    smpl = rest_joints()
    ours: list[Tensor] = []
    align = torch.eye(3, dtype=torch.float64)
    aligned: list[Tensor] = []
    for joint, name in enumerate(JOINTS):
        child = TOWARDS.get(name) or next((JOINTS[c] for c in range(24) if PARENTS[c] == joint), "")
        inherited = aligned[PARENTS[joint]] if joint else align
        if name not in place:
            ours.append(ours[PARENTS[joint]])
            aligned.append(inherited)
            continue
        if child in place and joint:
            inherited = shortest_turn(smpl[JOINTS.index(child)] - smpl[joint], rest[place[child]] - rest[place[name]])
        aligned.append(inherited)
        ours.append(Z_UP @ axes @ world[place[name]] @ axes.T @ inherited)
    return torch.stack([ours[0], *(ours[PARENTS[j]].transpose(-1, -2) @ ours[j] for j in range(1, 24))], dim=1)


def shortest_turn(start_3: Float[Tensor, "3"], end_3: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Rotation (3, 3) that takes one direction to another by the shortest way; opposite or zero ones are left."""
    a, b = (torch.nn.functional.normalize(each, dim=0) for each in (start_3, end_3))
    cross, cosine = torch.linalg.cross(a, b), a @ b
    if cosine < -0.999 or not (a.any() and b.any()):
        return torch.eye(3, dtype=torch.float64)
    x, y, z = cross.tolist()
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + skew + skew @ skew / (1 + cosine)


def leg_length(joints_J3: Float[Tensor, "joints 3"], place: Mapping[str, int]) -> float:
    """Length from hip to ankle, in the joints' unit."""
    leg = [joints_J3[place[f"left_{part}"]] for part in ("hip", "knee", "ankle")]
    return sum(float((a - b).norm()) for a, b in itertools.pairwise(leg))


@functools.cache
def rest_joints() -> Float[Tensor, "24 3"]:
    """Rest joints (24, 3) of the body that mclip ships, in metres."""
    with np.load(ASSETS / "body_low.npz", allow_pickle=False) as body:
        return torch.from_numpy(body["joints"].astype(np.float64))
