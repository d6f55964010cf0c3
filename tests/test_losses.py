import math
from dataclasses import replace

import pytest
import torch

from mclip.pipeline.geometry.body import Body, load_body, skin
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.model import losses


def batch(*, lengths: tuple[int, ...] = (6, 4, 1), frames: int = 6, rows: int = 25, dtype=torch.float64):
    """A motion that asks for gradients, its target, and the mask of unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    motion, target = (torch.randn(len(lengths), frames, rows, 6, dtype=dtype, generator=generator) for _ in range(2))
    return motion.requires_grad_(), target, torch.arange(frames) < torch.tensor(lengths)[:, None]


def vertices(rot6d: torch.Tensor) -> torch.Tensor:
    """The slow twin: every vertex of the embedded body, by linear blend skinning, in float64."""
    body = load_body("low")
    joints = body.joints_J3.double()
    rotmat, position = forward_kinematics(rot6d_to_matrix(rot6d), joints)
    offset = position - (rotmat @ joints[..., None]).squeeze(-1)
    affine = torch.cat((rotmat, offset[..., None]), dim=-1)
    return skin(body.v_template_V3.double()[None], body.weights_VJ.double(), affine)


def vertex_loss() -> losses.ClosedFormLoss:
    return losses.ClosedFormLoss(load_body("low").double())


def test_closed_form_vertex_loss_equals_skinning_every_vertex():
    motion, target, mask = batch(rows=24)
    found = vertex_loss()(motion, target, mask)
    difference = vertices(motion[mask]) - vertices(target[mask])
    expected = difference.square().mean()
    assert expected > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    (ours,), (theirs,) = (torch.autograd.grad(each, motion) for each in (found, expected))
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_vertex_loss_in_float32_is_close_to_float64():
    motion, target, mask = batch(rows=24)
    small = losses.ClosedFormLoss(load_body("low"))
    found = small(motion.float(), target.float(), mask)
    torch.testing.assert_close(found.double(), vertex_loss()(motion, target, mask), rtol=1e-5, atol=0)


def with_correctives(size: float = 0.05) -> Body:
    """The small body with random pose-corrective offsets, as an SMPL file has."""
    body, generator = load_body("low").double(), torch.Generator().manual_seed(1)
    dirs = size * torch.randn(len(body.v_template_V3), 3, 207, dtype=torch.float64, generator=generator)
    return replace(body, posedirs_V3P=dirs)


def test_closed_form_and_full_loss_are_one_on_a_body_without_correctives():
    motion, target, mask = batch(rows=24)
    pair = [loss(motion, target, mask) for loss in (vertex_loss(), losses.SkinnedLoss(load_body("low").double()))]
    torch.testing.assert_close(*pair, rtol=0, atol=1e-9)
    (ours,), (theirs,) = (torch.autograd.grad(each, motion) for each in pair)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_full_loss_has_the_pose_correctives_that_the_closed_form_leaves_out():
    motion, target, mask = batch(rows=24)
    body = with_correctives()
    poses = [body.pose(rot6d_to_matrix(each[mask])) for each in (motion, target)]
    expected = (poses[0] - poses[1]).square().mean()
    found = losses.SkinnedLoss(body)(motion, target, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert abs(losses.ClosedFormLoss(body)(motion, target, mask) / found - 1) > 0.01


def test_a_subset_of_vertices_gives_the_full_loss_and_gradient_in_the_mean():
    motion, target, mask = batch(rows=24)
    body, generator = with_correctives(), torch.Generator().manual_seed(2)
    full = losses.SkinnedLoss(body)(motion, target, mask)
    (expected,) = torch.autograd.grad(full, motion)
    loss = losses.SkinnedLoss(body, subset=60, generator=generator)
    drawn, gradients = [], []
    for _ in range(80):
        drawn.append(loss(motion, target, mask))
        gradients.append(torch.autograd.grad(drawn[-1], motion)[0])
    values = torch.stack(drawn).detach()
    error = values.std() / len(values) ** 0.5
    assert error < 0.04 * full  # narrow enough to say something
    assert abs(values.mean() - full) < 4 * error
    mean = torch.stack(gradients).mean(0)
    assert torch.nn.functional.cosine_similarity(mean.flatten(), expected.flatten(), dim=0) > 0.99
    assert (mean - expected).norm() < 0.15 * expected.norm()


def test_the_vertices_of_a_subset_are_those_of_the_whole_body():
    motion, _, mask = batch(rows=24)
    body, rotmat = with_correctives(), rot6d_to_matrix(batch(rows=24)[0][mask].detach())
    chosen = torch.tensor([5, 700, 3])
    torch.testing.assert_close(body.part(chosen).pose(rotmat), body.pose(rotmat)[:, chosen], rtol=0, atol=1e-12)


def test_vertex_loss_of_a_motion_with_itself_is_zero_and_padding_has_no_gradient():
    motion, target, mask = batch(rows=24)
    loss = vertex_loss()
    assert loss(target, target, mask) == 0
    padded = torch.where(mask[..., None, None], motion, 0.0)  # as the model gives it: Gram-Schmidt of zeros is NaN
    (gradient,) = torch.autograd.grad(loss(padded, target, mask), motion)
    assert torch.isfinite(gradient).all()
    assert gradient[~mask].eq(0).all()
    assert gradient[mask].abs().amax((-1, -2)).min() > 0


def naive_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over valid frames and all their numbers, frame by frame."""
    kept = [values[item, frame] for item, frame in torch.nonzero(mask).tolist()]
    return torch.stack(kept).mean()


