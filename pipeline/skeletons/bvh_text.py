"""The text of a BVH file: its hierarchy and its numbers, as they stand there, in the file's own units and axes."""

# T frames, J joints (End Sites are joints without channels), C channels

import codecs
import re
from dataclasses import dataclass

import numpy as np

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.machine.compiled import compiled

MOST_JOINTS = 1000  # the largest skeletons with faces and fingers have some 300
MOTION = re.compile(rb"^[ \t]*MOTION\b", re.IGNORECASE | re.MULTILINE)
TIMES = re.compile(rb"\s*Frames[ \t]*:\s*(\S+)\s+Frame[ \t]*Time[ \t]*:\s*(\S+)", re.IGNORECASE)
CHANNEL = r"[XYZ](?:rotation|position|scale)"
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?(?=\s)"  # behind an OFFSET: SOMA's writer adds the turn at rest
HIERARCHY = re.compile(
    r"^[ \t]*(?P<joint>ROOT|JOINT)\b[ \t]*(?P<name>[^\r\n{]*)"
    r"|^[ \t]*(?P<end>End\b[^\r\n{]*)"
    rf"|\bOFFSET[ \t]+(?P<offset>\S+[ \t]+\S+[ \t]+\S+)(?:[ \t]+{NUMBER})*"
    rf"|\bCHANNELS[ \t]+(?P<count>\d+)(?P<channels>(?:\s+{CHANNEL}\b)*)"
    r"|(?P<brace>[{}])",
    re.IGNORECASE | re.MULTILINE,
)
POSITION, ROTATION, SCALE = range(3)


@dataclass(frozen=True)
class Bvh:
    """A BVH file's content. Joint j's channels are the columns first[j] to first[j + 1]; parents precede children."""

    names: tuple[str, ...]
    parents_J: np.ndarray  # -1 for a root
    offsets_J3: np.ndarray
    ends_J: np.ndarray  # whether it is an End Site
    first_J: np.ndarray  # one longer than the joints
    kind_C: np.ndarray  # POSITION, ROTATION or SCALE
    axis_C: np.ndarray  # 0, 1, 2 for x, y, z
    values_TC: np.ndarray  # as in the file: its unit of length, and degrees
    frame_time: float  # seconds


def read_bvh(content: bytes | memoryview) -> Bvh:
    """A BVH file's hierarchy and numbers. MotionError saying which word, row or joint is not as the format has it."""
    text = plain_text(content)
    motion = MOTION.search(text)
    if not motion:
        raise MotionError("no line `MOTION` in it: expected a BVH file with a HIERARCHY and a MOTION part")
    head = bytes(text[: motion.start()]).decode("utf-8", "replace")
    names, parents, offsets, ends, channels = read_hierarchy(head)
    frames, frame_time, begin = read_times(text, motion.end())
    width = sum(map(len, channels))
    letters = "".join("".join(each) for each in channels)
    return Bvh(
        tuple(names),
        np.array(parents),
        np.array(offsets),
        np.array(ends),
        np.cumsum([0, *map(len, channels)]),
        np.array(["prs".index(kind) for kind in letters[1::2]], int),
        np.array(["xyz".index(axis) for axis in letters[::2]], int),
        read_values(text, begin, frames=frames, width=width),
        frame_time,
    )


def plain_text(content: bytes | memoryview) -> bytes | memoryview:
    """The file's bytes as ASCII reads them: UTF-16, as some editors on Windows save, is decoded."""
    if bytes(content[:2]) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return bytes(content).decode("utf-16", "replace").encode()
    return content[3:] if bytes(content[:3]) == codecs.BOM_UTF8 else content


def read_times(text: bytes | memoryview, at: int) -> tuple[int, float, int]:
    """Frames, seconds between them, and where the numbers begin, of the MOTION part at `at`."""
    found = TIMES.match(text, at)
    try:
        if not found:
            raise ValueError("no `Frames:` and `Frame Time:`")
        frames, time = int(found[1]), float(found[2].replace(b",", b"."))
    except ValueError as error:
        raise MotionError(f"{error} after MOTION: expected a BVH file's head of numbers") from error
    if frames < 1:
        raise MotionError(f"Frames is {frames}: expected at least one")
    return frames, time, found.end()


