"""Write a motion as estimators and data sets write theirs, read each back, and print how far off it is.

    python -m mclip.workflows.make_arrays_like MOTION.npz FOLDER

Only shapes of files are theirs, the motion is what is given: no row of the table is of a file of that program itself.
"""

import pickle
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from mclip.pipeline.forms.arrays import rest_pelvis
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.forms.humanml3d import features_of
from mclip.pipeline.forms.joint_sets import NAMES
from mclip.pipeline.geometry.recording import Recording
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.prepare.sources import read_recording
from mclip.pipeline.skeletons.check import BONES
from mclip.pipeline.skeletons.frames import rest_joints, unit

Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # turns a world whose z is up
CAMERA = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # to one whose y is down
LIMBS = [JOINTS.index(each) for each in JOINTS if each.split("_")[-1] in ("hip", "knee", "ankle", "elbow", "wrist")]


def places(poses_TJ3: np.ndarray, trans_T3: np.ndarray) -> np.ndarray:
    """Where the 24 joints are (T, 24, 3)."""
    matrix = axis_angle_to_matrix(torch.from_numpy(np.ascontiguousarray(poses_TJ3, float)))
    return forward_kinematics(matrix, rest_joints(), root_B3=torch.from_numpy(trans_T3))[1].numpy()


def turned(poses_TJ3: np.ndarray, trans_T3: np.ndarray, turn_33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The motion in a turned world; SMPL's root turns about its pelvis."""
    root = torch.from_numpy(turn_33) @ axis_angle_to_matrix(torch.from_numpy(poses_TJ3[:, 0].copy()))
    poses = np.concatenate((matrix_to_axis_angle(root).numpy()[:, None], poses_TJ3[:, 1:]), axis=1)
    return poses, (trans_T3 + rest_pelvis()) @ turn_33.T - rest_pelvis()


def in_set(name: str, place_TJ3: np.ndarray) -> np.ndarray:
    """Places as a set of joints has them, in millimetres, y up; what SMPL lacks lies at the head."""
    words = {"l_": "left_", "r_": "right_"}
    joints = [words.get(each[:2], each[:2]) + each[2:] for each in NAMES[name]]
    order = [JOINTS.index(each) if each in JOINTS else JOINTS.index("head") for each in joints]
    return 1000 * place_TJ3[:, order] @ Y_UP.T


def forms(poses_TJ3: np.ndarray, trans_T3: np.ndarray) -> dict[str, Any]:
    """File name -> what is in it: arrays of an .npz, one array of a .npy, or what is pickled or saved by torch."""
    frames, flat = len(trans_T3), poses_TJ3.reshape(len(trans_T3), -1)
    matrix = matrices(poses_TJ3)
    (world, w_trans), (camera, c_trans) = (turned(poses_TJ3, trans_T3, each) for each in (Y_UP, CAMERA))
    c_trans, place = c_trans + [0, 0, 3.0], places(poses_TJ3, trans_T3)

    def smplx(poses: np.ndarray, trans: np.ndarray) -> dict[str, torch.Tensor]:
        named = {"global_orient": poses[:, 0], "body_pose": poses[:, 1:22].reshape(frames, 63), "transl": trans}
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in named.items()}

    wham = {"pose_world": world.reshape(frames, 72), "trans_world": w_trans}
    wham |= {"pose": camera.reshape(frames, 72), "trans": c_trans}
    seen = {
        f"{frame}.jpg": {"tid": [1], "smpl": [{"global_orient": each[:1], "body_pose": each[1:]}], "camera": [away]}
        for frame, (each, away) in enumerate(zip(matrices(camera), c_trans, strict=True))
    }
    smplx_165 = np.pad(world[:, :22].reshape(frames, 66), ((0, 0), (0, 99)))
    samples = np.stack([place[:, :22] @ Y_UP.T] * 3).transpose(0, 2, 3, 1)
    aist = {"smpl_poses": world.reshape(frames, 72), "smpl_trans": w_trans * 98, "smpl_scaling": np.array([98.0])}
    tram = {"pred_rotmat": torch.from_numpy(matrices(camera)), "pred_trans": torch.from_numpy(c_trans[:, None])}
    columns = matrix[..., :2].swapaxes(-1, -2).reshape(frames, 144)
    rows = matrix_rows(world).transpose(1, 2, 0)
    motion_x = [flat[:, :66], np.zeros((frames, 90)), np.zeros((frames, 153)), trans_T3, np.zeros((frames, 10))]
    return {
        "AMASS, y up.npz": {"poses": world.reshape(frames, 72), "trans": w_trans, "mocap_framerate": 30.0},
        "AMASS in parts.npz": {"root_orient": flat[:, :3], "pose_body": flat[:, 3:66], "trans": trans_T3, "fps": 30},
        "matrices.npz": {"poses": matrix, "trans": trans_T3, "fps": 30},
        "6D, rows.npz": {"poses": matrix_rows(poses_TJ3), "trans": trans_T3, "fps": 30},
        "6D, columns.npz": {"poses": columns, "trans": trans_T3, "fps": 30},
        "Meshcapade.smpl": {"bodyPose": poses_TJ3[:, :22], "bodyTranslation": trans_T3, "frameRate": 30.0},
        "GVHMR.pt": {"smpl_params_global": smplx(world, w_trans), "smpl_params_incam": smplx(camera, c_trans)},
        "WHAM, two people.pkl": {0: wham, 1: wham},
        "PromptHMR.pkl": {"people": {1: {"smplx_world": {"pose": smplx_165, "trans": w_trans}}}},
        "4D-Humans, camera.pkl": seen,
        "TRAM, camera.npy": tram,
        "AIST++.pkl": aist,
        "PHC.pkl": {"0-CMU_walk": {"pose_aa": flat, "trans_orig": trans_T3, "fps": 30}},
        "MDM, mesh.npy": {"thetas": rows, "root_translation": (w_trans + rest_pelvis()).T},
        "MDM, three samples.npy": {"motion": samples, "lengths": np.full(3, frames)},
        "Motion-X 322.npy": np.concatenate(motion_x, 1),
        "HumanML3D 263.npy": features_of(place[:, :22] @ Y_UP.T),
        **{f"places, {name}.npy": in_set(name, place) for name in NAMES},
    }


