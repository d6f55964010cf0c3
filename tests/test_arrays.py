"""One walk in many forms comes out as one walk; what no number says is decided by the body, and told."""

import io
import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.arrays import MOTION_X, rest_pelvis, spine_of
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.forms.humanml3d import features_of
from mclip.pipeline.geometry.recording import MotionError, NoMotion
from mclip.pipeline.geometry.skeleton import PARENTS, forward_kinematics
from mclip.pipeline.prepare.amass import parse_motion, read_motion
from mclip.pipeline.prepare.sources import ARCHIVES
from mclip.pipeline.prepare.sources import MOTIONS as MOTIONS_READ
from mclip.pipeline.skeletons.frames import rest_joints
from mclip.training.show.motion import read

WALK = sorted(MOTIONS.rglob("walk/*.npz"))[0]  # of CMU, upright, z up
FRAMES = len(read_motion(WALK).trans_T3)


def walk() -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 24, 3) and translation (T, 3) of a real walk, by the reader of AMASS's own names."""
    motion = read_motion(WALK)
    poses = motion.poses_TJ3[:FRAMES].copy()
    poses[:, 22:] = 0
    return poses, motion.trans_T3[:FRAMES]


def y_up(poses: np.ndarray, trans: np.ndarray, *, down: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The walk in a world whose y is up, or down as in a camera's: the root turns about the pelvis (SMPL's rule)."""
    turn = Rotation.from_euler("x", 90 if down else -90, degrees=True)
    turned = poses.copy()
    turned[:, 0] = (turn * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    return turned, turn.apply(trans + rest_pelvis()) - rest_pelvis()


def packed(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def matrices(poses: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(*poses.shape[:2], 3, 3)


def quaternions(poses: np.ndarray) -> np.ndarray:
    """Imaginary parts first, as scipy writes them."""
    return Rotation.from_rotvec(poses.reshape(-1, 3)).as_quat().reshape(*poses.shape[:2], 4)


def pickled(value: object, protocol: int = 4) -> bytes:
    return pickle.dumps(value, protocol)


def forms() -> dict[str, bytes]:
    """The walk as others write it."""
    poses, trans = walk()
    flat, hands = poses[:, :22].reshape(FRAMES, 66), np.zeros((FRAMES, 90))
    y_poses, y_trans = y_up(poses, trans)
    named = {"trans": trans, "mocap_frame_rate": 30.0}
    root, body = poses[:, 0], flat[:, 3:]
    rotmat, y_flat = matrices(poses), y_poses[:, :22].reshape(FRAMES, 66)
    smplx = {"global_orient": y_flat[:, :3], "body_pose": y_flat[:, 3:], "transl": y_trans}
    camera, c_trans = y_up(poses, trans, down=True)
    tensors = {name: torch.from_numpy(array) for name, array in smplx.items()}
    incam = {
        "global_orient": torch.from_numpy(camera[:, 0]),
        "body_pose": torch.from_numpy(body),
        "transl": torch.from_numpy(c_trans + [0, 0, 3.0]),
    }
    seventy_two = y_poses.reshape(FRAMES, 72)
    wham = {"pose_world": seventy_two, "trans_world": y_trans, "pose": poses * 0, "trans": trans}
    aist = {"smpl_poses": seventy_two, "smpl_trans": y_trans * 98, "smpl_scaling": np.array([98.0])}
    gvhmr = io.BytesIO()
    torch.save({"smpl_params_incam": incam, "smpl_params_global": tensors, "K_fullimg": torch.eye(3)}, gvhmr)
    return {
        "24 joints": packed(poses=poses.reshape(FRAMES, 72), **named),
        "24 joints apart": packed(poses=poses, **named),
        "22 joints": packed(poses=flat, **named),
        "SMPL-X": packed(poses=np.concatenate([flat, np.zeros((FRAMES, 9)), hands], 1), **named),
        "AMASS in parts": packed(root_orient=root, pose_body=body, pose_hand=hands, **named),
        "y up, AMASS's names": packed(poses=y_poses, trans=y_trans, mocap_frame_rate=30.0),
        "smplx, y up": packed(**smplx, fps=30),
        "smplx, z up": packed(
            global_orient=root[:, None], body_pose=body.reshape(FRAMES, 21, 3), transl=trans, fps=[30]
        ),
        "smplx matrices": packed(global_orient=rotmat[:, :1], body_pose=rotmat[:, 1:], transl=trans, fps=b"30.0"),
        "quaternions, real last": packed(poses=quaternions(poses), **named),
        "quaternions, real first": packed(poses=np.roll(quaternions(poses), 1, axis=-1), **named),
        "6D rows": packed(poses=rotmat[..., :2, :].reshape(FRAMES, 24, 6), **named),
        "6D columns": packed(poses=rotmat[..., :2].swapaxes(-1, -2).reshape(FRAMES, 24, 6), **named),
        "6D columns interleaved": packed(poses=rotmat[..., :2].reshape(FRAMES, 144), **named),
        "Meshcapade": packed(bodyPose=poses[:, :22], bodyTranslation=trans, frameRate=30.0),
        "GVHMR": gvhmr.getvalue(),
        "WHAM": pickled({0: wham}),
        "AIST++": pickled(aist),
    }


FORMS = forms()


@pytest.mark.parametrize("name", FORMS)
def test_a_walk_in_any_form_is_the_walk_of_amass(name: str) -> None:
    poses, trans = walk()
    found = parse_motion(FORMS[name], Asked(fps=30.0))
    assert found.fps == (60.0 if name == "AIST++" else 30.0)
    same = Rotation.from_rotvec(found.poses_TJ3.reshape(-1, 3)).inv() * Rotation.from_rotvec(poses.reshape(-1, 3))
    assert same.magnitude().max() < 1e-6  # GVHMR's tensors are read as float32
    assert np.abs(found.trans_T3 - trans).max() < 1e-6
    assert ("up" in found.account) == (name in ("y up, AMASS's names", "smplx, y up", "GVHMR", "WHAM", "AIST++"))


def test_the_spine_is_where_scipys_rotations_take_it() -> None:
    root = np.concatenate([np.zeros((1, 3)), np.random.default_rng(0).normal(scale=2, size=(99, 3))])
    assert np.abs(spine_of(root) - Rotation.from_rotvec(root).apply([0.0, 1, 0])).max() < 1e-12


def test_a_body_that_lies_in_amass_stays_where_it_lies() -> None:
    for path in sorted(MOTIONS.rglob("*.npz")):
        assert "up" not in read_motion(path).account, path
    poses, trans = walk()
    lying, _ = y_up(poses, trans)  # on its back or belly, its head along y, low above a floor at z = 0
    content = packed(poses=lying, trans=np.tile([0.0, 3.0, 0.2], (FRAMES, 1)), mocap_framerate=30.0)
    assert np.array_equal(parse_motion(content).poses_TJ3, lying)


@pytest.mark.parametrize(
    "rate", [np.array(120.0), np.array([120.0]), np.array("120.0"), np.array(b"120"), np.array([[120]])]
)
def test_a_frame_rate_is_read_however_it_is_wrapped(rate: object) -> None:
    poses, trans = walk()
    assert parse_motion(packed(poses=poses, trans=trans, mocap_framerate=rate)).fps == 120.0


@pytest.mark.parametrize(
    ("rate", "told"),
    [("fast", "is 'fast', expected a number"), ([30.0, 60.0], r"has shape \(2,\), expected one value")],
)
def test_a_frame_rate_that_is_none_is_named(rate: object, told: str) -> None:
    poses, trans = walk()
    with pytest.raises(MotionError, match=f"mocap_framerate .*{told}"):
        parse_motion(packed(poses=poses, trans=trans, mocap_framerate=rate))


@pytest.mark.parametrize("count", [10, 11, 16, 300])
def test_betas_of_a_row_a_frame_are_the_row(count: int) -> None:
    poses, trans = walk()
    row = np.arange(1, count + 1) / 10
    found = parse_motion(packed(poses=poses, trans=trans, fps=30, betas=np.tile(row, (FRAMES, 1)))).betas
    assert found == pytest.approx([*row[:16], *[0.0] * (16 - min(count, 16))])


def test_betas_that_change_are_refused_in_a_recording_and_averaged_in_an_estimate() -> None:
    poses, trans = walk()
    betas = np.random.default_rng(0).normal(size=(FRAMES, 10))
    with pytest.raises(MotionError, match=r"betas has shape \(\d+, 10\) and its rows differ"):
        parse_motion(packed(poses=poses, trans=trans, fps=30, betas=betas))
    smplx = {"global_orient": poses[:, 0], "body_pose": poses[:, 1:22], "transl": trans}
    found = parse_motion(packed(**smplx, fps=30, betas=betas))
    assert found.betas[:10] == pytest.approx(betas.mean(0), abs=1e-6)
    assert found.account["betas"] == "mean of the frames'"


def test_a_file_without_a_motion_is_none_and_one_without_its_path_is_refused() -> None:
    with pytest.raises(NoMotion, match=r"only \['betas', 'gender'\]"):
        parse_motion(packed(betas=np.zeros(16), gender="female"))
    with pytest.raises(MotionError, match="no trans in it, only"):
        parse_motion(packed(poses=walk()[0], fps=30))


def test_several_people_are_refused_with_their_names() -> None:
    poses, trans = walk()
    each = {"pose": poses.reshape(FRAMES, 72), "trans": trans}
    with pytest.raises(MotionError, match=r"2 motions in it \(person_3, person_7\), expected one"):
        parse_motion(pickled({3: each, 7: each}), Asked(fps=30.0))


def test_6d_of_knees_that_never_bend_is_refused_rather_than_guessed() -> None:
    poses = np.zeros((10, 24, 3))
    poses[:, 0, 0], poses[:, 16, 2] = np.pi / 2, 0.5
    content = packed(poses=matrices(poses)[..., :2, :].reshape(10, 144), trans=np.zeros((10, 3)), fps=30)
    with pytest.raises(MotionError, match="6D rotations by rows or by columns"):
        parse_motion(content)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, protocol: int) -> None:
    import pathlib

    class Mine:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "ran",))

    with pytest.raises(MotionError):
        parse_motion(pickled({"smpl_poses": Mine()}, protocol))
    file = io.BytesIO()
    torch.save({"poses": Mine()}, file)
    with pytest.raises(MotionError):
        parse_motion(file.getvalue())
    assert not (tmp_path / "ran").exists()


# --- joint places alone


def places() -> np.ndarray:
    """Where the walk's joints are (T, 24, 3), y up: scipy's rotations along the chain of our rest skeleton."""
    poses, trans = walk()
    local, rest = matrices(poses), rest_joints().numpy()
    place, turn = [rest[0] + trans], [local[:, 0]]
    for joint in range(1, 24):
        parent = PARENTS[joint]
        place.append(place[parent] + turn[parent] @ (rest[joint] - rest[parent]))
        turn.append(turn[parent] @ local[:, joint])
    return Rotation.from_euler("x", -90, degrees=True).apply(np.stack(place, 1).reshape(-1, 3)).reshape(-1, 24, 3)


def saved(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(value), allow_pickle=True)
    return file.getvalue()


def mdm(motion: np.ndarray, **more: object) -> bytes:
    """What MDM's sample/generate.py saves: (motions, joints, 3, frames) in a dict."""
    told = {"text": ["a person walks"], "num_samples": len(motion), "num_repetitions": 1}
    return saved({"motion": motion, "lengths": np.full(len(motion), motion.shape[-1]), **told, **more})


