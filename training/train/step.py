"""One step of training: its losses, and what it does to the weights.

What differs from step to step is told to the device before (`begin`): seeds, learning rate, the number of the step.
All else of a step is work on the device that asks the host for nothing, so that it can be repeated as a whole.
"""

# B batch, T frames, R rows, D rotation numbers (6), C CLIP width

import copy
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mclip.pipeline.geometry.body import Body
from mclip.pipeline.machine.devices import rounded_copy
from mclip.training.data.crops import Batch, Crops
from mclip.training.data.feed import Order, seed_of
from mclip.training.data.rows import joints_of, root_of
from mclip.training.model import losses
from mclip.training.model.config import TERMS, WORLD_TERMS, ModelConfig, TrainConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import RunError
from mclip.training.train.muon import Muon
from mclip.training.train.workers import Workers

WHOLE: Mapping[str, Tensor] = {}  # of a batch that is no part: its share of every loss is 1


def vertex_loss_of(config: TrainConfig, body: Body, generator: torch.Generator) -> losses.VertexLoss:
    """The vertex loss that was asked for."""
    if config.vertex_loss == "closed-form":
        return losses.ClosedFormLoss(body)
    subset = min(config.vertex_subset, len(body.v_template_V3)) if config.vertex_loss == "subset" else None
    return losses.SkinnedLoss(body, subset=subset, generator=generator)


