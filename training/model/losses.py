"""MotionCLIP's five losses (Tevet et al. 2022, eq. 1-4) and three of our own, as a dict of named scalars.

The vertex loss needs no vertices: with plain linear blend skinning and a fixed shape, vertex i is A phi_i with the
3 x 4J matrix A = [R_j | P_j - R_j J_j] and phi_i = w_i (x) [vbar_i; 1], so the mean over all V vertices is
|(A - A_hat) L|^2 / 3V with L L^T = sum_i phi_i phi_i^T, a fixed 4J x 4J matrix. SMPL's pose correctives have no place
in that form: `SkinnedLoss` has them, at the price of the vertices.
"""

# B batch, T frames, N poses (B x T), R rows, D rotation numbers (6), J joints, K = 4J, V vertices, C CLIP width

import itertools
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.geometry.body import Body
from mclip.pipeline.geometry.rotations import identity_rot6d, rot6d_to_matrix, rotation_rows
from mclip.pipeline.geometry.skeleton import FEET, PARENTS, forward_kinematics

# The joints by their depth in the tree: parents of a depth all lie in the depth before it.
DEPTH = [0]
for _parent in PARENTS[1:]:
    DEPTH.append(DEPTH[_parent] + 1)
DEPTHS = [[joint for joint, depth in enumerate(DEPTH) if depth == level] for level in range(max(DEPTH) + 1)]
ENDS = list(itertools.accumulate(len(joints) for joints in DEPTHS))[:-1]
ORDER = [joint for joints in DEPTHS for joint in joints]
PARENTS_BEFORE = [
    [above.index(PARENTS[joint]) for joint in joints] for above, joints in zip(DEPTHS, DEPTHS[1:], strict=False)
]


STANDS = 0.006  # metres from frame to frame, under which a foot stands: 0.18 m/s at 30 fps


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


