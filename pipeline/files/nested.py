"""Nested dicts and lists of arrays, as pickle, joblib and torch.save write them, without running anything of a file.

Everything that such a file names is replaced by an inert stand-in (`unpickle`), and numbers are taken out of those
afterwards. joblib writes each array's bytes behind the object that stands for it, in the middle of the pickle, so the
unpickler here is Python's own in Python, which can be stopped there; it counts its steps, so that no file takes long.
"""

import bz2
import io
import lzma
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, no_type_check

import numpy as np
import torch

from mclip.pipeline.files.unpickle import ADMITTED, NUMBERS, Array, Inert, array_of, numbers

MOST_BYTES = 1 << 30  # of a file, or of what is packed in it: a day of SMPL-X
MOST_STEPS = 10_000_000  # opcodes: PHALP writes 600 for a person in a frame
MOST_TUPLES = 100  # in one another; an array's state has three
MOST_VALUES = 5_000_000  # in all dicts and lists, each counted as often as it is reached
MOST_NUMBERS = 100_000_000  # of a tensor, which may repeat the numbers that it has
TORCH = "data.pkl"  # in the archive that torch.save writes
OLD_TORCH = 0x1950A86A20F9469CFC6C  # what it wrote first, before it wrote archives
KINDS = re.compile(r"[?biufcSUmM]\d*")  # numpy's codes of what joblib writes as bytes
STORAGES = {
    "HalfStorage": "f2",
    "BFloat16Storage": "bf2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "BoolStorage": "u1",
}
PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda content: zlib.decompressobj(47).decompress(content, MOST_BYTES + 1),
    b"\x78": lambda content: zlib.decompressobj(47).decompress(content, MOST_BYTES + 1),
    b"BZ": lambda content: bz2.BZ2Decompressor().decompress(content, MOST_BYTES + 1),
    b"\xfd7zXZ": lambda content: lzma.LZMADecompressor().decompress(content, MOST_BYTES + 1),
    b"\x5d\x00": lambda content: lzma.LZMADecompressor().decompress(content, MOST_BYTES + 1),
}


class Wrapped(Inert):
    """What joblib writes before an array's bytes."""


class Scalar(Inert):
    """One number of numpy's: called with type and bytes."""


class Nothing:
    """What is kept of an object that holds no numbers."""

    def __init__(self, *_: Any) -> None: ...


def tensor(flat: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """A tensor of its flat numbers; torch checks that they are enough."""
    if math.prod(size) > MOST_NUMBERS:
        raise pickle.UnpicklingError(f"a tensor of {math.prod(size):,} numbers, expected a motion's")
    return torch.from_numpy(flat).as_strided(size, stride, offset).numpy()


def storage_in(content: bytes) -> np.ndarray:
    """The flat numbers in a file by torch.save inside a pickle, by torch's reader of tensors alone."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return numpy_of(torch.tensor([], dtype=storage.dtype).set_(storage))


def numpy_of(values: torch.Tensor) -> np.ndarray:
    """A tensor as numpy has it, which knows no bfloat16."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def new_dict(*_: Any) -> dict[Any, Any]:
    """What stands for a dict of another kind."""
    return {}


NESTED: dict[tuple[str, str], Any] = {
    **ADMITTED,
    **{(f"numpy.{core}.multiarray", "scalar"): Scalar for core in ("core", "_core")},
    **{(module, name): Nothing for module in ("builtins", "__builtin__") for name in ("slice", "complex", "range")},
    **{(module, "dict"): new_dict for module in ("builtins", "__builtin__")},
    **{(module, name): list for module in ("builtins", "__builtin__") for name in ("list", "tuple")},
    ("collections", "OrderedDict"): new_dict,
    ("collections", "defaultdict"): new_dict,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Wrapped,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): lambda value, *_: value,
    ("torch.storage", "_load_from_bytes"): storage_in,
    ("torch", "Size"): lambda values=(), *_: list(values),
    ("torch", "device"): Nothing,
    **{("torch", name): code for name, code in STORAGES.items()},
    **{("torch", name): None for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "bool")},
    **{("pathlib", name): Nothing for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")},
}


class Counted(dict[int, Any]):
    """The unpickler's steps by opcode, which may be taken so often."""

    steps = 0

    @no_type_check  # a check for each of ten million steps would take minutes
    def __getitem__(self, code: int) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise pickle.UnpicklingError(f"asks for over {MOST_STEPS:,} steps, expected arrays")
        return super().__getitem__(code)


PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # as joblib's own reader


