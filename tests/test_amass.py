"""Recording files: what is read of them, at which times, and what is refused and how."""

import io
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.resample import resample, source_times
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.pipeline.prepare import amass
from mclip.pipeline.prepare.amass import parse_motion, read_motion
from mclip.pipeline.skeletons.frames import rest_joints


def motion_of(poses_TJ3: np.ndarray, fps: float) -> Recording:
    """A motion that walks along x."""
    trans = np.stack((np.arange(len(poses_TJ3)) / fps, *np.zeros((2, len(poses_TJ3)))), axis=1)
    return Recording(poses_TJ3, trans, fps, np.zeros(16, np.float32), "neutral", b"")


def test_smplh_joints_are_the_body_and_two_fingers(tmp_path, write_amass):
    poses = np.tile(np.arange(52)[:, None] * 0.01, (10, 1, 3)).reshape(10, 156)
    motion = read_motion(write_amass(tmp_path / "a.npz", 10, poses=poses))
    assert (motion.poses_TJ3[4, :, 0] * 100).round().astype(int).tolist() == [*range(22), 22, 37]


def test_smplx_is_told_by_its_content_and_leaves_out_jaw_and_eyes(tmp_path, write_amass):
    poses = np.tile(np.arange(55)[:, None] * 0.01, (10, 1, 3)).reshape(10, 165)
    path = write_amass(
        tmp_path / "a_stageii.npz",
        10,
        poses=poses,
        mocap_framerate=None,
        mocap_frame_rate=120.0,
        gender="neutral",
        surface_model_type="smplx",
        labels_obs=None,
    )
    motion = read_motion(path)
    assert (motion.poses_TJ3[0, :, 2] * 100).round().astype(int).tolist() == [*range(22), 25, 40]
    assert motion.fps == 120.0


def test_plain_smpl_poses_are_read_as_they_are(tmp_path, write_amass):
    path = write_amass(tmp_path / "a.npz", 10, width=72)
    with np.load(path) as arrays:
        assert np.array_equal(read_motion(path).poses_TJ3.reshape(10, 72), arrays["poses"])


def test_plain_array_needs_a_frame_rate_and_takes_the_given_one():
    file = io.BytesIO()
    np.save(file, np.full((5, 72), 0.25))
    with pytest.raises(MotionError, match="no frame rate in it .*: pass --fps-in"):
        parse_motion(file.getvalue())
    motion = parse_motion(file.getvalue(), Asked(fps=20.0))
    assert motion.fps == 20.0
    assert (motion.poses_TJ3 == 0.25).all()
    assert motion.poses_TJ3.shape == (5, 24, 3)


@pytest.mark.parametrize(
    ("written", "read"),
    [("female", "female"), (b"female", "female"), ("b'male'", "male"), ("Neutral", "neutral"), ("unknown", "neutral")],
)
def test_gender_is_read_from_str_and_bytes(tmp_path, write_amass, written, read):
    assert read_motion(write_amass(tmp_path / "a.npz", 5, gender=written)).gender == read


@pytest.mark.parametrize("count", [10, 16, 300])
def test_betas_of_any_length_become_sixteen(tmp_path, write_amass, count):
    betas = np.arange(1.0, count + 1)
    found = read_motion(write_amass(tmp_path / "a.npz", 5, betas=betas)).betas
    assert found.tolist() == [*betas[:16], *[0.0] * (16 - min(count, 16))]


def test_compressed_and_stored_and_float16_files_give_the_same_motion(tmp_path, write_amass):
    stored = write_amass(tmp_path / "stored.npz", 20)
    with np.load(stored) as arrays:
        np.savez_compressed(tmp_path / "compressed.npz", **arrays)
        np.savez(tmp_path / "half.npz", **{**arrays, "poses": arrays["poses"].astype(np.float16)})
    whole, again, half = (read_motion(tmp_path / f"{name}.npz") for name in ("stored", "compressed", "half"))
    assert np.array_equal(whole.poses_TJ3, again.poses_TJ3)
    assert np.abs(whole.poses_TJ3 - half.poses_TJ3).max() < 1e-3
    assert whole.sha256 != again.sha256


def test_fortran_order_and_big_endian_numbers_mean_the_same(tmp_path, write_amass):
    plain = read_motion(write_amass(tmp_path / "a.npz", 20))
    with np.load(tmp_path / "a.npz") as arrays:
        poses = arrays["poses"]
    for name, changed in (("fortran", np.asfortranarray(poses)), ("big", poses.astype(">f8"))):
        other = read_motion(write_amass(tmp_path / f"{name}.npz", 20, poses=changed))
        assert np.array_equal(other.poses_TJ3, plain.poses_TJ3)


