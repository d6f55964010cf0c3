"""How well windows come back, against loops."""

import numpy as np
import pytest
import torch

from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of
from mclip.training.measure import reconstruction
from mclip.training.measure.metrics import turned_deg
from mclip.training.model.network import MotionClip
from mclip.training.model.run import Run


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
        assert found.decoded["jerk"][item] == pytest.approx(np.linalg.norm(third, axis=-1).mean() * 30**3, rel=1e-2)
    assert (crops.own_frames < crops.crop).any()  # or the mask was never tried


class Playback(MotionClip):
    """Decodes what it was shown last, changed by `change`."""

    @staticmethod
    def change(motion: torch.Tensor) -> torch.Tensor:
        return motion

    def encode(self, motion: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        self.seen = motion
        return super().encode(motion, mask)

    def decode(self, z: torch.Tensor, frames: int, mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        return self.change(self.seen)


class Flashing(Playback):
    """Turns the body round in two frames."""

    @staticmethod
    def change(motion: torch.Tensor) -> torch.Tensor:
        motion = motion.clone()
        motion[:, 3:5, 0] = -motion[:, 3:5, 0]
        return motion


def measured(model: type[Playback], run: Run, store: Store) -> reconstruction.Quality:
    """What is measured of a model with the weights of `run`."""
    made = model(run.model.config)
    made.load_state_dict(run.model.state_dict())
    return reconstruction.quality(made.eval(), crops_of(run, store, "train"), fps=30.0)


def test_a_perfect_model_has_no_error_and_the_sources_own_feet(run: Run, store: Store) -> None:
    found = measured(Playback, run, store)
    assert found.pa_mpjpe_mm.max() < 0.01
    assert found.vertex_mm.max() < 0.01
    assert found.root_mm.max() == found.turned.max() == 0
    for name, values in found.decoded.items():
        assert np.allclose(values, found.source[name], equal_nan=True), name
    assert reconstruction.quality(run.model.eval(), crops_of(run, store, "train"), fps=30.0).vertex_mm.min() > 10


def test_a_body_that_flashes_round_for_two_frames_is_seen(run: Run, store: Store) -> None:
    crops = crops_of(run, store, "train")
    batch = crops.middle(torch.arange(len(crops)))
    source = reconstruction.rotmats(batch.motion_BTRD, batch)
    flashing = batch.motion_BTRD.clone()
    flashing[:, 3:5, 0] = -0.2 * flashing[:, 3:5, 0] + 0.05  # short rows that point elsewhere, as in a fast turn
    turned = turned_deg(reconstruction.rotmats(flashing, batch), source)
    assert (turned[:, 3:5] > 90).all()
    assert turned[:, :3].max() < 0.1
    assert turned[:, 5:].max() < 0.1
    mild = batch.motion_BTRD.clone()
    mild[:, 3:5, 0] *= 0.2  # short alone is no error: Gram and Schmidt make it whole
    assert turned_deg(reconstruction.rotmats(mild, batch), source).max() < 0.1


def test_what_flashes_is_a_share_of_its_own_frames(run: Run, store: Store) -> None:
    crops = crops_of(run, store, "train")
    found = measured(Flashing, run, store)
    assert found.turned == pytest.approx(2 / crops.own_frames.clamp(max=crops.crop).numpy())
