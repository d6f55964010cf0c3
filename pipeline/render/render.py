"""Rotations -> pictures in the store: K frames a window, seen by as many cameras as the options say."""

# N pictures of a block or of all, W windows, K frames of a window, S picture side in pixels

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mclip.pipeline.draw.backends import choose_backend
from mclip.pipeline.geometry.body import Body, fingerprint_of, load_bodies
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import GENDERS
from mclip.pipeline.machine.compiled import usable_cores
from mclip.pipeline.machine.devices import pick_device
from mclip.pipeline.prepare.plan import accounts
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.scene import Setting, Shot, batch_size, draw_shots, setting_of
from mclip.pipeline.store.schema import DONE, StoreError
from mclip.pipeline.store.stage import Result, Summary, check_scheduler, run_stage
from mclip.pipeline.store.store import Store, open_store

MOST_PICTURES = 20_000_000  # in a store: their index takes half a gigabyte


def picture_frames(
    valid: int | Int[np.ndarray, " W"], count: int, *, place: float | Float[np.ndarray, "W K"] = 0.5
) -> Int[np.ndarray, "*W K"]:
    """Frames of windows of `valid` frames that are drawn: one in each of `count` parts, at a share of the part."""
    frames = ((np.arange(count) + place) * np.expand_dims(valid, -1) / count).astype(np.int64)
    return np.minimum(frames, np.expand_dims(valid, -1) - 1)  # a share just under 1 rounds up


def picture_index(store: Store, options: RenderOptions) -> dict[str, np.ndarray]:
    """Window, frame and view of every picture, numbered in that order: a shorter store's index begins a longer one's.

    ValueError for more pictures than a store can have.
    """
    valid = store.read("windows/frames")
    drawn = int(valid.sum()) if options.pick == "all" else len(valid) * options.frames
    if drawn * options.views > MOST_PICTURES:
        raise ValueError(
            f"{drawn * options.views:,} pictures ({drawn:,} frames of {len(valid):,} windows, {options.views:,} views) "
            f"are more than {MOST_PICTURES:,}: lower --frames or --views"
        )
    if options.pick == "all":
        counts = valid
        frame = np.arange(drawn) - np.repeat(np.cumsum(valid) - valid, valid)
    else:
        counts = np.full(len(valid), options.frames)
        generator = np.random.default_rng(options.seed)
        place = 0.5 if options.pick == "even" else generator.random((len(valid), options.frames))
        frame = picture_frames(valid, options.frames, place=place).ravel()
    window = np.repeat(np.arange(len(valid)), counts)
    columns = {"window": np.repeat(window, options.views), "frame": np.repeat(frame, options.views)}
    return columns | {"view": np.tile(np.arange(options.views), drawn)}


def plan_pictures(store: Store, options: RenderOptions) -> list[range]:
    """Add the pictures of windows that have none to the store's index; returns blocks of pictures, one a shard."""
    index = picture_index(store, options)
    for name, values in index.items():
        store.write(f"pictures/{name}", values)
    total = len(index["window"])
    shard = store.grow("pictures/rgb", total, size=options.size).shards
    store.grow("pictures/done", total)
    assert shard is not None
    return [range(start, min(start + shard[0], total)) for start in range(0, total, shard[0])]


def preview(store: Store, options: RenderOptions) -> str:
    """What `render` would do, in words; nothing is written."""
    require_windows(store)
    check_frames(store, options)
    store.refuse_other_options("render", render_options_record(options, load_bodies(options.body)))
    total = len(picture_index(store, options)["window"])
    done = int((store.read("pictures/done") == DONE).sum()) if "pictures/done" in store else 0
    return (
        f"dry run, nothing is written: {total - done:,} pictures to draw of {total:,}, {options.size} px, "
        f"{total * options.size**2 * 3 / 1e6:,.1f} MB before compression; {done:,} done already"
    )


