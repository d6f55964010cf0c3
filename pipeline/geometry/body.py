"""A body mesh and its joints, posed by linear blend skinning (LBS): the embedded CC0 body, or SMPL's."""

# B batch, V vertices, J joints (24), F faces, K strongest joints of a vertex, S betas, P pose numbers (9 x 23)

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mclip.pipeline.geometry.body_files import WHERE, Arrays, read_body
from mclip.pipeline.geometry.skeleton import GENDERS, forward_kinematics
from mclip.pipeline.machine.compiled import compiled, run_parts

EMBEDDED = {"default": "body.npz", "low": "body_low.npz"}


@dataclass(frozen=True, eq=False)
class Body:
    """A mesh that follows SMPL's 24 joints. Rest pose as SMPL: metres, T-pose, y up, facing +z, x to the body's left.

    name: where it came from.
    v_template_V3: rest vertices.
    joints_J3: rest joints, in the same axes.
    weights_VJ: skinning weights, each row sums to one.
    faces_F3: vertex numbers of triangles, anticlockwise seen from outside.
    shapedirs_V3S: vertex offsets for each beta, or None.
    posedirs_V3P: pose-corrective vertex offsets for each number of the 23 local rotation matrices, or None.
    J_regressor_JV: joints from rest vertices, or None.
    """

    name: str
    v_template_V3: Float[Tensor, "vertices 3"]
    joints_J3: Float[Tensor, "joints 3"]
    weights_VJ: Float[Tensor, "vertices joints"]
    faces_F3: Int[Tensor, "faces 3"]
    shapedirs_V3S: Float[Tensor, "vertices 3 shapes"] | None = None
    posedirs_V3P: Float[Tensor, "vertices 3 pose"] | None = None
    J_regressor_JV: Float[Tensor, "joints vertices"] | None = None

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.v_template_V3.device

    def to(self, device: torch.device | str) -> "Body":
        """This body on a device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors()}
        return replace(self, **moved)

    def double(self) -> "Body":
        """This body in float64."""
        floats = {name: each.double() for name, each in self._tensors() if each.is_floating_point()}
        moved: dict[str, Any] = floats
        return replace(self, **moved)

    def part(self, chosen_N: Int[Tensor, " chosen"]) -> "Body":
        """Some vertices of this body, by their numbers: a cloud of points without faces that poses as they do."""
        dirs = self.posedirs_V3P
        return Body(
            self.name,
            self.v_template_V3[chosen_N],
            self.joints_J3,
            self.weights_VJ[chosen_N],
            self.faces_F3[:0],
            posedirs_V3P=None if dirs is None else dirs[chosen_N],
        )

    def shaped(self, betas_S: Float[Tensor, " shapes"]) -> "Body":
        """The body of other proportions: rest vertices and joints under `betas_S`, the first of its shape numbers."""
        if self.shapedirs_V3S is None or self.J_regressor_JV is None:
            raise ValueError(f"body {self.name} has no shape directions: found betas, expected none for this body")
        dirs_V3S = self.shapedirs_V3S[..., : len(betas_S)]
        if dirs_V3S.shape[-1] < len(betas_S):
            raise ValueError(f"body {self.name}: found {len(betas_S)} betas, expected at most {dirs_V3S.shape[-1]}")
        rest_V3 = self.v_template_V3 + dirs_V3S @ betas_S
        return replace(self, v_template_V3=rest_V3, joints_J3=self.J_regressor_JV @ rest_V3)

    def pose(
        self, rotmat_BJ33: Float[Tensor, "batch joints 3 3"], *, trans_B3: Float[Tensor, "batch 3"] | None = None
    ) -> Float[Tensor, "batch vertices 3"]:
        """Vertices (B, V, 3) in metres, in the frame of the pelvis's rotation (world z up for AMASS).

        `rotmat_BJ33` are local rotations, the pelvis's first; `trans_B3` is added to the posed body, as in SMPL.
        Differentiable wherever an input asks for gradients; otherwise a CPU takes the compiled way, equal to 1e-5 m.
        """
        rotmat_BJ33 = rotmat_BJ33.to(self.v_template_V3.dtype)
        trans_B3 = rotmat_BJ33.new_zeros(len(rotmat_BJ33), 3) if trans_B3 is None else trans_B3.to(rotmat_BJ33.dtype)
        rest_BV3 = self._corrected(rotmat_BJ33)
        affine_BJ34 = self._affine(rotmat_BJ33)
        inputs = (rest_BV3, affine_BJ34, trans_B3)
        compiled = affine_BJ34.device.type == "cpu" and affine_BJ34.dtype == torch.float32
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        if not compiled or learns or torch.compiler.is_compiling():
            return skin(rest_BV3, self.weights_VJ, affine_BJ34) + trans_B3[:, None]
        return skin_sparse(rest_BV3, *self._strongest, affine_BJ34, trans_B3)

    def pose_joints(
        self, rotmat_BJ33: Float[Tensor, "batch joints 3 3"], *, trans_B3: Float[Tensor, "batch 3"] | None = None
    ) -> Float[Tensor, "batch joints 3"]:
        """Joints (B, J, 3) float32 of `pose`."""
        trans_B3 = None if trans_B3 is None else trans_B3.float()
        return forward_kinematics(rotmat_BJ33.float(), self.joints_J3, root_B3=trans_B3)[1]

    @cached_property
    def reach(self) -> float:
        """How far a vertex lies from the nearest joint, at most: metres, at rest."""
        return float(torch.cdist(self.v_template_V3, self.joints_J3).amin(1).max())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, types, shapes and bytes of the arrays."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors():
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in pairs if isinstance(value, Tensor)]

    @cached_property
    def _strongest(self) -> tuple[Tensor, Tensor]:
        """Joints (V, K) int32 and their weights (V, K), K the most that any vertex has: nothing is left out."""
        most = int((self.weights_VJ > 0).sum(1).max())
        weights_VK, joints_VK = self.weights_VJ.sort(dim=1, descending=True, stable=True)
        return joints_VK[:, :most].int().contiguous(), weights_VK[:, :most].contiguous()

    def _corrected(self, rotmat_BJ33: Tensor) -> Tensor:
        """Rest vertices (B or 1, V, 3) with the pose-corrective offsets (SMPL, Loper et al. 2015, eq. 9)."""
        if self.posedirs_V3P is None:
            return self.v_template_V3[None]
        eye = torch.eye(3, device=rotmat_BJ33.device, dtype=rotmat_BJ33.dtype)
        change_BP = (rotmat_BJ33[:, 1:] - eye).flatten(1)
        flat = change_BP @ self.posedirs_V3P.flatten(0, 1).T
        return self.v_template_V3 + flat.view(len(flat), -1, 3)

    def _affine(self, rotmat_BJ33: Tensor) -> Tensor:
        """Motion (B, J, 3, 4) of each joint from rest to pose: [R | p - R j]."""
        world_BJ33, position_BJ3 = forward_kinematics(rotmat_BJ33, self.joints_J3)
        shift_BJ3 = position_BJ3 - (world_BJ33 * self.joints_J3[:, None]).sum(-1)
        return torch.cat((world_BJ33, shift_BJ3[..., None]), dim=-1)


def skin(
    rest_BV3: Float[Tensor, "#batch vertices 3"],
    weights_VJ: Float[Tensor, "vertices joints"],
    affine_BJ34: Float[Tensor, "batch joints 3 4"],
) -> Float[Tensor, "batch vertices 3"]:
    """Vertices (B, V, 3) by LBS over all joints, in torch: differentiable, on any device."""
    # einsum would lay vertices before poses, and all that follows would take 2.4 times as long (see records/train.md).
    blended_BV34 = (weights_VJ @ affine_BJ34.flatten(2)).unflatten(2, (3, 4))
    return (blended_BV34[..., :3] @ rest_BV3[..., None])[..., 0] + blended_BV34[..., 3]


def skin_sparse(
    rest_BV3: Float[Tensor, "#batch vertices 3"],
    joints_VK: Int[Tensor, "vertices most"],
    weights_VK: Float[Tensor, "vertices most"],
    affine_BJ34: Float[Tensor, "batch joints 3 4"],
    trans_B3: Float[Tensor, "batch 3"],
) -> Float[Tensor, "batch vertices 3"]:
    """`skin` plus translation on the CPU, over each vertex's own joints only, without gradients."""
    rest, affine = rest_BV3.detach().contiguous().numpy(), affine_BJ34.detach().contiguous().numpy()
    joints, weights = joints_VK.numpy(), weights_VK.numpy()
    trans = trans_B3.detach().contiguous().numpy()
    out = np.empty((len(affine), rest.shape[1], 3), np.float32)

    def work(part: slice) -> None:
        own_rest = rest if len(rest) == 1 else rest[part]
        _skin(own_rest, joints, weights, affine[part], trans[part], out[part])

    run_parts(work, items=len(affine))
    return torch.from_numpy(out)


