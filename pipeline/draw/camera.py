"""Where the camera stands: in front of the body, slightly above, with the whole body inside the picture.

PyTorch3D's convention: x_view = x_world @ R + T, view axes +x left, +y up, +z forward; world z is up (AMASS).
"""

# B batch, P points, T frames

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.machine.compiled import compiled, run_parts

FOV = math.radians(30)
ELEVATION = math.radians(12)  # slightly from above, as in the paper's figures
# Height of the picture at the middle of the body. A fixed height keeps the scale of adults the same in every picture:
# a standing one fills three quarters of it. Only poses that would not fit are seen from further away.
FRAME_METRES = 2.3
BORDER = 0.05  # share of half the picture that stays free on each side


@dataclass(frozen=True, eq=False)
class Camera:
    """Perspective cameras, one a picture.

    R_B33: columns are the camera's left, up and forward axes in the world.
    T_B3: metres, so that x_view = x_world @ R + T.
    focal: focal length in units of half the picture (NDC), 1 / tan(field of view / 2).
    """

    R_B33: Float[Tensor, "batch 3 3"]
    T_B3: Float[Tensor, "batch 3"]
    focal: float = 1 / math.tan(FOV / 2)

    def __len__(self) -> int:
        return len(self.R_B33)

    def __getitem__(self, item: slice | Tensor) -> "Camera":
        """The cameras of a slice or an index tensor."""
        return Camera(self.R_B33[item], self.T_B3[item], focal=self.focal)

    def view(self, points_BP3: Float[Tensor, "batch points 3"]) -> Float[Tensor, "batch points 3"]:
        """Points (B, P, 3) in view axes, metres, of points in the world.

        Products are summed one by one and not by a matmul: TF32 or bfloat16 matmuls (a setting of the process)
        would move vertices by millimetres, and the CPU rasteriser repeats this very order to agree to the bit.
        """
        return rotate(points_BP3, self.R_B33) + self.T_B3[:, None]


