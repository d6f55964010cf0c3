"""Feet that stand are held where they stand; what does not slide hardly changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.skeleton import ANKLES, HIPS, KNEES, TOES
from mclip.pipeline.prepare.amass import read_motion
from mclip.training.measure.physics import jerk, standing_feet
from mclip.training.model.run import Run
from mclip.training.show.footlock import held, locked, lowered
from mclip.training.show.motion import Motion, floor_of, heights, read

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"
BODY = load_body("low")


def sliding(speed: float) -> Motion:
    """The shipped walk, whose root is carried on sideways at so many metres a second more than its feet tread."""
    walk = read(WALK)
    slid = speed * torch.arange(len(walk.trans_T3)) / walk.fps
    return Motion(walk.rotmat_TJ33, walk.trans_T3 + slid[:, None] * torch.tensor([1.0, 0, 0]), walk.fps)


def test_a_real_walk_hardly_changes() -> None:
    _, lock = locked(read(WALK))
    assert lock.speed_mm_s[0] == pytest.approx(28, abs=3)  # of a real walk: 25 to 38
    assert lock.speed_mm_s[1] < 10
    assert lock.moved_mm < 8
    assert lock.most_mm < 60


def test_feet_that_slide_are_held_and_put_on_the_floor() -> None:
    made, lock = locked(sliding(0.25))
    assert lock.speed_mm_s[0] > 200
    assert lock.speed_mm_s[1] < 20
    assert lock.floor_mm[1] < 1
    assert lock.stands > 0.7
    assert lock.most_mm < 200
    after = heights(made, BODY)
    assert float(after.sole_TN.min()) > floor_of(made, after) - 0.01


def test_a_foot_that_is_held_stays_at_one_point_and_lets_go_without_a_jump() -> None:
    """A foot slides by 1 cm a frame and stands from frame 10 to 19; 2 mm over the floor."""
    stands = torch.zeros(40, dtype=torch.bool)
    stands[10:20] = True
    steps = torch.full((40, 2), 0.01, dtype=torch.float64)
    moved = held(stands, steps, torch.full((40,), 0.002, dtype=torch.float64), fps=30.0)
    place = steps.cumsum(0) + moved[:, :2]
    assert torch.allclose(place[11:19], place[11].expand(8, 2))
    assert torch.allclose(moved[11:19, 2], torch.tensor(-0.002, dtype=torch.float64))
    assert torch.allclose(moved[10:20, :2].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-9)
    assert place[9:11].diff(dim=0).norm() < 0.016  # the first and the last frame of a stand are eased
    assert moved.diff(dim=0).norm(dim=-1).max() < 0.03  # 4.5 cm fade over six frames
    assert moved[[0, 1, 2, 30, 39]].abs().max() == 0


def test_a_sole_under_the_floor_is_lifted_though_it_does_not_stand() -> None:
    sole = torch.full((9,), -0.03, dtype=torch.float64)
    moved = held(torch.zeros(9, dtype=torch.bool), torch.zeros(9, 2, dtype=torch.float64), sole, fps=30.0)
    assert torch.allclose(moved[:, 2], -sole)


def test_the_root_is_lowered_as_far_as_legs_need_and_smoothly() -> None:
    """One frame of thirty needs a leg of 0.9 m where it has 0.8."""
    leg = torch.tensor([0.0, 0, 0.7], dtype=torch.float64).repeat(30, 2, 1)
    leg[15, 0, 2] = 0.9
    down = lowered(leg, torch.tensor([0.8, 0.8], dtype=torch.float64), fps=30.0)
    assert float(down[15]) == pytest.approx(0.1, abs=1e-6)
    assert float(down.max()) == pytest.approx(0.1, abs=1e-6)
    assert down.diff().abs().max() < 0.02
    assert float(down[0]) < 0.005


def test_feet_in_the_air_and_feet_that_swing_do_not_stand() -> None:
    walk = read(WALK)
    joints = BODY.pose_joints(walk.rotmat_TJ33, trans_B3=walk.trans_T3)
    height = heights(walk, BODY)
    stands = standing_feet(joints, height.sole_TN - floor_of(walk, height), fps=walk.fps)
    assert 0.5 < float(stands.float().mean()) < 0.75  # of a gait cycle a foot stands for about 60 %
    assert float(stands.any(1).float().mean()) > 0.9
    assert not standing_feet(joints, height.sole_TN + 0.5, fps=walk.fps).any()


@pytest.mark.parametrize("fps", [30.0, 30.0012])  # of a shipped run
@pytest.mark.parametrize("off", [0.0, 0.05, -0.08])
def test_a_foot_that_steps_for_three_frames_stands_though_the_body_floats_or_sinks(off: float, fps: float) -> None:
    """A run's foot comes down from 30 cm, treads on 5 cm over the floor or 8 under it, and rises; the other is up."""
    joints, sole = torch.zeros(30, 24, 3, dtype=torch.float64), torch.full((30, 2), 0.5, dtype=torch.float64)
    sole[:, 0] = off + torch.tensor([0.3] * 10 + [0.15, 0.06, 0.01, 0.0, 0.01, 0.06, 0.15] + [0.3] * 13)
    joints[:, ANKLES[0], 0] = torch.tensor([0.2] * 13 + [0.005] * 2 + [0.2] * 15).cumsum(0)  # 6 m/s but for two steps
    joints[:, :, 2] = sole[:, 1:]
    joints[:, [ANKLES[0], TOES[0]], 2] = sole[:, :1]
    carries = sole < sole.amin(1, keepdim=True) + 0.02
    found = standing_feet(joints, sole, fps=fps, carries_TN=carries)
    assert found.nonzero().tolist() == [[12, 0], [13, 0], [14, 0]]
    for nowhere in (carries & False, None):  # no foot carries the body, as of one who crawls; or it is not said
        assert standing_feet(joints, sole, fps=fps, carries_TN=nowhere).any() == (off == 0)


