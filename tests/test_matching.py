"""Whose labels are whose: the ends of paths decide, whatever the folders above, and nothing is held out by luck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mclip.pipeline.labels.matching import Recording, match
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import LabelError, Labels, Span

WALK = (Span("walk"),)


def labels_of(*keys: str, split: str = "val") -> Labels:
    return Labels(dict.fromkeys(keys, WALK), dict.fromkeys(keys, split))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("CMU/CMU/01/01_01_poses.npz", "CMU/01/01_01"),
        ("BMLrub/BioMotionLab_NTroje/rub001/0000 x_poses.npz", "BMLrub/rub001/0000_x"),
        ("AMASS/SSMsynced/SSM_synced/20/walk_poses.npz", "SSM/20/walk"),
        (r"D:\data\AMASS\CMU\01\01_01_STAGEII.NPZ", "CMU/01/01_01"),
        ("/mnt/x/KIT/3/kick_stageii.npz", "KIT/3/kick"),
        ("CMU.tar.bz2!/CMU/01/01_01_poses.npz", "CMU/01/01_01"),
        ("./mine/a.bvh", "mine/a"),
    ],
)
def test_a_recording_is_called_the_same_wherever_it_lies(path, key):
    assert sequence_key(path) == key


@pytest.mark.parametrize(
    ("above", "name"),
    [
        ((), "CMU/CMU/01/01_01_poses.npz"),
        (("data", "AMASS", "CMU"), "01/01_01_poses.npz"),
        (("AMASS", "CMU", "01"), "01_01_poses.npz"),  # a single file
        (("data",), "mocap/AMASS/CMU/01/01_01_stageii.npz"),
        (("data", "mocap"), "01/01_01_poses.npz"),  # nobody says that it is CMU, but nobody else ends so
    ],
)
def test_labels_are_found_from_one_folder_too_high_or_too_low(above, name):
    found = match(labels_of("CMU/01/01_01", "KIT/3/kick"), [Recording(name, above)])
    assert (found.keys, found.splits) == (["CMU/01/01_01"], ["val"])
    assert found.labels_alone == ["KIT/3/kick"]


def test_a_sets_official_split_holds_wherever_its_folder_lies():
    names = [("SSM_synced",), ("AMASS", "SSM_synced"), ("AMASS", "MPI_HDM05"), ("AMASS", "KIT")]
    found = match(Labels(), [Recording("20/walk_poses.npz", above) for above in names])
    assert found.splits == ["test", "test", "val", "train"]


def test_own_labels_are_found_above_and_below_their_folder():
    labels = labels_of("clips/walk", "clips/run")
    found = match(labels, [Recording("walk.npz", ("mine", "clips")), Recording("mine/clips/run.npz")])
    assert found.keys == ["clips/walk", "clips/run"]


def test_two_data_sets_are_never_taken_for_each_other():
    with pytest.raises(LabelError, match="none of the 1 labelled sequences is among the 1 files"):
        match(labels_of("KIT/3/walk", split="train"), [Recording("CMU/3/walk.npz")])


def test_one_label_for_two_recordings_is_nobodys():
    found = match(
        labels_of("walk", "a/run", split="train"), [Recording(f"{x}.npz") for x in ("x/walk", "y/walk", "a/run")]
    )
    assert found.keys == ["x/walk", "y/walk", "a/run"]
    assert found.files_alone == ["x/walk", "y/walk"]
    assert found.told[0] == "file without labels: 'x/walk', the most alike: 'walk'"


def test_labels_and_splits_that_are_nobodys_are_refused_with_the_nearest():
    expected = "none of the 1 labelled sequences is among the 1 files: they are called as 'CMU/01/01_01', the files as"
    with pytest.raises(LabelError, match=f"{expected} '99/zz'"):
        match(labels_of("CMU/01/01_01"), [Recording("99/zz.npz")])
    with pytest.raises(LabelError, match="none of the 1 paths with a split is among the 1 files"):
        match(Labels(split={"CMU/01/01_01": "val"}), [Recording("99/zz.npz")])


def test_a_clip_that_may_be_held_out_is_never_training_data():
    labels = Labels({"KIT/3/kick": WALK, "mine/01/01_01": WALK}, {"KIT/3/kick": "train", "mine/01/01_01": "test"})
    with pytest.raises(LabelError, match="'mine/1/01_01' would be training data, but may be 'mine/01/01_01', .* test"):
        match(labels, [Recording("KIT/3/kick.npz"), Recording("mine/1/01_01.npz")])


FOLDERS = st.lists(st.sampled_from(("data", "AMASS", "x y", "CMU")), max_size=3)


@given(FOLDERS, st.sampled_from(("_poses.npz", "_stageii.npz", ".npz")), st.booleans())
def test_every_file_and_every_label_is_counted_once(above, ending, backslash):
    name = "/".join((*above, "CMU", "01", f"01_01{ending}"))
    recordings = [Recording(name.replace("/", "\\") if backslash else name), Recording("KIT/9/other.npz")]
    labels = labels_of("CMU/01/01_01", "SFU/1/gone")
    found = match(labels, recordings)
    assert found.keys == ["CMU/01/01_01", "KIT/9/other"]
    assert len(found.files_alone) + sum(key in labels.spans for key in found.keys) == len(recordings)
    assert len(found.labels_alone) + sum(key in found.keys for key in labels.spans) == len(labels.spans)
