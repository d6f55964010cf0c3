"""Named arrays -> a Recording: AMASS's names, smplx's, AIST++'s and others', whatever rotations are written as.

A form says under which names rotations and translation lie; their width says how many joints there are and how many
numbers each has. What the numbers do not say for certain (which way is up, which 6D, where a quaternion's real part
is) is decided by how a body stands and bends, and kept in the recording's account.
"""

# T frames, K joints of the file

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mclip.pipeline.files.npz import Npz
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.recording import (
    FASTEST,
    LAYOUTS,
    SLOWEST,
    MotionError,
    NoMotion,
    Recording,
    require_length,
)
from mclip.pipeline.geometry.skeleton import GENDERS
from mclip.pipeline.prepare.places import recording_of


class Held(dict[str, np.ndarray]):
    """Arrays that are in memory already."""

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array."""
        return self[key].shape


Arrays = Npz | Held  # shapes are known before arrays are read


@dataclass(frozen=True)
class Form:
    """The names that a motion's arrays have in one kind of file."""

    rotations: tuple[str, ...]  # root first
    trans: tuple[str, ...]
    more: tuple[str, ...] = ()  # face and fingers, where a file has them, in their joints' order
    scale: str = ""  # what the translation is divided by to be metres
    fps: float | None = None  # of a data set whose files do not say it
    guessed: bool = False  # by an estimator, whose shape is another in every frame


PLACES = "places"  # of joints, where a file has no rotations
TRANS = ("trans", "transl", "translation", "root_trans")
FORMS = (
    Form(("poses",), TRANS),  # AMASS; a plain array
    Form(("root_orient", "pose_body"), TRANS, ("pose_jaw", "pose_eye", "pose_hand")),  # AMASS in parts, Inter-X
    Form(  # smplx: GVHMR, 4D-Humans, PromptHMR, ExAvatar
        ("global_orient", "body_pose"),
        TRANS,
        ("jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose"),
        guessed=True,
    ),
    Form(("smpl_poses",), ("smpl_trans",), scale="smpl_scaling", fps=60.0),  # AIST++
    Form(("bodyPose",), ("bodyTranslation",)),  # Meshcapade
    Form(("pose_world",), ("trans_world",), guessed=True),  # WHAM, in the world rather than the camera
    Form(("pose",), TRANS, guessed=True),  # WHAM, VIBE and ROMP, in the camera
    Form(("fullpose",), TRANS),  # SMPL-X of MoSh++
)
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate", "mocap_fps", "fps", "frame_rate", "framerate", "frameRate")
JOINTS = {22: "", 24: "smpl", 52: "smplh", 55: "smplx"}  # of a body: SMPL's without hands, SMPL, SMPL+H, SMPL-X
NUMBERS = {3: "axis-angle", 4: "quaternion", 6: "6D", 9: "matrix"}  # of a joint's rotation
WIDTHS = {joints * numbers: (joints, numbers) for joints in JOINTS for numbers in NUMBERS}
Y_TO_Z = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
TURNS = {"y": Y_TO_Z, "-y": Y_TO_Z.T}  # which way is up in the file -> rotation that makes it z


def form_of(arrays: Arrays) -> Form:
    """The first form whose arrays are all there; NoMotion where there is not one array of any."""
    names = set(arrays)
    for form in FORMS:
        if names.issuperset(form.rotations) and names.intersection(form.trans):
            return form
    every = {name for form in FORMS for name in (*form.rotations, *form.trans)}
    if not names & every:
        raise NoMotion(f"no poses and no trans in it, only {sorted(names)[:20]}")
    begun = next((form for form in FORMS if names.intersection(form.rotations)), FORMS[0])
    missing = [name for name in begun.rotations if name not in names] or [begun.trans[0]]
    raise MotionError(f"no {' and no '.join(missing)} in it, only {sorted(names)[:20]}")


def parts_of(arrays: Arrays, form: Form) -> tuple[tuple[str, ...], int, int]:
    """(names, joints, numbers a joint) of a file's rotations, with face and fingers where those are whole."""
    more = tuple(name for name in form.more if name in arrays)
    for names in (form.rotations + more, form.rotations):
        shapes = [arrays.shape(name) for name in names]
        widths = [int(np.prod(shape[1:])) for shape in shapes if len(shape) > 1]
        if len(widths) == len(names) and len({shape[0] for shape in shapes}) == 1 and sum(widths) in WIDTHS:
            return names, *WIDTHS[sum(widths)]
    told = ", ".join(f"{name} has shape {arrays.shape(name)}" for name in form.rotations)
    raise MotionError(
        f"{told}: expected (T, joints x numbers), of {', '.join(map(str, JOINTS))} joints as "
        f"{', '.join(f'{name} ({count})' for count, name in NUMBERS.items())}"
    )


