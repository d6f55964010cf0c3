"""AMASS files: what is in them, told by content, and their motion at an exact frame rate.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans`
(T, 3), `betas`, `gender` and `mocap_framerate` (SMPL-X: `mocap_frame_rate`). A plain .npy of poses (T, 72) is read too.
"""

# T frames of the source, N frames of the result, J joints (24), D rotation numbers (6)

import functools
import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mclip.pipeline import rotations
from mclip.pipeline.compiled import compiled
from mclip.pipeline.skeleton import JOINTS, SMPLH_JOINTS, SMPLX_JOINTS

GENDERS = ("neutral", "female", "male")
# Joints of a pose vector, by its length.
LAYOUTS = {156: SMPLH_JOINTS, 165: SMPLX_JOINTS, 72: tuple(range(24))}
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
SLOWEST, FASTEST = 1.0, 1000.0  # frames per second that a recording can have
LARGEST = 2 << 30  # bytes of one array: ten hours of SMPL+H at 120 Hz; more is a damaged or hostile file
HEAD = 4096  # bytes that hold a .npy's header: numpy's own writes 128
LARGEST_ANGLE = 100.0  # radians; CMU's own files reach 12


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


class View(io.RawIOBase):
    """Bytes in memory as a file, without the copy that BytesIO makes."""

    def __init__(self, data: bytes | memoryview):
        self.data, self.at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.data[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, len(self.data))[whence])
        return self.at


