"""The nearest of a store and the nearest of classes: against the slow way, and on vectors whose answer is known."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from mclip.cli import cli
from mclip.pipeline.embed.classes import classes_of
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.lock import one_writer
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import validate
from mclip.training.data import clips
from mclip.training.data.clips import chunks
from mclip.training.data.crops import load_crops
from mclip.training.latent import search
from mclip.training.latent.recognise import recognise
from mclip.training.latent.space import encode, motion_rows, motion_vector
from mclip.training.model.run import Run

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def test_the_best_window_of_each_sequence_is_found_as_the_slow_way_finds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    unit = F.normalize(torch.randn(40, 8, generator=generator), dim=1)
    first = np.array([0, 3, 4, 20, 33])
    query = torch.randn(8, generator=generator)
    windows, scores = search.Index(unit, first).best(query, 3)
    slow = []
    for start, stop in zip(first, [*first[1:], 40], strict=True):
        cosines = [float(F.cosine_similarity(unit[w], query, dim=0)) for w in range(start, stop)]
        slow.append((max(cosines), start + int(np.argmax(cosines))))
    slow.sort(reverse=True)
    assert windows.tolist() == [window for _, window in slow[:3]]
    assert scores == pytest.approx([score for score, _ in slow[:3]], abs=1e-6)
    assert len(search.Index(unit, first).best(query, 99)[0]) == 5


def test_a_stores_vectors_are_those_of_the_trainers_middle_crops(run: Run, store: Store) -> None:
    crops = load_crops(store, split="train", encoder="offline", target="joined", device=torch.device("cpu"))
    assert len(crops) == len(store.read("windows/row"))
    batch = crops.middle(torch.arange(len(crops)))
    with torch.inference_mode():
        wanted = run.model.encode(batch.motion_BTRD, batch.mask_BT)
    found = np.concatenate(list(search.encoded(run, store)))
    assert np.allclose(found, wanted.numpy(), atol=1e-4)
    assert crops.frames.min() < crops.crop  # or padding was never tried


def test_vectors_are_kept_in_the_store_for_a_run_and_made_again_for_other_windows(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = search.latents_of(run, store)
    path = f"latents/{run.fingerprint}/z"
    assert np.array_equal(store.read(path), made)
    assert validate(store) == []
    monkeypatch.setattr(search, "encoded", None)  # would fail if it were called
    assert np.array_equal(search.latents_of(run, store), made)
    monkeypatch.setattr(search, "encoded", lambda *_: iter([made + 1]))
    monkeypatch.setattr(Store, "fingerprint", lambda _: "other windows")
    assert np.array_equal(search.latents_of(run, store), made + 1)
    store.forget("latents", "latents")


def test_kept_vectors_that_are_damaged_are_made_again(run: Run, store: Store, tmp_path: Path) -> None:
    own = open_store(shutil.copytree(store.url, tmp_path / "own.zarr"))
    whole = search.latents_of(run, own)
    for chunk in (tmp_path / f"own.zarr/latents/{run.fingerprint}/z/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(StoreError):
        own.read(f"latents/{run.fingerprint}/z")
    np.testing.assert_array_equal(search.latents_of(run, own), whole)
    np.testing.assert_array_equal(own.read(f"latents/{run.fingerprint}/z"), whole)


def test_a_store_that_somebody_is_writing_is_searched_without_keeping(
    run: Run, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with one_writer(store.url):
        found = search.search(run, store, "store:kick", top=1)
    assert "/kick/" in f"/{found[0].clip}"
    assert "latents" not in store
    assert re.search(r"vectors are not kept in .*process \d+ on ", capsys.readouterr().err)


def test_what_a_search_reads_of_a_store_is_kept_until_the_store_grows(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = open_store(shutil.copytree(store.url, tmp_path / "own.zarr"))
    query_C = motion_vector(run, MOTIONS / "EMBEDDED/jump/jump_poses.npz")
    searcher, reads, read = search.Searcher(run, held), list[str](), Store.read
    before = searcher.nearest(query_C, top=9)  # the first has kept vectors in the store, and changed it so
    monkeypatch.setattr(Store, "read", lambda self, path, *at: (reads.append(path), read(self, path, *at))[1])
    assert searcher.nearest(query_C, top=9) == before
    assert reads == []
    labels = read_labels((MOTIONS / "babel",), None)
    prepare(MOTIONS, open_store(held.url), labels=labels, options=PrepareOptions(), only=("/jump/",))
    after = searcher.nearest(query_C, top=9)
    assert [hit.clip for hit in before] == [hit.clip for hit in after[1:]]
    assert (after[0].clip, after[0].score > 0.999) == ("EMBEDDED/jump/jump_poses.npz", True)
    assert len(reads) > 0
    assert held.attributes("prepare")["sequences"] == 4


def test_a_store_that_is_being_prepared_is_searched_as_it_was(run: Run, store: Store, tmp_path: Path) -> None:
    own = open_store(shutil.copytree(store.url, tmp_path / "own.zarr"))
    searcher = search.Searcher(run, own)
    before = searcher.nearest(searcher.index.unit_WC[0], top=1)
    writer = open_store(own.url)
    writer.set_attributes("prepare", indexed=False)
    writer.write("windows/sequence", np.zeros(0, np.int64))
    assert searcher.nearest(searcher.index.unit_WC[0], top=1) == before


def test_a_search_leaves_alone_what_others_wrote_to_the_store_meanwhile(run: Run, store: Store, tmp_path: Path) -> None:
    held = open_store(shutil.copytree(store.url, tmp_path / "own.zarr"))
    open_store(held.url).set_attributes("embed", since="then")
    search.latents_of(run, held)
    kept = open_store(held.url)
    assert kept.attributes("embed")["since"] == "then"
    assert run.fingerprint in kept.attributes("latents")


def test_a_store_that_went_away_is_named(run: Run, store: Store, tmp_path: Path) -> None:
    own = open_store(shutil.copytree(store.url, tmp_path / "own.zarr"))
    searcher = search.Searcher(run, own)
    shutil.rmtree(own.url)
    with pytest.raises(StoreError, match=r"own\.zarr: no store here"):
        searcher.nearest(searcher.index.unit_WC[0], top=1)


def test_a_clip_finds_itself_first_and_says_where_it_is(run: Run, store: Store) -> None:
    for name in ("walk", "kick", "getup_facedown"):
        best = search.search(run, store, f"store:{name}", top=2)[0]
        assert f"/{name}/" in f"/{best.clip}"
        assert best.score > 0.999
        frames = int(store.read("windows/frames")[best.window])
        assert best.from_s == pytest.approx(max(frames - 60, 0) // 2 / 30)  # each clip is one window
        assert best.to_s == pytest.approx(best.from_s + min(frames, 60) / 30)
        assert best.text


def test_a_hit_is_the_seconds_that_were_compared_and_says_what_they_show(run: Run, long_store: Store) -> None:
    """Windows 0 to 6 of `long_store`; each is asked for by its own vector, so it is its sequence's best."""
    searcher = search.Searcher(run, long_store)
    index = searcher.index
    middles = [
        (20, 80, "walk"),
        (120, 180, "Kick [left] and walk"),
        (200, 260, "Kick [left]"),
        (10, 70, "walk"),
        (0, 15, "hop"),
        (20, 80, ""),
    ]
    for window, (first, last, text) in enumerate(middles):
        hit = searcher.nearest(index.unit_WC[window], top=1)[0]
        assert hit.score > 0.999
        assert (hit.window, hit.text) == (window, text)
        assert (hit.from_s, hit.to_s) == (pytest.approx(first / 30), pytest.approx(last / 30))
    assert len(index.unit_WC) == len(middles)


