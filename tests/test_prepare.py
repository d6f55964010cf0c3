"""prepare: from files to a store, whatever the files are and whenever it is interrupted."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry import rotations
from mclip.pipeline.geometry.changes import face_front, mirror_motion
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.skeleton import MIRRORED, forward_kinematics
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare import prepare as stage
from mclip.pipeline.prepare.amass import read_motion
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare, preview
from mclip.pipeline.prepare.windows import windows_of
from mclip.pipeline.skeletons.frames import rest_joints
from mclip.pipeline.store import stage as loop
from mclip.pipeline.store.location import read_neighbour
from mclip.pipeline.store.schema import DONE, FAILED, REPLACED, SCHEMA, SPLITS, StoreError
from mclip.pipeline.store.stage import Summary
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import array_paths, validate
from mclip.training.show.export import export


def run(
    source: Path, url: Path | str, *, labels: Labels | None = None, options: PrepareOptions | None = None, **others
) -> tuple[Store, Summary]:
    """Prepare a folder; the store and what was done."""
    store = open_store(url, create=True)
    summary = prepare(source, store, labels=labels or Labels(), options=options or PrepareOptions(), **others)
    return store, summary


def arrays_of(store: Store) -> dict[str, tuple]:
    """Every array of a store, comparable."""
    return {path: (store.read(path).shape, store.read(path).tobytes()) for path in array_paths(store)}


def files_of(url: Path) -> dict[str, str]:
    """Hash of every file of a store but of the manifest's."""
    return {
        path.relative_to(url).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(url.rglob("*"))
        if path.is_file()
    }


# --- what is stored


def test_stored_motion_is_the_resampled_file_row_for_row(prepared, amass_folder):
    row, frames = prepared.read("sequences/row"), prepared.read("sequences/frames")
    for item, name in enumerate(prepared.strings("sequences/name")):
        rot6d, trans = resample(read_motion(amass_folder / name), 30.0)
        at = slice(row[item], row[item] + frames[item])
        assert np.array_equal(prepared.array("motion/rot6d")[at], rot6d.numpy())
        assert np.array_equal(prepared.array("motion/trans")[at], trans.numpy())
    assert frames.tolist() == [120, 130, 75, 50, 175]
    assert prepared.read("sequences/fps")[3] == 59.99998856


def test_stored_motion_stands_where_the_source_stands_within_a_tenth_of_a_millimetre(prepared, amass_folder):
    motion = read_motion(amass_folder / "CMU/01/01_01_poses.npz")
    rest = rest_joints()
    matrix = rotations.axis_angle_to_matrix(torch.from_numpy(motion.poses_TJ3[::4]))
    source = forward_kinematics(matrix, rest, root_B3=torch.from_numpy(motion.trans_T3[::4]))[1]
    rot6d, trans = (torch.from_numpy(prepared.read(f"motion/{name}")[:120]).double() for name in ("rot6d", "trans"))
    stored = forward_kinematics(rotations.rot6d_to_matrix(rot6d), rest, root_B3=trans)[1]
    assert (stored - source).norm(dim=-1).max() < 1e-4


def test_provenance_of_every_file_is_in_the_store_and_in_the_manifest(prepared, amass_folder):
    names, sha256 = prepared.strings("sequences/name"), prepared.read("sequences/sha256")
    lines = [json.loads(line) for line in Path(f"{prepared.url}.manifest.jsonl").read_text().splitlines()]
    *lines, shape = lines
    assert [line["file"] for line in lines] == names
    assert (shape["file"], shape["outcome"]) == ("CMU/01/shape.npz", "passed over")
    for name, digest, line in zip(names, sha256, lines, strict=True):
        expected = hashlib.sha256((amass_folder / name).read_bytes())
        assert digest.tobytes() == expected.digest()
        assert line["sha256"] == expected.hexdigest()
        assert (line["outcome"], line["reason"], line["fps_out"]) == ("done", None, 30.0)
    assert prepared.read("sequences/gender").tolist() == [1] * 5


