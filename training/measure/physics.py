"""What a viewer sees of a body in the world: feet that slide, a body that floats or sinks, a path that shakes."""

# B batch, T frames, J joints, K foot joints

import functools

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mclip.pipeline.geometry.skeleton import FEET

TOE_BELOW_ANKLE = -0.05  # metres by which the toe joint of a flat foot is lower than its ankle
# Share of a motion's frames that may dip below its floor. The single lowest frame is no floor: one that dips by 4 cm
# makes all others float by as much.
DIPS = 0.1


# A foot begins to stand below the first height (m) and share of the speed, and stands until it is above the second. The
# speed is so many times the planted foot's own, within bounds (m/s): decoded feet slide where they should stand, and
# at a bound that lets all of them stand, a real walk's would stand while they are lifted.
HEIGHT, SPEED = (0.02, 0.04), (0.5, 1.0)
OF_PLANTED, SLOWEST, FASTEST = 3.0, 0.3, 1.5
AT_LEAST = 0.1  # seconds that a foot stands
# A foot that steps comes down and rises by so much (m), within the first time (s) of its lowest point before and after.
# That lowest point, of the second time about it, is taken for the floor if it is not higher over it than the last (m).
RISES, SWINGS, TREADS, FLOATS = 0.1, 0.4, 0.25, 0.06


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


def pivot_steps(joints_TJ3: Float[Tensor, "T 24 3"]) -> Float[Tensor, "T 2 2"]:
    """How far either foot goes over the floor from the frame before (T, left and right, xy), metres; zero in the first.

    A foot goes as that joint of it which is the lower one, ankle or toe, over its own height when it is flat: it rolls.
    """
    feet_TNK3 = joints_TJ3[:, FEET].unflatten(1, (2, 2)).transpose(1, 2)
    on_toes_TN = feet_TNK3[..., 1, 2] - feet_TNK3[..., 0, 2] < TOE_BELOW_ANKLE
    steps_TNK2 = torch.nn.functional.pad(feet_TNK3[..., :2].diff(dim=0), (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.where(on_toes_TN[..., None], steps_TNK2[:, :, 1], steps_TNK2[:, :, 0])


def standing_feet(
    joints_TJ3: Float[Tensor, "T 24 3"],
    sole_TN: Float[Tensor, "T 2"],
    *,
    fps: float,
    carries_TN: Bool[Tensor, "T 2"] | None = None,
) -> Bool[Tensor, "T 2"]:
    """In which frames the left and the right foot stand, for AT_LEAST: low and slow, with the hysteresis of HEIGHT.

    `sole_TN` is how high the soles are over the floor, metres. Of feet that carry the body, where these are said, also
    those that step (`stepping`) where it floats or sinks.
    """
    planted = float(planted_speed(joints_TJ3[None], torch.ones(1, len(joints_TJ3), dtype=torch.bool), fps=fps)) / 1000
    most = min(max(OF_PLANTED * planted, SLOWEST), FASTEST)
    speed_TN = fps * pivot_steps(joints_TJ3).norm(dim=-1)
    slower_TN = torch.minimum(speed_TN, torch.cat((speed_TN[1:], speed_TN[-1:])))
    slower_TN[0] = speed_TN[min(1, len(speed_TN) - 1)]
    low_TN = sole_TN.abs()
    if carries_TN is not None:
        low_TN = torch.where(carries_TN, torch.minimum(low_TN, stepping(sole_TN, fps=fps)), low_TN)
    begins, goes_on = (
        (low_TN < height) & (slower_TN < share * most) for height, share in zip(HEIGHT, SPEED, strict=True)
    )
    least = max(1, round(AT_LEAST * fps))  # 3 frames at 30 fps, and at 30.001
    found = torch.zeros_like(begins)
    for foot in range(2):
        for start, stop in runs(goes_on[:, foot]):
            first = start + int(begins[start:stop, foot].float().argmax())
            if begins[start:stop, foot].any() and stop - first >= least:
                found[first:stop, foot] = True
    return found


def stepping(sole_TN: Float[Tensor, "T 2"], *, fps: float) -> Float[Tensor, "T 2"]:
    """How high a sole is over where its own step comes down (T, 2), metres; infinite where it does not step.

    A foot that comes down and goes up again within SWINGS trod on something: a decoded run floats and sinks by as much
    as 8 cm from step to step, and no one floor is under all of them. The ends of a motion count as up.
    """
    tread, swing = (max(1, round(seconds * fps)) for seconds in (TREADS, SWINGS))
    padded = functools.partial(torch.nn.functional.pad, sole_TN.T, value=torch.inf)
    floor_NT = padded((tread, tread)).unfold(1, 2 * tread + 1, 1).amin(-1)
    before_NT, after_NT = (padded(ends).unfold(1, swing + 1, 1).amax(-1) for ends in ((swing, 0), (0, swing)))
    steps_NT = (torch.minimum(before_NT, after_NT) - floor_NT > RISES) & (floor_NT < FLOATS)
    return torch.where(steps_NT, sole_TN.T - floor_NT, torch.inf).T


def runs(mask_T: Bool[Tensor, " T"]) -> list[tuple[int, int]]:
    """The first frame of every run of a mask, and the frame after its last."""
    edges = torch.nn.functional.pad(mask_T.int(), (1, 1)).diff()
    return list(zip((edges > 0).nonzero()[:, 0].tolist(), (edges < 0).nonzero()[:, 0].tolist(), strict=True))


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
