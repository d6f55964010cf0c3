"""Body files: official models of true size posed as smplx poses them, imports, and files that are refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.sparse import csc_matrix

from mclip.cli import cli
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.body_files import KEPT, import_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import PARENTS

HANDS = (0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)  # fingers' parents, counted from 1; 0 is the wrist
TREES = {
    24: PARENTS,
    52: (*PARENTS[:22], *(21 + p if p else 20 for p in HANDS), *(36 + p if p else 21 for p in HANDS)),
    55: (*PARENTS[:22], 15, 15, 15, *(24 + p if p else 20 for p in HANDS), *(39 + p if p else 21 for p in HANDS)),
}


def model_arrays(joints: int = 24, *, vertices: int = 300, shapes: int = 10) -> dict[str, np.ndarray]:
    """Arrays of an official file's shapes, with random numbers: the licence forbids shipping a real one."""
    rng = np.random.default_rng(0)
    weights = rng.random((vertices, joints), np.float32) ** 8
    regressor = rng.random((joints, vertices), np.float32) ** 4
    return {
        "v_template": 0.5 * rng.standard_normal((vertices, 3)),
        "f": rng.integers(0, vertices, (2 * vertices, 3)).astype(np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.stack((np.array(TREES[joints]) % 2**32, np.arange(joints))).astype(np.uint32),
        "shapedirs": 0.02 * rng.standard_normal((vertices, 3, shapes), np.float32),
        "posedirs": 0.01 * rng.standard_normal((vertices, 3, 9 * (joints - 1)), np.float32),
    }


def own_arrays() -> dict[str, np.ndarray]:
    body = load_body("low")
    return {
        "v_template": body.v_template_V3.numpy(),
        "faces": body.faces_F3.int().numpy(),
        "joints": body.joints_J3.numpy(),
        "weights": body.weights_VJ.numpy(),
        "parents": np.array(PARENTS, np.int32),
    }


def poses(joints: int, batch: int = 3) -> torch.Tensor:
    """Axis-angle (B, J, 3) of a model, zero where the store has no rotation."""
    generator = torch.Generator().manual_seed(1)
    full = torch.zeros(batch, joints, 3)
    full[:, list(KEPT[joints])] = 0.6 * torch.randn(batch, 24, 3, generator=generator)
    return full


def posed_by_smplx(kind: str, file: Path, axis_angle: torch.Tensor, **rest: torch.Tensor) -> torch.Tensor:
    smplx = pytest.importorskip("smplx")
    if kind == "SMPL":
        model = smplx.SMPL(str(file), num_betas=rest["betas"].shape[1], batch_size=len(axis_angle))
        body = {"body_pose": axis_angle[:, 1:].flatten(1)}
    else:
        more = {} if kind == "SMPLH" else {"num_betas": rest["betas"].shape[1]}
        model = getattr(smplx, kind)(
            str(file), ext="npz", use_pca=False, flat_hand_mean=True, batch_size=len(axis_angle), **more
        )
        hands = axis_angle[:, -30:].flatten(1).split(45, dim=1)
        body = {"body_pose": axis_angle[:, 1:22].flatten(1), "left_hand_pose": hands[0], "right_hand_pose": hands[1]}
    with torch.no_grad():
        return model(global_orient=axis_angle[:, 0], **body, **rest).vertices


@pytest.mark.parametrize(
    ("kind", "joints", "vertices", "shapes", "betas"),
    [("SMPL", 24, 6890, 300, 16), ("SMPLH", 52, 6890, 16, 10), ("SMPLX", 55, 10475, 20, 10)],
)
def test_model_of_true_size_is_posed_as_smplx_poses_it(tmp_path, kind, joints, vertices, shapes, betas):
    arrays = model_arrays(joints, vertices=vertices, shapes=shapes)
    hands = {
        f"hands_{name}{side}": np.zeros((45, 45) if name == "components" else 45, np.float32)
        for name in ("components", "mean")
        for side in "lr"
    }
    marks = {"lmk_faces_idx": np.zeros(51, np.int64), "lmk_bary_coords": np.full((51, 3), 1 / 3)}
    file = tmp_path / ("model.pkl" if kind == "SMPL" else "model.npz")
    if kind == "SMPL":
        sparse = {"J_regressor": csc_matrix(arrays["J_regressor"]), "bs_style": "lbs"}
        file.write_bytes(pickle.dumps(arrays | sparse, protocol=2))
    else:
        np.savez(file, **arrays, **hands, **marks, part2num=np.array({"head": 15}, dtype=object))
    generator = torch.Generator().manual_seed(2)
    axis_angle = poses(joints)
    shape = 2 * torch.randn(1, betas, generator=generator)
    trans = torch.randn(3, 3, generator=generator)
    theirs = posed_by_smplx(kind, file, axis_angle, betas=shape.expand(3, -1), transl=trans)

    import_body(file, tmp_path / "body.npz")
    body = load_body(tmp_path / "body.npz")
    rotmat = axis_angle_to_matrix(axis_angle[:, list(KEPT[joints])])
    ours = body.shaped(shape[0]).pose(rotmat, trans_B3=trans)
    assert (ours - theirs).abs().max() < 1e-5
    assert (body.pose(rotmat, trans_B3=trans) - theirs).abs().max() > 0.05  # the shape counts,
    plain = body.shaped(shape[0])
    object.__setattr__(plain, "posedirs_V3P", None)
    assert (plain.pose(rotmat, trans_B3=trans) - theirs).abs().max() > 0.05  # and the pose correctives


def test_joints_of_a_shaped_model_are_regressed_from_it(tmp_path):
    lbs = pytest.importorskip("smplx.lbs")
    arrays = model_arrays()
    np.savez(tmp_path / "SMPL.npz", **arrays)
    betas = torch.randn(10, generator=torch.Generator().manual_seed(2))
    shaped = load_body(tmp_path / "SMPL.npz").shaped(betas)
    moved = arrays["v_template"] + arrays["shapedirs"] @ betas.numpy()
    expected = lbs.vertices2joints(torch.from_numpy(arrays["J_regressor"]), torch.from_numpy(moved).float()[None])[0]
    torch.testing.assert_close(shaped.joints_J3, expected, atol=1e-5, rtol=0)


def test_imported_body_is_the_official_file_without_what_is_not_used(tmp_path):
    np.savez(tmp_path / "official.npz", **model_arrays(shapes=300))
    told = import_body(tmp_path / "official.npz", tmp_path / "new" / "ours.npz")
    assert "300 vertices, 600 faces, 16 betas, with pose correctives" in told
    assert load_body(tmp_path / "new/ours.npz").fingerprint == load_body(tmp_path / "official.npz").fingerprint
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ours.npz"]
    with np.load(tmp_path / "new/ours.npz", allow_pickle=False) as arrays:
        assert {arrays[key].dtype.str for key in arrays.files} == {"<f4", "<i4"}


@pytest.mark.parametrize(("shapes", "kept"), [(400, 16), (310, 16), (20, 10), (6, 3)])
def test_expressions_of_smplx_are_no_betas(tmp_path, shapes, kept):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **model_arrays(55, shapes=shapes))
    assert load_body(tmp_path / "SMPLX_NEUTRAL.npz").shapedirs_V3S.shape[-1] == kept


