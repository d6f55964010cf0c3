"""Recording files -> sequences, 6D rotations, windows, texts and splits in the store."""

# N frames of a sequence, J joints (24), D rotation numbers (6)

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from mclip.pipeline.geometry.changes import face_front, mirror_motion
from mclip.pipeline.geometry.recording import MotionError, Recording
from mclip.pipeline.geometry.resample import fill_rows, source_times
from mclip.pipeline.geometry.skeleton import GENDERS
from mclip.pipeline.labels.matching import match
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.machine.words import visible, visible_lines
from mclip.pipeline.prepare import sources
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.plan import (
    ACCOUNT,
    MIRROR,
    Changes,
    Plan,
    accounts,
    extend_plan,
    packed_account,
    read_plan,
    write_plan,
)
from mclip.pipeline.prepare.sources import SourceFile
from mclip.pipeline.prepare.windows import index, recordings_in
from mclip.pipeline.skeletons.joints import read_map
from mclip.pipeline.store.location import neighbour
from mclip.pipeline.store.schema import DONE, OUTCOME, PENDING, SPLITS
from mclip.pipeline.store.stage import Result, Summary, run_stage
from mclip.pipeline.store.status import MANIFEST, Line, write_manifest
from mclip.pipeline.store.store import Store, is_store, open_store

MODELS = {"smplh": "SMPL+H", "smplx": "SMPL-X"}  # of AMASS, by the name in a file's account
LONGEST_REASON = 200  # letters of one that a line shows
REASONS = 5  # for passing labels over, that are told
ABOVE = 3  # folders above a source that are kept with its recordings, for their labels' sake


def select_files(found: Iterable[SourceFile], only: Sequence[str], limit: int | None) -> Iterator[SourceFile]:
    """The first `limit` recordings whose path holds one of the words `only`, or matches one with * ? [] in it.

    Files that AMASS has beside its motions come along and count for nothing.
    """
    wanted = (each for each in found if not only or any(matches(each.name, word) for word in only))
    count = 0
    for each in wanted:
        if count == limit:
            return
        count += not sources.is_beside(each.name)
        yield each


def matches(name: str, word: str) -> bool:
    """Whether a path holds a word, or matches a pattern."""
    return fnmatch(name, word) if any(sign in word for sign in "*?[") else word in name


def require_motions(source: Path, only: Sequence[str] = (), joint_map: str = "") -> None:
    """ValueError when a source has no recording that could be prepared, or the map of its joints is none."""
    read_map(joint_map)
    if all(sources.is_beside(each.name) for each in select_files(sources.recordings(source), only, 1)):
        raise no_motions(source, only, {})


def no_motions(source: Path, only: Sequence[str], passed_over: Mapping[str, str]) -> ValueError:
    """What to say of a source without recordings."""
    which = f" whose path has {' or '.join(only)}" if only else ""
    others = f"; {told_passed_over(passed_over)}" if passed_over else ""
    return ValueError(
        f"{source}: no {', '.join(sources.MOTIONS)} file or archive below this folder{which} that holds a motion; "
        f"expected AMASS's SET/SUBJECT/CLIP_poses.npz{others}"
    )


def told_passed_over(passed_over: Mapping[str, str]) -> str:
    """How many files are no motions, and the first of them with the reason."""
    name, why = next(iter(passed_over.items()))
    return f"{len(passed_over):,} files passed over that are no motions, first {visible(name, keep='')} ({why})"


