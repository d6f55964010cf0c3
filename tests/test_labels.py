"""Label files, splits, and the text of a crop against a naive frame-by-frame twin."""

import csv
import io
import json
import math
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.embed.classes import BABEL_60, classes_of
from mclip.pipeline.labels.babel import read_babel
from mclip.pipeline.labels.crop_texts import crop_members, joined
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.matching import split_of
from mclip.pipeline.labels.mirror import mirror_text
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
    wrong = [
        {"raw_label": "a", "act_cat": None, "start_t": 3.0, "end_t": 1.0},
        {"raw_label": "b", "act_cat": None, "start_t": -1.0, "end_t": 1.0},
        {"raw_label": "c", "act_cat": None, "start_t": 1.0, "end_t": 2.0},
    ]
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
    [
        (3.0, 1e9, [False, True, True]),
        (3.0, 1e308, [False, True, True]),
        (0.0, 1e308, [True, True, True]),
        (1e9, 2e9, [False] * 3),
        (1e300, 1e308, [False] * 3),
        (4.0, 5.0, [False] * 3),
    ],
)
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


def write_humanml3d(folder: Path, clips: dict[str, str], deeper: str = "") -> Path:
    """HumanML3D's files of clips (name -> sequence) of two seconds, one after the other, each with one text."""
    lines = [
        f"./pose_data/{path}.npy,{40 * i},{40 * i + 40},{name}.npy" for i, (name, path) in enumerate(clips.items())
    ]
    (folder / deeper / "texts").mkdir(parents=True)
    (folder / "index.csv").write_text("\n".join(["source_path,start_frame,end_frame,new_name", *lines]))
    for name in clips:
        (folder / deeper / f"texts/{name}.txt").write_text(f"clip {name}#x#0.0#0.0\n")
    return folder


@pytest.mark.parametrize("deeper", ["", "HumanML3D"])
def test_humanml3ds_own_lists_are_its_splits(tmp_path, deeper):
    folder = write_humanml3d(tmp_path, {"000000": "KIT/1/a", "000001": "CMU/1/b", "000002": "SFU/1/c"}, deeper)
    # As it has them: its mirror images beside the clips, and lists of more than one split.
    for name, ids in {
        "train": "000000\r\nM000000\r\n",
        "val": "\ufeffM000001\n000001\n",
        "test": "000002\nM000002\n009999\n",
        "train_val": "000000\n000001\n",
        "all": "000002\n000001\n000000\n",
    }.items():
        (folder / deeper / f"{name}.txt").write_text(ids, encoding="utf-8", newline="")
    labels = read_labels([folder])
    assert labels.split == {"KIT/1/a": "train", "CMU/1/b": "val", "SFU/1/c": "test"}
    assert {key: spans[0].text for key, spans in labels.spans.items()} == {
        "KIT/1/a": "clip 000000",
        "CMU/1/b": "clip 000001",
        "SFU/1/c": "clip 000002",
    }
    assert labels.passed_over == {"HumanML3D name in test.txt that index.csv has not": 1}


def test_a_sequence_with_a_tested_clip_is_not_trained_on_and_keeps_the_tested_texts_alone(tmp_path):
    folder = write_humanml3d(tmp_path, {"000000": "KIT/1/a", "000001": "KIT/1/a", "000002": "KIT/1/a"})
    (folder / "train.txt").write_text("000000\n")
    (folder / "test.txt").write_text("000001\n")
    labels = read_labels([folder])
    assert labels.split == {"KIT/1/a": "test"}
    assert [span.text for span in labels.spans["KIT/1/a"]] == ["clip 000001", "clip 000002"]  # the last is in no list
    assert labels.passed_over == {"HumanML3D text of a clip in train whose sequence has another in test": 1}


def test_a_humanml3d_clip_and_its_mirror_image_in_two_splits_are_refused(tmp_path):
    folder = write_humanml3d(tmp_path, {"000000": "KIT/1/a"})
    (folder / "train.txt").write_text("000000\n")
    (folder / "test.txt").write_text("M000000\n")
    with pytest.raises(LabelError, match=r"train.txt: line 1: 000000 is in train, and in test further up"):
        read_labels([folder])


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


