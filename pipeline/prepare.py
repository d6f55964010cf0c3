"""AMASS files -> sequences, 6D rotations, windows, texts and splits in the store."""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from mclip.pipeline import amass
from mclip.pipeline.labels import Labels, Span, crop_members, joined, sequence_key, split_of
from mclip.pipeline.stage import Result, Summary, run_stage
from mclip.pipeline.store import (
    DONE,
    FAILED,
    FRAME_CHUNK,
    FRAME_SHARD,
    PENDING,
    SPLITS,
    Store,
    open_store,
)  # fmt: skip

SHARD_ROWS = FRAME_CHUNK * FRAME_SHARD


@dataclass(frozen=True)
class PrepareOptions:
    """How motion becomes sequences and windows; the numbers are the paper's."""

    fps: float = 30.0
    window: int = 100
    crop: int = 60
    short: str = "pad"  # sequences under a window, and tails of at least a crop: "pad" them or "drop" them

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.window:
            raise ValueError(f"--crop is {self.crop}: expected 1 to --window, which is {self.window}")
        if not 1 <= self.fps <= 240:
            raise ValueError(f"--fps is {self.fps:g}: expected 1 to 240")

    @property
    def shifts(self) -> int:
        """Places where a crop can begin in a full window."""
        return self.window - self.crop + 1


def find_motions(source: Path) -> list[str]:
    """Paths of the .npz files below a folder, sorted, '/' between folders; ValueError when there is none."""
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder; expected one that holds AMASS's data sets")
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.npz"))
    if not names:
        raise ValueError(f"{source}: no .npz file below this folder; expected AMASS's SET/SUBJECT/CLIP_poses.npz")
    return [name for name in names if Path(name).name != "shape.npz"]  # AMASS's shape.npz is no motion


