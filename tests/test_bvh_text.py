"""The compiled parser of BVH against pybvh, and forward kinematics against scipy's rotations."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mclip.pipeline.skeletons.bvh_text import POSITION, read_bvh
from mclip.pipeline.skeletons.kinematics import world_of

HEAD = """HIERARCHY
ROOT Hips
{
  OFFSET 1.5 0 -2e-1
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Left Leg
  {
    OFFSET 0 -4.25 .5
    CHANNELS 3 Yrotation Xrotation Zrotation
    JOINT Shin
    {
      OFFSET 0 -4 0
      CHANNELS 1 Xrotation
      End Site
      {
        OFFSET 0 0 1
      }
    }
  }
}
MOTION
"""


def text_of(rows: list[list[str]]) -> bytes:
    """A file of three joints and ten channels."""
    lines = "\n".join(" ".join(row) for row in rows)
    return f"{HEAD}Frames: {len(rows)}\nFrame Time: 0.0333333\n{lines}\n".encode()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.floats(-1e15, 1e15), min_size=10, max_size=10), min_size=1, max_size=5), st.integers(0, 3))
def test_numbers_are_those_of_pythons_float(rows, style):
    formats = ("{!r}".format, "{:.6f}".format, "{:+.9e}".format, "{:g}".format)
    words = [[formats[style](number) for number in row] for row in rows]
    expected = np.array([[float(word) for word in row] for row in words])
    assert read_bvh(text_of(words)).values_TC == pytest.approx(expected, rel=1e-14, abs=1e-300)


def test_a_file_is_what_pybvh_reads(tmp_path: Path):
    import pybvh

    generator = np.random.default_rng(0)
    rows = [[f"{x:.6f}" for x in row] for row in generator.uniform(-180, 180, (50, 12))]
    # pybvh reads names without blanks, and three angles a joint.
    text = text_of(rows).replace(b"Left Leg", b"LeftLeg")
    text = text.replace(b"CHANNELS 1 Xrotation", b"CHANNELS 3 Zrotation Xrotation Yrotation")
    (tmp_path / "a.bvh").write_bytes(text)
    found = read_bvh((tmp_path / "a.bvh").read_bytes())
    slow = pybvh.read_bvh_file(tmp_path / "a.bvh", world_up="+y")
    assert found.values_TC[:, :3] == pytest.approx(slow.root_pos, abs=1e-9)
    ours = found.values_TC[:, 3:].reshape(-1, 3, 3)  # in the order of the channels, as pybvh has them, there in radians
    assert ours == pytest.approx(np.degrees(slow.joint_angles), abs=1e-9)
    assert found.frame_time == pytest.approx(slow.frame_time, abs=1e-6)  # pybvh rounds it to a rate


def test_the_hierarchy_is_as_it_stands_there():
    found = read_bvh(text_of([["0"] * 10]))
    assert found.names == ("Hips", "Left Leg", "Shin", "Shin end")
    assert found.parents_J.tolist() == [-1, 0, 1, 2]
    assert found.offsets_J3.tolist() == [[1.5, 0, -0.2], [0, -4.25, 0.5], [0, -4, 0], [0, 0, 1]]
    assert (found.kind_C == POSITION).sum() == 3
    assert found.axis_C.tolist() == [0, 1, 2, 2, 1, 0, 1, 0, 2, 0]


def test_joints_are_where_scipys_rotations_put_them():
    values = np.random.default_rng(1).uniform(-180, 180, (20, 10))
    bvh = read_bvh(text_of([[repr(float(x)) for x in row] for row in values]))
    world = world_of(bvh, np.arange(4))
    hips = Rotation.from_euler("ZYX", values[:, 3:6], degrees=True)
    leg = hips * Rotation.from_euler("YXZ", values[:, 6:9], degrees=True)
    shin = leg * Rotation.from_euler("X", values[:, 9:], degrees=True)
    knee = values[:, :3] + hips.apply([0, -4.25, 0.5]) + leg.apply([0, -4, 0])
    assert world.place_TW3[:, 0] == pytest.approx(values[:, :3])
    assert world.place_TW3[:, 2] == pytest.approx(knee)
    assert world.place_TW3[:, 3] == pytest.approx(knee + shin.apply([0, 0, 1]))
    assert world.turn_TW33[:, 2] == pytest.approx(shin.as_matrix())
