"""Feet that slide, bodies that float, paths that shake: on motions made for it."""

import pytest
import torch

from mclip.training.measure import physics

ANKLE, OTHER_ANKLE, TOE, OTHER_TOE = physics.FEET


def standing(frames: int) -> torch.Tensor:
    """Joints (1, T, 24, 3): one toe on the floor, the other foot at 10 cm, all else a metre up."""
    joints = torch.zeros(1, frames, 24, 3)
    joints[..., 2] = 1
    joints[:, :, [ANKLE, OTHER_ANKLE, OTHER_TOE], 2] = 0.1
    joints[:, :, TOE, 2] = 0
    return joints


def everywhere(joints: torch.Tensor) -> torch.Tensor:
    return torch.ones(joints.shape[:2], dtype=torch.bool)


def test_the_standing_foot_is_measured_and_the_swinging_one_is_not() -> None:
    swings = standing(5)
    swings[0, :, OTHER_TOE, 0] = torch.arange(5) * 0.05
    assert physics.planted_speed(swings, everywhere(swings), fps=30.0).tolist() == [0]
    slides = standing(5)
    slides[0, :, TOE, 0] = torch.arange(5) * 0.01  # 1 cm a frame at 30 fps is 300 mm/s
    assert float(physics.planted_speed(slides, everywhere(slides), fps=30.0)) == pytest.approx(300, rel=1e-4)


def test_what_is_masked_does_not_slide() -> None:
    joints = standing(7)
    joints[0, 3:, TOE, 1] = torch.arange(4) + 1.0
    mask = everywhere(joints)
    mask[:, 3:] = False
    assert float(physics.planted_speed(joints, mask, fps=30.0)) == 0
    assert float(physics.planted_speed(joints, everywhere(joints), fps=30.0)) > 1000


def test_a_motion_where_no_foot_joint_stays_the_lowest_has_no_standing_foot() -> None:
    joints = standing(4)
    joints[0, ::2, OTHER_TOE, 2] = -0.1
    assert physics.planted_speed(joints, everywhere(joints), fps=30.0).isnan().all()


def test_one_frame_that_dips_lifts_no_floor() -> None:
    lowest = torch.zeros(2, 30)
    lowest[0, 7] = -0.2
    lowest[1] += 0.5
    assert physics.floor_height(lowest, torch.ones(2, 30, dtype=torch.bool)).tolist() == pytest.approx([0, 0.5])


def test_a_body_in_the_air_for_half_the_time_floats_and_one_through_the_floor_sinks() -> None:
    joints = standing(20)
    lowest = torch.zeros(1, 20)
    lowest[0, 10:] = 0.2
    found = physics.world_figures(joints, lowest, everywhere(joints), fps=30.0)
    assert float(found["over_floor"]) == pytest.approx(0.5)
    assert float(found["floating_cm"]) == pytest.approx(10)
    lowest[0, 0] = -0.1  # one frame of twenty, less than the share that a floor may lose
    found = physics.world_figures(joints, lowest, everywhere(joints), fps=30.0)
    assert float(found["under_floor"]) == pytest.approx(0.05)


def test_the_jerk_of_a_cubic_is_its_third_derivative_and_of_a_parabola_none() -> None:
    time = torch.arange(12, dtype=torch.float64) / 10
    joints = torch.zeros(2, 12, 24, 3, dtype=torch.float64)
    joints[0, ..., 0] = (2 * time**3)[:, None]  # 12 m/s^3
    joints[1, ..., 1] = (3 * time**2)[:, None]
    found = physics.jerk(joints, torch.ones(2, 12, dtype=torch.bool), fps=10.0)
    assert found.tolist() == pytest.approx([12, 0], abs=1e-9)
    assert physics.jerk(joints[:, :3], torch.ones(2, 3, dtype=torch.bool), fps=10.0).isnan().all()


def test_a_root_that_shakes_is_told_from_joints_that_do() -> None:
    joints = standing(30)
    shakes = joints + 0.01 * (torch.arange(30) % 2)[None, :, None, None]
    whole = physics.world_figures(shakes, shakes[..., 2].amin(-1), everywhere(joints), fps=30.0)
    assert float(whole["root_jerk"]) == pytest.approx(0.08 * 3**0.5 * 30**3 / 2, rel=1e-3)
    assert float(whole["joint_jerk"]) == pytest.approx(0, abs=1e-2)