@dataclass
class Plan:
    """Where each sequence goes. One block of sequences fills whole shards, so that a shard has one writer."""

    name: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    unusable: dict[int, str] = field(default_factory=dict)  # item -> reason, found from the header alone

    @property
    def rows(self) -> int:
        """Rows of the motion arrays."""
        return self.row[-1] + self.frames[-1] if self.name else 0

    def add(self, name: str, *, frames: int, fps: float, new_block: bool = False) -> None:
        """Put a sequence behind the last one, or at the next free shard when the block's shard is full.

        A block is called by the shard it begins with.
        """
        block, row = (self.block[-1], self.rows) if self.name else (0, 0)
        if self.name and (new_block or row + frames > (block + 1) * SHARD_ROWS):
            block = -(-row // SHARD_ROWS)
            row = block * SHARD_ROWS
        self.name.append(name)
        self.row.append(row)
        self.frames.append(frames)
        self.block.append(block)
        self.fps.append(fps)

    def blocks(self) -> list[range]:
        """Ranges of sequences, one a block."""
        edges = np.flatnonzero(np.diff(np.array(self.block, int), prepend=-1, append=-1))
        return [range(a, b) for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def read_plan(store: Store) -> Plan:
    """The plan that the store holds; empty in a new store."""
    if "sequences" not in store.attributes("prepare"):
        return Plan()
    columns = (store.read(f"sequences/{column}").tolist() for column in ("row", "frames", "block", "fps"))
    return Plan(store.strings("sequences/name"), *columns)


def extend_plan(plan: Plan, source: Path, names: Sequence[str], fps: float) -> Plan:
    """The plan with the files it does not have yet behind; their lengths come from the files' headers."""
    known, first_new = set(plan.name), len(plan.name)
    for name in names:
        if name in known:
            continue
        try:
            frames_in, fps_in = amass.probe_motion(source / name)
            frames = amass.frames_at(frames_in, fps_in, fps)
        except amass.MotionError as error:
            frames, fps_in = 0, 0.0
            plan.unusable[len(plan.name)] = str(error)
        plan.add(name, frames=frames, fps=fps_in, new_block=len(plan.name) == first_new)
    return plan


def write_plan(store: Store, plan: Plan) -> None:
    """Record the plan; the number of sequences last, so that a half-written plan is written again."""
    total = len(plan.name)
    store.write_strings("sequences/name", plan.name)
    for column in ("row", "frames", "block", "fps"):
        store.write(f"sequences/{column}", np.array(getattr(plan, column)))
    for column in ("betas", "gender", "sha256", "split"):
        store.grow(f"sequences/{column}", total)
    done = store.grow("sequences/done", total)
    for item in plan.unusable:
        done[item] = FAILED
    store.grow("motion/rot6d", plan.rows)
    store.grow("motion/trans", plan.rows)
    failures = store.attributes("prepare").get("failures", {})
    failures |= {f"sequences/done[{item}]": reason for item, reason in plan.unusable.items()}
    store.set_attributes("prepare", sequences=total, failures=failures, indexed=False)


def prepare(
    source: Path,
    store: Store,
    *,
    labels: Labels,
    options: PrepareOptions,
    only: Sequence[str] = (),
    limit: int | None = None,
    scheduler: str = "threads",
    workers: int = 2,
) -> Summary:
    """Fill the store from a folder of AMASS files; files that are in it already are skipped.

    `only` keeps the files whose path holds one of these words, `limit` the first few.
    """
    names = [name for name in find_motions(source) if not only or any(word in name for word in only)][:limit]
    store.fix_options("prepare", asdict(options) | {"labels": labels.fingerprint})
    plan = read_plan(store)
    before = len(plan.name)
    plan = extend_plan(plan, source, names, options.fps)
    if len(plan.name) > before:
        write_plan(store, plan)
    compute = functools.partial(prepare_block, store.url, source, plan, options.fps)
    summary = run_stage(
        store, "prepare", marks="sequences/done", blocks=plan.blocks(), compute=compute, unit="sequences",
        scheduler=scheduler, workers=workers,
    )  # fmt: skip
    if not store.attributes("prepare").get("indexed"):
        index(store, labels, options)
    return summary


def prepare_block(url: str, source: Path, plan: Plan, fps: float, block: range) -> Result:
    """Read, resample and write the sequences of a block; what fails is left as zeros and named."""
    store = open_store(url)
    first = plan.row[block.start]
    rows = max(plan.row[item] + plan.frames[item] for item in block) - first
    rot6d, trans = np.zeros((rows, 24, 6), np.float32), np.zeros((rows, 3), np.float32)
    count = len(block)
    columns = {
        "sequences/betas": np.zeros((count, 16), np.float32),
        "sequences/gender": np.zeros(count, np.uint8),
        "sequences/sha256": np.zeros((count, 32), np.uint8),
    }
    failures = {}
    for place, item in enumerate(block):
        at = slice(plan.row[item] - first, plan.row[item] - first + plan.frames[item])
        try:
            motion = amass.read_motion(source / plan.name[item])
            rot6d[at], trans[at] = (tensor.numpy() for tensor in amass.resample(motion, fps))
        except (amass.MotionError, ValueError) as error:
            failures[item] = str(error)
            continue
        columns["sequences/betas"][place] = motion.betas
        columns["sequences/gender"][place] = amass.GENDERS.index(motion.gender)
        columns["sequences/sha256"][place] = np.frombuffer(motion.sha256, np.uint8)
    if rows:
        store.array("motion/rot6d")[first : first + rows] = rot6d
        store.array("motion/trans")[first : first + rows] = trans
    return Result(failures, columns)


def windows_of(frames: int, options: PrepareOptions) -> list[tuple[int, int]]:
    """(first frame, valid frames) of a sequence's windows: whole ones, then the tail where it is kept.

    The release drops what does not fill a window. A short sequence is a motion all the same, and so is a tail that
    a whole crop fits into.
    """
    starts = range(0, frames - options.window + 1, options.window)
    windows = [(start, options.window) for start in starts]
    rest = frames - len(windows) * options.window
    if options.short == "pad" and rest >= (options.crop if windows else 2):
        windows.append((frames - rest, rest))
    return windows


class Texts:
    """Distinct strings, each with the number of its first appearance."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.index.setdefault(text, len(self.index))


def index(store: Store, labels: Labels, options: PrepareOptions) -> None:
    """Cut the sequences that are done into windows, and find the label set of every crop.

    A crop's labels depend on where it begins, so each window has a label set for every shift; a set is stored once.
    """
    names, frames, rows = store.strings("sequences/name"), store.read("sequences/frames"), store.read("sequences/row")
    done = store.read("sequences/done")
    keys = [sequence_key(name) for name in names]
    splits = np.array([SPLITS.index(split_of(key, labels)) for key in keys], np.uint8)
    texts, sets = Texts(), LabelSets()
    table: list[tuple[int, int, int, int]] = []
    labelset: list[np.ndarray] = []
    for item in np.flatnonzero(done == DONE).tolist():
        spans = labels.spans.get(keys[item], ())
        for start, valid in windows_of(int(frames[item]), options):
            table.append((item, int(rows[item]) + start, valid, int(splits[item])))
            members = crop_members(
                spans, first_frame=start, shifts=options.shifts, crop=options.crop,
                frames=start + valid, fps=options.fps,
            )  # fmt: skip
            labelset.append(sets.of_members(spans, members, texts))
    store.write("sequences/split", splits)
    columns = np.array(table, np.int64).reshape(-1, 4).T
    for name, values in zip(("sequence", "row", "frames", "split"), columns, strict=True):
        store.write(f"windows/{name}", values)
    stacked = np.array(labelset, np.int32).reshape(-1, options.shifts)
    store.write("windows/labelset", stacked, shifts=options.shifts)
    sets.write(store)
    store.write_strings("texts", list(texts.index))
    unlabelled = sum(key not in labels.spans for key in keys)
    store.set_attributes(
        "prepare", indexed=True, windows=len(table), unlabelled=unlabelled,
        labels_without_file=len(set(labels.spans) - set(keys)), labels_passed_over=dict(labels.passed_over),
    )  # fmt: skip


class LabelSets:
    """Distinct sets of (joined text, labels, categories) that crops carry; set 0 is the empty one."""

    def __init__(self) -> None:
        self.index: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {(-1, (), ()): 0}

    def of_members(self, spans: Sequence[Span], members: np.ndarray, texts: Texts) -> np.ndarray:
        """Set of every row of `members` (shifts, spans)."""
        distinct, which = np.unique(members, axis=0, return_inverse=True)
        numbers = [self.of_spans([spans[i] for i in np.flatnonzero(row)], texts) for row in distinct]
        return np.array(numbers, np.int32)[which.ravel()]

    def of_spans(self, spans: Sequence[Span], texts: Texts) -> int:
        """Number of the set that these spans make."""
        if not spans:
            return 0
        labels = sorted({span.text for span in spans})
        categories = sorted({category for span in spans for category in span.categories})
        entry = (texts(joined(labels)), tuple(map(texts, labels)), tuple(map(texts, categories)))
        return self.index.setdefault(entry, len(self.index))

    def write(self, store: Store) -> None:
        """Write the sets: joined text, and labels and categories flat with offsets."""
        store.write("labelsets/text", np.array([text for text, _, _ in self.index], np.int64))
        for column, name in ((1, "labels"), (2, "categories")):
            members = [entry[column] for entry in self.index]
            flat = np.array([text for member in members for text in member], np.int64)  # type: ignore[union-attr]
            store.write(f"labelsets/{name}", flat)
            sizes = [len(member) for member in members]  # type: ignore[arg-type]
            store.write(f"labelsets/{name}_offset", np.cumsum([0, *sizes]))


def account(store: Store) -> str:
    """One line on what the store holds now."""
    told = store.attributes("prepare")
    frames = store.read("sequences/frames")[store.read("sequences/done") == DONE].sum()
    split = np.bincount(store.read("windows/split"), minlength=3)
    minutes = frames / told["options"]["fps"] / 60
    passed = sum(told["labels_passed_over"].values())
    return (
        f"store {store.url}: {frames:,} frames ({minutes:.1f} min), {told['windows']:,} windows "
        f"({', '.join(f'{count:,} {name}' for count, name in zip(split.tolist(), SPLITS, strict=True))}), "
        f"{len(store.strings('texts')):,} texts; {told['unlabelled']:,} files without labels, "
        f"{told['labels_without_file']:,} labelled sequences without a file, {passed:,} labels passed over"
    )


def manifest(store: Store) -> str:
    """One JSON line a source file: name, sha256, frames, frames per second, outcome and reason."""
    frames, fps = store.read("sequences/frames"), store.read("sequences/fps")
    done, sha256 = store.read("sequences/done"), store.read("sequences/sha256")
    failures = store.attributes("prepare").get("failures", {})
    outcome = {PENDING: "pending", DONE: "done", FAILED: "failed"}
    lines = (
        {
            "file": name, "sha256": sha256[item].tobytes().hex(), "frames": int(frames[item]),
            "fps": float(fps[item]), "outcome": outcome[int(done[item])],
            "reason": failures.get(f"sequences/done[{item}]"),
        }
        for item, name in enumerate(store.strings("sequences/name"))
    )  # fmt: skip
    return "\n".join(map(json.dumps, lines))
