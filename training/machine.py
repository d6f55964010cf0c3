"""What the machine can do: its device, its fast types, its free memory, its rate of matrix products."""

import functools
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mclip.training.run import Run, RunError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; RunError when an asked device is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"--device {name}: no CUDA device is visible to torch {torch.__version__}; use --device cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise RunError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    return torch.device(name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: CUDA from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.backends.cpu.get_cpu_capability()
    return capable.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())


def in_bfloat16(run: Run) -> bool:
    """Whether to use a run in bfloat16: what it was trained in, where its device multiplies it fast."""
    return run.config["train"].get("precision") == "bfloat16" and multiplies_bfloat16(run.device)


def autocast(run: Run) -> torch.autocast:
    """A context in which the run's model computes as `in_bfloat16` says; for nothing but the model."""
    return torch.autocast(run.device.type, torch.bfloat16, enabled=in_bfloat16(run))


def require_bfloat16(device: torch.device) -> None:
    """RunError where torch cannot multiply bfloat16 on the device at all."""
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
        one @ one
    except (RuntimeError, TypeError) as error:
        raise RunError(
            f"--precision bfloat16: torch {torch.__version__} has no such product on {device} ({error}): "
            "use --precision float32"
        ) from error


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody uses on the device; on a CPU those that the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = Path("/proc/meminfo")
    if not told.exists():  # no Linux: nobody knows, so nothing is too large
        return 2**63
    lines = dict(line.split(":", 1) for line in told.read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


@dataclass(frozen=True)
class Speed:
    """How fast the machine multiplies matrices, and how much a training step multiplies."""

    rate: float  # FLOP a second
    flops: int  # of a step
    dtype: torch.dtype

    def share(self, seconds: float) -> float:
        """Share of the machine's rate that a step of so many seconds uses."""
        return self.flops / (self.rate * seconds)

    def __str__(self) -> str:
        return (
            f"matrix products: {self.rate / 1e9:,.0f} GFLOP/s in {str(self.dtype).removeprefix('torch.')}, "
            f"{self.flops / 1e9:,.3g} GFLOP a step: at best {self.rate / self.flops:,.3g} steps/s"
        )


@functools.cache
def matmul_rate(dtype: torch.dtype, device: torch.device, *, rows: int, width: int, seconds: float = 0.3) -> float:
    """Best rate in FLOP a second of products (rows, width) x (width, 3 width), as the model's largest are."""
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
