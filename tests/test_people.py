"""Files of people, packs of clips and samples: each motion by its name, in the world where that is there, told."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.arrays import rest_pelvis
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.prepare.amass import members_of, parse_motion, read_motion
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.sources import clip_name, file_of, read_recording
from mclip.pipeline.store.store import open_store

WALK = read_motion(sorted(MOTIONS.rglob("walk/*.npz"))[0])  # of CMU, upright, z up
POSES, TRANS = WALK.poses_TJ3.copy(), WALK.trans_T3
POSES[:, 22:] = 0
FRAMES = len(TRANS)
ASKED = Asked(fps=30.0)


def turned(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The walk in a world turned about x: -90 makes y up, 90 a camera's, whose y is down. SMPL turns at the pelvis."""
    turn, poses = Rotation.from_euler("x", degrees, degrees=True), POSES.copy()
    poses[:, 0] = (turn * Rotation.from_rotvec(POSES[:, 0])).as_rotvec()
    return poses, turn.apply(TRANS + rest_pelvis()) - rest_pelvis()


def matrices(poses: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(len(poses), -1, 3, 3)


def dumped(value: object, folder: Path, compress: int = 0) -> bytes:
    joblib.dump(value, folder / "dumped", compress=compress)
    return (folder / "dumped").read_bytes()


def torched(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def saved(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(value), allow_pickle=True)
    return file.getvalue()


def require_walk(found: Recording, frames: slice = slice(None), tolerance: float = 1e-6) -> None:
    """The motion is the walk: its own file, as AMASS's reader reads it, is the twin."""
    same = Rotation.from_rotvec(found.poses_TJ3.reshape(-1, 3)).inv()
    assert (same * Rotation.from_rotvec(POSES[frames].reshape(-1, 3))).magnitude().max() < tolerance
    assert np.abs(found.trans_T3 - TRANS[frames]).max() < tolerance


def names_in(content: bytes) -> list[str]:
    return members_of(lambda at, length: content[at : at + length], len(content))


def wham(*people: int) -> dict[int, dict[str, object]]:
    """What WHAM's demo dumps by joblib: for each person the pose in the camera and in the world."""
    world, camera = turned(-90), turned(90)
    each = {
        "pose": camera[0].reshape(FRAMES, 72),
        "trans": camera[1] + [0, 0, 3],
        "pose_world": world[0].reshape(FRAMES, 72),
        "trans_world": world[1],
        "betas": np.zeros((FRAMES, 10)),
        "frame_ids": np.arange(FRAMES),
    }
    return dict.fromkeys(people, each)


def test_each_person_of_wham_is_a_motion_in_the_world(tmp_path: Path) -> None:
    content = dumped(wham(0, 4), tmp_path)
    assert names_in(content) == ["person_0", "person_4"]
    for name in ("person_0", "person_4"):
        found = parse_motion(content, ASKED, member=name)
        require_walk(found)
        assert found.account["frame"] == "world: pose_world"
    with pytest.raises(MotionError, match=r"2 motions in it \(person_0, person_4\).* name one as FILE/person_0"):
        parse_motion(content, ASKED)
    with pytest.raises(MotionError, match="no 'person_1' in it any more, only person_0, person_4"):
        parse_motion(content, ASKED, member="person_1")
    require_walk(parse_motion(dumped(wham(3), tmp_path), ASKED))


def test_of_gvhmr_and_prompthmr_the_world_is_taken_and_told(tmp_path: Path) -> None:
    world, camera = turned(-90), turned(90)

    def named(poses: np.ndarray, trans: np.ndarray) -> dict[str, torch.Tensor]:
        arrays = {"global_orient": poses[:, 0], "body_pose": poses[:, 1:22].reshape(FRAMES, 63), "transl": trans}
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    both = {"smpl_params_global": named(*world), "smpl_params_incam": named(*camera), "K_fullimg": torch.eye(3)}
    found = parse_motion(torched(both | {"net_outputs": {"pred_smpl_params_global": named(*world)}}), ASKED)
    require_walk(found)
    assert found.account["frame"] == "world: smpl_params_global, rather than smpl_params_incam"

    def posed(poses: np.ndarray, trans: np.ndarray) -> dict[str, np.ndarray]:
        return {"pose": np.pad(poses[:, :22].reshape(FRAMES, 66), ((0, 0), (0, 99))), "trans": trans}

    people = {number: {"smplx_cam": posed(*camera), "smplx_world": posed(*world)} for number in (1, 2)}
    content = dumped({"people": people, "camera_world": {"Rcw": np.eye(3)}}, tmp_path, 3)
    assert names_in(content) == ["person_1", "person_2"]
    found = parse_motion(content, ASKED, member="person_2")
    require_walk(found)
    assert found.account["frame"] == "world: people/2/smplx_world, rather than people/2/smplx_cam"


def test_a_cameras_motion_alone_stands_up_and_says_that_gravity_is_not_in_it() -> None:
    camera = turned(90)
    content = pickle.dumps(
        {
            "smpl_params_incam": {
                "global_orient": camera[0][:, 0],
                "body_pose": camera[0][:, 1:22],
                "transl": camera[1] + [0, 0, 3.0],
            }
        }
    )
    found = parse_motion(content, ASKED)
    assert (found.account["frame"], found.account["up"]) == ("camera: smpl_params_incam", "-y")
    assert any("gravity" in note for note in found.account["notes"])


def test_each_track_of_4d_humans_is_a_motion_and_one_that_is_lost_two(tmp_path: Path) -> None:
    poses, trans = turned(90)
    rotmat, away = matrices(poses), trans + [0, 0, 3.0]
    frames = {}
    for frame in range(FRAMES):
        body = {"global_orient": rotmat[frame, :1], "body_pose": rotmat[frame, 1:], "betas": np.full(10, 0.1 * frame)}
        seen = [7, 9] if frame < 10 or frame > 15 else [7]
        frames[f"out/{frame:06d}.jpg"] = {
            "tid": seen,
            "smpl": [body] * len(seen),
            "camera": [away[frame]] * len(seen),
            "time": frame,
            "bbox": [np.zeros(4)],
        }
    content = dumped(frames, tmp_path)
    assert names_in(content) == ["person_7", "person_9", "person_9_2"]
    for name, part in (("person_7", slice(None)), ("person_9", slice(10)), ("person_9_2", slice(16, None))):
        found = parse_motion(content, ASKED, member=name)
        same = Rotation.from_rotvec(found.poses_TJ3[:, 1:].reshape(-1, 3)).inv()
        assert (same * Rotation.from_rotvec(POSES[part, 1:].reshape(-1, 3))).magnitude().max() < 1e-6
        assert len(found.trans_T3) == len(TRANS[part])
        assert found.account["betas"] == "mean of the frames'"
        assert found.account["frame"].startswith("camera: frames ")


def test_packs_of_phc_and_protomotions_keep_their_clips_names(tmp_path: Path) -> None:
    pelvis = torch.from_numpy(TRANS + rest_pelvis())
    clip = {"pose_aa": POSES.reshape(FRAMES, 72), "trans_orig": TRANS, "root_trans_offset": pelvis, "fps": 30}
    clip |= {"pose_quat": np.zeros((FRAMES, 24, 4)), "beta": np.arange(16.0), "gender": "neutral"}
    content = dumped({"0-KIT_3_walk_poses": clip, "0-ACCAD_camp.npz": clip}, tmp_path, 3)
    assert names_in(content) == ["0-KIT_3_walk_poses", "0-ACCAD_camp"]
    found = parse_motion(content, member="0-ACCAD_camp")
    require_walk(found)
    assert (found.fps, found.betas.tolist()) == (30.0, [*np.arange(16.0)])
    del clip["trans_orig"]  # then the place of the pelvis says where the body is
    require_walk(parse_motion(dumped({"one": clip}, tmp_path)))
    robot = clip | {"pose_aa": np.zeros((FRAMES, 27, 3))}
    with pytest.raises(MotionError, match=r"pose_aa has shape \(\d+, 27, 3\): expected"):
        parse_motion(dumped({"g1": robot}, tmp_path))


def test_a_track_of_tram_is_read_with_torchs_tensors_in_numpys_file() -> None:
    poses, trans = turned(90)
    away = torch.from_numpy(trans[:, None] + [0, 0, 3.0])
    track = {"pred_rotmat": torch.from_numpy(matrices(poses)), "pred_trans": away, "frame": torch.arange(FRAMES)}
    found = parse_motion(saved(track), ASKED)
    assert found.account["frame"] == "camera: pred_rotmat"
    same = Rotation.from_rotvec(found.poses_TJ3[:, 1:].reshape(-1, 3)).inv()
    assert (same * Rotation.from_rotvec(POSES[:, 1:].reshape(-1, 3))).magnitude().max() < 1e-6


def test_mdms_meshes_are_read_by_rows_although_nobody_says_so() -> None:
    poses, trans = turned(-90)
    rows = matrices(poses)[:, :, :2].reshape(FRAMES, 24, 6).transpose(1, 2, 0)
    root = (trans + rest_pelvis()).T
    content = saved({"motion": np.zeros((25, 6, FRAMES)), "thetas": rows, "root_translation": root, "length": FRAMES})
    found = parse_motion(content)
    require_walk(found)
    assert (found.fps, found.account["rotations"]) == (20.0, "6D, two rows one after the other")


def test_each_sample_of_mdm_is_a_motion() -> None:
    place = np.zeros((3, 22, 3, 50))
    content = saved({"motion": place, "lengths": np.array([50, 40, 30]), "text": ["a", "b", "c"]})
    assert names_in(content) == ["motion_0", "motion_1", "motion_2"]


def test_motion_x_is_read_by_its_columns() -> None:
    hands = np.tile(np.arange(90) / 100, (FRAMES, 1))
    parts = [
        POSES[:, 0],
        POSES[:, 1:22].reshape(FRAMES, 63),
        hands,
        np.zeros((FRAMES, 153)),
        TRANS,
        np.ones((FRAMES, 10)),
    ]
    found = parse_motion(saved(np.concatenate(parts, 1)))
    assert found.fps == 30.0
    expected = POSES.copy()
    expected[:, 22], expected[:, 23] = hands[:, :3], hands[:, 45:48]
    assert np.abs(found.poses_TJ3 - expected).max() < 1e-12
    assert found.poses_TK3.shape == (FRAMES, 55, 3)
    assert np.abs(found.trans_T3 - TRANS).max() == 0
    assert (found.account["form"], found.account["model"], found.betas[0]) == ("Motion-X", "smplx", 1.0)


def test_meshcapades_hands_shape_and_gender_are_read() -> None:
    """The names and sizes are those of the package smplcodec 2.3.0, which writes such files."""
    hands = {f"{side}HandPose": np.full((FRAMES, 15, 3), angle) for side, angle in (("left", 0.1), ("right", 0.2))}
    arrays = {"bodyPose": POSES[:, :22], "headPose": np.zeros((FRAMES, 3, 3)), **hands, "bodyTranslation": TRANS}
    file = io.BytesIO()
    np.savez(
        file,
        **arrays,
        frameRate=30.0,
        frameCount=FRAMES,
        codecVersion=2,
        smplVersion=2,
        gender=2,
        shapeParameters=np.ones(10),
    )
    found = parse_motion(file.getvalue())
    assert found.poses_TK3.shape == (FRAMES, 55, 3)
    assert found.poses_TJ3[0, 22:, 0].tolist() == [0.1, 0.2]
    assert (found.gender, found.betas[9], found.betas[10], found.account["model"]) == ("female", 1.0, 0.0, "smplx")


def test_6d_of_knees_that_never_bend_is_read_as_it_is_asked() -> None:
    poses = np.zeros((10, 24, 3))
    poses[:, 0, 0], poses[:, 16, 2] = np.pi / 2, 0.5
    columns = matrices(poses)[..., :2].swapaxes(-1, -2).reshape(10, 144)
    file = io.BytesIO()
    np.savez(file, poses=columns, trans=np.zeros((10, 3)), fps=30)
    with pytest.raises(MotionError, match="pass --rot6d rows or --rot6d columns"):
        parse_motion(file.getvalue())
    assert np.abs(parse_motion(file.getvalue(), Asked(rot6d="columns")).poses_TJ3 - poses).max() < 1e-9


# --- through the command


def test_one_of_several_motions_is_found_by_its_name() -> None:
    assert file_of("a/b.pkl/person_1") == ("a/b.pkl", "person_1")
    assert file_of("x.tar!/a/b.pt/0-KIT_3") == ("x.tar!/a/b.pt", "0-KIT_3")
    for whole in ("a/b.pkl", "a.npz/b.npz", "x.tar", "x.tar!/b.npy"):
        assert file_of(whole) == (whole, "")
    assert clip_name("a/walk_poses.npz") == "walk"
    assert clip_name("a/people.pkl/person_1") == "people/person_1"


def test_every_person_of_every_file_is_a_sequence_of_the_store(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "people.pkl").write_bytes(dumped(wham(1, 2), tmp_path))
    (source / "alone.pkl").write_bytes(dumped(wham(5), tmp_path))
    with tarfile.open(source / "more.tar", "w") as tar:
        tar.add(source / "people.pkl", "sub/people.pkl")
    (tmp_path / "labels.csv").write_text("path,text\npeople.pkl/person_2,a person walks\n")
    store, runner = str(tmp_path / "a.zarr"), CliRunner()
    words = [
        "prepare",
        str(source),
        store,
        "--labels",
        str(tmp_path / "labels.csv"),
        "--scheduler",
        "sync",
        "--fps-in",
        "30",
    ]
    told = runner.invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "5 x .pkl, WHAM" in told.output
    opened = open_store(store)
    people = [f"{file}/person_{number}" for file in ("more.tar!/sub/people.pkl", "people.pkl") for number in (1, 2)]
    assert opened.strings("sequences/name") == ["alone.pkl", *people]
    frames = opened.read("sequences/frames")
    assert frames.tolist() == [FRAMES] * 5
    assert "a person walks" in opened.strings("texts")
    lines = (
        [json.loads(line) for line in Path(f"{tmp_path}/a.zarr.manifest.jsonl").read_text().splitlines()]
        if Path(f"{tmp_path}/a.zarr.manifest.jsonl").exists()
        else []
    )
    assert [line["read_as"]["frame"] for line in lines] == ["world: pose_world"] * 5
    again = runner.invoke(cli, words)
    assert "0 of 5" in again.output or "5 skipped" in again.output, again.output


def test_a_motion_of_a_file_is_read_by_its_path_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "people.pkl").write_bytes(dumped(wham(1, 2), tmp_path))
    require_walk(read_recording(tmp_path / "people.pkl/person_2", ASKED))
    with pytest.raises(MotionError, match="people.pkl/person_3: no 'person_3' in it any more, only person_1, person_2"):
        read_recording(tmp_path / "people.pkl/person_3", ASKED)
    with pytest.raises(MotionError, match="cannot read"):
        read_recording(tmp_path / "other.txt/person_3", ASKED)


def test_a_store_that_knows_of_no_new_option_is_continued() -> None:
    assert not {"rot6d", "joints"} & set(PrepareOptions().kept)
    assert PrepareOptions(joints="coco17").kept["joints"] == "coco17"


def test_what_each_kind_of_input_became_is_told_in_a_line(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "walk.npz").write_bytes(sorted(MOTIONS.rglob("walk/*.npz"))[0].read_bytes())
    (source / "dance.fbx").write_bytes(b"Kaydara FBX Binary")
    (source / "people.pkl").write_bytes(dumped(wham(1, 2), tmp_path))
    (source / "broken.pkl").write_bytes(b"\x80\x04nothing")
    told = CliRunner().invoke(
        cli, ["prepare", str(source), str(tmp_path / "a.zarr"), "--scheduler", "sync", "--fps-in", "30"]
    )
    assert told.exit_code == 1
    for line in ("2 x .pkl, WHAM", "1 x .npz, SMPL+H", "1 x .pkl failed, first broken.pkl: not a whole"):
        assert line in told.output, told.output
    assert "dance.fbx (FBX is not read: import it in Blender, and export it as BVH)" in told.output
    alone = CliRunner().invoke(cli, ["prepare", str(source / "dance.fbx"), str(tmp_path / "b.zarr")])
    assert "FBX is not read: import it in Blender" in alone.output
    person, out = source / "people.pkl" / "person_2", str(tmp_path)
    exported = CliRunner().invoke(cli, ["export", str(person), "--to", "npz", "--fps-in", "30", "--out", out])
    assert exported.exit_code == 0, exported.output
    require_walk(read_motion(tmp_path / "people_person_2.npz"))
