"""A recording at an exact frame rate: rotations slerped, translation linear."""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.machine.compiled import compiled


def stride_of(fps: float, target_fps: float) -> int:
    """Every how many frames the paper's release takes one. MotionError where it gives the recording up."""
    stride = max(round(fps / target_fps), 1)
    if abs(fps / stride - target_fps) > 5:
        raise MotionError(f"{fps:g} fps is {fps / stride:g} at a stride of {stride}, expected {target_fps:g} +- 5")
    return stride


def frames_at(frames: int, fps: float, *, target_fps: float, how: str) -> int:
    """Number of frames that `source_times` gives."""
    if how == "stride":
        return -(-frames // stride_of(fps, target_fps))
    # 59.99998856 Hz is 60 Hz of somebody's clock: a thousandth of a frame is not worth losing the last one.
    return math.floor((frames - 1) / fps * target_fps + 1e-3) + 1


def source_times(frames: int, fps: float, *, target_fps: float, how: str) -> Float64[np.ndarray, " N"]:
    """Times of the result's frames, counted in source frames: `slerp` exactly `target_fps`, `stride` as the release."""
    step = stride_of(fps, target_fps) if how == "stride" else fps / target_fps
    count = frames_at(frames, fps, target_fps=target_fps, how=how)
    return np.minimum(np.arange(count) * step, float(frames - 1)).astype(np.float64)


def resample(
    motion: Recording, fps: float, *, how: str = "slerp"
) -> tuple[Float[Tensor, "N joints 6"], Float[Tensor, "N 3"]]:
    """6D rotations (N, J, 6) of the recording's joints, SMPL's 24, and root translation (N, 3) at `fps`, float32.

    Rotations are slerped and translation is linear between the two source frames around each time.
    """
    time_N = source_times(len(motion.trans_T3), motion.fps, target_fps=fps, how=how)
    rot6d_NJD, trans_N3 = (
        np.empty((len(time_N), len(motion.joints), 6), np.float32),
        np.empty((len(time_N), 3), np.float32),
    )
    fill_rows(motion, time_N, rot6d_NJD, trans_N3)
    return torch.from_numpy(rot6d_NJD), torch.from_numpy(trans_N3)


def fill_rows(motion: Recording, time_N: np.ndarray, rot6d_NJD: np.ndarray, trans_N3: np.ndarray) -> None:
    """Write 6D rotations (N, 24, 6) and translations (N, 3) at times counted in source frames."""
    slerp_rows(motion.poses_TK3, np.array(motion.joints), motion.trans_T3, time_N, rot6d_NJD, trans_N3)


# sin(x)/x and (1 - cos(x))/x^2 as series in x^2, highest power first: within 3e-10 up to x^2 = 20, and free of the
# calls and branches that keep a compiler from doing eight joints at a time.
SINE, VERSINE = ([(-1) ** k / math.factorial(2 * k + odd) for k in range(11, -1, -1)] for odd in (1, 2))
SERIES = np.array([SINE, VERSINE])
SERIES_REACH = 20.0


@compiled
def slerp_rows(poses_TK3, joints_J, trans_T3, time_N, rot6d_NJD, trans_N3):  # type: ignore[no-untyped-def]
    """Fill 6D rows and translations at times counted in frames; `rotations.slerp` is its slow twin in the tests."""
    turn_3J, sine_J, versine_J = np.empty((3, len(joints_J))), np.empty(len(joints_J)), np.empty(len(joints_J))
    for n in range(len(time_N)):
        before = int(time_N[n])
        weight = time_N[n] - before
        after = min(before + 1, len(poses_TK3) - 1)
        for axis in range(3):
            trans_N3[n, axis] = trans_T3[before, axis] * (1 - weight) + trans_T3[after, axis] * weight
        if weight > 0:
            slerp_row(poses_TK3[before], poses_TK3[after], joints_J, weight, rot6d_NJD[n])
        else:
            rodrigues_row(poses_TK3[before], joints_J, turn_3J, sine_J, versine_J, rot6d_NJD[n])


@compiled
def rodrigues_row(poses_K3, joints_J, turn_3J, sine_J, versine_J, rot6d_JD):  # type: ignore[no-untyped-def]
    """6D of one frame's axis-angles by Rodrigues' formula, I + sine K + versine K K; the other arrays are scratch."""
    for j in range(len(joints_J)):
        for axis in range(3):
            turn_3J[axis, j] = poses_K3[joints_J[j], axis]
        sine_J[j], versine_J[j] = SERIES[0, 0], SERIES[1, 0]
    x_J, y_J, z_J = turn_3J[0], turn_3J[1], turn_3J[2]
    for k in range(1, SERIES.shape[1]):
        for j in range(len(joints_J)):
            square = x_J[j] * x_J[j] + y_J[j] * y_J[j] + z_J[j] * z_J[j]
            sine_J[j] = sine_J[j] * square + SERIES[0, k]
            versine_J[j] = versine_J[j] * square + SERIES[1, k]
    for j in range(len(joints_J)):
        x, y, z, sine, versine = x_J[j], y_J[j], z_J[j], sine_J[j], versine_J[j]
        square = x * x + y * y + z * z
        if square > SERIES_REACH:
            angle = math.sqrt(square)
            sine, versine = math.sin(angle) / angle, (1 - math.cos(angle)) / square
        rot6d_JD[j, 0] = 1 - versine * (y * y + z * z)
        rot6d_JD[j, 1] = versine * x * y - sine * z
        rot6d_JD[j, 2] = versine * x * z + sine * y
        rot6d_JD[j, 3] = versine * x * y + sine * z
        rot6d_JD[j, 4] = 1 - versine * (x * x + z * z)
        rot6d_JD[j, 5] = versine * y * z - sine * x


@compiled
def quaternion(turn_3):  # type: ignore[no-untyped-def]
    """Unit quaternion (w, x, y, z) of an axis-angle."""
    x, y, z = turn_3[0], turn_3[1], turn_3[2]
    angle = math.sqrt(x * x + y * y + z * z)
    scale = math.sin(angle / 2) / angle if angle > 1e-8 else 0.5
    return math.cos(angle / 2), x * scale, y * scale, z * scale


@compiled
def slerp_row(before_K3, after_K3, joints_J, weight, rot6d_JD):  # type: ignore[no-untyped-def]
    """6D between two frames' axis-angles, `weight` of the way (Shoemake 1985)."""
    for j in range(len(joints_J)):
        w, x, y, z = quaternion(before_K3[joints_J[j]])
        w2, x2, y2, z2 = quaternion(after_K3[joints_J[j]])
        sign = 1.0 if w * w2 + x * x2 + y * y2 + z * z2 >= 0 else -1.0
        chord = math.sqrt((w2 * sign - w) ** 2 + (x2 * sign - x) ** 2 + (y2 * sign - y) ** 2 + (z2 * sign - z) ** 2)
        # The angle between them from their distance: exact where acos of their product loses its digits.
        angle = 2 * math.asin(min(chord / 2, 1.0))
        a, b = 1 - weight, weight
        if angle > 1e-8:
            a, b = math.sin(a * angle) / math.sin(angle), math.sin(b * angle) / math.sin(angle)
        b *= sign
        w, x, y, z = w * a + w2 * b, x * a + x2 * b, y * a + y2 * b, z * a + z2 * b
        scale = 2 / (w * w + x * x + y * y + z * z)
        rot6d_JD[j, 0] = 1 - scale * (y * y + z * z)
        rot6d_JD[j, 1] = scale * (x * y - z * w)
        rot6d_JD[j, 2] = scale * (x * z + y * w)
        rot6d_JD[j, 3] = scale * (x * y + z * w)
        rot6d_JD[j, 4] = 1 - scale * (x * x + z * z)
        rot6d_JD[j, 5] = scale * (y * z - x * w)
