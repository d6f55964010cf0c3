"""Arrays in a pickle of numpy, scipy.sparse and chumpy objects, as SMPL is given out, without running any of them.

Everything that such a pickle names is replaced by an inert stand-in that keeps its arguments and its state; numbers are
taken out of those afterwards. No class or function of any library can be reached, whatever the pickle asks for. What
it would take in memory and depth is checked before.
"""

import io
import math
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from mclip.pipeline.files.pickles import check_pickle_file

LARGEST = 2 << 30  # bytes of a file; SMPL-X's is 0.5 GB
MOST_KINDS = 100  # of chumpy's nodes, each a class here; SMPL's files have three
MOST_NUMBERS = 100_000_000  # of a sparse matrix when it is filled; SMPL-X's regressor has 0.6 million
NUMBERS = re.compile("[fiu][1248]")  # numpy's codes of plain numbers


class Inert:
    """What stands for an object: how it was called and what was put into it, nothing else."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any) -> "Inert":
        made = super().__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Array(Inert):
    """A numpy array: (version, shape, type, Fortran order, bytes)."""


class Buffer(Inert):
    """A numpy array as pickle's protocol 5 has it: called with bytes, type, shape, order."""


class Dtype(Inert):
    """A numpy type: called with its code; (version, byte order, ...)."""


class Sparse(Inert):
    """A compressed matrix of scipy: data, indices, indptr and shape."""


class Chumpy(Inert):
    """A node of chumpy's graph: a constant has `x`, a selection `a` and `idxs`."""


def reconstructed(kind: Any, *_: Any) -> Inert:
    """What copyreg makes of an object of an old pickle: a stand-in of its own kind."""
    if not (isinstance(kind, type) and issubclass(kind, Inert)):
        raise pickle.UnpicklingError("an object of a kind that is not admitted")
    return kind()


def encoded(text: str, *_: Any) -> bytes:
    """Bytes, which protocols up to 2 write as text."""
    return text.encode("latin1")


def empty() -> bytes:
    """No bytes, in protocols up to 2."""
    return b""


SPARSE = re.compile(r"scipy\.sparse\.(_?cs[cr]|base|_base)")
BUILTINS = {"set": set, "object": object, "bytes": empty}
ADMITTED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Buffer for core in ("core", "_core")},
    **{(module, "_reconstructor"): reconstructed for module in ("copyreg", "copy_reg")},
    **{(module, name): kind for module in ("builtins", "__builtin__") for name, kind in BUILTINS.items()},
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): encoded,
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits the stand-ins and nothing else."""

    def __init__(self, file: IO[bytes] | io.BytesIO):
        super().__init__(file, encoding="latin1")  # written by Python 2
        self.kinds: dict[tuple[str, str], Any] = dict(ADMITTED)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what a pickle names; UnpicklingError when there is none."""
        if (module, name) in self.kinds:
            return self.kinds[module, name]
        if len(self.kinds) > len(ADMITTED) + MOST_KINDS:
            raise pickle.UnpicklingError(f"it asks for over {MOST_KINDS} kinds of objects, expected arrays")
        if module.split(".")[0] == "chumpy":
            self.kinds[module, name] = type(name, (Chumpy,), {})
        elif SPARSE.fullmatch(module) and name in ("csc_matrix", "csr_matrix"):
            self.kinds[module, name] = type(name, (Sparse,), {})
        else:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; expected numpy, scipy.sparse and chumpy arrays only: this is no SMPL "
                "model as its site gives it out, do not open it by other means"
            )
        return self.kinds[module, name]


def read_pickle(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the arrays `keys` that a pickled dict holds. ValueError, naming the file, for anything else."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"body file {path}: larger than {LARGEST >> 30} GB, expected an SMPL model")
    try:
        check_pickle_file(path)
        with path.open("rb") as file:
            found = ArrayUnpickler(file).load()
        if not isinstance(found, dict):
            raise ValueError(f"holds a {type(found).__name__}, expected a dict of arrays")
        return {key: array_of(found[key]) for key in keys if key in found}
    # A damaged pickle makes pickle and numpy raise nearly anything.
    except Exception as error:
        raise ValueError(f"body file {path}: {error or type(error).__name__}") from error


def array_of(value: Any) -> np.ndarray:
    """The array that a stand-in describes; ValueError for what is none."""
    if isinstance(value, Array):
        _, shape, kind, fortran, data = value.state
        return numbers(data, kind, shape, "F" if fortran else "C")
    if isinstance(value, Buffer):
        return numbers(*value.args)
    if isinstance(value, Sparse):
        return filled(type(value).__name__, value.state)
    if isinstance(value, Chumpy) and "x" in value.state:
        return array_of(value.state["x"])
    if isinstance(value, Chumpy) and {"a", "idxs"} <= set(value.state):
        selected = array_of(value.state["a"]).ravel()[array_of(value.state["idxs"])]
        return selected.reshape(value.state.get("preferred_shape", selected.shape))
    raise ValueError(f"found a {type(value).__name__} in place of an array of numbers")


def numbers(data: Any, kind: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """The array in raw bytes, which Python 2 wrote as text."""
    code, byte_order = str(kind.args[0]), "<" if kind.state is None else str(kind.state[1])
    if not NUMBERS.fullmatch(code):
        raise ValueError(f"found an array of numpy's type {code}, expected plain numbers")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, np.dtype(byte_order + code)).reshape(shape, order=order)


def filled(name: str, state: dict[str, Any]) -> np.ndarray:
    """The dense matrix of a compressed one, whose parts scipy checks."""
    import scipy.sparse

    parts = tuple(array_of(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = state.get("_shape") or state["shape"]
    if math.prod((rows, columns)) > MOST_NUMBERS:
        raise ValueError(f"found a matrix of {rows:,} x {columns:,}, expected joints x vertices")
    matrix = getattr(scipy.sparse, name)(parts, shape=(rows, columns))
    matrix.check_format(full_check=True)
    return np.asarray(matrix.toarray())