def require_windows(store: Store) -> None:
    """StoreError for a store that is not prepared."""
    if not store.is_indexed:
        raise StoreError(f"{store.url}: no windows in this store; run `mclip prepare SOURCE {store.url}` first")


def render_options_record(options: RenderOptions, bodies: dict[str, Body]) -> dict[str, Any]:
    """The options as the store records them: the body by what is in it, not by its name."""
    return asdict(options) | {"body": fingerprint_of(bodies)}


def render(
    store: Store,
    options: RenderOptions,
    *,
    backend: str = "auto",
    device: str = "auto",
    limit: int | None = None,
    scheduler: str = "sync",
    workers: int = 1,
    replace: bool = False,
) -> Summary:
    """Draw every picture that is not there yet; one whose motion is no numbers is recorded as failed.

    `device` as `pick_device`, asked by each worker. `replace` deletes the store's pictures and vectors first, once the
    new ones are known to be possible. StoreError when the store has other pictures, or no windows; ValueError for a
    body that cannot be used.
    """
    require_windows(store)
    bodies = load_bodies(options.body)
    check_bodies(store, options, bodies)
    check_scheduler(scheduler)
    check_frames(store, options)
    chosen = choose_backend(backend, pick_device(device))
    if replace:
        store.forget("pictures", "render")
        store.forget("embeddings", "embed")
    store.fix_options("render", render_options_record(options, bodies))
    blocks = plan_pictures(store, options)
    # A dask worker is one of many on its machine; here the cores are shared out.
    threads = 1 if "://" in scheduler else max(1, usable_cores() // (1 if scheduler == "sync" else workers))
    compute = functools.partial(render_block, store.url, options, fingerprint_of(bodies), chosen, threads, device)
    return run_stage(
        store,
        "render",
        marks="pictures/done",
        blocks=blocks,
        compute=compute,
        unit="pictures",
        limit=limit,
        scheduler=scheduler,
        workers=workers,
    )


def check_frames(store: Store, options: RenderOptions) -> None:
    """ValueError when a window has fewer frames than pictures were asked for, or a store would have too many."""
    window = store.window
    if options.frames > window:
        raise ValueError(f"--frames is {options.frames:,}, a window has {window} frames: expected at most as many")
    picture_index(store, options)


def check_bodies(store: Store, options: RenderOptions, bodies: dict[str, Body]) -> None:
    """ValueError when a gender of the store's sequences has no body, or no body can take their shapes."""
    wanted = store.read("sequences/gender")[np.unique(store.read("windows/sequence"))]
    for code, gender in enumerate(GENDERS):
        count = int((wanted == code).sum())
        if count and gender not in bodies:
            raise ValueError(
                f"--body {options.body}: found {', '.join(bodies)}, but {count} sequences are {gender}: add its file "
                "to the folder, or name one .npz for all"
            )
    if options.betas == "sequence":
        for body in bodies.values():
            body.shaped(torch.zeros(1))
            check_model(store, options, body)


SMPLX_VERTICES = 10_475  # SMPL and SMPL+H, which share their shapes, have 6,890


def check_model(store: Store, options: RenderOptions, body: Body) -> None:
    """ValueError where shapes of SMPL-X would be drawn on another body, or another's on SMPL-X."""
    smplx = len(body.v_template_V3) == SMPLX_VERTICES
    models = [account.get("model", "") for account in accounts(store)]
    if count := sum(bool(model) and (model == "smplx") != smplx for model in models):
        raise ValueError(
            f"--betas sequence: the shapes of {count:,} sequences are of {'SMPL' if smplx else 'SMPL-X'}, --body "
            f"{options.body} is {'SMPL-X' if smplx else 'none of it'}: name a body of that model, or --betas zero"
        )


@functools.lru_cache(maxsize=2)
def bodies_on(device: torch.device, name: str, expected: str) -> dict[str, Body]:
    """The bodies that a run was begun with, read once a process; ValueError when their files have changed since."""
    bodies = load_bodies(name)
    if fingerprint_of(bodies) != expected:
        raise ValueError(f"--body {name}: the file is not the one that this run began with: restore it")
    moved = {id(body): body.to(device) for body in bodies.values()}
    return {gender: moved[id(body)] for gender, body in bodies.items()}


def body_for_sequence(
    store: Store, options: RenderOptions, expected: str, device: torch.device
) -> Callable[[int], Body]:
    """A function that gives the body of a sequence: its gender's, in its shape where the options say so."""
    bodies = bodies_on(device, options.body, expected)
    genders, betas = store.read("sequences/gender"), torch.from_numpy(store.read("sequences/betas")).to(device)

    @functools.cache
    def body_of(sequence: int) -> Body:
        body = bodies[GENDERS[genders[sequence]]]
        if options.betas == "zero":
            return body
        assert body.shapedirs_V3S is not None  # checked when the run began
        return body.shaped(betas[sequence, : body.shapedirs_V3S.shape[-1]])

    return body_of


def render_block(
    url: str, options: RenderOptions, bodies: str, backend: str, threads: int, device: str, block: range
) -> Result:
    """Draw and write the pictures of a block, which is a shard."""
    store, at = open_store(url), slice(block.start, block.stop)
    window, frame, view = (store.read(f"pictures/{name}", at) for name in ("window", "frame", "view"))
    body_of = body_for_sequence(store, options, bodies, pick_device(device))
    shots = shots_of(store, options, window, frame, view, body_of=body_of)
    rgb_NSS3 = np.zeros((len(block), options.size, options.size, 3), np.uint8)
    failed = np.ones(len(block), bool)
    for part in torch.arange(len(block)).split(batch_size(options, shots[0].body)):
        pictures, finite = draw_shots([shots[item] for item in part], options, backend=backend, threads=threads)
        drawn = part.numpy()[finite]
        rgb_NSS3[drawn], failed[drawn] = pictures, False
    store.array("pictures/rgb")[at] = rgb_NSS3
    return Result(
        {
            block.start
            + item: f"{name_of(store, window[item])}: frame {frame[item]} of window {window[item]} has NaN or "
            "infinity in its rotations or shape"
            for item in np.flatnonzero(failed).tolist()
        }
    )


def shots_of(
    store: Store,
    options: RenderOptions,
    window_N: np.ndarray,
    frame_N: np.ndarray,
    view_N: np.ndarray,
    *,
    body_of: Callable[[int], Body],
) -> list[Shot]:
    """What each picture of a block shows."""
    row, valid = store.columns("windows", "row", "frames")
    sequence = store.read("windows/sequence").tolist()
    # The windows of a block lie close together: one piece of motion holds them all.
    first, last = int(row[window_N].min()), int((row + valid)[window_N].max())
    device = body_of(sequence[window_N[0]]).device
    rot6d, trans = (torch.from_numpy(each).to(device) for each in store.motion(slice(first, last)))
    settings: dict[int, Setting | None] = dict.fromkeys(np.unique(window_N).tolist())
    if options.camera == "fixed" or options.ground:
        for window in settings:
            start = int(row[window]) - first
            piece = slice(start, start + int(valid[window]))
            body = body_of(sequence[window])
            settings[window] = setting_of(body, rot6d_to_matrix(rot6d[piece]), trans[piece], options)
    places = torch.from_numpy(row[window_N] + frame_N - first)
    return [
        Shot(body_of(sequence[window]), rotmat_J33, trans_3, view, settings[window])
        for window, rotmat_J33, trans_3, view in zip(
            window_N.tolist(), rot6d_to_matrix(rot6d[places]), trans[places], view_N.tolist(), strict=True
        )
    ]


def name_of(store: Store, window: np.int64) -> str:
    """The name of a window's sequence."""
    return store.strings("sequences/name")[store.read("windows/sequence")[window]]
