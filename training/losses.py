"""MotionCLIP's five losses (Tevet et al. 2022, eq. 1-4), as a dict of named scalars.

The vertex loss needs no vertices: with plain linear blend skinning and a fixed shape, vertex i is A phi_i with the
3 x 4J matrix A = [R_j | P_j - R_j J_j] and phi_i = w_i (x) [vbar_i; 1], so the mean over all V vertices is
|(A - A_hat) L|^2 / 3V with L L^T = sum_i phi_i phi_i^T, a fixed 4J x 4J matrix.
"""

# B batch, T frames, R rows, D rotation numbers (6), J joints, V vertices, C CLIP width

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.skeleton import forward_kinematics


def masked_mean(values_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean over the frames that are no padding."""
    return torch.where(mask_BT, values_BT, 0.0).sum() / mask_BT.sum().clamp_min(1)


def rot6d_loss(
    motion_BTRD: Float[Tensor, "B T R 6"], target_BTRD: Float[Tensor, "B T R 6"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the motion's numbers."""
    return masked_mean((motion_BTRD - target_BTRD).square().mean((-1, -2)), mask_BT)


def velocity_loss(
    motion_BTRD: Float[Tensor, "B T R 6"], target_BTRD: Float[Tensor, "B T R 6"], mask_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the motion's frame-to-frame differences."""
    difference = (motion_BTRD - target_BTRD).diff(dim=1).square().mean((-1, -2))
    return masked_mean(difference, mask_BT[:, 1:])  # padding is at the end: a valid frame follows a valid one


def cosine_loss(
    z_BC: Float[Tensor, "B C"], clip_BC: Float[Tensor, "B C"], has_B: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Mean of 1 - cos(z, CLIP vector) over the items that have one (eq. 2 and 3)."""
    distance = 1 - F.cosine_similarity(z_BC, clip_BC, dim=-1)
    return torch.where(has_B, distance, 0.0).sum() / has_B.sum().clamp_min(1)


class VertexLoss:
    """Mean squared vertex distance of a body without its vertices; exact for skinning without pose correctives."""

    def __init__(
        self,
        *,
        v_template_V3: Float[Tensor, "V 3"],
        joints_J3: Float[Tensor, "J 3"],
        weights_VJ: Float[Tensor, "V J"],
    ):
        homogeneous = F.pad(v_template_V3.double(), (0, 1), value=1.0)
        phi = (weights_VJ.double()[:, :, None] * homogeneous[:, None]).flatten(1)
        # An eigen-decomposition: joints that move no vertex make the matrix singular, where Cholesky stops.
        values, vectors = torch.linalg.eigh(phi.T @ phi / (3 * len(phi)))
        self.root = (vectors * values.clamp_min(0).sqrt()).float()
        self.joints_J3 = joints_J3.float()

    def to(self, device: torch.device) -> "VertexLoss":
        """Move the two constants to a device."""
        self.root, self.joints_J3 = self.root.to(device), self.joints_J3.to(device)
        return self

    def transforms(self, rot6d_BTJD: Float[Tensor, "B T J 6"]) -> Float[Tensor, "B T 3 K"]:
        """The skinning transforms side by side, (B, T, 3, 4J), root at its rest place."""
        rotmat, position = forward_kinematics(rot6d_to_matrix(rot6d_BTJD), self.joints_J3)
        offset = position - (rotmat @ self.joints_J3[..., None]).squeeze(-1)
        return torch.cat((rotmat, offset[..., None]), dim=-1).transpose(-3, -2).flatten(-2)

    def __call__(
        self,
        rot6d_BTJD: Float[Tensor, "B T J 6"],
        target_BTJD: Float[Tensor, "B T J 6"],
        mask_BT: Bool[Tensor, "B T"],
    ) -> Float[Tensor, ""]:
        """The loss in square metres, per coordinate."""
        # Padding holds zeros, whose Gram-Schmidt has no gradient: put any rotation there before, mask it after.
        keep = mask_BT[..., None, None]
        identity = rot6d_BTJD.new_tensor([1.0, 0, 0, 0, 1, 0])
        rot6d, target = (torch.where(keep, x, identity) for x in (rot6d_BTJD, target_BTJD))
        difference = (self.transforms(rot6d) - self.transforms(target)) @ self.root
        return masked_mean(difference.square().sum((-1, -2)), mask_BT)
