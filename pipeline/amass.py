"""AMASS files: what is in them, told by content, and their motion at an exact frame rate.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans` (T, 3),
`betas`, `gender` and `mocap_framerate` (SMPL-X files: `mocap_frame_rate`).
"""

# T frames, J joints (24), D rotation numbers (6)

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline import rotations
from mclip.pipeline.skeleton import JOINTS, SMPLH_JOINTS, SMPLX_JOINTS

GENDERS = ("neutral", "female", "male")
# Joints of a pose vector, by its length.
LAYOUTS = {156: SMPLH_JOINTS, 165: SMPLX_JOINTS, 72: tuple(range(24))}
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
SLOWEST, FASTEST = 1.0, 1000.0  # frames per second that a recording can have
LARGEST = 2 << 30  # bytes of one array: ten hours of SMPL+H at 120 Hz; more is a damaged or hostile file


class MotionError(ValueError):
    """A motion file that cannot be used, and why."""


@dataclass(frozen=True)
class Motion:
    """One recording: local joint rotations as axis-angle in radians, root translation in metres, z up."""

    poses_TJ3: np.ndarray
    trans_T3: np.ndarray
    fps: float
    betas: np.ndarray
    gender: str
    sha256: bytes


def read_motion(path: Path) -> Motion:
    """The motion in an AMASS-layout .npz file. MotionError naming the file, what was found and what was expected."""
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return motion_of(arrays, hashlib.sha256(content).digest())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def plain(error: Exception) -> str:
    """An error's text in our words where numpy's or zipfile's say too little."""
    if isinstance(error, zipfile.BadZipFile | EOFError):
        return f"not a whole .npz file ({error}): copy or download it again"
    if "pickle" in str(error).lower():
        return "holds Python objects, which are never read: expected plain number arrays"
    return str(error.args[0] if error.args else error)


def motion_of(arrays: np.lib.npyio.NpzFile, sha256: bytes) -> Motion:
    """A checked Motion of an open .npz."""
    frames, fps = header_of(arrays)
    poses, trans = arrays["poses"], np.asarray(arrays["trans"], np.float64)
    if trans.shape != (frames, 3):
        raise MotionError(f"trans has shape {trans.shape}, expected ({frames}, 3) as many as poses")
    joints = LAYOUTS[poses.shape[1]]
    # astype after the selection: the hands' numbers are most of the file and nobody needs them.
    poses_TJ3 = poses.reshape(frames, -1, 3)[:, joints].astype(np.float64)
    for name, values in (("poses", poses_TJ3), ("trans", trans)):
        if not np.isfinite(values).all():
            frame = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise MotionError(f"{name} has NaN or infinity, first in frame {frame}")
    if (largest := float(np.abs(poses_TJ3).max())) > 100:
        raise MotionError(f"poses has an angle of {largest:g}, expected radians")
    return Motion(poses_TJ3, trans, fps, betas_of(arrays), gender_of(arrays), sha256)


def header_of(arrays: np.lib.npyio.NpzFile) -> tuple[int, float]:
    """Number of frames and frames per second of an open AMASS .npz, without reading its poses."""
    missing = {"poses", "trans"} - set(arrays.files)
    if missing:
        raise MotionError(f"no {' and no '.join(sorted(missing))} in it, only {sorted(arrays.files)}")
    shape = shape_of(arrays, "poses")
    if len(shape) != 2 or shape[1] not in LAYOUTS:
        raise MotionError(f"poses has shape {shape}, expected (T, {'|'.join(map(str, LAYOUTS))})")
    if shape[0] < 2:
        raise MotionError(f"{shape[0]} frames, expected at least 2")
    rate = next((key for key in FRAME_RATES if key in arrays.files), None)
    if rate is None:
        raise MotionError("no mocap_framerate in it: add the frames per second")
    fps = float(arrays[rate])
    if not SLOWEST <= fps <= FASTEST:
        raise MotionError(f"{rate} is {fps}, expected {SLOWEST:g} to {FASTEST:g}")
    return shape[0], fps


