"""Steps taken one operation after the other, or all of a step at once: captured as one CUDA graph and replayed.

At batch 20 a GPU has done an operation before the host has asked for the next. A graph is asked for once a step. It
holds forward, losses, backward, clipping, optimizer, moving average, and the drawing of the batch; what differs from
step to step it reads from tensors that `Feed.begin` and `Learner.begin` fill, and its generators' seeds from CUDA's.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from mclip.pipeline.machine.words import first_line
from mclip.training.data.feed import Feed
from mclip.training.model.config import TrainConfig
from mclip.training.model.network import Layer
from mclip.training.train.step import Learner

# On an H200 compiling takes 50 s. It saves 2 ms of a step at batch 20 and 30 ms at 1,024: about as the batch and 64.
SMALL, WORTH = 64, 2_000_000
WARM = 3  # steps before a capture: they load kernels, choose algorithms and make the optimizer's state
Taken = tuple[dict[str, Tensor], Tensor]  # a step's losses, and its gradient's norm


class Repeated(Protocol):
    """Work that was captured: `found` is what it gave, which a replay writes again."""

    found: Taken

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], Taken], Iterable[torch.Generator]], Repeated]


class Captured:
    """The work of a function on CUDA as one graph, with generators whose seeds a replay takes as they are then."""

    def __init__(self, work: Callable[[], Taken], generators: Iterable[torch.Generator]):
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.found = work()

    def replay(self) -> None:
        """Do it all again."""
        self.graph.replay()


class Steps:
    """Takes training steps; `capture` is how a step becomes one piece of work, None where none does."""

    def __init__(self, learner: Learner, feed: Feed, capture: Capture | None, say: Callable[..., None]):
        self.learner, self.feed, self.capture, self.say = learner, feed, capture, say
        self.generators = {feed.generator, learner.generator}
        self.repeated: Repeated | None = None
        self.warmed = 0

    def __call__(self, step: int) -> Taken:
        """The losses of a step and its gradient's norm, both on the device; the next step may overwrite them."""
        self.feed.begin(step)
        self.learner.begin(step)
        if self.capture is None:
            return self.work()
        if self.warmed < WARM:
            self.warmed += 1
            return aside(self.work, self.feed.order.device)
        if self.repeated is None:
            try:
                self.repeated = self.capture(self.work, self.generators)
            except Exception as error:  # whatever a driver, a kernel or a library may not allow
                return self.without_capture(step, error)
        self.repeated.replay()
        return self.repeated.found

    def work(self) -> Taken:
        """All that a step asks of the device."""
        return self.learner.learn(self.feed.draw())

    def without_capture(self, step: int, error: Exception) -> Taken:
        """Take a step that could not be captured, and all others, one operation after the other."""
        told = first_line(error)[:200]
        self.say(f"--step graph: the step could not be captured ({told}); training goes on without it")
        self.capture = None
        release([*self.generators, *torch.cuda.default_generators])
        return self(step)


def aside(work: Callable[[], Taken], device: torch.device) -> Taken:
    """What a function gives, run on a stream of its own, as CUDA asks of what is captured next."""
    if device.type != "cuda":
        return work()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        found = work()
    torch.cuda.current_stream(device).wait_stream(stream)
    return found


def release(generators: Iterable[torch.Generator]) -> None:
    """Let generators draw again that a capture which failed has left waiting for its end."""
    for generator in generators:
        if generator.device.type == "cuda":
            generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())


def way_of(config: TrainConfig, feed: Feed, workers: int) -> tuple[Capture | None, list[str]]:
    """How steps are captured on the feed's device, and what to say where that was asked for and cannot be."""
    device = feed.order.device
    lacks = (
        f"{device.type} has no graphs, only CUDA has"
        if device.type != "cuda"
        else "the motion lies on the host, which sends what a step needs"
        if feed.crops.mapped
        else f"{workers} processes wait for each other in every step"
        if workers > 1
        else ""
    )
    if config.step == "eager" or (lacks and config.step == "auto" and device.type != "cuda"):
        return None, []
    if lacks:
        return None, [f"--step {config.step}: not captured as one graph: {lacks}"]
    return Captured, [f"--step {config.step}: a step is one CUDA graph"]


def pays_to_compile(config: TrainConfig, device: torch.device, steps: int) -> bool:
    """Whether a training of so many steps is compiled: where it was asked for, and by itself where it saves more time.

    By the training's whole length, so that one which is resumed takes its steps as before.
    """
    saves = device.type == "cuda" and steps * (config.batch + SMALL) > WORTH
    return config.step == "compiled" or (config.step == "auto" and saves)


def compile_parts(learner: Learner, feed: Feed, step: int) -> str:
    """Compile what a step is made of, and try it; what came of it. Where it fails all stays as it was.

    A layer of each kind once, as all are alike, and the losses as a whole: the whole step takes minutes to compile.
    """
    plain, told = learner.terms, f"--step {learner.config.step}: "
    try:
        with warnings.catch_warnings(action="ignore"):  # of products that --tf32 would make faster
            learner.working.compiled = torch.compile(Layer.forward, fullgraph=True, dynamic=False)
            learner.terms = torch.compile(plain, fullgraph=True, dynamic=False)
            learner.begin(step)
            learner.gradients(feed(step))
    except Exception as error:  # whatever a compiler may do
        learner.working.compiled, learner.terms = None, plain
        return f"{told}torch.compile failed ({first_line(error)[:200]}); training goes on without it"
    finally:
        learner.forget()
    return f"{told}layers and losses are compiled"
