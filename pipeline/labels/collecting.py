"""Labels as they are collected from a file: what is one, and what is passed over and counted."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mclip.pipeline.labels.spans import LabelError, Labels, Span

LONGEST_TEXT = 1000  # characters; CLIP reads 77 tokens of them
LONGEST_PATH = 4096  # characters, as Linux has it
SPLITS = ("train", "val", "test")


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
