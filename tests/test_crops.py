import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import (
    Choice,
    Crops,
    cut_by_index,
    cut_compiled,
    frames_of,
    load_crops,
    new_tensor,
    text_choices,
)
from mclip.training.data.feed import Order, windows_of_a_pass

CPU = torch.device("cpu")


def loaded(store: Store, target: str = "label", **options) -> Crops:
    return load_crops(store, split="train", encoder="offline", target=target, device=CPU, **options)


def naive_crop(store: Store, window: int, shift: int, crop: int) -> tuple[np.ndarray, int]:
    """Rows (crop, 25, 6) of one crop, padded with zeros, and how many of them are motion; a frame at a time."""
    first, frames = store.read("windows/row")[window], int(store.read("windows/frames")[window])
    rot6d, trans = store.read("motion/rot6d"), store.read("motion/trans")
    rows = np.zeros((crop, 25, 6), np.float32)
    valid = 0
    for frame in range(crop):
        if shift + frame < frames:
            at = first + shift + frame
            rows[frame, :24] = rot6d[at]
            rows[frame, 24, :3] = trans[at] - trans[first + shift]
            valid += 1
    return rows, valid


def test_every_crop_equals_the_one_cut_frame_by_frame(store):
    crops = loaded(store)
    generator = torch.Generator().manual_seed(0)
    lengths = set()
    for item in range(len(crops)):
        room = max(0, int(crops.frames[item]) - crops.crop)
        for shift in {0, room // 2, room}:
            batch = crops.gather(torch.tensor([item]), torch.tensor([shift]), torch.rand(1, generator=generator))
            rows, valid = naive_crop(store, int(crops.window[item]), shift, crops.crop)
            torch.testing.assert_close(batch.motion_BTRD[0], torch.from_numpy(rows), rtol=0, atol=0)
            assert batch.mask_BT[0].tolist() == [True] * valid + [False] * (crops.crop - valid)
            lengths.add(valid)
    assert len(lengths) > 1  # both whole and padded crops were seen


@pytest.mark.parametrize("batch", [1, 5, 300])
def test_the_compiled_cut_is_the_one_by_index_bit_for_bit(batch):
    generator = torch.Generator().manual_seed(batch)
    rot6d, trans = (torch.randn(500, *size, generator=generator) for size in ((24, 6), (3,)))
    row = torch.randint(440, (batch,), generator=generator)
    frames = torch.randint(-3, 100, (batch,), generator=generator)  # none, a few, all of them
    compiled, by_index = (cut(rot6d, trans, row, frames, crop=60) for cut in (cut_compiled, cut_by_index))
    assert torch.equal(compiled[0], by_index[0])
    assert torch.equal(compiled[1], by_index[1])
    if batch == 300:  # enough for crops of no frame, of some, and whole ones
        assert {0, 1, 59, 60} <= set(compiled[1].sum(1).tolist())


@pytest.mark.parametrize(("row", "frames"), [(-1, 3), (41, 60), (99, 2)])
def test_a_crop_that_leads_out_of_the_motion_is_refused_and_not_read(row, frames):
    rot6d, trans = torch.zeros(100, 24, 6), torch.zeros(100, 3)
    with pytest.raises(IndexError, match="lead out of the 100 rows of motion: run `mclip validate`"):
        cut_compiled(rot6d, trans, torch.tensor([0, row]), torch.tensor([60, frames]), crop=60)


def test_a_batch_equals_its_crops_one_at_a_time(store):
    crops = loaded(store)
    items = torch.arange(len(crops))
    shift, chance = torch.zeros(len(crops), dtype=torch.long), torch.linspace(0, 0.99, len(crops))
    batch = crops.gather(items, shift, chance)
    for item in range(len(crops)):
        alone = crops.gather(items[item : item + 1], shift[item : item + 1], chance[item : item + 1])
        for name in ("motion_BTRD", "mask_BT", "text_BC", "has_text_B", "image_BC", "has_image_B", "window_B"):
            assert torch.equal(getattr(alone, name)[0], getattr(batch, name)[item]), name


def test_the_root_moves_from_where_the_crop_begins(store):
    crops = loaded(store)
    item = int(crops.frames.argmax())
    room = int(crops.frames[item]) - crops.crop
    assert room > 10
    early, late = (crops.gather(torch.tensor([item]), torch.tensor([s]), torch.zeros(1)) for s in (0, 10))
    root = early.motion_BTRD[0, :, 24, :3]
    assert root[0].eq(0).all()
    assert root[-1].norm() > 0.01
    torch.testing.assert_close(late.motion_BTRD[0, :-10, 24, :3], root[10:] - root[10], rtol=0, atol=1e-5)
    assert early.motion_BTRD[..., 24, 3:].eq(0).all()


def with_labelsets(crops: Crops, sets: list[list[int]]) -> Crops:
    """`crops` whose label set is 0 in the first half of the shifts and 1 in the second, with the given texts."""
    shifts = crops.labelset.shape[1]
    crops.labelset = (torch.arange(shifts) >= shifts // 2).long().expand(len(crops), -1)
    count = torch.tensor([len(texts) for texts in sets])
    flat = torch.tensor([text for texts in sets for text in texts] + [0])
    crops.targets = Choice(flat, count.cumsum(0) - count, count)
    return crops


def test_the_text_follows_the_label_set_at_the_crops_shift(store):
    crops = with_labelsets(loaded(store), [[3], [5, 4]])
    last = crops.labelset.shape[1] - 1
    for shift, chance, text in ((0, 0.0, 3), (0, 0.99, 3), (last, 0.0, 5), (last, 0.49, 5), (last, 0.51, 4)):
        batch = crops.gather(torch.tensor([0]), torch.tensor([shift]), torch.tensor([chance]))
        assert torch.equal(batch.text_BC[0], crops.text[text]), (shift, chance)
        assert batch.has_text_B.tolist() == [True]


def test_a_crop_has_one_of_its_labels_beside_its_joined_text(store):
    crops, strings = loaded(store, "joined"), store.strings("texts")
    for chance in (0.0, 0.6, 0.99):
        batch = crops.gather(torch.tensor([0]), torch.tensor([0]), torch.tensor([chance]))
        text, label = (
            int((crops.text == vector).all(1).nonzero()[0]) for vector in (batch.text_BC[0], batch.label_BC[0])
        )
        assert strings[label] in strings[text].split(" and ")
        assert label != text


def test_a_crop_without_labels_has_no_text(store):
    crops = with_labelsets(loaded(store), [[], [5]])
    last = crops.labelset.shape[1] - 1
    batch = crops.gather(torch.tensor([0, 0]), torch.tensor([0, last]), torch.tensor([0.99, 0.99]))
    assert batch.has_text_B.tolist() == [False, True]


@pytest.mark.parametrize("target", ["joined", "label", "any"])
def test_targets_are_the_stores_strings(store, target):
    strings = store.strings("texts")
    flat, offset, count = text_choices(store, target)
    labels, categories = (
        [
            [strings[i] for i in flat_kind[a:b]]
            for flat_kind, ends in [(store.read(f"labelsets/{kind}"), store.read(f"labelsets/{kind}_offset"))]
            for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]
        for kind in ("labels", "categories")
    )
    for number, mine in enumerate(labels):
        chosen = [strings[i] for i in flat[offset[number] : offset[number] + count[number]]]
        if target == "joined":
            assert chosen == ([" and ".join(sorted(set(mine)))] if mine else [])
        if target == "label":
            assert chosen == mine
        if target == "any":
            assert chosen == mine + categories[number]
    assert any(categories)
    assert count.max() >= 1


def test_sampling_is_decided_by_the_generator(store):
    crops = loaded(store)
    items = torch.tensor([0, 1, 2] * 5) % len(crops)
    a, b, c = (crops.sample(items, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a.motion_BTRD, b.motion_BTRD)
    assert torch.equal(a.text_BC, b.text_BC)
    assert not torch.equal(a.motion_BTRD, c.motion_BTRD)


def test_float16_storage_is_half_as_large_and_close(store):
    whole, half = loaded(store), loaded(store, storage="float16")
    assert half.rot6d.nbytes * 2 == whole.rot6d.nbytes
    a, b = (each.middle(torch.arange(len(whole))).motion_BTRD for each in (whole, half))
    assert b.dtype == torch.float32
    torch.testing.assert_close(b, a, rtol=0, atol=5e-4)
    assert "rotations in float16" in half.told("float16")
    assert f"{half.bytes / 1e6:,.1f} MB" in half.told("float16")


def test_batches_know_whether_there_can_be_padding(store):
    crops = loaded(store)
    assert crops.padded == bool((crops.frames < crops.crop).any())
    assert crops.padded
    assert crops.middle(torch.tensor([0])).attended_BT is not None
    crops.padded = False
    assert crops.middle(torch.tensor([0])).attended_BT is None


def test_parts_of_a_batch_are_the_batch(store):
    batch = loaded(store).middle(torch.tensor([0, 1, 2, 0, 1]) % 3)
    parts = [batch.part(number, 2) for number in range(2)]
    assert torch.equal(torch.cat([part.motion_BTRD for part in parts]), batch.motion_BTRD)
    for term, count in batch.counts.items():
        assert sum(part.counts[term] for part in parts) == count
    assert batch.counts["velocity"] == batch.counts["rot6d"] - 5


def test_an_empty_split_is_named_with_what_there_is(store):
    with pytest.raises(StoreError, match=r"no window in split test; windows by split: \{'train': \d+.*prepare --split"):
        load_crops(store, split="test", encoder="offline", target="label", device=CPU)


def test_missing_vectors_are_named_with_the_command(store):
    with pytest.raises(StoreError, match=r"no vectors of encoder ViT-B-32_openai.*'offline'.*mclip embed"):
        load_crops(store, split="train", encoder="ViT-B-32_openai", target="label", device=CPU)


@pytest.mark.parametrize(("windows", "batch"), [(7, 3), (4, 4), (3, 8)])
def test_every_window_comes_once_a_pass(windows, batch):
    order = Order(torch.arange(windows), batch, seed=1, device=CPU)
    stream = torch.cat([order(step) for step in range(windows * 2)])
    assert [len(order(step)) for step in range(3)] == [batch] * 3
    passes = stream[: len(stream) // windows * windows].view(-1, windows)
    assert (passes.sort(1).values == torch.arange(windows)).all()
    assert len(passes.unique(dim=0)) > 1


def test_the_order_of_a_step_does_not_depend_on_the_steps_before():
    windows = torch.arange(7)
    walked, fresh, other = (Order(windows, 3, seed=seed, device=CPU) for seed in (1, 1, 2))
    seen = [walked(step) for step in range(20)]
    assert torch.equal(fresh(19), seen[19])
    assert torch.equal(fresh(4), seen[4])
    assert not torch.equal(torch.cat(seen), torch.cat([other(step) for step in range(20)]))


def test_long_windows_are_taken_more_often_where_that_is_asked(store):
    crops = replace(loaded(store), crop=10, frames=torch.tensor([5, 10, 34]))
    assert windows_of_a_pass(crops, 0.0).tolist() == [0, 1, 2]
    assert windows_of_a_pass(crops, 0.5).tolist() == [0, 1, *[2] * 5]
    assert windows_of_a_pass(crops, 1.0).tolist() == [0, 1, *[2] * 25]
    order = Order(windows_of_a_pass(crops, 0.5), 7, seed=1, device=CPU)
    assert order(0).bincount().tolist() == order(1).bincount().tolist() == [1, 1, 5]


@pytest.mark.parametrize("middle", [0.0, 0.4, 1.0])
def test_a_share_of_the_crops_are_the_middle_ones_and_the_others_lie_anywhere(store, middle):
    crops = loaded(store)
    longest = int(crops.frames.argmax())
    room = int(crops.frames[longest]) - crops.crop + 1
    # A motion of numbered frames, so that a crop tells where it begins.
    numbered = replace(
        crops, rot6d=torch.arange(len(crops.rot6d)).float()[:, None, None].expand(-1, 24, 6).contiguous()
    )
    drawn = numbered.sample(torch.full((4000,), longest), torch.Generator().manual_seed(0), middle=middle)
    shift_B = drawn.motion_BTRD[:, 0, 0, 0].long() - crops.row[longest]
    expected = torch.full((room,), (1 - middle) / room)
    expected[(room - 1) // 2] += middle
    assert room > 20
    torch.testing.assert_close(shift_B.bincount(minlength=room) / 4000, expected, rtol=0, atol=0.02)
    assert torch.equal(drawn.middle_B, shift_B == (room - 1) // 2)


@pytest.mark.parametrize("short", ["mask", "continue"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_motion_that_does_not_fit_is_mapped_from_a_file_and_is_the_same(store, tmp_path, short, storage):
    whole = loaded(store, short=short, storage=storage)
    mapped = loaded(store, short=short, storage=storage, room=1000, folder=tmp_path)
    assert mapped.mapped
    assert not whole.mapped
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    a, b = (each.sample(torch.arange(len(whole)), g) for each, g in zip((whole, mapped), generators, strict=True))
    for name, value in vars(a).items():
        assert torch.equal(value, getattr(b, name)) if isinstance(value, torch.Tensor) else value == getattr(b, name)
    assert list(tmp_path.iterdir()) == []  # the file has no name
    assert "of it memory-mapped on the host: more than is free" in mapped.told(storage)
    assert "memory-mapped" not in loaded(store, room=10**9, folder=tmp_path).told(storage)


def test_a_disk_without_room_for_the_motion_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no room for the [\d,.]+ GB of motion .*make room, .* --storage float16"):
        new_tensor((2**49, 24), "float32", tmp_path, CPU)
    assert list(tmp_path.iterdir()) == []


def test_only_the_frames_of_the_split_are_loaded():
    assert frames_of(np.array([5, 0]), np.array([2, 3]), 9).tolist() == [1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert frames_of(np.array([0, 2]), np.array([3, 3]), 6).tolist() == [1, 1, 1, 1, 1, 0]


def copied(store: Store, tmp_path: Path) -> Store:
    shutil.copytree(store.url, tmp_path / "copy.zarr")
    return open_store(tmp_path / "copy.zarr")


def test_a_number_that_is_none_is_named_with_its_sequence(store, tmp_path):
    broken = copied(store, tmp_path)
    row = int(broken.read("windows/row")[1]) + 3
    broken.array("motion/trans")[row, 2] = np.nan
    name = broken.strings("sequences/name")[int(broken.read("windows/sequence")[1])]
    with pytest.raises(StoreError, match=rf"motion/trans\[{row}\], of {name}, is not finite: `mclip validate`"):
        loaded(broken)


def test_a_vector_that_is_none_is_named(store, tmp_path):
    broken = copied(store, tmp_path)
    broken.array("embeddings/offline/text")[0, 0] = np.inf
    with pytest.raises(StoreError, match="a text vector of offline is not finite: run `mclip embed --replace`"):
        loaded(broken)
