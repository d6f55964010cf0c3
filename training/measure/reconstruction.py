"""How well windows come back through the auto-encoder: positions, angles, skin, feet, smoothness."""

# B batch, W windows, T frames, J joints, C CLIP width

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.machine.terminal import tracked
from mclip.training.data.crops import Batch, Crops
from mclip.training.data.rows import joints_of, root_of
from mclip.training.measure.metrics import geodesic_deg, movement_mm, mpjpe_mm, pa_mpjpe_mm
from mclip.training.measure.statistics import Measured, figures_of
from mclip.training.model.network import MotionClip

BATCH = 64
TOES = [JOINTS.index("left_foot"), JOINTS.index("right_foot")]
CONTACT = 0.05  # metres above its lowest place of the crop, under which a toe counts as standing


@dataclass(frozen=True)
class Reconstruction:
    """Windows through the auto-encoder: their vectors and how well they came back."""

    z_WC: np.ndarray
    mpjpe_W: np.ndarray
    geodesic_W: np.ndarray
    text_cosine_W: np.ndarray  # NaN where there is no text
    image_cosine_W: np.ndarray  # NaN where there is no picture
    moved: float  # decoded movement over the source's: near zero is the "static motion" failure
    varied: float  # how much decoded motions differ from one another, over the sources': near zero, all are one

    def measured(self) -> dict[str, Any]:
        """Every figure: those that are means over the windows with their windows."""
        return {
            "mpjpe_mm": Measured(self.mpjpe_W),
            "geodesic_deg": Measured(self.geodesic_W),
            "text_cosine": Measured(self.text_cosine_W),
            "image_cosine": Measured(self.image_cosine_W),
            "movement_ratio": self.moved,
            "z_spread": float(unit(self.z_WC).std(0).mean() * self.z_WC.shape[1] ** 0.5),
        }

    def summary(self) -> dict[str, float]:
        """The figures alone."""
        return figures_of(self.measured())


def through(
    model: MotionClip, batch: Batch, frames: int, *, bfloat16: bool
) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B T 25 6"]]:
    """Vectors (B, C) and decoded motions (B, T, 25, 6) of a batch, in float32; `bfloat16` only inside the model.

    What is measured afterwards must not be: a rotation is off by half a degree in bfloat16.
    """
    with torch.autocast(batch.motion_BTRD.device.type, torch.bfloat16, enabled=bfloat16):
        z_BC = model.encode(batch.motion_BTRD, batch.attended_BT)
        decoded = model.decode(z_BC, frames, batch.attended_BT)
    return z_BC.float(), decoded.float()


def middle_batches(crops: Crops, bar: str = "") -> Iterator[tuple[Batch, torch.Tensor]]:
    """The middle crop of every window, in order, and which of its frames are the source's own (B, T)."""
    time = torch.arange(crops.crop, device=crops.row.device)
    items = torch.arange(len(crops), device=crops.row.device).split(BATCH)
    for item_B in tracked(items, bar, "batches") if bar else items:
        # A window that is longer than a crop was never continued: all frames of its crop are its own.
        yield crops.middle(item_B), time < crops.own_frames[item_B, None]


@torch.inference_mode()
def reconstruct(model: MotionClip, crops: Crops, *, bfloat16: bool = False, bar: str = "") -> Reconstruction:
    """Encode and decode the middle crop of every window; `bfloat16` as `through`, `bar` is what a bar is called."""
    was_training = model.training
    model.eval()
    joints_J3 = load_body().joints_J3.to(crops.row.device)
    columns: list[tuple[torch.Tensor, ...]] = []
    moved = torch.zeros(2, device=crops.row.device)
    moments = torch.zeros(3, 2, crops.crop, len(JOINTS), 3, device=crops.row.device)
    for batch, own_BT in middle_batches(crops, bar):
        z_BC, decoded = through(model, batch, crops.crop, bfloat16=bfloat16)
        found, source = rotmats(decoded, batch), rotmats(batch.motion_BTRD, batch)
        mpjpe = (mpjpe_mm(found, source, joints_J3) * own_BT).sum(1) / own_BT.sum(1)
        angle = (geodesic_deg(found, source) * own_BT).sum(1) / own_BT.sum(1)
        text = F.cosine_similarity(z_BC, batch.text_BC).where(batch.has_text_B, torch.nan)
        image = F.cosine_similarity(z_BC, batch.image_BC).where(batch.has_image_B, torch.nan)
        joints_2BTJ3 = torch.stack([forward_kinematics(each, joints_J3)[1] for each in (found, source)])
        moved += movement_mm(joints_2BTJ3).sum(1)
        own = own_BT[..., None, None]
        powers = (torch.ones_like(joints_2BTJ3), joints_2BTJ3, joints_2BTJ3.square())
        moments += torch.stack([(power * own).sum(1) for power in powers])
        columns.append((z_BC, mpjpe, angle, text, image))
    model.train(was_training)
    z, mpjpe_W, angle_W, text_W, image_W = (
        torch.cat(column).float().cpu().numpy() for column in zip(*columns, strict=True)
    )
    return Reconstruction(
        z, mpjpe_W, angle_W, text_W, image_W, moved=float(moved[0] / moved[1].clamp_min(1e-9)),
        varied=ratio_of_spreads(moments),
    )  # fmt: skip


