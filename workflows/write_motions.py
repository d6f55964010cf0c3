"""Write the everyday motions that mclip ships from the key poses in pipeline/assets/everyday/keys.toml.

    python workflows/write_motions.py

writes EVERYDAY/<clip>/<clip>_poses.npz in AMASS's SMPL+H layout and babel/train.json beside the keys. Nobody was
recorded for them: keys say where hips, hands and feet are, splines lead from key to key, and inverse kinematics bends
the limbs. workflows/records/embedded.md holds pictures and figures.
"""

# T frames, J joints (24, SMPL's). SMPL's axes: x to the left, y up, z ahead.

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mclip.pipeline.files.assets import ASSETS, SHIPPED
from mclip.pipeline.geometry.legs import bent_thigh
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.frames import turned_to, unit
from mclip.workflows.make_motions import SMPL_TO_WORLD, amass_arrays, axis_angles

FOLDER = SHIPPED["everyday"]
FIRST_ID = 91001  # of the clips in BABEL's layout
FPS = 30.0
FRAMES = 60  # two seconds: one crop of training
SECONDS = np.arange(FRAMES) / FPS
SIDES = {"left": 1.0, "right": -1.0}
# A body that stands: what a channel is where a clip gives it no key. Metres are (ahead, out to the side, up).
STANDING = {
    "hips": (0.0, 0.0, -0.012),  # away from where they are at rest; out is to the left
    "pelvis": (0.0, 0.0, 0.0),  # forward, to the left, turned left
    "spine": (2.0, 0.0, 0.0),
    "head": (2.0, 0.0, 0.0),
    "hand": (0.08, 0.075, -0.478),  # wrist from shoulder
    "elbow": (-0.8, 0.6, 0.0),  # a direction that the elbow points in
    "palm": (-10.0, 0.0),  # forearm turned palm up, wrist bent to the back of the hand
    "foot": (0.0, 0.0, 0.0),  # ankle from its place at rest
    "toes": (7.0, 0.0),  # turned out, heel lifted
}
BREATH_SECONDS, BREATH_DEGREES = 3.4, 0.9
SWAY_SECONDS, SWAY_METRES = 2.9, 0.004
SOFTNESS_SECONDS = 0.045  # a Gaussian's, over every channel: muscles start softly
HEEL_METRES = 0.05  # from below the ankle back to where a heel touches the floor
COLLAR_DEGREES = 22.0  # a collar rises with an arm that is lifted above its shoulder


@dataclass(frozen=True)
class Rest:
    """Rest places (24, 3) of the joints and the height of the floor under them, metres."""

    joints_J3: np.ndarray
    floor: float

    def __getitem__(self, name: str) -> np.ndarray:
        return self.joints_J3[JOINTS.index(name)]

    def bone(self, start: str, end: str) -> np.ndarray:
        """From one joint to another (3)."""
        return self[end] - self[start]


def read_rest() -> Rest:
    """The embedded body's."""
    with np.load(ASSETS / "body.npz") as body:
        return Rest(body["joints"].astype(float), float(body["v_template"][:, 1].min()))


def channel(clip: dict, name: str) -> np.ndarray:
    """Values (T, 2 or 3) of a channel over a clip's frames: a spline through its keys that never leaves their range."""
    kind = name.removeprefix("left_").removeprefix("right_")
    keys = np.array(clip["keys"].get(name, [[0.0, *STANDING[kind]]]), dtype=float)
    if len(keys) == 1:
        return np.repeat(keys[:, 1:], FRAMES, axis=0)
    values = PchipInterpolator(keys[:, 0], keys[:, 1:])(SECONDS.clip(keys[0, 0], keys[-1, 0]))
    return gaussian_filter1d(values, SOFTNESS_SECONDS * FPS, axis=0, mode="nearest")


def turn(axis: str, degrees: np.ndarray) -> Rotation:
    """Rotations about one axis by T angles."""
    return Rotation.from_euler(axis, np.reshape(degrees, (-1, 1)), degrees=True)