# --- resampling


@settings(max_examples=30, deadline=None)
@given(st.floats(10, 250), st.floats(10, 120), st.integers(2, 40), st.integers(0, 99))
@example(120.0, 30.0, 40, 0)  # frames of the source itself, by another formula
@example(30.0, 30.0, 40, 1)
def test_compiled_resampling_equals_slerp_in_torch(fps, target, frames, seed):
    generator = np.random.default_rng(seed)
    poses = generator.normal(size=(frames, 24, 3)) * generator.choice([0, 1e-9, 1e-4, 0.5, 2, 20], (frames, 24, 1))
    motion = motion_of(poses, fps)
    rot6d, trans = resample(motion, target)
    time_N = torch.from_numpy(source_times(frames, fps, target_fps=target, how="slerp"))
    before = time_N.floor().long().clamp(0, frames - 2)
    start, end = (rotations.axis_angle_to_quaternion(torch.from_numpy(poses)[at]) for at in (before, before + 1))
    mixed = rotations.slerp(start, end, (time_N - before)[:, None, None])
    expected = rotations.matrix_to_rot6d(rotations.quaternion_to_matrix(mixed))
    assert (rot6d - expected).abs().max() < 1e-6
    assert trans[:, 0].numpy() == pytest.approx(time_N.numpy() / fps, abs=1e-5)


def test_120_to_30_hz_is_the_source_at_the_shared_times_within_a_tenth_of_a_millimetre(tmp_path, write_amass):
    motion = read_motion(write_amass(tmp_path / "a.npz", 481, 120.0))
    rot6d, trans = resample(motion, 30.0)
    assert len(rot6d) == 121
    rest = rest_joints()
    stored = forward_kinematics(rotations.rot6d_to_matrix(rot6d.double()), rest, root_B3=trans.double())[1]
    matrix = rotations.axis_angle_to_matrix(torch.from_numpy(motion.poses_TJ3[::4]))
    source = forward_kinematics(matrix, rest, root_B3=torch.from_numpy(motion.trans_T3[::4]))[1]
    assert (stored - source).norm(dim=-1).max() < 1e-4


def test_a_clock_that_is_a_hair_off_loses_no_frame():
    assert len(source_times(100, 59.99998856, target_fps=30.0, how="slerp")) == 50
    assert len(source_times(101, 120.00004577, target_fps=30.0, how="slerp")) == 26
    assert source_times(101, 120.0, target_fps=30.0, how="slerp")[-1] == 100


def test_stride_takes_the_frames_that_the_release_takes():
    # The release: every round(fps / 30)-th frame; fps 100 gives 33.3 frames a second that are called 30.
    for frames, fps, stride in ((250, 100.0, 3), (481, 120.0, 4), (100, 60.0, 2), (31, 30.0, 1), (99, 59.99998856, 2)):
        expected = list(range(0, frames, stride))
        assert source_times(frames, fps, target_fps=30.0, how="stride").tolist() == expected
    poses = np.random.default_rng(0).normal(size=(50, 24, 3))
    rot6d, trans = resample(motion_of(poses, 100.0), 30.0, how="stride")
    expected = rotations.matrix_to_rot6d(rotations.axis_angle_to_matrix(torch.from_numpy(poses[::3]))).float()
    assert (rot6d - expected).abs().max() < 1e-6
    assert trans[:, 0].numpy() == pytest.approx(np.arange(0, 50, 3) / 100)


def test_stride_gives_up_what_the_release_gives_up():
    with pytest.raises(MotionError, match="20 fps is 20 at a stride of 1, expected 30"):
        source_times(100, 20.0, target_fps=30.0, how="stride")


def test_written_motion_is_read_back(tmp_path, write_amass):
    motion = read_motion(write_amass(tmp_path / "a.npz", 30))
    matrix = rotations.axis_angle_to_matrix(torch.from_numpy(motion.poses_TJ3))
    amass.write_motion(tmp_path / "b.npz", rotmat_TJ33=matrix, trans_T3=torch.from_numpy(motion.trans_T3), fps=30.0)
    again = read_motion(tmp_path / "b.npz")
    assert again.poses_TJ3 == pytest.approx(motion.poses_TJ3, abs=1e-9)
    assert np.array_equal(again.trans_T3, motion.trans_T3)


# --- what is refused, each by name


