"""Devices: which one computes, what it multiplies fast, how much memory is free."""

import re

import psutil
import torch


class DeviceError(ValueError):
    """A device that is not there, or that cannot do what is asked of it."""


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; DeviceError when an asked device is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: no CUDA device is visible to torch {torch.__version__}; use --device cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    return torch.device(name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: CUDA from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.backends.cpu.get_cpu_capability()
    return capable.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())


def require_bfloat16(device: torch.device) -> None:
    """DeviceError where torch cannot multiply bfloat16 on the device at all."""
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
        one @ one
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"--precision bfloat16: torch {torch.__version__} has no such product on {device} ({error}): "
            "use --precision float32"
        ) from error


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody uses on the device; on a CPU those that the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def device() -> torch.device:
    """CUDA where there is a device."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