def read_hierarchy(head: str) -> tuple[list[str], list[int], list[list[float]], list[bool], list[list[str]]]:
    """Names, parents, OFFSETs, whether it is an End Site, and channels ("xp", "zr", ...) of every joint, in order.

    Any letter case, blanks in names, several roots, and End Sites missing are read; every other deviation is a
    MotionError.
    """
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    ends: list[bool] = []
    channels: list[list[str]] = []
    open_joints: list[int] = []
    for token in HIERARCHY.finditer(head):
        last = names[-1] if names else "HIERARCHY"
        if token["joint"] or token["end"]:
            parents.append(open_joints[-1] if open_joints else -1)
            name = (token["name"] or "").strip() or f"joint {len(names)}"
            names.append(f"{names[parents[-1]]} end" if token["end"] and open_joints else name)
            ends.append(bool(token["end"]))
            channels.append([])
        elif token["offset"]:
            offsets.append(numbers_of(token["offset"], last))
        elif token["count"]:
            channels[-1:] = [channels_of(token["channels"], int(token["count"]), last)]
        elif token["brace"] == "{":
            open_joints.append(len(names) - 1)
        elif not open_joints:
            raise MotionError(f"a `}}` too many after {last}")
        else:
            open_joints.pop()
        if len(offsets) > len(names) or len(open_joints) > len(names) or len(offsets) + 1 < len(names):
            raise MotionError(f"{last}: expected one OFFSET and one pair of braces a joint")
        if len(names) > MOST_JOINTS:
            raise MotionError(f"more than {MOST_JOINTS:,} joints: no body has so many")
    if rest := HIERARCHY.sub("", re.sub(r"\A\s*HIERARCHY\b", "", head, flags=re.IGNORECASE)).split():
        raise MotionError(f"cannot read {' '.join(rest[:4])[:60]!r} in its HIERARCHY")
    if open_joints or not names or len(offsets) != len(names):
        raise MotionError(f"its HIERARCHY ends early: {len(names)} joints, {len(open_joints)} of them not closed")
    return names, parents, offsets, ends, channels


def numbers_of(text: str, joint: str) -> list[float]:
    """The three numbers of an OFFSET; MotionError where they are none."""
    try:
        numbers = [float(word.replace(",", ".")) for word in text.split()]
    except ValueError as error:
        raise MotionError(f"{joint}: OFFSET {text[:60]!r}: expected three numbers") from error
    if not np.isfinite(numbers).all() or max(map(abs, numbers)) > 1e9:
        raise MotionError(f"{joint}: OFFSET {text[:60]!r}: expected three finite numbers")
    return numbers


def channels_of(text: str, count: int, joint: str) -> list[str]:
    """Channels as axis and kind ("xp" of Xposition); MotionError where there are not as many as the file says."""
    found = [word[0].lower() + word[1].lower() for word in text.split()]
    if len(found) != count:
        raise MotionError(f"{joint}: {count} CHANNELS, and {len(found)} names like Zrotation behind them")
    return found


