"""What a viewer sees of a body in the world: feet that slide, a body that floats or sinks, a path that shakes."""

# B batch, T frames, J joints, K foot joints

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mclip.pipeline.geometry.skeleton import JOINTS

FEET = [JOINTS.index(name) for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")]
# Share of a motion's frames that may dip below its floor. The single lowest frame is no floor: one that dips by 4 cm
# makes all others float by as much.
DIPS = 0.1


def masked_mean(values_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean over what the mask keeps; NaN where it keeps nothing."""
    return torch.where(mask_BT, values_BT, 0).sum(1) / mask_BT.sum(1)


def masked_quantile(values_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], share: float) -> Float[Tensor, " B"]:
    """Quantile over what the mask keeps; NaN where it keeps nothing."""
    return torch.nanquantile(torch.where(mask_BT, values_BT, torch.nan), share, dim=1)


def planted_speed(
    joints_BTJ3: Float[Tensor, "B T 24 3"], mask_BT: Bool[Tensor, "B T"], *, fps: float
) -> Float[Tensor, " B"]:
    """Median horizontal speed (B) in mm/s of the lowest foot joint, between frames where the same one is the lowest.

    World z up, metres. Near zero for a foot that stands, whatever the other one does; NaN where none stays the lowest.
    """
    feet_BTK3 = joints_BTJ3[:, :, FEET]
    lowest_BT = feet_BTK3[..., 2].argmin(2)
    stays_BT = (lowest_BT[:, 1:] == lowest_BT[:, :-1]) & mask_BT[:, 1:] & mask_BT[:, :-1]
    speed_BTK = 1000 * fps * feet_BTK3[..., :2].diff(dim=1).norm(dim=-1)
    return masked_quantile(speed_BTK.gather(2, lowest_BT[:, 1:, None])[..., 0], stays_BT, 0.5)


def floor_height(lowest_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Where the floor is (B): under the body's lowest points, but for the share DIPS of the frames."""
    return masked_quantile(lowest_BT, mask_BT, DIPS)


def jerk(joints_BTJ3: Float[Tensor, "B T J 3"], mask_BT: Bool[Tensor, "B T"], *, fps: float) -> Float[Tensor, " B"]:
    """Mean length (B) of the third derivative of the joints' places, m/s^3, by finite differences."""
    third = joints_BTJ3.diff(n=3, dim=1).norm(dim=-1).mean(-1) * fps**3
    return masked_mean(third, mask_BT[:, 3:])


def world_figures(
    joints_BTJ3: Float[Tensor, "B T 24 3"], lowest_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], *, fps: float
) -> dict[str, Float[Tensor, " B"]]:
    """Figures of motions in the world, one each; NaN where a motion is too short for one.

    `joints_BTJ3` in metres, z up, and the height of the body's lowest point in every frame. `planted_mm_s`: speed of
    the standing foot. `floating_cm`: median height over the floor. `over_floor`, `under_floor`: share of frames more
    than 5 cm above it, or 3 cm below. `jerk`: of all joints, `root_jerk` of the pelvis, `joint_jerk` of the joints
    about the pelvis, m/s^3.
    """
    root_BT13 = joints_BTJ3[:, :, :1]
    height_BT = lowest_BT - floor_height(lowest_BT, mask_BT)[:, None]
    return {
        "planted_mm_s": planted_speed(joints_BTJ3, mask_BT, fps=fps),
        "floating_cm": 100 * masked_quantile(height_BT, mask_BT, 0.5),
        "over_floor": masked_mean((height_BT > 0.05).float(), mask_BT),
        "under_floor": masked_mean((height_BT < -0.03).float(), mask_BT),
        "jerk": jerk(joints_BTJ3, mask_BT, fps=fps),
        "root_jerk": jerk(root_BT13, mask_BT, fps=fps),
        "joint_jerk": jerk(joints_BTJ3 - root_BT13, mask_BT, fps=fps),
    }