# --- forms in which files really come


def test_babels_test_file_has_no_text_and_keeps_its_split(tmp_path):
    null = {"raw_label": None, "proc_label": None, "act_cat": None}
    labels = read_babel(
        write_babel(tmp_path, test=[babel_entry("A/b.npz", sequence=[null]), {"feat_p": "A/A/c.npz", "dur": 1.0}])
    )
    assert labels.spans == {}
    assert labels.split == {"A/b": "test", "A/c": "test"}
    assert labels.passed_over == {"test.json: label without a text": 1}


def test_extra_files_have_lists_of_annotators(tmp_path):
    def said(text, **times):
        return {"anntr_id": "a", "labels": [{"raw_label": text, "act_cat": ["x"], **times}]}

    frames = [said("raise hand", start_t=0.0, end_t=1.0), said("lift arm", start_t=0.5, end_t=2.0)]
    entries = [
        {"feat_p": "A/A/both.npz", "dur": 2.0, "seq_anns": [said("wave")], "frame_anns": frames},
        {"feat_p": "A/A/whole.npz", "dur": 3.0, "seq_anns": [said("wave"), said("greet")], "frame_anns": None},
    ]
    labels = read_babel(write_babel(tmp_path, extra_train=entries))
    assert labels.spans["A/both"] == (Span("raise hand", 0.0, 1.0, ("x",)), Span("lift arm", 0.5, 2.0, ("x",)))
    assert [span.text for span in labels.spans["A/whole"]] == ["wave", "greet"]
    assert labels.seconds == {"A/both": 2.0, "A/whole": 3.0}
    assert labels.split == {"A/both": "train", "A/whole": "train"}


@pytest.mark.parametrize(
    ("act_cat", "expected", "passed"),
    [([1, 2], (), 1), ([["walk"]], (), 1), ("walk", ("walk",), 0), (7, (), 1), (["walk", "turn"], ("walk", "turn"), 0)],
)
def test_a_label_keeps_its_text_where_its_categories_are_none(tmp_path, act_cat, expected, passed):
    entry = babel_entry("A/b.npz", sequence=[{"raw_label": "walks", "act_cat": act_cat}])
    labels = read_babel(write_babel(tmp_path, train=[entry]))
    assert labels.spans["A/b"] == (Span("walks", categories=expected),)
    assert labels.passed_over.get("train.json: act_cat is no list of texts", 0) == passed


@pytest.mark.parametrize(
    "label", [None, 3, [], {"raw_label": 5}, {"raw_label": "\ud800"}, {"raw_label": "x", "start_t": "?"}]
)
def test_what_is_no_label_is_passed_over_and_counted(tmp_path, label):
    good = {"raw_label": "walks", "act_cat": None}
    labels = read_babel(write_babel(tmp_path, train=[babel_entry("A/b.npz", frame=[label, good])]))
    assert [span.text for span in labels.spans["A/b"]] == ["walks"]
    assert sum(labels.passed_over.values()) == 1


def test_documents_nested_too_deep_are_refused_by_name(tmp_path):
    deep = "[" * 200_000
    (tmp_path / "train.json").write_text('{"1": ' + deep)
    (tmp_path / "own.jsonl").write_text(deep)
    for path in (tmp_path, tmp_path / "own.jsonl"):
        with pytest.raises(LabelError, match="train.json: cannot be read|own.jsonl: .*cannot be read"):
            read_labels([path])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, encoding, separator, newline):
    lines = [
        "Path,start,end,text,category,split",
        'A/b_poses.npz,0.5,2,"gr\u00fc\u00dft; und, geht",walk|wave,Val',
        ",,,,,",
    ]
    cells = [line.replace('"gr\u00fc\u00dft; und, geht"', "@").replace(",", separator) for line in lines]
    text = newline.join(line.replace("@", '"gr\u00fc\u00dft; und, geht"') for line in cells)
    (tmp_path / "own.csv").write_bytes(text.encode(encoding))
    labels = read_labels([tmp_path / "own.csv"])
    assert labels.spans == {"A/b": (Span("gr\u00fc\u00dft; und, geht", 0.5, 2.0, ("walk", "wave"), "own.csv"),)}
    assert labels.split == {"A/b": "val"}