class Npz:
    """The arrays of an .npz by name, plain numbers and text only, each refused before it is unpacked when too large.

    `content` is the whole file where it is in memory: an array that is stored uncompressed is then viewed, not copied.
    """

    def __init__(self, file: io.BufferedIOBase | View, content: bytes | memoryview | None = None):
        self.zip, self.content = zipfile.ZipFile(file), content
        self.members = {info.filename.removesuffix(".npy"): info for info in self.zip.infolist()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array from its header alone."""
        with self.zip.open(self.members[key]) as member:
            return header_of(member.read(HEAD), key)[0]

    def __getitem__(self, key: str) -> np.ndarray:
        info = self.members[key]
        if info.file_size > LARGEST:
            raise MotionError(f"{key} claims {info.file_size >> 30} GB, more than {LARGEST >> 30}: not a motion")
        return array_of(self.payload(info), key)

    def payload(self, info: zipfile.ZipInfo) -> bytes | memoryview:
        """Bytes of a member, their checksum checked."""
        if self.content is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return self.zip.read(info)
        # A local file header is 30 bytes, then name and extra field, whose lengths are its last two numbers.
        name, extra = struct.unpack_from("<HH", self.content, info.header_offset + 26)
        start = info.header_offset + 30 + name + extra
        data = memoryview(self.content)[start : start + info.file_size]
        if zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile(f"checksum of {info.filename} is wrong")
        return data


def header_of(head: bytes, key: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, type and header length of a .npy that begins so; MotionError for no motion."""
    wide = head[6:7] != b"\x01"
    length = 12 + struct.unpack_from("<I", head, 8)[0] if wide else 10 + struct.unpack_from("<H", head, 8)[0]
    shape, fortran, dtype = parsed_header(head[:length])
    if dtype.hasobject:
        raise MotionError(f"{key} holds Python objects, which are never read: expected plain number arrays")
    if math.prod(shape) * dtype.itemsize > LARGEST:
        raise MotionError(f"{key} claims shape {shape}, more than {LARGEST >> 30} GB: not a motion")
    return tuple(shape), fortran, dtype, length


@functools.lru_cache(maxsize=4096)  # numpy parses it as Python, which takes longer than reading a short motion
def parsed_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type that a .npy's header says."""
    file = io.BytesIO(head)
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(file)[0] > 1:
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def array_of(data: bytes | memoryview, key: str) -> np.ndarray:
    """The array in the bytes of a .npy, as a view of them."""
    shape, fortran, dtype, length = header_of(bytes(data[:HEAD]), key)
    flat = np.frombuffer(data, dtype, math.prod(shape), length)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_motion(path: Path) -> Motion:
    """The motion in a file. MotionError naming the file, what was found and what was expected."""
    try:
        return parse_motion(path.read_bytes())
    except (OSError, MotionError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def parse_motion(content: bytes | memoryview, *, array_fps: float | None = None) -> Motion:
    """The motion in a file's bytes, told by what is in them; `array_fps` is a plain array's frame rate. MotionError."""
    try:
        arrays = arrays_of(View(content), content, array_fps)
        return motion_of(arrays, hashlib.sha256(content).digest())
    # A damaged file makes zipfile, zlib and numpy's header reader raise nearly anything.
    except Exception as error:
        raise MotionError(plain(error)) from error


def probe_motion(file: io.BufferedIOBase, *, array_fps: float | None = None) -> tuple[int, float]:
    """Number of frames and frames per second of an open file, from its headers; MotionError as `parse_motion`."""
    try:
        return frames_and_fps(arrays_of(file, None, array_fps))
    except Exception as error:
        raise MotionError(plain(error)) from error


def arrays_of(
    file: io.BufferedIOBase | View, content: bytes | memoryview | None, array_fps: float | None
) -> "Npz | PlainArray":
    """The arrays of a file, by its first bytes."""
    magic = file.read(6)
    file.seek(0)
    if magic == np.lib.format.MAGIC_PREFIX:
        if array_fps is None:
            raise MotionError("a plain array, which says no frame rate: pass --array-fps")
        return PlainArray(file.read() if content is None else content, array_fps)
    if not magic.startswith(b"PK"):
        raise MotionError(f"begins with {magic!r}: expected an .npz archive; copy or download it again")
    return Npz(file, content)


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
    if isinstance(error, MotionError):
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
    poses_TJ3 = np.empty((frames, len(JOINTS), 3))
    largest = take_joints(native(poses), np.array(LAYOUTS[poses.shape[1]]), poses_TJ3)
    for name, values in (("poses", poses_TJ3), ("trans", trans)):
        if not np.isfinite(values.sum()):
            frame = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise MotionError(f"{name} has NaN or infinity, first in frame {frame}")
    if largest > LARGEST_ANGLE:
        raise MotionError(f"poses has an angle of {largest:g}, expected radians, at most {LARGEST_ANGLE:g}")
    if (largest := float(np.abs(trans).max())) > 1e5:
        raise MotionError(f"trans reaches {largest:g}, expected metres")
    return Motion(poses_TJ3, trans, fps, betas_of(arrays), gender_of(arrays), sha256)


def native(poses: np.ndarray) -> np.ndarray:
    """The same numbers as the compiler takes them: as they are, for nearly every file."""
    return poses if poses.dtype == np.float64 and poses.flags.c_contiguous else np.ascontiguousarray(poses, np.float64)


@compiled
def take_joints(poses_TP, joints_J, poses_TJ3):  # type: ignore[no-untyped-def]
    """Copy the joints of every pose, and return the largest number: one pass, for the hands are most of the file."""
    largest = 0.0
    for t in range(len(poses_TP)):
        for j in range(len(joints_J)):
            for axis in range(3):
                value = poses_TP[t, 3 * joints_J[j] + axis]
                poses_TJ3[t, j, axis] = value
                largest = max(largest, abs(value))
    return largest


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


def source_times(frames: int, fps: float, *, target_fps: float, how: str) -> Float64[np.ndarray, " N"]:
    """Times of the result's frames, counted in source frames: `slerp` exactly `target_fps`, `stride` as the release."""
    if how == "stride":
        return np.arange(0, frames, stride_of(fps, target_fps), dtype=np.float64)
    # 59.99998856 Hz is 60 Hz of somebody's clock: a thousandth of a frame is not worth losing the last one.
    count = math.floor((frames - 1) / fps * target_fps + 1e-3) + 1
    return np.minimum(np.arange(count) * (fps / target_fps), float(frames - 1)).astype(np.float64)


def resample(motion: Motion, fps: float, *, how: str = "slerp") -> tuple[Float[Tensor, "N 24 6"], Float[Tensor, "N 3"]]:
    """6D rotations (N, 24, 6) and root translation (N, 3) at `fps`, float32.

    Rotations are slerped and translation is linear between the two source frames around each time.
    """
    time_N = source_times(len(motion.poses_TJ3), motion.fps, target_fps=fps, how=how)
    rot6d_NJD = np.empty((len(time_N), motion.poses_TJ3.shape[1], 6), np.float32)
    trans_N3 = np.empty((len(time_N), 3), np.float32)
    slerp_rows(motion.poses_TJ3, motion.trans_T3, time_N, rot6d_NJD, trans_N3)
    return torch.from_numpy(rot6d_NJD), torch.from_numpy(trans_N3)


@compiled
def quaternion(x, y, z):  # type: ignore[no-untyped-def]
    """Unit quaternion (w, x, y, z) of an axis-angle."""
    angle = math.sqrt(x * x + y * y + z * z)
    scale = math.sin(angle / 2) / angle if angle > 1e-8 else 0.5
    return math.cos(angle / 2), x * scale, y * scale, z * scale


@compiled
def slerp_rows(poses_TJ3, trans_T3, time_N, rot6d_NJD, trans_N3):  # type: ignore[no-untyped-def]
    """Fill 6D rows and translations at times counted in frames; `rotations.slerp` is its slow twin in the tests."""
    for n in range(len(time_N)):
        before = int(time_N[n])
        weight = time_N[n] - before
        after = min(before + 1, len(poses_TJ3) - 1)
        for axis in range(3):
            trans_N3[n, axis] = trans_T3[before, axis] * (1 - weight) + trans_T3[after, axis] * weight
        for j in range(poses_TJ3.shape[1]):
            w, x, y, z = quaternion(poses_TJ3[before, j, 0], poses_TJ3[before, j, 1], poses_TJ3[before, j, 2])
            if weight > 0:
                w2, x2, y2, z2 = quaternion(poses_TJ3[after, j, 0], poses_TJ3[after, j, 1], poses_TJ3[after, j, 2])
                sign = 1.0 if w * w2 + x * x2 + y * y2 + z * z2 >= 0 else -1.0
                chord = math.sqrt((w2 * sign - w) ** 2 + (x2 * sign - x) ** 2 + (y2 * sign - y) ** 2
                                  + (z2 * sign - z) ** 2)  # fmt: skip
                # The angle between them from their distance: exact where acos of their product loses its digits.
                angle = 2 * math.asin(min(chord / 2, 1.0))
                a, b = 1 - weight, weight
                if angle > 1e-8:
                    a, b = math.sin(a * angle) / math.sin(angle), math.sin(b * angle) / math.sin(angle)
                b *= sign
                w, x, y, z = w * a + w2 * b, x * a + x2 * b, y * a + y2 * b, z * a + z2 * b
            scale = 2 / (w * w + x * x + y * y + z * z)
            rot6d_NJD[n, j, 0] = 1 - scale * (y * y + z * z)
            rot6d_NJD[n, j, 1] = scale * (x * y - z * w)
            rot6d_NJD[n, j, 2] = scale * (x * z + y * w)
            rot6d_NJD[n, j, 3] = scale * (x * y + z * w)
            rot6d_NJD[n, j, 4] = 1 - scale * (x * x + z * z)
            rot6d_NJD[n, j, 5] = scale * (y * z - x * w)


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
