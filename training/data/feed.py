"""Which crops a step takes.

Every random number of step n comes from (seed, purpose, n), so a resumed run takes the same steps, and no two purposes
share their numbers.
"""

# B batch, N windows of a pass

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mclip.training.data.augmentation import Augmentation
from mclip.training.data.crops import Batch, Crops
from mclip.training.model.config import TrainConfig

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
        self.taken_N, self.batch, self.seed, self.device = taken_N.to(device), batch, seed, device
        self.generator = torch.Generator(device)
        self.passes: dict[int, Tensor] = {}

    def one_pass(self, number: int) -> Tensor:
        """The shuffled windows of a pass; the last two are kept."""
        if number not in self.passes:
            self.generator.manual_seed(seed_of(self.seed, "order", number))
            order_N = torch.randperm(len(self.taken_N), generator=self.generator, device=self.device)
            self.passes[number] = self.taken_N[order_N]
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
    """The batch of step n. Its generator, seeded for the step, decides shifts, texts and augmentation.

    `begin` tells the device which step it is, and `draw` asks the host for nothing more: it can be repeated as a whole.
    """

    def __init__(self, crops: Crops, texts: Sequence[str], config: TrainConfig, device: torch.device):
        self.crops, self.seed, self.generator = crops, config.seed, torch.Generator(device)
        self.middle = config.middle_crops
        self.order = Order(windows_of_a_pass(crops, config.long_windows), config.batch, config.seed, device)
        self.augment = Augmentation.of(crops, texts, mirror=config.mirror, yaw=config.yaw, speed=config.speed)
        self.item_B = torch.zeros(config.batch, dtype=torch.int64, device=device)

    def begin(self, step: int) -> None:
        """Seed the generator, and put the windows of a step where `draw` reads them."""
        self.generator.manual_seed(seed_of(self.seed, "feed", step))
        self.item_B.copy_(self.order(step))

    def draw(self) -> Batch:
        """The batch of the step that was begun."""
        crops = self.crops.sample(self.item_B, self.generator, middle=self.middle)
        return self.augment(crops, self.generator)

    def __call__(self, step: int) -> Batch:
        self.begin(step)
        return self.draw()
