"""AMASS files: what is in them, told by content, and their motion at an exact frame rate.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans`
(T, 3), `betas`, `gender` and `mocap_framerate` (SMPL-X: `mocap_frame_rate`). A plain .npy of poses (T, 72) is read too.
"""

# T frames of the source, K joints of the file, N frames of the result, J joints (24), D rotation numbers (6)

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.files.npz import Npz, NpzError, Read, array_of
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.recording import LAYOUTS, MotionError, Recording
from mclip.pipeline.geometry.skeleton import GENDERS, JOINTS, SMPLH_JOINTS
from mclip.pipeline.machine.compiled import compiled

FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
SLOWEST, FASTEST = 1.0, 1000.0  # frames per second that a recording can have
LARGEST_ANGLE = 100.0  # radians; CMU's own files reach 12
FARTHEST = 1e5  # metres from the origin


def read_motion(path: Path) -> Recording:
    """The motion in a file. MotionError naming the file, what was found and what was expected."""
    try:
        return parse_motion(path.read_bytes())
    except (OSError, MotionError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def parse_motion(content: bytes | memoryview, *, array_fps: float | None = None) -> Recording:
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


def motion_of(arrays: "Npz | PlainArray", sha256: bytes) -> Recording:
    """A checked Recording of an open file."""
    frames, fps = frames_and_fps(arrays)
    poses, trans = numbers_of(arrays, "poses"), numbers_of(arrays, "trans").astype(np.float64)
    if trans.shape != (frames, 3):
        raise MotionError(f"trans has shape {trans.shape}, expected ({frames}, 3), as many as poses")
    joints = LAYOUTS[poses.shape[1]]
    motion = Recording(
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