def bent(values_T3: np.ndarray) -> Rotation:
    """A trunk that bends forward, to the left, and turns to the left by T x 3 degrees."""
    forward, left, turned = values_T3.T
    return turn("y", turned) * turn("x", forward) * turn("z", -left)


@dataclass(frozen=True)
class Limb:
    """A limb of two bones at rest, and the direction in which its middle joint points there."""

    upper: np.ndarray
    lower: np.ndarray
    pole: np.ndarray

    def reach(self, aim_T3: np.ndarray, pole_T3: np.ndarray) -> tuple[Rotation, Rotation]:
        """World rotations of both bones so that the end is at `aim_T3` from the start, by the law of cosines."""
        a, b = np.linalg.norm(self.upper), np.linalg.norm(self.lower)
        # A limb that would reach too far stays bent by a hair, so that it has a hinge.
        far = np.linalg.norm(aim_T3, axis=-1, keepdims=True).clip(abs(a - b) + 1e-3, (a + b) * 0.9995)
        axis = unit(aim_T3)
        straight = (torch.from_numpy(each) for each in (a * axis, b * axis, pole_T3))
        upper_T3 = bent_thigh(*straight, aim_TN3=torch.from_numpy(far * axis)).numpy()
        hinge_T3, rest_hinge = np.cross(pole_T3, axis), np.cross(self.pole, self.upper)
        return (
            Rotation.from_matrix(turned_to(upper_T3, hinge_T3, self.upper, rest_hinge)),
            Rotation.from_matrix(turned_to(far * axis - upper_T3, hinge_T3, self.lower, rest_hinge)),
        )


def directed(values_T3: np.ndarray, side: str) -> np.ndarray:
    """(ahead, out, up) of one side of the body in SMPL's axes."""
    ahead, out, up = values_T3.T
    return np.stack((SIDES[side] * out, up, ahead), axis=-1)


def trunk(clip: dict) -> dict[str, Rotation]:
    """World rotations of pelvis, spine, neck and head, with breath."""
    breath = BREATH_DEGREES * np.sin(2 * np.pi * SECONDS / BREATH_SECONDS)[:, None] * [-1.0, 0, 0]
    world = {"pelvis": bent(channel(clip, "pelvis"))}
    part = bent((channel(clip, "spine") + breath) / 3)
    for name, parent in (("spine1", "pelvis"), ("spine2", "spine1"), ("spine3", "spine2")):
        world[name] = world[parent] * part
    nod = bent(channel(clip, "head") / 2)
    return world | {"neck": world["spine3"] * nod, "head": world["spine3"] * nod * nod}


def arm(clip: dict, side: str, world: dict[str, Rotation], rest: Rest) -> dict[str, Rotation]:
    """World rotations of one arm that reaches for its keys, which are told in the chest's frame."""
    chest, sign = world["spine3"], SIDES[side]
    wrist_T3 = channel(clip, f"{side}_hand")
    lifted = np.clip(wrist_T3[:, 2] / 0.45, -0.15, 1)
    collar = chest * turn("z", sign * COLLAR_DEGREES * lifted)
    shoulder = rest.bone(f"{side}_collar", f"{side}_shoulder")
    # The keys are told from where the shoulder is with a collar at rest.
    aim_T3 = chest.apply(shoulder + directed(wrist_T3, side)) - collar.apply(shoulder)
    limb = Limb(
        rest.bone(f"{side}_shoulder", f"{side}_elbow"),
        rest.bone(f"{side}_elbow", f"{side}_wrist"),
        np.array([0.0, 0, -1]),
    )
    upper, lower = limb.reach(aim_T3, chest.apply(directed(channel(clip, f"{side}_elbow"), side)))
    palm, back = channel(clip, f"{side}_palm").T
    lower = lower * turn("x", -palm / 2)
    hand = lower * turn("x", -palm / 2) * turn("z", sign * back)
    names = ("collar", "shoulder", "elbow", "wrist", "hand")
    return {f"{side}_{name}": each for name, each in zip(names, (collar, upper, lower, hand, hand), strict=True)}


