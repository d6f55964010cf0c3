"""ASF/AMC: a motion written as CMU's files are, whose joints scipy's rotations place, and what is refused."""

import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.prepare.sources import parse, read_recording
from mclip.pipeline.skeletons.asf_text import read_amc
from mclip.pipeline.skeletons.frames import rest_places
from mclip.pipeline.skeletons.kinematics import world_of
from mclip.pipeline.store.store import open_store

Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
# CMU's bones: parent, the joint whose turn a bone has, and the joints that it goes from and to; no joint: it is still.
TRUNK = (
    ("lowerback", "root", "spine1", "pelvis", "spine1"),
    ("upperback", "lowerback", "spine2", "spine1", "spine2"),
    ("thorax", "upperback", "spine3", "spine2", "spine3"),
    ("lowerneck", "thorax", "neck", "spine3", "neck"),
    ("head", "lowerneck", "head", "neck", "head"),
)
LEG = (
    ("~hipjoint", "root", "", "pelvis", "~hip"),
    ("~femur", "~hipjoint", "~hip", "~hip", "~knee"),
    ("~tibia", "~femur", "~knee", "~knee", "~ankle"),
    ("~foot", "~tibia", "~ankle", "~ankle", "~foot"),
)
ARM = (
    ("~clavicle", "thorax", "~collar", "spine3", "~shoulder"),
    ("~humerus", "~clavicle", "~shoulder", "~shoulder", "~elbow"),
    ("~radius", "~humerus", "~elbow", "~elbow", "~wrist"),
)
SIDED = [
    tuple(each.replace("~", side if place in (0, 1) else f"{name}_") for place, each in enumerate(bone))
    for side, name in (("l", "left"), ("r", "right"))
    for bone in (*LEG, *ARM)
]
BONES = [*TRUNK, *SIDED]


def world_turns() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every joint's turn to a y-up world, and the pelvis's place in metres, of a walk that is shipped."""
    motion = read_recording(sorted(MOTIONS.rglob("walk/*.npz"))[0])
    local_TJ = Rotation.from_rotvec(motion.poses_TJ3[::4].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    turns: dict[str, np.ndarray] = {}
    for joint, name in enumerate(JOINTS):
        turns[name] = local_TJ[:, joint] if not joint else turns[JOINTS[PARENTS[joint]]] @ local_TJ[:, joint]
    root_T3 = (motion.trans_T3[::4] + rest_places()["pelvis"]) @ Y_UP.T
    return {name: Y_UP @ turn @ Y_UP.T for name, turn in turns.items()}, root_T3


def written(seed: int) -> tuple[str, str, dict[str, np.ndarray]]:
    """ASF and AMC of the walk in inches / 0.45, every bone with axes at random, and where its bones begin."""
    rng, (turns, root_T3) = np.random.default_rng(seed), world_turns()
    rest = {name: Y_UP @ place / 0.0254 * 0.45 for name, place in rest_places().items()}
    asf = [
        ":version 1.10",
        ":units",
        "  mass 1.0",
        "  length 0.45",
        "  angle deg",
        ":root",
        "  order TX TY TZ RX RY RZ",
    ]
    asf += ["  axis XYZ", "  position 0 0 0", "  orientation 0 0 0", ":bonedata"]
    turn, begin = {"root": turns["pelvis"]}, {"root": root_T3 / 0.0254 * 0.45}
    vector = {"root": np.zeros(3)}
    degrees = {"root": np.hstack([begin["root"], Rotation.from_matrix(turn["root"]).as_euler("xyz", degrees=True)])}
    for number, (name, parent, joint, start, end) in enumerate(BONES, 1):
        vector[name] = rest[end] - rest[start]
        begin[name] = begin[parent] + turn[parent] @ vector[parent]
        length = np.linalg.norm(vector[name])
        axis = rng.uniform(-180, 180, 3) if joint else np.zeros(3)
        axes = Rotation.from_euler("xyz", axis, degrees=True).as_matrix()
        turn[name] = turns[joint] if joint else turn[parent]
        asf += ["  begin", f"     id {number}", f"     name {name}", f"     direction {numbers(vector[name] / length)}"]
        asf += [f"     length {length:.12g}", f"     axis {numbers(axis)}  XYZ"]
        if joint:
            moved = axes.T @ turn[parent].swapaxes(1, 2) @ turn[name] @ axes
            degrees[name] = Rotation.from_matrix(moved).as_euler("xyz", degrees=True)
            asf += ["    dof rx ry rz", "    limits (-160.0 20.0)", "           (-70.0 70.0)"]
        asf.append("  end")
    asf += [":hierarchy", "  begin"]
    asf += [
        f"    {up} {' '.join(bone[0] for bone in BONES if bone[1] == up)}" for up in dict.fromkeys(b[1] for b in BONES)
    ]
    amc = ["#!OML:ASF H:/07.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(root_T3)):
        amc += [str(frame + 1), *(f"{name} {numbers(rows[frame])}" for name, rows in degrees.items())]
    return "\n".join([*asf, "  end"]) + "\n", "\n".join(amc) + "\n", begin


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.12g}" for value in values)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject's folder as CMU has it."""
    folder = tmp_path_factory.mktemp("cmu") / "07"
    folder.mkdir()
    asf, amc, _ = written(0)
    (folder / "07.asf").write_text(asf)
    (folder / "07_01.amc").write_text(amc)
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_bones_begin_where_scipys_rotations_put_them(seed: int) -> None:
    asf, amc, begin = written(seed)
    bvh = read_amc(amc.encode(), asf.encode(), 30.0)
    world = world_of(bvh, np.arange(len(bvh.names)))
    found = {name: world.place_TW3[:, number] for number, name in enumerate(bvh.names)}
    for name, place in begin.items():
        assert np.abs(found[name] - place).max() < 1e-9, name


