"""A step that is repeated as a whole, against one that is taken operation by operation."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mclip.pipeline.files.assets import HOUSE
from mclip.pipeline.geometry import body
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import load_crops
from mclip.training.data.feed import Feed
from mclip.training.model import dropout
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.train import graph, step
from mclip.training.train.graph import WARM, Steps, Taken, pays_to_compile, way_of
from mclip.training.train.step import Learner, vertex_loss_of
from mclip.training.train.workers import Workers

CPU = torch.device("cpu")
SIZES = ModelConfig(latent=384, layers=2, feed_forward=32, dropout=0.1)
# What tells the host a value, or a size that depends on values.
ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "item"}


class Tape(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: notes every operation of a piece of work, then repeats it on the same memory.

    Forward, backward and optimizer pass here. A number that Python put in is the same in every repetition, and a tensor
    is known by where it lies.
    """

    def __init__(self, work: Callable[[], Taken], generators: Iterable[torch.Generator]):
        super().__init__()
        self.noted: list[tuple[Any, Any, Any, Any]] = []
        stays, generators = memory(work), [*generators, torch.default_generator]
        kept, seeds = [each.clone() for each in stays], [each.get_state() for each in generators]
        with self:
            self.found = work()
        with torch.no_grad():  # a capture computes nothing, and draws nothing
            torch._foreach_copy_(stays, kept)
        for generator, seed in zip(generators, seeds, strict=True):
            generator.set_state(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.noted.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.noted:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    @property
    def names(self) -> set[str]:
        return {func._schema.name.removeprefix("aten::") for func, *_ in self.noted}


def memory(work: Any) -> list[Tensor]:
    """What stays from step to step."""
    learner = work.__self__.learner
    kept = [state for optimizer in learner.optimizers for state in optimizer.state.values()]
    states = [each for state in kept for each in state.values()]
    average = [*learner.average.parameters()] if learner.average else []
    return [*learner.parameters, *average, *states, learner.guard.halted, learner.guard.seen]


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"ema": 0.99, "clip_gradient": 0.5, "schedule": "cosine", "warmup": 6, "precision": "bfloat16"},
    "changed": {"mirror": 0.5, "yaw": 90.0, "speed": 0.2, "target": "any", "short": "mask"},
    "world": {"places_weight": 1.0, "steps_weight": 1.0, "feet_weight": 1.0, "clip_loss": "infonce"},
    "muon": {"optimizer": "muon", "schedule": "cosine", "warmup": 6},
    "drawn": {"vertex_loss": "subset", "vertex_subset": 50, "text_decoding": 0.3, "latent_noise": 0.5},
}


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and skinning by torch: numba's are a CPU's own, and no operations of torch's."""
    monkeypatch.setattr(dropout, "is_ours", lambda x: False)
    monkeypatch.setattr(body.Body, "_strongest", property(lambda self: (self.weights_VJ,)))
    monkeypatch.setattr(body, "skin_sparse", skin_by_torch)


def skin_by_torch(rest: Tensor, weights: Tensor, affine: Tensor, trans: Tensor) -> Tensor:
    return body.skin(rest, weights, affine) + trans[:, None]


def steps_of(store: Store, capture: graph.Capture | None, **options: Any) -> Steps:
    config = TrainConfig(batch=3, **{"precision": "float32", "storage": "float16", **options})
    made = {"encoder": "offline", "target": config.target, "storage": config.storage, "short": config.short}
    feed = Feed(load_crops(store, split="train", device=CPU, **made), store.strings("texts"), config, CPU)
    loss = vertex_loss_of(config, load_body("low"), feed.generator)
    learner = Learner(config, SIZES, vertex_loss=loss, steps=12, device=CPU, workers=Workers())
    return Steps(learner, feed, capture, print)


def losses_of(taken: Steps, steps: int) -> list[dict[str, float]]:
    return [{term: value.item() for term, value in taken(number)[0].items()} for number in range(steps)]


def weights_of(taken: Steps) -> list[Tensor]:
    return memory(taken.work)


def refuse(*work: Any) -> graph.Repeated:
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_a_step_that_cannot_be_captured_is_told_and_taken_by_operations(long_store, capsys):
    refused, plain = (steps_of(long_store, each) for each in (refuse, None))
    assert losses_of(refused, WARM + 2) == losses_of(plain, WARM + 2)
    told = capsys.readouterr().out.splitlines()
    reason = "operation not permitted when stream is capturing"
    assert told == [f"--step graph: the step could not be captured ({reason}); training goes on without it"]