def ratio_of_spreads(moments: Float[Tensor, "3 2 T J 3"]) -> float:
    """How far joints lie apart over the windows at one time, decoded over source; 1 where there is one window.

    `moments` are count, sum and sum of squares, of decoded and source.
    """
    count, total, squares = moments
    variance = (squares - total.square() / count.clamp_min(1)).clamp_min(0).sum((1, 2, 3))
    return float((variance[0] / variance[1]).sqrt()) if variance[1] > 1e-6 else 1.0


@torch.inference_mode()
def reconstructed(model: MotionClip, crops: Crops, item: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle crop of one window and its reconstruction, both (T, 25, 6) without padding."""
    batch = crops.middle(torch.tensor([item]))
    decoded = model.decode(model.encode(batch.motion_BTRD, batch.mask_BT), crops.crop, batch.mask_BT)
    return batch.motion_BTRD[0][batch.mask_BT[0]], decoded[0][batch.mask_BT[0]]


@torch.inference_mode()
def z_length(model: MotionClip, crops: Crops, most: int = 512) -> float:
    """Mean length of z over the middle crops of up to `most` windows, evenly chosen."""
    was_training = model.training
    model.eval()
    items = torch.linspace(0, len(crops) - 1, min(most, len(crops)), device=crops.row.device).long()
    batches = (crops.middle(item_B) for item_B in items.split(BATCH))
    length = torch.cat([model.encode(batch.motion_BTRD, batch.mask_BT).norm(dim=-1) for batch in batches])
    model.train(was_training)
    return float(length.mean())


def rotmats(motion: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Joint rotations (B, T, 24, 3, 3) of a motion; padding repeats the first frame: it neither moves nor is NaN."""
    joints = joints_of(torch.where(batch.mask_BT[..., None, None], motion, motion[:, :1]))
    return rot6d_to_matrix(joints.float())


@dataclass(frozen=True)
class Quality:
    """What a mean position error does not show, window by window."""

    pa_mpjpe_mm: np.ndarray
    vertex_mm: np.ndarray
    skate_mm_s: np.ndarray  # of the decoded motion, as `foot_skate`; NaN where no toe stands
    source_skate_mm_s: np.ndarray
    jerk: np.ndarray  # of the decoded motion, m/s^3; NaN for a window of under 4 frames
    source_jerk: np.ndarray

    def measured(self) -> dict[str, Measured]:
        """Every figure with its windows."""
        return {each.name: Measured(getattr(self, each.name)) for each in fields(self)}


@torch.inference_mode()
def quality(
    model: MotionClip, crops: Crops, *, fps: float, most: int = 1000, bfloat16: bool = False
) -> Quality:  # fmt: skip
    """`Quality` of up to `most` windows, evenly chosen, on the reduced body; `bfloat16` as `through`."""
    body = load_body("low").to(crops.row.device)
    columns: list[tuple[Tensor, ...]] = []
    time = torch.arange(crops.crop, device=crops.row.device)
    items = torch.linspace(0, len(crops) - 1, min(most, len(crops)), device=crops.row.device).long()
    for item_B in items.split(BATCH):
        batch = crops.middle(item_B)
        _, decoded = through(model, batch, crops.crop, bfloat16=bfloat16)
        mask = time < crops.own_frames[item_B, None]  # only what the source has itself
        pair = [(rotmats(each, batch), root_of(each).float()) for each in (decoded, batch.motion_BTRD)]
        found, wanted = (forward_kinematics(rotmat, body.joints_J3, root_B3=root)[1] for rotmat, root in pair)
        # Roots together, as in MPJPE: where the body goes is another question.
        skin, true_skin = (body.pose(rotmat.flatten(0, 1)).unflatten(0, mask.shape) for rotmat, _ in pair)
        columns.append((
            masked_mean(pa_mpjpe_mm(found, wanted), mask),
            masked_mean(1000 * (skin - true_skin).norm(dim=-1).mean(-1), mask),
            *(foot_skate(each, mask, fps=fps) for each in (found, wanted)),
            *(jerk(each, mask, fps=fps) for each in (found, wanted)),
        ))  # fmt: skip
    return Quality(*(torch.cat(column).cpu().numpy() for column in zip(*columns, strict=True)))


def masked_mean(values_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean over what the mask keeps; NaN where it keeps nothing."""
    return torch.where(mask_BT, values_BT, 0).sum(1) / mask_BT.sum(1)


def foot_skate(
    joints_BTJ3: Float[Tensor, "B T 24 3"], mask_BT: Bool[Tensor, "B T"], *, fps: float
) -> Float[Tensor, " B"]:
    """Mean horizontal speed (B) in mm/s of toes that stand; world z up, metres.

    A toe stands between two frames when it is within CONTACT of its own lowest place of the crop in both.
    """
    toes_BTK3 = joints_BTJ3[:, :, TOES]
    height_BTK = toes_BTK3[..., 2].where(mask_BT[..., None], torch.inf)
    low_BTK = height_BTK < height_BTK.amin((1, 2), keepdim=True) + CONTACT
    standing = low_BTK[:, 1:] & low_BTK[:, :-1]
    speed = 1000 * fps * toes_BTK3[..., :2].diff(dim=1).norm(dim=-1)
    return masked_mean(speed.flatten(1), standing.flatten(1))


def jerk(joints_BTJ3: Float[Tensor, "B T 24 3"], mask_BT: Bool[Tensor, "B T"], *, fps: float) -> Float[Tensor, " B"]:
    """Mean length (B) of the third derivative of the joints' places, m/s^3, by finite differences."""
    third = joints_BTJ3.diff(n=3, dim=1).norm(dim=-1).mean(-1) * fps**3
    return masked_mean(third, mask_BT[:, 3:])