@compiled
def _skin(rest_BV3, joints_VK, weights_VK, affine_BJ34, trans_B3, out_BV3):  # type: ignore[no-untyped-def]
    blended = np.empty((3, 4), np.float32)
    for item in range(affine_BJ34.shape[0]):
        rest_V3 = rest_BV3[item % rest_BV3.shape[0]]
        for v in range(rest_V3.shape[0]):
            blended[:] = 0
            for k in range(joints_VK.shape[1]):
                weight = weights_VK[v, k]
                if weight == 0:  # sorted: nothing follows
                    break
                motion = affine_BJ34[item, joints_VK[v, k]]
                for r in range(3):
                    for c in range(4):
                        blended[r, c] += weight * motion[r, c]
            x, y, z = rest_V3[v, 0], rest_V3[v, 1], rest_V3[v, 2]
            for r in range(3):
                turned = blended[r, 0] * x + blended[r, 1] * y + blended[r, 2] * z + blended[r, 3]
                out_BV3[item, v, r] = turned + trans_B3[item, r]


def load_body(body: str | Path = "default") -> Body:
    """The embedded body ("default", or "low" with a tenth of its vertices), or one from an .npz file.

    The file is what `mclip body import` writes, or the .npz of SMPL, SMPL+H or SMPL-X as its site gives it. A file that
    is neither, or whose arrays do not fit together, is refused with a ValueError that names it, and so is a .pkl.
    """
    if str(body) in EMBEDDED:
        with as_file(files("mclip.pipeline") / "assets" / EMBEDDED[str(body)]) as path:
            return _body_of(read_body(path), name=str(body))
    return _body_of(read_body(Path(body)), name=Path(body).name)


