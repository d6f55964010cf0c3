"""Write a motion as other programs write theirs in BVH: their names, joints, axes at rest, Euler orders, units and up.

    python -m mclip.workflows.make_bvh_like MOTION.npz FOLDER

Only shapes of files are theirs, the motion is what is given: for tests, and where no real file may be had.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.prepare.sources import read_recording
from mclip.pipeline.skeletons.frames import rest_places
from mclip.pipeline.skeletons.solve import UPS

# Joints that names are given for: pelvis, three of the spine, neck, head; then of the left leg and the left arm.
TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
LIMBS = ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")
MIXAMO = "Hips Spine Spine1 Spine2 Neck Head", "~UpLeg ~Leg ~Foot ~ToeBase ~Shoulder ~Arm ~ForeArm ~Hand"
X, Y, Z = np.eye(3)


def columns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A joint's axes by the directions in which two of them point while the body stands as SMPL at rest."""
    return np.stack((x, y, np.cross(x, y)), axis=1)


def along_bones(side_z: float = 1.0) -> dict[str, np.ndarray]:
    """x along every bone, as LAFAN1 (z of the trunk to the left) and ACCAD (to the right) have it."""
    axes = {joint: columns(Y, Z if side_z > 0 else -Z) for joint in TRUNK}
    for side, out in (("left", X), ("right", -X)):
        axes |= {f"{side}_{joint}": columns(-Y, -Z) for joint in ("hip", "knee")}
        axes |= {f"{side}_{joint}": columns(Z, -Y) for joint in ("ankle", "foot")}
        axes |= {f"{side}_{joint}": columns(out, Z) for joint in ("collar", "shoulder", "elbow", "wrist")}
    return axes


def random_axes(seed: int) -> dict[str, np.ndarray]:
    """Axes of every joint turned at random: a rest pose like a dropped puppet's."""
    turns = Rotation.random(len(JOINTS), rng=np.random.default_rng(seed)).as_matrix()
    return dict(zip(JOINTS, turns, strict=True))


def arms_at(degrees: float) -> dict[str, np.ndarray]:
    """Arms that hang down by so much at rest."""
    axes = {}
    for side, sign in (("left", 1), ("right", -1)):
        turn = Rotation.from_euler("z", sign * degrees, degrees=True).as_matrix()
        axes |= {f"{side}_{joint}": turn for joint in ("shoulder", "elbow", "wrist")}
    return axes


@dataclass(frozen=True)
class Form:
    """How a program writes BVH: `~` in a limb's name stands for the side, in one of the two words of `sides`."""

    trunk: str = MIXAMO[0]
    limbs: str = MIXAMO[1]
    sides: tuple[str, str] = ("Left", "Right")
    axes: Mapping[str, np.ndarray] = field(default_factory=dict)
    order: str = "ZXY"
    up: str = "y"
    unit: float = 0.01  # metres
    six: bool = False  # position channels on every joint
    without: tuple[str, ...] = ()
    above: str = ""  # a still root above the hips
    longer: Mapping[str, float] = field(default_factory=dict)  # bones by the joint at their end
    fps: float = 30.0
    right_first: bool = False  # children in the other order
    turned_offsets: bool = False  # three angles behind the three numbers of an OFFSET
    number: Callable[[float], str] = "{:.6f}".format

    @property
    def names(self) -> dict[str, str]:
        """The names of SMPL's joints in this form; `-` is a joint that it has not."""
        names = dict(zip(TRUNK, self.trunk.split(" "), strict=True))
        for side, word in zip(("left", "right"), self.sides, strict=True):
            limbs = (each.replace("~", word).replace("%", " ") for each in self.limbs.split(" "))
            names |= dict(zip((f"{side}_{each}" for each in LIMBS), limbs, strict=True))
        names = {joint: name.replace("%", " ") for joint, name in names.items()}
        return {joint: name for joint, name in names.items() if name != "-" and joint not in self.without}


