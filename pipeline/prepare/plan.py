"""The plan of a store's motion: which rows each recording fills, in blocks that whole chunks hold."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.recording import MotionError, NoMotion
from mclip.pipeline.geometry.resample import frames_at
from mclip.pipeline.prepare import sources
from mclip.pipeline.prepare.sources import SourceFile
from mclip.pipeline.store.schema import DONE, FAILED, FRAME_CHUNK, PENDING, REPLACED
from mclip.pipeline.store.store import Store

BLOCK_ROWS = FRAME_CHUNK
COLUMNS = ("row", "frames", "block", "fps", "source_frames", "size", "modified", "done")
MIRROR = "#mirror"  # the ending of a mirrored recording's name


@dataclass
class Plan:
    """Where each sequence goes. One block of sequences fills whole chunks, so that a chunk has one writer.

    Items are only ever added: a file that changed becomes a new item, and its old one is marked as replaced.
    """

    name: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    source_frames: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    modified: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    unusable: dict[int, str] = field(default_factory=dict)  # item -> reason, found from the header alone
    touched: bool = False  # whether the store's plan is another

    @property
    def rows(self) -> int:
        """Rows of the motion arrays."""
        return self.row[-1] + self.frames[-1] if self.name else 0

    def add(self, recording: SourceFile, *, frames: int, fps: float, source_frames: int = 0, new_block: bool) -> None:
        """Put a sequence behind the last one, or at the next free chunk when the block's chunk is full.

        A block is called by the chunk it begins with.
        """
        block, row = (self.block[-1], self.rows) if self.name else (0, 0)
        if self.name and (new_block or row + frames > (block + 1) * BLOCK_ROWS):
            block = -(-row // BLOCK_ROWS)
            row = block * BLOCK_ROWS
        values = (row, frames, block, fps, source_frames, recording.size, recording.modified, PENDING)
        self.name.append(recording.name)
        for column, value in zip(COLUMNS, values, strict=True):
            getattr(self, column).append(value)
        self.touched = True

    def rows_of(self, block: range) -> int:
        """Rows up to the next block: whole chunks, but for the last of all."""
        end = self.row[block.stop] if block.stop < len(self.row) else self.rows
        return end - self.row[block.start]

    def blocks(self) -> list[range]:
        """Ranges of sequences, one a block."""
        edges = np.flatnonzero(np.diff(np.array(self.block, int), prepend=-1, append=-1)).tolist()
        return [range(a, b) for a, b in itertools.pairwise(edges)]


def read_plan(store: Store) -> Plan:
    """The plan that the store holds; empty in a new store."""
    count = store.attributes("prepare").get("sequences", 0)
    if not count:
        return Plan()
    columns = (store.read(f"sequences/{column}")[:count].tolist() for column in COLUMNS)
    return Plan(store.strings("sequences/name")[:count], *columns)


@dataclass
class Changes:
    """What a source has that a store has not: files to prepare, files that are not what they were, and no motions."""

    seen: int = 0  # files of the source that are motions, or should be
    new: list[int] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)  # file -> why it is no motion


def extend_plan(
    plan: Plan,
    store: Store | None,
    source: Path,
    found: Iterable[SourceFile],
    *,
    fps: float,
    how: str,
    mirror: bool = False,
    asked: Asked = NOTHING,
) -> Changes:
    """Add the recordings that the plan does not have yet; their lengths come from the files' headers.

    A file whose size or time is another and whose sha256 is another too has changed. One that failed before is simply
    tried again; one whose motion is in the store is returned as changed and added as a new item.
    """
    known = {name: item for item, name in enumerate(plan.name) if plan.done[item] != REPLACED}
    sha256 = store.read("sequences/sha256") if known and store else np.zeros((0, 32), np.uint8)
    changes, first_new, root = Changes(), len(plan.name), sources.root_of(source)
    for recording in found:
        item = known.get(recording.name)
        if item is not None and not is_other(plan, item, recording, root, sha256[item].tobytes()):
            changes.seen += 1
            continue
        try:
            frames, fps_in, frames_in, why = length_of(root, recording, fps=fps, how=how, asked=asked)
        except NoMotion as error:
            changes.passed_over[recording.name] = str(error)
            continue
        changes.seen += 1
        if item is not None and plan.done[item] == DONE:
            changes.changed.append(recording.name)
        for name in (recording.name, recording.name + MIRROR)[: 1 + mirror]:
            if name in known:
                plan.done[known[name]] = REPLACED
            named = SourceFile(name, recording.size, recording.modified)
            first = len(plan.name) == first_new
            plan.add(named, frames=frames, fps=fps_in, source_frames=frames_in, new_block=first)
            changes.new.append(len(plan.name) - 1)
            if why:
                plan.unusable[len(plan.name) - 1] = why
                plan.done[-1] = FAILED
    return changes


def is_other(plan: Plan, item: int, recording: SourceFile, root: Path, sha256: bytes) -> bool:
    """Whether a file is not the one that was planned: by size and time, and where they differ by what is in it."""
    if (plan.size[item], plan.modified[item]) == (recording.size, recording.modified):
        return False
    plan.touched = True
    if plan.done[item] == DONE:
        try:
            with sources.open_recording(root, recording) as file:
                same = hashlib.file_digest(file, "sha256").digest() == sha256
        except MotionError:  # it cannot be read now: what the store has of it stays
            same = True
        if same:
            plan.size[item], plan.modified[item] = recording.size, recording.modified
            return False
    return True


def length_of(root: Path, recording: SourceFile, *, fps: float, how: str, asked: Asked) -> tuple[int, float, int, str]:
    """Frames in the store, frames per second and frames of the source; or zeros and why it cannot be used."""
    try:
        frames, fps_in = sources.probe(root, recording, asked)
        return frames_at(frames, fps_in, target_fps=fps, how=how), fps_in, frames, ""
    except NoMotion:
        raise
    except MotionError as error:
        return 0, 0.0, 0, f"{recording.name}: {error}"


def write_plan(store: Store, plan: Plan) -> None:
    """Record the plan; the number of sequences last, so that a half-written plan is written again."""
    total = len(plan.name)
    for column in ("betas", "gender", "sha256", "split", "account"):
        store.grow(f"sequences/{column}", total)
    store.grow("motion/rot6d", plan.rows)
    store.grow("motion/trans", plan.rows)
    store.write_strings("sequences/name", plan.name)
    for column in COLUMNS:
        store.write(f"sequences/{column}", np.array(getattr(plan, column)))
    failures = store.attributes("prepare").get("failures", {})
    failures |= {f"sequences/done[{item}]": reason for item, reason in plan.unusable.items()}
    for item, done in enumerate(plan.done):
        if done != FAILED:
            failures.pop(f"sequences/done[{item}]", None)
    store.set_attributes("prepare", sequences=total, failures=dict(sorted(failures.items())), indexed=False)


ACCOUNT = 1024  # bytes of a sequence's account in the store


def packed_account(account: Mapping[str, Any]) -> np.ndarray:
    """How a file was understood as the store keeps it: JSON, then zeros; what is too long for that is left out."""
    kept = dict(account)
    while len(text := json.dumps(kept).encode()) > ACCOUNT:
        kept.popitem()
    return np.frombuffer(text.ljust(ACCOUNT, b"\0"), np.uint8)


def accounts(store: Store) -> list[dict[str, Any]]:
    """How every sequence's file was understood; empty where nothing was to be said, or an older mclip said nothing."""
    if "sequences/account" not in store:
        return [{} for _ in range(len(store.read("sequences/row")))]
    return [account_in(row) for row in store.read("sequences/account")]


def account_in(row: np.ndarray) -> dict[str, Any]:
    """What `packed_account` packed."""
    return dict(json.loads(row.tobytes().rstrip(b"\0") or b"{}"))