def test_windows_are_100_frames_then_the_tail_that_a_crop_fits_into(prepared):
    table = {name: prepared.read(f"windows/{name}").tolist() for name in ("sequence", "row", "frames")}
    # 120, 130, 75, 50 and 175 frames: tails of 20 and 30 are lost, 75 stays, and short ones are padded.
    assert table == {
        "sequence": [0, 1, 2, 3, 4, 4],
        "row": [0, 120, 250, 325, 375, 475],
        "frames": [100, 100, 75, 50, 100, 75],
    }


def test_short_sequences_are_dropped_and_counted_when_asked(tmp_path, amass_folder):
    store, _ = run(amass_folder, tmp_path / "s.zarr", options=PrepareOptions(short="drop"))
    assert store.read("windows/frames").tolist() == [100, 100, 100]
    assert "2 sequences too short for a window" in stage.summary_line(store)


@pytest.mark.parametrize(
    ("frames", "pad", "drop"),
    [
        (1, [], []),
        (2, [(0, 2)], []),
        (59, [(0, 59)], []),
        (100, [(0, 100)], [(0, 100)]),
        (159, [(0, 100)], [(0, 100)]),
        (160, [(0, 100), (100, 60)], [(0, 100)]),
    ],
)
def test_windows_cover_a_sequence_without_overlap(frames, pad, drop):
    assert windows_of(frames, window=100, crop=60, short="pad") == pad
    assert windows_of(frames, window=100, crop=60, short="drop") == drop


def test_a_sequence_never_crosses_splits(prepared):
    splits = prepared.read("sequences/split")
    assert [SPLITS[split] for split in splits] == ["train", "train", "train", "val", "test"]
    assert np.array_equal(prepared.read("windows/split"), splits[prepared.read("windows/sequence")])


def test_texts_and_categories_of_every_crop_are_those_of_its_seconds(tmp_path, amass_folder):
    spans = (Span("stands", 0.0, 1.0, ("stand",)), Span("walks", 0.5, 3.0, ("walk", "step")), Span("late", 50.0, 60.0))
    labels = Labels({"CMU/01/01_01": spans})
    store, _ = run(amass_folder, tmp_path / "s.zarr", labels=labels)
    texts, labelset = store.strings("texts"), store.read("windows/labelset")
    text = store.read("labelsets/text")
    # Crops of 60 frames (2 s) that begin up to 40 frames in: "stands" ends at frame 30.
    assert {texts[text[number]] for number in labelset[0, :30]} == {"stands and walks"}
    assert {texts[text[number]] for number in labelset[0, 30:]} == {"walks"}
    assert (text[labelset[1:]] == -1).all()
    flat, offset = store.read("labelsets/categories"), store.read("labelsets/categories_offset")
    last = labelset[0, 40]
    assert [texts[number] for number in flat[offset[last] : offset[last + 1]]] == ["step", "walk"]
    assert "late" not in texts  # no crop carries it, so it needs no vector
    assert store.read("spans/end").tolist() == [1.0, 3.0]


def test_texts_keep_their_sources(tmp_path, amass_folder):
    labels = Labels(
        {"CMU/01/01_01": (Span("walks"), Span("walks", source="own.csv"), Span("strolls", source="own.csv"))}
    )
    store, _ = run(amass_folder, tmp_path / "s.zarr", labels=labels)
    assert store.attributes("prepare")["sources"] == ["babel", "own.csv"]
    bits = dict(zip(store.strings("texts"), store.read("texts/source").tolist(), strict=True))
    assert bits == {"strolls and walks": 0b11, "walks": 0b11, "strolls": 0b10}


def test_stride_cuts_labels_by_the_true_time_of_its_frames(tmp_path, write_amass):
    write_amass(tmp_path / "A/a_poses.npz", 300, 100.0)  # stride 3: 100 frames of 0.03 s
    labels = Labels({"a": (Span("first second", 0.0, 1.0),)})
    store, _ = run(
        tmp_path / "A", tmp_path / "s.zarr", labels=labels, options=PrepareOptions(resample="stride", crop=10)
    )
    with_text = store.read("labelsets/text")[store.read("windows/labelset")[0]] >= 0
    assert with_text.tolist() == [shift * 0.03 < 1.0 - 1e-9 for shift in range(91)]


# --- mirror and heading


