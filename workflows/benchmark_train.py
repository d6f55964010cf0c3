"""A training step of ours against the same step written plainly, one table from one run.

    python workflows/benchmark_train.py                # plain step against ours
    python workflows/benchmark_train.py --part growth  # a step against batch and frames
    python workflows/benchmark_train.py --part data    # start-up and batches against windows and epochs

Both at full size (8 + 8 layers, 512 wide), batch 20, 60 frames, all five terms. The plain step is what the paper's
release does: torch's stock transformer modules, linear blend skinning of 6,890 vertices with pose correctives on target
and output, and CLIP ViT-B-32 (random weights) on 20 pictures and 20 texts in every step. SMPL's arrays are random, of
its shapes. The sides take turns, so that a busy machine slows all alike: ratios are medians over rounds. A turn is two
steps, and the second counts. CPU seconds are those of this process only.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mclip.pipeline.geometry.body import Body, load_body, skin
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.pipeline.machine.devices import multiplies_bfloat16
from mclip.training.data.crops import Batch, Choice, Crops
from mclip.training.data.feed import Feed
from mclip.training.model import losses
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.network import position_code
from mclip.training.train.step import Learner
from mclip.training.train.workers import Workers

VERTICES, WIDTH, BATCH, FRAMES = 6890, 512, 20, 60
CPU = torch.device("cpu")
Step = Callable[[], dict[str, float]]


@dataclass
class Laps:
    """Seconds of a step's parts, by a clock that is read between them."""

    clock: Callable[[], float]
    parts: dict[str, float]
    last: float

    def lap(self, part: str) -> None:
        now = self.clock()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