def soma_axes() -> dict[str, np.ndarray]:
    """x along every bone of the trunk and the left side, against it on the right: as SOMA's zero pose has it."""
    axes = along_bones()
    return {joint: turn @ np.diag([-1, 1, -1]) if joint.startswith("right") else turn for joint, turn in axes.items()}


ALONG, ACCAD = along_bones(), along_bones(-1.0)
FORMS = {
    "Mixamo": Form(*("mixamorig:" + names.replace(" ", " mixamorig:") for names in MIXAMO)),
    "Mixamo by Blender, z up, six channels": Form(six=True, up="z", unit=1.0, order="XYZ"),
    "CMU, MotionBuilder": Form(
        "Hips LowerBack Spine Spine1 Neck Head", longer={"left_hip": 6.0, "right_hip": 6.0}, unit=0.0564
    ),
    "CMU, Daz": Form(
        "hip abdomen - chest neck head", "~Thigh ~Shin ~Foot ~Toe ~Collar ~Shldr ~ForeArm ~Hand", ("l", "r")
    ),
    "Daz Genesis 8": Form(
        "hip abdomenLower abdomenUpper chestLower neckLower head",
        "~ThighBend ~Shin ~Foot ~Toe ~Collar ~ShldrBend ~ForearmBend ~Hand",
        ("l", "r"),
        order="YZX",
    ),
    "3ds Max Biped": Form(
        "Bip01%Pelvis Bip01%Spine Bip01%Spine1 Bip01%Spine2 Bip01%Neck Bip01%Head",
        "Bip01%~%Thigh Bip01%~%Calf Bip01%~%Foot Bip01%~%Toe0 Bip01%~%Clavicle Bip01%~%UpperArm "
        "Bip01%~%Forearm Bip01%~%Hand",
        ("L", "R"),
        ALONG,
        six=True,
        above="Bip01",
    ),
    "VRM, Unity": Form(
        "J_Bip_C_Hips J_Bip_C_Spine J_Bip_C_Chest J_Bip_C_UpperChest J_Bip_C_Neck J_Bip_C_Head",
        "J_Bip_~_UpperLeg J_Bip_~_LowerLeg J_Bip_~_Foot J_Bip_~_ToeBase J_Bip_~_Shoulder J_Bip_~_UpperArm "
        "J_Bip_~_LowerArm J_Bip_~_Hand",
        ("L", "R"),
        unit=1.0,
    ),
    "Unity, bones along x": Form(axes=ACCAD, order="ZYX", unit=1.0),
    "Unreal": Form(
        "pelvis spine_01 spine_02 spine_03 neck_01 head",
        "thigh_~ calf_~ foot_~ ball_~ clavicle_~ upperarm_~ lowerarm_~ hand_~",
        ("l", "r"),
        ALONG,
        up="z",
        above="root",
    ),
    "Rigify": Form(
        "spine spine.001 spine.002 spine.003 spine.004 head",
        "thigh.~ shin.~ foot.~ toe.~ shoulder.~ upper_arm.~ forearm.~ hand.~",
        ("L", "R"),
        arms_at(45.0),
        up="z",
        unit=1.0,
    ),
    "Second Life": Form(
        "mPelvis mTorso - mChest mNeck mHead",
        "mHip~ mKnee~ mAnkle~ mFoot~ mCollar~ mShoulder~ mElbow~ mWrist~",
        order="XZY",
        unit=0.0254,
    ),
    "Xsens MVN": Form(
        "Hips Chest Chest2 Chest3 Neck Head",
        "~Hip ~Knee ~Ankle ~Toe ~Collar ~Shoulder ~Elbow ~Wrist",
        order="YXZ",
        fps=40.0,
    ),
    "Azure Kinect": Form(
        "PELVIS SPINE_NAVAL - SPINE_CHEST NECK HEAD",
        "HIP_~ KNEE_~ ANKLE_~ FOOT_~ CLAVICLE_~ SHOULDER_~ ELBOW_~ WRIST_~",
        ("LEFT", "RIGHT"),
        ALONG,
        up="-y",
        unit=0.001,
    ),
    "SOMA": Form(
        "Hips Spine1 Spine2 Chest Neck1 Head",
        "~Leg ~Shin ~Foot ~ToeBase ~Shoulder ~Arm ~ForeArm ~Hand",
        axes=soma_axes(),
        order="ZYX",
        six=True,
        above="Root",
        turned_offsets=True,
        fps=120.0,
    ),
    "SMPL": Form(
        "Pelvis Spine1 Spine2 Spine3 Neck Head",
        "~_Hip ~_Knee ~_Ankle ~_Foot ~_Collar ~_Shoulder ~_Elbow ~_Wrist",
        ("L", "R"),
        unit=1.0,
    ),
    "ASF names, z up": Form(
        "root lowerback upperback thorax lowerneck head",
        "~femur ~tibia ~foot ~toes ~clavicle ~humerus ~radius ~wrist",
        ("l", "r"),
        ALONG,
        up="z",
    ),
    "Biovision": Form(
        "Hips Chest - - Neck Head", "~Hip ~Knee ~Ankle ~Toe ~Collar ~Shoulder ~Elbow ~Wrist", order="ZXY", unit=0.0254
    ),
    "Biovision, old libraries": Form(
        "Hips Chest - - Neck Head", "~UpLeg ~LowLeg ~Foot ~Toe ~Collar ~UpArm ~LowArm ~Hand"
    ),
    "Rokoko": Form(
        "Hips Spine1 Spine2 Spine3 Neck Head",
        "~Thigh ~Shin ~Foot ~Toe ~Shoulder ~Arm ~ForeArm ~Hand",
        axes={
            k: v for k, v in ALONG.items() if not any(leg in k for leg in ("pelvis", "hip", "knee", "ankle", "foot"))
        },
    ),
    "Character Creator": Form(
        "CC_Base_Hip CC_Base_Waist CC_Base_Spine01 CC_Base_Spine02 CC_Base_NeckTwist01 CC_Base_Head",
        "CC_Base_~_Thigh CC_Base_~_Calf CC_Base_~_Foot CC_Base_~_ToeBase CC_Base_~_Clavicle "
        "CC_Base_~_Upperarm CC_Base_~_Forearm CC_Base_~_Hand",
        ("L", "R"),
        arms_at(30.0),
        unit=1.0,
    ),
    "LAFAN1": Form(axes=ALONG, order="ZYX", limbs=MIXAMO[1].replace("ToeBase", "Toe")),
    "ACCAD": Form("Hips ToSpine Spine Spine1 Neck Head", axes=ACCAD, order="ZXY"),
    "Bandai-Namco": Form(
        "Hips Spine - Chest Neck Head",
        "UpperLeg_~ LowerLeg_~ Foot_~ Toes_~ Shoulder_~ UpperArm_~ LowerArm_~ Hand_~",
        ("L", "R"),
        ALONG,
        six=True,
        above="joint_Root",
    ),
    "SFU, z up": Form(up="z", longer={"left_hip": 4.0, "right_hip": 4.0}),
    "Axis Neuron": Form("Hips Spine Spine1 Spine2 Neck Head", six=True, order="YXZ", fps=125.0),
    "Autodesk Advanced Skeleton": Form(
        "Root_M Spine1_M Spine2_M Chest_M Neck_M Head_M",
        "Hip_~ Knee_~ Ankle_~ Toes_~ Scapula_~ Shoulder_~ Elbow_~ Wrist_~",
        ("L", "R"),
        order="XYZ",
    ),
    "MakeHuman": Form(
        "root spine05 spine03 spine01 neck01 head",
        "upperleg01.~ lowerleg01.~ foot.~ toe1-1.~ clavicle.~ upperarm01.~ lowerarm01.~ wrist.~",
        ("L", "R"),
        arms_at(40.0),
        unit=0.1,
    ),
    "PyMO, no neck": Form("Hips Spine Spine1 Spine2 - Head"),
    "no collars": Form(
        "Hips Spine Chest UpperChest Neck Head", "~UpperLeg ~LowerLeg ~Foot ~Toe - ~UpperArm ~LowerArm ~Hand"
    ),
    "names that say nothing": Form("b0 b1 b2 b3 b4 b5", "~10 ~11 ~12 ~13 ~20 ~21 ~22 ~23", ("p", "q"), ALONG),
    "a puppet's rest": Form(axes=random_axes(0)),
}


