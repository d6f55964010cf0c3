"""What a run says while it trains: a bar, or lines, with rate and time left, and its journal."""

import time
from pathlib import Path
from types import TracebackType

from torch import Tensor

from mclip.pipeline.machine.speed import Speed
from mclip.pipeline.machine.terminal import Bar
from mclip.training.model.config import TERMS, TrainConfig
from mclip.training.train.curves import draw_curves
from mclip.training.train.journal import Journal
from mclip.training.train.validation import collapse


class Report:
    """The bar on stderr and the journal in the run's folder, from step `first` of `steps` on."""

    def __init__(self, folder: Path, config: TrainConfig, *, first: int, steps: int, speed: Speed):
        self.config, self.speed = config, speed
        self.journal = Journal(folder, first, wandb=config.wandb)
        self.bar = Bar()
        self.task = self.bar.add_task("train", total=steps, completed=first, rate="")
        self.step, self.since = first, time.perf_counter()

    def __enter__(self) -> "Report":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()
        self.journal.close(whole=kind is None)
        if kind is None:
            draw_curves(self.journal.file.parent)

    def say(self, *lines: str) -> None:
        """Lines above the bar."""
        for line in lines:
            self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def losses(self, step: int, found: dict[str, float], norm: Tensor) -> None:
        """Journal the losses of a step, and show them with the rate since the last time."""
        seconds = (time.perf_counter() - self.since) / (step - self.step)
        rate = loss_line(found, crops=self.config.batch / seconds, used=self.speed.told(seconds))
        self.bar.update(self.task, rate=rate)
        named = {f"loss/{term}": value for term, value in found.items()}
        self.journal.write(step, **named, gradient_norm=float(norm))
        self.step, self.since = step, time.perf_counter()

    def validation(self, step: int, figures: dict[str, float], split: str) -> None:
        """Journal a validation's figures, tell the first where there is no bar, and say so when the model collapsed."""
        self.journal.write(step, **{f"{split}/{name}": value for name, value in figures.items()})
        self.advance(step)
        self.bar.tell(self.task, f"{split} MPJPE {figures['mpjpe_mm']:.1f} mm")
        self.say(*(f"step {step}: {alarm}" for alarm in collapse(figures)))
        self.step, self.since = step, time.perf_counter()  # a validation is no training

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step)


def loss_line(found: dict[str, float], *, crops: float, used: str) -> str:
    """The losses, crops a second, and what of the machine's matrix products was used, in one line."""
    terms = " ".join(f"{term} {found[term]:.3g}" for term in TERMS if term in found)
    return f"loss {found['total']:.4f} ({terms})  {crops:,.0f} crops/s  {used}"
