import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.body import Body, load_body, skin
from mclip.pipeline.rotations import axis_angle_to_matrix
from mclip.pipeline.skeleton import JOINTS, PARENTS, forward_kinematics


def random_pose(batch: int, *, angle: float = 0.6) -> torch.Tensor:
    return axis_angle_to_matrix(angle * torch.randn(batch, 24, 3, generator=torch.Generator().manual_seed(1)))


def smpl_arrays(*, vertices: int = 300, shapes: int = 10) -> dict[str, np.ndarray]:
    """Arrays of an SMPL file's shapes and types, with random numbers: the licence forbids shipping a real one."""
    rng = np.random.default_rng(0)
    weights = rng.random((vertices, 24)) ** 8
    regressor = rng.random((24, vertices)) ** 4
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "f": rng.integers(0, vertices, (2 * vertices, 3)).astype(np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.stack((np.array(PARENTS) % 2**32, np.arange(24))).astype(np.uint32),
        "shapedirs": 0.02 * rng.normal(size=(vertices, 3, shapes)),
        "posedirs": 0.02 * rng.normal(size=(vertices, 3, 207)),
    }


def own_arrays() -> dict[str, np.ndarray]:
    body = load_body("low")
    return {
        "v_template": body.v_template_V3.numpy(), "faces": body.faces_F3.int().numpy(),
        "joints": body.joints_J3.numpy(), "weights": body.weights_VJ.numpy(), "parents": np.array(PARENTS, np.int32),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "fewest", "most"), [("default", 12_000, 15_000), ("low", 1_000, 1_400)])
def test_embedded_body_is_an_adult_in_t_pose(name, fewest, most):
    body = load_body(name)
    span = body.v_template_V3.amax(0) - body.v_template_V3.amin(0)
    assert fewest < len(body.v_template_V3) < most
    assert 1.5 < span[1] < 1.9
    assert 1.4 < span[0] < 2.0
    left_wrist = body.joints_J3[JOINTS.index("left_wrist")]
    assert left_wrist[0] > 0.5
    torch.testing.assert_close(body.weights_VJ.sum(1), torch.ones(len(body.v_template_V3)))


def test_embedded_body_faces_point_outwards():
    body = load_body()
    corners = body.v_template_V3[body.faces_F3]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.12  # cubic metres: an adult; negative where faces point inwards


def test_rest_pose_gives_the_template():
    body = load_body("low")
    vertices = body.pose(torch.eye(3).expand(2, 24, 3, 3))
    torch.testing.assert_close(vertices, body.v_template_V3.expand(2, -1, -1), atol=1e-6, rtol=0)


def test_translation_is_added_to_the_posed_body():
    body, rotmat = load_body("low"), random_pose(3)
    trans = torch.tensor([[1.0, 2, 3], [0, 0, 0], [-5, 0.5, 9]])
    torch.testing.assert_close(body.pose(rotmat, trans_B3=trans), body.pose(rotmat) + trans[:, None], atol=1e-5, rtol=0)


def test_root_rotation_turns_the_body_about_its_pelvis():
    body = load_body("low")
    rotmat = torch.eye(3).repeat(1, 24, 1, 1)
    rotmat[:, 0] = turn = axis_angle_to_matrix(torch.tensor([math.pi / 2, 0.0, 0.0]))
    pelvis = body.joints_J3[0]
    expected = (body.v_template_V3 - pelvis) @ turn.T + pelvis
    torch.testing.assert_close(body.pose(rotmat)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["default", "low"])
def test_compiled_skinning_equals_the_torch_one(name):
    body, rotmat = load_body(name), random_pose(3, angle=1.0)
    trans = torch.randn(3, 3)
    dense = skin(body.v_template_V3[None], body.weights_VJ, body._affine(rotmat)) + trans[:, None]
    torch.testing.assert_close(body.pose(rotmat, trans_B3=trans), dense, atol=1e-5, rtol=0)


def test_skinning_agrees_with_a_loop_over_vertices_and_joints():
    body, rotmat = load_body("low"), random_pose(1)
    world, position = forward_kinematics(rotmat, body.joints_J3)
    for v in range(0, len(body.v_template_V3), 97):
        expected = torch.zeros(3)
        for j in range(24):
            moved = world[0, j] @ (body.v_template_V3[v] - body.joints_J3[j]) + position[0, j]
            expected += body.weights_VJ[v, j] * moved
        torch.testing.assert_close(body.pose(rotmat)[0, v], expected, atol=1e-5, rtol=0)


