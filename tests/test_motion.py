"""Motions on the floor, and the files they become."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mclip.pipeline.body import load_body
from mclip.training import motion as motions


def spread_arms(frames: int) -> motions.Motion:
    """A body that turns about the vertical, two metres up in the air."""
    angle = torch.linspace(0, 1.5, frames)
    upright = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # SMPL's y up to the world's z up
    turn = torch.zeros(frames, 3, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = angle.sin(), -angle.sin(), 1
    rotmat = torch.eye(3).expand(frames, 24, 3, 3).clone()
    rotmat[:, 0] = turn @ upright
    return motions.Motion(rotmat, torch.tensor([[0.0, 0, 2.0]]).expand(frames, 3), 30.0)


def test_the_lowest_point_of_a_motion_stands_on_the_floor() -> None:
    body = load_body("low")
    placed = motions.on_floor(spread_arms(6), body)
    height = body.pose(placed.rotmat_TJ33, trans_B3=placed.trans_T3)[..., 2]
    assert float(height.min()) == pytest.approx(0, abs=1e-5)
    assert 1.5 < float(height.max()) < 1.9


def test_rows_of_the_model_become_rotations_and_a_path() -> None:
    rows = torch.zeros(3, 25, 6)
    rows[:, :24, 0] = 2.0  # not of length one: Gram-Schmidt makes it so
    rows[:, :24, 4] = 3.0
    rows[:, 24, 0] = torch.tensor([0.0, 0.5, 1.0])
    made = motions.motion_of_rows(rows, 30.0)
    assert torch.allclose(made.rotmat_TJ33, torch.eye(3).expand(3, 24, 3, 3))
    assert torch.allclose(made.trans_T3[:, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_an_mp4_plays_every_frame_in_time_and_shows_the_same_pictures(tmp_path: Path) -> None:
    made = spread_arms(9)
    drawn = motions.pictures(made, size=64)
    motions.write(tmp_path / "a.mp4", made, frames_TSS3=drawn)
    with av.open(str(tmp_path / "a.mp4")) as video:
        assert video.streams.video[0].average_rate == 30
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == (9, 64, 64, 3)
    assert np.abs(frames.astype(int) - drawn.numpy()).mean() < 4
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 4


def test_a_gif_holds_every_frame_and_loops(tmp_path: Path) -> None:
    motions.write(tmp_path / "a.gif", spread_arms(5), frames_TSS3=motions.pictures(spread_arms(5), size=48))
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["loop"]) == (5, 0)


def test_a_strip_shows_first_to_last(tmp_path: Path) -> None:
    drawn = motions.pictures(spread_arms(20), size=160)
    motions.write(tmp_path / "a.png", spread_arms(20), frames_TSS3=drawn)
    with Image.open(tmp_path / "a.png") as strip:
        pixels = np.asarray(strip)
    assert pixels.shape == (160, 8 * 160, 3)
    assert (pixels[:, :160] == drawn[0].numpy()).all()
    assert (pixels[:, -160:] == drawn[-1].numpy()).all()


def test_an_unknown_ending_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.fbx: cannot write \.fbx; expected one of npz, mp4"):
        motions.write(tmp_path / "a.fbx", spread_arms(2))
    assert list(tmp_path.iterdir()) == []