def frames_and_fps(arrays: Arrays, fps_in: float | None = None) -> tuple[int, float]:
    """Number of frames and frames per second of an open file, without reading its rotations."""
    if PLACES in arrays:
        return arrays.shape(PLACES)[0], rate_of(arrays, fps_in)
    form = form_of(arrays)
    names, _, _ = parts_of(arrays, form)
    return arrays.shape(names[0])[0], rate_of(arrays, form.fps or fps_in)


def rate_of(arrays: Arrays, otherwise: float | None) -> float:
    """Frames per second that a file says, or `otherwise` where it says none; MotionError where nobody does."""
    name = next((name for name in FRAME_RATES if name in arrays), None)
    if name is None:
        if otherwise is None:
            raise MotionError(
                f"no frame rate in it (none of {', '.join(FRAME_RATES)}): pass --fps-in (HumanML3D has 20)"
            )
        return otherwise
    found = scalar_of(arrays, name)
    try:
        fps = float(found)
    except (TypeError, ValueError):
        raise MotionError(f"{name} is {found!r}, expected a number of frames per second") from None
    if not SLOWEST <= fps <= FASTEST:
        raise MotionError(f"{name} is {fps:g}, expected {SLOWEST:g} to {FASTEST:g}")
    return fps


def scalar_of(arrays: Arrays, name: str) -> Any:
    """The one value of an array, however it is wrapped, bytes as text; MotionError where there are several."""
    values = np.asarray(arrays[name])
    if values.size != 1 and (values.size == 0 or (values != values.flat[0]).any()):
        raise MotionError(f"{name} has shape {values.shape}, expected one value")
    found = values.flat[0].item()
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def motion_of(arrays: Arrays, sha256: bytes, fps_in: float | None = None) -> Recording:
    """The Recording of an open file, in metres and z up; MotionError."""
    if PLACES in arrays:
        return recording_of(arrays[PLACES], frames_and_fps(arrays, fps_in)[1], sha256)
    form = form_of(arrays)
    names, joints, numbers = parts_of(arrays, form)
    frames, fps = arrays.shape(names[0])[0], rate_of(arrays, form.fps or fps_in)
    require_length(frames, fps)
    account: dict[str, Any] = {}
    poses_TK3 = axis_angle_of([numbers_of(arrays, name) for name in names], joints, numbers, account)
    trans_T3 = translation_of(arrays, form, frames)
    up = up_of(poses_TK3[:, 0], trans_T3, told=not form.guessed and not form.scale)
    if up != "z":
        account["up"] = up
        poses_TK3, trans_T3 = stood_up(poses_TK3, trans_T3, TURNS[up])
    if model := model_of(arrays, joints):
        account["model"] = model
    betas = betas_of(arrays, account, guessed=form.guessed)
    return Recording(
        poses_TK3, trans_T3, fps, betas, gender_of(arrays), sha256, LAYOUTS[3 * poses_TK3.shape[1]], account
    )


def numbers_of(arrays: Arrays, name: str) -> np.ndarray:
    """An array of floating point numbers; MotionError for any other."""
    values = arrays[name]
    if values.dtype.kind != "f":
        raise MotionError(f"{name} holds {values.dtype}, expected floating point numbers")
    return values


def native(poses: np.ndarray) -> np.ndarray:
    """The same numbers as the compiler takes them: as they are, for nearly every file."""
    return poses if poses.dtype == np.float64 and poses.flags.c_contiguous else np.ascontiguousarray(poses, np.float64)


def axis_angle_of(parts: list[np.ndarray], joints: int, numbers: int, account: dict[str, Any]) -> np.ndarray:
    """Rotations (T, K, 3) of arrays that lie side by side; a body without hands gets flat ones."""
    flat = [part.reshape(len(part), -1) for part in parts]
    poses = native(flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)).reshape(len(flat[0]), joints, numbers)
    if numbers != 3:
        # What is no number at all is told by the check that every recording passes.
        poses = READERS[numbers](np.nan_to_num(poses), account) + 0 * poses.sum(-1, keepdims=True)
        account["rotations"] = account.get("rotations", NUMBERS[numbers])
    return poses if joints != 22 else np.concatenate((poses, np.zeros((len(poses), 2, 3))), axis=1)


