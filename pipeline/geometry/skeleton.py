"""SMPL's 24 joints: names, parents, and forward kinematics."""

# B batch, J joints (24)

import torch
from jaxtyping import Float
from torch import Tensor

JOINTS = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
)
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

# SMPL+H has 52 joints; its two index-finger roots stand in for SMPL's hands, as in the paper's release.
SMPLH_JOINTS = (*range(22), 22, 37)
# SMPL-X has 55: jaw and eyes sit between the body and the fingers.
SMPLX_JOINTS = (*range(22), 25, 40)


def mirror_joint(name: str) -> str:
    """The joint on the other side of the body; joints of the middle are their own mirror."""
    swap = {"left": "right", "right": "left"}
    side, _, rest = name.partition("_")
    return f"{swap[side]}_{rest}" if side in swap else name


MIRRORED = tuple(JOINTS.index(mirror_joint(name)) for name in JOINTS)

# The joints of the legs, each left and right; and those of both feet, as a list: a tuple would index four axes.
HIPS, KNEES, ANKLES, TOES = (
    tuple(JOINTS.index(f"{side}_{name}") for side in ("left", "right")) for name in ("hip", "knee", "ankle", "foot")
)
FEET = [*ANKLES, *TOES]


def forward_kinematics(
    rotmat_BJ33: Float[Tensor, "*batch joints 3 3"],
    joints_J3: Float[Tensor, "joints 3"],
    *,
    root_B3: Float[Tensor, "*batch 3"] | None = None,
) -> tuple[Float[Tensor, "*batch joints 3 3"], Float[Tensor, "*batch joints 3"]]:
    """World rotations (*, J, 3, 3) and joint positions (*, J, 3) of local rotations on a rest skeleton.

    `joints_J3` are rest positions in metres. The pelvis stays at its rest place plus `root_B3`, as in
    SMPL, where the translation is added to the posed body.
    """
    world = [rotmat_BJ33[..., 0, :, :]]
    position = [joints_J3[0].expand(*rotmat_BJ33.shape[:-3], 3)]
    for joint in range(1, len(joints_J3)):
        parent = PARENTS[joint]
        bone = joints_J3[joint] - joints_J3[parent]
        world.append(world[parent] @ rotmat_BJ33[..., joint, :, :])
        position.append(position[parent] + world[parent] @ bone)
    positions = torch.stack(position, dim=-2)
    if root_B3 is not None:
        positions = positions + root_B3[..., None, :]
    return torch.stack(world, dim=-3), positions


GENDERS = ("neutral", "female", "male")