def test_mirroring_reflects_every_joint_position(tmp_path, write_amass):
    rot6d, trans = resample(read_motion(write_amass(tmp_path / "a.npz", 20)), 30.0)
    rest = rest_joints().clone()
    rest = (rest + rest[list(MIRRORED)] * torch.tensor([-1.0, 1, 1])) / 2  # a body of equal sides
    place = [
        forward_kinematics(rotations.rot6d_to_matrix(r.double()), rest, root_B3=t.double())[1]
        for r, t in ((rot6d, trans), mirror_motion(rot6d, trans))
    ]
    assert (place[0][:, MIRRORED] * torch.tensor([-1.0, 1, 1]) - place[1]).abs().max() < 1e-6
    twice = mirror_motion(*mirror_motion(rot6d, trans))
    assert torch.equal(twice[0], rot6d)
    assert torch.equal(twice[1], trans)


def test_mirror_adds_every_sequence_with_its_texts_swapped_in_the_same_split(tmp_path, amass_folder):
    labels = Labels({"SSM/20/hop": (Span("hops to the left"),)})
    store, summary = run(amass_folder, tmp_path / "s.zarr", labels=labels, options=PrepareOptions(mirror=True))
    assert summary.done == 10
    names, split = store.strings("sequences/name"), store.read("sequences/split").tolist()
    assert names[8:] == ["SSM_synced/20/hop_stageii.npz", "SSM_synced/20/hop_stageii.npz#mirror"]
    assert split[::2] == split[1::2]
    assert set(store.strings("texts")) == {"hops to the left", "hops to the right"}
    assert validate(store) == []
    again, summary = run(amass_folder, tmp_path / "s.zarr", labels=labels, options=PrepareOptions(mirror=True))
    assert (summary.done, summary.skipped) == (0, 10)


def test_facing_front_turns_the_first_frame_to_minus_y_and_keeps_the_motion(tmp_path, write_amass):
    motion = read_motion(write_amass(tmp_path / "a.npz", 20))
    poses = motion.poses_TJ3.copy()
    poses[:, 0] = [np.pi / 2, 0, 0]  # stands; then turned about the vertical
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    root = turn @ rotations.axis_angle_to_matrix(torch.from_numpy(poses[:, 0]))
    rot6d = rotations.matrix_to_rot6d(rotations.axis_angle_to_matrix(torch.from_numpy(poses))).float()
    rot6d[:, 0] = rotations.matrix_to_rot6d(root).float()
    trans = torch.from_numpy(motion.trans_T3).float()
    turned, moved = face_front(rot6d, trans)
    facing = rotations.rot6d_to_matrix(turned[0, 0])[:, 2]
    assert facing.numpy() == pytest.approx([0, -1, 0], abs=1e-6)
    assert torch.equal(turned[:, 1:], rot6d[:, 1:])
    assert (moved[0] - trans[0]).abs().max() < 1e-6
    assert (moved[:, 2] - trans[:, 2]).abs().max() < 1e-6
    step = (trans[-1] - trans[0]).double()
    assert (moved[-1] - moved[0]).numpy() == pytest.approx((turn.T @ step).numpy(), abs=1e-5)


# --- again, more, changed


def test_second_run_does_nothing_and_changes_no_array(prepared, amass_folder):
    before = arrays_of(prepared)
    _, summary = run(amass_folder, prepared.url)
    assert (summary.done, summary.skipped, summary.failed) == (0, 5, 0)
    assert arrays_of(prepared) == before


def test_new_files_are_added_behind_and_old_rows_and_windows_stay(prepared, amass_folder, write_amass):
    before = {path: prepared.read(path) for path in ("motion/rot6d", "windows/row", "sequences/sha256")}
    write_amass(amass_folder / "ACCAD/first_in_order_poses.npz", 200, seed=9)
    store, summary = run(amass_folder, prepared.url)
    assert (summary.done, summary.skipped) == (1, 5)
    assert store.strings("sequences/name")[5] == "ACCAD/first_in_order_poses.npz"
    for path, values in before.items():
        assert np.array_equal(store.read(path)[: len(values)], values)
    assert store.read("windows/sequence").tolist() == [0, 1, 2, 3, 4, 4, 5, 5]
    assert validate(store) == []


def test_a_touched_file_is_the_same_file(prepared, amass_folder):
    os.utime(amass_folder / "KIT/3/kick_poses.npz", (1, 1))
    _, summary = run(amass_folder, prepared.url)
    assert (summary.done, summary.failed) == (0, 0)
    assert prepared.read("sequences/modified")[2] == 10**9


