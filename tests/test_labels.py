"""Label files, splits, and the text of a crop against a naive frame-by-frame twin."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.labels.babel import read_babel
from mclip.pipeline.labels.crops import crop_members, joined
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.matching import split_of
from mclip.pipeline.labels.mirror import mirrored
from mclip.pipeline.labels.names import DATASET_ALIASES, sequence_key
from mclip.pipeline.labels.spans import LabelError, Labels, Span
from mclip.pipeline.labels.tables import read_split


def babel_entry(path: str, *, frame=None, sequence=None) -> dict:
    annotation = {
        name: None if labels is None else {"labels": labels}
        for name, labels in (("frame_ann", frame), ("seq_ann", sequence))
    }
    return {"babel_sid": 1, "feat_p": f"{path.split('/')[0]}/{path}", "dur": 10.0, **annotation}


def write_babel(folder: Path, **splits: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    for split, entries in splits.items():
        (folder / f"{split}.json").write_text(json.dumps({str(i): entry for i, entry in enumerate(entries)}))
    return folder


def test_babel_60_has_sixty_names_in_its_order():
    assert len(set(BABEL_60)) == 60
    assert (BABEL_60[0], BABEL_60[3], BABEL_60[31], BABEL_60[59]) == ("walk", "turn", "kick", "martial art")


def test_frame_labels_go_before_sequence_labels_and_overlapping_ones_are_all_kept(tmp_path):
    both = babel_entry(
        "CMU/01/01_01_poses.npz",
        frame=[
            {"raw_label": "walk", "act_cat": ["walk"], "start_t": 0.0, "end_t": 2.0},
            {"raw_label": "wave ", "act_cat": None, "start_t": 1.0, "end_t": 3.5},
        ],
        sequence=[{"raw_label": "whole", "act_cat": ["x"]}],
    )
    only = babel_entry("CMU/01/01_02_poses.npz", sequence=[{"raw_label": "sit", "act_cat": ["sit", "rest"]}])
    labels = read_babel(write_babel(tmp_path, train=[both], val=[only]))
    assert labels.spans["CMU/01/01_01"] == (Span("walk", 0.0, 2.0, ("walk",)), Span("wave", 1.0, 3.5))
    assert labels.spans["CMU/01/01_02"] == (Span("sit", 0.0, math.inf, ("sit", "rest")),)
    assert labels.split == {"CMU/01/01_01": "train", "CMU/01/01_02": "val"}


def test_labels_that_end_before_they_start_are_passed_over_and_counted(tmp_path):
    wrong = [{"raw_label": "a", "act_cat": None, "start_t": 3.0, "end_t": 1.0},
             {"raw_label": "b", "act_cat": None, "start_t": -1.0, "end_t": 1.0},
             {"raw_label": "c", "act_cat": None, "start_t": 1.0, "end_t": 2.0}]  # fmt: skip
    labels = read_babel(write_babel(tmp_path, train=[babel_entry("A/b.npz", frame=wrong), {"nonsense": 1}]))
    assert [span.text for span in labels.spans["A/b"]] == ["c"]
    assert labels.passed_over["label from 3.0 to 1.0 s"] == 1
    assert labels.passed_over["label from -1.0 to 1.0 s"] == 1
    assert sum(labels.passed_over.values()) == 3  # and the entry that is none


def test_extra_files_do_not_replace_the_first_opinion(tmp_path):
    first = babel_entry("A/b.npz", sequence=[{"raw_label": "first", "act_cat": None}])
    second = babel_entry("A/b.npz", sequence=[{"raw_label": "second", "act_cat": None}])
    labels = read_babel(write_babel(tmp_path, extra_train=[second], train=[first]))
    assert [span.text for span in labels.spans["A/b"]] == ["first"]


def test_an_id_that_stands_twice_is_refused_by_name(tmp_path):
    (tmp_path / "train.json").write_text('{"7": {"babel_sid": 7}, "8": {}, "7": {"babel_sid": 7}}')
    with pytest.raises(LabelError, match=r"train.json: cannot be read as JSON \('7' stands there twice\)"):
        read_babel(tmp_path)


def test_a_second_entry_of_a_sequence_is_passed_over_and_counted(tmp_path):
    one, two = (babel_entry("A/b.npz", sequence=[{"raw_label": text, "act_cat": None}]) for text in ("one", "two"))
    labels = read_babel(write_babel(tmp_path, train=[one, two]))
    assert [span.text for span in labels.spans["A/b"]] == ["one"]
    assert dict(labels.passed_over) == {"train.json: a second entry of the same sequence": 1}


def test_rows_of_one_path_are_all_kept_but_may_not_disagree_on_its_split(tmp_path):
    (tmp_path / "own.csv").write_text("path,text,split\nA/b,walks,val\nA/b_poses.npz,walks,val\nA/b,sits,\n")
    labels = read_labels([tmp_path / "own.csv"])
    assert [span.text for span in labels.spans["A/b"]] == ["walks", "walks", "sits"]
    assert joined(span.text for span in labels.spans["A/b"]) == "sits and walks"
    for name, text in (
        ("own.csv", "path,text,split\nA/b,x,val\nA/b,y,test\n"),
        ("s.csv", "path,split\nA/b,val\nA/b,test\n"),
    ):
        (tmp_path / name).write_text(text)
    expected = "line 3: A/b is in test, and in val further up; a sequence has one split"
    with pytest.raises(LabelError, match=f"own.csv: {expected}"):
        read_labels([tmp_path / "own.csv"])
    with pytest.raises(LabelError, match=f"s.csv: {expected}"):
        read_split(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("start", "end", "crops"),
    [(3.0, 1e9, [False, True, True]), (3.0, 1e308, [False, True, True]), (0.0, 1e308, [True, True, True]),
     (1e9, 2e9, [False] * 3), (1e300, 1e308, [False] * 3), (4.0, 5.0, [False] * 3)],
)  # fmt: skip
def test_spans_beyond_the_clip_hold_for_what_there_is_of_it(start, end, crops):
    members = crop_members([Span("x", start, end)], first_frame=0, shifts=61, crop=60, frames=120, fps=30.0)
    assert members[[30, 31, 60], 0].tolist() == crops


def test_megabyte_strings_are_cut(tmp_path):
    huge = babel_entry("A/b.npz", sequence=[{"raw_label": "x" * (1 << 20), "act_cat": None}])
    assert len(read_babel(write_babel(tmp_path, train=[huge])).spans["A/b"][0].text) == 1000


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "train.json: cannot be read as JSON"), ("[]", "a JSON list, expected BABEL's object"), ("\xff", "JSON")],
)
def test_broken_json_is_refused_by_name(tmp_path, content, expected):
    (tmp_path / "train.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(LabelError, match=expected):
        read_babel(tmp_path)


def test_a_sequence_in_two_splits_is_refused(tmp_path):
    entry = babel_entry("A/b.npz", sequence=[])
    write_babel(tmp_path, train=[entry], val=[entry])
    with pytest.raises(LabelError, match="A/b is in train.json too; a sequence has one split"):
        read_babel(tmp_path)


def test_no_labels_at_a_path_are_refused_by_name(tmp_path):
    with pytest.raises(LabelError, match="gone: no such file or folder; expected BABEL's"):
        read_labels([tmp_path / "gone"])
    with pytest.raises(LabelError, match="no train.json, val.json or test.json"):
        read_labels([tmp_path])


def test_humanml3d_times_are_frames_at_20_fps_after_what_it_trims(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "index.csv").write_text(
        "source_path,start_frame,end_frame,new_name\n"
        "./pose_data/KIT/3/kick_poses.npy,20,100,000001.npy\n"
        "./pose_data/Eyes_Japan_Dataset/a/b_poses.npy,0,40,000002.npy\n"
        "./pose_data/KIT/3/gone_poses.npy,0,40,000003.npy\n"
    )
    (tmp_path / "texts/000001.txt").write_text(
        "a person kicks#a/DET person/NOUN#0.0#0.0\nhe kicks high#x#1.5#2.0\nbad line\n"
    )
    (tmp_path / "texts/000002.txt").write_text("stands#stand/VERB#nan#nan\n")
    labels = read_labels([tmp_path])
    assert labels.spans["KIT/3/kick"] == (
        Span("a person kicks", 1.0, 5.0, source="humanml3d", rate=20.0),
        Span("he kicks high", 2.5, 3.0, source="humanml3d", rate=20.0),
    )
    assert labels.spans["EyesJapanDataset/a/b"] == (Span("stands", 3.0, 5.0, source="humanml3d", rate=20.0),)
    assert dict(labels.passed_over) == {
        "HumanML3D clip without a text file": 1,
        "HumanML3D line not of the form text#tokens#from#to": 1,
    }


def test_own_table_as_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "own.csv").write_text(
        'path,start,end,text,category,split\nA/b_poses.npz,0.5,2,"walks, slowly",walk|step,test\n'
        "A/c.bvh,,,all of it,,\n"
    )
    rows = [
        {
            "path": "A/b_poses.npz",
            "start": 0.5,
            "end": 2,
            "text": "walks, slowly",
            "category": "walk|step",
            "split": "test",
        },
        {"path": "A/c.bvh", "text": "all of it"},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    csv, jsonl = read_labels([tmp_path / "own.csv"]), read_labels([tmp_path / "own.jsonl"])
    assert csv.spans["A/b"] == (Span("walks, slowly", 0.5, 2.0, ("walk", "step"), "own.csv"),)
    assert csv.spans["A/c"] == (Span("all of it", source="own.csv"),)
    assert csv.split == jsonl.split == {"A/b": "test"}
    strip = {key: [(s.text, s.start, s.end, s.categories) for s in spans] for key, spans in jsonl.spans.items()}
    assert strip == {key: [(s.text, s.start, s.end, s.categories) for s in spans] for key, spans in csv.spans.items()}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name,text\na,b\n", "line 2 has no `path` or no `text`: expected path,start,end,text,category"),
        ("path,start,end,text\na,one,2,b\n", "line 2: could not convert string to float: 'one': expected seconds"),
        ("path,text,split\na,b,traim\n", "line 2: split 'traim', expected train, val or test"),
    ],
)
def test_a_bad_line_of_an_own_table_is_named(tmp_path, content, expected):
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(LabelError, match=f"own.csv: {expected}"):
        read_labels([tmp_path / "own.csv"])


def test_several_sources_are_kept_together_and_know_their_source(tmp_path):
    babel = write_babel(
        tmp_path / "babel", train=[babel_entry("A/b.npz", sequence=[{"raw_label": "walk", "act_cat": None}])]
    )
    (tmp_path / "own.csv").write_text("path,text,split\nA/b.npz,strolls,val\nA/c.npz,sits,val\n")
    (tmp_path / "split.csv").write_text("path,split\nA/c.npz,test\n")
    labels = read_labels([babel, tmp_path / "own.csv"], tmp_path / "split.csv")
    assert [(span.text, span.source) for span in labels.spans["A/b"]] == [("walk", "babel"), ("strolls", "own.csv")]
    assert labels.sources == ("babel", "own.csv")
    assert labels.split == {"A/b": "train", "A/c": "test"}  # the first source, and the split file before all


# --- names and splits


def test_old_and_new_names_of_the_data_sets_are_one():
    assert sequence_key("BioMotionLab_NTroje/rub001/0000 x_poses.npz") == sequence_key(
        "BMLrub/rub001/0000_x_stageii.npz"
    )
    assert sequence_key("CMU.tar.bz2!/CMU/01/01_01_poses.npz") == "CMU/01/01_01"
    assert set(DATASET_ALIASES) & set(DATASET_ALIASES.values()) == set()


@pytest.mark.parametrize(
    ("name", "split"),
    [("SSM_synced/a/b_poses.npz", "test"), ("Transitions/a/b_stageii.npz", "test"), ("MPI_HDM05/a/b_poses.npz", "val"),
     ("MPI_mosh/a/b.npz", "val"), ("HumanEva/a/b.npz", "val"), ("SFU/a/b.npz", "val"), ("KIT/3/a_poses.npz", "train")],
)  # fmt: skip
def test_amass_split_is_the_papers(name, split):
    assert split_of(sequence_key(name), Labels()) == split


def test_a_split_of_a_folder_holds_for_all_below_it_but_a_files_own_goes_before():
    labels = Labels(split={"KIT": "val", "KIT/3": "test", "KIT/3/a": "train"})
    assert [split_of(key, labels) for key in ("KIT/2/a", "KIT/3/b", "KIT/3/a", "KITE/1")] == [
        "val",
        "test",
        "train",
        "train",
    ]


# --- the text of a crop


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60), st.integers(1, 40)), max_size=6),
    st.integers(1, 50), st.integers(1, 20), st.integers(0, 20), st.sampled_from([30.0, 20.0, 33.3]),
)  # fmt: skip
def test_crop_text_is_the_releases_whatever_the_spans(drawn, frames, crop, first_frame, fps):
    spans = [Span(text, start / 10, (start + length) / 10) for text, start, length in drawn]
    first_frame = min(first_frame, frames - 1)
    shifts = max(frames - first_frame - crop, 0) + 1
    members = crop_members(spans, first_frame=first_frame, shifts=shifts, crop=crop, frames=frames, fps=fps)
    for shift in range(shifts):
        # The release keeps the labels of every frame and unites those of the crop's frames.
        seen = set()
        for frame in range(first_frame + shift, min(first_frame + shift + crop, frames)):
            seen |= {span.text for span in spans if span.start - 1e-9 <= frame / fps < span.end - 1e-9}
        expected = " and ".join(sorted(seen))
        assert joined(span.text for span, in_it in zip(spans, members[shift], strict=True) if in_it) == expected


def test_spans_beyond_the_clip_are_in_no_crop():
    members = crop_members(
        [Span("late", 5.0, 9.0), Span("whole")], first_frame=0, shifts=3, crop=10, frames=60, fps=30.0
    )
    assert members.tolist() == [[False, True]] * 3
    assert crop_members([], first_frame=0, shifts=3, crop=10, frames=60, fps=30.0).shape == (3, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Turn LEFT then right-handed, leftover", "Turn RIGHT then left-handed, leftover"),
        ("walks counter-clockwise, then clockwise", "walks clockwise, then counterclockwise"),
        ("Left foot", "Right foot"),
        ("copyright", "copyright"),
    ],
)
def test_mirrored_text_swaps_whole_words_only(text, expected):
    assert mirrored(text) == expected


def test_fingerprint_changes_with_a_span_a_split_or_a_source():
    base = Labels({"a": (Span("x"),)}, {"a": "train"})
    others = [Labels({"a": (Span("y"),)}, {"a": "train"}), Labels({"a": (Span("x"),)}, {"a": "val"}),
              Labels({"a": (Span("x", source="own.csv"),)}, {"a": "train"})]  # fmt: skip
    assert len({each.fingerprint for each in (base, *others)}) == 4
    assert base.fingerprint == Labels({"a": (Span("x"),)}, {"a": "train"}).fingerprint
    assert np.all([len(each.fingerprint) == 16 for each in others])