def load_bodies(body: str | Path = "default") -> dict[str, Body]:
    """A body for each gender of amass.GENDERS: `load_body`'s for all, or those in a folder of .npz files.

    A folder's files are told by the last word of their names (SMPL_MALE.npz, neutral.npz) or, as in AMASS's
    smplh/male/model.npz, their folder's; one that is missing is missing here. ValueError when two are of one gender,
    none is of any, or their meshes are not one mesh.
    """
    folder = Path(body)
    if str(body) in EMBEDDED or not folder.is_dir():
        return dict.fromkeys(GENDERS, load_body(body))
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*/model.npz")]):
        gender = (path.parent.name if path.name == "model.npz" else path.stem).lower().split("_")[-1]
        if gender in found:
            raise ValueError(f"body folder {folder}: found {found[gender].name} and {path.name}, expected one {gender}")
        if gender in GENDERS:
            found[gender] = path
    if not found:
        raise ValueError(f"body folder {folder}: found no *_NEUTRAL.npz, *_FEMALE.npz or *_MALE.npz; {WHERE}")
    bodies = {gender: load_body(path) for gender, path in found.items()}
    faces = [body.faces_F3 for body in bodies.values()]
    if not all(torch.equal(each, faces[0]) for each in faces):
        raise ValueError(f"body folder {folder}: found meshes of other faces, expected genders of one model")
    return bodies


def fingerprint_of(bodies: dict[str, Body]) -> str:
    """What tells bodies for each gender from others: a fingerprint, or one for each gender."""
    prints = {gender: body.fingerprint for gender, body in bodies.items()}
    one = len({id(body) for body in bodies.values()}) == 1 and len(bodies) == len(GENDERS)
    return prints[GENDERS[0]] if one else ", ".join(f"{gender} {prints[gender]}" for gender in sorted(prints))


def _body_of(arrays: Arrays, *, name: str) -> Body:
    weights_VJ = arrays["weights"].astype(np.float32)
    optional = {
        "shapedirs_V3S": arrays.get("shapedirs"),
        "posedirs_V3P": arrays.get("posedirs"),
        "J_regressor_JV": arrays.get("J_regressor"),
    }
    return Body(
        name=name,
        v_template_V3=_float32(arrays["v_template"]),
        joints_J3=_float32(arrays["joints"]),
        weights_VJ=_float32(weights_VJ / weights_VJ.sum(1, keepdims=True)),
        faces_F3=torch.from_numpy(arrays["faces"].astype(np.int64)),
        **{key: _float32(array) for key, array in optional.items() if array is not None},
    )


def _float32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