def bvh_text(form: Form, local_TJ33: np.ndarray, root_T3: np.ndarray) -> str:
    """A motion (local turns and the pelvis's places, z up, metres) in a form; what it has no joint for is left out."""
    names, rest = form.names, rest_places()
    axes = {joint: form.axes.get(joint, np.eye(3)) for joint in names}
    lines, tracks = ["HIERARCHY"], [np.zeros((len(root_T3), 0))]
    turn = UPS[form.up].T

    def parent_of(joint: str) -> str:
        up = JOINTS[PARENTS[JOINTS.index(joint)]]
        return up if up in names else parent_of(up)

    def offset(joint: str) -> np.ndarray:
        up = parent_of(joint)
        bone = (rest[joint] - rest[up]) / form.unit
        if joint in form.longer:
            bone = bone * [1, form.longer[joint], 1]
        return axes[up].T @ bone

    def add(joint: str, up: str) -> None:
        local = local_TJ33[:, JOINTS.index(joint)]
        local = axes[up].T @ local @ axes[joint] if up else turn @ local @ axes[joint]
        bone = offset(joint) if up else np.zeros(3)
        place = np.broadcast_to(bone, root_T3.shape) if up else root_T3 @ turn.T / form.unit
        open_joint(names[joint], bone, moving=form.six or not up)
        tracks.extend([place] * (form.six or not up) + [Rotation.from_matrix(local).as_euler(form.order, degrees=True)])
        below = [each for each in JOINTS if each in names and each != "pelvis" and parent_of(each) == joint]
        below = below[::-1] if form.right_first else below
        for each in below:
            add(each, joint)
        if not below:
            lines.extend(["End Site", "{", "OFFSET 0.0 0.0 0.0", "}"])
        lines.append("}")

    def open_joint(name: str, bone: np.ndarray, *, moving: bool) -> None:
        word = "JOINT" if len(lines) > 1 else "ROOT"
        numbers = " ".join(map(form.number, [*bone, *[0.0, 0.0, 90.0][: 3 * form.turned_offsets]]))
        channels = ["Xposition", "Yposition", "Zposition"] * moving + [f"{axis}rotation" for axis in form.order]
        lines.extend([f"{word} {name}", "{", f"OFFSET {numbers}", f"CHANNELS {len(channels)} {' '.join(channels)}"])

    if form.above:
        open_joint(form.above, np.zeros(3), moving=True)
        tracks.append(np.zeros((len(root_T3), 6)))
    add("pelvis", "")
    lines += ["}"] * bool(form.above)
    rows = np.concatenate(tracks, axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / form.fps:.6f}"]
    lines += [" ".join(map(form.number, row)) for row in rows]
    return "\n".join(lines) + "\n"


def still_without(form: Form, local_TJ33: np.ndarray) -> np.ndarray:
    """The motion without the turns of joints that a form lacks: what its file can tell at most."""
    names = form.names
    still = local_TJ33.copy()
    still[:, [j for j, joint in enumerate(JOINTS) if joint not in names]] = np.eye(3)
    return still


@click.command()
@click.argument("motion", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(motion: Path, folder: Path) -> None:
    """Write MOTION into FOLDER in every form."""
    recording = read_recording(motion)
    local = axis_angle_to_matrix(torch.from_numpy(recording.poses_TJ3)).numpy()
    root = recording.trans_T3 + rest_places()["pelvis"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FORMS.items():
        text = bvh_text(form, still_without(form, local), root)
        (folder / f"{name.replace(' ', '_').replace(',', '')}.bvh").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
