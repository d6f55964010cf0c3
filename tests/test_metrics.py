import math

import numpy as np
import pytest
import torch

from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.training.measure import metrics

JOINTS_J3 = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))


def turned(angle: float, joint: str) -> torch.Tensor:
    """A pose (24, 3, 3) that differs from rest in one joint, turned about z."""
    pose = torch.eye(3).repeat(24, 1, 1)
    pose[JOINTS.index(joint)] = axis_angle_to_matrix(torch.tensor([0, 0, angle]))
    return pose


def test_mpjpe_of_a_turned_elbow_is_the_chord_of_what_hangs_on_it():
    pose, rest = turned(0.5, "left_elbow"), turned(0.0, "left_elbow")
    elbow, wrist, hand = (JOINTS.index(f"left_{name}") for name in ("elbow", "wrist", "hand"))
    reach = [(JOINTS_J3[joint] - JOINTS_J3[elbow])[:2].norm() for joint in (wrist, hand)]
    expected = 1000 * 2 * math.sin(0.25) * sum(reach) / 24
    torch.testing.assert_close(metrics.mpjpe_mm(pose, rest, JOINTS_J3), expected)
    assert metrics.mpjpe_mm(pose, pose, JOINTS_J3) == 0


def test_mpjpe_of_a_batch_equals_each_pose_alone():
    poses = axis_angle_to_matrix(torch.randn(2, 5, 24, 3, generator=torch.Generator().manual_seed(1)))
    other = axis_angle_to_matrix(torch.randn(2, 5, 24, 3, generator=torch.Generator().manual_seed(2)))
    found = metrics.mpjpe_mm(poses, other, JOINTS_J3)
    assert found.shape == (2, 5)
    torch.testing.assert_close(found[1, 3], metrics.mpjpe_mm(poses[1, 3], other[1, 3], JOINTS_J3))


def test_geodesic_is_the_mean_angle_over_joints():
    found = metrics.geodesic_deg(turned(0.5, "neck"), turned(-0.1, "neck"))
    assert found.item() == pytest.approx(math.degrees(0.6) / 24, rel=1e-4)


def test_pa_mpjpe_forgives_rotation_scale_and_shift_but_no_reflection():
    target = torch.randn(4, 24, 3, generator=torch.Generator().manual_seed(3))
    rotation = axis_angle_to_matrix(torch.tensor([0.3, -1.2, 2.0]))
    moved = 1.7 * target @ rotation.T + torch.tensor([1.0, 2.0, 3.0])
    assert metrics.pa_mpjpe_mm(moved, target).max() < 0.01
    assert metrics.pa_mpjpe_mm(target * torch.tensor([-1.0, 1, 1]), target).min() > 100


def test_pa_mpjpe_finds_the_best_rotation():
    generator = torch.Generator().manual_seed(4)
    joints, target = torch.randn(2, 24, 3, generator=generator)
    found = metrics.pa_mpjpe_mm(joints, target)
    a, b = (each - each.mean(0) for each in (joints, target))
    squares = []
    for axis_angle in 1.5 * torch.randn(4000, 3, generator=generator):
        rotated = a @ axis_angle_to_matrix(axis_angle).T
        scale = (rotated * b).sum() / rotated.square().sum()
        squares.append((scale.clamp_min(0) * rotated - b).square().sum())
    u, s, vt = torch.linalg.svd(a.T @ b)
    best = b.square().sum() - ((s[:2].sum() + s[2] * torch.linalg.det(u @ vt).sign()) ** 2) / a.square().sum()
    assert best <= min(squares) * 1.0001  # no tried rotation is better than the closed form's square
    assert found < 1000 * (joints - target).norm(dim=-1).mean()


def naive_rank(scores: list[float], relevant: list[bool]) -> int:
    """Place of the best relevant item when every irrelevant one of equal score goes first."""
    ordered = sorted(zip(scores, relevant, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return 1 + [right for _, right in ordered].index(True)


def test_best_ranks_equal_sorting():
    rng = np.random.default_rng(0)
    similarity, relevant = rng.integers(0, 5, (50, 9)).astype(float), rng.random((50, 9)) < 0.3
    expected = [naive_rank(list(s), list(r)) for s, r in zip(similarity, relevant, strict=True) if r.any()]
    assert len(expected) < 50
    np.testing.assert_array_equal(metrics.best_ranks(similarity, relevant), expected)


def test_one_score_for_everything_ranks_the_right_one_last():
    relevant = np.eye(4, dtype=bool)
    assert metrics.best_ranks(np.ones((4, 4)), relevant).tolist() == [4] * 4
    assert metrics.best_ranks(np.eye(4), relevant).tolist() == [1] * 4


def test_cosines_equal_the_formula_and_take_zero_vectors():
    a, b = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, -2.0]])
    np.testing.assert_allclose(metrics.cosines(a, b), [[0.6, -0.8], [0.0, 0.0]])


def test_best_of_groups_is_the_highest_column_of_each():
    similarity = np.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
    found = metrics.best_of_groups(similarity, np.array([1, 0, 1]), 3)
    np.testing.assert_array_equal(found, [[5, 2, -np.inf], [0, 7, -np.inf]])


def test_movement_is_the_mean_distance_from_the_mean_place():
    joints = torch.zeros(4, 2, 3)
    joints[:, 0, 0] = torch.tensor([0.0, 0.2, 0.0, 0.2])  # 0.1 m to each side, and a joint that stands still
    assert metrics.movement_mm(joints).item() == pytest.approx(50)
    still = forward_kinematics(torch.eye(3).repeat(6, 24, 1, 1), JOINTS_J3)[1]
    assert metrics.movement_mm(still) < 1e-3
