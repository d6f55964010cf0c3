"""The tensors of a TorchScript archive, as OpenAI publishes CLIP in, without running anything of it.

torch.jit.load can be made to run a file's code, and is on its way out of torch. The archive is a zip: a pickle of
nested modules, and the bytes of every tensor beside it. The pickle is read here by one that knows tensors only.
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
}  # fmt: skip


class Module:
    """A module of the archive, whatever class it had there: its attributes."""


class Reader(pickle.Unpickler):
    """An unpickler that makes modules, tensors and plain values."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle; UnpicklingError for everything that no tensor needs."""
        if module.startswith("__torch__"):
            return Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch.jit._pickle":  # marks the types of lists
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"{module}.{name} in a file of weights")

    def persistent_load(self, pid: Any) -> Tensor:
        """The flat numbers of a tensor."""
        _, dtype, key, _, count = pid
        content = self.archive.read(f"{self.root}/data/{key}")
        return torch.frombuffer(bytearray(content), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor of its flat numbers."""
    return flat.as_strided(size, stride, offset)


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive. pickle.UnpicklingError for one that holds anything else."""
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].split("/")[0]
        return dict(tensors_of(Reader(archive, root).load(), ""))


def tensors_of(module: Module, prefix: str) -> list[tuple[str, Tensor]]:
    """Tensors of a module and those in it, by their whole names."""
    found = []
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            found.append((f"{prefix}{name}", value))
        elif isinstance(value, Module):
            found += tensors_of(value, f"{prefix}{name}.")
    return found