def prepare(
    source: Path,
    store: Store,
    *,
    labels: Labels,
    options: PrepareOptions,
    label_files: str = "",
    only: Sequence[str] = (),
    limit: int | None = None,
    scheduler: str = "threads",
    workers: int = 2,
    replace_changed: bool = False,
) -> Summary:
    """Fill the store from a folder, archive or file; what is in it already is skipped.

    `label_files` is where the labels are from, for whoever comes with others.
    ValueError when a file has changed whose motion is in the store, unless `replace_changed`: then it is prepared
    again, and pictures and vectors go, because the windows have other numbers.
    """
    sources.require_source(source)
    read_map(options.map)
    made_with = options.kept | {"labels": labels.fingerprint}
    names = {"labels": f"{label_files or 'no files'} ({labels.fingerprint})"}
    store.refuse_other_options("prepare", made_with, names=names)
    plan = read_plan(store)
    known = len(plan.name)
    changes = extend_plan(
        plan, store, source, select_files(sources.recordings(source), only, limit), **options.planning
    )
    if not changes.seen:
        raise no_motions(source, only, changes.passed_over)
    above = [*store.attributes("prepare").get("above", []), [known, folders_above(source)]]
    match(labels, recordings_in(plan.name, above))  # before hours of work: it refuses labels that are nobody's
    store.fix_options("prepare", made_with, names=names)
    if len(plan.name) > known:
        store.set_attributes("prepare", above=above)
    if changes.changed:
        allow_changes(store, changes, source, replace_changed=replace_changed)
    remember_source(store, source, plan, changes)
    if plan.touched or "sequences/account" not in store or store.array("sequences/done").shape[0] != len(plan.name):
        write_plan(store, plan)
    summary = run_stage(
        store,
        "prepare",
        marks="sequences/done",
        blocks=plan.blocks(),
        unit="sequences",
        scheduler=scheduler,
        workers=workers,
        compute=functools.partial(prepare_block, store.url, source, options, plan),
    )
    if not store.is_indexed:
        index(
            store,
            labels,
            window=options.window,
            crop=options.crop,
            short=options.short,
            fps=options.fps,
            how=options.resample,
        )
    write_manifest(store, manifest(store))
    refused = len(plan.unusable)
    return replace(
        summary,
        failed=summary.failed + refused,
        skipped=summary.skipped - refused,
        failures=(*plan.unusable.values(), *summary.failures),
        where=neighbour(store.url, MANIFEST),
        passed_over=told_passed_over(changes.passed_over) if changes.passed_over else "",
    )


def folders_above(source: Path) -> str:
    """The names of the last folders above a source's recordings: they may name a data set and a subject."""
    return "/".join(sources.root_of(source).resolve().parts[1:][-ABOVE:])


def allow_changes(store: Store, changes: Changes, source: Path, *, replace_changed: bool) -> None:
    """Make room for changed files, or ValueError naming them, and both folders where they are of another one."""
    if not replace_changed:
        count, first = len(changes.changed), changes.changed[0]
        files, folders = f"{count} file{'s' * (count > 1)}", store.attributes("prepare").get("folders", [])
        here = str(source.resolve())
        if folders and here not in folders:
            raise ValueError(
                f"{files} of {here} have names of other motions, which {store.url} has from {', '.join(folders)}, "
                f"first {first}: name another store, prepare a folder that holds both, or pass --replace-changed to "
                "put these in their place"
            )
        raise ValueError(
            f"{files} changed since {store.url} was made from them, first "
            f"{first}: pass --replace-changed to prepare them again, or --replace to begin anew"
        )
    store.forget("pictures", "render")
    store.forget("embeddings", "embed")


def remember_source(store: Store, source: Path, plan: Plan, changes: Changes) -> None:
    """Keep which folders the store is from, and what of them is no motion."""
    told, taken = store.attributes("prepare"), set(plan.name)
    folders = list(dict.fromkeys([*told.get("folders", []), str(source.resolve())]))
    passed_over = told.get("passed_over", {}) | changes.passed_over
    passed_over = {name: why for name, why in passed_over.items() if name not in taken}
    if (folders, passed_over) != (told.get("folders"), told.get("passed_over", {})):
        store.set_attributes("prepare", folders=folders, passed_over=dict(sorted(passed_over.items())))