@pytest.mark.parametrize(
    ("content", "fps"),
    [
        (saved(places()[:, :22].astype(np.float32)), 30.0),
        (saved(places()), 30.0),
        (mdm(places()[None, :, :22].transpose(0, 2, 3, 1)), 20.0),
    ],
)
def test_joint_places_come_back_where_they_were(content: bytes, fps: float) -> None:
    found = parse_motion(content, Asked(fps=30.0))
    assert found.fps == fps
    rotmat = torch.from_numpy(matrices(found.poses_TJ3))
    _, place = forward_kinematics(rotmat, rest_joints(), root_B3=torch.from_numpy(found.trans_T3))
    z_up = Rotation.from_euler("x", 90, degrees=True).apply(places().reshape(-1, 3)).reshape(-1, 24, 3)
    off = np.linalg.norm(place.numpy() - z_up, axis=-1).mean(0)
    assert off[[0, 1, 2, 4, 5, 7, 8, 12, 16, 17, 18, 19, 20, 21]].max() < 0.02  # metres; a bent spine is three joints
    assert (found.account["up"], found.account["axes"], found.account["metres"]) == ("y", "places", 1.0)
    assert any("twist" in note for note in found.account["notes"])


def test_of_a_longer_array_only_the_motions_length_is_read() -> None:
    motion = places()[None, :, :22].transpose(0, 2, 3, 1)
    padded = np.concatenate([motion, np.zeros((1, 22, 3, 30))], -1)
    assert len(parse_motion(mdm(padded, lengths=np.array([FRAMES]))).trans_T3) == FRAMES


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved(places()[:, :22]), "no frame rate .* pass --fps-in"),
        (saved(walk()[0]), "its bones change their length as no joint places do: save rotations as poses"),
        (
            mdm(np.repeat(places()[None, :, :22].transpose(0, 2, 3, 1), 3, 0)),
            r"3 motions in it \(motion_0, .*, expected one: name one as FILE/motion_0",
        ),
        (saved(np.array([{}, {}], object)), r"no poses and no trans in it, only \[\]"),
        (saved({"text": "walk"}), "no poses and no trans in it"),
        (saved(np.where(np.arange(FRAMES)[:, None, None] == 5, np.nan, places())), "bones change|NaN or infinity"),
    ],
)
def test_places_that_say_too_little_are_refused_with_the_remedy(content: bytes, told: str) -> None:
    with pytest.raises(MotionError, match=told):
        parse_motion(content)


