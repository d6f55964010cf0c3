"""The embedded motions, labels and bodies are what workflows/records/embedded.md says."""

# T frames, J joints (24), V vertices, F faces

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, geodesic
from mclip.pipeline.geometry.skeleton import JOINTS, MIRRORED, PARENTS, forward_kinematics

DATA = ASSETS
CLIPS = {
    "backflip",
    "cartwheel",
    "crawl",
    "dance_a",
    "dance_b",
    "getup_facedown",
    "getup_faceup",
    "jump",
    "kick",
    "punch",
    "roll",
    "run",
    "spin",
    "spinkick",
    "turn_left_0",
    "turn_left_1",
    "turn_right_0",
    "turn_right_1",
    "walk",
    "walk_forward",
}
UPRIGHT = ("walk", "walk_forward", "turn_left_0", "turn_left_1", "turn_right_0", "turn_right_1")
BODIES = ("body.npz", "body_low.npz")


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def load_clip(clip: str) -> dict[str, np.ndarray]:
    return load(DATA / "motions" / "EMBEDDED" / clip / f"{clip}_poses.npz")


def load_labels() -> dict[str, dict]:
    """BABEL entries by clip."""
    entries = json.loads((DATA / "motions" / "babel" / "train.json").read_text()).values()
    return {entry["feat_p"].split("/")[2]: entry for entry in entries}


def spans(entry: dict) -> list[dict]:
    return entry["seq_ann"]["labels"] + (entry["frame_ann"] or {"labels": []})["labels"]


def load_paraphrases() -> list[dict]:
    return json.loads((Path(__file__).parent / "data" / "paraphrases.json").read_text())


def rotations(clip: str) -> torch.Tensor:
    """Local rotations (T, J, 3, 3); AMASS's hands are at rest."""
    poses = torch.from_numpy(load_clip(clip)["poses"][:, :66]).reshape(-1, 22, 3)
    return axis_angle_to_matrix(torch.nn.functional.pad(poses, (0, 0, 0, 2)))


def world(clip: str) -> tuple[np.ndarray, np.ndarray]:
    """World rotations (T, J, 3, 3) and joint positions (T, J, 3) of a clip on the embedded body."""
    joints_J3 = torch.from_numpy(load(DATA / "body.npz")["joints"]).double()
    trans_T3 = torch.from_numpy(load_clip(clip)["trans"])
    turned, placed = forward_kinematics(rotations(clip), joints_J3, root_B3=trans_T3)
    return turned.numpy(), placed.numpy()