def from_matrices(values_TK9: np.ndarray, account: dict[str, Any]) -> np.ndarray:
    """Axis-angle of rotation matrices; MotionError where they are none."""
    matrix = torch.from_numpy(values_TK9).unflatten(-1, (3, 3))
    off = (matrix @ matrix.mT - torch.eye(3, dtype=matrix.dtype)).abs().amax()
    if not off < 0.05 or not (torch.linalg.det(matrix) > 0).all():
        raise MotionError("rotations of nine numbers are no rotation matrices: their rows are not square on each other")
    return rotations.matrix_to_axis_angle(matrix).numpy()


def from_quaternions(values_TK4: np.ndarray, account: dict[str, Any]) -> np.ndarray:
    """Axis-angle of quaternions, whose real part is the greatest in a body that mostly bends little."""
    share_4 = np.abs(values_TK4[:, 1:]).mean((0, 1))
    if not np.abs(np.linalg.norm(values_TK4, axis=-1) - 1).max() < 0.05 or share_4.argmax() not in (0, 3):
        raise MotionError("rotations of four numbers are no unit quaternions with the real part first or last")
    account["rotations"] = "quaternion, real part " + ("first" if share_4.argmax() == 0 else "last")
    ordered = values_TK4 if share_4.argmax() == 0 else np.roll(values_TK4, 1, axis=-1)
    return rotations.quaternion_to_axis_angle(torch.from_numpy(np.ascontiguousarray(ordered))).numpy()


def from_6d(values_TK6: np.ndarray, account: dict[str, Any]) -> np.ndarray:
    """Axis-angle of 6D numbers: two rows or two columns one after the other, or two columns interleaved.

    The last is told by which numbers are square on each other; rows from columns by the knees, which bend one way.
    """
    pairs = {
        "one after the other": (values_TK6[..., :3], values_TK6[..., 3:]),
        "interleaved": (values_TK6[..., ::2], values_TK6[..., 1::2]),
    }
    off = {
        name: max(np.abs((a * b).sum(-1)).max(), np.abs((a * a).sum(-1) - 1).max()) for name, (a, b) in pairs.items()
    }
    layout = min(off, key=lambda name: off[name])
    if not off[layout] < 0.05:
        raise MotionError("rotations of six numbers are no two rows or columns of rotation matrices")
    rows = rotations.rot6d_to_matrix(torch.from_numpy(np.concatenate(pairs[layout], axis=-1)))
    by_rows, by_columns = (rotations.matrix_to_axis_angle(matrix).numpy() for matrix in (rows, rows.mT))
    bend = float(by_rows[:, [4, 5], 0].mean())  # SMPL's knees bend about +x
    if layout == "one after the other" and abs(bend) < 0.05:
        raise MotionError(
            "6D rotations by rows or by columns: its knees hardly bend, which would tell; write axis-angle"
        )
    columns = layout == "interleaved" or bend < 0
    account["rotations"] = f"6D, two {'columns' if columns else 'rows'} {layout}"
    return by_columns if columns else by_rows


READERS = {4: from_quaternions, 6: from_6d, 9: from_matrices}


def translation_of(arrays: Arrays, form: Form, frames: int) -> np.ndarray:
    """Root translation (T, 3), in the file's axes."""
    name = next(name for name in form.trans if name in arrays)
    trans = numbers_of(arrays, name).astype(np.float64)
    if trans.shape != (frames, 3):
        raise MotionError(f"{name} has shape {trans.shape}, expected ({frames}, 3), as many as {form.rotations[0]}")
    return trans / float(scalar_of(arrays, form.scale)) if form.scale in arrays else trans


