"""Legs that are bent so that an ankle is where it should be: two-bone inverse kinematics.

The knee stays in its plane, the foot keeps its orientation, and no bone changes its length.
"""

# T frames, J joints (24), N legs: left, right

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.geometry.skeleton import ANKLES, HIPS, KNEES, forward_kinematics


def shortest_turn(start: Float[Tensor, "*batch 3"], end: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations (*, 3, 3) that bring directions to others about the axis across both (Rodrigues); not for opposites."""
    a, b = (torch.nn.functional.normalize(each, dim=-1) for each in (start, end))
    x, y, z = torch.linalg.cross(a, b).unbind(-1)
    zero = torch.zeros_like(x)
    across = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    along = (a * b).sum(-1)[..., None, None]
    return torch.eye(3, dtype=a.dtype) + across + across @ across / (1 + along).clamp_min(1e-9)


def bend_legs(
    rotmat_TJ33: Float[Tensor, "T 24 3 3"],
    root_T3: Float[Tensor, "T 3"],
    joints_J3: Float[Tensor, "24 3"],
    *,
    target_TN3: Float[Tensor, "T 2 3"],
) -> Float[Tensor, "T 24 3 3"]:
    """Local rotations (T, 24, 3, 3) of the same motion, but for legs whose ankles are at `target_TN3`.

    Metres; the pelvis of the rest skeleton `joints_J3` is at `root_T3`. A target that is out of reach is looked at by a
    straight leg. A leg whose ankle is at its target stays as it is.
    """
    world, place = forward_kinematics(rotmat_TJ33, joints_J3 - joints_J3[0], root_B3=root_T3)
    hip, knee, ankle = (place[:, each] for each in (HIPS, KNEES, ANKLES))
    swing = shortest_turn(ankle - hip, target_TN3 - hip)
    thigh, shin = turned(swing, knee - hip), turned(swing, ankle - knee)
    front = turned(swing, world[:, HIPS][..., 2])  # where the rest pose looks, and a knee bends to
    bent = bent_thigh(thigh, shin, front, aim_TN3=target_TN3 - hip)
    reached = torch.nn.functional.normalize(target_TN3 - hip, dim=-1) * reach(thigh, shin, target_TN3 - hip)
    hip_world = shortest_turn(thigh, bent) @ swing @ world[:, HIPS]
    knee_world = shortest_turn(shin, reached - bent) @ swing @ world[:, KNEES]
    made = rotmat_TJ33.clone()
    made[:, HIPS] = world[:, :1].mT @ hip_world
    made[:, KNEES] = hip_world.mT @ knee_world
    made[:, ANKLES] = knee_world.mT @ world[:, ANKLES]
    return made


def turned(turn: Float[Tensor, "*batch 3 3"], vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Vectors (*, 3) turned by rotations."""
    return (turn @ vector[..., None])[..., 0]


def reach(
    thigh: Float[Tensor, "*batch 3"], shin: Float[Tensor, "*batch 3"], aim: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 1"]:
    """How far an ankle is from its hip (*, 1) when it is as near to its aim as the bones allow, metres."""
    a, b, wanted = (each.norm(dim=-1, keepdim=True) for each in (thigh, shin, aim))
    return wanted.clamp((a - b).abs(), a + b)


def bent_thigh(
    thigh: Float[Tensor, "*batch 3"],
    shin: Float[Tensor, "*batch 3"],
    front: Float[Tensor, "*batch 3"],
    *,
    aim_TN3: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch 3"]:
    """The thigh (*, 3) of a leg that reaches for its aim, by the law of cosines; thigh and shin lead to the aim's line.

    The knee moves in the plane that it is in. What it is bent by more than before is bent to the front: a leg that is
    straight has no plane, and one that is bent backwards by a hair is not to fold like a bird's.
    """
    axis = torch.nn.functional.normalize(aim_TN3, dim=-1)
    a, b, far = thigh.norm(dim=-1, keepdim=True), shin.norm(dim=-1, keepdim=True), reach(thigh, shin, aim_TN3)
    along = (a**2 + far**2 - b**2) / (2 * far).clamp_min(1e-9)
    height = (a**2 - along**2).clamp_min(0).sqrt()
    aside = thigh - (thigh * axis).sum(-1, keepdim=True) * axis
    ahead = torch.nn.functional.normalize(front - (front * axis).sum(-1, keepdim=True) * axis, dim=-1)
    more = (height - aside.norm(dim=-1, keepdim=True)).clamp_min(1e-12)
    return along * axis + height * torch.nn.functional.normalize(aside + more * ahead, dim=-1)
