"""Properties that a mirror, a turn and another speed must have, whatever the motion."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.changes import mirror_motion as mirrored_recording
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, geodesic, matrix_to_rot6d, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import MIRRORED, forward_kinematics
from mclip.training.data.augmentation import Augmentation, change_speed, mirror_rows, text_twins, turn_rows
from mclip.training.data.crops import Batch
from mclip.training.measure.metrics import mpjpe_mm

FRAMES = 8
seeds = st.integers(0, 2**31)


def motion_of(seed: int, *, lengths: tuple[int, ...] = (8, 8, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random motions, padded with zeros, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    start, speed = torch.randn(2, len(lengths), 1, 24, 3, generator=generator).double()
    time = torch.arange(FRAMES)[:, None, None]
    rot6d = matrix_to_rot6d(axis_angle_to_matrix(start + 0.05 * time * speed))
    path = torch.randn(len(lengths), 1, 3, generator=generator).double() * 0.01 * time[..., 0]
    mask = torch.arange(FRAMES) < torch.tensor(lengths)[:, None]
    motion = torch.cat((rot6d, torch.nn.functional.pad(path, (0, 3))[:, :, None]), dim=2)
    return motion * mask[..., None, None], mask


def batch_of(motion: torch.Tensor, mask: torch.Tensor, text: list[int]) -> Batch:
    number, has = torch.tensor(text), torch.ones(len(text), dtype=torch.bool)
    vectors = torch.eye(8)[number]
    return Batch(motion, mask, number, vectors, has, number, vectors, vectors, has, number, has)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_a_mirror_twice_is_the_motion_and_once_is_what_prepare_stores(seed):
    motion, _ = motion_of(seed)
    assert torch.equal(mirror_rows(mirror_rows(motion)), motion)
    rot6d, trans = mirrored_recording(motion[0, :, :24], motion[0, :, 24, :3])
    assert torch.equal(mirror_rows(motion)[0, :, :24], rot6d)
    assert torch.equal(mirror_rows(motion)[0, :, 24, :3], trans)


def test_joints_of_a_mirrored_motion_lie_on_the_other_side():
    motion, _ = motion_of(0, lengths=(8,))
    rest = load_body("low").joints_J3.double()
    rest = (rest + rest[list(MIRRORED)] * torch.tensor([-1, 1, 1])) / 2  # a body that is its own mirror image
    found, source = (forward_kinematics(rot6d_to_matrix(m[0, :, :24]), rest)[1] for m in (mirror_rows(motion), motion))
    expected = source[:, list(MIRRORED)] * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert (found - source).abs().max() > 0.1


@settings(max_examples=10, deadline=None)
@given(seed=seeds, angle=st.floats(-math.pi, math.pi))
def test_a_turn_changes_neither_local_joints_nor_errors_and_turns_the_world(seed, angle):
    motion, mask = motion_of(seed)
    other, _ = motion_of(seed + 1)
    angles = torch.full((len(motion),), angle, dtype=torch.float64)
    a, b = turn_rows(motion, angles), turn_rows(other, angles)
    assert torch.equal(a[:, :, 1:24], motion[:, :, 1:24])
    z = axis_angle_to_matrix(torch.tensor([0.0, 0, angle], dtype=torch.float64))
    rest = load_body("low").joints_J3.double()
    rest = rest - rest[0]
    whole = [(rot6d_to_matrix(m[mask][:, :24]), m[mask][:, 24, :3]) for m in (a, motion)]
    found, source = (forward_kinematics(rotmat, rest, root_B3=root)[1] for rotmat, root in whole)
    torch.testing.assert_close(found, source @ z.T, rtol=0, atol=1e-9)
    errors = [
        mpjpe_mm(rot6d_to_matrix(x[mask][:, :24]), rot6d_to_matrix(y[mask][:, :24]), rest)
        for x, y in ((a, b), (motion, other))
    ]
    torch.testing.assert_close(*errors, rtol=0, atol=1e-6)
    torch.testing.assert_close(turn_rows(a, -angles), motion, rtol=0, atol=1e-12)


def test_speed_one_is_the_motion_and_speed_two_is_every_second_frame():
    motion, mask = motion_of(1)
    same, same_mask = change_speed(motion, mask, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(same, motion, rtol=0, atol=1e-12)
    assert torch.equal(same_mask, mask)
    fast, fast_mask = change_speed(motion, mask, torch.full((3,), 2.0, dtype=torch.float64))
    assert fast_mask.sum(1).tolist() == [4, 4, 3]
    torch.testing.assert_close(fast[0, :4], motion[0, ::2], rtol=0, atol=1e-12)
    torch.testing.assert_close(fast[2, :3], motion[2, :5:2], rtol=0, atol=1e-12)
    assert fast[~fast_mask].eq(0).all()


def test_half_the_speed_turns_half_as_far_a_frame():
    motion, mask = motion_of(2)
    slow, slow_mask = change_speed(motion, mask, torch.full((3,), 0.5, dtype=torch.float64))
    assert slow_mask.sum(1).tolist() == [8, 8, 8]
    torch.testing.assert_close(slow[0, ::2], motion[0, :4], rtol=0, atol=1e-12)
    rotmat, source = (rot6d_to_matrix(each[0, :, :24]) for each in (slow, motion))
    half, whole = geodesic(rotmat[0], rotmat[1]), geodesic(source[0], source[1])
    torch.testing.assert_close(half, whole / 2, rtol=0, atol=1e-9)
    torch.testing.assert_close(slow[0, 1::2, 24], (motion[0, :4, 24] + motion[0, 1:5, 24]) / 2, rtol=0, atol=1e-12)


def test_texts_know_their_mirror_image_where_the_store_has_it():
    texts = ["walk", "kick left and wave", "kick right and wave", "left turn", "left hop and on", "on and right hop"]
    assert text_twins(texts) == [0, 2, 1, -1, 5, 4]


def test_a_mirrored_crop_has_the_mirrored_text_and_no_picture_and_one_without_such_a_text_stays():
    motion, mask = motion_of(3)
    batch = batch_of(motion.float(), mask, [0, 1, 3])
    augmentation = Augmentation(1.0, 0.0, 0.0, torch.eye(8)[:4], torch.tensor([0, 2, 1, -1]))
    found = augmentation(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.motion_BTRD[:2], mirror_rows(batch.motion_BTRD)[:2])
    assert torch.equal(found.motion_BTRD[2], batch.motion_BTRD[2])  # of text 3, which has no mirror image
    assert found.text_B.tolist() == [0, 2, 3]
    assert torch.equal(found.text_BC[:2], torch.eye(8)[[0, 2]])
    assert torch.equal(found.text_BC[2], batch.text_BC[2])
    assert torch.equal(found.has_text_B, batch.has_text_B)
    assert found.has_image_B.tolist() == [False, False, bool(batch.has_image_B[2])]
    none = augmentation.with_mirrored(batch, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(none.has_image_B, batch.has_image_B)
    assert torch.equal(none.text_BC, batch.text_BC)


@pytest.mark.parametrize("kind", ["mirror", "yaw", "speed"])
def test_the_generator_decides_and_off_is_off(kind):
    motion, mask = motion_of(4, lengths=(8,) * 12)
    batch, options = batch_of(motion.float(), mask, [0] * 12), dict.fromkeys(("mirror", "yaw", "speed"), 0.0)
    made = (torch.eye(8), torch.arange(8))
    assert Augmentation(**options, text_XC=made[0], twin_N=made[1])(batch, torch.Generator()) is batch
    augmentation = Augmentation(**options | {kind: 0.5 if kind != "yaw" else 90.0}, text_XC=made[0], twin_N=made[1])
    a, b, c = (augmentation(batch, torch.Generator().manual_seed(seed)).motion_BTRD for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    changed = (a != batch.motion_BTRD).flatten(1).any(1).float().mean().item()
    assert changed == 1 or (kind == "mirror" and 0 < changed < 1)
    assert np.isfinite(a.numpy()).all()