def test_a_changed_file_is_refused_by_name_and_replaced_when_asked(prepared, amass_folder, write_amass):
    before = arrays_of(prepared)
    write_amass(amass_folder / "KIT/3/kick_poses.npz", 500, 100.0, seed=77)
    expected = r"1 file changed since .*, first KIT/3/kick_poses.npz: pass --replace-changed .*, or --replace"
    with pytest.raises(ValueError, match=expected):
        run(amass_folder, prepared.url)
    assert arrays_of(prepared) == before
    store, summary = run(amass_folder, prepared.url, replace_changed=True)
    assert (summary.done, summary.failed) == (1, 0)
    assert store.read("sequences/done").tolist() == [DONE, DONE, REPLACED, DONE, DONE, DONE]
    rot6d, _ = resample(read_motion(amass_folder / "KIT/3/kick_poses.npz"), 30.0)
    row = store.read("sequences/row")[5]
    assert np.array_equal(store.array("motion/rot6d")[row : row + len(rot6d)], rot6d.numpy())
    assert 2 not in store.read("windows/sequence")
    assert validate(store) == []
    _, summary = run(amass_folder, prepared.url)
    assert summary.done == 0


def test_a_file_that_failed_is_tried_again_once_it_is_another(tmp_path, amass_folder, write_amass):
    path = amass_folder / "CMU/01/01_01_poses.npz"
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    store, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (4, 1)
    _, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.failed, summary.skipped) == (0, 0, 5)  # it stays failed, and is not tried again
    path.write_bytes(good)
    store, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (1, 0)
    assert store.attributes("prepare")["failures"] == {}
    assert validate(store) == []


def test_other_options_and_other_labels_are_refused(prepared, amass_folder):
    with pytest.raises(StoreError, match=r"'fps': 30.0.*'fps': 20.0.*pass --replace"):
        run(amass_folder, prepared.url, options=PrepareOptions(fps=20.0))
    with pytest.raises(StoreError, match="labels.*pass --replace"):
        run(amass_folder, prepared.url, labels=Labels({"a": (Span("x"),)}))


def test_labels_that_changed_since_are_named_by_their_file(tmp_path, amass_folder):
    table, url = tmp_path / "own labels.csv", tmp_path / "s.zarr"
    table.write_text("path,text\nCMU/01/01_01,walk\n")
    words = ["prepare", str(amass_folder), str(url), "--labels", str(table)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    table.write_text("path,text\nCMU/01/01_01,walk slowly\n")
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 1
    assert told.output.count(str(table)) == 2
    assert "pass --replace" in told.output


def test_only_and_limit_make_a_small_run_that_grows_into_the_whole(tmp_path, amass_folder):
    _, summary = run(amass_folder, tmp_path / "s.zarr", only=["CMU", "*/hop_*"], limit=2)
    assert summary.done == 2
    store, summary = run(amass_folder, tmp_path / "s.zarr", only=["CMU", "*/hop_*"])
    assert [Path(name).stem for name in store.strings("sequences/name")] == [
        "01_01_poses",
        "01_02_poses",
        "hop_stageii",
    ]
    _, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.skipped) == (2, 3)


def test_dry_run_counts_and_writes_nothing(tmp_path, amass_folder, prepared):
    (amass_folder / "CMU/01/bad_poses.npz").write_bytes(b"PK")
    told = preview(amass_folder, str(tmp_path / "new.zarr"), PrepareOptions())
    assert "5 sequences to prepare, 0.01 h of motion in 1 blocks; 6 new, 0 changed, 0 done already" in told
    assert "cannot be used: CMU/01/bad_poses.npz: not a whole .npz file" in told
    assert not (tmp_path / "new.zarr").exists()
    before = files_of(Path(prepared.url))
    assert "0 sequences to prepare" in preview(amass_folder, prepared.url, PrepareOptions())
    assert files_of(Path(prepared.url)) == before


def test_a_folder_without_motions_is_refused_with_what_was_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty: no .npz, .npy, .bvh, .* file or archive below .*SET/SUBJECT/CLIP_poses.npz"
    ):
        run(tmp_path / "empty", tmp_path / "s.zarr")


