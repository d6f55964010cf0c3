"""Two motions made one: the nearest pieces, the seam between them, and loops."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.geometry import joining
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.joining import Meetings, Track
from mclip.pipeline.geometry.rotations import geodesic

JOINTS = load_body("low").joints_J3


@settings(max_examples=20, deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(-9, 9), st.floats(-9, 9))
def test_a_motion_meets_its_turned_and_shifted_self_and_is_brought_back(
    clip: Any, yaw: float, x: float, y: float
) -> None:
    walk = clip("walk")
    away = walk.moved(yaw, torch.tensor([x, y]))
    found = Meetings.of(walk.points(JOINTS), away.points(JOINTS), 6)
    assert found.distance_IL.diagonal().max() < 1e-6
    back = found.bring(away, (7, 7))
    assert torch.allclose(back.trans_T3, walk.trans_T3, atol=1e-6)
    assert torch.allclose(back.rotmat_TJ33, walk.rotmat_TJ33, atol=1e-6)


def test_the_distance_of_two_pieces_is_the_least_over_all_turns_and_shifts(clip: Any) -> None:
    """The slow twin: every degree of turn is tried, and the middles are laid upon each other."""
    walk, kick = (clip(name).points(JOINTS) for name in ("walk", "kick"))
    found = Meetings.of(walk, kick, 4)
    for i, j in ((0, 0), (12, 30), (30, 7)):
        a, b = walk[i : i + 4].flatten(0, 1), kick[j : j + 4].flatten(0, 1)
        middle = torch.tensor([1.0, 1, 0], dtype=torch.float64)
        a, b = a - a.mean(0) * middle, b - b.mean(0) * middle
        turns = joining.about_vertical(torch.arange(360, dtype=torch.float64).deg2rad())
        slow = ((b @ turns.mT - a).square().sum(-1).mean(-1)).sqrt().min()
        assert float(found.distance_IL[i, j]) == pytest.approx(float(slow), rel=1e-3)


def test_a_blend_of_a_motion_with_itself_is_the_motion(clip: Any) -> None:
    walk = clip("walk")
    for made, was in zip(joining.blended(walk, walk), walk, strict=True):
        assert torch.allclose(made, was, atol=1e-6)


def test_a_blend_leaves_its_first_motion_and_arrives_at_its_second_without_a_kink(clip: Any) -> None:
    """At 1/10 of the way 10 s^3 - 15 s^4 + 6 s^5 is 0.00856; the rest is symmetric about the middle."""
    still = clip("walk").cut(0, 1)
    a = Track(still.rotmat_TJ33.expand(9, -1, -1, -1), torch.zeros(9, 3, dtype=torch.float64))
    b = Track(a.rotmat_TJ33, torch.ones(9, 3, dtype=torch.float64))
    share = joining.blended(a, b).trans_T3[:, 0]
    assert float(share[0]) == pytest.approx(0.00856, abs=1e-5)
    assert torch.allclose(share + share.flip(0), torch.ones(9, dtype=torch.float64))


def test_a_loops_last_pose_is_its_first_and_is_reached_as_the_first_is_left(clip: Any) -> None:
    kick = clip("kick")  # its own ends do not meet: 0.65 radians in the mean
    assert float(geodesic(kick.rotmat_TJ33[12, 1:], kick.rotmat_TJ33[40, 1:]).mean()) > 0.2
    made = joining.closed(kick, JOINTS, start=12, stop=40, frames=10)
    assert len(made.trans_T3) == 29
    assert geodesic(made.rotmat_TJ33[0, 1:], made.rotmat_TJ33[-1, 1:]).max() < 1e-6
    assert float(made.trans_T3[-1, 2]) == pytest.approx(float(made.trans_T3[0, 2]))
    before = kick.points(JOINTS).diff(dim=0)[11].norm(dim=-1)
    arriving = made.points(JOINTS).diff(dim=0)[-1].norm(dim=-1)
    assert (arriving - before).abs().max() < 0.004  # metres a frame: 1/1000 of the way is left of the other motion


def test_a_small_turn_is_led_back_with_its_path_and_a_large_one_is_meant() -> None:
    """A body that goes ahead at 1 m a frame while it turns by 3 degrees a frame walks straight when led back."""
    frames = 11
    angle = torch.arange(frames, dtype=torch.float64).mul(3).deg2rad()
    rotmat = torch.eye(3, dtype=torch.float64).expand(frames, 24, 3, 3).clone()
    rotmat[:, 0] = joining.about_vertical(angle)
    steps = torch.stack((angle[1:].cos(), angle[1:].sin(), 0 * angle[1:]), dim=-1)
    path = torch.cat((torch.zeros(1, 3, dtype=torch.float64), steps.cumsum(0)))
    made = joining.straightened(Track(rotmat, path), math.radians(31))
    assert torch.allclose(made.rotmat_TJ33[:, 0], torch.eye(3, dtype=torch.float64).expand(frames, 3, 3), atol=1e-9)
    assert torch.allclose(made.trans_T3[:, 0], torch.arange(frames, dtype=torch.float64), atol=1e-9)
    assert joining.straightened(Track(rotmat, path), math.radians(29)) == Track(rotmat, path)


def test_a_body_on_the_spot_keeps_its_height_and_its_poses(clip: Any) -> None:
    walk = clip("walk")
    made = joining.on_the_spot(walk)
    assert torch.equal(made.trans_T3[:, 2], walk.trans_T3[:, 2])
    assert torch.equal(made.trans_T3[:, :2], walk.trans_T3[:1, :2].expand(len(walk.trans_T3), 2))
    assert torch.equal(made.rotmat_TJ33, walk.rotmat_TJ33)
