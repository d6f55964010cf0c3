"""validate: a sound store has nothing to say, and each damage is found where it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import validate


def test_a_sound_store_has_no_problems_and_exit_code_zero(prepared):
    assert validate(prepared) == []
    result = CliRunner().invoke(cli, ["validate", prepared.url])
    assert (result.exit_code, result.output) == (0, f"{prepared.url}: sound\n")


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_one_flipped_bit_on_the_disk_is_seen_by_its_checksum(prepared, place):
    flip(Path(prepared.url) / "motion/rot6d/c/0/0/0", place)
    result = CliRunner().invoke(cli, ["validate", prepared.url])
    assert result.exit_code == 1
    assert "motion/rot6d[0:550] cannot be read" in result.output
    assert "1 problems" in result.output


def test_a_file_cut_short_is_seen(prepared):
    path = Path(prepared.url) / "motion/trans/c/0/0"
    path.write_bytes(path.read_bytes()[:100])
    (problem,) = validate(prepared)
    assert problem.startswith("motion/trans[0:550] cannot be read")


def put(store: Store, path: str, at: object, value: object) -> None:
    store.array(path)[at] = value


DAMAGE = {
    "lost shard": (lambda s: (Path(s.url) / "motion/rot6d/c/0/0/0").unlink(), "motion/rot6d[0] of CMU/01/01_01"),
    "NaN": (lambda s: put(s, "motion/rot6d", 3, np.nan), "motion/rot6d[3] of CMU/01/01_01"),
    "length": (lambda s: put(s, "motion/rot6d", 130, 2.0), "motion/rot6d[130] of CMU/01/01_02_poses.npz"),
    "infinity": (lambda s: put(s, "motion/trans", 7, np.inf), "motion/trans[7] of CMU/01/01_01"),
    "row outside": (lambda s: put(s, "sequences/row", 4, 10**6), "sequences/row and frames lead out of motion/*"),
    "overlap": (lambda s: put(s, "sequences/row", 1, 5), "sequences/row: sequences overlap"),
    "mark": (lambda s: put(s, "sequences/done", 0, 9), "sequences/done has marks [9], expected 0 to 3"),
    "no reason": (lambda s: put(s, "sequences/done", 0, 2), "sequences/done[0] failed, and no reason is recorded"),
    "split": (lambda s: put(s, "windows/split", 0, 2), "windows/split: a window in another split than its sequence"),
    "window": (lambda s: put(s, "windows/frames", 0, 500), "windows/row[0]: rows 0 to 500 are not its sequence's"),
    "labelset": (lambda s: put(s, "windows/labelset", 0, 99), "windows/labelset: expected 0 to 0"),
    "text": (lambda s: put(s, "labelsets/text", 0, 5), "labelsets/text: expected texts 0 to -1"),
    "column": (lambda s: s.grow("sequences/fps", 9), "sequences/* have different lengths"),
    "names": (lambda s: put(s, "sequences/name/offset", 2, 10**6), "sequences/name/offset does not divide"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_its_place(prepared, name):
    damage, expected = DAMAGE[name]
    damage(prepared)
    problems = validate(prepared)
    assert any(problem.startswith(expected) for problem in problems), problems


def test_a_list_of_names_whose_beginnings_were_lost_is_seen(prepared):
    (Path(prepared.url) / "sequences/name/offset/c/0").unlink()
    assert any("sequences/name/offset does not divide" in problem for problem in validate(prepared))


ARRAYS = ("motion/rot6d", "sequences/betas", "sequences/name", "windows/labelset", "texts", "spans/text", "motion")


@pytest.mark.parametrize("path", ARRAYS)
def test_an_array_that_is_missing_as_a_whole_is_named(prepared, path):
    shutil.rmtree(Path(prepared.url) / path)
    result = CliRunner().invoke(cli, ["validate", prepared.url])
    assert result.exit_code == 1
    assert f"{path} is missing" in result.output
    assert "1 problems" in result.output


def test_missing_pictures_and_vectors_are_named_and_what_was_never_made_is_not(store, tmp_path):
    url = tmp_path / "store.zarr"
    shutil.copytree(store.url, url)
    assert not any("missing" in problem for problem in validate(open_store(url)))
    name = next(iter(store.encoders))
    for path in ("pictures/rgb", f"embeddings/{name}/text_done"):
        shutil.rmtree(url / path)
    (url / "windows/zarr.json").unlink()
    told = [problem.split(" is ")[0] for problem in validate(open_store(url))]
    assert told == ["windows", "pictures/rgb", f"embeddings/{name}/text_done"]
