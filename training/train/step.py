"""One step of training: which crops it takes, its losses, and what it does to the weights.

Every random number of step n comes from (seed, purpose, n), so a resumed run takes the same steps, and no two purposes
share their numbers.
"""

# B batch, T frames, R rows, D rotation numbers (6), C CLIP width

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mclip.pipeline.geometry.body import Body
from mclip.pipeline.machine.devices import send
from mclip.training.data.augmentation import Augmentation
from mclip.training.data.crops import Batch, Crops
from mclip.training.data.rows import joints_of, root_of
from mclip.training.model import losses
from mclip.training.model.config import TERMS, WORLD_TERMS, ModelConfig, TrainConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import RunError
from mclip.training.train.workers import Workers

# What chance decides. The place in the list is part of the seed: append, never insert.
PURPOSES = ("weights", "order", "feed", "decoder input", "dropout")


def seed_of(seed: int, purpose: str, step: int = 0, *, rank: int = 0) -> int:
    """The seed (64 bits) of what one purpose draws in one step on one worker, mixed by numpy's SeedSequence.

    With one seed for two purposes the noise on z would equal the shift of the crop, number by number.
    """
    mixed = np.random.SeedSequence((seed % 2**64, PURPOSES.index(purpose), step, rank))
    return int(mixed.generate_state(1, np.uint64)[0])


