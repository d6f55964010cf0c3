"""What a store holds: the chain with counts, and why what failed did."""

from collections import Counter

from mclip.pipeline.store import DONE, FAILED, PENDING, Store

# Mark arrays in the order of the chain, with what their items are called.
CHAIN = (("prepare", "sequences/done", "sequences"), ("render", "pictures/done", "pictures"))


def marks(store: Store) -> list[tuple[str, str, str]]:
    """(stage, mark array, unit) of every stage that has begun."""
    chain = [entry for entry in CHAIN if entry[1] in store]
    for name in store.attributes("embed").get("encoders", {}):
        chain += [
            (f"embed {name}", f"embeddings/{name}/{kind}_done", f"{kind}s")
            for kind in ("image", "text")
            if f"embeddings/{name}/{kind}_done" in store
        ]
    return chain


def status(store: Store) -> str:
    """The chain drawn with counts, and failures by reason; an empty store says what to run."""
    lines = [f"{store.url}  {store.fingerprint()}"]
    for stage, path, unit in marks(store):
        done, pending, failed = (int((store.read(path) == mark).sum()) for mark in (DONE, PENDING, FAILED))
        total = done + pending + failed
        bar = "#" * round(20 * done / max(total, 1))
        lines.append(
            f"  {stage:<18} [{bar:<20}] {done:>8,} of {total:,} {unit}, {pending:,} pending, {failed:,} failed"
        )
    if len(lines) == 1:
        lines.append("  empty: run `mclip prepare SOURCE STORE`")
    for reason, count in failure_reasons(store).most_common(10):
        lines.append(f"  failed {count:>6,} x {reason}")
    return "\n".join(lines)


def failure_reasons(store: Store) -> Counter[str]:
    """Failures of all stages, counted by reason without the file's name."""
    told = [reason for stage in store.root.attrs for reason in failures(store, stage).values()]
    return Counter(reason.split(": ", 1)[-1] for reason in told)


def failures(store: Store, stage: str) -> dict[str, str]:
    """Failures that a stage recorded: item -> reason."""
    recorded = store.root.attrs.get(stage)
    found = recorded.get("failures", {}) if isinstance(recorded, dict) else {}
    return dict(found)