def test_more_betas_than_the_body_has_are_refused(tmp_path):
    np.savez(tmp_path / "SMPL.npz", **model_arrays())
    with pytest.raises(ValueError, match="found 16 betas, expected at most 10"):
        load_body(tmp_path / "SMPL.npz").shaped(torch.zeros(16))


def test_pickle_is_refused_with_the_command_that_reads_it(tmp_path):
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(
        ValueError, match=r"found a pickle.*run `mclip body import \S+SMPL_NEUTRAL.pkl SMPL_NEUTRAL.npz`"
    ):
        load_body(tmp_path / "SMPL_NEUTRAL.pkl")


def test_missing_file_says_where_models_come_from(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no such file; expected default, low, .*`mclip body import -h` says where"
    ):
        load_body(tmp_path / "nothing.npz")


def test_help_of_the_import_names_the_files_and_where_they_are() -> None:
    told = CliRunner().invoke(cli, ["body", "import", "-h"]).output
    for name in ("smpl.is.tue.mpg.de", "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", "model.npz", "SMPLX_NEUTRAL.npz"):
        assert name in told


def test_import_command_tells_what_it_wrote_and_refuses_by_name(tmp_path):
    np.savez(tmp_path / "model.npz", **model_arrays(52))
    told = CliRunner().invoke(cli, ["body", "import", str(tmp_path / "model.npz"), str(tmp_path / "ours.npz")])
    assert (told.exit_code, told.output.split(": ")[1][:12]) == (0, "300 vertices")
    (tmp_path / "text.pkl").write_text("no pickle")
    told = CliRunner().invoke(cli, ["body", "import", str(tmp_path / "text.pkl"), str(tmp_path / "none.npz")])
    assert (told.exit_code, "text.pkl" in told.output) == (1, True)
    assert not (tmp_path / "none.npz").exists()