def shape_of(arrays: np.lib.npyio.NpzFile, key: str) -> tuple[int, ...]:
    """Shape of an array in an open .npz from its header alone; refuses one too large to be a motion."""
    assert arrays.zip is not None
    with arrays.zip.open(f"{key}.npy") as member:
        major = np.lib.format.read_magic(member)[0]
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > LARGEST:
        raise MotionError(f"{key} claims shape {shape}, more than {LARGEST >> 30} GB: not a motion")
    if dtype.kind not in "fiu":
        raise MotionError(f"{key} holds {dtype}, expected numbers")
    return tuple(shape)


def probe_motion(path: Path) -> tuple[int, float]:
    """Number of frames and frames per second of a file, from its headers; MotionError as `read_motion`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise MotionError("a single array, expected an .npz archive")
            return header_of(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def betas_of(arrays: np.lib.npyio.NpzFile) -> np.ndarray:
    """The first 16 shape numbers, zeros where the file has fewer."""
    betas = np.zeros(16, np.float32)
    if "betas" in arrays.files:
        found = np.asarray(arrays["betas"], np.float32).ravel()[:16]
        betas[: len(found)] = np.nan_to_num(found)
    return betas


def gender_of(arrays: np.lib.npyio.NpzFile) -> str:
    """`neutral`, `female` or `male`; AMASS writes str, bytes, and bytes printed as str."""
    if "gender" not in arrays.files:
        return "neutral"
    found = arrays["gender"].item()
    name = found.decode() if isinstance(found, bytes) else str(found)
    name = name.removeprefix("b'").removesuffix("'").lower()
    return name if name in GENDERS else "neutral"


def frames_at(frames: int, fps: float, target_fps: float) -> int:
    """Number of frames at `target_fps` that lie within a recording of `frames` at `fps`."""
    # 59.99998856 Hz is 60 Hz of somebody's clock: a thousandth of a frame is not worth losing the last one.
    return int(np.floor((frames - 1) / fps * target_fps + 1e-3)) + 1


def resample(motion: Motion, fps: float) -> tuple[Float[Tensor, "T 24 6"], Float[Tensor, "T 3"]]:
    """6D rotations (T, 24, 6) and root translation (T, 3) at exactly `fps`, float32.

    Rotations are slerped and translation is linear between the two source frames around each time.
    """
    frames = len(motion.poses_TJ3)
    time_T = torch.arange(frames_at(frames, motion.fps, fps), dtype=torch.float64) * (motion.fps / fps)
    before_T = time_T.floor().long().clamp(0, frames - 2)
    weight_T = (time_T - before_T).clamp(0, 1)
    poses_TJ3, trans_T3 = torch.from_numpy(motion.poses_TJ3), torch.from_numpy(motion.trans_T3)
    start, end = (rotations.axis_angle_to_quaternion(poses_TJ3[index]) for index in (before_T, before_T + 1))
    mixed_TJ4 = rotations.slerp(start, end, weight_T[:, None, None])
    rot6d_TJD = rotations.matrix_to_rot6d(rotations.quaternion_to_matrix(mixed_TJ4))
    trans = torch.lerp(trans_T3[before_T], trans_T3[before_T + 1], weight_T[:, None])
    return rot6d_TJD.float(), trans.float()


def write_motion(
    path: Path, *, rotmat_TJ33: Float[Tensor, "T 24 3 3"], trans_T3: Float[Tensor, "T 3"], fps: float
) -> None:
    """Write an AMASS SMPL+H .npz: what `read_motion` reads. Hands other than their first joint are flat."""
    poses = np.zeros((len(trans_T3), 52, 3))
    poses[:, SMPLH_JOINTS] = rotations.matrix_to_axis_angle(rotmat_TJ33.double()).numpy()
    assert len(SMPLH_JOINTS) == len(JOINTS)
    aside = path.with_name(f".{path.stem}.partial.npz")
    np.savez(
        aside,
        poses=poses.reshape(len(poses), 156),
        trans=trans_T3.double().numpy(),
        betas=np.zeros(16),
        dmpls=np.zeros((len(poses), 8)),
        gender="neutral",
        mocap_framerate=float(fps),
    )
    aside.replace(path)
