"""Body files: our own .npz, and SMPL, SMPL+H and SMPL-X as their sites give them, all as arrays of SMPL's 24 joints."""

# V vertices, F faces, J joints of the file, S shape numbers (betas)

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.files.unpickle import read_pickle
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS, SMPLH_JOINTS, SMPLX_JOINTS

Arrays = dict[str, np.ndarray]
OWN_KEYS = ("v_template", "faces", "joints", "weights", "parents")
SMPL_KEYS = ("v_template", "f", "J_regressor", "weights", "kintree_table")
OPTIONAL = ("shapedirs", "posedirs", "J_regressor")
MODELS = {24: "SMPL", 52: "SMPL+H", 55: "SMPL-X"}
KEPT = {24: tuple(range(24)), 52: SMPLH_JOINTS, 55: SMPLX_JOINTS}
BETAS = 16  # as many as the store keeps of a sequence
SMPLX_BETAS = 300  # of the 400 in shapedirs; the rest, like the last 10 of 20 in small files, are expressions
MOST_VERTICES = 1_000_000
LARGEST = 1 << 30  # bytes of one array; SMPL-X's pose correctives take 0.12 GB
WHERE = "`mclip body import -h` says where SMPL's models come from"


def import_body(file: Path, out: Path) -> str:
    """Write an official model as a body of ours, compact and without pickle, and tell what it is.

    FileNotFoundError or ValueError as `read_body`, and for an `out` that is no .npz.
    """
    if out.suffix.lower() != ".npz":
        raise ValueError(f"{out}: expected a name that ends in .npz for the body to write")
    arrays = read_body(file, pickles=True)
    written: dict[str, Any] = {key: compact(array) for key, array in arrays.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with by_rename(out) as aside:
        np.savez(aside, **written)
    shapes = arrays["shapedirs"].shape[-1] if "shapedirs" in arrays else "no"
    return (
        f"{out}: {len(arrays['v_template']):,} vertices, {len(arrays['faces']):,} faces, {shapes} betas, "
        f"{'with' if 'posedirs' in arrays else 'no'} pose correctives; {out.stat().st_size / 1e6:.1f} MB"
    )


def compact(array: np.ndarray) -> np.ndarray:
    """An array in 32 bits a number."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def read_body(path: Path, *, pickles: bool = False) -> Arrays:
    """The arrays OWN_KEYS, and OPTIONAL where there are any, of a body of ours or an official model.

    FileNotFoundError or ValueError naming the file, what was found and what was expected. Nothing is ever unpickled:
    a .pkl is refused, or, with `pickles`, its arrays are read by `mclip.pipeline.unpickle`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"body {path}: no such file; expected default, low, or an .npz; {WHERE}")
    if path.suffix.lower() != ".pkl":
        arrays = read_npz(path)
    elif pickles:
        arrays = read_pickle(path, (*SMPL_KEYS, *OPTIONAL))
    else:
        raise ValueError(
            f"body file {path}: found a pickle, expected an .npz: run `mclip body import {path} "
            f"{path.with_suffix('.npz').name}` once, which reads it without running it, and name the .npz"
        )
    own = "joints" in arrays
    if missing := [key for key in (OWN_KEYS if own else SMPL_KEYS) if key not in arrays]:
        found = ", ".join(arrays) or "none of the arrays of a body"
        raise ValueError(
            f"body file {path}: found {found}; without {', '.join(missing)} it is neither a body of ours "
            f"({', '.join(OWN_KEYS)}) nor an SMPL model ({', '.join(SMPL_KEYS)}); {WHERE}"
        )
    if not own:
        arrays = folded(arrays, path=path)
    check_body(arrays, path=path)
    return arrays


def read_npz(path: Path) -> Arrays:
    """The arrays of an .npz that a body is made of, under the names they have there."""
    wanted = {*OWN_KEYS, *SMPL_KEYS, *OPTIONAL}
    try:
        # A stream of our own: numpy leaves its file open when the archive is broken.
        if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and advise to run it
            raise ValueError("is no .npz archive or is cut short: copy or download it again")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = [key for key in archive.files if key in wanted]
            for key in found:
                if (size := archive.zip.getinfo(f"{key}.npy").file_size) > LARGEST:
                    raise ValueError(f"{key} claims {size / 2**30:.0f} GB, expected at most {LARGEST >> 30}")
            return {key: archive[key] for key in found}
    # zipfile, zlib and numpy's header reader raise nearly anything at a damaged file.
    except Exception as error:
        raise ValueError(f"body file {path}: {error or type(error).__name__}") from error


