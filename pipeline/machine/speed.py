"""What the machine can do: its device, its fast types, its free memory, its rate of matrix products."""

import functools
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Speed:
    """How fast the machine multiplies matrices, and how much a training step multiplies."""

    rate: float  # FLOP a second
    flops: int  # of a step
    dtype: torch.dtype

    def share(self, seconds: float) -> float:
        """Share of the machine's rate that a step of so many seconds uses."""
        return self.flops / (self.rate * seconds)

    def told(self, seconds: float) -> str:
        """What a step that took so many seconds used of the machine: both rates, and their ratio (MFU)."""
        unit, name = (1e12, "TFLOP/s") if self.rate >= 1e13 else (1e9, "GFLOP/s")
        used = f"{self.flops / seconds / unit:,.3g} of {self.rate / unit:,.3g} {name}"
        return f"{used} (MFU {self.share(seconds):.0%})"

    def __str__(self) -> str:
        return (
            f"matrix products: {self.rate / 1e9:,.0f} GFLOP/s in {str(self.dtype).removeprefix('torch.')}, "
            f"{self.flops / 1e9:,.3g} GFLOP a step: at best {self.rate / self.flops:,.3g} steps/s"
        )


@functools.cache
def matmul_rate(dtype: torch.dtype, device: torch.device, *, rows: int, width: int, seconds: float = 0.3) -> float:
    """Best rate in FLOP a second of products (rows, width) x (width, 3 width), as the model's largest are.

    A GPU's is that of a product which fills it, whatever the model's size: the peak of its type.
    """
    if device.type != "cpu":
        rows, width = max(rows, 8192), max(width, 4096)
    a = torch.randn(rows, width, device=device).to(dtype)
    b = torch.randn(width, 3 * width, device=device).to(dtype)
    best, until = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * a.numel() * b.shape[1] / (time.perf_counter() - started))
    return best
