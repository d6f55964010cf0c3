"""Rotations against scipy and PyTorch3D, near 0, at pi, and in both precisions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation, Slerp

from mclip.pipeline.geometry import rotations

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}
directions = arrays(np.float64, (5, 3), elements=st.floats(-1, 1)).filter(
    lambda x: (np.linalg.norm(x, axis=1) > 0.1).all()
)
# Angles where conversions go wrong: zero and nearly, pi and nearly, beyond a turn.
angles = st.one_of(
    st.sampled_from([0.0, 1e-12, 1e-8, 1e-4, math.pi - 1e-7, math.pi, math.pi + 1e-7, 2 * math.pi - 1e-6]),
    st.floats(0, 4 * math.pi),
)
dtypes = st.sampled_from([torch.float32, torch.float64])


def turns(direction: np.ndarray, angle: float) -> np.ndarray:
    """Axis-angle vectors of one angle."""
    return direction / np.linalg.norm(direction, axis=1, keepdims=True) * angle


@given(directions, angles, dtypes)
def test_axis_angle_becomes_the_matrix_that_scipy_gives(direction, angle, dtype):
    given_ = torch.from_numpy(turns(direction, angle)).to(dtype)
    expected = Rotation.from_rotvec(given_.double().numpy()).as_matrix()
    assert np.abs(rotations.axis_angle_to_matrix(given_).numpy() - expected).max() < TOLERANCE[dtype]


@given(directions, angles, dtypes)
def test_matrix_becomes_the_axis_angle_it_came_from_up_to_whole_turns(direction, angle, dtype):
    matrix = torch.from_numpy(Rotation.from_rotvec(turns(direction, angle)).as_matrix()).to(dtype)
    back = rotations.matrix_to_axis_angle(matrix)
    assert (back.norm(dim=-1) <= math.pi + 1e-6).all()
    assert (
        np.abs(Rotation.from_rotvec(back.double().numpy()).as_matrix() - matrix.double().numpy()).max()
        < TOLERANCE[dtype]
    )


@given(directions, angles, dtypes)
def test_quaternions_go_round_trip_with_scipy(direction, angle, dtype):
    vector = torch.from_numpy(turns(direction, angle)).to(dtype)
    quaternion = rotations.axis_angle_to_quaternion(vector)
    theirs = Rotation.from_rotvec(vector.double().numpy()).as_quat()[:, [3, 0, 1, 2]]
    assert np.abs(np.abs((quaternion.double().numpy() * theirs).sum(1)) - 1).max() < TOLERANCE[dtype]
    again = rotations.quaternion_to_axis_angle(quaternion)
    difference = rotations.geodesic(rotations.axis_angle_to_matrix(again), rotations.axis_angle_to_matrix(vector))
    # In float32 the angle between two matrices near one another comes from a sum of rounded squares.
    assert difference.max() < {torch.float32: 2e-3, torch.float64: 1e-6}[dtype]


@given(directions, angles, dtypes)
def test_6d_goes_round_trip_and_survives_any_scale_of_its_rows(direction, angle, dtype):
    matrix = rotations.axis_angle_to_matrix(torch.from_numpy(turns(direction, angle)).to(dtype))
    six = rotations.matrix_to_rot6d(matrix)
    assert (rotations.rot6d_to_matrix(six) - matrix).abs().max() < TOLERANCE[dtype]
    assert (rotations.rot6d_to_matrix(2.5 * six) - matrix).abs().max() < 2 * TOLERANCE[dtype]


def test_golden_6d_is_two_rows_and_not_two_columns():
    # 90 degrees about z takes x to y: [[0,-1,0],[1,0,0],[0,0,1]]. By columns it would be 0,1,0,-1,0,0.
    matrix = rotations.axis_angle_to_matrix(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
    six = rotations.matrix_to_rot6d(matrix)
    assert six.numpy() == pytest.approx([0, -1, 0, 1, 0, 0], abs=1e-15)
    # A turn of (0.3, -0.5, 0.7) radians, by scipy.
    six = rotations.matrix_to_rot6d(rotations.axis_angle_to_matrix(torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64)))
    golden = Rotation.from_rotvec([0.3, -0.5, 0.7]).as_matrix()[:2].ravel()
    assert six.numpy() == pytest.approx(golden, abs=1e-14)
    assert six[1].item() == pytest.approx(-0.677061, abs=1e-6)


@pytest.mark.pytorch3d
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conversions_are_those_of_pytorch3d(dtype):
    theirs = pytest.importorskip("pytorch3d.transforms")
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(7, 11, 3, generator=generator, dtype=torch.float64).to(dtype)
    matrix = rotations.axis_angle_to_matrix(vector)
    close = TOLERANCE[dtype]
    assert (matrix - theirs.axis_angle_to_matrix(vector)).abs().max() < close
    assert (rotations.matrix_to_rot6d(matrix) - theirs.matrix_to_rotation_6d(matrix)).abs().max() < close
    noisy = torch.randn(7, 11, 6, generator=generator, dtype=torch.float64).to(dtype)
    assert (rotations.rot6d_to_matrix(noisy) - theirs.rotation_6d_to_matrix(noisy)).abs().max() < 30 * close
    assert (rotations.axis_angle_to_quaternion(vector) - theirs.axis_angle_to_quaternion(vector)).abs().max() < close


EDGES = (0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, math.pi - 1e-3, math.pi - 1e-6, math.pi, math.pi + 1e-6, 2 * math.pi)


@pytest.mark.pytorch3d
@pytest.mark.parametrize("angle", EDGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conversions_near_zero_and_at_pi_are_those_of_pytorch3d(dtype, angle):
    theirs = pytest.importorskip("pytorch3d.transforms")
    axes = np.concatenate((np.eye(3), -np.eye(3), np.random.default_rng(0).normal(size=(200, 3))))
    vector = torch.from_numpy(turns(axes, angle)).to(dtype)
    close = TOLERANCE[dtype]

    def differ(name: str, given_: torch.Tensor, other: str = "") -> float:
        return float((getattr(rotations, name)(given_) - getattr(theirs, other or name)(given_)).abs().max())

    quaternion = theirs.axis_angle_to_quaternion(vector)
    matrix = theirs.quaternion_to_matrix(quaternion)
    six = theirs.matrix_to_rotation_6d(matrix)
    assert differ("axis_angle_to_quaternion", vector) < close
    assert differ("axis_angle_to_matrix", vector) < close
    assert differ("quaternion_to_matrix", quaternion) < close
    assert differ("matrix_to_rot6d", matrix, "matrix_to_rotation_6d") == 0
    assert differ("rot6d_to_matrix", six, "rotation_6d_to_matrix") < close
    # Back, signs and whole turns are free: what is compared is the rotation.
    back = (rotations.matrix_to_quaternion(matrix) * theirs.matrix_to_quaternion(matrix)).sum(-1)
    assert (back.abs() - 1).abs().max() < close
    for ours in (rotations.matrix_to_axis_angle(matrix), rotations.quaternion_to_axis_angle(quaternion)):
        assert (theirs.axis_angle_to_matrix(ours) - matrix).abs().max() < 3 * close


@given(directions, directions, st.floats(0, 1), st.floats(0, 3.1))
def test_slerp_is_scipys(start, end, weight, angle):
    a, b = Rotation.from_rotvec(turns(start, angle)), Rotation.from_rotvec(turns(end, 0.5))
    for i in range(len(start)):
        if (a[i].inv() * b[i]).magnitude() > math.pi - 1e-3:
            continue  # two ways of the same length: either is right
        expected = Slerp([0, 1], Rotation.concatenate([a[i], b[i]]))(weight).as_matrix()
        pair = [torch.from_numpy(each.as_quat()[[3, 0, 1, 2]]) for each in (a[i], b[i])]
        mixed = rotations.slerp(*pair, torch.tensor([weight], dtype=torch.float64))
        assert np.abs(rotations.quaternion_to_matrix(mixed).numpy() - expected).max() < 1e-12


@settings(max_examples=25)
@given(directions, angles)
def test_every_rotation_of_a_batch_equals_that_rotation_alone(direction, angle):
    batch = torch.from_numpy(turns(direction, angle)).reshape(5, 1, 3)
    whole = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(batch))
    alone = [rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(each)) for each in batch]
    assert torch.equal(whole, torch.stack(alone))


def test_geodesic_is_the_angle_between_two_rotations():
    a = torch.from_numpy(Rotation.from_rotvec([0.2, 0, 0]).as_matrix())
    b = torch.from_numpy(Rotation.from_rotvec([1.0, 0, 0]).as_matrix())
    assert rotations.geodesic(a, b).item() == pytest.approx(0.8, abs=1e-12)