def test_the_frames_of_a_hit_are_those_that_its_vector_was_made_of(run: Run, long_store: Store) -> None:
    index = search.index_of(run, long_store)
    for window, unit_C in enumerate(index.unit_WC):
        rows = clips.middle_rows(long_store, window)
        assert torch.allclose(F.normalize(encode(run, rows), dim=0), unit_C, atol=1e-4)


def test_a_store_of_another_frame_rate_is_refused(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.config["data"], "fps", 20)
    with pytest.raises(StoreError, match="30 fps, but .* was trained at 20: prepare it so"):
        next(search.encoded(run, store))


@pytest.mark.parametrize(
    ("frames", "pieces"),
    [(7, [(0, 7)]), (60, [(0, 60)]), (89, [(0, 60)]), (90, [(0, 60), (60, 90)]), (130, [(0, 60), (60, 120)])],
)
def test_a_motion_is_cut_into_whole_pieces(frames: int, pieces: list[tuple[int, int]]) -> None:
    assert chunks(frames, 60) == pieces


def test_a_motion_is_what_its_vector_is_nearest_to(run: Run) -> None:
    run = replace(run, z_NC=None)  # its training z are all of one direction: nothing is left of them when centred
    z = motion_vector(run, WALK)
    rows = motion_rows(run, WALK)
    start = chunks(len(rows), run.crop)[0]
    first = encode(run, rows[start[0] : start[1]])
    away = z.flip(0)
    seen = recognise(run, WALK, torch.stack([away, first, -first]), ["other", "this", "opposite"], top=2)
    assert seen[0].classes[0] == ("this", pytest.approx(1.0, abs=1e-5))
    assert seen[0].classes[1][0] == "other"
    assert seen[0].to_s == pytest.approx((start[1] - start[0]) / 30)


