"""Nested arrays of pickle, joblib and torch come back, and nothing in a file of them is run, whatever it asks for."""

import collections
import io
import pathlib
import pickle

import joblib
import numpy as np
import pytest
import torch

from mclip.pipeline.files import nested
from mclip.pipeline.files.nested import MOST_TUPLES, is_nested, read_nested
from mclip.pipeline.prepare.amass import parse_motion

RANDOM = np.random.default_rng(0)


def value() -> dict[object, object]:
    """Every kind of thing that estimators put beside their arrays."""
    inner = {"d": RANDOM.normal(size=(4, 6)).T, "e": [np.float32(2), 7, "x", None], "f": slice(1, 2)}
    found = {
        "a": RANDOM.normal(size=(5, 3)),
        "b": np.arange(4, dtype=">i4"),
        np.int64(4): inner,
        5: torch.ones(2, 3).t(),
    }
    return collections.defaultdict(dict, found | {"path": pathlib.PosixPath("video.mp4"), "mask": np.array(["u", "v"])})


def as_torch(found: object, *, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(found, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def by_joblib(found: object, folder: pathlib.Path, compress: object) -> bytes:
    joblib.dump(found, folder / "a.pkl", compress=compress)
    return (folder / "a.pkl").read_bytes()


def check(found: dict[object, object], made: dict[object, object]) -> None:
    """The arrays of both are equal; the twin is the value that was written."""
    assert np.array_equal(found["a"], made["a"])
    assert np.array_equal(found["b"], made["b"])
    assert np.array_equal(found[4]["d"], made[4]["d"])
    assert np.array_equal(found[5], np.ones((3, 2)))
    assert found[4]["e"] == [2.0, 7, "x", None]
    assert (found["path"], found["mask"], found[4]["f"]) == (None, None, None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_every_protocol_comes_back(protocol: int) -> None:
    made = value()
    if protocol < 2:  # which cannot write a slice
        made[4]["f"] = None
    check(read_nested(pickle.dumps(made, protocol)), made)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 1), ("lzma", 1)])
def test_what_joblib_writes_comes_back(tmp_path: pathlib.Path, compress: object) -> None:
    made = value()
    content = by_joblib(made, tmp_path, compress)
    assert is_nested(content[:6])
    check(read_nested(content), made)


def test_what_torch_saves_comes_back_with_numpys_arrays_in_it() -> None:
    made = value()
    made["half"], made["wide"] = torch.full((3,), 1.5, dtype=torch.bfloat16), torch.arange(10.0).expand(7, 10)
    found = read_nested(as_torch(made))
    check(found, made)
    assert found["half"].tolist() == [1.5] * 3
    assert np.array_equal(found["wide"], np.tile(np.arange(10.0), (7, 1)))
    old = read_nested(as_torch({"a": torch.arange(3.0), "b": [torch.zeros(2)]}, old=True))
    assert old["a"].tolist() == [0, 1, 2]


class Trap:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (pathlib.Path.touch, (self.path,))


def test_code_in_a_file_is_named_and_never_run(tmp_path: pathlib.Path) -> None:
    trap = Trap(tmp_path / "ran")
    for content in (pickle.dumps({"a": trap}), by_joblib({"a": trap}, tmp_path, 3), as_torch([trap])):
        with pytest.raises(pickle.UnpicklingError, match="asks for .*, which is never run"):
            read_nested(content)
    assert not trap.path.exists()
    pickle.loads(pickle.dumps(trap))  # the control: the trap works
    assert trap.path.exists()


def doubled(times: int) -> bytes:
    """Opcodes of a list that holds a list twice, which holds one twice, and so on."""
    return b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(times))


ATTACKS = {
    "tuples in one another": (b"\x80\x04)" + b"\x85" * 900 + b".", f"over {MOST_TUPLES} tuples"),
    "steps": (b"\x80\x04" + b"N0" * 1000 + b"N.", "over 1,000 steps"),
    "a buffer of 8 exabytes": (
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f" + b".",
        "^$",  # EOFError,
    ),
    "lists of lists of lists": (b"\x80\x02" + doubled(30) + b".", "over 1,000 values"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_asks_for_too_much_is_refused(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "MOST_STEPS", 1000)
    monkeypatch.setattr(nested, "MOST_VALUES", 1000)
    content, told = ATTACKS[attack]
    with pytest.raises(Exception, match=told):
        read_nested(content)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused() -> None:
    content = as_torch({"a": torch.arange(6.0)})
    size = content.index(b"K\x06\x85")  # the tensor's size in the pickle
    longer = content[:size] + b"K\x66\x85" + content[size + 3 :]
    with pytest.raises(Exception, match="out of bounds|checksum|CRC"):
        read_nested(longer)


def test_two_thousand_damaged_files_are_read_or_refused_and_nothing_else(tmp_path: pathlib.Path) -> None:
    poses, generator = np.zeros((4, 72)), np.random.default_rng(1)
    made = {1: {"pose": poses, "trans": poses[:, :3]}, 2: {"pose": poses, "trans": poses[:, :3]}}
    wholes = [pickle.dumps(made), by_joblib(made, tmp_path, 0), by_joblib(made, tmp_path, 3), as_torch(made)]
    refused = 0
    for number in range(2000):
        content = bytearray(wholes[number % len(wholes)])
        # Most of a file is numbers: damage goes to its beginning as often as anywhere.
        ends = (min(300, len(content)), len(content))
        for _ in range(generator.integers(1, 4)):
            content[generator.integers(ends[number // 4 % 2])] = generator.integers(256)
        cut = bytes(content[: generator.integers(len(content))] if number % 5 == 0 else content)
        try:
            parse_motion(cut, member="person_1")
        except ValueError as error:  # MotionError
            refused += "person_1" not in str(error) and "frame rate" not in str(error)
    assert refused > 500