def matrices(poses_TJ3: np.ndarray) -> np.ndarray:
    """Rotation matrices (T, 24, 3, 3)."""
    return axis_angle_to_matrix(torch.from_numpy(poses_TJ3.copy())).numpy()


def matrix_rows(poses_TJ3: np.ndarray) -> np.ndarray:
    """6D rotations (T, 24, 6), the first two rows of each matrix."""
    return matrices(poses_TJ3)[:, :, :2].reshape(len(poses_TJ3), 24, 6)


def write(path: Path, value: Any) -> None:
    """Write a form as its ending says."""
    with path.open("wb") as file:
        if path.suffix in (".npz", ".smpl"):
            np.savez(file, **value)
        elif path.suffix == ".npy":
            np.save(file, value, allow_pickle=True)
        elif path.suffix == ".pt":
            torch.save(value, file)
        else:
            pickle.dump(value, file)


def row(name: str, source: np.ndarray, found: Recording) -> str:
    """A row of the table, of places (T, 24, 3) and what was read."""
    ours = places(found.poses_TJ3, found.trans_T3)
    theirs = source[: len(ours)]
    lift = (ours[..., 2].min() - theirs[..., 2].min()) * 100
    # Data sets begin at the origin and cameras stand anywhere: compared as they lie on each other.
    a, b = (each - each[:, :1] for each in (ours, theirs))
    u, _, v = np.linalg.svd(np.einsum("tji,tjk->ik", a[..., :], b[..., :]))
    a = a @ (u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v)
    degrees = []
    for start, end in (bone for bone in BONES[:10] if not bone[1].endswith("foot")):
        i, j = JOINTS.index(start), JOINTS.index(end)
        cosine = (unit(a[:, j] - a[:, i]) * unit(b[:, j] - b[:, i])).sum(-1)
        degrees.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
    off = 1000 * np.linalg.norm(a - b, axis=-1)[:, LIMBS].mean()
    told = found.account.get("form") or found.account.get("skeleton") or "AMASS"
    up = found.account.get("up", "z")
    return f"| {name} | {told}, up {up} | {len(ours)} | {max(degrees):.2f} | {off:.1f} | {lift:+.1f} |"


def slow(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translation at 20 fps."""
    rot6d, trans = resample(recording, 20.0)
    return matrix_to_axis_angle(rot6d_to_matrix(rot6d).double()).numpy(), trans.double().numpy()


@click.command()
@click.argument("motion", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(motion: Path, folder: Path) -> None:
    """Write MOTION into FOLDER in every form, read each, and print a table."""
    poses, trans = slow(read_recording(motion))
    poses[:, 22:] = 0
    folder.mkdir(parents=True, exist_ok=True)
    print("| form | read as | frames | degrees | mm | floor, cm |\n|---|---|---|---|---|---|")
    for name, value in forms(poses, trans).items():
        write(folder / name, value)
        member = {"WHAM, two people.pkl": "person_1", "MDM, three samples.npy": "motion_2"}.get(name, "")
        asked = Asked(fps=20.0, joints=name.removeprefix("places, ").removesuffix(".npy") if "places" in name else "")
        print(row(name.rpartition(".")[0], places(poses, trans), read_recording(folder / name / member, asked)))


if __name__ == "__main__":
    main()
