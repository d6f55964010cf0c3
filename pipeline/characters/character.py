"""A character's file in, the same file with a motion on it out: GLB, VRM, VRMA or BVH."""

# T frames

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from mclip.pipeline.characters.bvh_character import on_bvh
from mclip.pipeline.characters.carry import Carried, Rig
from mclip.pipeline.characters.gltf_character import on_gltf
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.skeletons.frames import Turns, rest_joints
from mclip.pipeline.skeletons.joints import read_map

CHARACTERS = (".glb", ".vrm", ".vrma", ".bvh")
ROUTE = "save it as .glb, an FBX by Blender: workflows/guides/data.md tells how"


@dataclass(frozen=True)
class Worn:
    """A character's file with a motion on it, and how well that went."""

    content: bytes
    rig: Rig
    carried: Carried

    def __str__(self) -> str:
        found = self.rig.found
        joints = len(found.joints)
        share = f"{joints} of SMPL's {len(JOINTS)} joints by {found.how}"
        return f"skeleton {found.skeleton}, {share}, bones within {self.carried.degrees:.2f} degrees"


def wear(
    character: Path,
    rotmat_TJ33: Float[np.ndarray, "T 24 3 3"],
    trans_T3: Float[np.ndarray, "T 3"],
    *,
    fps: float,
    name: str,
    joint_map: str = "",
) -> Worn:
    """A motion (local rotations; the root's translation in metres, z up) on the rig in a file, as its bytes.

    `name` is what the animation is called, `joint_map` a .toml of what SMPL's joints are called. MotionError naming
    the file where it has no skeleton, or one that is not understood.
    """
    if character.suffix.lower() not in CHARACTERS:
        raise MotionError(f"{character}: expected a character: {', '.join(CHARACTERS)}; of others, {ROUTE}")
    try:
        content, mapped = character.read_bytes(), read_map(joint_map)
        turns, place = posed(rotmat_TJ33, trans_T3)
        if character.suffix.lower() == ".bvh":
            return Worn(*on_bvh(content, turns, place, fps=fps, joint_map=mapped))
        return Worn(*on_gltf(content, turns, place, fps=fps, name=name, joint_map=mapped))
    except OSError as error:
        raise MotionError(f"{character}: {error.strerror or error}") from error
    except MotionError as error:
        raise MotionError(f"{character}: {error}") from error


def posed(
    rotmat_TJ33: Float[np.ndarray, "T 24 3 3"], trans_T3: Float[np.ndarray, "T 3"]
) -> tuple[Turns, dict[str, Float[np.ndarray, "T 3"]]]:
    """World turns and places of SMPL's joints by name, z up, metres."""
    world, place = forward_kinematics(torch.from_numpy(rotmat_TJ33), rest_joints(), root_B3=torch.from_numpy(trans_T3))
    turns = {name: world[:, joint].numpy() for joint, name in enumerate(JOINTS)}
    return turns, {name: place[:, joint].numpy() for joint, name in enumerate(JOINTS)}