def preview(
    source: Path, url: str, options: PrepareOptions, *, only: Sequence[str] = (), limit: int | None = None
) -> str:
    """What `prepare` would do, in words; nothing is written."""
    store = open_store(url) if is_store(url) else None
    plan = read_plan(store) if store else Plan()
    found = select_files(sources.recordings(source), only, limit)
    changes = extend_plan(plan, store, source, found, **options.planning)
    waiting = [item for item, done in enumerate(plan.done) if done == PENDING]
    hours = sum(plan.frames[item] for item in waiting) / options.fps / 3600
    lines = [
        f"dry run, nothing is written: {len(waiting):,} sequences to prepare, {hours:.2f} h of motion in "
        f"{len({plan.block[item] for item in waiting}):,} blocks; {len(changes.new):,} new, "
        f"{len(changes.changed):,} changed, {plan.done.count(DONE):,} done already",
        *(f"cannot be used: {reason}" for reason in plan.unusable.values()),
        *([told_passed_over(changes.passed_over)] if changes.passed_over else []),
        *(f"changed: {name}" for name in changes.changed),
    ]
    return visible_lines(lines)


def prepare_block(url: str, source: Path, options: PrepareOptions, plan: Plan, block: range) -> Result:
    """Read, resample and write the sequences of a block; what fails is left as zeros and named."""
    first, rows = plan.row[block.start], plan.rows_of(block)
    rot6d, trans = np.zeros((rows, 24, 6), np.float32), np.zeros((rows, 3), np.float32)
    betas, gender = np.zeros((len(block), 16), np.float32), np.zeros(len(block), np.uint8)
    sha256, account = np.zeros((len(block), 32), np.uint8), np.zeros((len(block), ACCOUNT), np.uint8)
    failures = {}
    items = [item for item in block if plan.done[item] == PENDING]
    for item, name, content in contents_of(source, plan, items):
        at = slice(plan.row[item] - first, plan.row[item] - first + plan.frames[item])
        try:
            motion = motion_in(source, name, content, options)
            write_rows(motion, options, rot6d[at], trans[at], mirror=plan.name[item] != name)
        except MotionError as error:
            failures[item] = f"{plan.name[item]}: {error}"
            continue
        place = item - block.start
        betas[place], gender[place] = motion.betas, GENDERS.index(motion.gender)
        sha256[place], account[place] = np.frombuffer(motion.sha256, np.uint8), packed_account(motion.account)
    if rows:
        store = open_store(url)
        store.array("motion/rot6d")[first : first + rows] = rot6d
        store.array("motion/trans")[first : first + rows] = trans
    columns: dict[str, np.ndarray] = {"betas": betas, "gender": gender, "sha256": sha256, "account": account}
    return Result(failures, {f"sequences/{name}": values for name, values in columns.items()})


def contents_of(
    source: Path, plan: Plan, items: Sequence[int]
) -> Iterator[tuple[int, str, bytes | memoryview | MotionError]]:
    """(item, file, bytes or why there are none) of sequences; a mirrored one comes from the same file."""
    names = [plan.name[item].removesuffix(MIRROR) for item in items]
    for item, (name, content) in zip(items, sources.contents(source, names), strict=True):
        yield item, name, content


def motion_in(source: Path, name: str, content: bytes | memoryview | MotionError, options: PrepareOptions) -> Recording:
    """The motion in a file's bytes; MotionError, also the one that stands for them."""
    if isinstance(content, MotionError):
        raise content
    return sources.parse(name, content, options.asked, root=sources.root_of(source), fps=options.fps)


def write_rows(
    motion: Recording, options: PrepareOptions, rot6d_NJD: np.ndarray, trans_N3: np.ndarray, *, mirror: bool
) -> None:
    """Fill a sequence's rows of a block as the options want them; MotionError when there is not one for each frame."""
    time_N = source_times(len(motion.trans_T3), motion.fps, target_fps=options.fps, how=options.resample)
    if len(time_N) != len(rot6d_NJD):
        found, expected = len(time_N), len(rot6d_NJD)
        raise MotionError(f"has {found} frames at {options.fps:g} fps, its headers said {expected}: run again")
    fill_rows(motion, time_N, rot6d_NJD, trans_N3)
    for wanted, change in ((mirror, mirror_motion), (options.face_front, face_front)):
        if wanted:
            rot6d_NJD[:], trans_N3[:] = change(torch.from_numpy(rot6d_NJD), torch.from_numpy(trans_N3))