def skin(clip: str, body: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices (T, V, 3) of a clip by linear blend skinning."""
    turned, placed = world(clip)
    moved = placed - np.einsum("tjab,jb->tja", turned, body["joints"])
    blended = np.einsum("vj,tjab->tvab", body["weights"].astype(float), turned)
    return np.einsum("tvab,vb->tva", blended, body["v_template"]) + body["weights"].astype(float) @ moved


def at(placed_TJ3: np.ndarray, joint: str) -> np.ndarray:
    return placed_TJ3[:, JOINTS.index(joint)]


def heading(clip: str) -> np.ndarray:
    """Unwrapped heading (T) in radians, anticlockwise from above: where the pelvis faces."""
    facing_T3 = world(clip)[0][:, 0, :, 2]
    return np.unwrap(np.arctan2(facing_T3[:, 1], facing_T3[:, 0]))


def test_twenty_clips_lie_below_the_motions_folder_and_no_other():
    assert {folder.name for folder in (DATA / "motions" / "EMBEDDED").iterdir()} == CLIPS
    assert set(load_labels()) == CLIPS


@pytest.mark.parametrize("clip", sorted(CLIPS))
def test_a_clip_has_the_layout_of_amass(clip):
    motion = load_clip(clip)
    frames = len(motion["poses"])
    assert motion["poses"].shape == (frames, 156)
    assert motion["poses"].dtype == np.float64
    assert motion["trans"].shape == (frames, 3)
    assert motion["betas"].tolist() == [0.0] * 16
    assert str(motion["gender"]) == "neutral"
    assert np.isfinite(motion["poses"]).all()
    assert np.isfinite(motion["trans"]).all()
    assert not motion["poses"][:, 66:].any()


def test_frames_and_rates_are_those_of_the_sources():
    counts = Counter({round(float(load_clip(c)["mocap_framerate"]), 2): 0 for c in CLIPS})
    for clip in CLIPS:
        motion = load_clip(clip)
        counts[round(float(motion["mocap_framerate"]), 2)] += len(motion["poses"])
    # 16: backflip; 24: spin; 30: kick, punch, five of walker/, and walk and run at 33.332 ms; 60: the other nine.
    assert counts == {16.0: 29, 24.0: 107, 30.0: 366, 60.0: 1308}


def test_durations_sum_to_forty_seconds():
    seconds = sum((len(load_clip(c)["poses"]) - 1) / float(load_clip(c)["mocap_framerate"]) for c in CLIPS)
    assert seconds == pytest.approx(39.715, abs=0.001)


@pytest.mark.parametrize("clip", sorted(CLIPS))
def test_no_joint_jumps_between_frames(clip):
    rotmat = rotations(clip)
    turned = torch.rad2deg(geodesic(rotmat[:-1], rotmat[1:])).max()
    # The fastest is backflip's left shoulder, 109 degrees in a frame of a sixteenth of a second.
    assert float(turned) * float(load_clip(clip)["mocap_framerate"]) < 1800


@pytest.mark.parametrize("clip", ["walk", "walk_forward", "run", "jump", *UPRIGHT[2:]])
def test_the_body_faces_where_it_goes(clip):
    turned, placed = world(clip)
    facing = turned[:, 0, :2, 2].mean(0)
    going = placed[-1, 0, :2] - placed[0, 0, :2]
    assert facing @ going / np.linalg.norm(facing) / np.linalg.norm(going) > 0.98
    assert np.linalg.norm(going) > 0.7


@pytest.mark.parametrize(
    ("clip", "degrees"),
    [("turn_left_0", 30), ("turn_left_1", 56), ("turn_right_0", -99), ("turn_right_1", -53), ("walk", 7)],
)
def test_left_turns_are_anticlockwise_from_above(clip, degrees):
    way = heading(clip)
    assert np.degrees(way[-1] - way[0]) == pytest.approx(degrees, abs=2)


@pytest.mark.parametrize("clip", UPRIGHT)
def test_the_left_hip_is_on_the_left_and_the_head_on_top(clip):
    turned, placed = world(clip)
    left_T3 = np.cross([0, 0, 1.0], turned[:, 0, :, 2])
    assert ((at(placed, "left_hip") - at(placed, "right_hip")) * left_T3).sum(1).min() > 0.1
    assert at(placed, "head")[:, 2].min() > 1.2


@pytest.mark.parametrize("side", ["left", "right"])
def test_arms_swing_against_the_legs_of_their_side(side):
    turned, placed = world("walk")
    forward_T3 = turned[:, 0, :, 2]
    from_pelvis = [((at(placed, f"{side}_{j}") - placed[:, 0]) * forward_T3).sum(1) for j in ("wrist", "ankle")]
    assert np.corrcoef(from_pelvis)[0, 1] < -0.8


def test_knees_and_elbows_bend_the_way_they_can():
    for clip in CLIPS:
        rotvec = load_clip(clip)["poses"].reshape(-1, 52, 3)
        knees, elbows = rotvec[:, [4, 5]], rotvec[:, [18, 19]]
        # Hinges only: knees fold back about x; elbows fold forward about y, the left one to the negative.
        assert np.abs(knees[..., 1:]).max() < 1e-4
        assert np.abs(elbows[..., [0, 2]]).max() < 1e-4
        # spinkick's source stretches its right knee 12.7 degrees too far.
        assert knees[..., 0].min() > -0.23
        assert elbows[:, 0, 1].max() < 0.1
        assert elbows[:, 1, 1].min() > -0.1


def test_the_kick_is_the_right_legs_as_its_label_says():
    placed = world("kick")[1]
    assert "right leg" in load_labels()["kick"]["seq_ann"]["labels"][1]["raw_label"]
    assert at(placed, "right_ankle")[:, 2].max() > at(placed, "left_ankle")[:, 2].max() + 0.5


@pytest.mark.parametrize("clip", UPRIGHT)
def test_walking_feet_are_on_the_floor(clip):
    lowest_T = skin(clip, load(DATA / "body_low.npz"))[:, :, 2].min(1)
    assert lowest_T.min() > -0.01
    assert lowest_T.max() < 0.025


def test_jumps_leave_the_floor_and_nothing_falls_through_it():
    body = load(DATA / "body_low.npz")
    lowest = {clip: skin(clip, body)[:, :, 2].min(1) for clip in CLIPS}
    # Fingers of hands that carry weight may dip: DeepMimic has no wrists, see the record.
    assert min(low.min() for low in lowest.values()) > -0.12
    assert lowest["jump"].max() == pytest.approx(0.21, abs=0.03)
    assert lowest["backflip"].max() > 0.8
    assert min(low.max() for clip, low in lowest.items() if clip in ("spin", "spinkick")) > 0.5


def test_a_standing_foot_hardly_slides():
    placed = at(world("walk_forward")[1], "left_foot")
    speed = np.linalg.norm(np.diff(placed[:, :2], axis=0), axis=1) * 30
    assert speed.min() < 0.05
    assert speed.max() > 2


@pytest.mark.parametrize("clip", sorted(CLIPS))
def test_labels_are_several_distinct_phrases_of_known_categories(clip):
    entry = load_labels()[clip]
    phrases = [label["raw_label"] for label in entry["seq_ann"]["labels"]]
    assert 3 <= len(set(phrases)) == len(phrases) <= 6
    assert {category for label in spans(entry) for category in label["act_cat"]} <= set(BABEL_60)
    assert all(label["act_cat"] for label in entry["seq_ann"]["labels"])
    assert entry["feat_p"] == f"EMBEDDED/EMBEDDED/{clip}/{clip}_poses.npz"


@pytest.mark.parametrize("clip", sorted(CLIPS))
def test_durations_and_spans_are_those_of_the_clip(clip):
    entry, motion = load_labels()[clip], load_clip(clip)
    assert entry["dur"] == pytest.approx((len(motion["poses"]) - 1) / float(motion["mocap_framerate"]), abs=1e-3)
    for label in (entry["frame_ann"] or {"labels": []})["labels"]:
        assert 0 <= label["start_t"] < label["end_t"] <= entry["dur"]


def test_no_two_clips_share_a_phrase_of_the_whole_clip():
    phrases = [label["raw_label"] for entry in load_labels().values() for label in entry["seq_ann"]["labels"]]
    assert len(set(phrases)) == len(phrases)


def test_segments_and_sequences_have_ids_of_their_own():
    entries = load_labels().values()
    segments = [label["seg_id"] for entry in entries for label in spans(entry)]
    assert len(set(segments)) == len(segments)
    assert len({entry["babel_sid"] for entry in entries}) == len(CLIPS)


def test_twenty_paraphrases_are_in_no_label_and_their_clips_exist():
    paraphrases = load_paraphrases()
    labels = [label["raw_label"].lower() for entry in load_labels().values() for label in spans(entry)]
    assert len({entry["text"] for entry in paraphrases}) == 20
    for entry in paraphrases:
        assert not [label for label in labels if entry["text"].lower() in label]
        assert 1 <= len(entry["clips"]) <= 2
        assert set(entry["clips"]) <= CLIPS


@pytest.mark.parametrize(("name", "vertices", "faces"), [("body.npz", 13492, 26972), ("body_low.npz", 1229, 2454)])
def test_a_body_has_its_counts_and_uses_every_vertex(name, vertices, faces):
    body = load(DATA / name)
    assert body["v_template"].shape == (vertices, 3)
    assert body["faces"].shape == (faces, 3)
    assert np.array_equal(np.unique(body["faces"]), np.arange(vertices))
    assert tuple(body["parents"]) == PARENTS
    assert [body[key].dtype for key in ("v_template", "faces", "joints", "weights", "parents")] == [
        np.float32,
        np.int32,
        np.float32,
        np.float16,
        np.int32,
    ]


@pytest.mark.parametrize("name", BODIES)
def test_skin_weights_are_shares_of_four_joints_at_most(name):
    weights_VJ = load(DATA / name)["weights"].astype(float)
    assert weights_VJ.min() == 0
    assert np.abs(weights_VJ.sum(1) - 1).max() < 1e-3
    assert (weights_VJ > 0).sum(1).max() <= 4
    # Every joint moves some skin; the collars share all of theirs, 0.46 at most.
    assert (weights_VJ.max(0) > 0.4).all()


@pytest.mark.parametrize("name", BODIES)
def test_faces_are_wound_outward_and_alike(name):
    body = load(DATA / name)
    corners = body["v_template"].astype(float)[body["faces"]]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    edges = np.concatenate([body["faces"][:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    assert volume == pytest.approx(0.06, abs=0.003)
    assert area.min() > 1e-8
    # Two faces that walked an edge the same way would face opposite sides.
    assert len(np.unique(edges, axis=0)) == len(edges)


@pytest.mark.parametrize("name", BODIES)
def test_the_rest_pose_is_a_t_pose_in_smpl_axes(name):
    body = load(DATA / name)
    place = dict(zip(JOINTS, body["joints"].astype(float), strict=True))
    for side, sign in (("left", 1), ("right", -1)):
        arm = [place[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist", "hand")]
        leg = [place[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")]
        for (start, end), way in [(pair, [sign, 0, 0]) for pair in pairwise(arm)] + [
            (pair, [0, -1, 0]) for pair in pairwise(leg)
        ]:
            assert (end - start) / np.linalg.norm(end - start) == pytest.approx(way, abs=1e-4)
        toes = place[f"{side}_foot"] - place[f"{side}_ankle"]
        assert toes[2] > 0.1
        assert abs(toes[0]) < 1e-4
    assert place["head"][1] > place["neck"][1] > place["spine1"][1] > place["pelvis"][1]
    assert place["pelvis"] == pytest.approx([0, -0.22, 0.03], abs=1e-6)
    assert np.ptp(body["v_template"][:, 1]) == pytest.approx(1.70, abs=0.01)


@pytest.mark.parametrize("name", BODIES)
def test_joints_are_mirror_images(name):
    joints_J3 = load(DATA / name)["joints"]
    assert np.abs(joints_J3[list(MIRRORED)] * [-1, 1, 1] - joints_J3).max() < 2e-3


def test_the_low_body_has_the_joints_and_the_outline_of_the_full_one():
    full, low = (load(DATA / name) for name in BODIES)
    assert np.abs(full["joints"] - low["joints"]).max() < 0.005
    for axis in range(3):
        assert np.ptp(low["v_template"][:, axis]) == pytest.approx(np.ptp(full["v_template"][:, axis]), abs=0.01)


def test_embedded_files_stay_small():
    assert (DATA / "body.npz").stat().st_size < 310_000
    assert (DATA / "body_low.npz").stat().st_size < 32_000
    assert sum(file.stat().st_size for file in (DATA / "motions").rglob("*.npz")) < 520_000
