"""Joint places of every known set come out as the motion that they are of; what fits no set, or two, is named."""

import io

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.forms.joint_sets import NAMES, SETS
from mclip.pipeline.forms.places import set_of
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.prepare.amass import parse_motion, read_motion
from mclip.pipeline.skeletons.check import BONES
from mclip.pipeline.skeletons.frames import rest_joints


def world(clip: str) -> np.ndarray:
    """Where a clip's 24 joints are, z up, by forward kinematics of its own rotations."""
    motion = read_motion(sorted(MOTIONS.rglob(f"{clip}/*.npz"))[0])
    return places_of(motion.poses_TJ3, motion.trans_T3)


def places_of(poses_TJ3: np.ndarray, trans_T3: np.ndarray) -> np.ndarray:
    matrix = Rotation.from_rotvec(poses_TJ3.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    return forward_kinematics(torch.from_numpy(matrix), rest_joints(), root_B3=torch.from_numpy(trans_T3))[1].numpy()


def written(name: str, place_TJ3: np.ndarray) -> np.ndarray:
    """The same places as a set has them, in millimetres and y up; what SMPL lacks lies about the head."""
    whole = {joint: place_TJ3[:, number] for number, joint in enumerate(JOINTS)}
    columns, seen = [], dict[str, int]()
    for short in NAMES[name]:
        joint = short.replace("l_", "left_", 1).replace("r_", "right_", 1) if short[1:2] == "_" else short
        seen[joint] = seen.get(joint, 0) + 1
        # Of two joints whose mean is SMPL's, one lies as far to the left as the other to the right.
        aside = np.array([0.03, 0, 0]) * (0 if NAMES[name].count(short) < 2 else 3 - 2 * seen[joint])
        columns.append(whole.get(joint, whole["head"] + [0.0, -0.1, 0.05]) + aside)
    return 1000 * Rotation.from_euler("x", -90, degrees=True).apply(np.stack(columns, 1).reshape(-1, 3)).reshape(
        len(place_TJ3), -1, 3
    )


def saved(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values.astype(np.float32))
    return file.getvalue()


@pytest.mark.parametrize("clip", ["walk", "spinkick"])
@pytest.mark.parametrize("name", SETS)
def test_limbs_of_every_set_point_where_its_places_do(name: str, clip: str) -> None:
    source = world(clip)
    found = parse_motion(saved(written(name, source)), Asked(fps=30.0, joints=name))
    assert (found.account["skeleton"], found.account["up"], found.account["axes"]) == (name, "y", "places")
    assert found.account["metres"] == pytest.approx(0.001, rel=0.01)
    ours = places_of(found.poses_TJ3, found.trans_T3)
    known = SETS[name][1]
    for start, end in BONES[:10]:
        if start in known and end in known and not end.endswith("foot"):
            a, b = (each[:, JOINTS.index(end)] - each[:, JOINTS.index(start)] for each in (ours, source))
            cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 1, (start, end)
    # Metres; where toes are missing, nobody knows how low they reach.
    assert np.abs(ours - source)[:, [1, 2, 4, 5, 7, 8]].max() < (0.06 if "left_foot" in known else 0.1)
    assert found.account["mm"] < 40


@pytest.mark.parametrize("name", SETS)
def test_the_set_is_told_by_the_number_of_joints_and_steady_bones(name: str) -> None:
    place = written(name, world("spinkick"))
    assert set_of(place) == name


def test_a_set_with_another_number_of_joints_is_named() -> None:
    place = written("coco17", world("walk"))
    with pytest.raises(MotionError, match="17 joints, and --joints kinect25: kinect25 has 25"):
        set_of(place, "kinect25")


def test_a_hand_or_noise_is_no_body() -> None:
    generator = np.random.default_rng(0)
    hand = np.zeros((30, 21, 3))
    for finger in range(5):
        for joint in range(4):
            hand[:, 1 + 4 * finger + joint] = [0.02 * finger, 0.07 + 0.03 * joint, 0]
    for place in (hand, generator.normal(size=(30, 17, 3))):
        with pytest.raises(MotionError, match="bones change their length, or are not as long as people's"):
            parse_motion(saved(place), Asked(fps=30.0))


def test_a_frame_without_places_is_named() -> None:
    place = written("mediapipe33", world("walk"))
    place[5, 3] = np.nan
    with pytest.raises(MotionError, match="NaN or infinity, first in frame 5"):
        parse_motion(saved(place), Asked(fps=30.0))
