"""What a store holds: the chain with counts, how fast it went, and why what failed did."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mclip.pipeline.files.documents import read_lines
from mclip.pipeline.files.seal import sealed_line
from mclip.pipeline.machine.words import visible_lines
from mclip.pipeline.store.location import disk_size, neighbour, read_neighbour, write_neighbour
from mclip.pipeline.store.schema import DONE, FAILED, PENDING
from mclip.pipeline.store.stage import Summary
from mclip.pipeline.store.store import Store

# Mark arrays in the order of the chain, with what their items are called.
CHAIN = (("prepare", "sequences/done", "sequences"), ("render", "pictures/done", "pictures"))


def marks(store: Store) -> list[tuple[str, str, str]]:
    """(stage, mark array, unit) of every stage that has begun."""
    chain = [entry for entry in CHAIN if entry[1] in store]
    for name in store.encoders:
        chain += [
            (f"embed {name}", f"embeddings/{name}/{kind}_done", f"{kind}s")
            for kind in ("image", "text")
            if f"embeddings/{name}/{kind}_done" in store
        ]
    return chain


def status(store: Store) -> str:
    """The chain drawn with counts and rates, and failures by reason; an empty store says what to run."""
    lines = [f"{store.url}  {store.fingerprint()}  {disk_size(store.url) / 1e6:,.1f} MB"]
    rates = last_rates(store)
    for stage, path, unit in marks(store):
        done, pending, failed = (int((store.read(path) == mark).sum()) for mark in (DONE, PENDING, FAILED))
        total = done + pending + failed
        bar = "#" * round(20 * done / max(total, 1))
        rate = f", last run {rates[stage, unit]:,.0f} {unit}/s" if (stage, unit) in rates else ""
        lines.append(
            f"  {stage:<18} [{bar:<20}] {done:>8,} of {total:,} {unit}, {pending:,} pending, {failed:,} failed{rate}"
        )
    if len(lines) == 1:
        lines.append("  empty: run `mclip prepare SOURCE STORE`")
    for reason, count in failure_reasons(store).most_common(10):
        lines.append(f"  failed {count:>6,} x {reason}")
    return visible_lines(lines)


def failure_reasons(store: Store) -> Counter[str]:
    """Failures of all stages, counted by reason without the file's name."""
    told = [reason for stage in store.root.attrs for reason in failures(store, stage).values()]
    return Counter(reason.split(": ", 1)[-1] for reason in told)


def failures(store: Store, stage: str) -> dict[str, str]:
    """Failures that a stage recorded: item -> reason."""
    recorded = store.root.attrs.get(stage)
    found = recorded.get("failures", {}) if isinstance(recorded, dict) else {}
    return dict(found)


RUNS = ".runs.jsonl"  # beside the store: a resumed store stays the same
MANIFEST = ".manifest.jsonl"


@dataclass(frozen=True)
class Line:
    """What a line of a store's manifest says of a source file."""

    file: str
    sha256: str
    frames: int
    fps_in: float
    fps_out: float
    outcome: str
    reason: str | None
    read_as: dict[str, Any] = field(default_factory=dict)  # how its file was understood


def record_runs(store: Store, summaries: Iterable[Summary]) -> None:
    """Add what stages did to the journal of runs."""
    lines = "".join(sealed_line(summary.figures) for summary in summaries if summary.done)
    if lines:
        before = read_neighbour(store.url, RUNS).decode("utf-8", "surrogateescape")
        write_neighbour(store.url, RUNS, before + lines)


def last_rates(store: Store) -> dict[tuple[str, str], float]:
    """Items a second of the last run of every (stage, unit) that did anything."""
    runs = read_lines(read_neighbour(store.url, RUNS), Summary, file=neighbour(store.url, RUNS))
    return {(run.stage, run.unit): run.done / run.seconds for run in runs if run.seconds > 0}


def write_manifest(store: Store, lines: Iterable[Line]) -> None:
    """Write what became of every source file, one a line, in the order of the store."""
    write_neighbour(store.url, MANIFEST, "".join(sealed_line(vars(line)) for line in lines))