def test_json_and_splits_are_read_with_a_mark_too(tmp_path):
    entry = babel_entry("A/b.npz", sequence=[{"raw_label": "walks", "act_cat": None}])
    (tmp_path / "val.json").write_bytes(json.dumps({"1": entry}).encode("utf-8-sig"))
    (tmp_path / "own.jsonl").write_bytes('{"path": "A/c", "text": "sits"}\r\n'.encode("utf-16"))
    (tmp_path / "split.csv").write_bytes("sep=;\r\npath;split\r\nA/b;test\r\n".encode("utf-16"))
    labels = read_labels([tmp_path / "val.json", tmp_path / "own.jsonl"], tmp_path / "split.csv")
    assert (set(labels.spans), labels.split) == ({"A/b", "A/c"}, {"A/b": "test"})


def test_a_comma_in_numbers_is_read_where_it_parts_no_cells(tmp_path):
    (tmp_path / "own.csv").write_text("path;start;end;text\nA/b;0,5;1,25;walks\n")
    assert read_labels([tmp_path / "own.csv"]).spans["A/b"] == (Span("walks", 0.5, 1.25, source="own.csv"),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"path,text\nA/b,gr\xfc\xdft\n", "is no text in UTF-8"),
        ("path,text\nA/b,x\n".encode("utf-16-le"), "has NUL characters, as UTF-16 without its mark"),
        (b"path,text\nA/b,walks, slowly\n", "line 2 has 3 cells, its header 2: put quotes"),
        (b"path,text\n" + b"a/" * 60_000 + b",x\n", "is no path, expected SET/SUBJECT/CLIP"),
    ],
)
def test_a_table_that_would_lose_something_is_refused_by_file_and_line(tmp_path, content, expected):
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(LabelError, match=f"own.csv: .*{expected}"):
        read_labels([tmp_path / "own.csv"])


TABLE = "path,start,end,text,category,split\n" + "".join(
    f"A/{n}_poses.npz,{n}.5,{n + 2},walks {n},walk|step,train\n" for n in range(5)
)
BABEL = json.dumps(
    {
        str(n): babel_entry(
            f"A/{n}.npz", frame=[{"raw_label": f"w {n}", "act_cat": ["x"], "start_t": 0, "end_t": n + 1}]
        )
        for n in range(5)
    }
)
LINES = "".join(json.dumps({"path": f"A/{n}", "text": f"walks {n}", "start": n, "end": n + 1}) + "\n" for n in range(5))
EXTRA = json.dumps(
    {
        str(n): {
            "feat_p": f"SET/A/{n}.npz",
            "frame_anns": [{"labels": [{"raw_label": f"w {n} {k}", "start_t": 0, "end_t": k + 1}]} for k in range(2)],
        }
        for n in range(4)
    }
)
UNSAID = json.dumps(
    {str(n): babel_entry(f"A/{n}.npz", frame=[{"raw_label": None, "proc_label": None}]) for n in range(5)}
)
INDEX = "source_path,start_frame,end_frame,new_name\n" + "".join(
    f"./pose_data/KIT/3/{n}_poses.npy,{20 * n},{20 * n + 20},{n:06}.npy\n" for n in range(6)
)
TEXTS = "".join(f"a person walks {n}#a/DET person/NOUN#0.{n}#1.{n}\n" for n in range(6))
IDS = "".join(f"{n:06}\nM{n:06}\n" for n in range(0, 6, 2))
SPLIT = "path,split\n" + "".join(f"A/{n},{name}\n" for n, name in enumerate(("train", "val", "test", "train")))
FORMS = {
    "own.csv": TABLE,
    "train.json": BABEL,
    "own.jsonl": LINES,
    "extra_val.json": EXTRA,
    "test.json": UNSAID,
    "index.csv": INDEX,
    "texts/000000.txt": TEXTS,
    "test.txt": IDS,
    "split.csv": SPLIT,
    "classes.txt": "walk\nrun\nkick high\n",
}
ROUNDS = int(os.environ.get("MCLIP_ROUNDS", "1"))  # more of them by hand


