"""HumanML3D's features against that data set's published steps, written again here frame by frame in quaternions."""

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.asked import WRITTEN
from mclip.pipeline.forms.humanml3d import CHAINS, about_y, begun, features_of, lengths_of, places_of, with_lengths
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS as SMPL
from mclip.pipeline.prepare.amass import parse_motion
from mclip.training.show.motion import read

CLIPS = [sorted(MOTIONS.rglob(f"{name}/*.npz"))[0] for name in ("walk", "spinkick", "getup_facedown")]


def joints(clip: Path) -> np.ndarray:
    """Where a clip's joints are at 20 fps (T, 22, 3), y up, float64."""
    return (read(clip, fps=20.0).joints().double().numpy()[:, :22] @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]).astype(float)


# --- the slow twin: the steps of HumanML3D's motion_representation, quaternions with the real part first

AXES = np.zeros((22, 3))
AXES[[3, 6, 9, 12], 1], AXES[[4, 5, 7, 8, *range(16, 22)], 1] = 1, -1
AXES[[1, 13], 0], AXES[[2, 14], 0], AXES[[10, 11, 15], 2] = 1, -1, 1


def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found = np.array([np.sqrt((a @ a) * (b @ b)) + a @ b, *np.cross(a, b)])
    return found / np.sqrt(found @ found)


def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([p[0] * q[0] - p[1:] @ q[1:], *(p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))])


def inverse(q: np.ndarray) -> np.ndarray:
    return q * [1, -1, -1, -1]


