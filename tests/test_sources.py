"""Folders, links, archives, BVH: what is found where, and what is refused."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS, forward_kinematics
from mclip.pipeline.prepare import bvh, sources
from mclip.pipeline.prepare.amass import parse_motion
from mclip.pipeline.prepare.sources import contents, recordings, require_source
from mclip.pipeline.skeletons.frames import rest_joints


def names(source: Path) -> list[str]:
    return [recording.name for recording in recordings(source)]


def test_files_of_a_folder_are_found_in_order(amass_folder):
    (amass_folder / "CMU/notes.txt").write_text("x")
    (amass_folder / "CMU/.hidden.npz").write_text("x")
    assert names(amass_folder) == [
        "CMU/01/01_01_poses.npz",
        "CMU/01/01_02_poses.npz",
        "CMU/01/shape.npz",
        "KIT/3/kick_poses.npz",
        "SFU/0005/jog_poses.npz",
        "SSM_synced/20/hop_stageii.npz",
    ]


def test_links_are_followed_and_loops_end(tmp_path, write_amass):
    write_amass(tmp_path / "disk/CMU/a.npz", 5)
    (tmp_path / "AMASS").mkdir()
    (tmp_path / "AMASS/CMU").symlink_to(tmp_path / "disk/CMU")
    (tmp_path / "disk/CMU/again").symlink_to(tmp_path / "AMASS")
    assert names(tmp_path / "AMASS") == ["CMU/a.npz"]


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.npz").symlink_to(tmp_path / "gone")
    (found,) = recordings(tmp_path)
    assert (found.name, found.reason) == ("a.npz", "No such file or directory")


def test_one_file_is_a_source(tmp_path, write_amass):
    path = write_amass(tmp_path / "walk_poses.npz", 5)
    assert names(path) == ["walk_poses.npz"]
    ((_, content),) = contents(path, ["walk_poses.npz"])
    assert content == path.read_bytes()


def test_what_is_no_source_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="gone: no such folder or file; expected one that holds AMASS"):
        require_source(tmp_path / "gone")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a.txt: expected a folder, an archive \(.tar"):
        require_source(tmp_path / "a.txt")


# --- archives


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:]}") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["bz2", "gz"])
def test_archive_is_streamed_and_its_members_come_in_any_order(tmp_path, write_amass, suffix):
    files = {f"CMU/01/{i}_poses.npz": write_amass(tmp_path / f"{i}.npz", 20, seed=i).read_bytes() for i in range(4)}
    (tmp_path / "AMASS").mkdir()
    pack(tmp_path / f"AMASS/CMU.tar.{suffix}", files | {"CMU/LICENSE.txt": b"x"})
    inside = [f"CMU.tar.{suffix}!/{name}" for name in files]
    assert names(tmp_path / "AMASS") == inside
    order = [inside[i] for i in (2, 3, 0, 1, 1)]
    found = {name: bytes(content) for name, content in contents(tmp_path / "AMASS", order)}
    assert list(found) == [inside[i] for i in (2, 3, 0, 1)]
    assert found == {each: files[each.partition("!/")[2]] for each in found}
    assert sorted(path.name for path in tmp_path.rglob("*_poses.npz")) == []  # nothing was unpacked


def test_paths_that_lead_out_of_an_archive_are_refused_and_the_rest_is_read(tmp_path, write_amass):
    content = write_amass(tmp_path / "a.npz", 20).read_bytes()
    pack(tmp_path / "x.tar.gz", {"../../evil.npz": content, "/tmp/evil.npz": content, "CMU/good.npz": content})
    found = {each.name: each.reason for each in recordings(tmp_path / "x.tar.gz")}
    assert found["x.tar.gz!/../../evil.npz"] == "its path '../../evil.npz' leads out of the archive"
    assert "leads out" in found["x.tar.gz!//tmp/evil.npz"]
    assert found["x.tar.gz!/CMU/good.npz"] == ""


def test_links_in_an_archive_are_no_motions(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("a.npz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert names(tmp_path / "x.tar.gz") == []


def test_archive_cut_short_gives_what_is_whole_and_names_itself(tmp_path, write_amass):
    files = {f"CMU/{i}.npz": write_amass(tmp_path / f"{i}.npz", 200, seed=i).read_bytes() for i in range(4)}
    path = pack(tmp_path / "x.tar.gz", files)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *whole, last = recordings(path)
    assert 1 <= len(whole) < 4
    assert last.name == "x.tar.gz"
    assert "archive cannot be read to its end" in last.reason
    assert "copy or download it again" in last.reason


def test_a_member_that_is_not_there_any_more_is_named(tmp_path):
    path = pack(tmp_path / "x.tar.gz", {"a.npz": b"x"})
    ((_, found),) = contents(path, ["x.tar.gz!/b.npz"])
    assert isinstance(found, MotionError)
    assert "no b.npz in this archive any more" in str(found)


# --- BVH

AT_REST = np.zeros((2, 24, 3))
AT_REST[:, 0, 0] = np.pi / 2  # stands: y up becomes z up

MIXAMO = {
    "pelvis": "Hips",
    "left_hip": "LeftUpLeg",
    "right_hip": "RightUpLeg",
    "spine1": "Spine",
    "left_knee": "LeftLeg",
    "right_knee": "RightLeg",
    "spine2": "Spine1",
    "left_ankle": "LeftFoot",
    "right_ankle": "RightFoot",
    "spine3": "Spine2",
    "left_foot": "LeftToeBase",
    "right_foot": "RightToeBase",
    "neck": "Neck",
    "left_collar": "LeftShoulder",
    "right_collar": "RightShoulder",
    "head": "Head",
    "left_shoulder": "LeftArm",
    "right_shoulder": "RightArm",
    "left_elbow": "LeftForeArm",
    "right_elbow": "RightForeArm",
    "left_wrist": "LeftHand",
    "right_wrist": "RightHand",
    "left_hand": "LeftHandMiddle1",
    "right_hand": "RightHandMiddle1",
}


def bvh_text(poses_TJ3: np.ndarray, trans_T3: np.ndarray, rest_J3: np.ndarray, name=str) -> str:
    """A BVH file in centimetres, y up, of a z-up motion."""
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    matrix = Rotation.from_rotvec(poses_TJ3.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    matrix[:, 0] = turn.T @ matrix[:, 0]
    place = (trans_T3 + rest_J3[0]) @ turn * 100
    euler = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_euler("ZXY", degrees=True).reshape(-1, 24, 3)
    lines, order = ["HIERARCHY"], []

    def joint(j: int) -> None:
        order.append(j)
        offset = (rest_J3[j] - (rest_J3[PARENTS[j]] if j else rest_J3[j])) * 100
        channels = "CHANNELS 3 Zrotation" if j else "CHANNELS 6 Xposition Yposition Zposition Zrotation"
        lines.extend(
            [
                f"{'JOINT' if j else 'ROOT'} {name(JOINTS[j])}",
                "{",
                "OFFSET " + " ".join(f"{x:.9f}" for x in offset),
                f"{channels} Xrotation Yrotation",
            ]
        )
        children = [c for c in range(24) if PARENTS[c] == j]
        for child in children:
            joint(child)
        if not children:
            lines.extend(["End Site", "{", "OFFSET 0 1 0", "}"])
        lines.append("}")

    joint(0)
    lines += ["MOTION", f"Frames: {len(place)}", "Frame Time: 0.033333"]
    lines += [" ".join(f"{x:.9f}" for x in (*place[t], *euler[t, order].ravel())) for t in range(len(place))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [str, lambda joint: "mixamorig:" + MIXAMO[joint]], ids=["SMPL", "Mixamo"])
def test_bvh_of_our_skeleton_gives_back_the_motion(tmp_path, write_amass, name):
    motion = parse_motion(write_amass(tmp_path / "a.npz", 12).read_bytes())
    rest = rest_joints()
    content = bvh_text(motion.poses_TJ3, motion.trans_T3, rest.numpy(), name).encode()
    found = sources.parse("a.bvh", content, None)
    assert bvh.probe_motion(io.BufferedReader(io.BytesIO(content))) == (12, 30.0)
    placed = [
        forward_kinematics(
            axis_angle_to_matrix(torch.from_numpy(each.poses_TJ3)), rest, root_B3=torch.from_numpy(each.trans_T3)
        )[1]
        for each in (motion, found)
    ]
    assert (placed[0] - placed[1]).abs().max() < 1e-6
    assert found.fps == 30.0


def test_bvh_with_bent_arms_at_rest_keeps_its_bones_where_they_point(tmp_path, write_amass):
    rest = rest_joints().numpy()
    bent = rest.copy()
    for wrist, elbow, hand in ((20, 18, 22), (21, 19, 23)):  # forearms hang down from the elbows
        for joint, length in ((wrist, 0.25), (hand, 0.33)):
            bent[joint] = bent[elbow] - [0, length, 0]
    content = bvh_text(AT_REST, np.zeros((2, 3)), bent).encode()
    motion = sources.parse("a.bvh", content, None)
    matrix = axis_angle_to_matrix(torch.from_numpy(motion.poses_TJ3))
    position = forward_kinematics(matrix, rest_joints())[1][0]
    forearm = torch.nn.functional.normalize(position[20] - position[18], dim=0)
    assert forearm.numpy() == pytest.approx([0, 0, -1], abs=1e-6)


def test_bvh_without_a_frame_time_is_refused():
    with pytest.raises(MotionError, match="no `Frames:` and `Frame Time:` in it: expected a BVH file"):
        bvh.probe_motion(io.BufferedReader(io.BytesIO(b"HIERARCHY")))
    with pytest.raises(MotionError, match="Frame Time is 0 s, expected 0.001 to 1"):
        bvh.probe_motion(io.BufferedReader(io.BytesIO(b"MOTION\nFrames: 5\nFrame Time: 0\n")))


def test_case_colliding_and_strange_names_are_recordings_of_their_own(tmp_path, write_amass):
    strange = ["Walk.npz", "walk.npz", "line\nbreak.npz", "日本語.npz", os.fsdecode(b"caf\xe9.npz")]
    for name in strange:
        write_amass(tmp_path / "A" / name, 5)
    assert set(names(tmp_path / "A")) == set(strange)
