"""Short motions go on as cycles without a seam, or stay."""

import math

import pytest
import torch

from mclip.pipeline.geometry.continuation import continue_motion, yaw_between
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, geodesic, matrix_to_rot6d, rot6d_to_matrix


def about_z(angle: float) -> torch.Tensor:
    return axis_angle_to_matrix(torch.tensor([0.0, 0.0, angle]))


def gait(frames: int, *, turn: float = 0.0, cycle: float = 2 * math.pi) -> tuple[torch.Tensor, torch.Tensor]:
    """A knee that swings once in `frames` - 1 steps while the body goes a metre along -y and turns by `turn`."""
    phase = torch.linspace(0, 1, frames)
    rotmat = torch.eye(3).expand(frames, 24, 3, 3).clone()
    rotmat[:, 4] = axis_angle_to_matrix(torch.stack([torch.sin(cycle * phase), 0 * phase, 0 * phase], -1))
    rotmat[:, 0] = torch.stack(
        [about_z(turn * float(p)) @ axis_angle_to_matrix(torch.tensor([1.5, 0, 0])) for p in phase]
    )
    return matrix_to_rot6d(rotmat), torch.stack([0 * phase, -phase, 0 * phase + 0.9], -1)


@pytest.mark.parametrize("angle", [-3.0, -0.4, 0.0, 1.2, 3.1])
def test_yaw_is_found_under_any_tilt(angle: float) -> None:
    start = axis_angle_to_matrix(torch.tensor([0.7, -1.1, 0.3]))
    assert torch.allclose(yaw_between(start, about_z(angle) @ start), about_z(angle), atol=1e-5)


def test_the_given_frames_stay_as_they_are() -> None:
    rot6d, trans = gait(11, turn=0.5)
    longer = continue_motion(rot6d, trans, 35)
    assert torch.allclose(longer[0][:10], rot6d[:10], atol=1e-6)
    assert torch.allclose(longer[1][:10], trans[:10], atol=1e-6)


def test_a_cycle_goes_on_from_where_it_is() -> None:
    rot6d, trans = gait(11)
    longer_rot6d, longer_trans = continue_motion(rot6d, trans, 41)
    assert torch.allclose(longer_trans[:, 1], -torch.arange(41) / 10, atol=1e-5)
    assert torch.allclose(longer_rot6d[30:41], rot6d, atol=1e-5)


def test_a_turning_cycle_walks_a_polygon_without_a_seam() -> None:
    rot6d, trans = gait(11, turn=math.pi / 2)
    longer_rot6d, longer_trans = continue_motion(rot6d, trans, 41)
    # Four rounds with a quarter turn each end where they began, facing as they began.
    assert torch.allclose(longer_trans[40], trans[0], atol=1e-4)
    assert torch.allclose(longer_rot6d[40], rot6d[0], atol=1e-4)
    steps = geodesic(*(rot6d_to_matrix(longer_rot6d[:, 0])[at] for at in (slice(1, None), slice(None, -1))))
    assert torch.allclose(steps, torch.full((40,), math.pi / 20), atol=1e-3)


def test_a_motion_whose_end_does_not_meet_its_beginning_stays() -> None:
    rot6d, trans = gait(11, cycle=0.5 * math.pi)
    rot6d[-1, 5:20] = matrix_to_rot6d(axis_angle_to_matrix(torch.tensor([0.0, 0.6, 0])))
    longer_rot6d, longer_trans = continue_motion(rot6d, trans, 30)
    assert torch.equal(longer_rot6d[11:], rot6d[-1:].expand(19, -1, -1))
    assert torch.equal(longer_trans[11:], trans[-1:].expand(19, -1))


def test_a_long_motion_is_cut_and_one_frame_is_held() -> None:
    rot6d, trans = gait(11)
    assert torch.allclose(continue_motion(rot6d, trans, 6)[0], rot6d[:6], atol=1e-6)
    assert torch.equal(continue_motion(rot6d[:1], trans[:1], 4)[1], trans[:1].expand(4, 3))