def turned(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    return v + 2 * (q[0] * np.cross(q[1:], v) + np.cross(q[1:], np.cross(q[1:], v)))


def across(place: np.ndarray) -> np.ndarray:
    line = place[2] - place[1] + place[17] - place[16]
    line = line / np.sqrt(line @ line)
    ahead = np.cross([0, 1, 0], line)
    return ahead / np.sqrt(ahead @ ahead)


def slow_kinematics(places: np.ndarray, *, smooth: bool) -> np.ndarray:
    """Quaternions (T, 22, 4): the root's takes the facing direction to +z, each bone's is in those before it."""
    ahead = np.stack([across(place) for place in places])
    if smooth:
        ahead = gaussian_filter1d(ahead, 20, axis=0, mode="nearest")
    found = np.zeros((len(places), 22, 4))
    for frame, place in enumerate(places):
        root = between(ahead[frame] / np.sqrt(ahead[frame] @ ahead[frame]), np.array([0.0, 0, 1]))
        found[frame, 0] = root
        for chain in CHAINS:
            whole = root
            for start, end in zip(chain, chain[1:], strict=False):
                bone = place[end] - place[start]
                local = product(inverse(whole), between(AXES[end], bone / np.sqrt(bone @ bone)))
                found[frame, end], whole = local, product(whole, local)
    return found


def slow_uniform(places: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The motion on bones of the target's lengths: inverse and forward kinematics, the root's path scaled by legs."""
    turns, result = slow_kinematics(places, smooth=False), np.zeros_like(places)
    own = [np.linalg.norm(places[0, end] - places[0, start]) for start, end in ((2, 5), (5, 8))]
    for frame in range(len(places)):
        result[frame, 0] = places[frame, 0] * (target[5] + target[8]) / sum(own)
        for chain in CHAINS:
            whole = turns[frame, 0]
            for start, end in zip(chain, chain[1:], strict=False):
                whole = product(whole, turns[frame, end])
                result[frame, end] = result[frame, start] + turned(whole, target[end] * AXES[end])
    return result


def slow_features(places: np.ndarray) -> np.ndarray:
    places = places.copy()
    places[:, :, 1] -= places[:, :, 1].min()
    places = places - places[0, 0] * [1, 0, 1]
    first = between(across(places[0]), np.array([0.0, 0, 1]))
    places = np.array([[turned(first, joint) for joint in place] for place in places])
    turns = slow_kinematics(places, smooth=True)
    rows = []
    for now, after, turn, next_turn in zip(places, places[1:], turns, turns[1:], strict=False):
        spin = product(next_turn[0], inverse(turn[0]))
        step = turned(next_turn[0], after[0] - now[0])
        local = [turned(turn[0], joint - now[0] * [1, 0, 1]) for joint in now]
        sixes = [Rotation.from_quat(np.roll(q, -1)).as_matrix()[:, :2].T.reshape(-1) for q in turn[1:]]
        speeds = [turned(turn[0], b - a) for a, b in zip(now, after, strict=True)]
        stands = [((after[joint] - now[joint]) ** 2).sum() < 0.002 for joint in (7, 10, 8, 11)]
        root = [np.arcsin(spin[2]), step[0], step[2], local[0][1]]
        rows.append(
            np.concatenate([root, np.concatenate(local[1:]), np.concatenate(sixes), np.concatenate(speeds), stands])
        )
    return np.array(rows)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_features_are_those_of_the_data_sets_own_steps(clip: Path) -> None:
    found, expected = features_of(joints(clip)), slow_features(joints(clip))
    assert found.shape == (len(joints(clip)) - 1, 263)
    assert np.abs(found - expected).max() < 1e-5
    assert 0 < found[:, 259:].mean() < 1  # some feet stand, others do not


def test_a_skeleton_is_made_uniform_as_the_data_set_does() -> None:
    places, target = joints(CLIPS[0]), lengths_of(joints(CLIPS[0])) * np.linspace(0.8, 1.2, 22)
    assert np.abs(with_lengths(places, target) - slow_uniform(places, target)).max() < 1e-5
    assert np.abs(with_lengths(places, lengths_of(places)) - places).max() < 1e-5


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_places_come_back_from_features(clip: Path) -> None:
    # The data set's own features begin with a smoothed facing direction, which is a little beside +z.
    assert np.abs(begun(places_of(features_of(joints(clip)))) - begun(joints(clip)[:-1])).max() < 1e-6


def saved(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_features_are_read_as_the_motion_at_20_fps() -> None:
    found = parse_motion(saved(features_of(joints(CLIPS[0])).astype(np.float32)))
    assert (found.fps, found.account["form"], found.account["up"]) == (20.0, "HumanML3D 263", "y")
    assert found.account["degrees"] < 1
    assert found.account["mm"] < 5


def test_features_that_were_normalised_are_refused_with_the_remedy() -> None:
    features = features_of(joints(CLIPS[0]))
    normalised = (features - features.mean(0)) / (features.std(0) + 1e-6)
    with pytest.raises(MotionError, match="mean and standard deviation.*undo it"):
        parse_motion(saved(normalised))


def test_export_writes_what_the_data_set_holds_and_it_is_read_back(tmp_path: Path) -> None:
    runner = CliRunner()
    told = runner.invoke(cli, ["export", str(CLIPS[0]), "--to", "humanml3d", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    vectors, places = (
        np.load(tmp_path / folder / f"{CLIPS[0].stem}.npy") for folder in ("new_joint_vecs", "new_joints")
    )
    assert (vectors.dtype, places.dtype) == (np.float32, np.float32)
    assert np.abs(vectors - slow_features(joints(CLIPS[0]))).max() < 1e-5
    assert np.abs(begun(places.astype(float)) - begun(joints(CLIPS[0])[:-1])).max() < 1e-5
    again = runner.invoke(cli, ["export", str(CLIPS[0]), "--to", "humanml3d", "--out", str(tmp_path)])
    assert "there already" in again.output
    back = read(tmp_path / "new_joint_vecs" / f"{CLIPS[0].stem}.npy").joints().double().numpy()[:, :22]
    ours = (back @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]).astype(float)
    assert (
        np.abs(begun(ours) - begun(joints(CLIPS[0])[:-1]))[:, [0, 1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21]].max()
        < 0.03
    )


def kit_features(places: np.ndarray, names: list[str]) -> np.ndarray:
    """KIT-ML's 251 features, in millimetres, of HumanML3D's joints under other names; what no reader needs is zero."""
    places = begun(places)
    root, back = features_of(places)[:, :4], about_y(-2 * np.append(0, features_of(places)[:, 0].cumsum())[:-1])
    known = {name: places[:-1, number] for number, name in enumerate(SMPL[:22])}
    own = np.stack([known.get(name, known["pelvis"]) for name in names], axis=1)
    local = (own - own[:, :1] * (1, 0, 1)) @ back
    features = np.concatenate([root, local[:, 1:].reshape(len(root), -1), np.zeros((len(root), 251 - 64))], axis=1)
    features[:, 1:64] *= 1000
    return features


# As KIT names its joints, and as text-to-motion work takes them: there what it calls left is to the right.
@pytest.mark.parametrize("left", ["left", "right"])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.parent.name)
def test_kits_features_are_the_motion_they_were_made_of_whichever_side_is_called_left(tmp_path, clip, left):
    sides = {"l_": f"{left}_", "r_": "right_" if left == "left" else "left_"}
    names = [sides[name[:2]] + name[2:] if name[1] == "_" else name for name in WRITTEN["kit21"].split() if name != "-"]
    for at in [place for place, name in enumerate(WRITTEN["kit21"].split()) if name == "-"]:
        names.insert(at, names[at - 1])
    wanted = read(clip, fps=12.5).joints().double().numpy()[:, :22]
    np.save(tmp_path / "kit.npy", kit_features(wanted @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]], names))
    found = read(tmp_path / "kit.npy", fps=12.5)
    place = found.joints().double().numpy()[:, :22]
    assert len(place) == len(wanted) - 1
    # Limbs and trunk by their directions, as the features begin facing another way.
    bones = [
        ("left_hip", "left_knee"),
        ("right_knee", "right_ankle"),
        ("left_shoulder", "left_elbow"),
        ("pelvis", "neck"),
    ]
    for a, b in bones:
        ours, theirs = (each[:, SMPL.index(b)] - each[:, SMPL.index(a)] for each in (place, wanted[:-1]))
        cosine = (ours[:, 2] / np.linalg.norm(ours, axis=1), theirs[:, 2] / np.linalg.norm(theirs, axis=1))
        assert np.abs(np.degrees(np.arcsin(cosine[0]) - np.arcsin(cosine[1]))).mean() < 6, (a, b)
