"""Devices: which one computes, what it multiplies fast, how much memory is free."""

import copy
import functools
import re
from collections.abc import Iterable
from typing import TypeVar

import psutil
import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class DeviceError(ValueError):
    """A device that is not there, or that cannot do what is asked of it."""


def pick_device(word: str | torch.device) -> torch.device:
    """The device that a --device names; `auto` is CUDA where there is a GPU, else the CPU.

    DeviceError for another word, and for a device that is not there, saying what lacks.
    """
    name = str(word)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        raise DeviceError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if lacks := cuda_lacks(name) if name.startswith("cuda") else mps_lacks() if name == "mps" else "":
        raise DeviceError(f"--device {name}: {lacks}; use --device cpu")
    return torch.device(name)


def cuda_lacks(name: str) -> str:
    """Why torch cannot use a CUDA device: as it was built, by the driver, or because there are fewer; else nothing."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA: install another build"
    if not torch.cuda.is_available():
        return f"no CUDA device is visible to torch {torch.__version__} ({driver_says()})"
    count, number = torch.cuda.device_count(), int(name.partition(":")[2] or 0)
    if number < count:
        return ""
    here = ", ".join(f"cuda:{each} ({torch.cuda.get_device_name(each)})" for each in range(count))
    return f"no such GPU; here are {here}"


def driver_says() -> str:
    """What the driver answers where torch finds no CUDA device: none is there, it is too old, all are hidden."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split(". ")[0].splitlines()[0]
    return "the driver gives no reason"


def mps_lacks() -> str:
    """Why torch cannot use Apple's GPU; else nothing."""
    if torch.backends.mps.is_available():
        return ""
    if torch.backends.mps.is_built():
        return "torch was built for it, but macOS finds no such GPU"
    return f"torch {torch.__version__} was built without MPS, which only macOS has"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether to multiply bfloat16 on the device: CUDA from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False  # float32 is as fast there, and autocast knows it only since macOS 14
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


def rounded_copy(
    model: Model, products: Iterable[nn.Module], dtype: torch.dtype
) -> tuple[Model, list[Tensor], list[Tensor]]:
    """A model that shares its weights, but for those of the modules that multiply: rounded once, as autocast would.

    With it these weights as they are, and as they were rounded.
    """
    exact: list[Tensor] = [weight for each in products for weight in each.parameters()]
    near: list[Tensor] = [nn.Parameter(each.detach().to(dtype), requires_grad=each.requires_grad) for each in exact]
    known = {id(each): each for each in model.parameters()}
    return copy.deepcopy(model, known | {id(each): new for each, new in zip(exact, near, strict=True)}), exact, near


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on a device.

    To CUDA by way of pinned memory, on a stream of its own: the host does not wait, and the device computes meanwhile
    what it was asked for before.
    """
    if device.type != "cuda":
        return tensor.to(device)
    computing = torch.cuda.current_stream(device)
    with torch.cuda.stream(copying(device)):
        there = tensor.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(copying(device))
    there.record_stream(computing)  # or its memory could be another tensor's while this one is still read
    return there


@functools.cache
def copying(device: torch.device) -> torch.cuda.Stream:
    """The stream on which a CUDA device is sent tensors."""
    return torch.cuda.Stream(device)


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody uses on the device; on a CPU those that the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)
