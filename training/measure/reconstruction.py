"""How well windows come back through the auto-encoder: positions, angles, skin, path, feet, smoothness."""

# B batch, W windows, T frames, J joints, C CLIP width

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.machine.terminal import tracked
from mclip.training.data.crops import Batch, Crops
from mclip.training.data.rows import joints_of, root_of
from mclip.training.measure.metrics import geodesic_deg, movement_mm, mpjpe_mm, pa_mpjpe_mm, turned_deg
from mclip.training.measure.physics import masked_mean, world_figures
from mclip.training.measure.statistics import Measured, figures_of
from mclip.training.model.network import MotionClip

BATCH = 64
# One window that flies or falls must not decide these.
MEDIANS = ("planted_mm_s", "floating_cm", "jerk", "root_jerk", "joint_jerk")
FLASH = 20.0  # degrees by which a body that is turned for a few frames is seen to flash round


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


def encode_decode(
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
    """Encode and decode the middle crop of every window; `bar` is the name of a progress bar."""
    was_training = model.training
    model.eval()
    joints_J3 = load_body().joints_J3.to(crops.row.device)
    columns: list[tuple[torch.Tensor, ...]] = []
    moved = torch.zeros(2, device=crops.row.device)
    moments = torch.zeros(3, 2, crops.crop, len(JOINTS), 3, device=crops.row.device)
    for batch, own_BT in middle_batches(crops, bar):
        z_BC, decoded = encode_decode(model, batch, crops.crop, bfloat16=bfloat16)
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
        z,
        mpjpe_W,
        angle_W,
        text_W,
        image_W,
        moved=float(moved[0] / moved[1].clamp_min(1e-9)),
        varied=ratio_of_spreads(moments),
    )


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
    batch = crops.middle(torch.tensor([item], device=crops.row.device))
    decoded = model.decode(model.encode(batch.motion_BTRD, batch.mask_BT), crops.crop, batch.mask_BT)
    return batch.motion_BTRD[0][batch.mask_BT[0]], decoded[0][batch.mask_BT[0]]


def rotmats(motion: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Joint rotations (B, T, 24, 3, 3) of a motion; padding repeats the first frame: it neither moves nor is NaN."""
    joints = joints_of(torch.where(batch.mask_BT[..., None, None], motion, motion[:, :1]))
    return rot6d_to_matrix(joints.float())


@dataclass(frozen=True)
class Quality:
    """What a mean position error does not show, window by window."""

    turned: np.ndarray  # share of frames in which the whole body is turned by more than FLASH
    pa_mpjpe_mm: np.ndarray
    vertex_mm: np.ndarray
    root_mm: np.ndarray  # mean distance of the decoded root's path from the source's
    decoded: dict[str, np.ndarray]  # `world_figures` of the decoded motions
    source: dict[str, np.ndarray]  # and of their sources

    def measured(self) -> dict[str, Any]:
        """Every figure with its windows, the source's beside it, and over the source's where that says more."""
        own = {name: Measured(values, median=name in MEDIANS) for name, values in self.decoded.items()}
        errors = {name: Measured(getattr(self, name)) for name in ("turned", "pa_mpjpe_mm", "vertex_mm", "root_mm")}
        over = {name: self.decoded[name] / np.maximum(self.source[name], 1e-6) for name in self.source}
        ratios = {
            f"{name.removesuffix('_mm_s')}_ratio": Measured(over[name], median=True)
            for name in ("planted_mm_s", "root_jerk", "joint_jerk")
        }
        source = {f"source_{name}": Measured(each, median=name in MEDIANS) for name, each in self.source.items()}
        return errors | own | ratios | source


@torch.inference_mode()
def quality(model: MotionClip, crops: Crops, *, fps: float, most: int = 1000) -> Quality:
    """`Quality` of up to `most` windows, evenly chosen, on the reduced body.

    In float32, as `generate` decodes: rounded to bfloat16 a path of a metre shivers by millimetres.
    """
    body = load_body("low").to(crops.row.device)
    errors: list[tuple[Tensor, ...]] = []
    worlds: list[tuple[dict[str, Tensor], ...]] = []
    time = torch.arange(crops.crop, device=crops.row.device)
    items = torch.linspace(0, len(crops) - 1, min(most, len(crops)), device=crops.row.device).long()
    for item_B in items.split(BATCH):
        batch = crops.middle(item_B)
        _, decoded = encode_decode(model, batch, crops.crop, bfloat16=False)
        mask = time < crops.own_frames[item_B, None]  # only what the source has itself
        motions = decoded, batch.motion_BTRD
        rotmat, true_rotmat = (rotmats(each, batch) for each in motions)
        found, wanted = (
            posed(turns, root_of(each).float(), body)
            for turns, each in zip((rotmat, true_rotmat), motions, strict=True)
        )
        root, true_root = (joints[:, :, :1] for joints, _ in (found, wanted))
        # Roots together, as in MPJPE: where the body goes is another question.
        off = (found[1] - root) - (wanted[1] - true_root)
        errors.append(
            (
                masked_mean((turned_deg(rotmat, true_rotmat) > FLASH).float(), mask),
                masked_mean(pa_mpjpe_mm(found[0], wanted[0]), mask),
                masked_mean(1000 * off.norm(dim=-1).mean(-1), mask),
                masked_mean(1000 * (root - true_root).norm(dim=-1)[..., 0], mask),
            )
        )
        worlds.append(
            tuple(world_figures(joints, skin[..., 2].amin(-1), mask, fps=fps) for joints, skin in (found, wanted))
        )
    turned_W, pa_mpjpe_W, vertex_W, root_W = (torch.cat(column).cpu().numpy() for column in zip(*errors, strict=True))
    decoded_world, source_world = (joined_columns(each) for each in zip(*worlds, strict=True))
    return Quality(turned_W, pa_mpjpe_W, vertex_W, root_W, decoded_world, source_world)


def posed(
    rotmat: Float[Tensor, "B T J 3 3"], root: Float[Tensor, "B T 3"], body: Body
) -> tuple[Float[Tensor, "B T J 3"], Float[Tensor, "B T V 3"]]:
    """Joints and vertices of a body in the world, metres."""
    joints = forward_kinematics(rotmat, body.joints_J3, root_B3=root)[1]
    skin = body.pose(rotmat.flatten(0, 1), trans_B3=root.flatten(0, 1))
    return joints, skin.unflatten(0, root.shape[:2])


def joined_columns(parts: Sequence[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The figures of all batches, one array each."""
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