def folded(arrays: Arrays, *, path: Path) -> Arrays:
    """Our arrays of an official model, its joints those of SMPL.

    Joints that the store has no rotation of (fingers beyond the first joint of the index, jaw, eyes) stay at rest, so
    they move with their parents: adding their skinning weights to those is the model itself in such poses, exactly.
    """
    parents_J = parents_of(arrays["kintree_table"], path=path)
    joints, kept = len(parents_J), KEPT[len(parents_J)]
    expected = shapes(len(np.atleast_1d(arrays["v_template"])), joints)
    for key, array in arrays.items():
        check_array(key, array, shape=expected[key], path=path)
    owner: list[int] = []  # place, among those kept, of the joint that each moves with
    for joint, parent in enumerate(parents_J):
        owner.append(kept.index(joint) if joint in kept else owner[parent])
    ours = {"faces": arrays["f"], "v_template": arrays["v_template"], "J_regressor": arrays["J_regressor"][[*kept]]}
    ours["joints"] = ours["J_regressor"] @ ours["v_template"]
    ours["parents"] = np.array([-1, *(owner[parents_J[joint]] for joint in kept[1:])])
    ours["weights"] = arrays["weights"] @ np.eye(len(kept))[owner]
    if "posedirs" in arrays:
        of_joint = arrays["posedirs"].reshape(*arrays["posedirs"].shape[:2], joints - 1, 9)
        ours["posedirs"] = of_joint[:, :, np.array(kept[1:]) - 1].reshape(*of_joint.shape[:2], -1)
    if "shapedirs" in arrays:
        stated = arrays["shapedirs"].shape[-1]
        expressions = 0 if MODELS[joints] != "SMPL-X" else stated - SMPLX_BETAS if stated > SMPLX_BETAS else stated // 2
        ours["shapedirs"] = arrays["shapedirs"][..., : min(BETAS, stated - expressions)]
    return ours


def parents_of(kintree: np.ndarray, *, path: Path) -> list[int]:
    """The parent of every joint of an official model, -1 for the root; ValueError for a tree of none of the models."""
    joints = kintree.shape[-1] if kintree.ndim == 2 else 0
    if joints not in MODELS:
        known = ", ".join(f"{count} ({name})" for count, name in MODELS.items())
        raise ValueError(f"body file {path}: found {joints} joints, expected {known}; {WHERE}")
    check_array("kintree_table", kintree, shape=(2, joints), path=path)
    parents = [-1, *kintree[0, 1:].astype(np.int64).tolist()]  # the root's parent is stored as 2**32 - 1
    if not all(0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ValueError(f"body file {path}: found parents {parents}, expected each before its child")
    return parents


def shapes(vertices: int, joints: int) -> dict[str, tuple[int | None, ...]]:
    """Shapes of a body's arrays, ours and official; None is any."""
    return {
        "v_template": (vertices, 3),
        "faces": (None, 3),
        "f": (None, 3),
        "joints": (joints, 3),
        "weights": (vertices, joints),
        "parents": (joints,),
        "kintree_table": (2, joints),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
    }


def check_body(arrays: Arrays, *, path: Path) -> None:
    """Refuse arrays of ours of other shapes, not finite, or numbers out of range: found and expected, by name."""
    if np.size(arrays["parents"]) != len(JOINTS):
        raise ValueError(
            f"body file {path}: found {np.size(arrays['parents'])} joints, expected SMPL's {len(JOINTS)}: SMPL+H and "
            "SMPL-X as their sites give them have 52 and 55, and are read too"
        )
    vertices = len(np.atleast_1d(arrays["v_template"]))
    expected = shapes(vertices, len(JOINTS))
    for key, array in arrays.items():
        check_array(key, array, shape=expected[key], path=path)
    if tuple(arrays["parents"].tolist()) != PARENTS:
        raise ValueError(
            f"body file {path}: found parents {arrays['parents'].tolist()}, expected SMPL's {list(PARENTS)}"
        )
    low, high = int(arrays["faces"].min()), int(arrays["faces"].max())
    if low < 0 or high >= vertices:
        raise ValueError(f"body file {path}: faces name vertices {low} to {high}, expected 0 to {vertices - 1}")
    sums = arrays["weights"].astype(np.float32).sum(1)
    if arrays["weights"].min() < 0 or np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            f"body file {path}: found weights from {arrays['weights'].min():g} with sums {sums.min():g} to "
            f"{sums.max():g} a vertex, expected none below 0 and sums of 1"
        )


def check_array(key: str, array: np.ndarray, *, shape: tuple[int | None, ...], path: Path) -> None:
    """Refuse an array of another shape or type, or with NaN or infinity; None in `shape` is any size."""
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or 0 in array.shape or max(array.shape) > MOST_VERTICES:
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"body file {path}: found {key} of shape {array.shape}, expected {wanted}")
    kinds = "iu" if key in ("faces", "f", "parents", "kintree_table") else "f"
    if array.dtype.kind not in kinds:
        name = "whole numbers" if kinds == "iu" else "floating point numbers"
        raise ValueError(f"body file {path}: found {key} of type {array.dtype}, expected {name}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"body file {path}: found {bad} values of {key} that are NaN or infinite, expected none")
