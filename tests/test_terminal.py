"""What people see in the terminal: tables that fit it, and words that are only words."""

import csv
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from mclip.cli import cli
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.machine.terminal import table
from mclip.pipeline.machine.words import visible
from mclip.pipeline.store.store import open_store

EVIL = "[/b] [red]walk[/red] [link=x]a\x1b[31m\x9b31m\u202eb\n"
TABLE = """
from mclip.pipeline.machine.terminal import table
row = ('0.98', 'CMU/01/01_01_poses.npz', 'a person walks ' * 9)
print(table('a title', ('cosine', 'clip', 'what it shows'), [row]))
"""
BAR = (
    "from mclip.pipeline.machine.terminal import tracked\nfor _ in tracked(range(3), '[red]walk[/red]', 'things'): pass"
)


def in_terminal(code: str, columns: int, **environment: str) -> str:
    """What a program writes to a terminal that is so wide."""
    leader, follower = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    settings = known | {"TERM": "xterm-256color"} | environment
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower, env=settings)
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # Linux's way to say that the last writer is gone
            break
        if not part:
            break
        written += part
    os.close(leader)
    assert child.wait() == 0, written
    return written.decode()


def test_a_word_in_brackets_is_a_word_in_every_table() -> None:
    told = table(EVIL, (EVIL, "b"), [(EVIL, "[bold]"), ("c", "d")])
    assert told.count("[/b] [red]walk[/red] [link=x]a") == 3
    assert "[bold]" in told


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_table_fits_the_terminal(columns: int) -> None:
    lines = in_terminal(TABLE, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) > 4
    if columns == 200:
        assert any("CMU/01/01_01_poses.npz" in line and line.count("a person walks") == 9 for line in lines)


def test_a_table_in_a_pipe_has_a_whole_line_a_row() -> None:
    told = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True).stdout
    (row,) = [line for line in told.splitlines() if "CMU" in line]
    assert row.count("a person walks") == 9
    head = next(line for line in told.splitlines() if line.startswith("cosine"))
    assert [head.index(name) for name in ("clip", "what")] == [row.index("CMU"), row.index("a person")]


def test_wide_letters_keep_the_columns_in_line() -> None:
    _, head, first, second, *_ = table("t", ("a", "b"), [("跳舞", "x"), ("walk", "y")]).splitlines()
    assert (head, first, second) == ("a     b", "跳舞  x", "walk  y")  # each of the two letters is two cells wide


def test_colours_stay_away_where_the_user_says_so() -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|38;|48;|9[0-7])[0-9;]*m")
    assert coloured.search(in_terminal(BAR, 80))  # the control: the bar has colours
    assert not coloured.search(in_terminal(BAR, 80, NO_COLOR="1"))
    assert "\x1b" not in in_terminal(TABLE, 80)
    assert "[red]walk[/red]" in in_terminal(BAR, 80)


def test_a_pipe_gets_a_line_now_and_then_instead_of_a_bar() -> None:
    often = f"from mclip.pipeline.machine import terminal\nterminal.EVERY = 0\n{BAR}"
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()
        for code in (often, BAR)
    ]
    assert [line.split(",")[0] for line in told[0]] == [f"[red]walk[/red]: {done} of 3" for done in (1, 2, 3)]
    assert told[1] == []  # done in less than half a minute
    assert "1 of 3" not in in_terminal(often, 80)


def test_no_text_gives_orders_to_a_terminal() -> None:
    assert visible("a\x1b]0;title\x07b\x9b2J") == "a\\u001b]0;title\\u0007b\\u009b2J"
    assert visible("a\u202eb\udcff") == "a\\u202eb\\udcff"
    assert visible("zwei\nZeilen\tläuft 跳舞 💃") == "zwei\nZeilen\tläuft 跳舞 💃"
    assert visible("two\nlines", keep="") == "two\\u000alines"
    told = table(EVIL, (EVIL,), [(EVIL,)])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
    assert len(told.rstrip("\n").splitlines()) == 3


def test_a_file_with_orders_in_its_name_is_only_named(tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[31m.npz"
    words = [sys.executable, "-m", "mclip.cli", "export", str(file), "--to", "bvh"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "\\u001b[31m.npz" in told.stderr
    assert "\x1b" not in told.stderr


EVIL_NAME = "a\x1b[31m\x07\n\u202eb"


def test_no_command_that_looks_at_a_store_passes_on_the_orders_in_a_name(
    tmp_path: Path, write_amass: Callable[..., Path]
) -> None:
    source, url = tmp_path / "AMASS", str(tmp_path / "s.zarr")
    good = write_amass(source / f"SET/{EVIL_NAME}/walk{EVIL_NAME}_poses.npz")
    write_amass(source / f"SET/{EVIL_NAME}/bad{EVIL_NAME}_poses.npz", 1)
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as opened:
        rows = [("path", "text"), (f"SET/{EVIL_NAME}/walk{EVIL_NAME}", f"walk {EVIL_NAME}"), (EVIL_NAME, EVIL_NAME)]
        csv.writer(opened).writerows(rows)
    prepare, told = ("prepare", str(source), url, "--labels", str(table)), []

    def tell(*words: str) -> None:
        told.append(CliRunner().invoke(cli, words).output)

    tell(*prepare, "--dry-run")
    tell(*prepare)
    tell("status", url)
    tell("inspect", url, "walk", "--out", str(tmp_path / "picture.png"))
    tell("validate", url)
    open_store(url).array("motion/rot6d")[3] = np.nan
    tell("validate", url)
    tell("inspect", url, EVIL_NAME)  # two sequences have it
    write_amass(good, 90)
    tell(*prepare)
    for output in told:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", output)
    named = [number for number, output in enumerate(told) if "\\u001b[31m\\u0007" in output]
    assert named == [0, 1, 3, 5, 6, 7]  # the fourth is "sound", and status counts by reason
    assert "failed      1 x 1 frames, expected" in told[2]


@given(st.lists(st.text(min_size=1).filter(lambda text: text.split() and "\0" not in text), min_size=1))
@example(['=cmd|" /C calc"!A1', 'a "b", c; d\te', "two\nlines\r\nand\rmore", "\x1b[31m\x07", "\ufeff|", "sep=;", "'"])
def test_any_text_that_a_table_holds_comes_back_equal(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, dialect in (
            ("comma.csv", {}),
            ("semicolon.csv", {"delimiter": ";"}),
            ("tab.csv", {"delimiter": "\t"}),
        ):
            table = Path(folder, name)
            with table.open("w", newline="", encoding="utf-8") as opened:
                csv.writer(opened, **dialect).writerows([("path", "text"), *(("A/b", text) for text in texts)])
            lines = Path(folder, "lines.jsonl")
            lines.write_text("".join(json.dumps({"path": "A/b", "text": text}) + "\n" for text in texts))
            for file in (table, lines):
                spans = read_labels([file]).spans["A/b"]
                assert [span.written or span.text for span in spans] == texts
                assert all(span.text == " ".join(text.split())[:1000] for span, text in zip(spans, texts, strict=True))
