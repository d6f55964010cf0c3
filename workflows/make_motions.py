"""Convert the 20 human clips of DeepMimic, as pybullet 3.2.7 ships them, into AMASS SMPL+H files.

    pip download --no-deps pybullet==3.2.7 && unzip pybullet-3.2.7-*.whl 'pybullet_data/data/motions/*'
    python workflows/make_motions.py pybullet_data

writes pipeline/assets/motions/EMBEDDED/<clip>/<clip>_poses.npz. Run workflows/make_body.py first: the body's legs set
the scale and its skin finds the floor. workflows/records/embedded.md holds the measured figures.
"""

# T frames, J joints (24, SMPL's), V vertices

import json
from pathlib import Path

import click
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, minimum_filter1d
from scipy.spatial.transform import Rotation

from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics

DATA = ASSETS
CLIPS = {
    name: f"humanoid3d_{name}.txt"
    for name in (
        "backflip",
        "cartwheel",
        "crawl",
        "dance_a",
        "dance_b",
        "getup_facedown",
        "getup_faceup",
        "jump",
        "kick",
        "punch",
        "roll",
        "run",
        "spin",
        "spinkick",
        "walk",
    )
} | {
    "walk_forward": "walker/0walk_forward.txt",
    "turn_left_0": "walker/turn_left0.txt",
    "turn_left_1": "walker/turn_left1.txt",
    "turn_right_0": "walker/turn_right0.txt",
    "turn_right_1": "walker/turn_right1.txt",
}

# DeepMimic: x forward, y up, z to the right. SMPL: x to the left, y up, z forward.
DEEPMIMIC_TO_SMPL = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
# AMASS worlds are z up: SMPL's y becomes z, and a body at rest faces -y.
SMPL_TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
# DeepMimic's arms hang at rest, SMPL's point sideways: a quarter turn about the forward axis lets them hang.
LET_HANG = {"left": Rotation.from_rotvec([0, 0, -np.pi / 2]), "right": Rotation.from_rotvec([0, 0, np.pi / 2])}
# Columns of a frame of 44 numbers: seconds, root position, then quaternions (w, x, y, z), and one angle a hinge.
ROOT_POSITION, ROOT, CHEST, NECK = slice(1, 4), 4, 8, 12
HIP, KNEE, ANKLE, SHOULDER, ELBOW = 0, 4, 5, 9, 13
LEG_AND_ARM = {"right": 16, "left": 30}
# humanoid3d's thigh, shank, and ankle above the sole.
DEEPMIMIC_HIP_HEIGHT = 0.421546 + 0.409870 + 0.05
FINGER_THICKNESS = 0.01
# Radians and metres: a hundredth of a millimetre, and the files are a fifth smaller than with one more.
DECIMALS = 5


def read_clip(path: Path) -> np.ndarray:
    """Frames (T, 44) of a DeepMimic file."""
    frames = np.array(json.loads(path.read_text())["Frames"], dtype=float)
    if frames.ndim != 2 or frames.shape[1] != 44 or not np.isfinite(frames).all():
        raise ValueError(f"{path}: found frames of shape {frames.shape}, expected (T, 44) finite numbers")
    return frames


def frame_rate(frames: np.ndarray) -> float:
    """Frames a second. The last frame has no duration, and roll gives one frame 33 ms amid 17 ms at an even pace."""
    return 1 / float(np.median(frames[:-1, 0]))


def to_smpl_axes(rotation: Rotation) -> Rotation:
    """The same rotation of the body, told in SMPL's axes."""
    return Rotation.from_matrix(DEEPMIMIC_TO_SMPL @ rotation.as_matrix() @ DEEPMIMIC_TO_SMPL.T)


def ball(frames: np.ndarray, column: int) -> Rotation:
    """T rotations of a ball joint, SMPL axes, from the quaternion that starts at `column`."""
    return to_smpl_axes(Rotation.from_quat(frames[:, column : column + 4], scalar_first=True))


def hinge(frames: np.ndarray, column: int) -> Rotation:
    """T rotations of a knee or an elbow, SMPL axes: an angle about DeepMimic's z."""
    return to_smpl_axes(Rotation.from_rotvec(frames[:, column, None] * [0.0, 0, 1]))


