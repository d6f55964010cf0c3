"""TorchScript archives: the tensors that torch's own reader finds, and nothing run."""

import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mclip.pipeline.files.torchscript import is_torchscript, read_tensors


class Nested(torch.nn.Module):
    """Tensors of several kinds, two of them views of one, and attributes that are none."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.arange(12.0)
        self.register_buffer("even", numbers[::2])
        self.register_buffer("turned", numbers.view(3, 4).T)
        self.register_buffer("one", torch.tensor(7))
        self.register_buffer("none", torch.empty(0, 3))
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 5).half())
        self.sizes: list[int] = [3, 4]
        self.word = "word"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + len(self.sizes)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(Nested()), tmp_path / "nested.pt")
    return tmp_path / "nested.pt"


def test_tensors_are_those_that_torch_reads(archive: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        expected = torch.jit.load(archive).state_dict()
    found = read_tensors(archive)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert all(found[name].dtype == tensor.dtype for name, tensor in expected.items())
    assert len(found) == 8


def rewritten(archive: Path, part: str, content: bytes) -> Path:
    """The archive with another content of one of its parts."""
    other = archive.with_name("other.pt")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith(part) else source.read(name))
    return other


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.copyfile, (__file__, self.file)


def test_a_program_in_the_pickle_is_refused_and_not_run(archive: Path, tmp_path: Path) -> None:
    bomb = rewritten(archive, "/data.pkl", pickle.dumps({"weight": Bomb(tmp_path / "ran")}, protocol=2))
    assert is_torchscript(bomb)
    with pytest.raises(pickle.UnpicklingError, match="shutil.copyfile in a file of weights"):
        read_tensors(bomb)
    assert not (tmp_path / "ran").exists()


def test_a_tensor_that_lacks_bytes_is_refused(archive: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="is cut short: 4 bytes, and at least 44 more are missing"):
        read_tensors(rewritten(archive, "/data/0", b"1234"))


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "words.pt").write_text("words")
    assert not is_torchscript(tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "words.pt")
