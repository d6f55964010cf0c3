"""The render stage: which pictures there are, that each is drawn once, and that each shows its own frame."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline import render
from mclip.pipeline.body import load_body
from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.store import Store, StoreError, open_store


@pytest.fixture
def undrawn(store: Store, tmp_path: Path) -> Store:
    """A copy of the store without pictures."""
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.url, copy)
    made = open_store(copy)
    made.forget("pictures", "render")
    return made


SMALL = render.RenderOptions(frames=2, views=3, size=48, body="low")


def test_frames_are_the_middles_of_equal_parts() -> None:
    assert render.picture_frames(100, 1) == [50]
    assert render.picture_frames(100, 2) == [25, 75]
    assert render.picture_frames(3, 3) == [0, 1, 2]
    assert render.picture_frames(1, 2) == [0, 0]


def test_the_index_says_which_picture_is_which(undrawn: Store) -> None:
    assert render.render(undrawn, SMALL, backend="cpu").done == 3 * 2 * 3
    assert undrawn.read("pictures/window").tolist() == [w for w in range(3) for _ in range(6)]
    assert undrawn.read("pictures/view").tolist() == [0, 1, 2] * 6
    frames = undrawn.read("windows/frames")
    assert undrawn.read("pictures/frame")[::6].tolist() == [int(n / 4) for n in frames]


def test_every_picture_equals_its_own_frame_drawn_alone(undrawn: Store) -> None:
    render.render(undrawn, SMALL, backend="cpu")
    body, rgb = load_body("low"), undrawn.read("pictures/rgb")
    rows = undrawn.read("windows/row")[undrawn.read("pictures/window")] + undrawn.read("pictures/frame")
    for item in (0, 4, 17):
        rotmat = rot6d_to_matrix(torch.from_numpy(undrawn.read("motion/rot6d")[rows[item]][None]))
        yaw = torch.tensor([2 * np.pi * undrawn.read("pictures/view")[item] / 3], dtype=torch.float32)
        alone = render.draw(body, rotmat, yaw, SMALL, "cpu")[0].numpy()
        assert np.abs(alone.astype(int) - rgb[item]).max() <= 1
    assert np.abs(rgb[0].astype(int) - rgb[4]).max() > 50


def test_second_run_draws_nothing(undrawn: Store) -> None:
    render.render(undrawn, SMALL, backend="cpu")
    again = render.render(undrawn, SMALL, backend="cpu")
    assert (again.done, again.skipped, again.failed) == (0, 18, 0)


def test_other_options_are_refused_with_the_remedy(store: Store) -> None:
    with pytest.raises(StoreError, match=r"render stage was made with .*'size': 64.*asks for .*'size': 96.*--replace"):
        render.render(store, render.RenderOptions(body="low", size=96))


def test_a_store_without_windows_names_prepare(tmp_path: Path) -> None:
    empty = open_store(tmp_path / "s.zarr", create=True)
    with pytest.raises(StoreError, match="run `mclip prepare SOURCE"):
        render.render(empty, render.RenderOptions())


@pytest.mark.parametrize("name", ["frames", "views"])
def test_no_pictures_at_all_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} is 0: expected at least 1"):
        render.RenderOptions(**{name: 0})


def test_the_contact_sheet_shows_bodies(store: Store, tmp_path: Path) -> None:
    from PIL import Image

    assert render.contact_sheet(store, tmp_path / "sheet.png") == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert sheet.size == (320, 320)
    for top, left in ((0, 0), (0, 160), (160, 0)):
        assert 0.02 < (pixels[top : top + 160, left : left + 160] < 250).mean() < 0.6
    assert (pixels[160:, 160:] == 255).all()


def test_a_walking_body_strides_through_the_video_and_stays_in_it(store: Store) -> None:
    walk = next(i for i, name in enumerate(store.strings("sequences/name")) if "/walk/" in name)
    at = slice(store.read("sequences/row")[walk], store.read("sequences/row")[walk] + 30)
    rotmat = rot6d_to_matrix(torch.from_numpy(store.read("motion/rot6d")[at]))
    trans = torch.from_numpy(store.read("motion/trans")[at])
    frames = render.render_clip(load_body("low"), rotmat, trans, fps=30.0, size=64).numpy()
    dark = (frames < 250).any(-1)
    border = np.concatenate([dark[:, 0], dark[:, -1], dark[:, :, 0], dark[:, :, -1]], axis=1)
    assert not border.any()
    assert np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 20
