"""AMASS files: what is in them, told by content, and their motion at an exact frame rate.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans`
(T, 3), `betas`, `gender` and `mocap_framerate` (SMPL-X: `mocap_frame_rate`). A plain .npy of poses (T, 72) is read too.
"""

# T frames of the source, K joints of the file, N frames of the result, J joints (24), D rotation numbers (6)

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mclip.pipeline import rotations
from mclip.pipeline.compiled import compiled
from mclip.pipeline.npz import Npz, NpzError, Read, array_of
from mclip.pipeline.skeleton import JOINTS, SMPLH_JOINTS, SMPLX_JOINTS

GENDERS = ("neutral", "female", "male")
# Joints of a pose vector, by its length.
LAYOUTS = {156: SMPLH_JOINTS, 165: SMPLX_JOINTS, 72: tuple(range(24))}
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
SLOWEST, FASTEST = 1.0, 1000.0  # frames per second that a recording can have
LARGEST_ANGLE = 100.0  # radians; CMU's own files reach 12
FARTHEST = 1e5  # metres from the origin


class MotionError(ValueError):
    """A motion file that cannot be used, and why."""


@dataclass(frozen=True)
class Motion:
    """One recording: local joint rotations as axis-angle in radians, root translation in metres, z up."""

    poses_TK3: np.ndarray  # of every joint in the file; a view of its bytes where they allow it
    trans_T3: np.ndarray
    fps: float
    betas: np.ndarray
    gender: str
    sha256: bytes
    joints: tuple[int, ...] = LAYOUTS[72]  # which of the file's joints are SMPL's 24

    @property
    def poses_TJ3(self) -> np.ndarray:
        """Rotations (T, 24, 3) of SMPL's joints."""
        return self.poses_TK3[:, self.joints]


