"""Pickles of SMPL models are read, and a pickle that runs something runs nothing."""

import builtins
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from mclip.pipeline.files.unpickle import read_pickle

# Made by chumpy 0.70 itself, protocol 2, of np.random.default_rng(0): a constant `x` (4, 3), then `x[:, :2]`, then
# `dot(x, x.T)`, a csc_matrix of the constant, and bytes.
BY_CHUMPY = Path(__file__).parent / "data" / "chumpy.pkl"


def dumped(folder: Path, value: object, *, protocol: int = 2) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def test_chumpys_own_pickle_gives_its_arrays():
    constant = np.random.default_rng(0).normal(size=(4, 3))
    found = read_pickle(BY_CHUMPY, ("constant", "selected", "sparse", "absent"))
    assert list(found) == ["constant", "selected", "sparse"]
    for name, expected in (("constant", constant), ("selected", constant[:, :2]), ("sparse", constant)):
        np.testing.assert_array_equal(found[name], expected)


def test_other_nodes_of_chumpy_are_no_arrays():
    with pytest.raises(ValueError, match=r"chumpy\.pkl: found a dot in place of an array of numbers"):
        read_pickle(BY_CHUMPY, ["product"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_come_back(tmp_path, protocol):
    rng = np.random.default_rng(1)
    arrays = {
        "a": rng.normal(size=(5, 3)),
        "b": np.asfortranarray(rng.normal(size=(4, 6)).astype(np.float32)),
        "c": rng.integers(0, 2**32, (2, 24)).astype(np.uint32),
        "d": np.array(7),
        "e": np.arange(3, dtype=">i4"),
        "f": np.arange(4, dtype=np.uint8),
    }
    found = read_pickle(dumped(tmp_path, arrays, protocol=protocol), arrays)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype


@pytest.mark.parametrize("kind", [csc_matrix, csr_matrix])
def test_sparse_matrices_are_filled(tmp_path, kind):
    dense = np.random.default_rng(2).random((24, 30)) * (np.random.default_rng(3).random((24, 30)) > 0.8)
    np.testing.assert_array_equal(read_pickle(dumped(tmp_path, {"J": kind(dense)}), ["J"])["J"], dense)


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize(
    "attack",
    [
        lambda file: Runs(os.mkdir, file),
        lambda file: Runs(os.system, f"mkdir {file}"),
        lambda file: Runs(builtins.exec, f"import os; os.mkdir({file!r})"),
        lambda file: Runs(subprocess.check_call, ["mkdir", file]),
        lambda file: Runs(getattr, Runs(__import__, "os"), "mkdir"),
    ],
)
def test_pickle_that_runs_something_runs_nothing(tmp_path, attack, where):
    file = tmp_path / "made"
    evil = attack(str(file))
    path = dumped(tmp_path, {"v_template": np.zeros(3), "evil": evil} if where == "beside" else evil)
    with pytest.raises(ValueError, match=r"model\.pkl: it asks for \w+\.\w+; expected numpy, scipy.sparse and chumpy"):
        read_pickle(path, ["v_template"])
    assert not file.exists()


def test_the_attack_works_where_nothing_is_done_against_it(tmp_path):
    path = dumped(tmp_path, Runs(os.mkdir, str(tmp_path / "made")))
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"], check=True)
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    "code",
    [
        b"cchumpy.os\nsystem\n(S'touch made'\ntR.",  # a stand-in is called
        b"cnumpy\nndarray.__reduce__\n.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
    ],
)
def test_roundabout_ways_lead_nowhere(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    Path("model.pkl").write_bytes(code)
    with pytest.raises(ValueError, match=r"body file model\.pkl: "):
        read_pickle(Path("model.pkl"), ["v_template"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds a list, expected a dict of arrays"),
        ({"v_template": "text"}, "found a str in place of an array"),
        ({"v_template": np.array([{}, None])}, "found an array of numpy's type O8, expected plain numbers"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        read_pickle(dumped(tmp_path, value), ["v_template"])


def test_sparse_matrix_that_points_outside_is_refused(tmp_path):
    matrix = csc_matrix(np.eye(4))
    matrix.indices[2] = 1_000_000  # scipy's own code would write there
    with pytest.raises(ValueError, match=r"model\.pkl: "):
        read_pickle(dumped(tmp_path, {"J": matrix}), ["J"])


def test_sparse_matrix_of_absurd_size_is_refused(tmp_path):
    matrix = csc_matrix((100_000, 1_000_000))
    with pytest.raises(ValueError, match=r"found a matrix of 100,000 x 1,000,000, expected joints x vertices"):
        read_pickle(dumped(tmp_path, {"J": matrix}), ["J"])


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_pickle_cut_short_is_refused_by_name(tmp_path, part):
    path = dumped(tmp_path, {"v_template": np.zeros((50, 3))})
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"body file .*model\.pkl: "):
        read_pickle(path, ["v_template"])
