"""Draw the golden pictures of tests/test_backends.py again, after a change that is meant to alter pictures.

    python tests/golden/regenerate.py

Look at every picture before committing it.
"""

# B batch, J joints, S picture side in pixels

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import front_camera
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS

SIZE = 128

STRIDE = {
    "left_hip": (-0.5, 0, 0),
    "right_hip": (0.4, 0, 0),
    "left_knee": (0.3, 0, 0),
    "right_knee": (0.5, 0, 0),
    "left_shoulder": (0, 0, -1.2),
    "right_shoulder": (0, 0, 1.2),
    "left_elbow": (0, -0.4, 0),
    "right_elbow": (0, 0.4, 0),
}
# Name: turn of the upright body in the world (axis-angle, z up), pose, yaw of the camera. The stride differs between
# left and right, so a mirrored picture shows.
SCENES = {
    "t_pose": ((0, 0, 0), {}, 0.0),
    "stride": ((0, 0, 0.7), STRIDE, 0.0),
    "stride_from_its_left": ((0, 0, 0), STRIDE, math.pi / 2),
    "stride_from_behind": ((0, 0, 0), STRIDE, math.pi),
    "bow": ((0.8, 0, 0), STRIDE, 0.0),
    "lying_on_the_back": ((-math.pi / 2, 0, 0), STRIDE, 0.0),
    "upside_down": ((0, math.pi, 0), STRIDE, 0.0),
}


def pose(turn: tuple[float, ...], joints: dict[str, tuple[float, ...]]) -> Tensor:
    """Local rotations (J, 3, 3) of an upright body turned by `turn`, some joints bent; axis-angle in radians."""
    axis_angle_J3 = torch.zeros(len(JOINTS), 3)
    for name, bend in joints.items():
        axis_angle_J3[JOINTS.index(name)] = torch.tensor(bend, dtype=torch.float32)
    rotmat_J33 = axis_angle_to_matrix(axis_angle_J3)
    upright = axis_angle_to_matrix(torch.tensor([math.pi / 2, 0.0, 0.0]))
    rotmat_J33[0] = axis_angle_to_matrix(torch.tensor(turn, dtype=torch.float32)) @ upright
    return rotmat_J33


def poses() -> Tensor:
    """Local rotations (B, J, 3, 3) of all scenes."""
    return torch.stack([pose(turn, joints) for turn, joints, _ in SCENES.values()])


def yaws() -> Tensor:
    """Yaw offsets (B) of all scenes."""
    return torch.tensor([yaw for _, _, yaw in SCENES.values()])


def draw(body: Body, *, size: int = SIZE, backend: str = "cpu") -> Tensor:
    """Pictures (B, S, S, 3) of all scenes."""
    rotmat_BJ33 = poses()
    vertices_BV3 = body.pose(rotmat_BJ33)
    camera = front_camera(rotmat_BJ33[:, 0], vertices_BV3, yaw_offset=yaws())
    return render_bodies(vertices_BV3, body.faces_F3, camera, size=size, backend=backend)


if __name__ == "__main__":
    for name, picture in zip(SCENES, draw(load_body()), strict=True):
        Image.fromarray(picture.numpy()).save(Path(__file__).parent / f"{name}.png", optimize=True)