class Mine:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def zip_bomb() -> bytes:
    """A small .npz whose poses claim 3 GB."""
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2_600_000, 156)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("poses", "trans"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes(1 << 20))
    return file.getvalue()


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


BAD = {
    "truncated": (truncated, "not a whole .npz file .*copy or download it again"),
    "empty": (lambda content: b"", "begins with b''.*expected an .npz archive"),
    "wrong magic": (lambda content: b"<html>not found</html>", "begins with b'<html>'.*expected an .npz archive"),
    "flipped bit": (
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "checksum of poses.npy is wrong",
    ),
    "zip bomb": (lambda content: zip_bomb(), r"poses claims shape \(2600000, 156\), more than 2 GB"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_file_is_refused_by_name(tmp_path, write_amass, name):
    spoil, expected = BAD[name]
    path = write_amass(tmp_path / "a_poses.npz", 60)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(MotionError, match=f"(?s)a_poses.npz: .*{expected}"):
        read_motion(path)


REFUSED = {
    "no trans": ({"trans": None}, "no trans in it, only"),
    "a shape.npz": ({"trans": None, "poses": None}, "no poses and no trans in it, only"),
    "0 frames": ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, "0 frames, expected at least 2"),
    "1 frame": ({"poses": np.zeros((1, 156)), "trans": np.zeros((1, 3))}, "1 frames, expected at least 2"),
    "other T": ({"trans": np.zeros((19, 3))}, r"trans has shape \(19, 3\), expected \(20, 3\)"),
    "other width": ({"poses": np.zeros((20, 63))}, r"poses has shape \(20, 63\): expected \(T, joints"),
    "NaN": ({"poses": np.where(np.arange(20)[:, None] == 7, np.nan, np.zeros((20, 156)))}, "NaN .*, first in frame 7"),
    "infinite trans": ({"trans": np.full((20, 3), np.inf)}, "trans has NaN or infinity, first in frame 0"),
    "fps 0": ({"mocap_framerate": 0.0}, "mocap_framerate is 0, expected 1 to 1000"),
    "fps negative": ({"mocap_framerate": -30.0}, "mocap_framerate is -30, expected"),
    "fps 1e9": ({"mocap_framerate": 1e9}, r"mocap_framerate is 1e\+09, expected"),
    "fps NaN": ({"mocap_framerate": np.nan}, "mocap_framerate is nan, expected"),
    "no fps": ({"mocap_framerate": None}, "no frame rate in it .*: pass --fps-in"),
    "1e6 radians": ({"poses": np.full((20, 156), 1e6)}, r"poses has an angle of 1e\+06, expected radians"),
    "integers": ({"poses": np.zeros((20, 156), np.int64)}, "poses holds int64, expected floating point"),
    "text": ({"poses": np.full((20, 156), "x")}, "poses holds <U1, expected floating point"),
    "kilometres": ({"trans": np.full((20, 3), 1e7)}, r"trans reaches 1e\+07, expected metres"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_motion_is_refused_with_what_was_found_and_expected(tmp_path, write_amass, name):
    changes, expected = REFUSED[name]
    path = write_amass(tmp_path / "a_poses.npz", 20, **changes)
    with pytest.raises(MotionError, match=f"a_poses.npz: .*{expected}"):
        read_motion(path)


@pytest.mark.parametrize("key", ["poses", "trans", "gender", "mocap_framerate"])
def test_pickled_objects_are_refused_and_never_run(tmp_path, write_amass, key):
    trap = tmp_path / "created by the pickle"
    arrays = np.array([Mine(trap)], dtype=object)
    path = write_amass(tmp_path / "a.npz", 20, **{key: arrays})
    with pytest.raises(MotionError, match=f"{key} holds Python objects, which are never read"):
        read_motion(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Mine(trap)))  # the control: the trap works
    assert trap.exists()


def test_missing_file_and_folder_are_refused_by_name(tmp_path):
    with pytest.raises(MotionError, match="gone.npz: No such file"):
        read_motion(tmp_path / "gone.npz")
    with pytest.raises(MotionError, match="Is a directory"):
        read_motion(tmp_path)


def test_degenerate_angles_stay_rotations():
    poses = np.zeros((3, 24, 3))
    poses[1] = math.pi
    poses[2, :, 0] = 2 * math.pi
    rot6d, _ = resample(motion_of(poses, 30.0), 45.0)
    assert torch.isfinite(rot6d).all()
    assert (rot6d[..., :3].norm(dim=-1) - 1).abs().max() < 1e-6