def read_values(text: bytes | memoryview, begin: int, *, frames: int, width: int) -> np.ndarray:
    """The numbers (frames, width) of the MOTION part. What stands behind the declared frames is left.

    A last frame that was cut short is the one before it again, for the length is declared; fewer are a MotionError.
    """
    if not width:
        raise MotionError("no CHANNELS in its HIERARCHY: nothing moves")
    if frames * width > len(text):  # a number and a blank take two bytes: else the header asks for memory in vain
        raise MotionError(f"says {frames:,} frames of {width} numbers, and has {len(text):,} bytes")
    values_TC = np.empty((frames, width))
    count, odd_row, odd_count, at = read_rows(np.frombuffer(text, np.uint8), begin, values_TC.reshape(-1), width)
    if at >= 0:
        word = bytes(text[at : at + 40]).split()[0].decode("utf-8", "replace")
        raise MotionError(f"cannot read {word!r} among its numbers, in frame {count // width}")
    cut = odd_row == frames - 1 > 0 and odd_count < width
    if odd_row >= 0 and not cut:
        raise MotionError(f"frame {odd_row} has {odd_count} numbers, its CHANNELS are {width}")
    if count < frames * width and not cut:
        raise MotionError(f"says {frames:,} frames and has {count // width:,}: copy or export it again")
    if cut:
        values_TC[-1] = values_TC[-2]
    if not np.isfinite(values_TC).all():
        raise MotionError(
            f"numbers that are not finite, first in frame {int((~np.isfinite(values_TC)).argmax()) // width}"
        )
    return values_TC


@compiled
def read_rows(text_B, begin, values_N, width):  # type: ignore[no-untyped-def]
    """Fill `values_N` with the numbers from `begin`; pybvh, which uses Python's float, is the slow twin in the tests.

    Returns how many there were, the first row of another width with its width (or -1, 0), and where a word stands that
    is no number (or -1). Up to 18 digits are exact integers; one division by an exact power of ten rounds once.
    """
    powers = np.array([10.0**n for n in range(23)])
    count, row, in_row, odd_row, odd_count, at = 0, 0, 0, -1, 0, begin
    end = len(text_B)
    while at < end and count < len(values_N):
        byte = text_B[at]
        if byte == 10 or byte == 13:
            if in_row > 0:
                if in_row != width and odd_row < 0:
                    odd_row, odd_count = row, in_row
                row += 1
                in_row = 0
            at += 1
            continue
        if byte <= 32:
            at += 1
            continue
        start = at
        negative = byte == 45
        if byte == 45 or byte == 43:
            at += 1
        digits, mantissa, exponent = 0, 0, 0
        while at < end:
            digit = text_B[at] - 48
            if digit < 0 or digit > 9:
                break
            if mantissa < 100000000000000000:
                mantissa = mantissa * 10 + digit
            else:
                exponent += 1
            digits += 1
            at += 1
        if at < end and (text_B[at] == 46 or text_B[at] == 44):  # a comma is the point of some countries
            at += 1
            while at < end:
                digit = text_B[at] - 48
                if digit < 0 or digit > 9:
                    break
                if mantissa < 100000000000000000:
                    mantissa = mantissa * 10 + digit
                    exponent -= 1
                digits += 1
                at += 1
        if digits and at < end and (text_B[at] | 32) == 101:  # e
            at += 1
            sign = 1
            if at < end and (text_B[at] == 45 or text_B[at] == 43):
                sign = -1 if text_B[at] == 45 else 1
                at += 1
            power, digits = 0, 0
            while at < end:
                digit = text_B[at] - 48
                if digit < 0 or digit > 9:
                    break
                power = min(power * 10 + digit, 9999)
                digits += 1
                at += 1
            exponent += sign * power
        if not digits or (at < end and text_B[at] > 32):
            return count, odd_row, odd_count, start
        value = float(mantissa)
        if exponent < -22:  # in two steps, for a power below 1e-308 is zero
            value = value * 10.0 ** (exponent // 2) * 10.0 ** (exponent - exponent // 2)
        elif exponent < 0:
            value /= powers[-exponent]
        elif exponent > 22:
            value *= 10.0**exponent
        elif exponent > 0:
            value *= powers[exponent]
        values_N[count] = -value if negative else value
        count += 1
        in_row += 1
    while in_row >= width and at < end and text_B[at] != 10 and text_B[at] != 13:  # the last row has no more either
        in_row += text_B[at] > 32 and text_B[at - 1] <= 32
        at += 1
    if in_row > 0 and in_row != width and odd_row < 0:
        odd_row, odd_count = row, in_row
    return count, odd_row, odd_count, -1
