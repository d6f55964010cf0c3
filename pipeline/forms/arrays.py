"""Named arrays -> a Recording: AMASS's names, smplx's, AIST++'s and others', whatever rotations are written as.

A form says under which names rotations and translation lie; their width says how many joints there are and how many
numbers each has. What the numbers do not say for certain (which way is up, which 6D, where a quaternion's real part
is) is decided by how a body stands and bends, and kept in the recording's account.
"""

# T frames, K joints of the file

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mclip.pipeline.files.npz import Npz
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.forms.humanml3d import FEATURES, places_of
from mclip.pipeline.forms.places import recording_of, set_of
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
from mclip.pipeline.skeletons.solve import UPS


class Held(dict[str, np.ndarray]):
    """Arrays that are in memory already, and what is to be told of where they lay."""

    def __init__(self, *arrays: Any, **more: Any):
        super().__init__(*arrays, **more)
        self.account: dict[str, Any] = {}

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array."""
        return self[key].shape


Arrays = Npz | Held  # shapes are known before arrays are read


@dataclass(frozen=True)
class Form:
    """The names that a motion's arrays have in one kind of file."""

    name: str  # of whoever writes it
    rotations: tuple[str, ...]  # root first
    trans: tuple[str, ...]
    more: tuple[str, ...] = ()  # face and fingers, where a file has them, in their joints' order
    scale: str = ""  # what the translation is divided by to be metres
    fps: float | None = None  # of a data set whose files do not say it
    guessed: bool = False  # by an estimator, whose shape is another in every frame
    frame: str = ""  # "world" or "camera", where the names say so
    pelvis: bool = False  # the translation is the pelvis's place, not what SMPL adds to it
    rot6d: str = ""  # whether 6D numbers are rows or columns, where the names say so


PLACES = "places"  # of joints, where a file has no rotations
TRANS = ("trans", "transl", "translation", "root_trans")
FORMS = (
    Form("AMASS", ("poses",), TRANS),  # and a plain array
    Form("AMASS in parts", ("root_orient", "pose_body"), TRANS, ("pose_jaw", "pose_eye", "pose_hand")),  # Inter-X
    Form(  # GVHMR, 4D-Humans, ExAvatar
        "smplx",
        ("global_orient", "body_pose"),
        TRANS,
        ("jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose"),
        guessed=True,
    ),
    Form("AIST++", ("smpl_poses",), ("smpl_trans",), scale="smpl_scaling", fps=60.0),
    Form("Meshcapade", ("bodyPose",), ("bodyTranslation",), ("headPose", "leftHandPose", "rightHandPose")),
    Form("WHAM", ("pose_world",), ("trans_world",), guessed=True, frame="world"),
    Form("TRAM", ("pred_rotmat",), ("pred_trans",), guessed=True, frame="camera"),
    Form("SMPL estimate", ("pose",), TRANS, guessed=True),  # WHAM's in the camera, PromptHMR
    Form("PHC", ("pose_aa",), ("trans_orig", "trans")),  # PHC, ProtoMotions and what is retargeted by them
    Form("PHC", ("pose_aa",), ("root_trans_offset",), pelvis=True),
    Form("MDM mesh", ("thetas",), ("root_translation",), guessed=True, pelvis=True, rot6d="rows"),  # MDM's meshes
    Form("MoSh++", ("fullpose",), TRANS),  # SMPL-X of MoSh++
)
LEAST_SHAPE = 10  # numbers of a body's shape under a name that may also be an image's
SHAPES = ("betas", "shape", "shapeParameters", "beta")
MESHCAPADE = ("neutral", "male", "female")  # its genders are numbers
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate", "mocap_fps", "fps", "frame_rate", "framerate", "frameRate")
JOINTS = {22: "", 24: "smpl", 52: "smplh", 55: "smplx"}  # of a body: SMPL's without hands, SMPL, SMPL+H, SMPL-X
NUMBERS = {3: "axis-angle", 4: "quaternion", 6: "6D", 9: "matrix"}  # of a joint's rotation
WIDTHS = {joints * numbers: (joints, numbers) for joints in JOINTS for numbers in NUMBERS}
MOTION_X = 322  # numbers of a frame


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


def motion_of(arrays: Arrays, sha256: bytes, asked: Asked = NOTHING) -> Recording:
    """The Recording of an open file, in metres and z up; MotionError."""
    if PLACES in arrays:
        found = recording_of(arrays[PLACES], frames_and_fps(arrays, asked.fps)[1], sha256, asked)
        return replace(found, account={**found.account, **arrays.account}) if isinstance(arrays, Held) else found
    form = form_of(arrays)
    names, joints, numbers = parts_of(arrays, form)
    frames, fps = arrays.shape(names[0])[0], rate_of(arrays, form.fps or asked.fps)
    require_length(frames, fps)
    account: dict[str, Any] = dict(arrays.account) if isinstance(arrays, Held) else {}
    if form.name != FORMS[0].name:
        account.setdefault("form", form.name)
    if form.frame:
        account.setdefault("frame", f"{form.frame}: {', '.join(form.rotations)}")
    poses_TK3 = axis_angle_of(
        [numbers_of(arrays, name) for name in names], joints, numbers, account, rot6d=form.rot6d or asked.rot6d
    )
    trans_T3 = translation_of(arrays, form, frames)
    up = asked.up or up_of(poses_TK3[:, 0], trans_T3, told=not form.guessed and not form.scale)
    if up != "z":
        account["up"] = up
        poses_TK3, trans_T3 = stood_up(poses_TK3, trans_T3, UPS[up])
    if str(account.get("frame", "")).startswith("camera"):
        account["notes"] = ["a camera's axes, which say nothing of gravity: up is where the body stands on the whole"]
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


