import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.draw import camera as camera_module
from mclip.pipeline.draw.camera import BORDER, Camera, facing, follow_camera, front_camera, orbit, smooth
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix

UPRIGHT = axis_angle_to_matrix(torch.tensor([math.pi / 2, 0.0, 0.0]))  # SMPL's y up, +z front to z up, -y front


def turned(*axis_angle: float) -> torch.Tensor:
    return axis_angle_to_matrix(torch.tensor(axis_angle)) @ UPRIGHT


def cloud(items: int, *, points: int = 200, size: float = 0.8) -> torch.Tensor:
    return size * torch.randn(items, points, 3, generator=torch.Generator().manual_seed(3)).clamp(-1.4, 1.4)


def ndc(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    view = camera.view(points)
    assert (view[..., 2] > 0.1).all()
    return camera.focal * view[..., :2] / view[..., 2:]


def test_camera_axes_are_left_up_forward_in_front_of_an_upright_body():
    camera = front_camera(UPRIGHT[None], cloud(1), elevation=0.0)
    # The body faces -y, so the camera looks along +y; its left is the body's right, -x.
    expected = torch.tensor([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]]).T
    torch.testing.assert_close(camera.R_B33[0], expected)
    torch.testing.assert_close(torch.linalg.det(camera.R_B33), torch.ones(1))


def test_camera_looks_down_from_above_by_its_elevation():
    camera = front_camera(UPRIGHT[None], cloud(1), elevation=0.3)
    centre = -camera.R_B33 @ camera.T_B3[..., None]
    middle_height = (cloud(1)[..., 2].min() + cloud(1)[..., 2].max()) / 2
    assert centre[0, 2] > middle_height + 0.5
    assert camera.R_B33[0, 2, 2].item() == pytest.approx(-math.sin(0.3), abs=1e-6)


def test_middle_of_the_points_is_in_the_middle_of_the_view():
    points = cloud(5) + torch.tensor([3.0, -2.0, 1.0])
    camera = front_camera(UPRIGHT.expand(5, 3, 3), points)
    view = camera.view(points)
    middle = (view.amin(1) + view.amax(1))[:, :2] / 2
    torch.testing.assert_close(middle, torch.zeros(5, 2), atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.01, 3.0), st.floats(0.0, 0.3))
def test_all_points_are_inside_the_border_whatever_the_rotation_and_size(seed, size, margin):
    generator = torch.Generator().manual_seed(seed)
    root = axis_angle_to_matrix(3 * torch.randn(4, 3, generator=generator))
    points = size * torch.randn(4, 50, 3, generator=generator) + 10 * torch.randn(4, 1, 3, generator=generator)
    camera = front_camera(root, points, margin=margin)
    assert ndc(camera, points).abs().max() <= 1 - BORDER + 1e-4
    torch.testing.assert_close(camera.R_B33.mT @ camera.R_B33, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(camera.R_B33), torch.ones(4))


def test_margin_around_the_points_stays_inside_the_border():
    points = 2.0 * cloud(3)
    camera = front_camera(UPRIGHT.expand(3, 3, 3), points, margin=0.2)
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (0.2 / math.sqrt(3))
    assert ndc(camera, (points[:, :, None] + corners).flatten(1, 2)).abs().max() <= 1 - BORDER + 1e-4
    bare = front_camera(UPRIGHT.expand(3, 3, 3), points)
    assert ndc(bare, (points[:, :, None] + corners).flatten(1, 2)).abs().max() > 1 - BORDER


@pytest.mark.parametrize("yaw", [0.4, 2.0, -3.0])
def test_turning_the_body_in_the_world_turns_the_camera_with_it(yaw):
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.0, yaw]))
    for axis_angle in ((0.0, 0, 0), (0.9, 0.2, 0), (math.pi / 2, 0, 0), (math.pi, 0, 0.3), (0, 1.2, 0)):
        root = turned(*axis_angle)[None]
        still = front_camera(root, cloud(1)).view(cloud(1))
        points = cloud(1) @ turn.T
        torch.testing.assert_close(front_camera(turn @ root, points).view(points), still, atol=1e-5, rtol=0)


def test_upside_down_body_is_seen_from_its_front():
    root = turned(0.0, math.pi, 0.0)  # a half turn about the world's y: head down, front still -y
    torch.testing.assert_close(facing(root), torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [-1, 1])
def test_lying_body_is_seen_from_its_left_side(side):
    root = turned(side * math.pi / 2, 0.0, 0.0)
    torch.testing.assert_close(facing(root), root[:2, 0], atol=1e-5, rtol=0)


def test_view_turns_without_a_jump_through_a_somersault():
    angles = torch.linspace(0, 2 * math.pi, 721)
    axis_angle = torch.stack((angles, torch.zeros(721), torch.zeros(721)), dim=1)
    fronts = facing(axis_angle_to_matrix(axis_angle) @ UPRIGHT)
    assert fronts.norm(dim=1).min() > 0.5
    yaw = torch.atan2(fronts[:, 1], fronts[:, 0])
    steps = torch.remainder(yaw.diff() + math.pi, 2 * math.pi) - math.pi
    assert steps.abs().max() < math.radians(3)  # the body itself turns half a degree a step


def test_body_without_any_front_still_gets_a_camera():
    # z + left vertical: the one roll in which our choice of a front vanishes.
    tangled = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 1]])[None]
    camera = front_camera(tangled, cloud(1))
    assert camera.R_B33.isfinite().all()
    assert torch.linalg.det(camera.R_B33).item() == pytest.approx(1, abs=1e-5)