def body_rotations(frames: np.ndarray) -> dict[str, Rotation]:
    """Local SMPL rotations by joint; joints that DeepMimic lacks (collars, feet, wrists, hands) stay at rest."""
    local = {"pelvis": Rotation.from_matrix(SMPL_TO_WORLD) * ball(frames, ROOT)}
    # One chest joint is shared out over three of the spine, one neck joint over neck and head.
    local |= dict.fromkeys(("spine1", "spine2", "spine3"), ball(frames, CHEST) ** (1 / 3))
    local |= dict.fromkeys(("neck", "head"), ball(frames, NECK) ** (1 / 2))
    for side, start in LEG_AND_ARM.items():
        hang = LET_HANG[side]
        local[f"{side}_hip"] = ball(frames, start + HIP)
        local[f"{side}_knee"] = hinge(frames, start + KNEE)
        local[f"{side}_ankle"] = ball(frames, start + ANKLE)
        local[f"{side}_shoulder"] = ball(frames, start + SHOULDER) * hang
        local[f"{side}_elbow"] = hang.inv() * hinge(frames, start + ELBOW) * hang
    return local


def axis_angles(local: dict[str, Rotation], frame_count: int) -> np.ndarray:
    """Axis-angle (T, J, 3) in radians, at most pi, of local rotations by joint name."""
    rest = Rotation.identity(frame_count)
    return np.stack([local.get(joint, rest).as_rotvec() for joint in JOINTS], axis=1)


def pelvis_path(frames: np.ndarray, root: Rotation, body: dict[str, np.ndarray]) -> np.ndarray:
    """Pelvis positions (T, 3) in metres, world z up, before the floor is found.

    DeepMimic's root is the middle of the hips. Its path is scaled by the ratio of hip heights, so steps keep their
    proportion to the legs and feet that stand still keep standing still.
    """
    pelvis, hips = body["joints"][0], body["joints"][1:3].mean(0)
    scale = (hips[1] - body["v_template"][:, 1].min()) / DEEPMIMIC_HIP_HEIGHT
    path = scale * frames[:, ROOT_POSITION] @ DEEPMIMIC_TO_SMPL.T @ SMPL_TO_WORLD.T
    return path - root.apply(hips - pelvis)


def lowest_point(pose_TJ3: np.ndarray, body: dict[str, np.ndarray]) -> np.ndarray:
    """Height (T) in metres of the lowest vertex but the hands', the pelvis being the origin of a z-up world."""
    joints_J3 = torch.from_numpy(body["joints"] - body["joints"][0]).double()
    world_TJ33, position_TJ3 = forward_kinematics(axis_angle_to_matrix(torch.from_numpy(pose_TJ3)), joints_J3)
    weights_VJ = torch.from_numpy(body["weights"]).double()
    # DeepMimic's hands are balls of 4 cm at the wrists: ours are longer and bend out of the floor later.
    kept = weights_VJ[:, 20:].sum(1) < 0.5
    weights_VJ, vertices_V3 = weights_VJ[kept], torch.from_numpy(body["v_template"] - body["joints"][0])[kept].double()
    up_TJ3 = world_TJ33[:, :, 2]
    rest_up_TJ = position_TJ3[..., 2] - (up_TJ3 * joints_J3).sum(-1)
    height_TV = torch.einsum("vj,tja,va->tv", weights_VJ, up_TJ3, vertices_V3) + rest_up_TJ @ weights_VJ.T
    return height_TV.min(1).values.numpy()


def floor_height(clearance: np.ndarray, fps: float) -> np.ndarray:
    """Height (T) in metres to take off so that the body rests on the floor, from its lowest point over time.

    One number a clip, its standing contact, keeps jumps as high as they are. Where skin thicker than DeepMimic's
    capsules would sink deeper (lying, rolling), the floor gives way, smoothly in time.
    """
    contact = np.percentile(clearance, 30)
    sunk = minimum_filter1d(np.minimum(clearance - contact, 0), round(0.1 * fps) * 2 + 1, mode="nearest")
    return contact + gaussian_filter1d(sunk, 0.1 * fps, mode="nearest")


def bend_wrists(pose_TJ3: np.ndarray, pelvis_T3: np.ndarray, *, body: dict[str, np.ndarray], fps: float) -> None:
    """Bend the wrists of `pose_TJ3`, in place, just so far that no fingertip is under the floor.

    DeepMimic has no wrists: a hand that carries weight would else run straight on through the floor.
    """
    joints_J3 = torch.from_numpy(body["joints"] - body["joints"][0]).double()
    world_TJ33, position_TJ3 = (
        x.numpy() for x in forward_kinematics(axis_angle_to_matrix(torch.from_numpy(pose_TJ3)), joints_J3)
    )
    reach = np.abs(body["v_template"][:, 0]).max() - body["joints"][20, 0]
    # Least bend first: the first angle that clears the floor is the one to take.
    angles_A = np.radians(sorted(range(-60, 86), key=abs))
    for wrist, sign in ((20, 1), (21, -1)):
        up_T3 = world_TJ33[:, wrist, 2]
        along_T, back_T = sign * up_T3[:, 0, None], up_T3[:, 1, None]
        tip_TA = reach * (np.cos(angles_A) * along_T + np.sin(angles_A) * back_T)
        tip_TA += (position_TJ3[:, wrist, 2] + pelvis_T3[:, 2])[:, None]
        clear_TA = tip_TA > FINGER_THICKNESS
        best_T = np.where(clear_TA.any(1), clear_TA.argmax(1), tip_TA.argmax(1))
        pose_TJ3[:, wrist, 2] = sign * gaussian_filter1d(angles_A[best_T], 0.06 * fps, mode="nearest")