def damaged(data: bytes, chance: np.random.Generator) -> bytes:
    """A file's bytes with up to three bits turned, pieces cut, doubled, or put between."""
    found = bytearray(data)
    for _ in range(chance.integers(1, 4)):
        at, kind = int(chance.integers(len(found))), chance.integers(4)
        if kind == 0:
            found[at] ^= 1 << int(chance.integers(8))
        elif kind == 1:
            del found[at : at + int(chance.integers(1, 40))]
        elif kind == 2:
            found[at:at] = bytes(chance.choice([b"null", b"[", b'"', b"\xef\xbb\xbf", b"1e999", b";", b"\0", b"{}"]))
        else:
            found[at:at] = found[max(at - 60, 0) : at]
        found = found or bytearray(b" ")
    return bytes(found)


@pytest.mark.parametrize("name", FORMS)
def test_a_hundred_damaged_files_are_refused_by_name_or_every_label_is_counted(tmp_path, name):
    outcomes = Counter()
    for seed in range(100 * ROUNDS):
        chance = np.random.default_rng([[*FORMS].index(name), seed])
        data = damaged(FORMS[name].encode(), chance)
        folder = write_form(tmp_path / str(seed), name, data)
        outcomes[outcome(COUNTED.get(name, labels_are_counted), folder, name, data)] += 1
    assert outcomes.keys() == {"read", f"{name.rpartition('/')[2]} named"}, outcomes
    assert outcomes["read"] >= 3 * ROUNDS, outcomes  # or this says nothing


def outcome(count, folder: Path, name: str, data: bytes) -> str:
    """`read` where what a file holds was counted, or what its refusal names."""
    try:
        count(folder, name, data)
    except ValueError as error:
        short = name.rpartition("/")[2]
        return f"{short} named" if short in str(error) else str(error)
    return "read"


def write_form(folder: Path, name: str, data: bytes) -> Path:
    """A folder with the damaged file, beside sound ones where it is HumanML3D's."""
    (folder / "texts").mkdir(parents=True)
    if name in ("index.csv", "texts/000000.txt", "test.txt"):
        (folder / "index.csv").write_text(INDEX)
        for n in range(6):
            (folder / f"texts/{n:06}.txt").write_text(f"clip {n}#x#0.0#0.0\n")
    (folder / name).write_bytes(data)
    return folder


def labels_are_counted(folder: Path, name: str, data: bytes) -> None:
    """Every label of a file is kept, or passed over with its reason."""
    labels = read_labels([folder if (folder / "index.csv").exists() else folder / name])
    kept, passed = sum(map(len, labels.spans.values())), sum(labels.passed_over.values())
    assert kept + passed == labels_in(name, data)
    assert labels.fingerprint
    spans = [span for found in labels.spans.values() for span in found]
    assert all(span.text and 0 <= span.start < span.end for span in spans)


def ids_are_counted(folder: Path, name: str, data: bytes) -> None:
    """Every name in a list of HumanML3D's is a clip's split, or is passed over; no text is lost."""
    labels = read_labels([folder])
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    known = [line for line in lines if line.removesuffix(".npy").removesuffix(".txt").removeprefix("M") in CLIPS]
    names = {line.removesuffix(".npy").removesuffix(".txt").removeprefix("M") for line in known}
    assert labels.split == {f"KIT/3/{int(each)}": "test" for each in names}
    empty = sum(line.removesuffix(".npy").removesuffix(".txt").removeprefix("M") == "" for line in lines)
    assert sum(labels.passed_over.values()) == len(lines) - len(known) - empty
    assert sum(map(len, labels.spans.values())) == 6


