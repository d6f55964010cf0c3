"""Files of arrays, told by what is in them: .npz, .npy, and the pickles of estimators; and AMASS's .npz written.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans`
(T, 3), `betas`, `gender` and `mocap_framerate` (SMPL-X: `mocap_frame_rate`); `arrays.FORMS` lists what else is read.
"""

# T frames of the source, K joints of the file, N frames of the result, J joints (24), D rotation numbers (6)

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.files.npz import HEAD, Npz, NpzError, Read, array_of, header_of
from mclip.pipeline.files.pickles import check_pickle
from mclip.pipeline.files.unpickle import ArrayUnpickler, Inert
from mclip.pipeline.files.unpickle import array_of as unpickled
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.recording import MotionError, Recording, require_finite, require_length
from mclip.pipeline.geometry.skeleton import JOINTS, SMPLH_JOINTS
from mclip.pipeline.prepare.arrays import Arrays, Held, frames_and_fps, motion_of, one_motion
from mclip.pipeline.prepare.places import COUNTS, MDM_FPS, are_places, places_of_mdm

MOST_PICKLED = 1 << 30  # bytes of a pickle: a day of SMPL-X
TORCH = "data.pkl"  # in the archive that torch.save writes


def read_motion(path: Path) -> Recording:
    """The motion in a file. MotionError naming the file, what was found and what was expected."""
    try:
        return parse_motion(path.read_bytes())
    except (OSError, MotionError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def parse_motion(content: bytes | memoryview, *, fps_in: float | None = None) -> Recording:
    """The motion in a file's bytes, told by what is in them; `fps_in` is the rate where they say none. MotionError.

    Its rotations may be a view of the bytes.
    """
    view = memoryview(content)
    try:
        arrays = arrays_of(lambda at, length: view[at : at + length], len(view))
        return require_finite(motion_of(arrays, hashlib.sha256(content).digest(), fps_in))
    # A damaged file makes struct, zlib, pickle and numpy's header reader raise nearly anything.
    except Exception as error:
        raise refused(error) from error


def probe_motion(read: Read, size: int, *, fps_in: float | None = None) -> tuple[int, float]:
    """Number of frames and frames per second of a file, from its headers; MotionError as `parse_motion`."""
    try:
        frames, fps = frames_and_fps(arrays_of(read, size), fps_in)
        require_length(frames, fps)
        return frames, fps
    except Exception as error:
        raise refused(error) from error


def arrays_of(read: Read, size: int) -> Arrays:
    """The arrays of a file, by its first bytes."""
    magic = bytes(read(0, 6))
    if magic == np.lib.format.MAGIC_PREFIX:
        return plain_array(read(0, size))
    if magic.startswith(b"PK"):
        npz = Npz(read, size)
        return npz if not any(name.endswith(TORCH) for name in npz) else of_torch(read(0, require_small(size)))
    if magic[:1] == b"\x80":
        pickled = bytes(read(0, require_small(size)))
        check_pickle(pickled)
        return one_motion(plainly_held(ArrayUnpickler(io.BytesIO(pickled)).load()))
    raise MotionError(f"begins with {magic!r}: expected an .npz archive; copy or download it again")


def require_small(size: int) -> int:
    """The size of a pickle; MotionError where it is none of a motion."""
    if size > MOST_PICKLED:
        raise MotionError(f"{size >> 20:,} MB of pickle, at most {MOST_PICKLED >> 20:,}: not a motion")
    return size


def plain_array(content: bytes | memoryview) -> Held:
    """A .npy as an .npz would hold it: poses at the origin, joint places, or what a dict in it has."""
    shape, _, dtype, length = header_of(bytes(content[:HEAD]), "poses", objects=True)
    if dtype.hasobject:
        return of_objects(bytes(content[length:]))
    values = array_of(content, "poses")
    if len(shape) != 3 or shape[2] != 3 or shape[1] not in COUNTS:
        return Held(poses=values, trans=np.zeros((len(values), 3)))
    if are_places(values):
        return Held(places=values)
    raise MotionError(
        f"an array {shape} without a name, and its bones change their length as no joint places do: save rotations as "
        "poses, with trans and fps, in an .npz"
    )


def of_objects(pickled: bytes) -> Held:
    """The arrays of one motion in a .npy of Python objects, read without running anything: MDM's results.npy."""
    check_pickle(pickled)
    found = ArrayUnpickler(io.BytesIO(pickled)).load()
    if not isinstance(found, Inert) or not isinstance(found.state, tuple) or not isinstance(found.state[-1], list):
        raise MotionError("a .npy of Python objects that are no array: expected numbers")
    if len(found.state[-1]) != 1:
        raise MotionError(f"a .npy of {len(found.state[-1]):,} Python objects, expected one dict of arrays, or numbers")
    value = plainly_held(found.state[-1][0])
    places = places_of_mdm(value) if isinstance(value, dict) else None
    return one_motion(value) if places is None else Held(places=places, fps=np.array(MDM_FPS))


def of_torch(content: bytes | memoryview) -> Held:
    """The arrays of one motion in a file of torch.save, read without running anything of it."""
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return one_motion(plainly_held(found))


def plainly_held(value: Any) -> Any:
    """Nested dicts and lists with numpy arrays in place of tensors and of a pickle's stand-ins."""
    if isinstance(value, dict):
        return {name: plainly_held(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plainly_held(each) for each in value]
    if isinstance(value, torch.Tensor):
        return value.detach().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, Inert):
        try:
            return unpickled(value)
        except Exception:  # what holds no numbers is no motion's
            return None
    return value


def plain(error: Exception) -> str:
    """An error's text in our words where numpy's or zipfile's say too little."""
    if isinstance(error, (MotionError, NpzError)):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not a whole .npz file or pickle ({type(error).__name__}: {error}): copy or download it again"


def refused(error: Exception) -> MotionError:
    """Any error as a MotionError; one that is already stays what it is."""
    return error if isinstance(error, MotionError) else MotionError(plain(error))


def write_motion(
    path: Path,
    *,
    rotmat_TJ33: Float[Tensor, "T 24 3 3"],
    trans_T3: Float[Tensor, "T 3"],
    fps: float,
    betas: np.ndarray | None = None,
    gender: str = "neutral",
) -> None:
    """Write an AMASS SMPL+H .npz: what `read_motion` reads. Hands other than their first joint are flat."""
    poses = np.zeros((len(trans_T3), 52, 3))
    poses[:, SMPLH_JOINTS] = rotations.matrix_to_axis_angle(rotmat_TJ33.double()).numpy()
    assert len(SMPLH_JOINTS) == len(JOINTS)
    trans, shape = trans_T3.double().numpy(), np.zeros(16) if betas is None else betas
    write_recording(path, Recording(poses, trans, float(fps), shape, gender, b"", SMPLH_JOINTS))


def write_recording(path: Path, motion: Recording) -> None:
    """Write a recording as AMASS's .npz of its own body model, with its shape, gender and fingers.

    AMASS's `dmpls` (soft tissue) are not read, so they are zeros here.
    """
    frames, joints = motion.poses_TK3.shape[:2]
    smplx: dict[str, Any] = {"mocap_frame_rate": motion.fps, "surface_model_type": "smplx"} if joints == 55 else {}
    np.savez(
        path,
        poses=motion.poses_TK3.reshape(frames, 3 * joints),
        trans=motion.trans_T3,
        betas=motion.betas.astype(np.float64),
        dmpls=np.zeros((frames, 8)),
        gender=motion.gender,
        mocap_framerate=motion.fps,
        **smplx,
    )