def convert(frames: np.ndarray, body: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One clip in AMASS's SMPL+H layout, at its own frame rate."""
    local, fps = body_rotations(frames), frame_rate(frames)
    pose_TJ3 = axis_angles(local, len(frames))
    pelvis_T3 = pelvis_path(frames, local["pelvis"], body)
    clearance = pelvis_T3[:, 2] + lowest_point(pose_TJ3, body)
    pelvis_T3[:, 2] -= floor_height(clearance, fps)
    bend_wrists(pose_TJ3, pelvis_T3, body=body, fps=fps)
    return amass_arrays(pose_TJ3, pelvis_T3 - body["joints"][0], fps)


def amass_arrays(pose_TJ3: np.ndarray, trans_T3: np.ndarray, fps: float) -> dict[str, np.ndarray]:
    """A motion in AMASS's SMPL+H layout, with hands at rest, from axis-angle rotations and translations in metres."""
    poses = np.zeros((len(pose_TJ3), 156))
    poses[:, :66] = pose_TJ3[:, :22].reshape(-1, 66)
    return {
        "poses": poses.round(DECIMALS),
        "trans": trans_T3.round(DECIMALS),
        "betas": np.zeros(16),
        "gender": np.array("neutral"),
        "mocap_framerate": np.array(fps),
    }


def source_directions(frames: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Where DeepMimic's limbs point (T, 3), world z up, by our joints: its own chain, hinges about z, no SMPL in it."""

    def quaternion(column: int) -> Rotation:
        return Rotation.from_quat(frames[:, column : column + 4], scalar_first=True)

    def bend(column: int) -> Rotation:
        return Rotation.from_rotvec(frames[:, column, None] * [0.0, 0, 1])

    down, root = np.array([0.0, -1, 0]), quaternion(ROOT)
    found = {}
    for side, start in LEG_AND_ARM.items():
        thigh, upper = root * quaternion(start + HIP), root * quaternion(CHEST) * quaternion(start + SHOULDER)
        found[f"{side}_hip", f"{side}_knee"] = thigh.apply(down)
        found[f"{side}_knee", f"{side}_ankle"] = (thigh * bend(start + KNEE)).apply(down)
        found[f"{side}_shoulder", f"{side}_elbow"] = upper.apply(down)
        found[f"{side}_elbow", f"{side}_wrist"] = (upper * bend(start + ELBOW)).apply(down)
    return {bone: way @ DEEPMIMIC_TO_SMPL.T @ SMPL_TO_WORLD.T for bone, way in found.items()}


def direction_error(frames: np.ndarray, poses: np.ndarray, *, joints_J3: np.ndarray) -> np.ndarray:
    """Angles (bones, T) in degrees between DeepMimic's limbs and those of the converted clip."""
    rotmat = axis_angle_to_matrix(torch.from_numpy(np.pad(poses[:, :66], ((0, 0), (0, 6))).reshape(-1, 24, 3)))
    position_TJ3 = forward_kinematics(rotmat, torch.from_numpy(joints_J3).double())[1].numpy()
    errors = []
    for (start, end), wanted_T3 in source_directions(frames).items():
        bone_T3 = position_TJ3[:, JOINTS.index(end)] - position_TJ3[:, JOINTS.index(start)]
        sine = np.linalg.norm(np.cross(bone_T3, wanted_T3), axis=1)
        errors.append(np.degrees(np.arctan2(sine, (bone_T3 * wanted_T3).sum(1))))
    return np.array(errors)


@click.command(help=__doc__)
@click.argument("pybullet_data", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(pybullet_data: Path) -> None:
    with np.load(DATA / "body.npz") as archive:
        body = dict(archive)
    for clip, file in CLIPS.items():
        frames = read_clip(pybullet_data / "data" / "motions" / file)
        motion = convert(frames, body)
        folder = DATA / "motions" / "EMBEDDED" / clip
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{clip}_poses.npz", **motion)
        error = direction_error(frames, motion["poses"], joints_J3=body["joints"])
        click.echo(
            f"{clip}: {len(frames)} frames at {motion['mocap_framerate']:.3f} fps, limbs within "
            f"{error.max():.4f} degrees of the source"
        )


if __name__ == "__main__":
    main()