def test_objects_in_a_npy_run_nothing(tmp_path) -> None:
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(MotionError, match="asks for"):
        parse_motion(saved({"motion": Attack()}), Asked(fps=20.0))
    assert not (tmp_path / "executed").exists()


def test_help_names_every_form_that_is_read() -> None:
    told = " ".join(CliRunner().invoke(cli, ["prepare", "-h"]).output.split())
    for each in (
        *MOTIONS_READ,
        *ARCHIVES,
        "AMASS",
        "SMPL-X",
        "AIST++",
        "Meshcapade",
        "GVHMR",
        "WHAM",
        "HumanML3D",
        "MDM",
    ):
        assert f" {each}" in told or f"({each}" in told, each


def short_forms() -> list[bytes]:
    """Twelve frames in each kind of file: a zip, nested pickles, plain arrays of rotations, of places, of features."""
    poses, trans = (each[:12] for each in walk())
    motion = read(WALK, fps=20.0)
    place = motion.joints().double().numpy()[:13, :22] @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    arrays = poses.reshape(12, 72), place, features_of(place), np.zeros((12, MOTION_X)) + 0.1
    plain = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array)
        plain.append(file.getvalue())
    named = {"smpl_poses": poses.reshape(12, 72), "smpl_trans": trans, "smpl_scaling": np.array([1.0])}
    torches = io.BytesIO()
    torch.save({"smpl_params_global": {k: torch.from_numpy(v) for k, v in named.items()}}, torches)
    whole = packed(poses=poses.reshape(12, 72), trans=trans, mocap_frame_rate=30.0)
    return [*plain, whole, pickled(named), pickled(named, 2), torches.getvalue()]


def test_two_thousand_damaged_files_are_read_or_refused() -> None:
    """Of joint places, features, plain arrays, archives and pickles; heads are hit as often as numbers."""
    rng = np.random.default_rng(0)
    whole = short_forms()
    outcomes: dict[tuple[int, bool], int] = {}
    for number in range(2000):
        kind = number % len(whole)
        content = bytearray(whole[kind])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(content) if number % 2 else 300))
            if rng.random() < 0.7:
                content[at : at + 1] = rng.bytes(1)
            else:
                del content[at : at + int(rng.integers(0, 100))]
        try:
            found = parse_motion(bytes(content), Asked(fps=30.0))
            assert np.isfinite(found.trans_T3).all()
            outcomes[kind, True] = outcomes.get((kind, True), 0) + 1
        except MotionError:
            outcomes[kind, False] = outcomes.get((kind, False), 0) + 1
    assert all(outcomes.get((kind, False), 0) > 20 for kind in range(len(whole))), outcomes
    assert sum(count for (_, read_well), count in outcomes.items() if read_well) > 100, outcomes
