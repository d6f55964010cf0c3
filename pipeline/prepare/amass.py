"""Files of arrays, told by what is in them: .npz, .npy, and the pickles of estimators; and AMASS's .npz written.

An AMASS file is an .npz with `poses` (T, 156) axis-angle of SMPL+H, (T, 165) of SMPL-X, or (T, 72) of SMPL, `trans`
(T, 3), `betas`, `gender` and `mocap_framerate` (SMPL-X: `mocap_frame_rate`); `arrays.FORMS` lists what else is read.
"""

# T frames of the source, K joints of the file, N frames of the result, J joints (24), D rotation numbers (6)

import functools
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.files.nested import TORCH, is_nested, read_nested
from mclip.pipeline.files.npz import HEAD, Npz, NpzError, Read, array_of, header_of
from mclip.pipeline.forms.arrays import MOTION_X, Arrays, Held, frames_and_fps, motion_of, of_features, of_motion_x
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.forms.humanml3d import FEATURES
from mclip.pipeline.forms.joint_sets import COUNTS
from mclip.pipeline.forms.people import motions_in, require_member
from mclip.pipeline.forms.places import set_of
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.recording import MotionError, Recording, require_finite, require_length
from mclip.pipeline.geometry.skeleton import JOINTS, SMPLH_JOINTS

ROTATED = (22, 24)  # numbers of joints that both rotations and places are written of


def read_motion(path: Path) -> Recording:
    """The motion in a file. MotionError naming the file, what was found and what was expected."""
    try:
        return parse_motion(path.read_bytes())
    except (OSError, MotionError) as error:
        raise MotionError(f"{path}: {plain(error)}") from error


def parse_motion(content: bytes | memoryview, asked: Asked = NOTHING, *, member: str = "") -> Recording:
    """The motion in a file's bytes, told by what is in them; `member` is which of several. MotionError.

    Its rotations may be a view of the bytes.
    """
    view = memoryview(content)
    try:
        if is_pack(bytes(view[: np.lib.format.MAGIC_LEN + HEAD])):
            sha256, motions = pack_of(bytes(content))
            arrays: Arrays = require_member(motions, member)
        else:
            arrays = arrays_of(lambda at, length: view[at : at + length], len(view))
            sha256 = hashlib.sha256(content).digest()
        return require_finite(motion_of(arrays, sha256, asked))
    # A damaged file makes struct, zlib, pickle and numpy's header reader raise nearly anything.
    except Exception as error:
        raise refused(error) from error


def probe_motion(read: Read, size: int, asked: Asked = NOTHING, *, member: str = "") -> tuple[int, float]:
    """Number of frames and frames per second of a file, from its headers; MotionError as `parse_motion`."""
    try:
        if is_pack(bytes(read(0, HEAD))):
            arrays: Arrays = require_member(pack_of(bytes(read(0, size)))[1], member)
        else:
            arrays = arrays_of(read, size)
        frames, fps = frames_and_fps(arrays, asked.fps)
        require_length(frames, fps)
        return frames, fps
    except Exception as error:
        raise refused(error) from error


def members_of(read: Read, size: int) -> list[str]:
    """The names of the motions in a file that holds several; one without a name of any other file, readable or not."""
    try:
        return list(pack_of(bytes(read(0, size)))[1]) if is_pack(bytes(read(0, HEAD))) else [""]
    except Exception:  # told when it is read
        return [""]


def is_pack(head: bytes) -> bool:
    """Whether a file that begins so may hold several motions: nested dicts, as pickle, joblib and torch write them."""
    if head.startswith(np.lib.format.MAGIC_PREFIX):
        return header_of(head[:HEAD], "poses", objects=True)[2].hasobject
    return is_nested(head) or (head.startswith(b"PK") and TORCH.encode() in head[:HEAD])


@functools.lru_cache(maxsize=2)  # one for each of two workers: reading it again for every motion would take for ever
def pack_of(content: bytes) -> tuple[bytes, dict[str, Held]]:
    """SHA-256 of such a file, and its motions by name; nothing of it is run."""
    begin = header_of(content[:HEAD], "poses", objects=True)[3] if content.startswith(b"\x93NUMPY") else 0
    return hashlib.sha256(content).digest(), motions_in(read_nested(content[begin:]))


def arrays_of(read: Read, size: int) -> Arrays:
    """The arrays of a file that holds one motion, by its first bytes."""
    magic = bytes(read(0, 6))
    if magic == np.lib.format.MAGIC_PREFIX:
        return plain_array(read(0, size))
    if magic.startswith(b"PK"):
        return Npz(read, size)
    raise MotionError(f"begins with {magic!r}: expected an .npz archive; copy or download it again")


def plain_array(content: bytes | memoryview) -> Held:
    """A .npy as an .npz would hold it: poses at the origin, joint places, or a data set's own columns."""
    values = array_of(content, "poses")
    if values.ndim == 2 and values.shape[1] == MOTION_X:
        return of_motion_x(values)
    if values.ndim == 2 and values.shape[1] in FEATURES:
        return of_features(values)
    if values.ndim != 3 or values.shape[2] != 3 or values.shape[1] not in COUNTS:
        return Held(poses=values, trans=np.zeros((len(values), 3)))
    if values.shape[1] not in ROTATED or set_of(values):  # of other numbers of joints, nobody writes rotations
        return Held(places=values)
    raise MotionError(
        f"an array {values.shape} without a name, and its bones change their length as no joint places do: save "
        "rotations as poses, with trans and fps, in an .npz"
    )


def plain(error: Exception) -> str:
    """An error's text in our words where numpy's or zipfile's say too little."""
    if isinstance(error, (MotionError, NpzError)):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, pickle.UnpicklingError) and "expected" in str(error):
        return str(error)
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