def splits_are_counted(folder: Path, name: str, data: bytes) -> None:
    """Every row of a table of splits is in what is read."""
    found = read_split(folder / name)
    lines = io.StringIO(data.decode("utf-8-sig"), newline="")
    separator = max(",;\t", key=lines.readline().count)
    rows = [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
    assert {sequence_key(row[0].strip()): row[1].strip().lower() for row in rows} == found


def classes_are_counted(folder: Path, name: str, data: bytes) -> None:
    """Every line of a list of classes is one."""
    found = classes_of(str(folder / name))
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in data.decode("utf-8-sig").splitlines()]  # without comments
    assert found == list(dict.fromkeys(line.strip() for line in lines if line.strip()))


CLIPS = [f"{n:06}" for n in range(6)]
COUNTED = {"test.txt": ids_are_counted, "split.csv": splits_are_counted, "classes.txt": classes_are_counted}


def labels_in(name: str, data: bytes) -> int:
    """Labels of a mutated file, and entries of BABEL's without a path: counted by Python's own readers alone."""
    text = data.decode("utf-8-sig")
    if name == "texts/000000.txt":
        return 5 + sum(bool(line.strip()) for line in text.splitlines())  # and one of each sound clip
    if name == "own.jsonl":
        return sum(bool(line.strip()) for line in text.split("\n"))
    if name.endswith(".csv"):
        lines = io.StringIO(text, newline="")
        separator = max(",;\t", key=lines.readline().count)
        return sum(any(cell.strip() for cell in row) for row in csv.reader(lines, delimiter=separator))
    return sum(map(labels_of_entry, json.loads(text).values()))


def labels_of_entry(entry: object) -> int:
    """Labels of one entry of BABEL's; one without a path counts as one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("feat_p"), str) or not entry["feat_p"].strip():
        return 1
    for one, several in (("frame_ann", "frame_anns"), ("seq_ann", "seq_anns")):
        more = entry.get(several)
        annotations = [entry.get(one), *(more if isinstance(more, list) else [more])]
        lists = [each.get("labels") for each in annotations if isinstance(each, dict)]
        if count := sum(len(each) for each in lists if isinstance(each, list)):
            return count
    return 0


# --- names and splits


def test_old_and_new_names_of_the_data_sets_are_one():
    assert sequence_key("BioMotionLab_NTroje/rub001/0000 x_poses.npz") == sequence_key(
        "BMLrub/rub001/0000_x_stageii.npz"
    )
    assert sequence_key("CMU.tar.bz2!/CMU/01/01_01_poses.npz") == "CMU/01/01_01"
    assert set(DATASET_ALIASES) & set(DATASET_ALIASES.values()) == set()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("SSM_synced/a/b_poses.npz", "test"),
        ("Transitions/a/b_stageii.npz", "test"),
        ("MPI_HDM05/a/b_poses.npz", "val"),
        ("MPI_mosh/a/b.npz", "val"),
        ("HumanEva/a/b.npz", "val"),
        ("SFU/a/b.npz", "val"),
        ("KIT/3/a_poses.npz", "train"),
    ],
)
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
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(0, 20),
    st.sampled_from([30.0, 20.0, 33.3]),
)
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
    assert mirror_text(text) == expected


def test_fingerprint_changes_with_a_span_a_split_or_a_source():
    base = Labels({"a": (Span("x"),)}, {"a": "train"})
    others = [
        Labels({"a": (Span("y"),)}, {"a": "train"}),
        Labels({"a": (Span("x"),)}, {"a": "val"}),
        Labels({"a": (Span("x", source="own.csv"),)}, {"a": "train"}),
    ]
    assert len({each.fingerprint for each in (base, *others)}) == 4
    assert base.fingerprint == Labels({"a": (Span("x"),)}, {"a": "train"}).fingerprint
    assert np.all([len(each.fingerprint) == 16 for each in others])
