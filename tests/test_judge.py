"""The judge is judged: real motion in every guise is known, and what only pleases an encoder is not."""

import numpy as np
import pytest
import torch

from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.changes import face_front
from mclip.pipeline.geometry.continuation import continue_motion
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.prepare.sources import read_recording
from mclip.training.data.augmentation import mirror_rows, turn_rows
from mclip.training.data.rows import ROOT, from_origin, rows_of_motion
from mclip.training.measure.judge import Judge, Verdict, at_speed, pieces, to_front
from mclip.training.model.run import Run

FPS, CROP = 30.0, 60
GO_SOMEWHERE = ("walk", "walk_forward", "run", "roll", "jump", "cartwheel", "turn_left_0", "turn_right_1")
Clips = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def clips() -> Clips:
    """A crop of every embedded clip in the model's rows, short ones continued as in training."""
    found = {}
    for file in sorted(MOTIONS.rglob("*_poses.npz")):
        rot6d, trans = continue_motion(*resample(read_recording(file), FPS), CROP)
        found[file.parent.name] = from_origin(rows_of_motion(rot6d, trans))
    assert len(found) == 20
    return found


@pytest.fixture(scope="module")
def judge(clips: Clips) -> Judge:
    return Judge.of([*clips.items()], fps=FPS)


def called(judge: Judge, verdict: Verdict) -> str:
    return judge.names[verdict.clip]


def share(judge: Judge, motions: Clips) -> tuple[float, float]:
    """How many motions are taken for what they are called, and how many are natural."""
    verdicts = {name: judge(rows) for name, rows in motions.items()}
    right = [called(judge, verdict) == name for name, verdict in verdicts.items()]
    return float(np.mean(right)), float(np.mean([verdict.natural for verdict in verdicts.values()]))


def test_real_motion_is_known_played_slower_faster_mirrored_or_turned(judge: Judge, clips: Clips) -> None:
    for change in (lambda rows: at_speed(rows, 0.85), lambda rows: at_speed(rows, 1.15)):
        right, natural = share(judge, {name: change(rows) for name, rows in clips.items()})
        assert right == 1
        assert natural >= 0.9  # a run at 0.85 times its speed is no run at that speed
    angle = torch.tensor([2.0])
    for change in (mirror_rows, lambda rows: turn_rows(rows[None], angle)[0]):
        assert share(judge, {name: change(rows) for name, rows in clips.items()}) == (1, 1)


def test_real_motion_is_known_on_a_body_of_other_size(judge: Judge, clips: Clips) -> None:
    taller = {name: rows.clone() for name, rows in clips.items()}
    for rows in taller.values():
        rows[:, ROOT] *= 1.15  # angles stay, and legs a seventh longer carry the pelvis as much further
    assert share(judge, taller) == (1, 1)


def test_another_clip_is_natural_and_not_right(judge: Judge, clips: Clips) -> None:
    others = dict(zip(clips, [*clips.values()][7:] + [*clips.values()][:7], strict=True))
    assert share(judge, others) == (0, 1)


def test_a_motion_of_no_clip_it_knows_is_not_natural(clips: Clips) -> None:
    for left_out in ("crawl", "run", "cartwheel", "kick", "getup_faceup"):
        others = Judge.of([(name, rows) for name, rows in clips.items() if name != left_out], fps=FPS)
        assert not others(clips[left_out]).natural, left_out


def test_the_mean_pose_and_a_body_that_stops_are_caught(judge: Judge, clips: Clips) -> None:
    mean = torch.stack([*clips.values()]).mean((0, 1)).expand(CROP, -1, -1)
    assert not judge(mean).natural
    stills = {name: clips[name][20:21].expand(CROP, -1, -1) for name in GO_SOMEWHERE}
    assert share(judge, stills)[1] == 0


def test_a_walk_backwards_in_time_is_caught(judge: Judge, clips: Clips) -> None:
    backwards = {name: from_origin(clips[name].flip(0)) for name in GO_SOMEWHERE}
    assert share(judge, backwards)[1] == 0


def test_a_walk_on_the_spot_is_caught(judge: Judge, clips: Clips) -> None:
    for name in GO_SOMEWHERE:
        held = clips[name].clone()
        held[:, ROOT] = 0
        assert not judge(held).natural, name


def test_a_still_body_that_twitches_to_please_the_encoder_is_caught(judge: Judge, clips: Clips, run: Run) -> None:
    """As a decoder could that is trained or measured through its own encoder."""
    text_1C = run.load_encoder().encode_texts(["a person walks"])
    still = torch.stack([*clips.values()]).mean((0, 1)).expand(1, CROP, -1, -1)
    change = torch.zeros_like(still, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=0.01)

    def pleased(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(run.model.encode(rows), text_1C).mean()

    def twitching() -> torch.Tensor:
        return still + 0.09 * torch.tanh(change / 0.09)  # a few degrees

    for _ in range(60):
        optimizer.zero_grad()
        (-pleased(twitching())).backward()
        optimizer.step()
    with torch.no_grad():
        before, after, real = pleased(still), pleased(twitching()), pleased(clips["walk"][None])
        assert after > max(before, real)  # the encoder takes it for a walk more than it takes a walk for one
        verdict = judge(twitching()[0])
    assert not verdict.natural
    assert called(judge, verdict) not in ("walk", "walk_forward")


def test_the_bound_is_twice_the_distance_of_real_motion_at_another_speed(judge: Judge, clips: Clips) -> None:
    slowed = [judge(at_speed(rows, 0.85)).natural_mm for rows in clips.values()]
    assert judge.bound_mm == pytest.approx(2 * np.mean(slowed), rel=1e-5)
    assert 40 < judge.bound_mm < 70


def test_a_piece_begins_at_the_origin_and_faces_front(clips: Clips) -> None:
    away = clips["walk"].clone()
    away[:, ROOT, :2] += 7.0
    assert torch.allclose(pieces(away, 15, 5), pieces(clips["walk"], 15, 5), atol=1e-4)
    headings = torch.tensor([[1.0, 0], [0, 1], [0, -1], [-3, 4]])
    front = (to_front(headings) @ torch.nn.functional.pad(headings, (0, 1))[..., None])[..., 0]
    expected = torch.tensor([[0.0, -1, 0], [0, -1, 0], [0, -1, 0], [0, -5, 0]])
    assert torch.allclose(front, expected, atol=1e-6)
    turned_first = rows_of_motion(*face_front(clips["kick"][:, :ROOT], clips["kick"][:, ROOT, :3]))
    assert torch.allclose(pieces(turned_first, 15, 99)[0], pieces(clips["kick"], 15, 99)[0], atol=0.05)


def test_a_motion_under_half_a_second_is_judged_too(judge: Judge, clips: Clips) -> None:
    assert called(judge, judge(clips["crawl"][:8])) == "crawl"
    assert Judge.of([("short", clips["crawl"][:3])], fps=FPS).names == ["short"]
