"""Spans of labels, the labels of many sequences, and how they are collected: what is one, and what is counted."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from mclip.pipeline.machine.options import check_settings, setting

LONGEST_TEXT = 1000  # characters; CLIP reads 77 tokens of them
LONGEST_PATH = 4096  # characters, as Linux has it
SPLITS = ("train", "val", "test")


class LabelError(ValueError):
    """A label file that cannot be used, and why."""


@dataclass(frozen=True)
class Span:
    """A label from `start` to `end` seconds (infinity: the whole sequence) with its action categories.

    Where `rate` is given, the times are frames / `rate`, and a frame is every int(fps / rate)-th of the source: so
    HumanML3D counts.
    """

    text: str
    start: float = 0.0
    end: float = math.inf
    categories: tuple[str, ...] = ()
    source: str = "babel"
    written: str = field(default="", repr=False, compare=False)  # as the file has it, where `text` is not
    rate: float = field(default=0.0, repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether it holds for the whole sequence, however long that is."""
        return self.start <= 0 and self.end == math.inf

    def in_seconds(self, fps: float) -> "Span":
        """The same label by the clock of a source of `fps` frames a second."""
        if not self.rate:
            return self
        return replace(self.stretched(self.rate * max(int(fps / self.rate), 1) / fps), rate=0.0)

    def stretched(self, factor: float) -> "Span":
        """The same label on a clock that is `factor` times as slow."""
        return replace(self, start=self.start * factor, end=self.end * factor)


@dataclass(frozen=True)
class LabelRules:
    """How labels are put on motion."""

    join: str = setting(
        "distinct",
        "How the labels of a crop become its joined text. distinct: each once, in alphabetical order. "
        "ordered: each once, in the order of time. release: to the letter as the paper's release.",
        ("distinct", "ordered", "release"),
    )
    trust: str = setting(
        "length",
        "What to do where a motion is not as long as its labels say. length: leave out labels with times. "
        "labels: stretch their clock to the motion.",
        ("length", "labels"),
    )
    unlabelled: str = setting("keep", "Whether sequences without a label get windows.", ("keep", "drop"))

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def unusual(self) -> dict[str, str]:
        """The rules that are not the default ones."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


@dataclass(frozen=True)
class Labels:
    """Spans, split and seconds of each sequence, by `sequence_key`; what was passed over is counted by reason."""

    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    split: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)  # how long the labels' motion is, where they say it
    rules: LabelRules = LabelRules()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of their first label."""
        return tuple(dict.fromkeys(span.source for spans in self.spans.values() for span in spans))

    @property
    def fingerprint(self) -> str:
        """Short hash of spans, splits and rules."""
        said: list[object] = [sorted(self.spans.items()), sorted(self.split.items())]
        clocks = [(key, span.rate) for key, spans in sorted(self.spans.items()) for span in spans if span.rate]
        # What is as it always was is left out, so that the hash of plain labels is that of earlier stores.
        said += [each for each in (clocks, self.rules.unusual) if each]
        return hashlib.sha256(repr(tuple(said)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass
class Collection:
    """Spans, splits and seconds by sequence, and how often something was passed over and why."""

    spans: defaultdict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    split: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def add_span(self, key: str, span: Span) -> None:
        """Add a span to its sequence's, or count it where its times make no span."""
        if 0 <= span.start < span.end:
            self.spans[key].append(span)
        else:
            self.passed_over[f"label from {span.start} to {span.end} s"] += 1

    def add_split(self, key: str, name: str, where: str) -> None:
        """Add a sequence's split; LabelError when it is none, or when the sequence has another one already."""
        if name not in SPLITS:
            raise LabelError(f"{where}: split {name!r}, expected train, val or test")
        if self.split.setdefault(key, name) != name:
            raise LabelError(
                f"{where}: {key} is in {name}, and in {self.split[key]} further up; a sequence has one split"
            )

    def labels(self) -> Labels:
        """The labels that were found."""
        spans = {key: tuple(found) for key, found in self.spans.items()}
        return Labels(spans, self.split, dict(self.passed_over), self.seconds)


def clean(text: str) -> str:
    """A label's text: one line without surrounding space, of a length that somebody could have meant."""
    return " ".join(text.split())[:LONGEST_TEXT]


def is_text(value: object) -> bool:
    """Whether a value is a string that can be written: half a surrogate pair, which JSON can hold, cannot."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def path_in(value: object, where: str) -> str:
    """A recording's path as a label file has it; LabelError when it can be none."""
    if not isinstance(value, str) or not is_text(value) or not 0 < len(value.strip()) <= LONGEST_PATH:
        shown = repr(value)
        raise LabelError(f"{where}: {shown[:80]}{'...' * (len(shown) > 80)} is no path, expected SET/SUBJECT/CLIP")
    return value.strip()