def read_motion(path: Path) -> Motion:
    """The motion in a file. MotionError naming the file, what was found and what was expected."""
    try:
        return parse_motion(path.read_bytes())
    except (OSError, MotionError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def parse_motion(content: bytes | memoryview, *, array_fps: float | None = None) -> Motion:
    """The motion in a file's bytes, told by what is in them; `array_fps` is a plain array's frame rate. MotionError.

    Its rotations may be a view of the bytes.
    """
    view = memoryview(content)
    try:
        arrays = arrays_of(lambda at, length: view[at : at + length], len(view), array_fps)
        return motion_of(arrays, hashlib.sha256(content).digest())
    # A damaged file makes struct, zlib and numpy's header reader raise nearly anything.
    except Exception as error:
        raise MotionError(plain(error)) from error


def probe_motion(read: Read, size: int, *, array_fps: float | None = None) -> tuple[int, float]:
    """Number of frames and frames per second of a file, from its headers; MotionError as `parse_motion`."""
    try:
        return frames_and_fps(arrays_of(read, size, array_fps))
    except Exception as error:
        raise MotionError(plain(error)) from error


def arrays_of(read: Read, size: int, array_fps: float | None) -> "Npz | PlainArray":
    """The arrays of a file, by its first bytes."""
    magic = bytes(read(0, 6))
    if magic == np.lib.format.MAGIC_PREFIX:
        if array_fps is None:
            raise MotionError("a plain array, which says no frame rate: pass --array-fps")
        return PlainArray(read(0, size), array_fps)
    if not magic.startswith(b"PK"):
        raise MotionError(f"begins with {magic!r}: expected an .npz archive; copy or download it again")
    return Npz(read, size)


class PlainArray(dict[str, np.ndarray]):
    """A .npy of poses (T, 72) as an .npz would hold it, at the origin."""

    def __init__(self, content: bytes | memoryview, fps: float):
        poses = array_of(content, "poses")
        super().__init__(poses=poses, trans=np.zeros((len(poses), 3)), mocap_framerate=np.array(fps))

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array."""
        return self[key].shape


def plain(error: Exception) -> str:
    """An error's text in our words where numpy's or zipfile's say too little."""
    if isinstance(error, (MotionError, NpzError)):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not a whole .npz file ({type(error).__name__}: {error}): copy or download it again"


def motion_of(arrays: "Npz | PlainArray", sha256: bytes) -> Motion:
    """A checked Motion of an open file."""
    frames, fps = frames_and_fps(arrays)
    poses, trans = numbers_of(arrays, "poses"), numbers_of(arrays, "trans").astype(np.float64)
    if trans.shape != (frames, 3):
        raise MotionError(f"trans has shape {trans.shape}, expected ({frames}, 3), as many as poses")
    joints = LAYOUTS[poses.shape[1]]
    motion = Motion(
        native(poses).reshape(frames, -1, 3), trans, fps, betas_of(arrays), gender_of(arrays), sha256, joints
    )
    if count_beyond(motion.poses_TK3.reshape(-1), LARGEST_ANGLE):
        refuse_beyond("poses", motion.poses_TJ3, LARGEST_ANGLE, "has an angle of {:g}, expected radians, at most 100")
    if count_beyond(trans.reshape(-1), FARTHEST):
        refuse_beyond("trans", trans, FARTHEST, "reaches {:g}, expected metres")
    return motion


def native(poses: np.ndarray) -> np.ndarray:
    """The same numbers as the compiler takes them: as they are, for nearly every file."""
    return poses if poses.dtype == np.float64 and poses.flags.c_contiguous else np.ascontiguousarray(poses, np.float64)


@compiled
def count_beyond(flat, limit):  # type: ignore[no-untyped-def]
    """How many numbers are not within a limit of zero; NaN is not. Counting vectorises."""
    count = 0
    for i in range(len(flat)):
        count += not (abs(flat[i]) <= limit)
    return count


def refuse_beyond(name: str, values: np.ndarray, limit: float, told: str) -> None:
    """MotionError for numbers that are not finite, with the first frame, or beyond the limit; fingers may be."""
    if not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise MotionError(f"{name} has NaN or infinity, first in frame {frame}")
    if (largest := float(np.abs(values).max())) > limit:
        raise MotionError(f"{name} {told.format(largest)}")


def numbers_of(arrays: "Npz | PlainArray", key: str) -> np.ndarray:
    """An array of floating point numbers; MotionError for any other."""
    values = arrays[key]
    if values.dtype.kind != "f":
        raise MotionError(f"{key} holds {values.dtype}, expected floating point numbers")
    return values


def frames_and_fps(arrays: "Npz | PlainArray") -> tuple[int, float]:
    """Number of frames and frames per second of an open file, without reading its poses."""
    if missing := {"poses", "trans"} - set(arrays):
        raise MotionError(f"no {' and no '.join(sorted(missing))} in it, only {sorted(arrays)[:20]}")
    shape = arrays.shape("poses")
    if len(shape) != 2 or shape[1] not in LAYOUTS:
        raise MotionError(f"poses has shape {shape}, expected (T, {'|'.join(map(str, LAYOUTS))})")
    if shape[0] < 2:
        raise MotionError(f"{shape[0]} frames, expected at least 2")
    rate = next((key for key in FRAME_RATES if key in arrays), None)
    if rate is None:
        raise MotionError("no mocap_framerate in it: add the frames per second")
    fps = float(arrays[rate])
    if not SLOWEST <= fps <= FASTEST:
        raise MotionError(f"{rate} is {fps:g}, expected {SLOWEST:g} to {FASTEST:g}")
    return shape[0], fps


def betas_of(arrays: "Npz | PlainArray") -> np.ndarray:
    """The first 16 shape numbers, zeros where the file has fewer."""
    betas = np.zeros(16, np.float32)
    if "betas" in arrays:
        found = np.asarray(arrays["betas"], np.float32).ravel()[:16]
        betas[: len(found)] = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
    return betas


def gender_of(arrays: "Npz | PlainArray") -> str:
    """`neutral`, `female` or `male`; AMASS writes str, bytes, and bytes printed as str."""
    if "gender" not in arrays:
        return "neutral"
    found = arrays["gender"].item()
    name = found.decode() if isinstance(found, bytes) else str(found)
    name = name.removeprefix("b'").removesuffix("'").lower()
    return name if name in GENDERS else "neutral"


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


def resample(motion: Motion, fps: float, *, how: str = "slerp") -> tuple[Float[Tensor, "N 24 6"], Float[Tensor, "N 3"]]:
    """6D rotations (N, 24, 6) and root translation (N, 3) at `fps`, float32.

    Rotations are slerped and translation is linear between the two source frames around each time.
    """
    time_N = source_times(len(motion.trans_T3), motion.fps, target_fps=fps, how=how)
    rot6d_NJD, trans_N3 = np.empty((len(time_N), len(JOINTS), 6), np.float32), np.empty((len(time_N), 3), np.float32)
    fill_rows(motion, time_N, rot6d_NJD, trans_N3)
    return torch.from_numpy(rot6d_NJD), torch.from_numpy(trans_N3)


def fill_rows(motion: Motion, time_N: np.ndarray, rot6d_NJD: np.ndarray, trans_N3: np.ndarray) -> None:
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


def write_motion(
    path: Path, *, rotmat_TJ33: Float[Tensor, "T 24 3 3"], trans_T3: Float[Tensor, "T 3"], fps: float
) -> None:
    """Write an AMASS SMPL+H .npz: what `read_motion` reads. Hands other than their first joint are flat."""
    poses = np.zeros((len(trans_T3), 52, 3))
    poses[:, SMPLH_JOINTS] = rotations.matrix_to_axis_angle(rotmat_TJ33.double()).numpy()
    assert len(SMPLH_JOINTS) == len(JOINTS)
    np.savez(
        path,
        poses=poses.reshape(len(poses), 156),
        trans=trans_T3.double().numpy(),
        betas=np.zeros(16),
        dmpls=np.zeros((len(poses), 8)),
        gender="neutral",
        mocap_framerate=float(fps),
    )
