"""MotionCLIP's training from cached vectors: neither CLIP nor SMPL runs in the loop."""

# B batch, T frames, R rows, D rotation numbers (6), C CLIP width

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclip.pipeline.body import load_body
from mclip.pipeline.stage import progress_bar
from mclip.pipeline.store import Store, StoreError
from mclip.training import losses
from mclip.training.config import TERMS, ModelConfig, TrainConfig
from mclip.training.crops import Batch, Crops, load_crops
from mclip.training.distributed import Workers, join
from mclip.training.evaluate import default_split, reconstruct, z_length
from mclip.training.journal import Journal, collapse
from mclip.training.model import MotionClip
from mclip.training.run import (
    ROOT,
    RunError,
    best_mpjpe,
    checkpoints,
    load_model,
    load_optimizer,
    read_state,
    save_checkpoint,
    start_run,
)


class Order:
    """Which windows step n takes: one shuffled pass after the other, computed from (seed, step) alone.

    Nothing is carried from step to step, so a resumed run takes the same windows.
    """

    def __init__(self, windows: int, batch: int, seed: int, device: torch.device):
        self.windows, self.batch, self.seed, self.device = windows, batch, seed, device
        self.passes: dict[int, Tensor] = {}

    def one_pass(self, number: int) -> Tensor:
        """The shuffled windows of a pass; the last two are kept."""
        if number not in self.passes:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self.passes[number] = torch.randperm(self.windows, generator=generator).to(self.device)
            self.passes.pop(number - 2, None)
        return self.passes[number]

    def __call__(self, step: int) -> Tensor:
        first, last = step * self.batch, (step + 1) * self.batch
        passes = range(first // self.windows, (last - 1) // self.windows + 1)
        stream = torch.cat([self.one_pass(number) for number in passes])
        start = first - passes[0] * self.windows
        return stream[start : start + self.batch]


def loss_terms(
    model: MotionClip, batch: Batch, vertex_loss: losses.VertexLoss, config: TrainConfig
) -> dict[str, Tensor]:
    """The five losses of a batch, not weighted."""
    with torch.autocast(batch.motion_BTRD.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        z_BC = model.encode(batch.motion_BTRD, batch.attended_BT).float()
        source_BC = decoder_input(z_BC, batch, config)
        motion = model.decode(source_BC, batch.motion_BTRD.shape[1], batch.attended_BT).float()
    target, mask = batch.motion_BTRD, batch.mask_BT
    clip_loss = losses.CLIP_LOSSES[config.clip_loss]
    return {
        "rot6d": losses.rot6d_loss(motion, target, mask),
        "vertices": vertex_loss(motion[:, :, :24], target[:, :, :24], mask),
        "velocity": losses.velocity_loss(motion, target, mask),
        "text": clip_loss(z_BC, batch.text_BC, batch.has_text_B),
        "image": clip_loss(z_BC, batch.image_BC, batch.has_image_B),
    }


def decoder_input(z_BC: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """z itself, as in the paper; or for a share of the batch a label's vector at z's length; or with noise on it."""
    if config.text_decoding:
        from_text = (torch.rand_like(z_BC[:, 0]) < config.text_decoding) & batch.has_text_B
        label_BC = torch.nn.functional.normalize(batch.label_BC, dim=-1) * z_BC.detach().norm(dim=-1, keepdim=True)
        z_BC = torch.where(from_text[:, None], label_BC, z_BC)
    if config.latent_noise:
        # Each item has an amount of its own, from none on: clean vectors stay what is decoded best.
        amount_B1 = config.latent_noise * torch.rand_like(z_BC[:, :1]) / z_BC.shape[1] ** 0.5
        z_BC = z_BC + amount_B1 * z_BC.detach().norm(dim=-1, keepdim=True) * torch.randn_like(z_BC)
    return z_BC


class Guard:
    """Holds the weights from the first step on whose gradient is not finite, without asking the device in each step.

    AdamW skips its step on the device where `found_inf` is not 0; here it stays so. What was wrong is kept, and told
    when somebody asks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device):
        self.optimizer = optimizer
        self.halted = torch.zeros((), device=device)
        self.seen = torch.zeros(2 + len(TERMS), device=device)

    def watch(self, step: int, terms: dict[str, Tensor], norm: Tensor) -> None:
        """Look at a step's gradient norm and losses before the optimizer takes the step."""
        at = torch.full_like(norm, step)
        now = torch.stack([at, norm, *(terms[term].detach() for term in TERMS)])
        self.seen = torch.where(self.halted > 0, self.seen, now)
        self.halted = torch.maximum(self.halted, (~torch.isfinite(norm)).float())
        self.optimizer.found_inf = self.halted  # type: ignore[attr-defined]

    def check(self, crops: Crops, order: Order) -> None:
        """RunError naming step, term and windows when there was such a step; the weights are those before it."""
        if not self.halted:
            return
        step, norm, *values = self.seen.tolist()
        broken = [term for term, value in zip(TERMS, values, strict=True) if not math.isfinite(value)]
        windows = crops.window[order(int(step))].tolist()
        raise RunError(
            f"step {step:.0f}: {', '.join(broken) or 'gradient'} not finite; windows {windows}. The last checkpoint is "
            "whole: lower --learning-rate, set --clip-gradient, or check the store with `mclip validate`"
        )


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; RunError when an asked device is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"--device {name}: no CUDA device is visible to torch {torch.__version__}; use --device cpu")
    return torch.device(name)


def load_data(store: Store, config: TrainConfig, device: torch.device) -> tuple[Crops, Crops, str]:
    """Training crops, crops to validate on, and their split."""
    made: dict[str, Any] = {"encoder": config.encoder, "target": config.target, "device": device}
    made |= {"storage": config.storage, "short": config.short}
    split = default_split(store)
    crops = load_crops(store, split="train", **made)
    return crops, crops if split == "train" else load_crops(store, split=split, **made), split


def settle(
    store: Store, config: TrainConfig, sizes: ModelConfig, device: torch.device
) -> tuple[TrainConfig, ModelConfig]:
    """The options with what depends on store and machine filled in; StoreError when they do not fit the store."""
    encoders = store.attributes("embed").get("encoders", {})
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
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return replace(config, encoder=name, precision=precision), replace(sizes, latent=width)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: CUDA from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.backends.cpu.get_cpu_capability()
    return capable.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())


def run_config(store: Store, config: TrainConfig, sizes: ModelConfig) -> dict[str, Any]:
    """What config.json holds: everything needed to continue and to use the run, without the store."""
    prepared = store.attributes("prepare")["options"]
    return {
        "model": asdict(sizes),
        "train": asdict(config),
        "encoder": {"name": config.encoder} | store.attributes("embed")["encoders"][config.encoder],
        "data": {"fps": prepared["fps"], "crop": prepared["crop"], "store": store.fingerprint(), "row25": ROOT},
    }


def train(store: Store, folder: Path, config: TrainConfig, sizes: ModelConfig, *, device: torch.device) -> str:
    """Train a run to its end, from its last checkpoint where it has one; returns the summary line.

    Every random number of step n comes from (seed, n), so a killed run continues to the same weights, bit for bit.
    """
    started = time.perf_counter()
    workers, device = join(device)
    config, sizes = settle(store, config, sizes, device)
    if workers.count > 1:
        check_parts(config, workers)
    if workers.first:
        start_run(folder, run_config(store, config, sizes))
    workers.wait()
    crops, validation, split = load_data(store, config, device)
    steps = math.ceil(config.epochs * len(crops) / config.batch)
    torch.manual_seed(config.seed)
    model = MotionClip(sizes).to(device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    step = resume(folder, model, optimizer)
    if step >= steps:
        return f"train: 0 of {steps:,} steps to do, {folder} is trained" if workers.first else ""
    body = load_body()
    vertex_loss = losses.VertexLoss(
        v_template_V3=body.v_template_V3, joints_J3=body.joints_J3, weights_VJ=body.weights_VJ
    ).to(device)
    weights = {term: getattr(config, term) for term in TERMS}
    order, guard = Order(len(crops), config.batch, config.seed, device), Guard(optimizer, device)
    generator = torch.Generator(device)
    journal = Journal(folder, step) if workers.first else None
    first, logged, found, best = step, time.perf_counter(), {}, best_mpjpe(folder)
    with progress_bar() as bar:
        bar.console.print(crops.told(config.storage)) if workers.first else None
        task = bar.add_task("train", total=steps, completed=step, rate="")
        while step < steps:
            # Dropout and noise know no other generator than the global one.
            torch.manual_seed(config.seed * 1_000_003 + step + 999_983 * workers.rank)
            batch = crops.sample(order(step), generator.manual_seed(config.seed * 1_000_003 + step))
            own, share = workers.own(batch)
            terms = loss_terms(model, own, vertex_loss, config)
            terms = {term: value * share.get(term, 1) for term, value in terms.items()}
            total = torch.stack([weights[term] * value for term, value in terms.items() if weights[term]]).sum()
            optimizer.zero_grad()
            torch.autograd.backward(total)
            gradients = [each.grad for each in parameters if each.grad is not None]
            workers.add_up(gradients)
            norm = torch.nn.utils.get_total_norm(gradients)
            if config.clip_gradient:
                torch.nn.utils.clip_grads_with_norm_(parameters, config.clip_gradient, norm)
            guard.watch(step, terms, norm)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step, steps)
            optimizer.step()
            step += 1
            log, validate, save = (step % n == 0 or step == steps for n in intervals(config))
            if log or validate or save or device.type == "cpu":  # asking a GPU would make every step wait
                guard.check(crops, order)
            if log:
                values = torch.stack([total, *terms.values()]).detach()
                workers.add_up([values])
                rate = config.batch * config.log_every / (time.perf_counter() - logged)
                logged = time.perf_counter()
                bar.update(task, rate=f"loss {values[0].item():.4f}  {rate:,.0f} crops/s")
                if journal:
                    named = dict(zip(("total", *terms), values.tolist(), strict=True))
                    journal.write(
                        step, **{f"loss/{term}": value for term, value in named.items()}, gradient_norm=float(norm)
                    )
            if journal and validate:
                found = reconstruct(model, validation).summary()
                journal.write(step, **{f"{split}/{name}": value for name, value in found.items()})
                alarm = collapse(found)
                if alarm:
                    bar.console.print(f"step {step}: {alarm}")
            if journal and (save or (validate and found["mpjpe_mm"] < best)):
                state = {"step": step, "steps": steps, "z_length": z_length(model, crops)}
                if validate:
                    state["mpjpe_mm"], best = found["mpjpe_mm"], min(best, found["mpjpe_mm"])
                save_checkpoint(folder, model, optimizer, state)
            bar.update(task, completed=step)
    if not journal:
        return ""
    journal.close()
    seconds = time.perf_counter() - started
    return (
        f"train: {step - first:,} steps done, {first:,} skipped, 0 failed in {seconds:.1f} s, "
        f"{(step - first) * config.batch / seconds:,.0f} crops/s, {split} MPJPE {found['mpjpe_mm']:.1f} mm"
    )


def intervals(config: TrainConfig) -> tuple[int, int, int]:
    """Steps between two lines of losses, two validations, two checkpoints."""
    return config.log_every, config.validate_every, config.save_every


def check_parts(config: TrainConfig, workers: Workers) -> None:
    """RunError when the options cannot be split among workers."""
    if config.batch < workers.count:
        raise RunError(
            f"--batch is {config.batch}, {workers.count} processes share it: expected at least one crop each"
        )
    if config.clip_loss == "infonce":
        raise RunError("--clip-loss infonce compares all crops of a batch: train it with one process")


def resume(folder: Path, model: MotionClip, optimizer: torch.optim.Optimizer) -> int:
    """Load the last whole checkpoint, if there is one, and return its step."""
    found = checkpoints(folder)
    if not found:
        return 0
    load_model(model, found[-1])
    load_optimizer(optimizer, found[-1])
    return int(read_state(found[-1])["step"])
