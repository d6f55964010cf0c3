"""Videos of sequences: every frame, at the store's rate, decoded again."""

from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mclip.cli import cli
from mclip.pipeline.render.video import write_mp4
from mclip.pipeline.store.store import Store


def mclip(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def frames_in(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_video_has_every_frame_of_the_sequence_and_the_body_moves(store: Store, tmp_path: Path) -> None:
    told = mclip(
        "video",
        store.url,
        "walk",
        tmp_path / "new/walk.mp4",
        "--body",
        "low",
        "--size",
        64,
        "--ground",
        "--views",
        2,
        "--colour",
        "tomato",
    )
    assert told.exit_code == 0, told.output
    item = next(i for i, name in enumerate(store.strings("sequences/name")) if "/walk/" in name)
    frames = int(store.read("sequences/frames")[item])
    assert f"{frames} frames at 30 fps" in told.output
    pictures, rate = frames_in(tmp_path / "new/walk.mp4")
    assert (pictures.shape, rate) == ((frames, 64, 128, 3), 30.0)
    for half in (pictures[:, :, :64], pictures[:, :, 64:]):
        red = (half[..., 0].astype(int) - half[..., 2] > 50).mean((1, 2))
        assert red.min() > 0.02
        assert red.max() < 0.6
        assert np.abs(half[10].astype(int) - half[0]).max() > 60
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["walk.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walk", "w.avi"], "w.avi: expected a name that ends in .mp4"),
        (["swim", "w.mp4"], "no sequence whose name holds 'swim'"),
        (["e", "w.mp4"], "sequences hold 'e'"),
        (["walk", "w.mp4", "--betas", "sequence"], "body default has no shape directions"),
    ],
)
def test_a_video_that_cannot_be_is_refused_by_name(store: Store, tmp_path: Path, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    told = mclip("video", store.url, *words)
    assert told.exit_code == 1
    assert message in told.output
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_lose_their_last_row_and_column(tmp_path: Path) -> None:
    grey = np.full((5, 33, 47, 3), 128, np.uint8)
    write_mp4(tmp_path / "odd.mp4", iter(grey), 29.97)
    pictures, rate = frames_in(tmp_path / "odd.mp4")
    assert pictures.shape == (5, 32, 46, 3)
    assert rate == pytest.approx(29.97, abs=0.01)
    assert np.abs(pictures.astype(int) - 128).max() < 5
