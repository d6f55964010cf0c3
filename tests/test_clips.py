"""Clips of a store by their labels: any label of any clip, the frames that carry it, and what is near where none is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.embed.vectors import zero_shot
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.store.middle import middle_shift, middle_texts
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data import clips
from mclip.training.data.clips import find_clip
from mclip.training.data.crops import Crops, load_crops
from mclip.training.latent.space import motion_rows, motion_vector, vectors_of
from mclip.training.measure.retrieval import gallery_of
from mclip.training.model.run import Run

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def frames_of(store: Store, wanted: str) -> tuple[str, int, int]:
    """The sequence and its frames, from one to before another, that a label stands for."""
    clip = find_clip(store, wanted)
    name = store.strings("sequences/name")[int(store.read("windows/sequence")[clip.window])]
    (start,), (end,) = clips.seconds_of(store, np.array([clip.window]), np.array([clip.shift]))
    return name, round(start * 30), round(end * 30)


@pytest.mark.parametrize(("frames", "shift"), [(100, 20), (80, 10), (61, 0), (60, 0), (15, 0)])
def test_a_middle_is_the_same_for_a_number_an_array_and_a_tensor(frames: int, shift: int) -> None:
    """Half of what is beyond a crop of 60, counted by hand."""
    assert middle_shift(frames, 60) == shift
    assert middle_shift(np.array([frames]), 60).tolist() == [shift]
    assert middle_shift(torch.tensor([frames]), 60).tolist() == [shift]


def test_a_window_says_what_its_middle_shows_however_short_it_is(long_store: Store) -> None:
    """The labels of LONG that lie in frames 20 to 80, 120 to 180, 200 to 260, then 10 to 70, 0 to 15, 20 to 80."""
    told = middle_texts(long_store)
    assert told == ["walk", "Kick [left] and walk", "Kick [left]", "walk", "hop", ""]


def test_search_training_retrieval_and_zero_shot_mean_the_same_middle(long_store: Store) -> None:
    told = middle_texts(long_store)
    crops: Crops = load_crops(long_store, split="train", encoder="offline", target="joined", device=torch.device("cpu"))
    batch, texts = crops.middle(torch.arange(len(crops))), long_store.strings("texts")
    found = [texts[n] if has else "" for n, has in zip(batch.text_B.tolist(), batch.has_text_B.tolist(), strict=True)]
    assert found == told
    for window in range(len(crops)):
        rows = clips.middle_rows(long_store, window)
        own = batch.motion_BTRD[window][batch.mask_BT[window]]
        assert torch.equal(own[:, :24], rows[:, :24])
    categories = gallery_of(long_store, crops, np.zeros((len(crops), 2))).categories_W
    assert categories == [set(text.lower().split(" and ")) - {""} for text in told]
    # Chance is the mean share of windows with a text, over the four texts of five windows: walk has two of them.
    assert zero_shot(long_store, "offline")["chance"] == pytest.approx(np.mean([2, 1, 1, 1]) / 5)


@pytest.mark.parametrize(
    ("wanted", "frames"),
    [
        ("walk", ("SET/01/changing_poses.npz", 20, 80)),  # the middle of the first window carries nothing else
        ("WALK", ("SET/01/changing_poses.npz", 20, 80)),
        ("kick [LEFT]", ("SET/01/changing_poses.npz", 200, 260)),  # every crop of the window before shows `walk`, too
        ("Kick [left] and walk", ("SET/01/changing_poses.npz", 120, 180)),
        ("hop", ("SET/03/hop_poses.npz", 0, 15)),
        ("nobody_said", ("SET/04/nobody_said_poses.npz", 20, 80)),
        ("04", ("SET/04/nobody_said_poses.npz", 20, 80)),
        ("THE END", ("SET/02/the end_poses.npz", 10, 70)),
    ],
)
def test_a_label_stands_for_frames_that_show_it(long_store: Store, wanted: str, frames: tuple[str, int, int]) -> None:
    assert frames_of(long_store, wanted) == frames


def test_a_label_outside_of_every_middle_is_found_where_it_is(long_store: Store) -> None:
    name, first, last = frames_of(long_store, "bow")  # frames 71 to 78
    assert (name, last - first) == ("SET/02/the end_poses.npz", 60)
    assert first <= 71 < last


def test_every_label_of_a_clip_with_many_is_a_name_of_it(store: Store) -> None:
    texts, labels = store.strings("texts"), store.read("labelsets/labels")
    names = {texts[number] for number in np.unique(labels)}
    assert len(names) > 9
    offset = store.read("labelsets/labels_offset")
    for name in names:
        found = find_clip(store, name.upper())
        at = store.read("windows/labelset")[found.window, found.shift]
        assert name in [texts[number] for number in labels[offset[at] : offset[at + 1]]]


@pytest.mark.parametrize(
    ("wanted", "near"),
    [("wlak", "walk"), ("kick", "Kick [left]"), ("changin", "changing"), ("xyzzy", "nothing"), ("said", "nobody_said")],
)
def test_what_is_near_is_named_where_nothing_is_called_so(long_store: Store, wanted: str, near: str) -> None:
    with pytest.raises(StoreError) as told:
        find_clip(long_store, wanted)
    assert str(told.value).endswith(f"no clip is labelled or called {wanted!r}; near it: {near}")


def test_which_of_several_clips_was_taken_is_said(run: Run, long_store: Store) -> None:
    said: list[str] = []
    vectors_of(run, ["store:Walk", "store:hop"], store=long_store, say=said.append)
    assert said == ["store:Walk: the first of 2 clips, SET/01/changing_poses.npz from 0.7 to 2.7 s"]


def test_a_clip_of_a_store_is_the_same_motion_as_its_file(run: Run, store: Store) -> None:
    clip = find_clip(store, "walk")
    rows = clips.clip_rows(store, clip.window, clip.shift)
    assert torch.allclose(rows, motion_rows(run, WALK), atol=1e-5)


def test_the_middle_of_a_file_is_that_of_the_window_it_becomes(run: Run, long_store: Store) -> None:
    file = Path(long_store.url).parent / "AMASS/SET/02/the end_poses.npz"
    assert torch.allclose(motion_vector(run, file), vectors_of(run, ["store:the end"], store=long_store)[0], atol=1e-3)
