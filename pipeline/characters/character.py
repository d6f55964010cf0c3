"""A character's file in, the same file with a motion on it out: GLB, VRM, VRMA or BVH."""

# T frames

import hashlib
import json
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Character:
    """Somebody's character, as it lies in a file that a motion goes onto."""

    path: Path
    content: bytes
    joint_map: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, joint_map: str = "") -> "Character":
        """The character in a file, tried on at rest: what is read takes any motion.

        `joint_map` is a .toml of what SMPL's joints are called. MotionError naming the file where it has no skeleton,
        or one that is not understood.
        """
        if path.suffix.lower() not in CHARACTERS:
            raise MotionError(f"{path}: expected a character: {', '.join(CHARACTERS)}; of others, {ROUTE}")
        try:
            character = cls(path, path.read_bytes(), read_map(joint_map))
        except OSError as error:
            raise MotionError(f"{path}: {error.strerror or error}") from error
        character.wear(np.broadcast_to(np.eye(3), (1, len(JOINTS), 3, 3)).copy(), np.zeros((1, 3)), fps=1.0, name="")
        return character

    @property
    def sha256(self) -> str:
        """Hash of the file, and of the map that it is read with."""
        return hashlib.sha256(self.content + json.dumps(dict(self.joint_map)).encode()).hexdigest()

    def wear(
        self, rotmat_TJ33: Float[np.ndarray, "T 24 3 3"], trans_T3: Float[np.ndarray, "T 3"], *, fps: float, name: str
    ) -> Worn:
        """A motion (local rotations; the root's translation in metres, z up) on it, as the file's bytes.

        `name` is what the animation is called. MotionError naming the file.
        """
        turns, place = posed(rotmat_TJ33, trans_T3)
        try:
            if self.path.suffix.lower() == ".bvh":
                return Worn(*on_bvh(self.content, turns, place, fps=fps, joint_map=self.joint_map))
            return Worn(*on_gltf(self.content, turns, place, fps=fps, name=name, joint_map=self.joint_map))
        except MotionError as error:
            raise MotionError(f"{self.path}: {error}") from error


def posed(
    rotmat_TJ33: Float[np.ndarray, "T 24 3 3"], trans_T3: Float[np.ndarray, "T 3"]
) -> tuple[Turns, dict[str, Float[np.ndarray, "T 3"]]]:
    """World turns and places of SMPL's joints by name, z up, metres."""
    world, place = forward_kinematics(torch.from_numpy(rotmat_TJ33), rest_joints(), root_B3=torch.from_numpy(trans_T3))
    turns = {name: world[:, joint].numpy() for joint, name in enumerate(JOINTS)}
    return turns, {name: place[:, joint].numpy() for joint, name in enumerate(JOINTS)}
