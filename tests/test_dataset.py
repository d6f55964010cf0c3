"""Crops for trainers of others, held against what the store itself says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.store.middle import middle_shift
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.training import CropDataset
from mclip.training.measure.retrieval import gallery_of


def test_a_middle_crop_is_the_stores_own_motion_with_its_text_and_vectors(store: Store) -> None:
    data, windows = CropDataset(store, middle=True), store.windows(split="train")
    vectors, gallery = vectors_by_text(store, "offline"), gallery_of(store, data.crops, np.zeros((len(data), 0)))
    assert len(data) == len(windows.row) == 3
    for number, (row, frames) in enumerate(zip(windows.row, windows.frames, strict=True)):
        found = data[number]
        shift = int(middle_shift(frames, store.crop))
        length = min(store.crop, int(frames))
        rot6d, trans = store.motion(slice(row + shift, row + shift + length))
        assert np.allclose(found["motion"][:length, :24], rot6d)
        assert np.allclose(found["motion"][:length, 24, :3], trans - trans[0], atol=1e-6)
        assert found["mask"].tolist() == [True] * length + [False] * (store.crop - length)
        assert not found["motion"][length:].any()
        assert found["clip"] == store.sequences[windows.sequence[number]]
        assert found["text"] in gallery.labels[gallery.names.index(found["clip"])]
        assert np.allclose(found["text_vector"], vectors[found["text"]])
        assert found["picture_vector"].norm() > 0


def test_crops_begin_anywhere_by_torchs_chance_and_come_through_workers(store: Store) -> None:
    data = CropDataset(store)
    longest = int(np.argmax(store.windows(split="train").frames))
    torch.manual_seed(0)
    drawn = [data[longest]["motion"] for _ in range(8)]
    assert any(not torch.equal(drawn[0], each) for each in drawn)
    torch.manual_seed(0)
    assert torch.equal(data[longest]["motion"], drawn[0])
    batches = [*DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")]
    assert sorted(clip for batch in batches for clip in batch["clip"]) == sorted(data.clips)
    assert batches[0]["motion"].shape[2:] == (25, 6)
    with pytest.raises(IndexError, match="crop 3 of 3"):
        data[3]


def test_a_store_without_vectors_or_with_several_says_what_to_do(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="embedded by none: run `mclip embed` first"):
        CropDataset(open_store(tmp_path / "store.zarr", create=True))
    with pytest.raises(StoreError, match="no window in split val"):
        CropDataset(store, "val")
    with pytest.raises(StoreError, match="no vectors of encoder other"):
        CropDataset(store, encoder="other")
