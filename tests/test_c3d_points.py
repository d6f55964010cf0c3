"""C3D: files that the c3d package writes, of a walk's joints under several names, of markers, and damaged ones."""

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.c3d_points import joint_of, parse_motion
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.prepare.sources import read_recording
from mclip.pipeline.skeletons.check import BONES
from mclip.pipeline.skeletons.frames import unit
from mclip.training.show.motion import read

c3d = pytest.importorskip("c3d")

CENTRES = {"hip": "HJC", "knee": "KJC", "ankle": "AJC", "shoulder": "SJC", "elbow": "EJC", "wrist": "WJC"}
NAMES = {
    "SMPL's": {name: name for name in JOINTS[:22]},
    "of our sets": {name: name.replace("left_", "l_").replace("right_", "r_") for name in JOINTS[:22]},
    "in one word": {
        n: f"Ann:{'Left' if n[0] == 'l' else 'Right'}{n.split('_')[1].title()}" for n in JOINTS[:22] if "_" in n
    },
    "joint centres": {
        f"{side}_{part}": f"{side[0].upper()}{short}" for side in ("left", "right") for part, short in CENTRES.items()
    },
}


@pytest.fixture(scope="module")
def joints() -> np.ndarray:
    """Places (T, 24, 3) of a walk's joints, y up, in millimetres, 30 a second."""
    motion = read(sorted(MOTIONS.rglob("walk/*.npz"))[0], fps=30.0)
    return np.asarray(motion.joints().double().numpy() @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]] * 1000)


def written(
    labels: list[str], place_TP3: np.ndarray, *, rate: float = 30.0, hidden: tuple[int, int] | None = None
) -> bytes:
    """A C3D file of points under their labels; `hidden` is a frame and a point that no camera saw."""
    writer = c3d.Writer(point_rate=rate)
    writer.set_point_labels(labels)
    rows = np.zeros((*place_TP3.shape[:2], 5), np.float32)
    rows[..., :3] = place_TP3
    if hidden:
        rows[*hidden, 3:] = -1
    writer.add_frames([(row, np.array([[]])) for row in rows])
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "missing parameter ANALOG")  # there are no analog channels
        writer.write(out)
    return out.getvalue()


def of(names: dict[str, str], joints: np.ndarray, **how: object) -> bytes:
    return written(list(names.values()), joints[:, [JOINTS.index(name) for name in names]], **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("unit_mm", [1.0, 1000.0])
def test_limbs_point_where_the_points_say_whatever_they_are_called(
    kind: str, unit_mm: float, joints: np.ndarray
) -> None:
    names = NAMES[kind]
    found = parse_motion(of(names, joints / unit_mm), {})
    assert (found.fps, found.account["up"], found.account["skeleton"]) == (30.0, "y", "C3D")
    assert found.account["metres"] == pytest.approx(unit_mm / 1000, rel=0.02)
    assert found.account["degrees"] < 1.5
    ours, theirs = (
        found.source,
        dict(zip(JOINTS, joints.swapaxes(0, 1) @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]], strict=True)),
    )
    for a, b in BONES:
        if {a, b} <= set(names):
            assert np.abs(unit(ours[b] - ours[a]) - unit(theirs[b] - theirs[a])).max() < 1e-4, (a, b)


def test_a_map_names_labels_that_say_nothing(joints: np.ndarray) -> None:
    names = {name: f"P{number:02d}" for number, name in enumerate(NAMES["joint centres"])}
    with pytest.raises(MotionError, match="no joint for left_ankle.* among its points P00"):
        parse_motion(of(names, joints), {})
    assert parse_motion(of(names, joints), names).account["degrees"] < 1.5
    with pytest.raises(MotionError, match="the map names nobody"):
        parse_motion(of(names, joints), {"left_hip": "nobody"})


def test_markers_are_refused_with_the_way_to_a_body(joints: np.ndarray) -> None:
    plugin_gait = [f"{side}{part}" for side in "LR" for part in ("ASI", "THI", "KNE", "ANK", "TOE", "SHO", "ELB")]
    with pytest.raises(MotionError, match="no joint for .* among its points LASI.*solved into a body first, by MoSh"):
        parse_motion(written(plugin_gait, joints[:, : len(plugin_gait)]), {})
    rng = np.random.default_rng(0)
    skin = joints + 25 * np.cumsum(rng.normal(size=joints.shape), axis=0) / np.sqrt(len(joints))  # cm of soft tissue
    with pytest.raises(MotionError, match="changes its length by .* %, as markers on skin do"):
        parse_motion(of(NAMES["in one word"], skin), {})


def test_a_joint_out_of_sight_is_named_with_its_frame(joints: np.ndarray) -> None:
    with pytest.raises(MotionError, match="LKJC is out of sight in 1 frames, first in frame 7"):
        parse_motion(of(NAMES["joint centres"], joints, hidden=(7, 1)), {})


def test_a_file_is_read_by_its_path_and_a_cut_one_is_named(tmp_path: Path, joints: np.ndarray) -> None:
    content, path = of(NAMES["SMPL's"], joints), tmp_path / "walk.c3d"
    path.write_bytes(content)
    assert len(read_recording(path).trans_T3) == len(joints)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MotionError, match=r"walk\.c3d: says .* frames of 22 points, and has"):
        read_recording(path)


@pytest.mark.parametrize(
    ("label", "joint"),
    [("LKNE", ""), ("LKneeOut", ""), ("left_knee", "left_knee"), ("Knee.R", "right_knee"), ("Bob:RAJC", "right_ankle")],
)
def test_a_label_is_a_joints_only_as_a_whole(label: str, joint: str) -> None:
    assert joint_of(label) == joint


def test_two_thousand_damaged_files_are_read_or_refused(joints: np.ndarray) -> None:
    rng = random.Random(0)
    whole = of(NAMES["joint centres"], joints[:12])
    outcomes = {True: 0, False: 0}
    for number in range(2000):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content) if number % 2 else 1200)] = rng.randrange(256)
        del content[rng.choice((len(content), rng.randrange(1, len(content)))) :]
        try:
            parse_motion(bytes(content), {})
            outcomes[True] += 1
        except MotionError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 100, outcomes