class PlainModel(nn.Module):
    """The auto-encoder in torch's stock modules."""

    def __init__(self) -> None:
        super().__init__()
        layer = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 1024, "activation": "gelu"}
        self.embed, self.final = nn.Linear(150, WIDTH), nn.Linear(WIDTH, 150)
        self.tokens, self.dropout = nn.Parameter(torch.randn(2, 1, WIDTH)), nn.Dropout(0.1)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 8, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 8)
        self.register_buffer("position", position_code(WIDTH)[:, None])

    def forward(self, motion_BTRD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.embed(motion_BTRD.flatten(2).transpose(0, 1))
        x = torch.cat((self.tokens.expand(-1, frames.shape[1], -1), frames))
        ignored = F.pad(~mask_BT, (2, 0), value=False)
        z = self.encoder(self.dropout(x + self.position[: len(x)]), src_key_padding_mask=ignored)[0]
        queries = self.dropout(self.position[: len(frames)].expand(-1, len(z), -1))
        out = self.final(self.decoder(queries, z[None], tgt_key_padding_mask=~mask_BT))
        return z, out.transpose(0, 1).unflatten(-1, (25, 6)) * mask_BT[..., None, None]


def smpl_sized_body() -> Body:
    """Random arrays of SMPL's shapes; joints are the embedded body's."""
    torch.manual_seed(0)
    weights = torch.rand(VERTICES, 24) ** 8
    return Body(
        name="random",
        v_template_V3=torch.randn(VERTICES, 3),
        joints_J3=load_body("low").joints_J3,
        weights_VJ=weights / weights.sum(1, keepdim=True),
        faces_F3=torch.zeros(1, 3, dtype=torch.int64),
        posedirs_V3P=0.001 * torch.randn(VERTICES, 3, 207),
    )


def all_vertices(body: Body, rot6d_NJD: Tensor) -> Tensor:
    """Every vertex by LBS with pose correctives, as SMPL's layer."""
    rotmat = rot6d_to_matrix(rot6d_NJD)
    assert body.posedirs_V3P is not None
    change = (rotmat[:, 1:] - torch.eye(3, device=rotmat.device)).flatten(1)
    rest = body.v_template_V3 + (change @ body.posedirs_V3P.flatten(0, 1).T).view(len(rotmat), -1, 3)
    world, position = forward_kinematics(rotmat, body.joints_J3)
    offset = position - (world * body.joints_J3[:, None]).sum(-1)
    return skin(rest, body.weights_VJ, torch.cat((world, offset[..., None]), dim=-1))


def random_batch(batch: int, frames: int, device: torch.device = CPU) -> Batch:
    has, number = torch.ones(batch, dtype=torch.bool, device=device), torch.arange(batch, device=device)
    motion, mask = torch.randn(batch, frames, 25, 6, device=device), has[:, None].expand(-1, frames)
    text, image = torch.randn(2, batch, WIDTH, device=device)
    return Batch(motion, mask, number, text, has, number, text, image, has, number, has, padded=False)


def plain_step(clock: Callable[[], float], device: torch.device = CPU) -> Step:
    """The release's work, in float32."""
    model, body = PlainModel().train().to(device), smpl_sized_body().to(device)
    clip = open_clip.create_model("ViT-B-32").eval().requires_grad_(False).to(device)
    pictures = torch.rand(BATCH, 3, 224, 224, device=device)
    texts = torch.randint(1, 49000, (BATCH, 77), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> dict[str, float]:
        batch, laps = random_batch(BATCH, FRAMES, device), Laps(clock, {}, clock())
        with torch.no_grad():
            image, text = clip.encode_image(pictures), clip.encode_text(texts)
        laps.lap("clip")
        z, motion = model(batch.motion_BTRD, batch.mask_BT)
        target = batch.motion_BTRD
        found, wanted = (all_vertices(body, each[:, :, :24].flatten(0, 1)) for each in (motion, target))
        total = F.mse_loss(motion, target) + F.mse_loss(found, wanted)
        total = total + F.mse_loss(motion.diff(dim=1), target.diff(dim=1))
        for vector in (text, image):
            total = total + 0.01 * (1 - F.cosine_similarity(z, vector)).mean()
        laps.lap("forward")
        optimizer.zero_grad()
        total.backward()
        laps.lap("backward")
        optimizer.step()
        laps.lap("optimizer")
        return laps.parts

    return step


def our_step(precision: str, clock: Callable[[], float], *, batch: int = BATCH, frames: int = FRAMES) -> Step:
    """What `mclip train` does in a step, with its own functions; `around` is what is none of the three."""
    config, body = TrainConfig(precision=precision, batch=batch), load_body("low")
    made: dict[str, Any] = {"steps": 10**6, "device": CPU, "workers": Workers()}
    learner = Learner(config, ModelConfig(latent=WIDTH), vertex_loss=losses.ClosedFormLoss(body), **made)
    store, count = random_batch(10 * batch, frames), itertools.count()

    def step() -> dict[str, float]:
        laps = Laps(clock, {}, clock())
        learner.begin(next(count))
        learner.forget()
        item = torch.randperm(10 * batch)[:batch]
        values = {name: each[item] for name, each in vars(store).items() if isinstance(each, Tensor)}
        drawn = Batch(**values, padded=False)
        laps.lap("around")
        found = learner.losses(drawn)
        laps.lap("forward")
        torch.autograd.backward(found["total"])
        laps.lap("backward")
        learner.change(found)
        assert not learner.guard.halted
        laps.lap("optimizer")
        return laps.parts

    return step


def matmul_rate(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Best FLOP a second of the products that the model is made of."""
    rates = []
    for inner, outer in ((512, 1536), (512, 1024), (1024, 512)):
        a, b = torch.randn(BATCH * 62, inner).to(dtype), torch.randn(inner, outer).to(dtype)
        for _ in range(8):
            started = clock()
            a @ b
            rates.append(2 * a.numel() * outer / (clock() - started))
    return max(rates)


def products_alone(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Seconds that a step's own products take one after the other, with nothing between them: each best of five."""

    def best(product: Callable[[], Tensor]) -> float:
        taken = []
        for _ in range(5):
            started = clock()
            product()
            taken.append(clock() - started)
        return min(taken)

    seconds = 0.0
    layer = [(512, 1536), (512, 512), (512, 1024), (1024, 512)]
    for frames, layers in ((FRAMES + 2, 7), (FRAMES, 8)):
        rows, heads = BATCH * frames, 4 * BATCH
        for inner, outer in layer:
            x, weight, gradient = (
                torch.randn(size).to(dtype) for size in ((rows, inner), (outer, inner), (rows, outer))
            )
            pairs = ((x, weight.T), (gradient, weight), (gradient.T, x))
            seconds += layers * sum(best(functools.partial(torch.mm, *pair)) for pair in pairs)
        q, score = torch.randn(heads, frames, 128).to(dtype), torch.randn(heads, frames, frames).to(dtype)
        pairs = ((q, q.mT), (score, q))
        seconds += 3 * layers * sum(best(functools.partial(torch.bmm, *pair)) for pair in pairs)
    return seconds


def flops_of(step: Step) -> int:
    """Multiplications and additions of all matrix products in a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def median_parts(taken: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(each[part] for each in taken) for part in taken[0]}


@click.command()
@click.option("--threads", default=2)
@click.option("--rounds", default=5)
@click.option(
    "--clock", "kind", default="wall", type=click.Choice(("wall", "cpu")), help="cpu: not disturbed by others."
)
@click.option("--part", default="step", type=click.Choice(("step", "growth", "data")))
def main(threads: int, rounds: int, kind: str, part: str) -> None:
    torch.set_num_threads(threads)
    clock = time.perf_counter if kind == "wall" else time.process_time
    fast = multiplies_bfloat16(torch.device("cpu"))
    if part == "growth":
        return print_growth("bfloat16" if fast else "float32", clock, rounds)
    if part == "data":
        return print_data(clock, rounds)
    print_step(clock, rounds, threads=threads, kind=kind, fast=fast)


def print_step(clock: Callable[[], float], rounds: int, *, threads: int, kind: str, fast: bool) -> None:
    """The plain step and ours, in turns."""
    sides = {"plain": plain_step(clock), "ours float32": our_step("float32", clock)}
    dtypes = {"ours float32": torch.float32, "ours bfloat16": torch.bfloat16}
    if fast:
        sides["ours bfloat16"] = our_step("bfloat16", clock)
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    rates: dict[str, list[float]] = {side: [] for side in sides if side in dtypes}
    for number in range(rounds + 1):
        for side, step in sides.items():
            step()  # what the other sides left of caches and free memory is no part of a training
            parts = step()
            if number:  # the first warms up
                taken[side].append(parts)
        for side in rates:
            rates[side].append(matmul_rate(dtypes[side], clock))
    flops = {side: flops_of(sides[side]) for side in rates}
    print(f"batch {BATCH}, {FRAMES} frames, {threads} threads, {kind} seconds, medians of {rounds} rounds")
    print("| | step | clip | forward | backward | optimizer | around | x plain | matmul bound | share of it |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for side, steps in taken.items():
        whole, parts = statistics.median(sum(each.values()) for each in steps), median_parts(steps)
        pairs = zip(taken["plain"], steps, strict=True)
        ratio = statistics.median(sum(plain.values()) / sum(ours.values()) for plain, ours in pairs)
        columns = [
            f"{parts[name]:.3f}" if name in parts else "" for name in ("clip", "forward", "backward", "optimizer")
        ]
        around = f"{parts['around'] / whole:.1%}" if "around" in parts else ""
        bound = flops[side] / max(rates[side]) if side in rates else 0.0
        told = [f"{bound:.3f}", f"{bound / whole:.0%}"] if bound else ["", ""]
        print("|", " | ".join([side, f"{whole:.3f}", *columns, around, f"{ratio:.1f}", *told]), "|")
    if not fast:
        print("bfloat16: not applicable, this processor has neither AVX512-BF16 nor AMX")
    for side, found in rates.items():
        alone = products_alone(dtypes[side], clock)
        told = f"{max(found) / 1e9:.0f} GFLOP/s measured, {flops[side] / 1e9:.0f} GFLOP a step"
        print(f"{side}: {told}; its products alone, one by one: {alone:.3f} s")


def print_growth(precision: str, clock: Callable[[], float], rounds: int) -> None:
    """Step time against batch and frames, and per frame of motion."""
    shapes = [(10, 60), (20, 60), (40, 60), (20, 30), (20, 120)]
    steps = {shape: our_step(precision, clock, batch=shape[0], frames=shape[1]) for shape in shapes}
    taken = {shape: [sum(step().values()) for _ in range(rounds + 1)][1:] for shape, step in steps.items()}
    print("| batch | frames | step | ms a crop frame |")
    print("|---|---|---|---|")
    for (batch, frames), seconds in taken.items():
        step = statistics.median(seconds)
        print(f"| {batch} | {frames} | {step:.3f} | {1000 * step / (batch * frames):.3f} |")


def crops_of(windows: int, frames: int = FRAMES, device: torch.device = CPU) -> Crops:
    """Random windows of 40 frames more than a crop, three texts to choose from."""
    numbers, three, length = torch.arange(windows, device=device), torch.arange(3, device=device), frames + 40
    choice = Choice(three, torch.zeros_like(three[:1]), torch.full_like(three[:1], 3))
    rot6d = torch.randn(10 * length, 24, 6, device=device).repeat(-(-windows // 10), 1, 1)
    return Crops(
        frames,
        "label",
        rot6d,
        torch.randn(len(rot6d), 3, device=device),
        numbers,
        length * numbers,
        torch.full_like(numbers, length),
        torch.full_like(numbers, length),
        torch.zeros(windows, 41, dtype=torch.int64, device=device),
        choice,
        choice,
        torch.randn(3, WIDTH, device=device),
        torch.randn(windows, WIDTH, device=device),
        torch.ones(windows, dtype=torch.bool, device=device),
        padded=False,
    )


def print_data(clock: Callable[[], float], rounds: int) -> None:
    """What the size of the data and the number of epochs cost: the first batch, and any later one."""
    print("| windows | MB | first batch, ms | a batch of the 10,000th epoch, ms | a batch, ms |")
    print("|---|---|---|---|---|")
    for windows in (2_000, 6_000, 20_000):
        crops, taken = crops_of(windows), []
        for _ in range(rounds):
            feed = Feed(crops, ["a", "b", "c"], TrainConfig(), torch.device("cpu"))
            late = 10_000 * windows // BATCH
            laps = Laps(clock, {}, clock())
            for name, step in (("first", 0), ("late", late), ("next", late + 1)):
                feed(step)
                laps.lap(name)
            taken.append(laps.parts)
        parts = median_parts(taken)
        columns = [f"{1000 * parts[name]:.2f}" for name in ("first", "late", "next")]
        print(f"| {windows:,} | {crops.bytes / 1e6:,.0f} |", " | ".join(columns), "|")


if __name__ == "__main__":
    main()