def test_a_motion_comes_back_with_its_subjects_skeleton(walk: Path) -> None:
    found = read_recording(walk / "07_01.amc", Asked(fps=30.0))
    assert found.account["skeleton"] == "ASF"
    assert found.account["up"] == "y"
    assert found.account["degrees"] < 0.1
    turns, _ = world_turns()
    local = Rotation.from_rotvec(found.poses_TJ3.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    knee = np.degrees(Rotation.from_matrix(local[:, JOINTS.index("left_knee")]).magnitude())
    theirs = turns["left_hip"].swapaxes(1, 2) @ turns["left_knee"]
    assert np.abs(knee - np.degrees(Rotation.from_matrix(theirs).magnitude())).max() < 0.5


def test_prepare_reads_a_folder_and_asks_for_the_frame_rate(walk: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store.zarr")
    asked = CliRunner().invoke(cli, ["prepare", str(walk), store, "--workers", "1"])
    assert asked.exit_code == 1
    assert "pass --fps-in (CMU's have 120)" in asked.output
    done = CliRunner().invoke(cli, ["prepare", str(walk), store, "--workers", "1", "--fps-in", "30", "--replace"])
    assert done.exit_code == 0, done.output
    assert ".amc, ASF, bones within" in done.output
    assert open_store(store).strings("sequences/name") == ["07_01.amc"]


def test_a_motion_without_its_skeleton_is_refused_by_name(walk: Path, tmp_path: Path) -> None:
    (tmp_path / "07_01.amc").write_bytes((walk / "07_01.amc").read_bytes())
    with pytest.raises(MotionError, match=r"none of 0 \.asf files beside it is its skeleton: expected 07_01\.asf"):
        read_recording(tmp_path / "07_01.amc", Asked(fps=120.0))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("angle deg", "angle rad", "no line `angle deg`"),
        ("    dof rx ry rz\n", "    dof rx ry rz l\n", "dof 'rx ry rz l' of a bone"),
        ("root lowerback", "root lowerback nobody", "bones without data .*: nobody"),
        ("root lowerback", "head lowerback", "hang in a circle"),
        (":bonedata", ":bones", "expected an .asf file"),
        ("XYZ\n  position", "XYY\n  position", "expected XYZ, as CMU"),
    ],
)
def test_a_skeleton_that_is_none_is_refused_by_name(old: str, new: str, why: str) -> None:
    asf, amc, _ = written(0)
    assert old in asf
    with pytest.raises(MotionError, match=why):
        read_amc(amc.encode(), asf.replace(old, new, 1).encode(), 120.0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (":DEGREES", ":RADIANS", "its angles are radians"),
        ("\nthorax ", "\nthorax 1 ", "frame 1: thorax has 4 numbers, its dof in the skeleton are 3"),
        ("\nthorax ", "\nabdomen ", "frame 1: abdomen is twice in it, or no moving bone"),
        ("\n2\n", "\n", "frame 1: root is twice in it"),
        ("\nroot ", "\nroot nan ", "frame 1: root has 7 numbers"),
    ],
)
def test_a_motion_that_is_none_is_refused_with_its_frame(old: str, new: str, why: str) -> None:
    asf, amc, _ = written(0)
    assert old in amc
    with pytest.raises(MotionError, match=why):
        read_amc(amc.replace(old, new, 1).encode(), asf.encode(), 120.0)


def test_two_thousand_damaged_files_are_read_or_refused(walk: Path) -> None:
    rng = random.Random(0)
    asf, amc = (walk / "07.asf").read_bytes(), (walk / "07_01.amc").read_bytes()
    short = amc[: amc.index(b"\n4\n") + 1]
    outcomes = {True: 0, False: 0}
    for number in range(2000):
        parts = [bytearray(asf), bytearray(short)]
        part = parts[number % 2]
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(part))
            if rng.random() < 0.5:
                part[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del part[at : at + rng.randint(1, 400)]
            else:
                part[at:at] = rng.choice((b"1e999 ", b"nan ", b"\nroot ", b"\n:units\n", b"-", b"9" * 30, b"\0"))
            if not part:
                break
        try:
            read_amc(bytes(parts[1]), bytes(parts[0]), 120.0)
            outcomes[True] += 1
        except MotionError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 50, outcomes


def test_what_parse_is_given_without_a_folder_is_refused() -> None:
    with pytest.raises(MotionError, match="not read from an archive"):
        parse("07.tar!/07_01.amc", b"1\n", Asked(fps=120.0), root=Path("."))
