"""BONES-SEED's metadata: the columns and the timelines that its public readers name, written by hand here."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.matching import Recording, match
from mclip.pipeline.labels.spans import LabelError, Labels
from mclip.pipeline.store.schema import SPLITS
from mclip.pipeline.store.store import open_store
from mclip.pipeline.store.validate import validate
from mclip.training.show.export import write
from mclip.training.show.motion import read

WAVE, TURN = "230711/wave_R_001__A424", "240918/turn_001__A548"
COLUMNS = (
    "move_name,filename,is_mirror,move_soma_uniform_path,move_soma_proportional_path,take_date,content_natural_desc_1,"
    "content_natural_desc_2,content_technical_description,content_short_description,content_type_of_movement"
).split(",")


def line(key: str, *texts: str, kind: str = "gesture") -> dict[str, str]:
    """One line of the metadata; texts are two sentences, a technical description and a short one."""
    date, name = key.split("/")
    paths = [f"soma_{form}/bvh/{key}.bvh" for form in ("uniform", "proportional")]
    return dict(zip(COLUMNS, [name, name, str(name.endswith("_M")), *paths, date, *texts, kind], strict=True))


def events(key: str, *said: tuple[float, float, str]) -> str:
    """One line of the timelines."""
    parts = [dict(zip(("start_time", "end_time", "description"), each, strict=True)) for each in said]
    return json.dumps({"filename": key.split("/")[1], "num_events": len(parts), "events": parts})


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """A folder as the data set lies: two clips and their mirror images, an older version beside."""
    metadata = tmp_path / "bones-seed" / "metadata"
    metadata.mkdir(parents=True)
    lines = [
        line(WAVE, "A person waves the right hand.", "Someone greets.", "Right shoulder abducts.", "wave right"),
        line(f"{WAVE}_M", "A person waves the left hand.", "Someone greets.", "Left shoulder abducts.", "wave left"),
        line(TURN, "A person turns left.", "", "", "turn"),
        line(f"{TURN}_M", "A person turns left.", "", "", "turn"),  # not said anew
    ]
    for version, rows in (("v003", lines[:1]), ("v004", lines)):
        with (metadata / f"seed_metadata_{version}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
    said = (0.0, 1.07, "A person lifts the right hand."), (1.07, 2.5, "A person waves.")
    (metadata / "seed_metadata_v002_temporal_labels.jsonl").write_text(events(WAVE, *said) + "\n")
    return metadata.parent


def texts(labels: Labels, key: str) -> list[tuple[str, float]]:
    return [(span.text, span.start) for span in labels.spans[key]]


def test_captions_hold_for_a_clip_and_events_for_their_time(seed):
    found = read_labels([seed])
    assert texts(found, WAVE) == [
        ("A person waves the right hand.", 0.0),
        ("Someone greets.", 0.0),
        ("wave right", 0.0),
        ("A person lifts the right hand.", 0.0),
        ("A person waves.", 1.07),
    ]
    assert [span.is_whole for span in found.spans[WAVE]] == [True] * 3 + [False] * 2
    assert {span.categories for span in found.spans[TURN]} == {("gesture",)}
    assert found.sources == ("seed",)


def test_a_mirror_image_is_told_by_its_own_words_or_by_its_twins_with_sides_swapped(seed):
    found = read_labels([seed / "metadata"])
    assert texts(found, f"{WAVE}_M")[0] == ("A person waves the left hand.", 0.0)
    assert texts(found, f"{WAVE}_M")[3:] == [("A person lifts the left hand.", 0.0), ("A person waves.", 1.07)]
    assert texts(found, f"{TURN}_M") == [("A person turns right.", 0.0), ("turn", 0.0)]


@pytest.mark.parametrize("said", [WAVE, f"{WAVE}_M"])
@pytest.mark.parametrize("above", [(), ("bones-seed", "soma_uniform", "bvh")])
def test_a_clip_and_its_mirror_image_have_the_split_that_is_said_of_either(said, above):
    recordings = [Recording(f"{key}.bvh", above) for key in (WAVE, f"{WAVE}_M", TURN)]
    for labels in (Labels(split={said: "test"}), Labels(split={said: "test", "230711": "train"})):
        assert match(labels, recordings).splits == ["test", "test", "train"]


def test_two_splits_of_a_clip_and_its_mirror_image_are_refused():
    labels = Labels(split={WAVE: "train", f"{WAVE}_M": "test"})
    with pytest.raises(LabelError, match="a clip and its mirror image have one split"):
        match(labels, [Recording(f"{WAVE}.bvh"), Recording(f"{WAVE}_M.bvh")])


def test_names_of_amass_that_end_so_are_no_mirror_images():
    labels = Labels(split={"KIT/3/walk": "train", "KIT/3/walk_M": "test"})
    recordings = [Recording("KIT/3/walk_poses.npz"), Recording("KIT/3/walk_M_poses.npz")]
    assert match(labels, recordings).splits == ["train", "test"]


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("seed_metadata_v005.csv", "filename,title\nx,y\n", "line 2 has no filename or none of content_natural"),
        ("seed_metadata_v005.csv", "content_natural_desc_1\nA person walks.\n", "line 2 has no filename"),
        ("seed_metadata_v003_temporal_labels.jsonl", '{"filename": "x", "events": 3}\n', "no list of events"),
        ("seed_metadata_v003_temporal_labels.jsonl", "[]\n", "expected an object"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_line(seed, file, text, why):
    (seed / "metadata" / file).write_text(text)
    with pytest.raises(LabelError, match=why):
        read_labels([seed])


def test_an_event_without_words_or_times_is_counted(seed):
    said = (1.0, 0.5, "ends before it begins"), (0.0, 1.0, "")
    (seed / "metadata" / "seed_metadata_v002_temporal_labels.jsonl").write_text(events(TURN, *said))
    found = read_labels([seed])
    assert sum(found.passed_over.values()) == 3  # one of them of the mirror image too
    assert [span.is_whole for span in found.spans[TURN]] == [True, True]


def test_prepare_puts_them_on_the_motions_and_a_split_on_both_twins(seed, tmp_path):
    motion = read(sorted(MOTIONS.rglob("walk/*.npz"))[0])
    for key in (WAVE, f"{WAVE}_M", TURN, f"{TURN}_M"):
        path = seed / "soma_uniform" / "bvh" / f"{key}.bvh"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, motion)
    split = tmp_path / "split.csv"
    split.write_text(f"path,split\n{WAVE},val\n")
    store = tmp_path / "store.zarr"
    done = CliRunner().invoke(
        cli, ["prepare", str(seed), str(store), "--labels", str(seed), "--split", str(split), "--workers", "1"]
    )
    assert done.exit_code == 0, done.output
    opened = open_store(str(store))
    found = dict(zip(opened.strings("sequences/name"), opened.read("sequences/split").tolist(), strict=True))
    assert {name.rpartition("/")[2]: SPLITS[number] for name, number in found.items()} == {
        "wave_R_001__A424.bvh": "val",
        "wave_R_001__A424_M.bvh": "val",
        "turn_001__A548.bvh": "train",
        "turn_001__A548_M.bvh": "train",
    }
    assert "0 files without labels" in done.output
    assert {"A person turns left.", "A person turns right."} <= set(opened.strings("texts"))
    assert not validate(opened)
