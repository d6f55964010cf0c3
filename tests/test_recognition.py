"""Classes that name motions: hits, class means, confusion, and the samples of both protocols."""

import math

import numpy as np
import pytest
import torch

from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.clips import chunks
from mclip.training.data.crops import crops_of
from mclip.training.data.rows import rows_of_motion
from mclip.training.evaluate import recognition
from mclip.training.latent.space import encode
from mclip.training.measure.statistics import figures_of
from mclip.training.model.run import Run

AXES = np.eye(4)
NAMES = ["walk", "run", "sit", "fly"]
SEEN = AXES[[0, 0, 0, 1, 0]]  # four crops that look like walk, one like run
TRUE = [{"walk"}, {"walk", "sit"}, {"run"}, {"run"}, {"swim"}]


def test_any_true_class_of_a_crop_counts_and_classes_weigh_the_same() -> None:
    found = figures_of(recognition.recognition(SEEN, TRUE, AXES, NAMES))
    assert found["items"] == 4  # nobody asks for swim
    assert found["top1"] == 0.75
    assert found["top5"] == 1.0
    # walk 2 of 2, run 1 of 2, sit 0 of 1; nobody flies.
    assert found["top1_norm"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["chance"] == pytest.approx(5 / 16)
    assert recognition.recognition(SEEN[:1], [{"swim"}], AXES, NAMES) == {}


def test_recognition_is_what_a_loop_over_items_counts() -> None:
    generator = np.random.default_rng(0)
    z, classes = generator.normal(size=(50, 6)), generator.normal(size=(9, 6))
    names = [f"c{k}" for k in range(9)]
    true = [{names[k] for k in np.flatnonzero(generator.random(9) < 0.2)} for _ in range(50)]
    hits: dict[int, list[bool]] = {1: [], 5: []}
    by_class: dict[str, list[bool]] = {}
    for vector, mine in zip(z, true, strict=True):
        if not mine:
            continue
        cosine = [vector @ c / math.sqrt((vector @ vector) * (c @ c)) for c in classes]
        order = sorted(range(9), key=lambda k: -cosine[k])
        for k in hits:
            hits[k].append(bool(mine & {names[place] for place in order[:k]}))
        for name in mine:
            by_class.setdefault(name, []).append(names[order[0]] == name)
    found = figures_of(recognition.recognition(z, true, classes, names))
    assert found["top1"] == pytest.approx(np.mean(hits[1]))
    assert found["top5"] == pytest.approx(np.mean(hits[5]))
    assert found["top1_norm"] == pytest.approx(np.mean([np.mean(each) for each in by_class.values()]))
    counts = recognition.confusion(z, true, classes, names)
    assert [counts[k, k] for k in range(9)] == [sum(by_class.get(name, [])) for name in names]
    assert counts.sum(1).tolist() == [len(by_class.get(name, [])) for name in names]


def test_the_matrix_counts_true_classes_in_rows_and_the_nearest_in_columns() -> None:
    counts = recognition.confusion(SEEN, TRUE, AXES, NAMES)
    assert counts.tolist() == [[2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert recognition.confusion(SEEN, TRUE, AXES[:0], []).shape == (0, 0)


def test_random_crops_are_those_of_their_seed_with_the_classes_at_their_place(run: Run, store: Store) -> None:
    crops = crops_of(run, store, "train")
    z, categories = recognition.random_crops(run, store, crops, seed=3)
    again, _ = recognition.random_crops(run, store, crops, seed=3)
    assert np.array_equal(z, again)
    assert len(categories) == len(z) == len(crops)
    long = (crops.frames > crops.crop).numpy()
    if long.any():
        other, _ = recognition.random_crops(run, store, crops, seed=4)
        assert not np.allclose(z[long], other[long])
    batch = crops.middle(torch.arange(len(crops)))
    middle = run.model.encode(batch.motion_BTRD, batch.mask_BT).numpy()
    assert np.allclose(z[~long], middle[~long], atol=1e-4)  # a short window has one crop
    assert (~long).any()


@pytest.fixture
def labelled(tmp_path, write_amass) -> Store:  # type: ignore[no-untyped-def]
    """A sequence of 13 s: 12 s of walking and waving, 2 s of running that begin in it, and a label without a class."""
    write_amass(tmp_path / "AMASS/CMU/01/01_01_poses.npz", 390, 30.0)
    spans = (
        Span("walks and waves", 0.0, 12.0, ("walk", "wave")),
        Span("runs", 11.0, 13.0, ("run",)),
        Span("nothing", 0.0, 6.0),
    )
    store = open_store(tmp_path / "s.zarr", create=True)
    labels = Labels({"CMU/01/01_01": spans}, {"CMU/01/01_01": "val"})
    prepare(tmp_path / "AMASS", store, labels=labels, options=PrepareOptions())
    return store


def test_spans_are_cut_into_chunks_of_five_seconds_and_a_rest(labelled: Store) -> None:
    found = [(at.start, at.stop, classes) for at, classes in recognition.chunks_of_spans(labelled, "val")]
    both = {"walk", "wave"}
    assert found == [
        (0, 150, both), (150, 300, both), (300, 360, both), (330, 390, {"run"}),
        (0, 150, set()), (150, 180, set()),
    ]  # fmt: skip
    assert list(recognition.chunks_of_spans(labelled, "train")) == []


def test_a_chunk_is_a_sample_for_each_of_its_classes_by_the_mean_of_its_crops(run: Run, labelled: Store) -> None:
    z, true = recognition.babel_chunks(run, labelled, "val", ["walk", "wave", "run"])
    assert true == [{"walk"}, {"wave"}] * 3 + [{"run"}]
    assert np.array_equal(z[0], z[1])
    assert not np.allclose(z[0], z[2])
    rot6d, trans = (torch.from_numpy(labelled.read(f"motion/{name}")) for name in ("rot6d", "trans"))
    rows = rows_of_motion(rot6d, trans)
    crops = [encode(run, rows[a:b]) for a, b in chunks(150, run.crop)]
    assert len(crops) == 3
    mean = torch.stack([each / each.norm() for each in crops]).mean(0)
    assert np.allclose(z[0], mean.numpy(), atol=1e-5)
    z, true = recognition.babel_chunks(run, labelled, "val", ["swim", "fly"])
    assert (z.shape, true) == ((0, run.model.config.latent), [])