def up_of(root_T3: np.ndarray, trans_T3: np.ndarray, *, told: bool) -> str:
    """Which axis of a file points up: `z`, `y`, or `-y` as a camera has it, by how the body stands on the whole.

    Where the file's names are AMASS's, z is `told` to be up, and a body may lie or crawl along y. Then it stands along
    y only with its pelvis as high above y = 0 as a standing one's and away from a floor at z = 0, and along -y only as
    far off as one stands from a camera.
    """
    seen = slice(None, None, max(len(root_T3) // 32, 1))
    spine_y = float(spine_of(root_T3[seen])[:, 1].mean())
    if not abs(spine_y) > 0.7:  # NaN is not
        return "z"
    z_T, height = trans_T3[seen, 2], trans_T3[seen, 1].mean() + rest_pelvis()[1]
    lies = ((z_T > -0.1) & (z_T < 0.65)).all()
    stands = (0.5 < height < 1.3 and not (lies and spine_y < 0.95)) if spine_y > 0 else (z_T > 1.3).all()
    if told and not stands:
        return "z"
    return "y" if spine_y > 0 else "-y"


def spine_of(root_T3: np.ndarray) -> np.ndarray:
    """SMPL's y axis (T, 3), from pelvis to head, under axis-angle rotations (T, 3): Rodrigues' formula, of y alone."""
    angle_T1 = np.sqrt((root_T3 * root_T3).sum(-1, keepdims=True))
    x, y, z = (root_T3 / np.maximum(angle_T1, 1e-12)).T
    cosine, sine = np.cos(angle_T1[:, 0]), np.sin(angle_T1[:, 0])
    rest = 1 - cosine
    return np.stack((x * y * rest - z * sine, y * y * rest + cosine, z * y * rest + x * sine), axis=-1)


def stood_up(poses_TK3: np.ndarray, trans_T3: np.ndarray, turn_33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations in a world that is turned; SMPL's root turns about its pelvis, not its origin."""
    root = torch.from_numpy(turn_33) @ rotations.axis_angle_to_matrix(torch.from_numpy(poses_TK3[:, 0].copy()))
    poses = np.concatenate((rotations.matrix_to_axis_angle(root).numpy()[:, None], poses_TK3[:, 1:]), axis=1)
    return poses, (trans_T3 + rest_pelvis()) @ turn_33.T - rest_pelvis()


@functools.cache
def rest_pelvis() -> np.ndarray:
    """Where the pelvis is at rest, in metres, of the body that mclip ships."""
    return load_body("low").joints_J3[0].double().numpy()


def model_of(arrays: Arrays, joints: int) -> str:
    """The body model that a file's shape belongs to: `smpl`, `smplh`, `smplx`, or nothing where it does not say."""
    if "surface_model_type" in arrays:
        found = str(scalar_of(arrays, "surface_model_type")).lower()
        return found if found in JOINTS.values() else JOINTS[joints]
    return JOINTS[joints]


def betas_of(arrays: Arrays, account: dict[str, Any], *, guessed: bool) -> np.ndarray:
    """The first 16 shape numbers, zeros where the file has fewer; of a row a frame the one row that all are.

    MotionError where rows differ; an estimator guesses one a frame, of which the mean is taken.
    """
    betas = np.zeros(16, np.float32)
    if "betas" not in arrays:
        return betas
    found = np.asarray(arrays["betas"], np.float64)
    rows = found.reshape(-1, found.shape[-1]) if found.ndim > 1 and found.size else found.reshape(1, -1)
    if not np.isfinite(rows).all():
        raise MotionError("betas has NaN or infinity")
    if np.ptp(rows, axis=0).max(initial=0) > 1e-4:
        if not guessed:
            raise MotionError(f"betas has shape {found.shape} and its rows differ, expected one shape for all frames")
        account["betas"] = "mean of the frames'"
    row = rows.mean(0)[:16] if account.get("betas") else rows[0, :16]
    betas[: len(row)] = row
    return betas


def gender_of(arrays: Arrays) -> str:
    """`neutral`, `female` or `male`; AMASS writes str, bytes, and bytes printed as str."""
    if "gender" not in arrays:
        return "neutral"
    name = str(scalar_of(arrays, "gender")).removeprefix("b'").removesuffix("'").lower()
    return name if name in GENDERS else "neutral"


# --- what lies in nested dicts


def found_in(value: Any, path: str = "") -> Iterator[tuple[str, Held]]:
    """(where, arrays) of every motion in nested dicts and lists of arrays, the outermost first."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    held = held_by(value)
    try:
        form_of(held)
    except MotionError:
        for name, each in value.items():
            yield from found_in(each, f"{path}/{name}".lstrip("/"))
    else:
        yield path, held


def held_by(value: Mapping[Any, Any]) -> Held:
    """The arrays, numbers and texts that a dict holds itself."""
    plain = (np.ndarray, np.generic, int, float, str)
    return Held({str(name): np.asarray(each) for name, each in value.items() if isinstance(each, plain)})


def one_motion(value: Any) -> Held:
    """The arrays of the one motion in nested dicts, in the world rather than the camera; MotionError for several."""
    motions = list(found_in(value))
    if not motions:
        form_of(held_by(value if isinstance(value, Mapping) else {}))  # says what is missing
    depth = min(path.count("/") for path, _ in motions)
    motions = [each for each in motions if each[0].count("/") == depth]
    motions = [each for each in motions if "cam" not in each[0].lower()] or motions
    if len(motions) > 1:
        raise MotionError(
            f"{len(motions)} people in it ({', '.join(path for path, _ in motions[:10])}), expected one: "
            "save each one's arrays to a file of its own"
        )
    return motions[0][1]
