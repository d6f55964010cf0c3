"""Classes that name motions: hits, class means, confusion, and the samples of both protocols."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import RECIPES
from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.clips import chunks
from mclip.training.data.crops import crops_of
from mclip.training.data.rows import rows_of_motion
from mclip.training.evaluate import recognition
from mclip.training.latent.space import encode
from mclip.training.measure.metrics import average_precisions
from mclip.training.measure.statistics import figures_of
from mclip.training.model.run import Run
from mclip.training.recipe import arguments, read_recipe

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


def test_average_precision_counts_every_item_of_a_class_and_equal_scores_help_nobody() -> None:
    score = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.5, 0.3], [0.1, 0.5, 0.4]])
    true = np.array([[True, True, False], [False, False, False], [True, False, False], [False, False, False]])
    # The first class has its items in the places 1 and 3; the second one's scores are equal: it is last of four.
    assert average_precisions(score, true).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 4])


def test_a_linear_probe_learns_what_no_name_tells_and_still_vectors_teach_it_nothing() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(4, 12))
    kinds = generator.integers(4, size=400)
    z = centres[kinds] + 0.3 * generator.normal(size=(400, 12))
    true = [{NAMES[kind]} for kind in kinds]
    learnt = recognition.linear_probe(z[:300], true[:300], NAMES)
    found = figures_of(recognition.recognition_by(learnt(z[300:]), NAMES, true[300:]))
    assert found["top1"] > 0.97
    assert found["mAP"] > 0.97
    same = recognition.linear_probe(np.ones((300, 12)), true[:300], NAMES)
    # One answer for all: that of the commonest class, and no better precision than how common each is.
    still = figures_of(recognition.recognition_by(same(np.ones((100, 12))), NAMES, true[300:]))
    assert still["top1"] < 0.4
    assert still["mAP"] < 0.3


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
    assert found == [(0, 150, both), (150, 300, both), (300, 360, both), (330, 390, {"run"})]
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


def babels_samples(
    labels: list[tuple[float, float, list[str]]], frames: int, seconds: float
) -> list[tuple[int, int, str]]:
    """Samples (frames, class) at 30 fps as BABEL's create_dataset.py counts them, by a loop over frames."""
    said: dict[int, list[str]] = {frame: [] for frame in range(frames)}
    for frame in range(int(30.0 * seconds)):
        for start, end, names in labels:
            if start <= frame / 30.0 < end:
                said.setdefault(frame, []).extend(names)
    samples = []
    for start, end, names in labels:
        first, last = int(30.0 * start), min(int(30.0 * end), frames)
        for chunk in range(math.ceil(max(last - first, 0) / 150)):
            a, b = first + 150 * chunk, min(first + 150 * (chunk + 1), last)
            if names and names[0] in [name for frame in range(a, b) for name in said[frame]]:
                samples += [(a, b, name) for name in names]
    return samples


@pytest.mark.parametrize("short", ["pad", "drop"])
@pytest.mark.parametrize("seed", range(4))
def test_samples_are_babels_own_whatever_the_windows_are(  # type: ignore[no-untyped-def]
    tmp_path: Path, write_amass, seed: int, short: str
) -> None:
    chance = np.random.default_rng(seed)
    spans, expected = {}, []
    for number, frames in enumerate((20, 80, 390, 455)):
        write_amass(tmp_path / f"AMASS/CMU/01/01_0{number}_poses.npz", frames * 4, 120.0)
        drawn = [
            (float(a), float(a + b), str(name))
            for a, b, name in zip(
                chance.uniform(0, frames / 30, 6),
                chance.uniform(0.01, 7, 6),
                chance.choice(list("abc"), 6),
                strict=True,
            )
        ]
        labels = [(a, b, [name] if b > 1 else [name, "d"]) for a, b, name in drawn]
        spans[f"CMU/01/01_0{number}"] = tuple(Span("x", a, b, tuple(names)) for a, b, names in labels)
        expected += [(number, *sample) for sample in babels_samples(labels, frames, frames / 30)]
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    made = Labels(spans, dict.fromkeys(spans, "val"))
    prepare(tmp_path / "AMASS", store, labels=made, options=PrepareOptions(short=short))
    row = store.read("sequences/row").tolist()
    found = []
    for at, names in recognition.chunks_of_spans(store, "val"):
        number = max(item for item, first in enumerate(row) if first <= at.start)
        found += [(number, at.start - row[number], at.stop - row[number], name) for name in names]
    assert sorted(found) == sorted(expected)


def babel_entry(number: int, seconds: float, labels: list[tuple[float, float, list[str]]]) -> dict[str, Any]:
    """An entry as BABEL's val.json has it: labels with times, or of the whole where there is one."""
    texts: list[dict[str, Any]] = [{"raw_label": "x", "proc_label": "x", "act_cat": names} for _, _, names in labels]
    timed = [{"start_t": a, "end_t": b} | text for (a, b, _), text in zip(labels, texts, strict=True)]
    whole = len(labels) == 1
    found = {"seq_ann": {"labels": texts} if whole else None, "frame_ann": None if whole else {"labels": timed}}
    return {"feat_p": f"CMU/CMU/01/01_0{number}_poses.npz", "dur": seconds} | found


def test_the_recognition_recipe_keeps_every_sample_of_babels_own(
    tmp_path: Path, write_amass: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, entries, expected = np.random.default_rng(0), {}, 0
    for number, frames in enumerate((20, 59, 99, 110, 390, 455)):
        write_amass(tmp_path / f"AMASS/CMU/01/01_0{number}_poses.npz", frames * 4, 120.0)
        starts, lengths = chance.uniform(0, frames / 30, (2, 5))
        labels = [(float(a), float(a + b), [name]) for a, b, name in zip(starts, lengths, "abcde", strict=True)]
        labels = labels if number % 2 else [(0.0, frames / 30, ["walk", "wave"])]
        entries[str(number)] = babel_entry(number, frames / 30, labels)
        expected += len(babels_samples(labels, frames, frames / 30))
    (tmp_path / "BABEL").mkdir()
    (tmp_path / "BABEL/val.json").write_text(json.dumps(entries))
    monkeypatch.chdir(tmp_path)
    recipe = RECIPES / "babel60.toml"
    told = CliRunner().invoke(cli, arguments(cli, "prepare", read_recipe(recipe)["prepare"], recipe))
    assert told.exit_code == 0, told.output
    store = open_store("store.zarr")
    assert set(store.read("windows/sequence").tolist()) == {3, 4, 5}  # the recipe drops what is shorter than a window
    assert sum(len(names) for _, names in recognition.chunks_of_spans(store, "val")) == expected