def test_a_source_without_motions_leaves_nothing_behind_and_empties_no_store(tmp_path, prepared, amass_folder):
    (tmp_path / "empty").mkdir()
    before, files = files_of(Path(prepared.url)), set(tmp_path.iterdir())
    for words in (
        [str(tmp_path / "empty"), str(tmp_path / "new.zarr")],
        [str(amass_folder), str(tmp_path / "new.zarr"), "--only", "nowhere"],
        [str(tmp_path / "empty"), prepared.url, "--replace"],
    ):
        result = CliRunner().invoke(cli, ["prepare", *words])
        assert result.exit_code == 1
        assert "file or archive below this folder" in result.output
    assert set(tmp_path.iterdir()) == files
    assert files_of(Path(prepared.url)) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"crop": 200}, "--crop is 200"),
        ({"fps": 0.0}, "--fps is 0"),
        ({"short": "x"}, "--short is 'x': expected pad, drop"),
    ],
)
def test_impossible_options_are_refused_by_flag(options, expected):
    with pytest.raises(ValueError, match=expected):
        PrepareOptions(**options)


# --- many at once, and interrupted


@pytest.fixture
def blocks_of_few(monkeypatch) -> None:
    """Chunks of 512 rows instead of 16,384, so that a small folder is many blocks."""
    monkeypatch.setattr("mclip.pipeline.prepare.plan.BLOCK_ROWS", 512)
    for name in ("motion/rot6d", "motion/trans"):
        monkeypatch.setitem(SCHEMA, name, SCHEMA[name].__class__(**{**vars(SCHEMA[name]), "chunk": 512}))


@pytest.fixture
def many(tmp_path, write_amass) -> Path:
    """Twenty-four recordings."""
    for seed in range(24):
        write_amass(tmp_path / f"many/S/{seed:02}_poses.npz", 200 + 7 * seed, 30.0, seed=seed)
    return tmp_path / "many"


@pytest.mark.usefixtures("blocks_of_few")
def test_threads_and_one_at_a_time_give_the_same_store_byte_for_byte(tmp_path, many):
    stores = [run(many, tmp_path / f"{name}.zarr", scheduler=name, workers=3)[0] for name in ("sync", "threads")]
    assert len(np.unique(stores[0].read("sequences/block"))) > 8
    one, other = (files_of(Path(store.url)) for store in stores)
    assert one == other


RUN = """
import sys
from pathlib import Path
from mclip.pipeline.prepare import plan
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.lock import one_writer
from mclip.pipeline.store.schema import SCHEMA
from mclip.pipeline.store.store import open_store
plan.BLOCK_ROWS = 512
for name in ("motion/rot6d", "motion/trans"):
    SCHEMA[name] = SCHEMA[name].__class__(**{**vars(SCHEMA[name]), "chunk": 512})
source, url, scheduler = sys.argv[1:]
if __name__ == "__main__":
    with one_writer(url):
        store = open_store(url, create=True)
        print("begun", flush=True)
        prepare(Path(source), store, labels=Labels(), options=PrepareOptions(), scheduler=scheduler, workers=2)
"""


def started(tmp_path: Path, source: Path, url: Path, scheduler: str) -> subprocess.Popen:
    """The run above as a process of its own."""
    (tmp_path / "run.py").write_text(RUN)
    words = [sys.executable, str(tmp_path / "run.py"), str(source), str(url), scheduler]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("blocks_of_few")
def test_processes_give_the_same_store_byte_for_byte(tmp_path, many):
    process = started(tmp_path, many, tmp_path / "processes.zarr", "processes")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    run(many, tmp_path / "sync.zarr", scheduler="sync")
    assert files_of(tmp_path / "processes.zarr") == files_of(tmp_path / "sync.zarr")


@pytest.mark.usefixtures("blocks_of_few")
def test_killed_at_any_moment_the_same_command_gives_the_same_arrays(tmp_path, many):
    whole, _ = run(many, tmp_path / "whole.zarr")
    url, killed, delay = tmp_path / "killed.zarr", 0, 0.0
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = started(tmp_path, many, url, "threads")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.communicate()
    assert killed >= 2
    store, summary = run(many, url)
    assert summary.failed == 0
    assert arrays_of(store) == arrays_of(whole)
    assert store.fingerprint() == whole.fingerprint()
    assert validate(store) == []


