"""The text of a crop by the rule of the paper's release, against a twin that walks over frames as its code does."""

from dataclasses import replace

import numpy as np
import pytest

from mclip.pipeline.labels.crop_texts import in_order
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.spans import LabelRules, Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.store import Store, open_store

RELEASE = LabelRules(join="release")


def twin(
    spans: list[tuple[str, float, float]], whole: list[str], frames: int, seconds: float, stride: int
) -> list[str]:
    """Text of each of the store's frames, from the description of the release's parser in the paper's notes."""
    rate = frames / seconds
    each = ["and ".join(whole)] * frames if whole else [""] * frames
    for text, start, end in spans:
        for frame in range(min(round(start * rate), frames), min(round(end * rate), frames)):
            each[frame] = text
    return each[::stride]


def texts_of_crops(store: Store) -> list[list[str]]:
    """Text of every crop of every window; None is no label."""
    texts, text = store.strings("texts"), store.read("labelsets/text")
    return [[texts[text[n]] if text[n] >= 0 else "?" for n in row] for row in store.read("windows/labelset")]


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("clock", [(4.0, 120.0, 4), (4.01, 100.0, 3), (3.99, 60.0, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_every_crop_has_the_releases_text_to_the_letter(tmp_path, write_amass, seed, clock, is_whole):
    chance = np.random.default_rng(seed)
    names = chance.choice(["walk", "turn ", "wave", "sit"], 1 + seed * 2).tolist()
    drawn = [(text, int(chance.integers(39)), int(chance.integers(1, 21))) for text in names]
    seconds, fps, stride = clock
    frames, folder = round(4.0 * fps), tmp_path
    timed = [] if is_whole else [(text, start / 10, (start + length) / 10) for text, start, length in drawn]
    whole = [text for text, *_ in drawn] if is_whole else []
    write_amass(folder / "A/CMU/01/01_01_poses.npz", frames, fps)
    spans = [Span(text.strip(), start, end, written=text) for text, start, end in timed]
    spans += [Span(text.strip(), written=text) for text in whole]
    labels = Labels({"CMU/01/01_01": tuple(spans)}, seconds={"CMU/01/01_01": seconds}, rules=RELEASE)
    store = open_store(str(folder / "s.zarr"), create=True)
    prepare(folder / "A", store, labels=labels, options=PrepareOptions(resample="stride", short="drop"))
    each = twin(timed, whole, frames, seconds, stride)
    expected = [" and ".join(np.unique(np.array(each[shift : shift + 60], object).astype(str))) for shift in range(41)]
    assert texts_of_crops(store) == [expected]


def test_the_better_rule_is_another(tmp_path, write_amass):
    write_amass(tmp_path / "A/CMU/01/01_01_poses.npz", 120, 30.0)
    spans = (Span("walk"), Span("turn"))
    for join, expected in (("release", "walkand turn"), ("distinct", "turn and walk")):
        store = open_store(str(tmp_path / f"{join}.zarr"), create=True)
        labels = Labels({"CMU/01/01_01": spans}, rules=LabelRules(join=join))
        prepare(tmp_path / "A", store, labels=labels, options=PrepareOptions())
        assert set(texts_of_crops(store)[0]) == {expected}


def test_labels_in_the_order_of_time_are_joined_so(tmp_path, write_amass):
    write_amass(tmp_path / "A/CMU/01/01_01_poses.npz", 100, 30.0)
    walk, bow = Span("walk", 0.0, 1.5), Span("bow", 1.5, 3.4)
    spans = (bow, walk, Span("a person"), Span("walk", 3.0, 3.4))
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    labels = Labels({"CMU/01/01_01": spans}, rules=LabelRules(join="ordered"))
    prepare(tmp_path / "A", store, labels=labels, options=PrepareOptions())
    # The first crop ends at 2 s; the last begins at 1.33 s, and the end of the first walk is in it.
    assert texts_of_crops(store)[0][0] == texts_of_crops(store)[0][-1] == "a person and walk, then bow"
    assert in_order((bow, replace(walk, start=2.0))) == "bow, then walk"


def test_sequences_without_a_label_get_no_windows_when_asked(tmp_path, amass_folder):
    labels = Labels({"CMU/01/01_01": (Span("walk"),)}, rules=LabelRules(unlabelled="drop"))
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    prepare(amass_folder, store, labels=labels, options=PrepareOptions())
    assert set(store.read("windows/sequence").tolist()) == {0}


# --- clocks


@pytest.mark.parametrize(("trust", "expected"), [("length", {"whole"}), ("labels", {"whole", "late"})])
def test_labels_of_another_length_are_told_and_left_out_or_stretched(tmp_path, write_amass, trust, expected):
    write_amass(tmp_path / "A/CMU/01/01_01_poses.npz", 480, 120.0)  # 4 s; its labels were made on 8
    spans = (Span("whole"), Span("late", 6.0, 8.0))
    labels = Labels({"CMU/01/01_01": spans}, seconds={"CMU/01/01_01": 8.0}, rules=LabelRules(trust=trust))
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    prepare(tmp_path / "A", store, labels=labels, options=PrepareOptions())
    texts = store.strings("texts")
    assert {texts[number] for number in store.read("spans/text")} == expected
    told = store.attributes("prepare")
    assert told["other_length_told"] == ["CMU/01/01_01 lasts 4.00 s, its labels say 8.00 s"]
    if trust == "labels":
        assert store.read("spans/start").tolist() == [0.0, 3.0]
    else:
        assert told["labels_passed_over"]["label with times on a motion of another length"] == 1


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(59.9999885559082, (5.0, 8.0)), (60.0, (7.5, 12.0)), (120.0, (7.5, 12.0)), (250.0, (7.2, 11.52))],
)
def test_humanml3d_frames_are_every_nth_of_the_source(tmp_path, write_amass, fps, expected):
    # Its raw_pose_processing takes poses[::int(fps / 20)]; frames 150 and 240 of those, in seconds of the source.
    write_amass(tmp_path / "A/KIT/3/walk_poses.npz", int(15 * fps), fps)
    (tmp_path / "H/texts").mkdir(parents=True)
    (tmp_path / "H/index.csv").write_text(
        "source_path,start_frame,end_frame,new_name\n./pose_data/KIT/3/walk_poses.npy,150,240,000001.npy\n"
    )
    (tmp_path / "H/texts/000001.txt").write_text("a person walks#a/DET#0.0#0.0\n")
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    prepare(tmp_path / "A", store, labels=read_labels([tmp_path / "H"]), options=PrepareOptions())
    assert (store.read("spans/start")[0], store.read("spans/end")[0]) == pytest.approx(expected, abs=1e-4)


def test_spans_are_kept_whatever_the_windows_are(tmp_path, write_amass):
    write_amass(tmp_path / "A/CMU/01/01_01_poses.npz", 150, 30.0)
    write_amass(tmp_path / "A/CMU/01/01_02_poses.npz", 30, 30.0)
    spans = {
        "CMU/01/01_01": (Span("in the tail", 4.0, 5.0), Span("beyond", 9.0, 10.0)),
        "CMU/01/01_02": (Span("short"),),
    }
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    prepare(tmp_path / "A", store, labels=Labels(spans), options=PrepareOptions(short="drop"))
    texts = store.strings("texts")
    assert [texts[number] for number in store.read("spans/text")] == ["in the tail", "short"]
    assert store.attributes("prepare")["labels_passed_over"] == {"label beyond the end of its motion": 1}
