"""Rotations as 6D rows, matrices, axis-angle and quaternions, and slerp between them.

6D is the first two ROWS of the rotation matrix, row by row, as in PyTorch3D and MotionCLIP (Zhou et al., CVPR 2019,
write columns). human_body_prior and roma use columns: same shape, silently wrong. Quaternions are (w, x, y, z).
"""

# D rotation numbers (6)

import torch
from jaxtyping import Float
from torch import Tensor


def rot6d_to_matrix(rot6d: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices (*, 3, 3) from 6D (*, 6) by Gram-Schmidt on the two rows (Zhou et al. 2019, eq. 15).

    Any two rows that are not colinear give a rotation; colinear or zero rows give NaN or a degenerate matrix.
    """
    return torch.stack(rotation_rows(rot6d), dim=-2)


def rotation_rows(rot6d: Tensor, dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    """The three rows of the rotations of 6D numbers that lie along `dim`; each has 3 numbers there."""
    a, b = rot6d.split(3, dim)
    x = unit(a, dim)
    y = unit(b - (x * b).sum(dim, keepdim=True) * x, dim)
    return x, y, torch.linalg.cross(x, y, dim=dim)


def unit(vector: Tensor, dim: int) -> Tensor:
    """Vectors at length 1. On a CPU torch's own norm takes ten times as long where `dim` is not the last."""
    return vector / vector.square().sum(dim, keepdim=True).clamp_min(1e-24).sqrt()


def identity_rot6d(like: Tensor) -> Float[Tensor, "6"]:
    """6D of no rotation, of a tensor's type and on its device: filled there, as a list would have to be sent."""
    return torch.eye(2, 3, dtype=like.dtype, device=like.device).flatten()


def matrix_to_rot6d(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """6D (*, 6) of rotation matrices (*, 3, 3): their first two rows."""
    return rotmat[..., :2, :].flatten(-2)


def axis_angle_to_quaternion(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (*, 4), real part first, from axis-angle (*, 3) in radians."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    # sin(x/2)/x = sinc(x/2pi)/2 is smooth through zero.
    imaginary = axis_angle * (torch.sinc(angle / (2 * torch.pi)) / 2)
    return torch.cat((torch.cos(angle / 2), imaginary), dim=-1)


def quaternion_to_axis_angle(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle (*, 3) in radians, length at most pi, of unit quaternions (*, 4)."""
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    length = imaginary.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, real)
    scale = torch.where(length > 1e-12, angle / length.clamp_min(1e-12), 2 / real.clamp_min(0.5))
    return imaginary * scale


def quaternion_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices (*, 3, 3) of quaternions (*, 4) of any length but zero."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    )
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (*, 4) of rotation matrices (*, 3, 3); the sign is free.

    The largest of the four components is the divisor, so it is exact near 180 degrees too (Shepperd 1978).
    """
    xx, yy, zz = rotmat[..., 0, 0], rotmat[..., 1, 1], rotmat[..., 2, 2]
    # Outer product q q^T times four: its row of largest diagonal is the best-conditioned multiple of q.
    wx = rotmat[..., 2, 1] - rotmat[..., 1, 2]
    wy = rotmat[..., 0, 2] - rotmat[..., 2, 0]
    wz = rotmat[..., 1, 0] - rotmat[..., 0, 1]
    xy = rotmat[..., 1, 0] + rotmat[..., 0, 1]
    xz = rotmat[..., 0, 2] + rotmat[..., 2, 0]
    yz = rotmat[..., 2, 1] + rotmat[..., 1, 2]
    outer = torch.stack(
        (
            1 + xx + yy + zz,
            wx,
            wy,
            wz,
            wx,
            1 + xx - yy - zz,
            xy,
            xz,
            wy,
            xy,
            1 - xx + yy - zz,
            yz,
            wz,
            xz,
            yz,
            1 - xx - yy + zz,
        ),
        dim=-1,
    ).unflatten(-1, (4, 4))
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(outer, largest[..., None, None], dim=-2).squeeze(-2)
    return torch.nn.functional.normalize(row, dim=-1)


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices (*, 3, 3) of axis-angle (*, 3) in radians."""
    return quaternion_to_matrix(axis_angle_to_quaternion(axis_angle))


def matrix_to_axis_angle(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle (*, 3) in radians, length at most pi, of rotation matrices (*, 3, 3)."""
    return quaternion_to_axis_angle(matrix_to_quaternion(rotmat))


def slerp(
    start: Float[Tensor, "*batch 4"], end: Float[Tensor, "*batch 4"], weight: Float[Tensor, "*#batch 1"]
) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (*, 4) on the shorter great circle, `weight` 0 at `start` and 1 at `end` (Shoemake 1985)."""
    dot = (start * end).sum(-1, keepdim=True)
    end = torch.where(dot < 0, -end, end)
    # The half-angle by atan2 of chord lengths keeps its digits where acos(dot) loses them.
    angle = 2 * torch.atan2((end - start).norm(dim=-1, keepdim=True), (end + start).norm(dim=-1, keepdim=True))
    near = torch.sinc(angle / torch.pi)
    mixed = (
        (1 - weight) * torch.sinc((1 - weight) * angle / torch.pi) * start
        + weight * torch.sinc(weight * angle / torch.pi) * end
    ) / near
    return torch.nn.functional.normalize(mixed, dim=-1)


def about_vertical(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations (*, 3, 3) about the vertical by radians, anticlockwise seen from above."""
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, one), dim=-1).unflatten(-1, (3, 3))


def same_sign(quaternion_TJ4: Float[Tensor, "T J 4"]) -> Float[Tensor, "T J 4"]:
    """The same rotations, each by the one of its two quaternions that is nearer to the one before it.

    glTF's own slerp takes the shorter way whatever the sign; programs that blend number by number do not.
    """
    turns_TJ = (quaternion_TJ4[1:] * quaternion_TJ4[:-1]).sum(-1) < 0
    sign_TJ = torch.where(turns_TJ, -1.0, 1.0).cumprod(dim=0)
    return torch.cat((quaternion_TJ4[:1], quaternion_TJ4[1:] * sign_TJ[..., None]))


def geodesic(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle in radians, 0 to pi, between rotation matrices (*, 3, 3)."""
    return matrix_to_axis_angle(a.transpose(-1, -2) @ b).norm(dim=-1)