def axis_angle_of(
    parts: list[np.ndarray], joints: int, numbers: int, account: dict[str, Any], *, rot6d: str = ""
) -> np.ndarray:
    """Rotations (T, K, 3) of arrays that lie side by side; a body without hands gets flat ones."""
    flat = [part.reshape(len(part), -1) for part in parts]
    poses = native(flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)).reshape(len(flat[0]), joints, numbers)
    if numbers != 3:
        # What is no number at all is told by the check that every recording passes.
        finite = np.nan_to_num(poses)
        read = from_6d(finite, account, rot6d) if numbers == 6 else READERS[numbers](finite, account)
        poses = read + 0 * poses.sum(-1, keepdims=True)
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


def from_6d(values_TK6: np.ndarray, account: dict[str, Any], asked: str = "") -> np.ndarray:
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
    if layout == "one after the other" and abs(bend) < 0.05 and not asked:
        raise MotionError(
            "6D rotations by rows or by columns: its knees hardly bend, which would tell; pass --rot6d rows or "
            "--rot6d columns"
        )
    columns = layout == "interleaved" or (asked == "columns" if asked else bend < 0)
    account["rotations"] = f"6D, two {'columns' if columns else 'rows'} {layout}"
    return by_columns if columns else by_rows


READERS = {4: from_quaternions, 9: from_matrices}


def of_motion_x(values: np.ndarray) -> Held:
    """The arrays in the columns (T, 322) of Motion-X, which has 30 frames a second: its paper, and no file, says so."""
    widths = {"root_orient": 3, "pose_body": 63, "pose_hand": 90, "pose_jaw": 3, "face": 150, "trans": 3, "betas": 10}
    parts = np.split(values, np.cumsum([*widths.values()])[:-1], axis=1)
    held = Held(zip(widths, parts, strict=True), pose_eye=np.zeros((len(values), 6), values.dtype), fps=np.array(30.0))
    held.account["form"] = "Motion-X"
    return held


def of_features(values: np.ndarray) -> Held:
    """The places in HumanML3D's or KIT-ML's features (T, 263 or 251); MotionError where they are normalised."""
    joints, fps = FEATURES[values.shape[1]]
    held = Held(places=places_of(values), fps=np.array(fps))
    held.account["form"] = f"{'HumanML3D' if joints == 22 else 'KIT-ML'} {values.shape[1]}"
    if np.isfinite(values).all() and not set_of(held["places"]):
        raise MotionError(
            f"{held.account['form']} features whose joints are no body's: where they were normalised by the data set's "
            "mean and standard deviation, undo it first"
        )
    return held


def translation_of(arrays: Arrays, form: Form, frames: int) -> np.ndarray:
    """Root translation (T, 3), in the file's axes."""
    name = next(name for name in form.trans if name in arrays)
    trans = numbers_of(arrays, name).astype(np.float64)
    if trans.shape == (frames, 1, 3):
        trans = trans[:, 0]
    if trans.shape != (frames, 3):
        raise MotionError(f"{name} has shape {trans.shape}, expected ({frames}, 3), as many as {form.rotations[0]}")
    if form.pelvis:
        trans = trans - rest_pelvis()
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
    shapes = {name: arrays.shape(name) for name in SHAPES if name in arrays}
    name = next((name for name, shape in shapes.items() if name == SHAPES[0] or shape[-1:] >= (LEAST_SHAPE,)), "")
    if not name:
        return betas
    found = np.asarray(arrays[name], np.float64)
    rows = found.reshape(-1, found.shape[-1]) if found.ndim > 1 and found.size else found.reshape(1, -1)
    if not np.isfinite(rows).all():
        raise MotionError(f"{name} has NaN or infinity")
    if np.ptp(rows, axis=0).max(initial=0) > 1e-4:
        if not guessed:
            raise MotionError(f"{name} has shape {found.shape} and its rows differ, expected one shape for all frames")
        account["betas"] = "mean of the frames'"
    row = rows.mean(0)[:16] if account.get("betas") else rows[0, :16]
    betas[: len(row)] = row
    return betas


def gender_of(arrays: Arrays) -> str:
    """`neutral`, `female` or `male`; AMASS writes str, bytes, and bytes printed as str."""
    if "gender" not in arrays:
        return "neutral"
    found = scalar_of(arrays, "gender")
    if isinstance(found, int) and found in range(len(MESHCAPADE)):
        return MESHCAPADE[found]
    name = str(found).removeprefix("b'").removesuffix("'").lower()
    return name if name in GENDERS else "neutral"
