"""Files that others read: every one is read back by something that did not write it."""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.spatial.transform import Rotation

from mclip import cli
from mclip.pipeline.files.assets import ASSETS, HOUSE
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.machine.commands import FULL
from mclip.pipeline.prepare.amass import read_motion, write_recording
from mclip.pipeline.render.options import RenderOptions
from mclip.training.show.export import FORMATS, write
from mclip.training.show.motion import Motion, pictures, read
from mclip.training.show.writers import write_npz

SMALL = RenderOptions(size=64, antialias=2)
VIEWER = HOUSE / "workflows/viewer"
MOTIONS = ASSETS / "motions/EMBEDDED"
CARTWHEEL = MOTIONS / "cartwheel/cartwheel_poses.npz"  # upside down halfway, and travels


def spread_arms(frames: int) -> Motion:
    """A body that turns about the vertical, two metres up in the air."""
    angle = torch.linspace(0, 1.5, frames)
    upright = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # SMPL's y up to the world's z up
    turn = torch.zeros(frames, 3, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = angle.sin(), -angle.sin(), 1
    rotmat = torch.eye(3).expand(frames, 24, 3, 3).clone()
    rotmat[:, 0] = turn @ upright
    return Motion(rotmat, torch.tensor([[0.0, 0, 2.0]]).expand(frames, 3), 30.0)


@pytest.fixture(scope="module")
def cartwheel() -> Motion:
    return read(CARTWHEEL)


def y_up(points_T3: torch.Tensor) -> np.ndarray:
    """Points of a world whose z is up, in one whose y is up: (x, y, z) -> (x, z, -y)."""
    x, y, z = points_T3.double().unbind(-1)
    return torch.stack((x, z, -y), dim=-1).numpy()


def joints_of_bvh(path: Path) -> tuple[dict[str, np.ndarray], float]:
    """Joint places (T, 3) by name as the file's text says them, and its fps; by scipy, knowing nothing of pybvh."""
    words = path.read_text().split("MOTION")[0].split()
    names, parent, offset, order, stack = [], [], [], [], []
    for at, word in enumerate(words):
        if word in ("ROOT", "JOINT"):
            names.append(words[at + 1])
            parent.append(stack[-1] if stack else -1)
            stack.append(len(names) - 1)
        elif word == "End":
            stack.append(-2)
        elif word == "OFFSET" and stack[-1] >= 0:
            offset.append([float(number) for number in words[at + 1 : at + 4]])
        elif word == "CHANNELS":
            channels = words[at + 2 : at + 2 + int(words[at + 1])]
            order.append("".join(channel[0] for channel in channels if channel.endswith("rotation")))
        elif word == "}":
            stack.pop()
    lines = path.read_text().split("Frame Time:")[1].splitlines()
    numbers = np.array([[float(number) for number in line.split()] for line in lines[1:] if line])
    turned, place = [], []
    for joint, letters in enumerate(order):
        angles = numbers[:, 3 + 3 * joint : 6 + 3 * joint]
        local = Rotation.from_euler(letters, angles, degrees=True)  # capitals: each about the axes turned so far
        up = parent[joint]
        turned.append(local if up < 0 else turned[up] * local)
        place.append(numbers[:, :3] if up < 0 else place[up] + turned[up].apply(offset[joint]))
    return dict(zip(names, place, strict=True)), 1 / float(lines[0])


def test_a_bvh_puts_every_joint_where_it_was(cartwheel: Motion, tmp_path: Path) -> None:
    from mclip.pipeline.geometry.skeleton import JOINTS

    write(tmp_path / "a.bvh", cartwheel)
    found, fps = joints_of_bvh(tmp_path / "a.bvh")
    wanted = y_up(load_body("low").pose_joints(cartwheel.rotmat_TJ33, trans_B3=cartwheel.trans_T3))
    assert fps == pytest.approx(cartwheel.fps, abs=1e-6)
    assert sorted(found) == sorted(JOINTS)
    for joint, name in enumerate(JOINTS):
        assert np.abs(found[name] / 100 - wanted[:, joint]).max() < 1e-4, name  # centimetres; 0.1 mm


def test_a_bvh_turns_no_channel_by_a_whole_turn_between_frames(cartwheel: Motion, tmp_path: Path) -> None:
    write(tmp_path / "a.bvh", cartwheel)
    lines = (tmp_path / "a.bvh").read_text().split("Frame Time:")[1].splitlines()[1:]
    angles = np.array([[float(number) for number in line.split()[3:]] for line in lines])
    assert np.abs(np.diff(angles, axis=0)).max() <= 180


def test_a_bvh_comes_back_through_mclips_own_reader(cartwheel: Motion, tmp_path: Path) -> None:
    write(tmp_path / "a.bvh", cartwheel)
    again = read(tmp_path / "a.bvh")
    assert torch.allclose(again.trans_T3, cartwheel.trans_T3, atol=1e-4)
    assert torch.allclose(again.rotmat_TJ33[:, :22], cartwheel.rotmat_TJ33[:, :22], atol=1e-4)


def test_an_npz_comes_back_to_a_millionth(cartwheel: Motion, tmp_path: Path) -> None:
    write(tmp_path / "a.npz", cartwheel)
    again = read_motion(tmp_path / "a.npz")
    assert np.abs(again.trans_T3 - cartwheel.trans_T3.numpy()).max() < 1e-6
    assert again.fps == cartwheel.fps
    rotmat = axis_angle_to_matrix(torch.from_numpy(again.poses_TJ3))
    assert float((rotmat - cartwheel.rotmat_TJ33).abs().max()) < 1e-6


@pytest.mark.parametrize(("width", "model"), [(156, "smplh"), (165, "smplx"), (72, "smpl"), (66, "")])
def test_an_npz_keeps_shape_gender_and_fingers_and_says_that_it_keeps_no_soft_tissue(
    write_amass: Callable[..., Path], tmp_path: Path, width: int, model: str
) -> None:
    source = write_amass(tmp_path / "in.npz", 60, width=width, gender="male", dmpls=np.ones((60, 8)))
    write(tmp_path / "out.npz", read(source))
    with np.load(source) as given, np.load(tmp_path / "out.npz") as found:
        assert np.abs(found["betas"] - given["betas"]).max() < 1e-6
        assert found["gender"] == "male"
        assert np.abs(found["trans"] - given["trans"]).max() == 0
        assert found["poses"].shape == (60, width if model else 156)
        kept = np.zeros((60, found["poses"].shape[1]))
        kept[:, :width] = given["poses"]
        assert np.abs(found["poses"] - kept).max() < (1e-12 if model else 1e-6)
        assert not found["dmpls"].any()
    for told in (write_npz.__doc__, write_recording.__doc__):
        assert told is not None
        assert "dmpls" in told


class Glb:
    """A GLB by its specification: header, JSON, binary; knows nothing of pygltflib."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        assert struct.unpack_from("<4sII", content) == (b"glTF", 2, len(content))
        length = struct.unpack_from("<I", content, 12)[0]
        self.json: dict[str, Any] = json.loads(content[20 : 20 + length])
        self.binary = content[28 + length :]

    def array(self, accessor: int) -> np.ndarray:
        told = self.json["accessors"][accessor]
        view = self.json["bufferViews"][told["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[told["type"]]
        kind = {5121: np.uint8, 5123: np.uint16, 5126: np.float32}[told["componentType"]]
        flat = np.frombuffer(self.binary, kind, told["count"] * width, view.get("byteOffset", 0))
        return flat.reshape(told["count"], width).astype(float) if kind == np.float32 else flat.reshape(-1, width)

    def tracks(self) -> tuple[np.ndarray, dict[tuple[int, str], np.ndarray]]:
        """Times (T, 1), and values over time by node and path."""
        (told,) = self.json["animations"]
        samplers = [(told["samplers"][c["sampler"]], c["target"]) for c in told["channels"]]
        values = {(target["node"], target["path"]): self.array(sampler["output"]) for sampler, target in samplers}
        return self.array(samplers[0][0]["input"]), values

    def world(self, frame: int) -> np.ndarray:
        """Matrices (nodes, 4, 4) of the nodes at a frame."""
        _, values = self.tracks()
        nodes = self.json["nodes"]
        out = np.tile(np.eye(4), (len(nodes), 1, 1))

        def visit(node: int, above: np.ndarray) -> None:
            local = np.eye(4)
            local[:3, 3] = nodes[node].get("translation", (0, 0, 0))
            if (node, "translation") in values:
                local[:3, 3] = values[node, "translation"][frame]
            if (node, "rotation") in values:
                local[:3, :3] = Rotation.from_quat(values[node, "rotation"][frame]).as_matrix()
            out[node] = above @ local
            for child in nodes[node].get("children", ()):
                visit(child, out[node])

        for root in self.json["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return out

    def skinned(self, frame: int) -> np.ndarray:
        """Vertices (V, 3) at a frame, as the specification blends them."""
        skin = self.json["skins"][0]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)  # column-major
        moved = self.world(frame)[skin["joints"]] @ inverse
        has = self.json["meshes"][0]["primitives"][0]["attributes"]
        rest = np.pad(self.array(has["POSITION"]), ((0, 0), (0, 1)), constant_values=1)
        blended = np.einsum("vk,vkrc->vrc", self.array(has["WEIGHTS_0"]), moved[self.array(has["JOINTS_0"])])
        return np.einsum("vrc,vc->vr", blended, rest)[:, :3]


def test_a_glb_moves_every_joint_and_vertex_as_the_body_moves(cartwheel: Motion, tmp_path: Path) -> None:
    write(tmp_path / "a.glb", cartwheel)
    glb, body = Glb(tmp_path / "a.glb"), load_body("low")
    joints = y_up(body.pose_joints(cartwheel.rotmat_TJ33, trans_B3=cartwheel.trans_T3))
    vertices = y_up(body.pose(cartwheel.rotmat_TJ33, trans_B3=cartwheel.trans_T3))
    times, _ = glb.tracks()
    assert np.allclose(times[:, 0], np.arange(len(joints)) / cartwheel.fps, atol=1e-6)
    for frame in (0, len(joints) // 2, len(joints) - 1):
        assert np.abs(glb.world(frame)[:24, :3, 3] - joints[frame]).max() < 1e-5
        assert np.abs(glb.skinned(frame) - vertices[frame]).max() < 1e-5
    assert np.abs(joints[0] - joints[len(joints) // 2]).max() > 0.3  # or standing still would pass


def test_the_normals_of_a_glb_point_out_of_the_body(cartwheel: Motion, tmp_path: Path) -> None:
    write(tmp_path / "a.glb", cartwheel)
    glb = Glb(tmp_path / "a.glb")
    has = glb.json["meshes"][0]["primitives"][0]["attributes"]
    place, normal = glb.array(has["POSITION"]), glb.array(has["NORMAL"])
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    corners = place[glb.array(glb.json["meshes"][0]["primitives"][0]["indices"]).reshape(-1, 3)]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.15  # of a person, in cubic metres: the triangles face outwards
    front = place[:, 2].argmax(), place[:, 2].argmin()
    assert normal[front[0], 2] > 0 > normal[front[1], 2]


def khronos_validator() -> dict[str, str]:
    """Environment in which node finds the Khronos validator; skips by name without it."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    root = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True).stdout.strip()
    paths = os.pathsep.join(path for path in (os.environ.get("NODE_PATH"), str(VIEWER / "node_modules"), root) if path)
    found = subprocess.run(
        ["node", "-e", "require('gltf-validator')"],
        env=os.environ | {"NODE_PATH": paths},
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("gltf-validator is not installed: npm ci --prefix workflows/viewer")
    return os.environ | {"NODE_PATH": paths}


VALIDATE = """
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[1]));
require('gltf-validator').validateBytes(bytes).then(told => console.log(JSON.stringify(told.issues)));
"""


def test_the_khronos_validator_finds_nothing_wrong(cartwheel: Motion, tmp_path: Path) -> None:
    environment = khronos_validator()
    write(tmp_path / "a.glb", cartwheel)

    def issues(path: Path) -> dict[str, Any]:
        told = subprocess.run(["node", "-e", VALIDATE, str(path)], env=environment, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    whole = (tmp_path / "a.glb").read_bytes()
    assert issues(tmp_path / "a.glb") | {"truncated": False} == {
        "numErrors": 0,
        "numWarnings": 0,
        "numInfos": 0,
        "numHints": 0,
        "messages": [],
        "truncated": False,
    }
    (tmp_path / "b.glb").write_bytes(whole.replace(b'"joints":[0,', b'"joints":[99,', 1)[: len(whole)])
    assert issues(tmp_path / "b.glb")["numErrors"] > 0


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_told_and_nothing_is_left_behind(
    cartwheel: Motion, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]], kind: str
) -> None:
    with full_disk(2000), pytest.raises(OSError, match=rf"a\.{kind}.*(File too large|No space left)") as caught:
        write(tmp_path / f"a.{kind}", cartwheel, SMALL)
    assert caught.value.errno in FULL  # which asks for room
    assert list(tmp_path.iterdir()) == []


def test_a_long_recording_is_not_drawn_but_may_be_written(tmp_path: Path) -> None:
    still = torch.eye(3).expand(3001, 24, 3, 3)
    long = Motion(still, torch.zeros(3001, 3), 120.0)
    with pytest.raises(ValueError, match=r"a\.mp4: 3,001 frames, at most 3,000 are drawn as mp4: lower --fps"):
        write(tmp_path / "a.mp4", long)
    write(tmp_path / "a.npz", long)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_the_command_writes_every_format_and_overwrites_none(tmp_path: Path) -> None:
    words = ["export", str(CARTWHEEL), str(MOTIONS / "walk/walk_poses.npz"), "--to", "bvh", "--to", "glb"]
    told = CliRunner().invoke(cli.cli, [*words, "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cartwheel_poses.bvh",
        "cartwheel_poses.glb",
        "walk_poses.bvh",
        "walk_poses.glb",
    ]
    again = CliRunner().invoke(cli.cli, [*words, "--out", str(tmp_path)])
    assert again.exit_code == 1
    assert "there already" in again.output


def test_the_command_line_offers_what_can_be_written() -> None:
    option = next(each for each in cli.generate.params if each.name == "formats")
    assert tuple(option.type.choices) == FORMATS  # type: ignore[attr-defined]


def test_an_mp4_plays_every_frame_in_time_and_shows_the_same_pictures(tmp_path: Path) -> None:
    made = spread_arms(9)
    drawn = np.stack([*pictures(made, SMALL)])
    write(tmp_path / "a.mp4", made, SMALL)
    with av.open(str(tmp_path / "a.mp4")) as video:
        assert video.streams.video[0].average_rate == 30
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == (9, 64, 64, 3)
    assert np.abs(frames.astype(int) - drawn).mean() < 4
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 4


@pytest.mark.parametrize("fps", [120.0, 100.0, 60.0, 59.94, 50.0, 30.0, 25.0, 12.5])
def test_a_gif_is_as_fast_as_its_motion_in_every_browser(tmp_path: Path, fps: float) -> None:
    """Browsers read a delay of 0 or 10 ms as 100 (Chromium, Firefox and Safari do)."""
    made = replace(spread_arms(round(1.5 * fps)), fps=fps)
    write(tmp_path / "a.gif", made, SMALL)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        delays = [gif.seek(number) or gif.info["duration"] for number in range(gif.n_frames)]
    assert min(delays) >= 20
    assert sum(delays) / 1000 == pytest.approx(len(made.trans_T3) / fps, abs=0.0051)
    assert len(delays) == (fps > 50 and len(range(0, len(made.trans_T3), 3 if fps > 100 else 2)) or len(made.trans_T3))


def test_a_strip_shows_first_to_last_cut_to_the_body(tmp_path: Path) -> None:
    write(tmp_path / "a.png", spread_arms(20), SMALL)
    with Image.open(tmp_path / "a.png") as strip:
        pixels = np.asarray(strip.convert("L")).astype(int)
    cells = np.split(pixels, 8, axis=1)
    assert np.abs(cells[0] - cells[-1]).mean() > 1  # the body turned
    for cell in cells:
        across = np.flatnonzero((cell[:-30] < 250).any(0))
        assert np.ptp(across) > 0.4 * cell.shape[1]  # it is large: seen from its side at the end
        assert (cell[-18:] < 200).any()  # its seconds stand below it


def test_the_quaternions_of_a_glb_keep_their_sign(tmp_path: Path) -> None:
    """Programs that blend number by number go the long way round where the sign flips; a body that spins twice."""
    spin = spread_arms(60)
    angle = torch.linspace(0, 4 * torch.pi, 60, dtype=torch.float64)
    turn = axis_angle_to_matrix(torch.stack((0 * angle, 0 * angle, angle), -1))
    rotmat = spin.rotmat_TJ33.double()
    spin = replace(spin, rotmat_TJ33=torch.cat((turn[:, None] @ rotmat[:1, :1], rotmat[:, 1:]), dim=1))
    write(tmp_path / "a.glb", spin)
    _, tracks = Glb(tmp_path / "a.glb").tracks()
    for (_, path), values in tracks.items():
        if path == "rotation":
            assert ((values[1:] * values[:-1]).sum(1) > 0).all()
    root = tracks[0, "rotation"]
    assert np.allclose(Rotation.from_quat(root).as_matrix(), y_up_turns(spin), atol=1e-6)


def y_up_turns(motion: Motion) -> np.ndarray:
    """The root's rotations in a world whose y is up."""
    return np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) @ motion.rotmat_TJ33[:, 0].double().numpy()


def test_an_unknown_ending_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.fbx: cannot write \.fbx; expected one of npz, bvh"):
        write(tmp_path / "a.fbx", spread_arms(2))
    assert list(tmp_path.iterdir()) == []