def test_orbit_walks_anticlockwise_around_the_body():
    yaws = torch.tensor(orbit(4))
    points = cloud(1).expand(4, -1, -1)
    camera = front_camera(UPRIGHT.expand(4, 3, 3), points, yaw_offset=yaws, elevation=0.0)
    towards = -camera.R_B33[:, :2, 2]  # from the body to the camera
    torch.testing.assert_close(towards, torch.tensor([[0.0, -1], [1, 0], [0, 1], [-1, 0]]), atol=1e-6, rtol=0)


def test_camera_of_a_batch_item_equals_that_item_alone():
    root, points = axis_angle_to_matrix(cloud(6, points=1)[:, 0]), cloud(6)
    together = front_camera(root, points)
    for item in range(6):
        alone = front_camera(root[item : item + 1], points[item : item + 1])
        assert torch.equal(alone.R_B33[0], together.R_B33[item])
        assert torch.equal(alone.T_B3[0], together.T_B3[item])


def test_slices_of_cameras_keep_their_length_and_focal():
    camera = front_camera(UPRIGHT.expand(5, 3, 3), cloud(5), fov=1.0)
    part = camera[1:3]
    assert (len(camera), len(part), part.focal) == (5, 2, camera.focal)
    assert torch.equal(part.T_B3, camera.T_B3[1:3])


def walk(frames: int, *, fps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A cloud that goes 1.5 m a second to -y and sways, turning its pelvis to and fro."""
    time = torch.arange(frames) / fps
    sway = 0.05 * torch.sin(2 * math.pi * 2 * time)
    path = torch.stack((sway, -1.5 * time, 0.9 + sway), dim=1)
    root = axis_angle_to_matrix(torch.stack((0 * time, 0 * time, 4 * sway), dim=1)) @ UPRIGHT
    return root, 0.5 * cloud(1) + path[:, None]


def test_follow_camera_keeps_one_direction_and_one_distance():
    root, points = walk(90, fps=30)
    camera = follow_camera(root, points, fps=30)
    assert (camera.R_B33 == camera.R_B33[0]).all()
    torch.testing.assert_close(
        -camera.R_B33[0, :2, 2] / camera.R_B33[0, :2, 2].norm(), torch.tensor([0.0, -1]), atol=0.05, rtol=0
    )
    assert ndc(camera, points).abs().max() <= 1 - BORDER + 1e-4


def test_follow_camera_glides_without_the_steps_of_the_body():
    root, points = walk(120, fps=30)
    target = -follow_camera(root, points, fps=30).T_B3
    body = (points @ follow_camera(root, points, fps=30).R_B33[0]).mean(1)
    inner = slice(45, -45)  # away from the ends, where the filter sees half of its window
    wobble = target.diff(n=2, dim=0)[inner].abs().max()
    assert wobble < 0.05 * body.diff(n=2, dim=0)[inner].abs().max()
    lag = (body - target)[inner]
    assert (lag - lag.mean(0)).abs().max() < 0.06  # follows; what is left is the sway of 5 cm


def test_follow_camera_shows_a_jump():
    time = torch.arange(90) / 30
    height = torch.where((time > 1.2) & (time < 1.8), torch.sin((time - 1.2) / 0.6 * math.pi), torch.zeros(90))
    points = 0.5 * cloud(1) + torch.nn.functional.pad(height[:, None], (2, 0))[:, None]
    camera = follow_camera(UPRIGHT.expand(90, 3, 3), points, fps=30)
    rise = camera.view(points).mean(1)[:, 1]
    assert rise[45] - rise[20] > 0.5
    assert ndc(camera, points).abs().max() <= 1 - BORDER + 1e-4


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_follow_camera_takes_clips_shorter_than_its_filter(frames):
    root, points = walk(frames, fps=30)
    camera = follow_camera(root, points, fps=30)
    assert len(camera) == frames
    assert ndc(camera, points).abs().max() <= 1 - BORDER + 1e-4


def test_follow_camera_of_a_body_that_turns_right_round_takes_its_first_front():
    angles = torch.arange(60) / 60 * 2 * math.pi
    root = axis_angle_to_matrix(torch.stack((0 * angles, 0 * angles, angles), dim=1)) @ UPRIGHT
    camera = follow_camera(root, cloud(1).expand(60, -1, -1), fps=30, elevation=0.0)
    torch.testing.assert_close(camera.R_B33[0, :, 2], torch.tensor([0.0, 1, 0]), atol=1e-5, rtol=0)


def test_smoothing_leaves_a_straight_path_alone():
    path = torch.arange(50)[:, None] * torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(smooth(path, frames=6.0), path, atol=1e-4, rtol=0)


def test_compiled_placement_equals_the_torch_one(monkeypatch):
    root, points = axis_angle_to_matrix(cloud(6, points=1)[:, 0]), 2 * cloud(6)
    walked, path = walk(40, fps=30)
    compiled = front_camera(root, points, margin=0.1), follow_camera(walked, path, fps=30)
    monkeypatch.setattr(camera_module, "on_cpu", lambda points: False)
    slow = front_camera(root, points, margin=0.1), follow_camera(walked, path, fps=30)
    for one, other in zip(compiled, slow, strict=True):
        torch.testing.assert_close(one.T_B3, other.T_B3, atol=1e-5, rtol=0)
        assert torch.equal(one.R_B33, other.R_B33)