@pytest.mark.usefixtures("blocks_of_few")
def test_cluster_that_loses_a_worker_gives_the_same_store_byte_for_byte(tmp_path, many):
    distributed = pytest.importorskip("distributed")
    run(many, tmp_path / "whole.zarr", scheduler="sync")
    import warnings

    with (
        warnings.catch_warnings(action="ignore"),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        victim = next(iter(cluster.workers.values()))
        marked: list[int] = []
        kill_once(monkey := pytest.MonkeyPatch(), marked, victim)
        run(many, tmp_path / "cluster.zarr", scheduler=cluster.scheduler_address)
        monkey.undo()
    assert marked
    assert files_of(tmp_path / "cluster.zarr") == files_of(tmp_path / "whole.zarr")


def kill_once(monkey: pytest.MonkeyPatch, marked: list[int], victim) -> None:
    """Kill a worker's process when the first block is marked."""
    map_blocks = loop.map_blocks

    def map_and_kill(*words, **options):
        for pair in map_blocks(*words, **options):
            yield pair  # and is marked before the next is asked for
            if not marked:
                os.kill(victim.process.pid, signal.SIGKILL)
            marked.append(1)

    monkey.setattr(loop, "map_blocks", map_and_kill)


# --- bad input: each is named, and the rest of the work is done


def test_bad_files_fail_by_name_and_the_rest_is_done(tmp_path, amass_folder, write_amass):
    nan = np.zeros((50, 156))
    nan[7] = np.nan
    write_amass(amass_folder / "BAD/nan_poses.npz", 50, poses=nan)
    (amass_folder / "BAD/cut_poses.npz").write_bytes((amass_folder / "KIT/3/kick_poses.npz").read_bytes()[:5000])
    write_amass(amass_folder / "BAD/line\nbreak_poses.npz", 40)
    write_amass(amass_folder / "BAD" / os.fsdecode(b"caf\xe9_poses.npz"), 1)
    (amass_folder / "BAD/link_poses.npz").symlink_to("nowhere")
    (amass_folder / "BAD/folder_poses.npz").mkdir()
    store, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (6, 4)
    failures = "\n".join(store.attributes("prepare")["failures"].values())
    for expected in (
        "nan_poses.npz: poses has NaN or infinity, first in frame 7",
        "cut_poses.npz: not a whole .npz file",
        "link_poses.npz: No such file or directory",
        "_poses.npz: 1 frames, expected at least 2",
    ):
        assert expected in failures
    assert validate(store) == []
    lines = [json.loads(line) for line in Path(f"{store.url}.manifest.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines].count("failed") == 4
    item = store.strings("sequences/name").index("BAD/nan_poses.npz")
    row, frames = store.read("sequences/row")[item], store.read("sequences/frames")[item]
    assert not store.read("motion/rot6d")[row : row + frames].any()


@pytest.mark.parametrize("number", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_what_is_no_number_in_a_bvh_is_refused_by_name_and_stored_nowhere(tmp_path, amass_folder, number):
    source = tmp_path / "source"
    (motion,), _ = export(amass_folder / "SFU/0005/jog_poses.npz", ("bvh",), source)
    lines = motion.read_text().splitlines()
    words = lines[-40].split()
    words[9] = number
    (source / "bad.bvh").write_text("\n".join([*lines[:-40], " ".join(words), *lines[-39:]]) + "\n")
    store, summary = run(source, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (1, 1)
    assert summary.failures[0].startswith("bad.bvh: ")
    assert "frame 60" in summary.failures[0]  # of 100, the 40th from the end
    assert validate(store) == []
    assert np.isfinite(store.read("motion/rot6d")).all()
    row, frames = store.read("sequences/row")[0], store.read("sequences/frames")[0]
    assert not store.read("motion/rot6d")[row : row + frames].any()


def test_what_is_no_motion_is_passed_over_told_and_no_failure(tmp_path, amass_folder):
    np.savez(amass_folder / "CMU/01/female_stagei.npz", betas=np.zeros(16), gender="female")
    np.savez(amass_folder / "CMU/01/camera.npz", K=np.eye(3))
    store, summary = run(amass_folder, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (5, 0)
    assert "3 files passed over that are no motions, first CMU/01/camera.npz (no poses" in str(summary)
    lines = [json.loads(line) for line in Path(f"{store.url}.manifest.jsonl").read_text().splitlines()]
    assert [line["file"].rpartition("/")[2] for line in lines if line["outcome"] == "passed over"] == [
        "camera.npz",
        "female_stagei.npz",
        "shape.npz",
    ]
    assert validate(store) == []


def test_a_source_without_motions_is_refused_by_a_store_that_has_some(tmp_path, prepared):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no .npz.* that holds a motion"):
        run(tmp_path / "empty", prepared.url)


def test_another_folder_with_the_same_names_is_told_with_both(tmp_path, prepared, amass_folder, write_amass):
    write_amass(tmp_path / "OTHER/KIT/3/kick_poses.npz", 90, seed=5)
    expected = rf"1 file of {tmp_path}/OTHER have names of other motions, which .* has from {amass_folder}, first KIT/3"
    with pytest.raises(ValueError, match=expected):
        run(tmp_path / "OTHER", prepared.url)


def test_headers_that_claim_more_than_the_file_holds_are_one_failed_file_each(tmp_path, write_amass):
    write_amass(tmp_path / "A/good.npz", 60)
    with zipfile.ZipFile(tmp_path / "A/bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("poses", (1_700_000, 156)), ("trans", (1_700_000, 3)), ("mocap_framerate", ())):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": shape})
                member.write(np.float64(1.0).tobytes())
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
    for name, frames, seconds in (("many", 10**9, "0.03"), ("time", 2, "1e-e"), ("nan", 2, "nan"), ("none", 0, "0.03")):
        text = (
            f"HIERARCHY\nROOT Hips\n{{\nOFFSET 0 0 0\n{channels}}}\nMOTION\nFrames: {frames}\nFrame Time: {seconds}\n"
        )
        (tmp_path / f"A/{name}.bvh").write_text(text + "0 0 0 0 0 0\n" * 2)
    store, summary = run(tmp_path / "A", tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (1, 5)
    assert store.array("motion/rot6d").shape[0] <= 60 + 2 * 30


def test_labels_without_files_and_files_without_labels_are_counted(tmp_path, amass_folder):
    labels = Labels({"CMU/01/01_01": (Span("x"),), "GONE/a": (Span("y"),)})
    store, _ = run(amass_folder, tmp_path / "s.zarr", labels=labels)
    assert "4 files without labels, 1 labelled sequences without a file" in stage.summary_line(store)


def test_archive_gives_the_arrays_of_the_folder_that_was_packed(tmp_path, amass_folder):
    import tarfile

    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/all.tar.bz2", "w:bz2") as tar:
        for path in sorted(amass_folder.iterdir()):
            tar.add(path, path.name)
    store, summary = run(tmp_path / "packed", tmp_path / "s.zarr", workers=2)
    folder, _ = run(amass_folder, tmp_path / "folder.zarr")
    assert (summary.done, summary.failed) == (5, 0)
    assert [sequence_key(name) for name in store.strings("sequences/name")] == [
        sequence_key(name) for name in folder.strings("sequences/name")
    ]
    for path in ("motion/rot6d", "motion/trans", "windows/split", "sequences/sha256"):
        assert np.array_equal(store.read(path), folder.read(path))


def limited_run(tmp_path: Path, words: list[str], limit: str) -> subprocess.CompletedProcess:
    """`mclip` under a limit of its own."""
    code = f"import resource, signal, os\n{limit}\nfrom mclip.cli import cli\ncli({words!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_a_disk_that_fills_up_stops_the_run_plainly_and_the_same_command_goes_on(tmp_path, many):
    words = ["prepare", str(many), str(tmp_path / "s.zarr")]
    limit = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    )
    stopped = limited_run(tmp_path, words, limit)
    assert stopped.returncode == 1
    assert "File too large" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    store, summary = run(many, tmp_path / "s.zarr")
    assert (summary.done, summary.failed) == (24, 0)
    assert arrays_of(store) == arrays_of(run(many, tmp_path / "whole.zarr")[0])
    assert validate(store) == []


def bound_by_modes(*words: object) -> subprocess.CompletedProcess:
    """`mclip` as a user whom file modes bind: root without the capabilities that lead around them."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        pytest.skip("root reads and writes everything: needs setpriv of util-linux")
    bound = [setpriv, "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*bound, sys.executable, "-m", "mclip.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_unreadable_file_fails_by_name_and_is_prepared_once_it_can_be_read(tmp_path, amass_folder):
    file, url = amass_folder / "KIT/3/kick_poses.npz", tmp_path / "s.zarr"
    file.chmod(0)
    for done in (4, 0):  # and again: nothing is added
        told = bound_by_modes("prepare", amass_folder, url)
        assert f"{done} sequences done" in told.stdout, told.stderr
        assert len(open_store(url).strings("sequences/name")) == 5
    assert open_store(url).attributes("prepare")["failures"] == {
        "sequences/done[2]": "KIT/3/kick_poses.npz: Permission denied"
    }
    assert validate(open_store(url)) == []
    file.chmod(0o644)
    assert "1 sequences done" in bound_by_modes("prepare", amass_folder, url).stdout
    assert open_store(url).attributes("prepare")["failures"] == {}


def test_a_read_only_store_is_refused_by_name_and_stays_sound(prepared, amass_folder, write_amass):
    url = Path(prepared.url)
    write_amass(amass_folder / "NEW/a_poses.npz")
    before = files_of(url)
    for path in (url, *url.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    told = bound_by_modes("prepare", amass_folder, url)
    assert (told.returncode, told.stdout) == (1, "")
    assert f"{url}: this account may not write to {url}: make it writable" in told.stderr
    assert files_of(url) == before
    assert bound_by_modes("validate", url).stdout == f"{url}: sound\n"
    url.chmod(0o755)
    assert (
        "Permission denied" in bound_by_modes("prepare", amass_folder, url).stderr
    )  # the arrays below are not ours yet
    assert validate(open_store(url)) == []
    for path in url.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    assert "1 sequences done, 5 skipped" in bound_by_modes("prepare", amass_folder, url).stdout


def test_fuzzed_files_are_done_or_failed_by_name_and_never_half(tmp_path, write_amass):
    good = write_amass(tmp_path / "good.npz", 6, width=72, dmpls=None).read_bytes()
    folder, generator = tmp_path / "fuzz", np.random.default_rng(0)
    folder.mkdir()
    for number in range(2000):
        (folder / f"{number:04}.npz").write_bytes(mutated(good, generator))
    store, summary = run(folder, tmp_path / "s.zarr")
    assert summary.done + summary.failed == 2000
    assert summary.failed > 800
    assert summary.done > 50  # what was only touched in an unused field
    assert validate(store) == []
    failures = store.attributes("prepare")["failures"]
    for item in np.flatnonzero(store.read("sequences/done") == FAILED):
        assert failures[f"sequences/done[{item}]"].startswith(f"{item:04}.npz: ")


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with a few changed, cut, doubled or zeroed."""
    data = bytearray(content)
    at = int(generator.integers(len(data)))
    match generator.integers(5):
        case 0:
            data[at] ^= 1 << int(generator.integers(8))
        case 1:
            del data[at:]
        case 2:
            data[at:at] = data[at : at + 50]
        case 3:
            data[at : at + 20] = bytes(20)
        case 4:
            for place in generator.integers(len(data) - 400, len(data), 3):  # the zip's directory
                data[place] = int(generator.integers(256))
    return bytes(data)


def test_babel_labels_of_real_motions_reach_their_windows(tmp_path):
    data = MOTIONS
    store, summary = run(data, tmp_path / "s.zarr", labels=read_labels([data / "babel"]))
    assert (summary.done, summary.failed) == (20, 0)
    assert (store.read("labelsets/text")[store.read("windows/labelset")[:, 0]] >= 0).all()


# --- stores elsewhere


def test_a_store_in_memory_is_the_store_on_disk(tmp_path, prepared, amass_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, _ = run(amass_folder, "memory://prepare/test.zarr")
    assert arrays_of(store) == arrays_of(prepared)
    assert len(read_neighbour(store.url, ".manifest.jsonl").splitlines()) == 6
    assert validate(store) == []