def summary_line(store: Store) -> str:
    """One line on what the store holds now."""
    told = store.attributes("prepare")
    frames = store.read("sequences/frames")[store.read("sequences/done") == DONE].sum()
    split = np.bincount(store.read("windows/split"), minlength=3)
    minutes = frames / told["options"]["fps"] / 60
    passed = sum(told["labels_passed_over"].values())
    turned = sum(each.get("up", "z") != "z" for each in accounts(store))
    y_up = f", {turned:,} files turned whose up was not z" if turned else ""
    return (
        f"store {store.url}: {frames:,} frames ({minutes:.1f} min), {told['windows']:,} windows "
        f"({', '.join(f'{count:,} {name}' for count, name in zip(split.tolist(), SPLITS, strict=True))}), "
        f"{len(store.strings('texts')):,} texts; {told['too_short']:,} sequences too short for a window, "
        f"{told['unlabelled']:,} files without labels, "
        f"{told['labels_without_file']:,} labelled sequences without a file, {passed:,} labels passed over{y_up}"
    )


def told_of_labels(store: Store) -> Iterator[str]:
    """Lines on the labels that found no motion, the motions without, and why labels were passed over, most first."""
    told = store.attributes("prepare")
    yield from told.get("labels_told", ())
    if other := told.get("other_length", 0):
        yield f"{other:,} motions of another length than their labels': {'; '.join(told['other_length_told'])}"
    passed = sorted(told["labels_passed_over"].items(), key=lambda item: -item[1])
    yield from (f"passed over: {count:,} x {reason}" for reason, count in passed[:REASONS] if count)


def told_of_kinds(store: Store) -> Iterator[str]:
    """A line for each kind of input: how many, whose skeleton or form, how far off at most; and what of it failed."""
    plan, failures = read_plan(store), store.attributes("prepare").get("failures", {})
    good: dict[str, list[float]] = {}
    failed: dict[str, list[str]] = {}
    for item, account in enumerate(accounts(store)):
        ending = os.path.splitext(sources.file_of(plan.name[item].removesuffix(MIRROR))[0])[1]
        if plan.done[item] == DONE:
            kind = account.get("form") or account.get("skeleton") or MODELS.get(account.get("model", ""), "SMPL")
            good.setdefault(f"{ending}, {kind}", []).append(account.get("degrees", 0.0))
        elif reason := failures.get(f"sequences/done[{item}]"):
            failed.setdefault(ending, []).append(visible(reason, keep=""))
    for kind, degrees in sorted(good.items(), key=lambda each: -len(each[1])):
        yield f"{len(degrees):,} x {kind}" + (f", bones within {max(degrees):.1f} degrees" if any(degrees) else "")
    for ending, reasons in failed.items():
        yield f"{len(reasons):,} x {ending} failed, first {reasons[0][:LONGEST_REASON]}"


def manifest(store: Store) -> Iterator[Line]:
    """What became of every source file, in the order of the store; then what of the source is no motion."""
    plan, told, sha256 = read_plan(store), store.attributes("prepare"), store.read("sequences/sha256")
    failures, fps = told.get("failures", {}), told["options"]["fps"]
    for item, account in enumerate(accounts(store)):
        reason = failures.get(f"sequences/done[{item}]")
        yield Line(
            file=printable(plan.name[item]),
            sha256=sha256[item].tobytes().hex(),
            frames=plan.frames[item],
            fps_in=plan.fps[item],
            fps_out=fps,
            outcome=OUTCOME[plan.done[item]],
            reason=reason and printable(reason),
            read_as=account,
        )
    for name, why in told.get("passed_over", {}).items():
        yield Line(printable(name), "", 0, 0.0, fps, "passed over", why)


def printable(name: str) -> str:
    r"""A name for readers of JSON: a byte that is no UTF-8, which file names may hold, as \xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