def rotate(
    points_BP3: Float[Tensor, "batch points 3"], R_B33: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch points 3"]:
    """points @ R (B, P, 3), summed in a fixed order."""
    x, y, z = points_BP3.unbind(-1)
    rows = R_B33[:, :, None]
    return x[..., None] * rows[:, 0] + y[..., None] * rows[:, 1] + z[..., None] * rows[:, 2]


def facing(root_rotmat_B33: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 2"]:
    """Direction (*, 2) on the ground, not normalised, in which a body shows its front; world z up.

    The pelvis's front (its +z axis) projected on the ground. The nearer that is to the vertical (bowing, lying), the
    more the pelvis's left side takes its place, so a lying body is seen whole from its side. It turns through any
    forward or backward roll without a jump. No continuous choice is free of a jump everywhere; ours lies where a body
    on the ground is rolled about 45 degrees to one side.
    """
    left, front = root_rotmat_B33[..., 0], root_rotmat_B33[..., 2]
    return front[..., :2] + front[..., 2:].abs() ** 6 * left[..., :2]


def front_camera(
    root_rotmat_B33: Float[Tensor, "batch 3 3"],
    points_BP3: Float[Tensor, "batch points 3"],
    *,
    yaw_offset: float | Float[Tensor, " batch"] = 0.0,
    elevation: float = ELEVATION,
    fov: float = FOV,
    margin: float = 0.0,
) -> Camera:
    """A camera for each body, in front of it, looking at the middle of `points_BP3` (its vertices, or its joints).

    `root_rotmat_B33` is the pelvis's world rotation, metres and radians. `yaw_offset` walks the camera around the body,
    anticlockwise seen from above (`orbit(n)` gives n views). `margin` is what lies around the points, for joints about
    0.2 m. Every point is inside the border; the distance grows where FRAME_METRES is too little.
    """
    R_B33 = look_from(facing(root_rotmat_B33), yaw_offset=yaw_offset, elevation=elevation)
    return whole_in_view(R_B33, points_BP3, fov=fov, margin=margin)


def fixed_camera(
    root_rotmat_T33: Float[Tensor, "frames 3 3"],
    points_TP3: Float[Tensor, "frames points 3"],
    *,
    yaw_offsets: Sequence[float] = (0.0,),
    elevation: float = ELEVATION,
    fov: float = FOV,
    margin: float = 0.0,
) -> Camera:
    """Cameras (one for each of `yaw_offsets`) that stand still while a body moves, from its mean front.

    Every point of every frame is inside the border. Arguments as `front_camera`.
    """
    yaw_B = torch.tensor(yaw_offsets, device=points_TP3.device)
    front_B2 = mean_front(root_rotmat_T33).expand(len(yaw_B), 2)
    R_B33 = look_from(front_B2, yaw_offset=yaw_B, elevation=elevation)
    return whole_in_view(R_B33, points_TP3.flatten(0, 1).expand(len(yaw_B), -1, 3), fov=fov, margin=margin)


def whole_in_view(
    R_B33: Float[Tensor, "batch 3 3"], points_BP3: Float[Tensor, "batch points 3"], *, fov: float, margin: float
) -> Camera:
    """Cameras of given rotations that look at the middle of the points from where all are inside the border."""
    # Relative to one of the body's own points, so that a far translation costs no digits.
    anchor_B13 = points_BP3[:, :1]
    middle_B3 = midrange(points_BP3, anchor_B13, R_B33)
    focal = 1 / math.tan(fov / 2)
    needed_B = needed_distance(points_BP3, anchor_B13, R_B33, middle_B3=middle_B3, focal=focal)
    distance_B = with_margin(needed_B, focal=focal, margin=margin)
    target_B3 = rotate(anchor_B13, R_B33)[:, 0] + middle_B3
    forward = torch.nn.functional.pad(distance_B[:, None], (2, 0))
    return Camera(R_B33, forward - target_B3, focal=focal)


def follow_camera(
    root_rotmat_T33: Float[Tensor, "frames 3 3"],
    points_TP3: Float[Tensor, "frames points 3"],
    *,
    fps: float | int,
    seconds: float = 0.5,
    yaw_offset: float = 0.0,
    elevation: float = ELEVATION,
    fov: float = FOV,
    margin: float = 0.0,
) -> Camera:
    """Cameras (one a frame) for a video: from the body's mean front, at one distance, gliding along with the body.

    The target follows the middle of the points smoothed by a Gaussian of `seconds`, so steps and jumps stay visible.
    Every point of every frame is inside the border. Arguments as `front_camera`.
    """
    front_12 = mean_front(root_rotmat_T33)[None]
    R_T33 = look_from(front_12, yaw_offset=yaw_offset, elevation=elevation).expand(len(points_TP3), 3, 3)
    anchor_T13 = points_TP3[:1, :1].expand(len(points_TP3), 1, 3)
    middle_T3 = smooth(midrange(points_TP3, anchor_T13, R_T33), frames=seconds * fps)
    focal = 1 / math.tan(fov / 2)
    needed_T = needed_distance(points_TP3, anchor_T13, R_T33, middle_B3=middle_T3, focal=focal)
    distance = with_margin(needed_T, focal=focal, margin=margin).max()
    target_T3 = rotate(anchor_T13, R_T33)[:, 0] + middle_T3
    forward = torch.nn.functional.pad(distance[None], (2, 0))
    return Camera(R_T33, forward - target_T3, focal=focal)


def mean_front(root_rotmat_T33: Float[Tensor, "frames 3 3"]) -> Float[Tensor, "2"]:
    """The mean direction (2) in which a motion shows its front; its first frame's where it turns round."""
    fronts_T2 = torch.nn.functional.normalize(facing(root_rotmat_T33), dim=-1)
    mean_2 = fronts_T2.mean(0)
    return mean_2 if mean_2.norm() > 0.1 else fronts_T2[0]


def orbit(views: int) -> list[float]:
    """Yaw offsets in radians of `views` cameras evenly around the body, the front one first."""
    return [2 * math.pi * view / views for view in range(views)]


def look_from(
    front_B2: Float[Tensor, "batch 2"], *, yaw_offset: float | Float[Tensor, " batch"], elevation: float
) -> Float[Tensor, "batch 3 3"]:
    """Camera rotations (B, 3, 3) that look at a body from the side of `front_B2`, from above by `elevation` radians.

    A zero front, which has no direction, is taken for the world's +x.
    """
    yaw_B = torch.atan2(front_B2[:, 1], front_B2[:, 0]) + yaw_offset
    sin, cos = yaw_B.sin(), yaw_B.cos()
    rise, level = torch.full_like(sin, math.sin(elevation)), math.cos(elevation)
    forward = torch.stack((-cos * level, -sin * level, -rise), dim=-1)
    up = torch.stack((-cos * rise, -sin * rise, torch.full_like(sin, level)), dim=-1)
    left = torch.stack((sin, -cos, torch.zeros_like(sin)), dim=-1)
    return torch.stack((left, up, forward), dim=-1)


def midrange(
    points_BP3: Float[Tensor, "batch points 3"],
    anchor_B13: Float[Tensor, "batch 1 3"],
    R_B33: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, "batch 3"]:
    """Middle (B, 3) between the smallest and the largest of (points - anchor) @ R."""
    if on_cpu(points_BP3):
        return compiled_map(_midrange, points_BP3, anchor_B13, R_B33, columns=3)
    low, high = torch.aminmax(rotate(points_BP3 - anchor_B13, R_B33), dim=1)
    return (low + high) / 2


def needed_distance(
    points_BP3: Float[Tensor, "batch points 3"],
    anchor_B13: Float[Tensor, "batch 1 3"],
    R_B33: Float[Tensor, "batch 3 3"],
    *,
    middle_B3: Float[Tensor, "batch 3"],
    focal: float,
) -> Float[Tensor, " batch"]:
    """Distance (B) in metres to `middle_B3` from which all points, (points - anchor) @ R, are inside the border."""
    scale = focal / (1 - BORDER)
    if on_cpu(points_BP3):
        steep = np.full((len(points_BP3), 1), scale, np.float32)
        return compiled_map(_needed, points_BP3, anchor_B13, R_B33, middle_B3, torch.from_numpy(steep), columns=1)[:, 0]
    seen_BP3 = rotate(points_BP3 - anchor_B13, R_B33) - middle_B3[:, None]
    return (seen_BP3[..., :2].abs().amax(-1) * scale - seen_BP3[..., 2]).amax(-1)


def with_margin(needed_B: Float[Tensor, " batch"], *, focal: float, margin: float) -> Float[Tensor, " batch"]:
    """Distance (B) for what lies `margin` metres around the points too, and at least that of FRAME_METRES."""
    around = margin * (focal / (1 - BORDER) + 1)
    return (needed_B + around).clamp_min(FRAME_METRES / 2 * focal)


def on_cpu(points_BP3: Tensor) -> bool:
    """Whether the compiled way is open: on a CPU, where no gradient is asked for, in float32."""
    wants_gradient = torch.is_grad_enabled() and points_BP3.requires_grad
    return points_BP3.device.type == "cpu" and points_BP3.dtype == torch.float32 and not wants_gradient


def compiled_map(kernel: Callable[..., None], *inputs: Tensor, columns: int) -> Tensor:
    """Rows (B, columns) that `kernel(*items of inputs, row)` fills, over the items of a batch, on threads."""
    arrays = [tensor.detach().float().contiguous().numpy() for tensor in inputs]
    out = np.empty((len(arrays[0]), columns), np.float32)

    def work(part: slice) -> None:
        kernel(*(array[part] for array in arrays), out[part])

    run_parts(work, items=len(out))
    return torch.from_numpy(out)


# Written out and compiled: the same in torch takes a dozen passes over the vertices, as long as drawing them.
@compiled
def _midrange(points_BP3, anchor_B13, R_B33, out_B3):  # type: ignore[no-untyped-def]
    for item in range(points_BP3.shape[0]):
        R_33 = R_B33[item]
        ax, ay, az = anchor_B13[item, 0, 0], anchor_B13[item, 0, 1], anchor_B13[item, 0, 2]
        low = np.full(3, np.inf, np.float32)
        high = np.full(3, -np.inf, np.float32)
        for p in range(points_BP3.shape[1]):
            x, y, z = points_BP3[item, p, 0] - ax, points_BP3[item, p, 1] - ay, points_BP3[item, p, 2] - az
            for k in range(3):
                value = x * R_33[0, k] + y * R_33[1, k] + z * R_33[2, k]
                low[k] = min(low[k], value)
                high[k] = max(high[k], value)
        for k in range(3):
            out_B3[item, k] = (low[k] + high[k]) / np.float32(2)


@compiled
def _needed(points_BP3, anchor_B13, R_B33, middle_B3, scale_B1, out_B1):  # type: ignore[no-untyped-def]
    for item in range(points_BP3.shape[0]):
        R_33, middle_3, scale = R_B33[item], middle_B3[item], scale_B1[item, 0]
        ax, ay, az = anchor_B13[item, 0, 0], anchor_B13[item, 0, 1], anchor_B13[item, 0, 2]
        most = np.float32(-np.inf)
        for p in range(points_BP3.shape[1]):
            x, y, z = points_BP3[item, p, 0] - ax, points_BP3[item, p, 1] - ay, points_BP3[item, p, 2] - az
            left = x * R_33[0, 0] + y * R_33[1, 0] + z * R_33[2, 0] - middle_3[0]
            up = x * R_33[0, 1] + y * R_33[1, 1] + z * R_33[2, 1] - middle_3[1]
            forward = x * R_33[0, 2] + y * R_33[1, 2] + z * R_33[2, 2] - middle_3[2]
            most = max(most, max(abs(left), abs(up)) * scale - forward)
        out_B1[item, 0] = most


def smooth(track_T3: Float[Tensor, "frames 3"], *, frames: float) -> Float[Tensor, "frames 3"]:
    """A track (T, 3) under a Gaussian of standard deviation `frames`; its ends are continued in a straight line."""
    reach = min(math.ceil(3 * frames), len(track_T3) - 1)
    if reach < 1:
        return track_T3
    # float64: a convolution in TF32, CUDA's default, would shake the camera by millimetres.
    track = track_T3.double()
    offsets = torch.arange(-reach, reach + 1, dtype=track.dtype, device=track.device)
    weights = torch.exp(-(offsets**2) / (2 * frames**2))
    # Point reflection at the ends: a body at constant speed is followed without lag or lead.
    before = 2 * track[:1] - track[1 : reach + 1].flip(0)
    after = 2 * track[-1:] - track[-reach - 1 : -1].flip(0)
    padded = torch.cat((before, track, after)).T[:, None]
    smoothed = torch.nn.functional.conv1d(padded, (weights / weights.sum())[None, None])[:, 0].T
    return smoothed.to(track_T3.dtype)