class Order:
    """Which windows step n takes: one shuffled pass after the other, computed from (seed, step) alone.

    Nothing is carried from step to step, so a resumed run takes the same windows. `taken_N` are those of a pass.
    """

    def __init__(self, taken_N: Int64[Tensor, " N"], batch: int, seed: int, device: torch.device):
        self.taken_N, self.batch, self.seed, self.device = taken_N, batch, seed, device
        self.passes: dict[int, Tensor] = {}

    def one_pass(self, number: int) -> Tensor:
        """The shuffled windows of a pass; the last two are kept."""
        if number not in self.passes:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", number))
            order_N = torch.randperm(len(self.taken_N), generator=generator)
            self.passes[number] = send(self.taken_N[order_N], self.device)
            self.passes.pop(number - 2, None)
        return self.passes[number]

    def __call__(self, step: int) -> Tensor:
        first, last, whole = step * self.batch, (step + 1) * self.batch, len(self.taken_N)
        passes = range(first // whole, (last - 1) // whole + 1)
        stream = torch.cat([self.one_pass(number) for number in passes])
        start = first - passes[0] * whole
        return stream[start : start + self.batch]


def windows_of_a_pass(crops: Crops, power: float) -> Int64[Tensor, " N"]:
    """The windows that a pass takes, on the host: each as often as it has different crops, to a power.

    At 0 once each, as in the paper: a crop of a long window is then seen so much less often than a short window's only
    one that fast motions in it (a cartwheel) stay unlearnt.
    """
    windows_W = torch.arange(len(crops))
    if not power:
        return windows_W
    often_W = (crops.frames - crops.crop + 1).clamp_min(1).pow(power).round().long()
    return windows_W.repeat_interleave(often_W.cpu())


class Feed:
    """The batch of step n. Its generator, seeded for the step, decides shifts, texts and augmentation."""

    def __init__(self, crops: Crops, texts: Sequence[str], config: TrainConfig, device: torch.device):
        self.crops, self.seed, self.generator = crops, config.seed, torch.Generator(device)
        self.middle = config.middle_crops
        self.order = Order(windows_of_a_pass(crops, config.long_windows), config.batch, config.seed, device)
        self.augment = Augmentation.of(crops, texts, mirror=config.mirror, yaw=config.yaw, speed=config.speed)

    def __call__(self, step: int) -> Batch:
        self.generator.manual_seed(seed_of(self.seed, "feed", step))
        crops = self.crops.sample(self.order(step), self.generator, middle=self.middle)
        return self.augment(crops, self.generator)


def vertex_loss_of(config: TrainConfig, body: Body, generator: torch.Generator) -> losses.VertexLoss:
    """The vertex loss that was asked for."""
    if config.vertex_loss == "closed-form":
        return losses.ClosedFormLoss(body)
    subset = min(config.vertex_subset, len(body.v_template_V3)) if config.vertex_loss == "subset" else None
    return losses.SkinnedLoss(body, subset=subset, generator=generator)


def loss_terms(
    model: MotionClip, batch: Batch, vertex_loss: losses.VertexLoss, config: TrainConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """The losses of a batch, not weighted; the generator draws the noise on what is decoded."""
    with torch.autocast(batch.motion_BTRD.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        z_BC = model.encode(batch.motion_BTRD, batch.attended_BT).float()
        source_BC = decoder_input(z_BC, batch, config, generator)
        motion = model.decode(source_BC, batch.motion_BTRD.shape[1], batch.attended_BT).float()
    target, mask = batch.motion_BTRD, batch.mask_BT
    clip_loss = losses.CLIP_LOSSES[config.clip_loss]
    return {
        "rot6d": losses.rot6d_loss(motion, target, mask),
        "velocity": losses.velocity_loss(motion, target, mask),
        "text": clip_loss(z_BC, batch.text_BC, batch.has_text_B),
        "image": clip_loss(z_BC, batch.image_BC, batch.has_image_B),
        **body_terms(motion, batch, vertex_loss, config),
    }


def body_terms(
    motion_BTRD: Tensor, batch: Batch, vertex_loss: losses.VertexLoss, config: TrainConfig
) -> dict[str, Tensor]:
    """The losses that pose a body: of its vertices, and of its joints in the world where they have a weight."""
    target_BTRD, mask_BT = batch.motion_BTRD, batch.mask_BT
    rot6d_BTJD, target_BTJD = joints_of(motion_BTRD), joints_of(target_BTRD)
    if not any(config.weights[term] for term in WORLD_TERMS):
        return {"vertices": vertex_loss(rot6d_BTJD, target_BTJD, mask_BT)}
    vertices, found_BTJ3, wanted_BTJ3 = vertex_loss.with_joints(rot6d_BTJD, target_BTJD, mask_BT)
    found_BTJ3 = found_BTJ3 + root_of(motion_BTRD)[:, :, None]
    wanted_BTJ3 = wanted_BTJ3 + root_of(target_BTRD)[:, :, None]
    return {"vertices": vertices} | losses.world_losses(found_BTJ3, wanted_BTJ3, mask_BT)


def decoder_input(z_BC: Tensor, batch: Batch, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """z itself, as in the paper; or for a share of the batch a label's vector at z's length; or with noise on it.

    Where some crops are the middle ones of their windows on purpose, only those are decoded from texts: a text that
    is asked for every crop of a long window is answered by their mean, which is no motion.
    """
    chance_2B = torch.rand(2, len(z_BC), generator=generator, device=z_BC.device)
    if config.text_decoding:
        from_text = (chance_2B[0] < config.text_decoding) & batch.has_text_B
        if config.middle_crops:
            from_text &= batch.middle_B
        label_BC = torch.nn.functional.normalize(batch.label_BC, dim=-1) * z_BC.detach().norm(dim=-1, keepdim=True)
        z_BC = torch.where(from_text[:, None], label_BC, z_BC)
    if config.latent_noise:
        # Each item has an amount of its own, from none on: clean vectors stay what is decoded best.
        amount_B1 = config.latent_noise * chance_2B[1][:, None] / z_BC.shape[1] ** 0.5
        noise_BC = torch.randn(z_BC.shape, generator=generator, device=z_BC.device)
        z_BC = z_BC + amount_B1 * z_BC.detach().norm(dim=-1, keepdim=True) * noise_BC
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
        now = torch.stack([at, norm, *(terms.get(term, torch.zeros_like(norm)).detach() for term in TERMS)])
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


def compile_mode(device: torch.device) -> str:
    """How torch.compile works on a device: with CUDA graphs, which take many small kernels at the price of one."""
    return "reduce-overhead" if device.type == "cuda" else "default"


class Learner:
    """A model in training: its weights, its optimizer, its losses, and the weights' moving average if one is kept."""

    def __init__(
        self,
        config: TrainConfig,
        sizes: ModelConfig,
        *,
        vertex_loss: losses.VertexLoss,
        steps: int,
        device: torch.device,
        workers: Workers,
        warm: bool = False,
    ):
        self.config, self.steps, self.vertex_loss, self.workers = config, steps, vertex_loss, workers
        self.warm = warm  # whether it begins with weights that were trained
        self.generator = torch.Generator(device)  # of what is decoded; seeded anew in every step
        torch.manual_seed(seed_of(config.seed, "weights"))
        self.model = MotionClip(sizes).to(device).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False) if config.ema else None
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.guard = Guard(self.optimizer, device)

    @property
    def eval_model(self) -> MotionClip:
        """The weights that are validated and used: the moving average where there is one."""
        return self.average or self.model

    def compile(self, batch: Batch) -> str:
        """Compile the model's layers and try a step on a batch; what came of it. Where it fails all stays as it was."""
        layers = [*self.model.encoder, *self.model.decoder]
        try:
            for layer in layers:
                layer.compile(mode=compile_mode(batch.motion_BTRD.device))
            self.losses(0, batch)["total"].backward()
        except Exception as error:  # whatever a compiler may do
            for layer in layers:
                layer._compiled_call_impl = None
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return f"--compile: torch.compile failed ({first[:200]}); training goes on without it"
        finally:
            self.optimizer.zero_grad()
        return "--compile: the layers are compiled"

    def losses(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """This worker's share of each loss of the whole batch, and of their weighted total."""
        rank = self.workers.rank
        torch.manual_seed(seed_of(self.config.seed, "dropout", step, rank=rank))  # it knows no other generator
        self.generator.manual_seed(seed_of(self.config.seed, "decoder input", step, rank=rank))
        if self.config.compile and batch.motion_BTRD.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # what CUDA graphs wrote in the step before may be overwritten
        own, share = self.workers.own(batch)
        terms = loss_terms(self.model, own, self.vertex_loss, self.config, self.generator)
        terms = {term: value * share.get(term, 1) for term, value in terms.items()}
        weighted = [weight * terms[term] for term, weight in self.config.weights.items() if weight]
        return {"total": torch.stack(weighted).sum(), **terms}

    def learn(self, step: int, found: dict[str, Tensor]) -> Tensor:
        """Change the weights against the gradient of the losses `found`; returns the gradient's norm."""
        self.optimizer.zero_grad()
        torch.autograd.backward(found["total"])
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        self.workers.add_up(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.clip_gradient:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_gradient, norm)
        self.guard.watch(step, found, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(step, self.steps)
        self.optimizer.step()
        self.update_average(step)
        return norm

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the average towards the weights; in the first steps it follows faster, or it would hold the start."""
        if self.average is not None:
            stays = self.config.ema if self.warm else min(self.config.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_([*self.average.parameters()], [*self.parameters], 1 - stays)
