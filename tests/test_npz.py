"""The .npz reader: what zipfile and numpy read, and nothing that they would not."""

import io
import zipfile

import numpy as np
import pytest

from mclip.pipeline.files.npz import Npz, NpzError


def opened(content: bytes) -> Npz:
    return Npz(lambda at, length: content[at : at + length], len(content))


def packed(method: int, comment: bytes = b"", **arrays: np.ndarray) -> bytes:
    """An archive of .npy members, written by zipfile."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    return file.getvalue()


ARRAYS = {
    "poses": np.random.default_rng(0).normal(size=(300, 156)),
    "gender": np.array(b"female"),
    "empty": np.zeros((0, 3)),
    "ü": np.arange(5, dtype=">i2"),
    "turned": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"x" * 5000, b"y" * 0xFFFF])
def test_arrays_and_shapes_are_those_that_numpy_reads(method, comment):
    content = packed(method, comment, **ARRAYS)
    found = opened(content)
    with np.load(io.BytesIO(content), allow_pickle=False) as theirs:
        assert list(found) == theirs.files
        for name in theirs.files:
            assert np.array_equal(found[name], theirs[name])
            assert found[name].dtype == theirs[name].dtype
            assert found.shape(name) == theirs[name].shape


def test_an_array_stored_as_it_is_is_not_copied():
    content = packed(zipfile.ZIP_STORED, **ARRAYS)
    view = memoryview(content)
    array = Npz(lambda at, length: view[at : at + length], len(view))["poses"]
    assert np.shares_memory(array, np.frombuffer(content, np.uint8))


def test_a_method_that_numpy_never_packs_by_is_refused():
    with pytest.raises(zipfile.BadZipFile, match=r"poses.npy is not where .* or packed as numpy never does"):
        opened(packed(zipfile.ZIP_BZIP2, **ARRAYS))["poses"]


def test_more_bytes_than_the_directory_says_are_never_unpacked():
    bomb = bytearray(packed(zipfile.ZIP_DEFLATED, poses=np.zeros(10_000_000)))
    entry = bomb.rindex(b"PK\1\2")
    bomb[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    with pytest.raises(zipfile.BadZipFile, match="checksum of poses.npy is wrong"):
        opened(bytes(bomb))["poses"]


def test_a_claim_of_gigabytes_is_refused_before_it_is_unpacked():
    file = bytearray(packed(zipfile.ZIP_DEFLATED, poses=np.zeros(10)))
    entry = file.rindex(b"PK\1\2")
    file[entry + 24 : entry + 28] = (3 << 30).to_bytes(4, "little")
    with pytest.raises(NpzError, match="poses claims 3 GB, more than 2: not a motion"):
        opened(bytes(file))["poses"]