class NestedUnpickler(PythonUnpickler):  # type: ignore[misc]
    """An unpickler of stand-ins that reads the arrays that joblib put between."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile | None = None, root: str = ""):
        super().__init__(file, encoding="latin1")
        self.file, self.archive, self.root = file, archive, root
        self.depths: dict[int, int] = {}
        self.storages: dict[str, np.ndarray] = {}
        plain: dict[int, Any] = PythonUnpickler.dispatch
        steps = {**plain, pickle.BUILD[0]: NestedUnpickler.load_build}
        for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
            steps[code[0]] = counting_tuples(plain[code[0]])
        steps[pickle.BYTEARRAY8[0]] = NestedUnpickler.load_buffer
        self.dispatch = Counted(steps)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what a pickle names; UnpicklingError when there is none."""
        if (module, name) not in NESTED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is never run: expected dicts of arrays; save them as an .npz"
            )
        return NESTED[module, name]

    def load_build(self) -> None:
        """Give an object its state; what stands for an array of joblib's becomes the array."""
        super().load_build()
        if isinstance(self.stack[-1], Wrapped):
            self.stack[-1] = self.array_behind(self.stack[-1].state)

    def load_buffer(self) -> None:
        """Put bytes there, which Python's own step makes room for before it knows that there are so many."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def array_behind(self, told: Mapping[str, Any]) -> Any:
        """The array whose bytes come next."""
        kind, shape, code = told["dtype"], tuple(told["shape"]), str(told["dtype"].args[0])
        if code == "O8":
            return NestedUnpickler(self.file).load()
        if not KINDS.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of numpy's type {code}, expected numbers")
        if told.get("numpy_array_alignment_bytes") is not None:
            self.read(self.read(1)[0])
        data = self.read(math.prod(shape) * np.dtype(code).itemsize)
        return numbers(data, kind, shape, told["order"]) if NUMBERS.fullmatch(code) else Nothing()

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The flat numbers of a tensor in torch's archive."""
        if self.archive is None:
            raise pickle.UnpicklingError("it asks for numbers that lie elsewhere")
        _, code, key, *_ = pid
        if key not in self.storages:
            content = read_stored(self.archive, f"{self.root}data/{key}")
            self.storages[key] = wide(content) if code == "bf2" else np.frombuffer(bytearray(content), code)
        return self.storages[key]


def wide(content: bytes) -> np.ndarray:
    """float32 of bfloat16, which is its upper half."""
    return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)


def counting_tuples(step: Callable[[Any], None]) -> Callable[[NestedUnpickler], None]:
    """A step that makes a tuple, and counts how many lie in one another: a very deep one ends the process."""

    def load(self: NestedUnpickler) -> None:
        step(self)
        made = self.stack[-1]
        depth = 1 + max((self.depths.get(id(each), 0) for each in made if isinstance(each, tuple)), default=0)
        if depth > MOST_TUPLES:
            raise pickle.UnpicklingError(f"holds over {MOST_TUPLES} tuples in one another, expected arrays")
        self.depths[id(made)] = depth

    return load


def read_stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of torch's archive, which never packs."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > MOST_BYTES:
        raise pickle.UnpicklingError(f"{name} in it is packed, or larger than {MOST_BYTES >> 30} GB")
    return archive.read(member)


def is_nested(magic: bytes) -> bool:
    """Whether a file that begins so may be a pickle, packed or not."""
    return magic[:1] == b"\x80" or any(magic.startswith(sign) for sign in PACKED)


def read_nested(content: bytes) -> Any:
    """Dicts and lists of numpy arrays, numbers and texts in a file's bytes. UnpicklingError, or nearly any other."""
    if len(content) > MOST_BYTES:
        raise pickle.UnpicklingError(f"{len(content) >> 20:,} MB, at most {MOST_BYTES >> 20:,}: save motions apart")
    if content.startswith(b"PK"):
        return of_torch(content)
    for sign, unpack in PACKED.items():
        if content.startswith(sign):
            content = unpack(content)
            if len(content) > MOST_BYTES:
                raise pickle.UnpicklingError(f"unpacks to over {MOST_BYTES >> 30} GB: not a motion")
    found = NestedUnpickler(io.BytesIO(content)).load()
    if isinstance(found, int) and found == OLD_TORCH:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return plain_values(found)


def of_torch(content: bytes) -> Any:
    """The same of torch's archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(TORCH))
        pickled = io.BytesIO(read_stored(archive, name))
        return plain_values(NestedUnpickler(pickled, archive, name.removesuffix(TORCH)).load())


def plain_values(found: Any) -> Any:
    """The same with arrays in place of stand-ins and tensors; what holds no numbers is None."""
    left = [MOST_VALUES]

    def plain(value: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise pickle.UnpicklingError(f"holds over {MOST_VALUES:,} values, expected arrays")
        if isinstance(value, dict):
            return {plain_key(plain(name)): plain(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        if isinstance(value, Array) and isinstance(value.state, tuple) and isinstance(value.state[-1], list):
            return plain(value.state[-1])  # of objects
        return numbers_in(value)

    return plain(found)


def plain_key(name: Any) -> Any:
    """A dict's key: numbers of numpy's as Python's own."""
    return name.item() if isinstance(name, np.ndarray) and name.size == 1 else str(name) if name is None else name


def numbers_in(value: Any) -> Any:
    """An array, a number or a text; None of anything else."""
    if isinstance(value, torch.Tensor):
        return numpy_of(value)
    try:
        if isinstance(value, Scalar):
            return numbers(value.args[1], value.args[0], (), "C")
        if isinstance(value, Inert):
            return array_of(value)
    except Exception:  # what holds no numbers is no motion's
        return None
    return value if isinstance(value, (np.ndarray, np.generic, int, float, str, bytes)) else None