def test_rot6d_loss_equals_the_loop_over_valid_frames():
    motion, target, mask = batch()
    found = losses.rot6d_loss(motion, target, mask)
    torch.testing.assert_close(found, naive_mean((motion - target) ** 2, mask), rtol=0, atol=1e-12)
    assert (found - (motion - target).square().mean()).abs() > 1e-4  # the control: padding would count


def test_velocity_loss_equals_the_loop_over_valid_pairs_of_frames():
    motion, target, mask = batch()
    pairs = [
        (motion[item, frame + 1] - motion[item, frame]) - (target[item, frame + 1] - target[item, frame])
        for item, length in enumerate((6, 4, 1))
        for frame in range(length - 1)
    ]
    expected = torch.stack(pairs).square().mean()
    torch.testing.assert_close(losses.velocity_loss(motion, target, mask), expected, rtol=0, atol=1e-12)


def test_velocity_loss_does_not_see_a_constant_offset():
    motion, _, mask = batch()
    assert losses.velocity_loss(motion, motion + 3, mask) < 1e-20
    assert losses.rot6d_loss(motion, motion + 3, mask).item() == pytest.approx(9)


def test_means_of_nothing_are_zero():
    motion, target, mask = batch(lengths=(1, 1))
    assert losses.velocity_loss(motion, target, mask) == 0
    nobody = torch.zeros(2, dtype=torch.bool)
    z, clip = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for loss in losses.CLIP_LOSSES.values():
        found = loss(z, clip, nobody)
        assert found == 0
        assert torch.isfinite(torch.autograd.grad(found, z)[0]).all()


def clip_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z, clip = torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return z.requires_grad_(), clip, torch.tensor([True, False, True, True])


def test_cosine_loss_leaves_out_items_without_a_vector():
    z, clip, has = clip_batch()
    clip = clip.where(has[:, None], 0.0)
    one_by_one = [1 - z[i] @ clip[i] / (z[i].norm() * clip[i].norm()) for i in (0, 2, 3)]
    found = losses.cosine_loss(z, clip, has)
    torch.testing.assert_close(found, torch.stack(one_by_one).mean(), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found, z)
    assert gradient[1].eq(0).all()
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(losses.cosine_loss(7 * clip, clip, has), torch.zeros((), dtype=torch.float64))


def test_squared_loss_leaves_out_items_without_a_vector():
    z, clip, has = clip_batch()
    expected = (z[has] - clip[has]).square().mean()
    torch.testing.assert_close(losses.squared_loss(z, clip, has), expected, rtol=0, atol=1e-12)


