"""Files of weights, checked before anything reads them, and the tensors of a TorchScript archive.

OpenAI publishes CLIP in such an archive, and nothing of it is run here.
torch.jit.load can be made to run a file's code, and is on its way out of torch. The archive is a zip: a pickle of
nested modules, and the bytes of every tensor beside it. The pickle is read here by one that knows tensors only.
"""

import collections
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclip.pipeline.files.pickles import check_pickle, check_pickle_file, need

LARGEST_PICKLE = 256 << 20  # bytes of names and shapes; ViT-B/32's are 0.2 MB
PARTS = 5  # pickles before the numbers of a file by torch.save of old
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


class Module:
    """A module of the archive, whatever class it had there: its attributes."""


class Reader(pickle.Unpickler):
    """An unpickler that makes modules, tensors and plain values."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root
        self.flat: dict[str, Tensor] = {}  # a storage is read once, however often it is named

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
        if key not in self.flat:
            content = self.archive.read(f"{self.root}/data/{key}")
            bytes_needed = count * dtype.itemsize
            need(content, bytes_needed)
            self.flat[key] = torch.frombuffer(bytearray(content) or bytearray(8), dtype=dtype)[:count]
        return self.flat[key]


def tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor of its flat numbers."""
    return flat.as_strided(size, stride, offset)


def check_weights(file: Path) -> None:
    """pickle.UnpicklingError for a file of weights that is cut short, or would take memory or depth without limit.

    Of safetensors, of torch.save's zip, and of the pickles that it wrote before.
    """
    if file.suffix == ".safetensors":
        check_safetensors(file)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for part in (each for each in archive.infolist() if "/code/" not in each.filename):  # which nobody reads
                if part.compress_type != zipfile.ZIP_STORED:
                    raise pickle.UnpicklingError(f"{part.filename} in it is compressed, which torch never does")
                if part.filename.endswith(".pkl"):
                    check_archived(archive, part)
    else:
        with file.open("rb") as opened:
            if opened.read(4) == b"PK\x03\x04":
                raise pickle.UnpicklingError("is cut short: the end of the zip, with its list of parts, is missing")
        check_pickle_file(file, most=PARTS)


def check_archived(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """`check_pickle` of a part of an archive."""
    if part.file_size > LARGEST_PICKLE:
        raise pickle.UnpicklingError(f"{part.filename} in it has {part.file_size:,} bytes, expected names and shapes")
    check_pickle(archive.read(part))


def check_safetensors(file: Path) -> None:
    """UnpicklingError saying how many bytes are missing behind the end of a file of safetensors."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 + length:
            raise pickle.UnpicklingError(f"is cut short: {size:,} bytes, expected over {8 + length:,}")
        parts = json.loads(opened.read(length))
    ends = [part["data_offsets"][1] for name, part in parts.items() if name != "__metadata__"]
    if size < (whole := 8 + length + max(ends, default=0)):
        raise pickle.UnpicklingError(f"is cut short: {size:,} bytes, {whole - size:,} more are missing")


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
        check_archived(archive, archive.getinfo(f"{root}/data.pkl"))
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