def test_a_step_is_captured_on_cuda_alone_and_a_user_is_told_why_not(long_store):
    feed = steps_of(long_store, None).feed
    assert way_of(TrainConfig(), feed, 1) == (None, [])
    assert way_of(TrainConfig(step="graph"), feed, 1) == (
        None,
        ["--step graph: not captured as one graph: cpu has no graphs, only CUDA has"],
    )
    feed.order.device = torch.device("cuda")
    assert way_of(TrainConfig(), feed, 1) == (graph.Captured, ["--step auto: a step is one CUDA graph"])
    assert way_of(TrainConfig(step="eager"), feed, 1) == (None, [])
    assert "2 processes wait" in way_of(TrainConfig(), feed, 2)[1][0]
    feed.crops = replace(feed.crops, mapped=True)
    assert "the motion lies on the host" in way_of(TrainConfig(), feed, 1)[1][0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_repeated_step_is_the_step_bit_for_bit(long_store, setting):
    repeated, plain = (steps_of(long_store, each, **SETTINGS[setting]) for each in (Tape, None))
    assert losses_of(repeated, WARM + 4) == losses_of(plain, WARM + 4)
    for ours, theirs in zip(weights_of(repeated), weights_of(plain), strict=True):
        assert torch.equal(ours, theirs)
    assert isinstance(repeated.repeated, Tape)
    assert "_fused_adamw_" in repeated.repeated.names
    assert any("backward" in name for name in repeated.repeated.names)
    assert repeated.repeated.names & ASKS == set()


def begin_by_the_host(self: Learner, number: int, begin: Callable[..., None] = Learner.begin) -> None:
    """The learning rate as a number, which a repeated step does not read again."""
    rates = [group["lr"] for group in self.optimizers[0].param_groups]
    for group, rate in zip(self.optimizers[0].param_groups, rates, strict=True):
        group["lr"] = torch.as_tensor(rate).clone()
    begin(self, number)


def follow_by_the_host(average: list[Tensor], weights: list[Tensor], stays: Tensor) -> None:
    torch._foreach_lerp_(average, weights, 1 - float(stays))


@pytest.mark.parametrize("fault", ["rate", "average"])
def test_a_planted_number_of_the_host_is_found(long_store, monkeypatch, fault):
    if fault == "average":
        monkeypatch.setattr(step, "follow", follow_by_the_host)
    else:
        monkeypatch.setattr(step.Learner, "begin", begin_by_the_host)
    repeated, plain = (steps_of(long_store, each, **SETTINGS["averaged"]) for each in (Tape, None))
    losses_of(repeated, WARM + 3), losses_of(plain, WARM + 3)
    pairs = zip(weights_of(repeated), weights_of(plain), strict=True)
    assert not all(torch.equal(ours, theirs) for ours, theirs in pairs)


COMPILED = """
import functools
import torch
from dataclasses import replace
from mclip.pipeline.geometry.body import load_body
from mclip.training.data.feed import Feed
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.train.graph import compile_parts
from mclip.training.train.step import Learner, vertex_loss_of
from mclip.training.train.workers import Workers
from mclip.workflows.benchmark_train import crops_of

CPU = torch.device("cpu")
config, crops = TrainConfig(batch=3, **OPTIONS), replace(crops_of(9, 12), padded=True)
feed = Feed(crops, ["a", "b", "c"], config, CPU)
loss = vertex_loss_of(config, load_body("low"), feed.generator)
sizes = ModelConfig(latent=512, layers=3, feed_forward=32, dropout=0.0)
made = {"vertex_loss": loss, "steps": 9, "device": CPU, "workers": Workers()}
plain, compiled = (Learner(config, sizes, **made) for _ in range(2))
torch.compile = functools.partial(torch.compile, backend="eager")
print(compile_parts(compiled, feed, 0))
for step in range(2):
    for learner in (plain, compiled):
        learner.begin(step)
    (ours, norm), (theirs, other) = (learner.learn(feed(step)) for learner in (compiled, plain))
    for term in theirs:
        torch.testing.assert_close(ours[term], theirs[term], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm, other, rtol=1e-4, atol=1e-6)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_and_losses_are_whole_graphs_to_a_compiler_and_layers_of_a_kind_one(precision):
    # Another process: there no types are checked, which a compiler cannot look through.
    options = SETTINGS["averaged"] | SETTINGS["world"] | {"latent_noise": 0.5, "text_decoding": 0.3}
    script = COMPILED.replace("OPTIONS", repr(options | {"precision": precision}))
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE, timeout=300)
    # The encoder's layers, its last, the decoder's first, the others, and the losses.
    assert told.stdout.splitlines() == ["--step auto: layers and losses are compiled", "5"], told.stderr


DROPPED = """
import torch
from mclip.training.model.dropout import add_dropped, dropout

def both(x):
    return dropout(x, 0.25), add_dropped(x, x, 0.25) - x

x = torch.ones(9, 1111, requires_grad=True)
compiled = torch.compile(both, fullgraph=True, dynamic=False, backend="aot_eager")
torch.manual_seed(0)
first, second = compiled(x)
torch.manual_seed(0)
again, _ = compiled(x)
(gradient,) = torch.autograd.grad(first.sum(), x)
print(torch.equal(again, first), torch.equal(gradient, first), torch.equal(first, second))
print(*((each == 0).float().mean().item() for each in (first, second)))
"""


def test_compiled_dropout_draws_for_each_call_and_backward_knows_what_was_dropped():
    told = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, cwd=HOUSE, timeout=300)
    assert told.returncode == 0, told.stderr
    said, shares = told.stdout.splitlines()
    assert said == "True True False"
    assert [float(each) for each in shares.split()] == pytest.approx([0.25, 0.25], abs=0.02)


def test_a_training_is_compiled_by_itself_only_where_that_saves_more_than_it_takes():
    cuda = torch.device("cuda")
    paper, large = TrainConfig(), TrainConfig(batch=1024)
    assert not pays_to_compile(paper, CPU, 10**6)
    assert [pays_to_compile(paper, cuda, steps) for steps in (20_000, 30_000)] == [False, True]
    assert [pays_to_compile(large, cuda, steps) for steps in (1_000, 2_000)] == [False, True]
    for way, compiled in (("compiled", True), ("graph", False), ("eager", False)):
        assert pays_to_compile(TrainConfig(step=way), CPU, 1) is compiled
        assert pays_to_compile(TrainConfig(step=way), cuda, 10**6) is compiled
