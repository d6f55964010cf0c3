"""Legs that reach: the ankle is there, the bones are as long, the foot looks as it did, the knee stays in its plane."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.legs import bend_legs, shortest_turn
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import ANKLES, HIPS, KNEES, forward_kinematics

JOINTS = load_body("low").joints_J3.double()
BONES = JOINTS - JOINTS[0]
THIGH, SHIN = (float((JOINTS[a[0]] - JOINTS[b[0]]).norm()) for a, b in ((HIPS, KNEES), (KNEES, ANKLES)))


def poses(seed: int, *, frames: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Bodies whose joints are turned by up to a radian or so, and whose knees bend as knees do."""
    random = torch.Generator().manual_seed(seed)
    turns = 0.4 * torch.randn(frames, 24, 3, generator=random, dtype=torch.float64)
    turns[:, KNEES] = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    turns[:, KNEES] *= torch.rand(frames, 2, 1, generator=random, dtype=torch.float64) * 2
    return axis_angle_to_matrix(turns), torch.randn(frames, 3, generator=random, dtype=torch.float64)


def placed(rotmat: torch.Tensor, root: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return forward_kinematics(rotmat, BONES, root_B3=root)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.2))
def test_an_ankle_reaches_its_target_and_nothing_else_moves(seed: int, far: float) -> None:
    rotmat, root = poses(seed)
    world, place = placed(rotmat, root)
    away = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    target = place[:, ANKLES] + far * torch.nn.functional.normalize(away, dim=-1)
    hip = place[:, HIPS]
    target = hip + (target - hip) * ((THIGH + SHIN) / (target - hip).norm(dim=-1, keepdim=True)).clamp_max(1)
    made_world, made = placed(bend_legs(rotmat, root, JOINTS, target_TN3=target), root)
    assert torch.allclose(made[:, ANKLES], target, atol=1e-6)
    assert torch.allclose((made[:, KNEES] - made[:, HIPS]).norm(dim=-1), torch.tensor(THIGH).double(), atol=1e-9)
    assert torch.allclose((made[:, ANKLES] - made[:, KNEES]).norm(dim=-1), torch.tensor(SHIN).double(), atol=1e-9)
    assert torch.allclose(made_world[:, ANKLES], world[:, ANKLES], atol=1e-9)
    others = [joint for joint in range(24) if joint not in (*KNEES, *ANKLES, 10, 11)]
    assert torch.allclose(made[:, others], place[:, others], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_leg_whose_ankle_is_at_its_target_stays_as_it_is(seed: int) -> None:
    rotmat, root = poses(seed)
    kept = bend_legs(rotmat, root, JOINTS, target_TN3=placed(rotmat, root)[1][:, ANKLES])
    assert torch.allclose(kept, rotmat, atol=1e-6)


def test_a_straight_leg_that_is_shortened_bends_its_knee_to_the_front() -> None:
    """The rest pose looks to +z and has straight legs; 10 cm less are taken up by the knee."""
    rest, root = torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3), torch.zeros(1, 3, dtype=torch.float64)
    place = placed(rest, root)[1]
    lifted = place[:, ANKLES] + torch.tensor([0, 0.1, 0])
    made = placed(bend_legs(rest, root, JOINTS, target_TN3=lifted), root)[1]
    assert torch.allclose(made[:, ANKLES], lifted, atol=1e-9)
    assert (made[:, KNEES, 2] - place[:, KNEES, 2]).min() > 0.1
    assert torch.allclose(made[:, KNEES, 0], place[:, KNEES, 0], atol=1e-9)


def test_a_target_out_of_reach_is_looked_at_by_a_straight_leg() -> None:
    rotmat, root = poses(1)
    hip = placed(rotmat, root)[1][:, HIPS]
    far = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    made = placed(bend_legs(rotmat, root, JOINTS, target_TN3=hip + far), root)[1]
    assert torch.allclose(made[:, ANKLES], hip + far / far.norm() * (THIGH + SHIN), atol=1e-6)


def test_the_knee_stays_in_the_plane_of_its_leg_when_the_leg_is_shortened(clip: Any) -> None:
    kick = clip("kick")
    place = placed(*kick)[1]
    hip, knee, ankle = (place[:, each] for each in (HIPS, KNEES, ANKLES))
    made = placed(bend_legs(*kick, JOINTS, target_TN3=hip + 0.9 * (ankle - hip)), kick.trans_T3)[1]
    across = torch.nn.functional.normalize(torch.linalg.cross(knee - hip, ankle - hip), dim=-1)
    off = ((made[:, KNEES] - hip) * across).sum(-1).abs()
    bent = torch.linalg.cross(knee - hip, ankle - hip).norm(dim=-1) > 0.02  # straight legs have no plane
    assert bent.float().mean() > 0.5
    assert float(off[bent].max()) < 0.06  # a leg that was all but straight is bent to the front
    assert float(off[bent].median()) < 0.02


def test_the_shortest_turn_of_a_direction_to_itself_is_none_and_of_a_quarter_is_a_quarter() -> None:
    x, y = torch.eye(3, dtype=torch.float64)[:2]
    assert torch.allclose(shortest_turn(x, 3 * x), torch.eye(3, dtype=torch.float64))
    quarter = shortest_turn(x, y)
    assert torch.allclose(quarter @ x, y)
    assert float(torch.linalg.det(quarter)) == pytest.approx(1)
