"""Pickles are followed before they are read: bounded in depth, memo and steps, and what is cut says what is missing."""

import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mclip.pipeline.files import pickles
from mclip.pipeline.files.pickles import MOST_TUPLES, check_pickle, check_pickle_file

DEEP = b"\x80\x02}" + b")" + b"\x85" * 3_000_000 + b"K\x01s."
ATTACKS = {
    "a tuple nested as a key": DEEP,
    "a memo number": b"\x80\x02Nr" + struct.pack("<I", 1_000_000_000) + b".",
    "a memo number as text": b"Np1000000000\n.",
    "a memo number of a thousand digits": b"Np" + b"9" * 1000 + b"\n.",
    "a tuple doubled forty times": b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s.",
    "the same by the memo": b"\x80\x02})" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(40)) + b"K\x01s.",
    "nested behind a mark that is popped": b"\x80\x02})" + b"(0\x85" * 100_000 + b"K\x01s.",
    "an empty stack": b"\x80\x02\x85.",
    "another's mark": b"\x80\x02N(\x85.",
    "no mark": b"\x80\x02NNt.",
    "no opcode": b"\xff.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_asks_for_too_much_is_refused(attack: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        check_pickle(ATTACKS[attack])


def test_steps_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    with pytest.raises(pickle.UnpicklingError, match="over 1,000 steps"):
        check_pickle(b"\x80\x02" + b"N0" * 1000 + b"N.")


def test_the_attack_ends_a_process_that_does_not_look(tmp_path: Path) -> None:
    (tmp_path / "deep.pkl").write_bytes(DEEP)
    program = f"import pickle; pickle.load(open({str(tmp_path / 'deep.pkl')!r}, 'rb'))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode < 0


def values(chance: random.Random, depth: int = 0) -> Any:
    """Any value that a pickle of arrays has."""
    kinds = (int, float, str, bytes, tuple, list, dict, set, np.ndarray)
    kind = chance.choice(kinds if depth < 4 else kinds[:4])
    inner = [values(chance, depth + 1) for _ in range(chance.randint(0, 5))] if kind in (tuple, list, dict) else []
    if kind is dict:
        return {str(number): each for number, each in enumerate(inner)}
    if kind in (tuple, list):
        return kind(inner)
    return {int: 3, float: 0.5, str: "ä" * 300, bytes: b"x" * 300, set: {1, "a"}, np.ndarray: np.ones((3, 2))}[kind]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_any_values_are_followed_to_their_end(protocol: int) -> None:
    chance = random.Random(protocol)
    for _ in range(50):
        content = pickle.dumps(values(chance), protocol=protocol)
        assert check_pickle(content) == len(content)
        assert check_pickle(b"before" + content + b"behind", 6) == 6 + len(content)


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_cut_says_how_many_bytes_are_missing(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"v": np.zeros((50, 3))}, protocol=protocol)
    file = tmp_path / "model.pkl"
    file.write_bytes(content[:400])
    with pytest.raises(
        pickle.UnpicklingError, match=r"cut short: 400 bytes, and at least [\d,]+ more are missing"
    ) as told:
        check_pickle_file(file)
    missing = int(str(told.value).split()[-4].replace(",", ""))
    assert 0 < missing <= len(content) - 400
    file.write_bytes(b"")
    with pytest.raises(pickle.UnpicklingError, match="0 bytes, and at least 1 more are missing"):
        check_pickle_file(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_cut_is_seen(protocol: int) -> None:
    content = pickle.dumps({"v": (1, "two", b"three", [4.5, None]), "w": {6}}, protocol=protocol)
    for length in range(len(content)):
        with pytest.raises(pickle.UnpicklingError, match="is cut short"):
            check_pickle(content[:length])


def test_tuples_are_counted_at_all_depths() -> None:
    def nested(depth: int) -> Any:
        return (nested(depth - 1),) if depth else ()

    assert check_pickle(pickle.dumps(nested(100)))
    flat = pickle.dumps(tuple(() for _ in range(MOST_TUPLES)))
    with pytest.raises(pickle.UnpicklingError, match="holds over 10,000 tuples"):
        check_pickle(flat)
    assert check_pickle(pickle.dumps([() for _ in range(MOST_TUPLES)]))