def squared_loss(
    z_BC: Float[Tensor, "B C"], clip_BC: Float[Tensor, "B C"], has_B: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Mean squared difference of z and CLIP vector over the items that have one."""
    difference = (z_BC - clip_BC).square().mean(-1)
    return torch.where(has_B, difference, 0.0).sum() / has_B.sum().clamp_min(1)


def infonce_loss(
    z_BC: Float[Tensor, "B C"], clip_BC: Float[Tensor, "B C"], has_B: Bool[Tensor, " B"], *, scale: float = 100.0
) -> Float[Tensor, ""]:
    """CLIP's symmetric cross-entropy over the batch (Radford et al. 2021, figure 3), by default at its final scale.

    Items without a vector are neither asked nor offered. Equal CLIP vectors, of two crops with one text, are all right
    answers: each gets an equal share.
    """
    z_BC, clip_BC = F.normalize(z_BC, dim=-1), F.normalize(clip_BC, dim=-1)
    both_BB = has_B[:, None] & has_B
    right_BB = ((clip_BC[:, None] == clip_BC).all(-1) & both_BB).to(z_BC.dtype)
    right_BB = right_BB / right_BB.sum(-1, keepdim=True).clamp_min(1)
    score_BB = (scale * z_BC @ clip_BC.T).masked_fill(~both_BB, -1e4)
    asked = [-(right_BB * score.log_softmax(-1)).sum(-1) for score in (score_BB, score_BB.T)]
    return torch.where(has_B, sum(asked), 0.0).sum() / (2 * has_B.sum().clamp_min(1))


def world_losses(
    joints_BTJ3: Float[Tensor, "B T J 3"], target_BTJ3: Float[Tensor, "B T J 3"], mask_BT: Bool[Tensor, "B T"]
) -> dict[str, Float[Tensor, ""]]:
    """Losses of joints in the world, root path included, in square metres per coordinate.

    `places` of joints, their `steps` from frame to frame, and the steps of `feet` that stand in the target. The paper's
    losses leave the path to 3 of 150 numbers: feet slide on it, and it shakes.
    """
    step_BTJ3, true_step_BTJ3 = joints_BTJ3.diff(dim=1), target_BTJ3.diff(dim=1)
    feet_BTK3, true_feet_BTK3 = (
        torch.stack([each[:, :, foot] for foot in FEET], 2) for each in (step_BTJ3, true_step_BTJ3)
    )
    stands_BTK = (true_feet_BTK3.norm(dim=-1) < STANDS) & mask_BT[:, 1:, None]
    foot_BTK = torch.where(stands_BTK, feet_BTK3.square().mean(-1), 0.0)
    return {
        "places": masked_mean((joints_BTJ3 - target_BTJ3).square().mean((-1, -2)), mask_BT),
        "steps": masked_mean((step_BTJ3 - true_step_BTJ3).square().mean((-1, -2)), mask_BT[:, 1:]),
        "feet": foot_BTK.sum() / (len(FEET) * mask_BT[:, 1:].sum()).clamp_min(1),
    }


CLIP_LOSSES = {"cosine": cosine_loss, "mse": squared_loss, "infonce": infonce_loss}


def without_padding(rot6d_BTJD: Float[Tensor, "B T J 6"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "N J 6"]:
    """All poses (N, J, 6), with no rotation where there is padding: its zeros have no gradient in Gram-Schmidt."""
    return torch.where(mask_BT[..., None, None], rot6d_BTJD, identity_rot6d(rot6d_BTJD)).flatten(0, 1)


class VertexLoss(ABC):
    """Mean squared distance of a body's vertices between two motions, padding left out."""

    def __call__(
        self, rot6d_BTJD: Float[Tensor, "B T J 6"], target_BTJD: Float[Tensor, "B T J 6"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        """The loss in square metres, per coordinate."""
        poses = (without_padding(each, mask_BT) for each in (rot6d_BTJD, target_BTJD))
        return masked_mean(self.distance(*poses).view(mask_BT.shape), mask_BT)

    def with_joints(
        self, rot6d_BTJD: Float[Tensor, "B T J 6"], target_BTJD: Float[Tensor, "B T J 6"], mask_BT: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B T J 3"], Float[Tensor, "B T J 3"]]:
        """The loss, and where the joints of both motions are with the root at its rest place (metres)."""
        poses = (without_padding(each, mask_BT) for each in (rot6d_BTJD, target_BTJD))
        found, wanted = (forward_kinematics(rot6d_to_matrix(each), self.rest_J3)[1] for each in poses)
        loss = self(rot6d_BTJD, target_BTJD, mask_BT)
        return loss, found.unflatten(0, mask_BT.shape), wanted.unflatten(0, mask_BT.shape)

    @property
    @abstractmethod
    def rest_J3(self) -> Float[Tensor, "J 3"]:
        """Rest places of the body's joints, metres."""

    @abstractmethod
    def distance(self, rot6d_NJD: Float[Tensor, "N J 6"], target_NJD: Float[Tensor, "N J 6"]) -> Float[Tensor, " N"]:
        """The loss of every pose, in square metres per coordinate."""


class ClosedFormLoss(VertexLoss):
    """Mean squared vertex distance of a body without its vertices; exact for skinning without pose correctives."""

    def __init__(self, body: Body):
        still = body.to("cpu").double()  # once, and not every GPU has float64
        homogeneous = F.pad(still.v_template_V3, (0, 1), value=1.0)
        phi = (still.weights_VJ[:, ORDER, None] * homogeneous[:, None]).flatten(1)
        # An eigen-decomposition: joints that move no vertex make the matrix singular, where Cholesky stops.
        values, vectors = torch.linalg.eigh(phi.T @ phi / (3 * len(phi)))
        self.root_KK = (vectors * values.clamp_min(0).sqrt()).T.to(body.joints_J3)
        # Kept where the poses are: a list as an index is sent there in every step, and a GPU is waited for.
        self.order_J, *self.parents = (torch.tensor(each, device=body.device) for each in (ORDER, *PARENTS_BEFORE))
        self.body, self.joints_J3, self.place_J = body, body.joints_J3[self.order_J], self.order_J.argsort()

    def transforms(self, rot6d_NJD: Float[Tensor, "N J 6"]) -> Float[Tensor, "K 3 N"]:
        """The columns of all skinning transforms, (4J, 3, N), root at its rest place.

        Poses are the last axis and joints the first, in the order of depth: a product of 3 x 3 matrices is then three
        long multiplications, and a whole depth of the tree is turned by its parents at once.
        """
        rot6d_JDN = rot6d_NJD.index_select(1, self.order_J).permute(1, 2, 0).contiguous()
        rotmat_J33N = torch.stack(rotation_rows(rot6d_JDN, dim=1), dim=2)  # joint, column, row, pose
        offset_J3N = self.joints_J3[..., None] - (rotmat_J33N * self.joints_J3[..., None, None]).sum(1)
        (turn, *turns), (offset, *offsets) = (each.tensor_split(ENDS) for each in (rotmat_J33N, offset_J3N))
        world, place = [turn], [offset]
        for turn, offset, parents in zip(turns, offsets, self.parents, strict=True):
            above, start = world[-1].index_select(0, parents), place[-1].index_select(0, parents)
            world.append((turn[:, :, :, None] * above[:, None]).sum(2))
            place.append((offset[:, :, None] * above).sum(1) + start)
        return torch.cat((torch.cat(world), torch.cat(place)[:, None]), dim=1).flatten(0, 1)

    @property
    def rest_J3(self) -> Float[Tensor, "J 3"]:
        return self.body.joints_J3

    def distance(self, rot6d_NJD: Float[Tensor, "N J 6"], target_NJD: Float[Tensor, "N J 6"]) -> Float[Tensor, " N"]:
        return self.between(self.transforms(rot6d_NJD), self.transforms(target_NJD))

    def between(self, found_K3N: Float[Tensor, "K 3 N"], wanted_K3N: Float[Tensor, "K 3 N"]) -> Float[Tensor, " N"]:
        """The loss of every pose from its transforms and those wanted."""
        difference_KN = (self.root_KK @ (found_K3N - wanted_K3N).flatten(1)).square()
        return difference_KN.sum(0).unflatten(0, (3, -1)).sum(0)

    def with_joints(
        self, rot6d_BTJD: Float[Tensor, "B T J 6"], target_BTJD: Float[Tensor, "B T J 6"], mask_BT: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B T J 3"], Float[Tensor, "B T J 3"]]:
        both = [self.transforms(without_padding(each, mask_BT)) for each in (rot6d_BTJD, target_BTJD)]
        found, wanted = (self.places(each).unflatten(0, mask_BT.shape) for each in both)
        return masked_mean(self.between(*both).view(mask_BT.shape), mask_BT), found, wanted

    def places(self, transforms_K3N: Float[Tensor, "K 3 N"]) -> Float[Tensor, "N J 3"]:
        """Where the transforms bring the rest joints."""
        rest_J4 = F.pad(self.joints_J3, (0, 1), value=1.0)
        place_J3N = (transforms_K3N.unflatten(0, (-1, 4)) * rest_J4[..., None, None]).sum(1)
        return place_J3N[self.place_J].permute(2, 0, 1)


class SkinnedLoss(VertexLoss):
    """Mean squared vertex distance by posing a body's vertices, pose correctives included.

    With `subset`, of so many of them only, drawn anew by the generator in every call: its expectation is the whole.
    """

    def __init__(self, body: Body, *, subset: int | None = None, generator: torch.Generator | None = None):
        self.body, self.subset, self.generator = body, subset, generator

    @property
    def rest_J3(self) -> Float[Tensor, "J 3"]:
        return self.body.joints_J3

    def distance(self, rot6d_NJD: Float[Tensor, "N J 6"], target_NJD: Float[Tensor, "N J 6"]) -> Float[Tensor, " N"]:
        body = self.body if self.subset is None else self.body.part(self.drawn())
        found_NV3, wanted_NV3 = (body.pose(rot6d_to_matrix(each)) for each in (rot6d_NJD, target_NJD))
        return (found_NV3 - wanted_NV3).square().mean((-1, -2))

    def drawn(self) -> Int64[Tensor, " chosen"]:
        """The vertices of this call, each as likely as any other."""
        all_V = self.body.v_template_V3
        return torch.randperm(len(all_V), generator=self.generator, device=all_V.device)[: self.subset]
