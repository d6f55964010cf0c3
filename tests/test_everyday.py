"""The everyday motions are what their keys and labels say, measured on the stored files by forward kinematics alone."""

# T frames, J joints (24), V vertices

import functools
import json
import tomllib

import numpy as np
import pytest
import torch

from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.files.assets import ASSETS, SHIPPED
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, geodesic
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.workflows import write_motions

FOLDER = SHIPPED["everyday"]
CLIPS = tomllib.loads((FOLDER / "keys.toml").read_text())
UP = 2


@functools.cache
def load_clip(clip: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / "EVERYDAY" / clip / f"{clip}_poses.npz", allow_pickle=False) as archive:
        return dict(archive)


def rotations(clip: str) -> torch.Tensor:
    """Local rotations (T, J, 3, 3); AMASS's hands are at rest."""
    poses = torch.from_numpy(load_clip(clip)["poses"][:, :66]).reshape(-1, 22, 3)
    return axis_angle_to_matrix(torch.nn.functional.pad(poses, (0, 0, 0, 2)))


@functools.cache
def places(clip: str) -> dict[str, np.ndarray]:
    """World positions (T, 3) in metres by joint, z up; the floor is at 0 under a body of the rest pose's height."""
    body = load_body("default")
    trans_T3 = torch.from_numpy(load_clip(clip)["trans"]).float()
    joints_TJ3 = body.pose_joints(rotations(clip).float(), trans_B3=trans_T3)
    return {name: joints_TJ3[:, number].numpy() for number, name in enumerate(JOINTS)}


@functools.cache
def lowest(clip: str) -> np.ndarray:
    """Height (T) in metres of the lowest vertex."""
    trans_T3 = torch.from_numpy(load_clip(clip)["trans"]).float()
    return load_body("default").pose(rotations(clip).float(), trans_B3=trans_T3)[..., UP].amin(1).numpy()


def chord(clip: str, one: str, other: str) -> np.ndarray:
    """Distance (T) in metres of two joints."""
    return np.linalg.norm(places(clip)[one] - places(clip)[other], axis=1)


def standing(clip: str, side: str) -> np.ndarray:
    """Frames (T) in which the ball of a foot is to stand: no key moves the foot, and it does not roll over its heel."""
    foot, toes = (write_motions.channel(CLIPS[clip], f"{side}_{name}") for name in ("foot", "toes"))
    moved = np.abs(np.gradient(foot, axis=0)).max(1) + np.abs(np.gradient(toes[:, 0]))
    return (moved < 1e-6) & ((toes[:, 1] > -1e-6) | (np.abs(np.gradient(toes[:, 1])) < 1e-6))


@pytest.mark.parametrize("clip", CLIPS)
def test_the_files_are_what_the_keys_make(clip: str) -> None:
    made, stored = write_motions.made(CLIPS[clip], write_motions.read_rest()), load_clip(clip)
    assert made.keys() == stored.keys()
    for name in ("poses", "trans"):
        np.testing.assert_allclose(stored[name], made[name], atol=2e-5)
    assert float(stored["mocap_framerate"]) == 30
    assert len(stored["poses"]) == 60


def test_every_key_is_of_a_channel_that_is_read_and_lies_within_the_clip() -> None:
    sided = {f"{side}_{name}" for side in ("left", "right") for name in ("hand", "elbow", "palm", "foot", "toes")}
    for name, clip in CLIPS.items():
        assert clip["keys"].keys() <= {"hips", "pelvis", "spine", "head"} | sided, name
        for channel, keys in clip["keys"].items():
            width = {len(key) for key in keys}
            assert width == {1 + len(write_motions.STANDING[channel.split("_")[-1]])}, (name, channel)
            seconds = [key[0] for key in keys]
            assert seconds == sorted({*seconds}), (name, channel)
            assert 0 <= seconds[0] <= seconds[-1] <= 2, (name, channel)


def test_the_labels_are_those_of_the_keys_and_each_names_one_clip_only() -> None:
    entries = json.loads((FOLDER / "babel" / "train.json").read_text())
    assert entries == write_motions.labelled(CLIPS)
    texts = [text for clip in CLIPS.values() for text in clip["labels"]]
    captured = json.loads((ASSETS / "motions" / "babel" / "train.json").read_text())
    assert len({*texts}) == len(texts)
    assert not {*texts} & {label["raw_label"] for each in captured.values() for label in each["seq_ann"]["labels"]}
    assert not {*entries} & {*captured}
    assert {category for clip in CLIPS.values() for category in clip["categories"]} <= {*BABEL_60}


@pytest.mark.parametrize("clip", sorted(CLIPS.keys() - {"jumping_jacks"}))  # there they hop all the time
def test_feet_that_stand_do_not_move(clip: str) -> None:
    moved = []
    for side in ("left", "right"):
        still = standing(clip, side)
        steps = np.linalg.norm(np.diff(places(clip)[f"{side}_foot"], axis=0), axis=1)[still[1:] & still[:-1]]
        moved += [*steps]
    assert len(moved) >= 12
    assert max(moved) < 0.002


@pytest.mark.parametrize("clip", CLIPS)
def test_the_body_is_on_the_floor_and_not_under_it(clip: str) -> None:
    height = lowest(clip)
    assert height.min() > -0.03
    assert np.median(height) < 0.02


@pytest.mark.parametrize("clip", CLIPS)
def test_no_joint_flips_or_bends_the_wrong_way(clip: str) -> None:
    local = rotations(clip)
    degrees = torch.rad2deg(geodesic(local[1:], local[:-1]))
    assert float(degrees.max()) < 32
    for side in ("left", "right"):
        # A knee that bends brings the ankle back, an elbow the wrist ahead: in the frame of the bone above.
        knee, elbow = (local[:, JOINTS.index(f"{side}_{name}")] for name in ("knee", "elbow"))
        assert float(knee[:, 2, 1].min()) > -0.05
        assert float((elbow[:, 2, 0] * (1 if side == "left" else -1)).min()) > -0.05


def test_motions_show_what_they_are_called() -> None:
    assert chord("clap", "left_wrist", "right_wrist").min() < 0.11
    assert chord("drink", "right_wrist", "head").min() < 0.24
    assert chord("telephone", "right_wrist", "head").max() < 0.22
    assert (places("wave")["right_wrist"] - places("wave")["right_shoulder"])[20:40, UP].min() > 0.1
    assert 0.45 < places("sit")["pelvis"][:, UP].mean() < 0.55
    assert np.ptp(places("stand")["pelvis"], axis=0).max() < 0.06
    assert places("sit_down")["pelvis"][-1, UP] < 0.55 < 0.85 < places("rise")["pelvis"][-1, UP]
    assert places("bow")["head"][30, UP] < places("bow")["head"][0, UP] - 0.3
    assert np.abs(places("bow")["pelvis"][:, UP] - 0.9).max() < 0.06
    assert places("pick_up")["right_hand"][:, UP].min() < 0.15
    assert places("squat")["pelvis"][:, UP].min() < 0.55
    assert places("balance")["right_ankle"][-1, UP] > 0.45
    assert places("row")["pelvis"][:, UP].max() < 0.35
    # Bodies face -y: who walks backwards goes to +y, and an old man ahead, slowly.
    assert places("walk_backwards")["pelvis"][-1, 1] - places("walk_backwards")["pelvis"][0, 1] > 0.8
    assert -1.1 < places("walk_old")["pelvis"][-1, 1] - places("walk_old")["pelvis"][0, 1] < -0.7
    assert lowest("jumping_jacks").max() > 0.03
    assert lowest("cheer").max() > 0.05