def test_classes_come_from_babel_or_a_file(tmp_path: Path) -> None:
    babel = classes_of("babel60")
    assert len(set(babel)) == 60
    assert (babel[0], babel[22], babel[59]) == ("walk", "bend", "martial art")
    (tmp_path / "a.txt").write_text("walk # slowly\n\n# none\nrun\nwalk\n", encoding="utf-8")
    assert classes_of(str(tmp_path / "a.txt")) == ["walk", "run"]
    (tmp_path / "a.json").write_text('{"run": 1, "walk": 0}')
    assert classes_of(str(tmp_path / "a.json")) == ["walk", "run"]


def test_the_further_classes_of_babel_come_from_its_own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"babel120: neither action_label_2_idx.json nor BABEL/action_label_2_idx"):
        classes_of("babel120")
    (tmp_path / "BABEL").mkdir()
    names = {f"class {number}": number for number in reversed(range(252))}
    (tmp_path / "BABEL/action_label_2_idx.json").write_text(json.dumps(names))
    assert classes_of("babel120") == [f"class {number}" for number in range(120)]
    assert len(classes_of("BABEL/action_label_2_idx.json")) == 252


@pytest.mark.parametrize(
    ("content", "told"),
    [("[1, 2]", "no object of names"), ('{"walk": "a"}', "no object of names"), ("{", "cannot be read as JSON")],
)
def test_a_json_that_is_no_list_of_classes_is_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json: {told}"):
        classes_of(str(tmp_path / "a.json"))


def test_an_unknown_class_file_and_one_without_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--classes babel600: no such file; expected babel60, babel120"):
        classes_of("babel600")
    (tmp_path / "a.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"a\.txt: 0 classes, expected at least two"):
        classes_of(str(tmp_path / "a.txt"))


def test_the_commands_answer_in_tables_and_json(run: Run, store: Store, encoder: Encoder) -> None:
    words = ["search", str(run.folder), "store:kick", "--store", store.url, "--top", "2"]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "what it shows" in told.output
    found = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert len(found["hits"]) == 2
    assert "/kick/" in f"/{found['hits'][0]['clip']}"
    words = ["recognise", str(run.folder), str(WALK), "--top", "3"]
    seen = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)[str(WALK)]
    assert [len(piece["classes"]) for piece in seen] == [3] * len(seen)
    assert CliRunner().invoke(cli, words).output.count("to") >= len(seen)