def rebuilt(
    model: MotionClip, batch: Batch, config: TrainConfig, chance: "Chance"
) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B T R 6"]]:
    """z of a batch, and the motions decoded; `chance` decides from what."""
    with torch.autocast(batch.motion_BTRD.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        z_BC = model.encode(batch.motion_BTRD, batch.attended_BT).float()
        source_BC = decoder_input(z_BC, batch, config, chance)
        return z_BC, model.decode(source_BC, batch.motion_BTRD.shape[1], batch.attended_BT).float()


def loss_terms(
    z_BC: Tensor, motion_BTRD: Tensor, batch: Batch, vertex_loss: losses.VertexLoss, config: TrainConfig
) -> dict[str, Tensor]:
    """The losses of a batch's z and of the motions decoded, not weighted."""
    target, mask = batch.motion_BTRD, batch.mask_BT
    clip_loss = losses.CLIP_LOSSES[config.clip_loss]
    return {
        "rot6d": losses.rot6d_loss(motion_BTRD, target, mask),
        "velocity": losses.velocity_loss(motion_BTRD, target, mask),
        "text": clip_loss(z_BC, batch.text_BC, batch.has_text_B),
        "image": clip_loss(z_BC, batch.image_BC, batch.has_image_B),
        **body_terms(motion_BTRD, batch, vertex_loss, config),
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


class Chance(NamedTuple):
    """What chance decides about a batch's decoder input; drawn before, as no compiler follows a generator."""

    text_B: Float[Tensor, " B"]  # in [0, 1): whether a label is decoded
    amount_B: Float[Tensor, " B"]  # in [0, 1): how much noise
    noise_BC: Float[Tensor, "B C"] | None  # normal; None where no noise is asked for

    @classmethod
    def draw(cls, batch: Batch, width: int, config: TrainConfig, generator: torch.Generator) -> "Chance":
        """The chance of a batch's items, on its device."""
        items, device = len(batch.window_B), batch.motion_BTRD.device
        chance_2B = torch.rand(2, items, generator=generator, device=device)
        noise_BC = torch.randn(items, width, generator=generator, device=device) if config.latent_noise else None
        return cls(chance_2B[0], chance_2B[1], noise_BC)


def decoder_input(z_BC: Tensor, batch: Batch, config: TrainConfig, chance: Chance) -> Tensor:
    """z itself, as in the paper; or for a share of the batch a label's vector at z's length; or with noise on it.

    Where some crops are the middle ones of their windows on purpose, only those are decoded from texts: a text that
    is asked for every crop of a long window is answered by their mean, which is no motion.
    """
    if config.text_decoding:
        from_text = (chance.text_B < config.text_decoding) & batch.has_text_B
        if config.middle_crops:
            from_text &= batch.middle_B
        label_BC = torch.nn.functional.normalize(batch.label_BC, dim=-1) * z_BC.detach().norm(dim=-1, keepdim=True)
        z_BC = torch.where(from_text[:, None], label_BC, z_BC)
    if chance.noise_BC is not None:
        # Each item has an amount of its own, from none on: clean vectors stay what is decoded best.
        amount_B1 = config.latent_noise * chance.amount_B[:, None] / z_BC.shape[1] ** 0.5
        z_BC = z_BC + amount_B1 * z_BC.detach().norm(dim=-1, keepdim=True) * chance.noise_BC
    return z_BC


class Guard:
    """Holds the weights from the first step on whose gradient is not finite, without asking the device in each step.

    AdamW skips its step on the device where `found_inf` is not 0; here it stays so. What was wrong is kept, and told
    when somebody asks.
    """

    def __init__(self, device: torch.device):
        self.halted = torch.zeros((), device=device)
        self.seen = torch.zeros(2 + len(TERMS), device=device)

    def watch(self, step: Tensor, terms: dict[str, Tensor], norm: Tensor) -> None:
        """Look at a step's gradient norm and losses before the optimizer takes the step."""
        now = torch.stack([step, norm, *(terms.get(term, torch.zeros_like(norm)).detach() for term in TERMS)])
        # In place, here and in all that stays from step to step: a repeated step knows tensors by where they lie.
        self.seen.copy_(torch.where(self.halted > 0, self.seen, now))
        self.halted.copy_(torch.maximum(self.halted, (~torch.isfinite(norm)).float()))

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


def exact(device: torch.device) -> torch.dtype:
    """The type of a number told to the device: what its kernel of AdamW reads, and Apple's GPU has no other."""
    return torch.float64 if device.type == "cpu" else torch.float32


def optimizers_of(
    model: MotionClip, config: TrainConfig, device: torch.device, guard: Guard
) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; or Muon for the matrices of the layers, and AdamW for the rest.

    Each reads its learning rate, and whether to hold, from the device.
    """
    layers = nn.ModuleList([*model.encoder, *model.decoder] if config.optimizer == "muon" else [])
    matrices = {id(each): each for each in layers.parameters() if each.ndim == 2}
    rest = [each for each in model.parameters() if id(each) not in matrices]
    rate, decay = torch.tensor(config.learning_rate, dtype=exact(device), device=device), config.weight_decay
    adamw = torch.optim.AdamW(rest, rate, weight_decay=decay, fused=True, capturable=device.type == "cuda")
    adamw.found_inf = guard.halted  # type: ignore[attr-defined]
    return [adamw, Muon([*matrices.values()], rate, decay, guard.halted)] if matrices else [adamw]


def follow(average: tuple[Tensor, ...], weights: tuple[Tensor, ...], stays: Tensor) -> None:
    """Move an average towards the weights; a share `stays` (0-dim) of it remains."""
    comes = (1 - stays).to(average[0].dtype)
    if stays.device.type == "cpu":
        torch._foreach_lerp_(average, weights, [comes] * len(average))
    else:  # where that is a kernel for each weight
        torch._foreach_mul_(average, 1 - comes)
        torch._foreach_add_(average, torch._foreach_mul(weights, comes))


class Rounded:
    """A model whose layers multiply by weights in bfloat16; all its other weights are those of the exact one.

    Autocast would round each weight by itself in every step, and its gradient back: at batch 20 an eighth of what a GPU
    does in a captured step. Rounded all at once the numbers are the same.
    """

    def __init__(self, exact: MotionClip):
        linear = [each for each in exact.modules() if isinstance(each, nn.Linear) and each is not exact.final]
        self.model, self.exact, self.near = rounded_copy(exact, linear, torch.bfloat16)

    @torch.no_grad()
    def update(self) -> None:
        """Round the weights as they are now."""
        torch._foreach_copy_(self.near, self.exact)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Add the gradients to those of the exact weights, and forget them."""
        pairs = [(exact, near) for exact, near in zip(self.exact, self.near, strict=True) if near.grad is not None]
        first = [exact for exact, _ in pairs if exact.grad is None]
        for exact in first:
            exact.grad = torch.empty_like(exact)
        if pairs:
            found, given = ([each.grad for each in side if each.grad is not None] for side in zip(*pairs, strict=True))
            torch._foreach_copy_(found, given) if first else torch._foreach_add_(found, given)
        self.forget()

    def forget(self) -> None:
        """Forget the gradients."""
        for near in self.near:
            near.grad = None


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
        self.rounded = Rounded(self.model) if config.precision == "bfloat16" else None
        self.parameters = list(self.model.parameters())
        self.guard = Guard(device)
        self.step = torch.zeros((), device=device)
        self.stays = torch.zeros((), dtype=exact(device), device=device)  # of the moving average
        self.optimizers = optimizers_of(self.model, config, device, self.guard)
        self.terms = loss_terms
        self.summed = [term for term, weight in config.weights.items() if weight]
        self.factors = torch.tensor([config.weights[term] for term in self.summed], device=device)

    @property
    def working(self) -> MotionClip:
        """The model that a step goes through, in the precision of its products."""
        return self.rounded.model if self.rounded else self.model

    @property
    def eval_model(self) -> MotionClip:
        """The weights that are validated and used: the moving average where there is one."""
        return self.average or self.model

    def begin(self, step: int) -> None:
        """Tell the device which step it is: seeds, learning rate, and how fast the moving average follows."""
        rank = self.workers.rank
        torch.manual_seed(seed_of(self.config.seed, "dropout", step, rank=rank))  # it knows no other generator
        self.generator.manual_seed(seed_of(self.config.seed, "decoder input", step, rank=rank))
        rate = self.config.learning_rate_at(step, self.steps)
        for group in itertools.chain.from_iterable(each.param_groups for each in self.optimizers):
            group["lr"].fill_(rate)
        self.step.fill_(step)
        # In the first steps it follows faster, or it would hold the start.
        self.stays.fill_(self.config.ema if self.warm else min(self.config.ema, (1 + step) / (10 + step)))

    def losses(self, batch: Batch, share: Mapping[str, Tensor] = WHOLE) -> dict[str, Tensor]:
        """The losses of a batch and their weighted total; of a part, its share of each loss of the whole batch."""
        chance = Chance.draw(batch, self.model.config.latent, self.config, self.generator)
        z_BC, motion_BTRD = rebuilt(self.working, batch, self.config, chance)
        terms = self.terms(z_BC, motion_BTRD, batch, self.vertex_loss, self.config)
        if share:
            terms = {term: value * share[term] for term, value in terms.items()}
        weighted = torch.stack([terms[term] for term in self.summed]) * self.factors
        return {"total": weighted.sum(), **terms}

    def learn(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Take the step that was begun, on a batch: its losses and the gradient's norm, both on the device."""
        self.forget()
        if self.rounded:
            self.rounded.update()
        found = self.gradients(batch)
        return found, self.change(found)

    def forget(self) -> None:
        """Forget all gradients."""
        for each in self.parameters:
            each.grad = None
        if self.rounded:
            self.rounded.forget()

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of this worker's parts of a batch to the weights'; returns its share of the losses."""
        found: dict[str, Tensor] = {}
        for part, share in self.workers.own(batch, self.config.accumulate):
            here = self.losses(part, share)
            torch.autograd.backward(here["total"])
            if self.rounded:
                self.rounded.hand_over()
            found = {term: found[term] + each.detach() if found else each.detach() for term, each in here.items()}
        return found

    def change(self, found: dict[str, Tensor]) -> Tensor:
        """Change the weights against the gradients of the losses `found`; returns the gradient's norm."""
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        self.workers.add_up(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.clip_gradient:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_gradient, norm)
        self.guard.watch(self.step, found, norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.update_average()
        return norm

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights."""
        if self.average is not None:
            follow(tuple(self.average.parameters()), tuple(self.parameters), self.stays)
