"""Feet that slide, joints that shake: on motions made for it, and against loops."""

import numpy as np
import pytest
import torch

from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of
from mclip.training.measure import reconstruction
from mclip.training.model.network import MotionClip
from mclip.training.model.run import Run

LEFT, RIGHT = reconstruction.TOES


def standing(frames: int) -> torch.Tensor:
    """Joints (1, T, 24, 3): toes on the floor, all else a metre up."""
    joints = torch.zeros(1, frames, 24, 3)
    joints[..., 2] = 1
    joints[:, :, [LEFT, RIGHT], 2] = 0
    return joints


def test_a_standing_toe_that_moves_skates_and_a_lifted_one_does_not() -> None:
    mask = torch.ones(1, 5, dtype=torch.bool)
    still = standing(5)
    assert reconstruction.foot_skate(still, mask, fps=30.0).tolist() == [0]
    slides = still.clone()
    slides[0, :, LEFT, 0] = torch.arange(5) * 0.01  # one of two toes, 1 cm a frame at 30 fps: 300 mm/s
    assert float(reconstruction.foot_skate(slides, mask, fps=30.0)) == pytest.approx(150, rel=1e-4)
    slides[0, :, LEFT, 2] = 0.2
    assert float(reconstruction.foot_skate(slides, mask, fps=30.0)) == 0


def test_what_is_masked_does_not_skate() -> None:
    joints = standing(6)
    joints[0, 3:, LEFT, 1] = 5.0
    mask = torch.tensor([[True, True, True, False, False, False]])
    assert float(reconstruction.foot_skate(joints, mask, fps=30.0)) == 0
    assert float(reconstruction.foot_skate(joints, torch.ones_like(mask), fps=30.0)) > 1000


def test_the_jerk_of_a_cubic_is_its_third_derivative_and_of_a_parabola_none() -> None:
    time = torch.arange(12, dtype=torch.float64) / 10
    joints = torch.zeros(2, 12, 24, 3, dtype=torch.float64)
    joints[0, ..., 0] = (2 * time**3)[:, None]  # 12 m/s^3
    joints[1, ..., 1] = (3 * time**2)[:, None]
    found = reconstruction.jerk(joints, torch.ones(2, 12, dtype=torch.bool), fps=10.0)
    assert found.tolist() == pytest.approx([12, 0], abs=1e-9)
    assert reconstruction.jerk(joints[:, :3], torch.ones(2, 3, dtype=torch.bool), fps=10.0).isnan().all()


def test_every_window_is_measured_as_it_is_alone_and_without_its_padding(run: Run, store: Store) -> None:
    from mclip.pipeline.geometry.body import load_body
    from mclip.pipeline.geometry.rotations import rot6d_to_matrix

    crops, body = crops_of(run, store, "train"), load_body("low")
    found = reconstruction.quality(run.model, crops, fps=30.0)
    for item in range(len(crops)):
        source, decoded = reconstruction.reconstructed(run.model, crops, item)
        own = min(int(crops.own_frames[item]), crops.crop)
        skins = [body.pose(rot6d_to_matrix(rows[:own, :24])).numpy() for rows in (source, decoded)]
        slow = np.mean([np.linalg.norm(a - b, axis=1).mean() for a, b in zip(*skins, strict=True)])
        assert found.vertex_mm[item] == pytest.approx(1000 * slow, rel=1e-3)
        joints = body.pose_joints(rot6d_to_matrix(decoded[:own, :24]), trans_B3=decoded[:own, 24, :3]).double().numpy()
        third = joints[3:] - 3 * joints[2:-1] + 3 * joints[1:-2] - joints[:-3]
        assert found.jerk[item] == pytest.approx(np.linalg.norm(third, axis=-1).mean() * 30**3, rel=1e-2)
    assert (crops.own_frames < crops.crop).any()  # or the mask was never tried


def test_a_perfect_model_has_no_error_and_the_sources_own_feet(run: Run, store: Store) -> None:
    crops = crops_of(run, store, "train")

    class Perfect(MotionClip):
        def encode(self, motion: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            self.seen = motion
            return super().encode(motion, mask)

        def decode(self, z: torch.Tensor, frames: int, mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            return self.seen

    perfect = Perfect(run.model.config)
    perfect.load_state_dict(run.model.state_dict())
    found = reconstruction.quality(perfect.eval(), crops, fps=30.0)
    assert found.pa_mpjpe_mm.max() < 0.01
    assert found.vertex_mm.max() < 0.01
    assert np.allclose(found.jerk, found.source_jerk)
    assert np.allclose(found.skate_mm_s, found.source_skate_mm_s)
    assert reconstruction.quality(run.model.eval(), crops, fps=30.0).vertex_mm.min() > 10
