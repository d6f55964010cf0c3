"""The store: schema, strings, options, locks, and what it refuses to be."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.pipeline.store import schema as stores
from mclip.pipeline.store.lock import claim, describe_holder, one_writer, remote_lock
from mclip.pipeline.store.schema import SCHEMA, StoreError, spec_of
from mclip.pipeline.store.store import Store, delete_store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "s.zarr", create=True)


def test_every_array_of_the_schema_is_made_as_it_says(store):
    sizes = {"shifts": 41, "size": 8, "width": 16}
    for path, spec in SCHEMA.items():
        path = path.replace("*", "offline")
        array = store.grow(path, 3, **sizes)
        assert array.dtype == np.dtype(spec.dtype), path
        assert array.shape[1:] == tuple(sizes.get(size, size) for size in spec.row), path
        assert array.attrs["doc"] == spec.doc
        assert "Crc32c" in str(array.metadata.codecs)
        assert spec_of(path) is spec
        if spec.shard:
            assert array.shards[0] == spec.chunk * spec.shard


def test_frames_of_all_of_amass_are_a_few_hundred_files():
    frames = 42 * 3600 * 30
    assert frames / stores.FRAME_CHUNK < 300


def test_growing_keeps_what_is_there(store):
    store.write("sequences/row", np.arange(3))
    store.grow("sequences/row", 5)
    assert store.read("sequences/row").tolist() == [0, 1, 2, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), max_size=8), st.lists(st.text(), max_size=8))
def test_strings_come_back_whatever_is_in_them_and_whatever_was_there(first, second):
    store = open_store("memory://strings.zarr", create=True)
    for strings in (first, second):
        strings = [each for each in strings if not any(0xD800 <= ord(letter) < 0xE000 for letter in each)]
        store.write_strings("texts", strings)
        assert store.strings("texts") == strings


def test_file_names_that_are_not_utf8_and_megabyte_strings_come_back(store):
    names = [os.fsdecode(b"caf\xe9.npz"), "line\nbreak", "", "x" * (1 << 20), "日本語"]
    store.write_strings("sequences/name", names)
    assert store.strings("sequences/name") == names


def test_other_options_are_refused_with_the_difference_and_the_remedy(store):
    store.fix_options("prepare", {"fps": 30.0, "window": 100})
    store.fix_options("prepare", {"fps": 30.0, "window": 100})
    with pytest.raises(
        StoreError, match=r"made with \{'fps': 30.0\}, this command asks for \{'fps': 20.0\}.*--replace"
    ):
        store.fix_options("prepare", {"fps": 20.0, "window": 100})


def test_missing_array_names_the_command_that_makes_it(store):
    with pytest.raises(StoreError, match="no pictures/rgb in this store; run `mclip render"):
        store.read("pictures/rgb")


def test_no_store_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(StoreError, match="nothing.zarr: no store here; `mclip prepare SOURCE"):
        open_store(tmp_path / "nothing.zarr")


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="exists and is no store; expected a new or empty folder"):
        open_store(tmp_path, create=True)
    delete_store(str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_foreign_zarr_group_is_refused_and_left_alone(tmp_path):
    zarr.create_group(str(tmp_path / "g.zarr"), attributes={"mine": 1})
    for do in (open_store, delete_store, lambda url: open_store(url, create=True)):
        with pytest.raises(StoreError, match="a Zarr group, but not one of mclip's"):
            do(str(tmp_path / "g.zarr"))
    assert zarr.open_group(str(tmp_path / "g.zarr")).attrs["mine"] == 1


def test_a_store_of_another_format_is_refused_with_both_versions(store):
    store.root.attrs["mclip"] = {"format": 99, "version": "7.0"}
    with pytest.raises(StoreError, match="store format 99 written by mclip 7.0, this is mclip .* with format 1"):
        open_store(store.url)


def test_damaged_metadata_is_refused_by_name(store):
    with open(f"{store.url}/zarr.json", "w") as file:
        file.write('{"zarr_format": 3,')
    with pytest.raises(StoreError, match=r"s.zarr: its zarr.json cannot be read .*: restore it"):
        open_store(store.url)


def test_emptied_store_is_a_store_again(store):
    store.write("sequences/row", np.arange(3))
    delete_store(store.url)
    again = open_store(store.url, create=True)
    assert "sequences/row" not in again
    assert again.attributes("conventions") == stores.CONVENTIONS


# --- one writer

HOLD = """
import sys, time
from mclip.pipeline.store.lock import one_writer
with one_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the store, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "s.zarr")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_second_writer_is_refused_with_pid_host_and_age_until_the_first_is_dead(tmp_path, holder):
    url = str(tmp_path / "s.zarr")
    expected = rf"process {holder.pid} on {socket.gethostname()} has been writing here for \d+ s: wait for it"
    with pytest.raises(StoreError, match=expected), one_writer(url):
        pass
    holder.kill()
    holder.wait()
    with one_writer(url):
        assert json.loads((tmp_path / "s.zarr.lock").read_text())["pid"] == os.getpid()


def test_readers_go_on_beside_a_writer_and_clear_the_name_of_a_dead_one(tmp_path, holder):
    lock = tmp_path / "s.zarr.lock"
    open_store(tmp_path / "s.zarr", create=True).write_strings("texts", ["walk"])
    assert open_store(tmp_path / "s.zarr").strings("texts") == ["walk"]
    assert json.loads(lock.read_text())["pid"] == holder.pid  # it lives: nobody takes its name away
    holder.kill()
    holder.wait()
    assert lock.exists()
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mclip.cli", "status", str(tmp_path / "s.zarr")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not lock.exists()
    assert told.stderr == ""
    assert "writing here" not in told.stdout


def test_remote_lock_stays_after_a_crash_until_it_is_taken_over():
    url = "memory://locks/s.zarr"
    with (
        one_writer(url),
        pytest.raises(StoreError, match=rf"process {os.getpid()} on .*; if it is dead, pass --take-over"),
    ):
        with one_writer(url):
            pass
    abandoned = remote_lock(url, take_over=False)
    abandoned.__enter__()  # a process that dies here never leaves
    with pytest.raises(StoreError, match="pass --take-over"), one_writer(url):
        pass
    with one_writer(url, take_over=True):
        pass
    with one_writer(url):
        pass
    abandoned.gen.close()


def test_a_clock_that_goes_backwards_gives_no_negative_age(monkeypatch):
    lock = claim()
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert describe_holder(lock).endswith("has been writing here for 0 s")
    assert describe_holder(b"") == "another process has just begun to write here"


@pytest.mark.parametrize("metadata", [False, True])
def test_a_damaged_array_is_named_with_the_command_that_lists_all(store, tmp_path, metadata):
    store.write("sequences/row", np.arange(3))
    folder = Path(store.url) / "sequences/row"
    file = folder / "zarr.json" if metadata else next(file for file in (folder / "c").rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:-9])
    told = "zarr.json cannot be read" if metadata else "is damaged .*mclip validate .*--replace"
    for at in (None, slice(0, 2)):
        with pytest.raises(StoreError, match=rf"{store.url}: sequences/row.*{told}"):
            open_store(store.url).read("sequences/row", at)


def test_a_missing_package_for_a_url_is_named_with_the_extra_that_brings_it():
    code = "import sys; sys.modules['s3fs'] = None; from mclip.cli import cli; cli()"
    told = subprocess.run([sys.executable, "-c", code, "status", "s3://a/b.zarr"], capture_output=True, text=True)
    assert told.returncode == 1
    assert "Error: s3://a/b.zarr: a package is missing" in told.stderr
    assert "pip install 'mclip[s3]'" in told.stderr
