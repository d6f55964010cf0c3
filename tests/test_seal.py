"""Damage to what a store says of itself: metadata, journals; and readers that are not mclip."""

import json
import random
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import HOUSE
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import array_paths, validate

VIEWER = HOUSE / "workflows" / "viewer"


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A copy of a store with pictures and vectors, to be damaged."""
    for path in Path(store.url).parent.glob(f"{Path(store.url).name}.*.jsonl"):
        shutil.copy(path, tmp_path)
    return Path(shutil.copytree(store.url, tmp_path / Path(store.url).name))


def test_every_flipped_bit_of_metadata_is_found(copy: Path) -> None:
    assert validate(open_store(copy)) == []
    generator = random.Random(0)
    for file in sorted(copy.rglob("zarr.json")):
        whole = file.read_bytes()
        for _ in range(2):
            content = bytearray(whole)
            # White space between tokens says nothing; a flip that leaves it so is none.
            content[generator.choice([at for at, byte in enumerate(whole) if byte > 32])] ^= 1 << generator.randrange(3)
            file.write_bytes(content)
            told = CliRunner().invoke(cli, ["validate", str(copy)])
            assert told.exit_code == 1, (file, bytes(content))
            assert isinstance(told.exception, SystemExit), told.exception
        file.write_bytes(whole)
    assert validate(open_store(copy)) == []


@pytest.mark.parametrize("group", ["", "motion", "motion/trans"])
def test_a_key_that_zarr_does_not_know_is_told_and_ends_no_command_in_a_traceback(copy: Path, group: str) -> None:
    file = copy / group / "zarr.json"
    file.write_bytes(file.read_bytes().replace(b"node_type", b"nkde_type"))
    for words in (["validate"], ["status"], ["inspect", "walk", "--out", str(copy.parent / "walk.png")]):
        told = CliRunner().invoke(cli, [words[0], str(copy), *words[1:]])
        assert told.exception is None or isinstance(told.exception, SystemExit), (words, told.exception)
    told = CliRunner().invoke(cli, ["validate", str(copy)])
    assert told.exit_code == 1
    assert "zarr.json" in told.output


def test_a_flip_in_the_manifest_is_found_and_names_the_line(copy: Path) -> None:
    manifest = copy.with_name(f"{copy.name}.manifest.jsonl")
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([lines[0], lines[1].replace('"done"', '"dome"'), *lines[2:]]))
    assert validate(open_store(copy)) == [f"{manifest}: line 2: it does not fit its crc32"]
    manifest.write_text("".join(lines[1:]))
    assert "2 lines, the store has 3 sequences" in validate(open_store(copy))[0]


def test_zarr_lists_it_without_a_warning_and_what_it_consolidates_hides_nothing(copy: Path) -> None:
    with warnings.catch_warnings(action="error"):
        members = zarr.open_group(str(copy)).members(max_depth=None)
        found = {path for path, node in members if isinstance(node, zarr.Array)}
    assert found == set(array_paths(open_store(copy)))
    with warnings.catch_warnings(action="ignore"):  # of zarr: not part of the specification
        zarr.consolidate_metadata(str(copy))
    opened = open_store(copy)
    assert validate(opened) == []
    opened.grow("latents/model/z", 3, width=4)
    assert "latents/model/z" in open_store(copy)
    assert "latents/model/z" in zarr.open_group(str(copy))  # the copy of before is gone, for other readers too


def test_a_deletion_that_was_cut_short_hides_what_is_left_and_the_next_writer_ends_it(copy: Path, monkeypatch) -> None:
    monkeypatch.setattr(Store, "end_deletion", lambda self: None)
    open_store(copy).forget("pictures", "render")
    monkeypatch.undo()
    left = open_store(copy)
    assert (copy / "pictures/done").is_dir()
    assert "pictures/done" not in left
    assert left.attributes("render") == {}
    assert (left.grow("pictures/done", 3)[...] != DONE).all()
    assert sorted(path.name for path in (copy / "pictures").iterdir()) == ["done", "zarr.json"]


def test_tensorstore_reads_equal_arrays(store: Store) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="needs tensorstore, of mclip[dev]")
    for path in array_paths(store):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.url}/{path}/"}}
        found = tensorstore.open(spec, read=True).result().read().result()
        assert np.array_equal(found, store.read(path)), path


READ = """
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";
import { createHash } from "node:crypto";
const store = new FileSystemStore(process.argv[1]);
for (const path of process.argv.slice(2)) {
  const { data, shape } = await zarr.get(await zarr.open(zarr.root(store).resolve(path), { kind: "array" }));
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  console.log(JSON.stringify([path, shape, createHash("sha256").update(bytes).digest("hex")]));
}
"""


def test_zarrita_reads_equal_arrays(store: Store) -> None:
    if not shutil.which("node") or not (VIEWER / "node_modules/zarrita").is_dir():
        pytest.skip("no zarrita: npm ci in workflows/viewer")
    import hashlib

    paths = [path for path in array_paths(store) if store.array(path).size]
    words = ["node", "--input-type=module", "-e", READ, str(Path(store.url).resolve()), *paths]
    done = subprocess.run(words, cwd=VIEWER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path, shape, digest in map(json.loads, done.stdout.splitlines()):
        expected = store.read(path)
        assert (tuple(shape), digest) == (expected.shape, hashlib.sha256(expected.tobytes()).hexdigest()), path
    assert len(done.stdout.splitlines()) == len(paths)