def leg(clip: dict, side: str, world: dict[str, Rotation], *, pelvis_T3: np.ndarray, rest: Rest) -> dict[str, Rotation]:
    """World rotations of one leg whose foot stands where its keys say, and rolls over its ball, or over its heel."""
    hip, ankle, toes = (f"{side}_{name}" for name in ("hip", "ankle", "foot"))
    out, heel = channel(clip, f"{side}_toes").T
    toe = turn("y", SIDES[side] * out)
    foot = toe * turn("x", heel)
    under = rest.floor - rest[ankle][1]
    ahead = np.where(heel > 0, rest[toes][2] - rest[ankle][2], -HEEL_METRES)
    pivot_T3 = np.stack((0 * ahead, 0 * ahead + under, ahead), axis=-1)
    ankle_T3 = rest[ankle] + directed(channel(clip, f"{side}_foot"), side) + toe.apply(pivot_T3) - foot.apply(pivot_T3)
    limb = Limb(rest.bone(hip, f"{side}_knee"), rest.bone(f"{side}_knee", ankle), np.array([0.0, 0, 1]))
    aim_T3 = ankle_T3 - pelvis_T3 - world["pelvis"].apply(rest.bone("pelvis", hip))
    thigh, shin = limb.reach(aim_T3, toe.apply([0.0, 0, 1]) + world["pelvis"].apply([0.0, 0, 1]))
    flat = toe * turn("x", np.minimum(heel, 0))  # the ball of a lifted heel stays on the floor
    return {hip: thigh, f"{side}_knee": shin, ankle: foot, toes: flat}


def made(clip: dict, rest: Rest) -> dict[str, np.ndarray]:
    """One clip in AMASS's SMPL+H layout."""
    sway_T3 = SWAY_METRES * np.sin(2 * np.pi * SECONDS / SWAY_SECONDS)[:, None] * [0.5, 1, 0]
    pelvis_T3 = rest["pelvis"] + directed(channel(clip, "hips") + sway_T3, "left")
    world = trunk(clip)
    for side in SIDES:
        world |= arm(clip, side, world, rest) | leg(clip, side, world, pelvis_T3=pelvis_T3, rest=rest)
    bones = zip(JOINTS[1:], PARENTS[1:], strict=True)
    local = {joint: world[JOINTS[parent]].inv() * world[joint] for joint, parent in bones}
    local["pelvis"] = Rotation.from_matrix(SMPL_TO_WORLD) * world["pelvis"]
    above_floor_T3 = (pelvis_T3 - [0, rest.floor, 0]) @ SMPL_TO_WORLD.T
    return amass_arrays(axis_angles(local, FRAMES), above_floor_T3 - rest["pelvis"], FPS)


def labelled(clips: dict[str, dict]) -> dict[str, dict]:
    """The clips' labels in BABEL's layout."""
    return {
        str(number): {
            "babel_sid": number,
            "url": "",
            "feat_p": f"EVERYDAY/EVERYDAY/{name}/{name}_poses.npz",
            "dur": FRAMES / FPS,
            "seq_ann": {
                "babel_lid": f"{number}-seq",
                "mul_act": False,
                "labels": [
                    {"raw_label": text, "proc_label": text, "seg_id": f"{name}-s{i}", "act_cat": clip["categories"]}
                    for i, text in enumerate(clip["labels"])
                ],
            },
            "frame_ann": None,
        }
        for number, (name, clip) in enumerate(clips.items(), FIRST_ID)
    }


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER)
def main(out: Path) -> None:
    clips, rest = tomllib.loads((FOLDER / "keys.toml").read_text()), read_rest()
    for name, clip in clips.items():
        path = out / "EVERYDAY" / name / f"{name}_poses.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **made(clip, rest))
        click.echo(f"{name}: {len(clip['labels'])} labels")
    (out / "babel").mkdir(parents=True, exist_ok=True)
    (out / "babel" / "train.json").write_text(json.dumps(labelled(clips), indent=1) + "\n")


if __name__ == "__main__":
    main()
