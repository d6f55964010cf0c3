import math
from dataclasses import replace

import pytest
import torch

from mclip.pipeline.geometry.body import load_body, skin
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics


def random_pose(batch: int, *, angle: float = 0.6) -> torch.Tensor:
    return axis_angle_to_matrix(angle * torch.randn(batch, 24, 3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("name", "fewest", "most"), [("default", 12_000, 15_000), ("low", 1_000, 1_400)])
def test_embedded_body_is_an_adult_in_t_pose(name, fewest, most):
    body = load_body(name)
    span = body.v_template_V3.amax(0) - body.v_template_V3.amin(0)
    assert fewest < len(body.v_template_V3) < most
    assert 1.5 < span[1] < 1.9
    assert 1.4 < span[0] < 2.0
    left_wrist = body.joints_J3[JOINTS.index("left_wrist")]
    assert left_wrist[0] > 0.5
    torch.testing.assert_close(body.weights_VJ.sum(1), torch.ones(len(body.v_template_V3)))


def test_embedded_body_faces_point_outwards():
    body = load_body()
    corners = body.v_template_V3[body.faces_F3]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.12  # cubic metres: an adult; negative where faces point inwards


def test_rest_pose_gives_the_template():
    body = load_body("low")
    vertices = body.pose(torch.eye(3).expand(2, 24, 3, 3))
    torch.testing.assert_close(vertices, body.v_template_V3.expand(2, -1, -1), atol=1e-6, rtol=0)


def test_translation_is_added_to_the_posed_body():
    body, rotmat = load_body("low"), random_pose(3)
    trans = torch.tensor([[1.0, 2, 3], [0, 0, 0], [-5, 0.5, 9]])
    torch.testing.assert_close(body.pose(rotmat, trans_B3=trans), body.pose(rotmat) + trans[:, None], atol=1e-5, rtol=0)


def test_root_rotation_turns_the_body_about_its_pelvis():
    body = load_body("low")
    rotmat = torch.eye(3).repeat(1, 24, 1, 1)
    rotmat[:, 0] = turn = axis_angle_to_matrix(torch.tensor([math.pi / 2, 0.0, 0.0]))
    pelvis = body.joints_J3[0]
    expected = (body.v_template_V3 - pelvis) @ turn.T + pelvis
    torch.testing.assert_close(body.pose(rotmat)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["default", "low"])
def test_compiled_skinning_equals_the_torch_one(name):
    body, rotmat = load_body(name), random_pose(3, angle=1.0)
    trans = torch.randn(3, 3)
    dense = skin(body.v_template_V3[None], body.weights_VJ, body._affine(rotmat)) + trans[:, None]
    torch.testing.assert_close(body.pose(rotmat, trans_B3=trans), dense, atol=1e-5, rtol=0)


def test_skinning_agrees_with_a_loop_over_vertices_and_joints():
    body, rotmat = load_body("low"), random_pose(1)
    world, position = forward_kinematics(rotmat, body.joints_J3)
    for v in range(0, len(body.v_template_V3), 97):
        expected = torch.zeros(3)
        for j in range(24):
            moved = world[0, j] @ (body.v_template_V3[v] - body.joints_J3[j]) + position[0, j]
            expected += body.weights_VJ[v, j] * moved
        torch.testing.assert_close(body.pose(rotmat)[0, v], expected, atol=1e-5, rtol=0)


def test_posed_item_of_a_batch_equals_that_item_alone():
    body, rotmat = load_body("low"), random_pose(5)
    together = body.pose(rotmat)
    for item in range(5):
        torch.testing.assert_close(body.pose(rotmat[item : item + 1])[0], together[item], atol=1e-6, rtol=0)


def test_gradients_flow_to_rotations_and_translation():
    body = load_body("low")
    rotmat = random_pose(2).requires_grad_()
    trans = torch.zeros(2, 3, requires_grad=True)
    body.pose(rotmat, trans_B3=trans).sum().backward()
    torch.testing.assert_close(trans.grad, torch.full((2, 3), float(len(body.v_template_V3))))
    assert rotmat.grad[:, 1:22].abs().amax((2, 3)).min() > 0


def test_joints_move_with_the_body():
    body, rotmat = load_body("low"), random_pose(2)
    expected = forward_kinematics(rotmat, body.joints_J3, root_B3=torch.ones(2, 3))[1]
    torch.testing.assert_close(body.pose_joints(rotmat, trans_B3=torch.ones(2, 3)), expected)


def test_fingerprint_is_that_of_the_arrays():
    body = load_body("low")
    moved = replace(body, v_template_V3=body.v_template_V3 + 1e-6)
    assert replace(body, name="other").fingerprint == body.fingerprint != moved.fingerprint
    assert len(body.fingerprint) == 64


def test_betas_for_a_body_without_shape_directions_are_refused():
    with pytest.raises(ValueError, match="low has no shape directions"):
        load_body("low").shaped(torch.zeros(10))