def test_infonce_equals_cross_entropy_both_ways_over_items_that_have_a_vector():
    z, clip, has = clip_batch()
    score = 100 * torch.nn.functional.normalize(z[has], dim=1) @ torch.nn.functional.normalize(clip[has], dim=1).T
    right = torch.arange(3)
    ways = [torch.nn.functional.cross_entropy(each, right) for each in (score, score.T)]
    torch.testing.assert_close(losses.infonce_loss(z, clip, has), torch.stack(ways).mean(), rtol=0, atol=1e-9)


def test_infonce_does_not_push_crops_of_one_text_apart():
    clip = torch.eye(3, dtype=torch.float64)[[0, 0, 1]]
    has = torch.ones(3, dtype=torch.bool)
    at_the_text = losses.infonce_loss(clip, clip, has)
    # Two right answers share the weight: the entropy of one half, for two of the three.
    assert at_the_text.item() == pytest.approx(math.log(2) * 2 / 3, abs=1e-9)
    assert losses.infonce_loss(clip.roll(1, 0), clip, has) > 10


def world_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joints of two motions in the world, and a mask of unequal lengths; a foot of the target stands."""
    generator = torch.Generator().manual_seed(3)
    joints, target = torch.randn(2, 3, 6, 24, 3, dtype=torch.float64, generator=generator)
    target[:, :, losses.FEET[2]] = 0.5
    return joints, target, torch.arange(6) < torch.tensor((6, 4, 1))[:, None]


def test_world_losses_equal_the_loops_over_joints_and_frames():
    joints, target, mask = world_batch()
    found = losses.world_losses(joints, target, mask)
    places, steps, feet = [], [], []
    for item, length in enumerate((6, 4, 1)):
        for frame in range(length):
            places.append((joints[item, frame] - target[item, frame]).square().mean())
            if frame:
                step, wanted = (each[item, frame] - each[item, frame - 1] for each in (joints, target))
                steps.append((step - wanted).square().mean())
                stands = wanted[losses.FEET].norm(dim=-1) < losses.STANDS
                feet.append((step[losses.FEET].square().mean(-1) * stands).mean())
    assert sum(each > 0 for each in feet) == 8  # the standing foot, and no other
    for name, each in (("places", places), ("steps", steps), ("feet", feet)):
        torch.testing.assert_close(found[name], torch.stack(each).mean(), rtol=0, atol=1e-12)


def test_world_losses_see_a_path_that_the_papers_vertices_leave_out():
    joints, target, mask = world_batch()
    slid = target.clone()
    slid += 0.1 * torch.arange(6)[None, :, None, None]
    found = losses.world_losses(slid, target, mask)
    assert found["steps"].item() == pytest.approx(0.01, rel=1e-6)
    assert found["feet"].item() == pytest.approx(0.01 / len(losses.FEET), rel=1e-6)


def test_joints_of_the_closed_form_are_those_of_forward_kinematics_and_the_loss_is_the_same():
    motion, target, mask = batch(rows=24)
    body = load_body("low").double()
    for loss in (vertex_loss(), losses.SkinnedLoss(body)):
        value, found, wanted = loss.with_joints(motion, target, mask)
        torch.testing.assert_close(value, loss(motion, target, mask), rtol=0, atol=1e-12)
        for joints, rot6d in ((found, motion), (wanted, target)):
            expected = forward_kinematics(rot6d_to_matrix(rot6d[mask]), body.joints_J3)[1]
            torch.testing.assert_close(joints[mask], expected, rtol=0, atol=1e-9)


def test_padding_has_no_gradient_in_the_world():
    motion, target, mask = batch(rows=24)
    _, found, wanted = vertex_loss().with_joints(torch.where(mask[..., None, None], motion, 0.0), target, mask)
    (gradient,) = torch.autograd.grad(sum(losses.world_losses(found, wanted, mask).values()), motion)
    assert torch.isfinite(gradient).all()
    assert gradient[~mask].eq(0).all()
    assert gradient[mask].abs().amax((-1, -2)).min() > 0
