"""Random changes of a batch of crops: mirrored, turned about the vertical, slower or faster. All off by default.

A mirrored crop takes the text with left and right swapped. The store has a vector of that one where it was prepared
with `--mirror`, or by chance; a text that names no side is its own mirror. A crop whose mirrored text is not
sure, or has no vector, is never mirrored, and a mirrored crop has no picture: nobody drew it.
"""

# B batch, T frames, R rows (24 joints and the root's displacement), D rotation numbers (6), X texts, C CLIP width

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mclip.pipeline.geometry.rotations import (
    identity_rot6d,
    matrix_to_quaternion,
    matrix_to_rot6d,
    quaternion_to_matrix,
    rot6d_to_matrix,
    slerp,
)
from mclip.pipeline.geometry.skeleton import MIRRORED
from mclip.pipeline.labels.crop_texts import joined
from mclip.pipeline.labels.mirror import mirror_text as mirrored_text
from mclip.training.data.crops import Batch, Crops, vectors_of
from mclip.training.data.rows import ROOT, joints_of

ROWS = [*MIRRORED, 24]  # the root's displacement stays the last row


@dataclass(frozen=True)
class Augmentation:
    """How much a batch is changed; `mirror`, `yaw` and `speed` as in TrainConfig."""

    mirror: float
    yaw: float
    speed: float
    text_XC: Float[Tensor, "X C"]
    twin_N: Int64[Tensor, " N"]  # of `text_twins`, one more than there are texts

    @classmethod
    def of(cls, crops: Crops, texts: Sequence[str], *, mirror: float, yaw: float, speed: float) -> "Augmentation":
        """The changes of batches of `crops`; `texts` are the store's."""
        # One more entry, without a twin, so that an empty list can be indexed.
        twins = torch.tensor([*text_twins(texts), -1], device=crops.text.device)
        return cls(mirror, yaw, speed, crops.text, twins)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, each of its crops changed by chance; the generator decides."""
        if not (self.mirror or self.yaw or self.speed):
            return batch
        device = batch.motion_BTRD.device
        chance_3B = torch.rand(3, len(batch.window_B), generator=generator, device=device)
        angle_B, rate_B = math.radians(self.yaw) * (2 * chance_3B[1] - 1), 1 + self.speed * (2 * chance_3B[2] - 1)
        if self.mirror:
            batch = self.with_mirrored(batch, chance_3B[0] < self.mirror)
        if self.yaw:
            batch = replace(batch, motion_BTRD=turn_rows(batch.motion_BTRD, angle_B))
        if self.speed:
            motion, mask = change_speed(batch.motion_BTRD, batch.mask_BT, rate_B)
            batch = replace(batch, motion_BTRD=motion, mask_BT=mask, padded=True)
        return batch

    def with_mirrored(self, batch: Batch, which_B: Bool[Tensor, " B"]) -> Batch:
        """The batch with some of its crops mirrored; one whose text's mirror image is not known stays as it is."""
        known_B = (self.twin_N[batch.text_B] >= 0) & (self.twin_N[batch.label_B] >= 0)
        which_B = which_B & (known_B | ~batch.has_text_B)
        text_B, label_B = (
            torch.where(which_B & batch.has_text_B, self.twin_N[n], n) for n in (batch.text_B, batch.label_B)
        )
        motion = torch.where(which_B[:, None, None, None], mirror_rows(batch.motion_BTRD), batch.motion_BTRD)
        return replace(
            batch,
            motion_BTRD=motion,
            has_image_B=batch.has_image_B & ~which_B,
            text_B=text_B,
            text_BC=vectors_of(self.text_XC, text_B),
            label_B=label_B,
            label_BC=vectors_of(self.text_XC, label_B),
        )


def text_twins(texts: Sequence[str]) -> list[int]:
    """The number of every text's mirror image among the texts, -1 where it is not there."""
    number = {text: place for place, text in enumerate(texts)}

    def twin(text: str) -> int:
        other = mirrored_text(text)
        if other is None:
            return -1
        # Joined labels are in alphabetical order, also after their words were swapped.
        return number.get(other, number.get(joined(other.split(" and ")), -1))

    return [twin(text) for text in texts]


def mirror_rows(motion_BTRD: Float[Tensor, "*batch 25 6"]) -> Float[Tensor, "*batch 25 6"]:
    """The motion in a mirror at x = 0: sides swapped, a rotation R becomes M R M with M = diag(-1, 1, 1)."""
    # Computed there, and rows as views: a list, as a tensor or an index, would be sent to the device.
    mirror_3 = 1 - 2 * torch.eye(1, 3, dtype=motion_BTRD.dtype, device=motion_BTRD.device)[0]
    joint_D, root_D = (mirror_3[:2, None] * mirror_3).flatten(), torch.cat((mirror_3, torch.ones_like(mirror_3)))
    sign_RD = torch.stack([joint_D] * 24 + [root_D])
    return torch.stack([motion_BTRD[..., row, :] for row in ROWS], dim=-2) * sign_RD


def turn_rows(motion_BTRD: Float[Tensor, "B T 25 6"], angle_B: Float[Tensor, " B"]) -> Float[Tensor, "B T 25 6"]:
    """The motion turned by an angle (radians) about the world's vertical z, through where the root begins.

    The first two rows of Z R are mixtures of the first two rows of R alone.
    """
    cosine, sine = angle_B.cos(), angle_B.sin()
    turn_B22 = torch.stack((cosine, -sine, sine, cosine), dim=-1).view(-1, 1, 2, 2)
    out = motion_BTRD.clone()
    out[:, :, 0] = (turn_B22 @ motion_BTRD[:, :, 0].unflatten(-1, (2, 3))).flatten(-2)
    out[:, :, ROOT, :2] = (turn_B22 @ motion_BTRD[:, :, ROOT, :2, None])[..., 0]
    return out


def change_speed(
    motion_BTRD: Float[Tensor, "B T 25 6"], mask_BT: Bool[Tensor, "B T"], rate_B: Float[Tensor, " B"]
) -> tuple[Float[Tensor, "B T 25 6"], Bool[Tensor, "B T"]]:
    """The motion `rate` times as fast from its first frame on, and its mask: a faster one ends earlier.

    Rotations are slerped, the root's path is linear between the two frames around each time.
    """
    frames_B1, frame_T = mask_BT.sum(1, keepdim=True), torch.arange(mask_BT.shape[1], device=mask_BT.device)
    time_BT = frame_T * rate_B[:, None]
    mask_now_BT = time_BT <= frames_B1 - 1
    before_BT = time_BT.long().clamp(max=frames_B1 - 1)
    after_BT = (before_BT + 1).clamp(max=frames_B1 - 1)
    weight_BT1 = (time_BT - before_BT).clamp(0, 1)[..., None]
    joints = joints_of(motion_BTRD)
    rotations = torch.where(mask_BT[..., None, None], joints, identity_rot6d(joints))  # padding has zeros
    quaternion = matrix_to_quaternion(rot6d_to_matrix(rotations))
    item_B1 = torch.arange(len(rate_B), device=rate_B.device)[:, None]
    mixed = slerp(quaternion[item_B1, before_BT], quaternion[item_B1, after_BT], weight_BT1[..., None])
    root = motion_BTRD[:, :, ROOT:]
    path = torch.lerp(root[item_B1, before_BT], root[item_B1, after_BT], weight_BT1[..., None])
    motion = torch.cat((matrix_to_rot6d(quaternion_to_matrix(mixed)), path), dim=2)
    return motion * mask_now_BT[..., None, None], mask_now_BT