def test_the_feet_of_a_run_are_held_and_its_knees_do_not_pop() -> None:
    """In the shipped run the feet that tread are dragged along at 0.4 m/s."""
    run = read(MOTIONS / "EMBEDDED/run/run_poses.npz")
    made, lock = locked(run)
    assert lock.speed_mm_s[0] > 350
    assert lock.speed_mm_s[1] < 0.2 * lock.speed_mm_s[0]
    assert lock.stands > 0.5
    places = [BODY.pose_joints(each.rotmat_TJ33, trans_B3=each.trans_T3) for each in (run, made)]
    jerks = [jerk((at - at[:, :1])[None], torch.ones(1, len(at), dtype=torch.bool), fps=30.0) for at in places]
    assert float(jerks[1] / jerks[0]) < 1.2


def test_a_motion_without_standing_feet_says_so() -> None:
    crawl = read(MOTIONS / "EMBEDDED/crawl/crawl_poses.npz")
    assert str(locked(crawl)[1]) == "no foot stands anywhere: none was held"


def test_an_exported_recording_keeps_its_fingers_and_all_but_its_legs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    walk = read_motion(WALK)
    poses = np.zeros((len(walk.trans_T3), 52, 3))
    poses[:] = walk.poses_TK3
    poses[:, 25:37] = random.normal(0, 0.1, (len(poses), 12, 3))
    slid = walk.trans_T3 + 0.01 * np.arange(len(poses))[:, None] * [1, 0, 0]
    source = tmp_path / "slid.npz"
    np.savez(source, poses=poses.reshape(len(poses), 156), trans=slid, betas=np.ones(16), mocap_framerate=30.0)
    words = ["export", str(source), "--to", "npz", "--foot-lock", "--out", str(tmp_path / "o")]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "slid.npz: feet stand in " in told.output
    made = read_motion(tmp_path / "o/slid.npz")
    legs = [*HIPS, *KNEES, *ANKLES]
    others = [joint for joint in range(52) if joint not in legs]
    assert np.allclose(made.poses_TK3[:, others], poses[:, others])
    assert np.abs(made.poses_TK3[:, legs] - poses[:, legs]).max() > 0.05
    assert np.allclose(made.trans_T3[:, :2], slid[:, :2])
    assert made.betas[0] == 1


def test_generated_feet_are_held_where_it_is_asked(run: Run, tmp_path: Path) -> None:
    words = ["generate", str(run.folder), "walk", "--foot-lock", "--format", "npz", "--out", str(tmp_path / "o")]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "walk: " in told.output
    assert "foot stands" in told.output or "feet stand in" in told.output
    other = CliRunner().invoke(cli, [word for word in words if word != "--foot-lock"])
    assert "was made with shaping ['foot_lock'], not []" in other.output
