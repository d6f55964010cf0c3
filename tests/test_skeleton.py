"""Forward kinematics against a naive twin, and the mirror of the joints."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.geometry.skeleton import JOINTS, MIRRORED, PARENTS, forward_kinematics
from mclip.pipeline.skeletons.frames import rest_joints


def naive_positions(matrix_J33: np.ndarray, rest_J3: np.ndarray) -> np.ndarray:
    """World positions by walking from every joint up to the root."""
    found = []
    for joint in range(24):
        point, at = np.zeros(3), joint
        while PARENTS[at] >= 0:
            point = matrix_J33[PARENTS[at]] @ (point + rest_J3[at] - rest_J3[PARENTS[at]])
            at = PARENTS[at]
        found.append(point + rest_J3[0])
    return np.array(found)


def test_forward_kinematics_equals_a_walk_from_every_joint_to_the_root():
    rest = rest_joints()
    matrix = Rotation.random(3 * 24, random_state=0).as_matrix().reshape(3, 24, 3, 3)
    root = torch.tensor([[1.0, 2, 3], [0, 0, 0], [-1, 0, 5]], dtype=torch.float64)
    world, position = forward_kinematics(torch.from_numpy(matrix), rest, root_B3=root)
    for frame in range(3):
        expected = naive_positions(matrix[frame], rest.numpy()) + root[frame].numpy()
        assert np.abs(position[frame].numpy() - expected).max() < 1e-12
    chain = matrix[0, 0] @ matrix[0, 1] @ matrix[0, 4]  # pelvis, left hip, left knee
    assert np.abs(world[0, 4].numpy() - chain).max() < 1e-12


def test_rest_pose_stays_where_it_is():
    rest = rest_joints()
    _, position = forward_kinematics(torch.eye(3, dtype=torch.float64).expand(24, 3, 3), rest)
    assert (position - rest).abs().max() < 1e-15


def test_parents_come_before_their_children_and_mirroring_twice_changes_nothing():
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    assert [MIRRORED[joint] for joint in MIRRORED] == list(range(24))
    assert JOINTS[MIRRORED[JOINTS.index("left_wrist")]] == "right_wrist"
    assert MIRRORED[JOINTS.index("spine2")] == JOINTS.index("spine2")
    # The mirror of a joint's parent is the parent of its mirror.
    assert all(PARENTS[MIRRORED[joint]] == MIRRORED[PARENTS[joint]] for joint in range(1, 24))
