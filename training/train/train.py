"""MotionCLIP's training from cached vectors: neither CLIP nor SMPL runs in the loop."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mclip.pipeline.embed.vectors import window_vectors
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.machine.devices import free_bytes, multiplies_bfloat16, require_bfloat16
from mclip.pipeline.machine.interrupt import Interrupt
from mclip.pipeline.machine.speed import Speed, matmul_rate
from mclip.pipeline.store.schema import SPLITS, StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Batch, Crops, default_split, load_crops, text_choices
from mclip.training.data.feed import Feed
from mclip.training.data.rows import joints_of
from mclip.training.model import losses
from mclip.training.model.config import PAPERS_BATCH, ModelConfig, TrainConfig
from mclip.training.model.run import RunError, delete_run, drop_old, is_best, start_run
from mclip.training.model.run_documents import ROOT_PATH
from mclip.training.train.curves import draw_curves
from mclip.training.train.graph import Steps, compile_parts, pays_to_compile, way_of
from mclip.training.train.journal import CURVES, require_wandb
from mclip.training.train.progress import Report
from mclip.training.train.start import describe_longer, read_origin, resume, take_weights, write_checkpoint
from mclip.training.train.step import Learner, vertex_loss_of
from mclip.training.train.validation import Validation
from mclip.training.train.workers import Workers, join

ROOM = 0.6  # share of the free memory that motion may take: the model and its activations need the rest


def train(
    store: Store,
    folder: Path,
    config: TrainConfig,
    sizes: ModelConfig,
    *,
    device: torch.device,
    replace: bool = False,
    start_from: Path | None = None,
) -> str:
    """Train a run to its end, from its last checkpoint where it has one; returns the summary line.

    `replace` deletes the run first, once the new options are known to fit store, body and machine. Every random number
    of step n comes from (seed, n), so a killed run continues to the same weights, bit for bit; and so does one whose
    epochs are raised, but for a schedule that spans them. `start_from` is a run whose weights a new one begins with.
    """
    started = time.perf_counter()
    workers, device = join(device)
    config, sizes = resolve_options(store, config, sizes, device=device, workers=workers)
    body = load_body(config.loss_body).to(device)
    origin = read_origin(start_from, folder, sizes, replace=replace)
    if workers.first:
        if replace:
            delete_run(folder)
        start_run(folder, run_config(store, config, sizes) | ({"started_from": origin} if origin else {}))
    workers.wait()

    # What is learnt from, what learns, and what measures it.
    crops, validated, split = load_data(store, config, device, folder)
    texts = store.strings("texts")
    feed = Feed(crops, texts, config, device)
    steps = math.ceil(config.epochs * len(crops) / config.batch)
    vertex_loss = vertex_loss_of(config, body, feed.generator)
    made: dict[str, Any] = {"steps": steps, "device": device, "workers": workers, "warm": origin is not None}
    learner = Learner(config, sizes, vertex_loss=vertex_loss, **made)
    validate = Validation(store, validated, texts, fps=store.fps)

    told = take_weights(folder, learner, crops, origin) if workers.first else []
    workers.wait()
    state = resume(folder, learner)
    first = state["step"]
    if workers.first:
        drop_old(folder)  # what a kill between saving and dropping left
    if first >= steps:
        if workers.first and not (folder / CURVES).exists():
            draw_curves(folder)
        return f"train: 0 of {steps:,} steps to do, {folder} is trained" if workers.first else ""
    speed = measure_speed(learner, feed(first))
    capture, way = way_of(config, feed, workers.count)
    figures: dict[str, float] = {}
    with ExitStack() as opened:
        interrupt = opened.enter_context(Interrupt())
        say: Callable[..., None] = silent
        if workers.first:
            report = opened.enter_context(Report(folder, config, first=first, steps=steps, speed=speed))
            say, told = report.say, told + describe_longer(config, state, steps) + way
            say(crops.told(config.storage), str(speed), *told, *startup_notes(config, crops, body))
        if pays_to_compile(config, device, steps):
            say(compile_parts(learner, feed, first))
        take = Steps(learner, feed, capture, say)
        for step in range(first, steps):
            found, norm = take(step)
            done = step + 1
            log, measure, save = due(config, done, steps)
            asks = log or measure or save or device.type == "cpu"  # asking a GPU would make every step wait
            # Asked once: what is said to be saved was; and several stop at one step, or would wait for each other.
            stop = done < steps and (asks or workers.count == 1) and workers.agree(interrupt.pressed, device)
            save |= stop
            if asks or stop:
                learner.guard.check(crops, feed.order)
            summed = workers.sum_of(found) if log else {}
            if stop and not workers.first:
                break
            if not workers.first:
                continue
            if log:
                report.losses(done, summed, norm)
            if measure:
                figures = validate(learner.eval_model)
                report.validation(done, figures, split)
            if save or (measure and is_best(folder, figures)):
                write_checkpoint(folder, learner, crops, {"step": done, "steps": steps} | (figures if measure else {}))
            report.advance(done)
            if stop:
                raise KeyboardInterrupt(f"train stopped at step {done:,} of {steps:,}, which is saved")
    if not workers.first:
        return ""
    seconds = time.perf_counter() - started
    return (
        f"train: {steps - first:,} steps done, {first:,} skipped, 0 failed in {seconds:.1f} s, "
        f"{(steps - first) * config.batch / seconds:,.0f} crops/s, {split} MPJPE {figures['mpjpe_mm']:.1f} mm"
    )


def resolve_options(
    store: Store, config: TrainConfig, sizes: ModelConfig, *, device: torch.device, workers: Workers
) -> tuple[TrainConfig, ModelConfig]:
    """The options with what depends on store and machine filled in; StoreError or RunError when they do not fit."""
    encoders = store.encoders
    name = config.encoder or (next(iter(encoders)) if len(encoders) == 1 else "")
    if name not in encoders:
        told = f"no vectors of encoder {name}" if name else "no --encoder named"
        raise StoreError(
            f"{store.url}: {told}; the store has those of {sorted(encoders)}: pass --encoder with one of them, "
            f"or run `mclip embed {store.url} --clip ...`"
        )
    width = encoders[name]["width"]
    if sizes.latent not in (0, width):
        raise StoreError(f"encoder {name} is {width} wide, --latent is {sizes.latent}: leave --latent out")
    require_targets(store, config, name)
    check_parts(config, workers)
    if config.wandb:
        require_wandb()
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
    if precision == "bfloat16":
        require_bfloat16(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    return replace(config, encoder=name, precision=precision), replace(sizes, latent=width)


def check_parts(config: TrainConfig, workers: Workers) -> None:
    """RunError when the options cannot be split among workers."""
    parts = workers.count * config.accumulate
    if config.batch < parts:
        raise RunError(
            f"--batch is {config.batch}, {workers.count} processes share it in {config.accumulate} parts each: "
            "expected at least one crop in each part: raise --batch, or lower --accumulate"
        )
    if config.clip_loss == "infonce" and parts > 1:
        raise RunError(
            "--clip-loss infonce compares all crops of a batch: train it with one process and --accumulate 1"
        )


def run_config(store: Store, config: TrainConfig, sizes: ModelConfig) -> dict[str, Any]:
    """What config.json holds: everything needed to continue and to use the run, without the store."""
    return {
        "model": asdict(sizes),
        "train": asdict(config),
        "encoder": {"name": config.encoder} | store.encoders[config.encoder],
        "data": {"fps": store.fps, "crop": store.crop, "store": store.fingerprint(), "row25": ROOT_PATH},
    }


def require_targets(store: Store, config: TrainConfig, encoder: str) -> None:
    """StoreError when a loss has a weight and no training crop has what it is held against."""
    trained = store.read("windows/split") == SPLITS.index("train")
    labelset, count = store.read("windows/labelset")[trained], text_choices(store, config.target)[2]
    if config.text_weight and len(labelset) and not count[labelset].any():
        raise StoreError(
            f"{store.url}: no training crop has a text (--target {config.target}): give `mclip prepare` --labels, or "
            "pass --text-weight 0 to train without texts"
        )
    if config.image_weight and len(labelset) and not window_vectors(store, encoder)[1][trained].any():
        raise StoreError(
            f"{store.url}: no training window has a picture's vector: run `mclip render` and `mclip embed`, or pass "
            "--image-weight 0 to train without pictures"
        )


def load_data(store: Store, config: TrainConfig, device: torch.device, folder: Path) -> tuple[Crops, Crops, str]:
    """Training crops, crops to validate on, and their split; what does not fit the device is mapped from the folder."""
    made: dict[str, Any] = {"encoder": config.encoder, "target": config.target, "device": device}
    made |= {"storage": config.storage, "short": config.short, "folder": folder}
    made |= {"room": int(ROOM * free_bytes(device))}
    split = default_split(store)
    crops = load_crops(store, split="train", **made)
    return crops, crops if split == "train" else load_crops(store, split=split, **made), split


def measure_speed(learner: Learner, batch: Batch) -> Speed:
    """The machine's rate of matrix products in the run's precision, and how many this worker's share of a step takes.

    Torch counts one step on a batch; the weights stay as they are.
    """
    config, motion = learner.config, batch.motion_BTRD
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    rate = matmul_rate(dtype, motion.device, rows=config.batch * motion.shape[1], width=learner.model.config.latent)
    with FlopCounterMode(display=False) as counter:
        learner.gradients(batch)
    learner.forget()
    return Speed(rate, counter.get_total_flops(), dtype)


def startup_notes(config: TrainConfig, crops: Crops, body: Body) -> Iterator[str]:
    """What a user should know before the first step."""
    device = crops.row.device
    if config.precision == "bfloat16" and not multiplies_bfloat16(device):
        yield f"--precision bfloat16: {device} multiplies it slowly or by emulation: float32 is likely to be faster"
    if config.rate_rule != "none":
        yield (
            f"learning rate {config.learning_rate_at(config.warmup, 10**9):.3g}: {config.learning_rate:.3g} times "
            f"sqrt({config.batch:,} / {PAPERS_BATCH})"
        )
    if config.batch > len(crops):
        yield (
            f"--batch is {config.batch}, there are {len(crops):,} windows to train on: a batch holds some of them "
            "several times; lower --batch if that is not meant"
        )
    if config.vertex_loss == "closed-form" and body.posedirs_V3P is not None:
        closed, full = (1000 * mm for mm in between_poses(crops, body))
        yield (
            f"--vertex-loss closed-form leaves out the pose correctives of {body.name}: {closed:.2f} mm between "
            f"training poses, {full:.2f} mm with them ({closed / full - 1:+.2%}); --vertex-loss full has them"
        )


def between_poses(crops: Crops, body: Body) -> tuple[float, float]:
    """Root mean square distance (metres, per coordinate) of vertices between training poses: closed form, and full."""
    batch = crops.some(16).middle(torch.arange(min(16, len(crops)), device=crops.row.device))
    motion_BTJD, mask_BT = joints_of(batch.motion_BTRD), batch.mask_BT & batch.mask_BT.flip(1)
    closed, full = (
        float(loss(motion_BTJD, motion_BTJD.flip(1), mask_BT)) ** 0.5
        for loss in (losses.ClosedFormLoss(body), losses.SkinnedLoss(body))
    )
    return closed, full


def silent(*lines: str) -> None:
    """What the workers say that are not the first: nothing."""


def due(config: TrainConfig, done: int, steps: int) -> tuple[bool, bool, bool]:
    """Whether to log losses, to validate, and to save after `done` of `steps`."""
    log, measure, save, keep = (
        done == steps or (every > 0 and done % every == 0)
        for every in (config.log_every, config.validate_every, config.save_every, config.keep_every)
    )
    return log, measure, save or keep
