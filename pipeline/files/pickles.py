"""What a pickle would do, read from its opcodes before anything of it is done.

Python's unpickler takes what a pickle says: memo number 1,000,000,000 is sixteen gigabytes of memo in nine bytes, and a
tuple nested three million deep ends the process when it is hashed. A file of arrays or weights needs none of that.
"""

import mmap
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MOST_STEPS = 1_000_000  # opcodes; a checkpoint of 10,000 tensors has 320,000, followed in 2 s
MOST_TUPLES = 10_000  # in a tuple, at all depths; an array's state has three, and 100,000 deep ends the process
COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
OPCODES = {each.code.encode("latin1"): each for each in pickletools.opcodes}
TWO_LINES = ("GLOBAL", "INST")
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
LOOK_UP = ("GET", "BINGET", "LONG_BINGET")

Content = bytes | mmap.mmap


def check_pickle(content: Content, start: int = 0) -> int:
    """Where the pickle that begins at `start` ends; UnpicklingError for one that is cut short or asks for too much.

    It follows the unpickler's stack and memo, with the number of tuples in each value in place of the value.
    """
    stack, memo = Stack(), dict[int, int]()
    for count, (step, argument, at) in enumerate(steps_of(content, start)):
        number = whole(argument) if step.name in (*MEMO, *LOOK_UP) else len(memo)
        if max(count, number) > MOST_STEPS:
            raise pickle.UnpicklingError(f"asks for over {MOST_STEPS:,} steps or places in the memo, expected arrays")
        if step.name in (*MEMO, "MEMOIZE"):
            memo[number] = stack.top()
        elif step.name in LOOK_UP:
            stack.tuples.append(memo.get(number, 0))
        else:
            stack.follow(step)
        if step.name == "STOP":
            return at
    raise AssertionError("a pickle without STOP is cut short")


@dataclass
class Stack:
    """The unpickler's stack: how many tuples lie in each value, and where its marks are."""

    tuples: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    def top(self) -> int:
        """The last value; UnpicklingError where there is none."""
        (last,) = self.take(1)
        self.tuples.append(last)
        return last

    def take(self, count: int) -> list[int]:
        """Take the last values off, down to the last mark at most; UnpicklingError where there are fewer."""
        first = len(self.tuples) - count
        if first < (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("takes more than it put there: it is damaged, or no pickle")
        taken, self.tuples[first:] = self.tuples[first:], []
        return taken

    def take_marked(self) -> list[int]:
        """Take the last mark off with all behind it; UnpicklingError where there is none."""
        if not self.marks:
            raise pickle.UnpicklingError("takes a mark that it did not put there: it is damaged, or no pickle")
        taken = self.take(len(self.tuples) - self.marks[-1])
        self.marks.pop()
        return taken

    def follow(self, step: pickletools.OpcodeInfo) -> None:
        """What an opcode takes off and puts there."""
        names = [each.name for each in step.stack_before]
        if step.name == "MARK":
            self.marks.append(len(self.tuples))
            return
        if step.name == "POP" and self.marks and self.marks[-1] == len(self.tuples):
            self.marks.pop()  # it takes a mark as it takes a value
            return
        held = sum(self.take_marked()) if "mark" in names else 0
        held += sum(self.take(names.index("mark") if "mark" in names else len(names)))
        if step.name == "DUP":
            self.tuples += [held, held]
        else:
            self.tuples += [1 + held if "TUPLE" in step.name else 0] * len(step.stack_after)
        if self.tuples and self.tuples[-1] > MOST_TUPLES:
            raise pickle.UnpicklingError(f"holds over {MOST_TUPLES:,} tuples in a tuple, expected arrays")


def whole(argument: bytes | int) -> int:
    """The number of a place in the memo, which old protocols write as a line."""
    if isinstance(argument, bytes) and not (argument.isdigit() and len(argument) < 20):
        raise pickle.UnpicklingError(f"names place {argument[:20]!r} of the memo: it is damaged, or no pickle")
    return int(argument)


def steps_of(content: Content, start: int) -> Iterator[tuple[pickletools.OpcodeInfo, bytes | int, int]]:
    """Opcodes with their argument, a number or a line, and where each ends. UnpicklingError where bytes are missing."""
    at = start
    while True:  # until who asks has seen STOP
        step = OPCODES.get(part(content, at, 1))
        if step is None:
            raise pickle.UnpicklingError(f"byte {at:,} is no opcode of a pickle: it is damaged, or no pickle")
        argument: bytes | int = 0
        at += 1
        size = step.arg.n if step.arg else 0
        if size == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if step.name in TWO_LINES else 1):
                ended = content.find(b"\n", at)
                if ended < 0:
                    raise pickle.UnpicklingError("is cut short: the end of a line and all behind it are missing")
                argument, at = content[at:ended], ended + 1
        elif size in COUNTED:
            length = int.from_bytes(part(content, at, COUNTED[size]), "little")
            at += COUNTED[size] + length
            need(content, at)
        else:
            argument = int.from_bytes(part(content, at, size), "little")
            at += size
            if step.name == "FRAME":
                need(content, at + argument)
        yield step, argument, at


def part(content: Content, at: int, size: int) -> bytes:
    """So many bytes; UnpicklingError saying how many are missing."""
    need(content, at + size)
    return content[at : at + size]


def need(content: Content, end: int) -> None:
    """UnpicklingError saying how many bytes are missing, when the content does not reach to `end`."""
    if end > len(content):
        raise pickle.UnpicklingError(
            f"is cut short: {len(content):,} bytes, and at least {end - len(content):,} more are missing"
        )


def check_pickle_file(file: Path, *, most: int = 1) -> None:
    """`check_pickle` of up to so many pickles that a file begins with, without reading it into memory."""
    need(b"", 0 if file.stat().st_size else 1)
    end = 0
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(most):
            end = check_pickle(content, end)
            if end == len(content):
                return