def test_posed_item_of_a_batch_equals_that_item_alone():
    body, rotmat = load_body("low"), random_pose(5)
    together = body.pose(rotmat)
    for item in range(5):
        torch.testing.assert_close(body.pose(rotmat[item : item + 1])[0], together[item], atol=1e-6, rtol=0)


def test_gradients_flow_to_rotations_and_translation():
    body = load_body("low")
    rotmat = random_pose(2).requires_grad_()
    trans = torch.zeros(2, 3, requires_grad=True)
    body.pose(rotmat, trans_B3=trans).sum().backward()
    torch.testing.assert_close(trans.grad, torch.full((2, 3), float(len(body.v_template_V3))))
    assert rotmat.grad[:, 1:22].abs().amax((2, 3)).min() > 0


def test_joints_move_with_the_body():
    body, rotmat = load_body("low"), random_pose(2)
    expected = forward_kinematics(rotmat, body.joints_J3, root_B3=torch.ones(2, 3))[1]
    torch.testing.assert_close(body.pose_joints(rotmat, trans_B3=torch.ones(2, 3)), expected)


def test_fingerprint_names_the_arrays_and_nothing_else(tmp_path):
    body = load_body("low")
    arrays = own_arrays()
    np.savez(tmp_path / "same.npz", **arrays)
    arrays["v_template"] = arrays["v_template"] + np.float32(1e-6)
    np.savez(tmp_path / "other.npz", **arrays)
    prints = [load_body(tmp_path / name).fingerprint for name in ("same.npz", "other.npz")]
    assert prints[0] == load_body(tmp_path / "same.npz").fingerprint
    assert prints[0] != prints[1]
    assert len(body.fingerprint) == 64


def smpl_body(folder: Path) -> tuple[Body, dict[str, np.ndarray]]:
    arrays = smpl_arrays()
    np.savez(folder / "SMPL.npz", **arrays)
    return load_body(folder / "SMPL.npz"), arrays


def test_smpl_file_is_posed_as_smplx_poses_it(tmp_path):
    lbs = pytest.importorskip("smplx.lbs")
    body, arrays = smpl_body(tmp_path)
    rotmat, betas = random_pose(4), torch.randn(10, generator=torch.Generator().manual_seed(2))
    tensors = {
        key: torch.from_numpy(value.astype(np.float32)) for key, value in arrays.items() if key != "kintree_table"
    }
    posedirs = tensors["posedirs"].reshape(-1, 207).T
    parents = torch.tensor(PARENTS)
    theirs, joints = lbs.lbs(
        betas.expand(4, -1), rotmat, tensors["v_template"].expand(4, -1, -1), tensors["shapedirs"], posedirs,
        tensors["J_regressor"], parents, tensors["weights"], pose2rot=False,
    )  # fmt: skip
    shaped = body.shaped(betas)
    torch.testing.assert_close(shaped.pose(rotmat), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(shaped.pose_joints(rotmat), joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(shaped.pose(rotmat.requires_grad_()).detach(), theirs, atol=1e-5, rtol=0)


def test_betas_for_a_body_without_shape_directions_are_refused():
    with pytest.raises(ValueError, match="low has no shape directions"):
        load_body("low").shaped(torch.zeros(10))


def test_more_betas_than_the_body_has_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found 16 betas, expected at most 10"):
        smpl_body(tmp_path)[0].shaped(torch.zeros(16))


def test_pickle_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL.pkl: found a pickle.*numpy.savez"):
        load_body(tmp_path / "SMPL_NEUTRAL.pkl")


def test_missing_file_is_refused_with_the_known_names(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file; expected "default", "low" or the path'):
        load_body(tmp_path / "nothing.npz")


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
    with pytest.raises(ValueError, match=r"motion\.npz: found poses, trans; without .*v_template.*neither a body"):
        load_body(tmp_path / "motion.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_broken_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"body file .*broken\.npz: "):
        load_body(tmp_path / "broken.npz")


def test_truncated_archive_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "whole.npz", **own_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"body file .*cut\.npz: "):
        load_body(tmp_path / "cut.npz")