def test_import_writes_npz_only_and_leaves_nothing_of_a_failure(tmp_path):
    np.savez(tmp_path / "dmpl.npz", eigvec=np.zeros((6890, 3, 8)))
    with pytest.raises(ValueError, match=r"out.pkl: expected a name that ends in .npz"):
        import_body(tmp_path / "dmpl.npz", tmp_path / "out.pkl")
    with pytest.raises(ValueError, match=r"dmpl.npz: found none of the arrays of a body; without v_template"):
        import_body(tmp_path / "dmpl.npz", tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["dmpl.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kintree_table": np.zeros((2, 16), np.uint32)}, r"found 16 joints, expected 24 \(SMPL\), 52 \(SMPL\+H\), 55"),
        ({"kintree_table": np.zeros((2, 52), np.uint32)}, r"found J_regressor of shape|found weights of shape"),
        ({"kintree_table": np.full((2, 24), 30, np.uint32)}, "found parents .*expected each before its child"),
        ({"kintree_table": np.zeros((2, 24), np.uint32)}, "found parents .*expected SMPL's"),
        ({"posedirs": np.zeros((300, 3, 10))}, r"found posedirs of shape \(300, 3, 10\), expected 300 x 3 x 207"),
        ({"v_template": np.zeros(3)}, r"found v_template of shape \(3,\), expected 3 x 3"),
        ({"shapedirs": np.array([{}], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_model_that_does_not_fit_is_refused_by_name(tmp_path, change, message):
    np.savez(tmp_path / "odd.npz", **model_arrays() | change)
    with pytest.raises(ValueError, match=rf"odd\.npz: .*({message})"):
        load_body(tmp_path / "odd.npz")


def test_array_that_claims_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "large.npz", **model_arrays())
    monkeypatch.setattr("mclip.pipeline.geometry.body_files.LARGEST", 100_000)
    with pytest.raises(ValueError, match=r"large\.npz: posedirs claims .* expected at most"):
        load_body(tmp_path / "large.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": np.arange(52)}, "found 52 joints, expected SMPL's 24"),
        ({"parents": np.roll(PARENTS, 1)}, "found parents .*expected SMPL's"),
        ({"joints": np.zeros((22, 3), np.float32)}, r"found joints of shape \(22, 3\), expected 24 x 3"),
        ({"faces": np.array([[0, 1, 99_999]])}, "faces name vertices 0 to 99999, expected 0 to 1"),
        ({"faces": np.array([[0, 1, -1]])}, "faces name vertices -1 to 1"),
        ({"faces": np.array([[0.0, 1, 2]])}, "found faces of type float64, expected whole numbers"),
        ({"v_template": np.full((1229, 3), np.nan, np.float32)}, "found 3687 values of v_template that are NaN"),
        ({"weights": np.full((1229, 24), 0.5, np.float32)}, "with sums 12 to 12 a vertex"),
        ({"weights": np.ones((7, 24), np.float32)}, r"found weights of shape \(7, 24\)"),
        ({"v_template": np.zeros((0, 3), np.float32)}, r"found v_template of shape \(0, 3\)"),
        ({"weights": np.array([{}], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_body_file_that_does_not_fit_is_refused_by_name(tmp_path, change, message):
    np.savez(tmp_path / "odd.npz", **own_arrays() | change)
    with pytest.raises(ValueError, match=rf"odd\.npz: .*{message}"):
        load_body(tmp_path / "odd.npz")


def test_file_with_other_arrays_is_refused_with_what_is_missing(tmp_path):
    np.savez(tmp_path / "motion.npz", poses=np.zeros((3, 156)), trans=np.zeros((3, 3)))
    with pytest.raises(
        ValueError, match=r"motion\.npz: found none of the arrays of a body; without v_template.*neither a"
    ):
        load_body(tmp_path / "motion.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_broken_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"body file .*broken\.npz: is no .npz archive or is cut short: copy or download it again"
    ):
        load_body(tmp_path / "broken.npz")


def test_truncated_archive_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "whole.npz", **own_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"body file .*cut\.npz: "):
        load_body(tmp_path / "cut.npz")
