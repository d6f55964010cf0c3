"""MotionCLIP's training from cached vectors: neither CLIP nor SMPL runs in the loop."""

# B batch, T frames, R rows, D rotation numbers (6), C CLIP width

import json
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
from mclip.training.evaluate import default_split, reconstruct, z_length
from mclip.training.model import MotionClip
from mclip.training.run import (
    RunError,
    checkpoints,
    load_model,
    load_optimizer,
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
        z_BC = model.encode(batch.motion_BTRD, batch.mask_BT).float()
        source_BC = decoder_input(z_BC, batch, config)
        motion = model.decode(source_BC, batch.motion_BTRD.shape[1], batch.mask_BT).float()
    target, mask = batch.motion_BTRD, batch.mask_BT
    return {
        "rot6d": losses.rot6d_loss(motion, target, mask),
        "vertices": vertex_loss(motion[:, :, :24], target[:, :, :24], mask),
        "velocity": losses.velocity_loss(motion, target, mask),
        "text": losses.cosine_loss(z_BC, batch.text_BC, batch.has_text_B),
        "image": losses.cosine_loss(z_BC, batch.image_BC, batch.has_image_B),
    }


def decoder_input(z_BC: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """z itself, as in the paper; or with noise, or for a share of the batch the text's vector at z's length."""
    if config.text_decoding:
        from_text = (torch.rand_like(z_BC[:, 0]) < config.text_decoding) & batch.has_text_B
        text_BC = torch.nn.functional.normalize(batch.text_BC, dim=-1) * z_BC.detach().norm(dim=-1, keepdim=True)
        z_BC = torch.where(from_text[:, None], text_BC, z_BC)
    if config.latent_noise:
        scale = config.latent_noise * z_BC.detach().norm(dim=-1, keepdim=True) / z_BC.shape[1] ** 0.5
        z_BC = z_BC + scale * torch.randn_like(z_BC)
    return z_BC


def check_finite(terms: dict[str, Tensor], norm: Tensor, step: int, batch: Batch) -> None:
    """RunError naming step, term and windows when a loss or the gradient is not finite: before the weights are."""
    if torch.isfinite(norm):
        return
    broken = [name for name, value in terms.items() if not torch.isfinite(value)] or ["gradient"]
    raise RunError(
        f"step {step}: {', '.join(broken)} not finite; windows {batch.window_B.tolist()}. The last checkpoint is whole: "
        "lower --learning-rate, set --clip-gradient, or check the store with `mclip validate`"
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
    made = {"encoder": config.encoder, "target": config.target, "device": device}
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
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.backends.cpu.get_cpu_capability()
    return capable.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()


def run_config(store: Store, config: TrainConfig, sizes: ModelConfig) -> dict[str, Any]:
    """What config.json holds: everything needed to continue and to use the run, without the store."""
    prepared = store.attributes("prepare")["options"]
    return {
        "model": asdict(sizes),
        "train": asdict(config),
        "encoder": {"name": config.encoder} | store.attributes("embed")["encoders"][config.encoder],
        "data": {"fps": prepared["fps"], "crop": prepared["crop"], "store": store.fingerprint()},
    }


class Metrics:
    """metrics.jsonl and TensorBoard, cut back to the checkpoint's step when a run continues."""

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard.writer import SummaryWriter

        self.file = folder / "metrics.jsonl"
        if self.file.exists():
            lines = [line for line in self.file.read_text().splitlines() if json.loads(line)["step"] <= step]
            self.file.write_text("".join(f"{line}\n" for line in lines))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, step: int, **values: float) -> None:
        """Append one line of named numbers."""
        with self.file.open("a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)


def train(store: Store, folder: Path, config: TrainConfig, sizes: ModelConfig, *, device: torch.device) -> str:
    """Train a run to its end, from its last checkpoint where it has one; returns the summary line.

    Every random number of step n comes from (seed, n), so a killed run continues to the same weights, bit for bit.
    """
    started = time.perf_counter()
    config, sizes = settle(store, config, sizes, device)
    start_run(folder, run_config(store, config, sizes))
    crops, validation, split = load_data(store, config, device)
    steps = math.ceil(config.epochs * len(crops) / config.batch)
    torch.manual_seed(config.seed)
    model = MotionClip(sizes).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    step = resume(folder, model, optimizer)
    if step >= steps:
        return f"train: 0 of {steps:,} steps to do, {folder} is trained"
    body = load_body()
    vertex_loss = losses.VertexLoss(
        v_template_V3=body.v_template_V3, joints_J3=body.joints_J3, weights_VJ=body.weights_VJ
    ).to(device)
    weights = {term: getattr(config, term) for term in TERMS}
    order = Order(len(crops), config.batch, config.seed, device)
    generator = torch.Generator(device)
    metrics, first, logged = Metrics(folder, step), step, time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("train", total=steps, completed=step, rate="")
        while step < steps:
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout and noise know no other generator
            batch = crops.sample(order(step), generator.manual_seed(config.seed * 1_000_003 + step))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step, steps)
            terms = loss_terms(model, batch, vertex_loss, config)
            total = sum(weights[term] * value for term, value in terms.items() if weights[term])
            assert isinstance(total, Tensor)
            optimizer.zero_grad()
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_gradient or math.inf)
            check_finite(terms, norm, step, batch)
            optimizer.step()
            step += 1
            if step % config.log_every == 0 or step == steps:
                rate = config.batch * config.log_every / (time.perf_counter() - logged)
                logged = time.perf_counter()
                values = {f"loss/{term}": value.item() for term, value in terms.items()}
                metrics.write(step, **{"loss/total": total.item(), **values, "gradient_norm": norm.item()})
                bar.update(task, rate=f"loss {total.item():.4f}  {rate:,.0f} crops/s")
            if step % config.validate_every == 0 or step == steps:
                found = reconstruct(model, validation).summary()
                metrics.write(step, **{f"{split}/{name}": value for name, value in found.items()})
            if step % config.save_every == 0 or step == steps:
                state = {"step": step, "steps": steps, "z_length": z_length(model, crops)}
                save_checkpoint(folder, model, optimizer, state)
            bar.update(task, completed=step)
    metrics.board.close()
    seconds = time.perf_counter() - started
    return (
        f"train: {step - first:,} steps done, {first:,} skipped, 0 failed in {seconds:.1f} s, "
        f"{(step - first) * config.batch / seconds:,.0f} crops/s, {split} MPJPE {found['mpjpe_mm']:.1f} mm"
    )


def resume(folder: Path, model: MotionClip, optimizer: torch.optim.Optimizer) -> int:
    """Load the last whole checkpoint, if there is one, and return its step."""
    found = checkpoints(folder)
    if not found:
        return 0
    load_model(model, found[-1])
    load_optimizer(optimizer, found[-1])
    return int(json.loads((found[-1] / "state.json").read_text())["step"])
