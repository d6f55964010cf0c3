"""Words on their way to a terminal: whatever a file, a label or a prompt holds, they give it no orders."""

import sys
import unicodedata
from collections.abc import Iterable

import click

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control and format characters, lone surrogates, line separators
JOINERS = "\u200c\u200d"  # of letters in Persian and Hindi, and of emoji: they do no harm


def say(line: object) -> None:
    """Say a result on stdout."""
    click.echo(visible(str(line)))


def warn(line: str) -> None:
    """Say a line on stderr, beside the results."""
    print(visible(line), file=sys.stderr)


def visible(text: str, *, keep: str = "\n\t") -> str:
    """A text that a terminal cannot take for orders: control characters as \\u001b, but for those to `keep`.

    So are marks that turn the direction of writing, and bytes of file names that are no UTF-8. JSON stays the same.
    """
    kept = {*keep, *JOINERS}
    return "".join(c if c in kept or unicodedata.category(c) not in HIDDEN else escaped(c) for c in text)


def visible_lines(lines: Iterable[str]) -> str:
    """Several lines as one text, each a line whatever names it holds."""
    return "\n".join(visible(line, keep="") for line in lines)


def first_line(error: Exception) -> str:
    """An error in a line: its text up to the first detail, or what kind it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def escaped(character: str) -> str:
    """A character as JSON may write it."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
