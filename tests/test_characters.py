"""Motion on somebody's own character, and clips of glTF read: what goes out on any rig comes back the same."""

import base64
import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation, Slerp

from mclip.cli import cli
from mclip.pipeline.characters.carry import rig_of
from mclip.pipeline.characters.character import Character, posed
from mclip.pipeline.characters.gltf_clips import Track, clip_names, parse_motion
from mclip.pipeline.characters.gltf_file import beside, chunks_of, glb_bytes, read_gltf
from mclip.pipeline.characters.gltf_nodes import nodes_of, turns_of, understood, world_of
from mclip.pipeline.files.assets import HOUSE, MOTIONS
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry.recording import MotionError, NoMotion, Recording
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.prepare.sources import read_recording, recordings
from mclip.pipeline.skeletons.check import BONES, lowest_points
from mclip.pipeline.skeletons.frames import rest_places, unit
from mclip.training.latent.prompts import prompts_of
from mclip.training.model.run import Run
from mclip.training.show.export import write
from mclip.training.show.folder import write_motions
from mclip.training.show.motion import Motion, read
from mclip.workflows.make_bvh_like import FORMS, bvh_text
from mclip.workflows.make_characters import CHARACTERS, write_character

VIEWER = HOUSE / "workflows/viewer"
KICK, WALK = (MOTIONS / f"EMBEDDED/{name}/{name}_poses.npz" for name in ("kick", "walk"))
RIGS = sorted(CHARACTERS)
Document = dict[str, Any]


@dataclass(frozen=True)
class Posed:
    """A motion's places by joint, and its lowest points."""

    place: dict[str, np.ndarray]
    low_T: np.ndarray

    @classmethod
    def of(cls, rotmat: torch.Tensor, trans: np.ndarray) -> "Posed":
        turns, place = posed(rotmat.double().numpy(), np.asarray(trans, float))
        return cls(place, lowest_points(turns, place))

    @classmethod
    def of_recording(cls, recording: Recording) -> "Posed":
        return cls.of(axis_angle_to_matrix(torch.from_numpy(recording.poses_TJ3)), recording.trans_T3)


def degrees_between(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], bones: Any = BONES) -> float:
    """The greatest angle in any frame between bones of two motions."""
    found = []
    for a, b in bones:
        first, second = (unit(each[b] - each[a]) for each in (ours, theirs))
        found.append(2 * np.arcsin(np.linalg.norm(first - second, axis=-1).clip(0, 2) / 2))
    return float(np.degrees(np.max(found)))


@pytest.fixture(scope="module")
def kick() -> Motion:
    return read(KICK)


@pytest.fixture(scope="module")
def source(kick: Motion) -> Posed:
    return Posed.of(kick.rotmat_TJ33, kick.trans_T3.numpy())


@pytest.fixture(scope="module")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of characters as other programs write them, each with a nod of its own."""
    folder = tmp_path_factory.mktemp("rigs")
    for name, character in CHARACTERS.items():
        write_character(folder / name, character)
    return folder


@pytest.fixture(scope="module")
def worn(rigs: Path, kick: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the same with a kick on them."""
    folder = tmp_path_factory.mktemp("worn")
    for name in RIGS:
        (folder / name).write_bytes(put_on(rigs / name, kick))
    return folder


def put_on(character: Path, motion: Motion, joint_map: str = "") -> bytes:
    """A character's bytes with a motion on it, called kick."""
    rotmat, trans = motion.rotmat_TJ33.double().numpy(), motion.trans_T3.double().numpy()
    return Character.read(character, joint_map).wear(rotmat, trans, fps=motion.fps, name="kick").content


def edited(path: Path, change: Callable[[Document], object], into: Path) -> Path:
    """A GLB whose JSON is changed."""
    text, binary = chunks_of(path.read_bytes())
    document = json.loads(bytes(text))
    change(document)
    into.write_bytes(glb_bytes(document, bytes(binary)))
    return into


@pytest.mark.parametrize("name", RIGS)
def test_a_motion_on_a_rig_comes_back_the_same_and_stands_on_the_floor(
    worn: Path, name: str, kick: Motion, source: Posed
) -> None:
    recording = read_recording(worn / name / "kick")
    back = Posed.of_recording(recording)
    assert (len(recording.trans_T3), recording.fps) == (len(kick.trans_T3), round(kick.fps))
    assert degrees_between(source.place, back.place) < 0.1
    assert recording.account["degrees"] < 0.1
    assert np.abs(back.place["pelvis"] - source.place["pelvis"])[:, :2].max() < 0.005  # legs' lengths are ours again
    assert abs(np.percentile(back.low_T, 5)) < 0.005


def test_a_rig_of_the_embedded_body_gives_the_very_motion_back(worn: Path, source: Posed) -> None:
    back = Posed.of_recording(read_recording(worn / "embedded.glb/kick"))
    assert max(np.abs(back.place[name] - place).max() for name, place in source.place.items()) < 1e-4


@pytest.mark.parametrize("name", RIGS)
def test_all_else_of_a_character_stays_as_it_was(rigs: Path, worn: Path, name: str) -> None:
    (before, old), (after, new) = (chunks_of((folder / name).read_bytes()) for folder in (rigs, worn))
    first, second = (json.loads(bytes(each)) for each in (before, after))
    assert bytes(new[: len(old)]) == bytes(old)
    made = second["animations"].pop(0)
    assert made["name"] == "kick"
    for kind in ("accessors", "bufferViews"):
        second[kind] = second[kind][: len(first[kind])]
    second["buffers"] = first["buffers"]
    assert second == first
    moved = {channel["target"]["node"] for channel in made["channels"]}
    names = {first["nodes"][node]["name"] for node in moved}
    assert len(names) == 22
    assert not any(each.startswith(("extra", "Armature")) for each in names)


def node_environment(*packages: str) -> None:
    """Skips by name where node or a package of the viewer's folder is missing."""
    missing = [each for each in packages if not (VIEWER / "node_modules" / each).is_dir()]
    if not shutil.which("node") or missing:
        pytest.skip(f"node or {', '.join(missing)} is not installed: npm ci --prefix workflows/viewer")


VALIDATE = """
import validator from 'gltf-validator'; import fs from 'fs';
for (const file of process.argv.slice(1)) {
  const told = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)));
  console.log(JSON.stringify(told.issues));
}
"""
THREE = """
import * as THREE from 'three'; import fs from 'fs';
import { GLTFLoader } from 'three/examples/jsm/loaders/GLTFLoader.js';
globalThis.self = globalThis;
const [file, clip, frames, fps] = process.argv.slice(1);
const bytes = fs.readFileSync(file), out = [], point = new THREE.Vector3();
const end = bytes.byteOffset + bytes.length;
const gltf = await new GLTFLoader().parseAsync(bytes.buffer.slice(bytes.byteOffset, end), '');
const mixer = new THREE.AnimationMixer(gltf.scene);
mixer.clipAction(gltf.animations.find((each) => each.name === clip)).setLoop(THREE.LoopOnce).play();
for (let frame = 0; frame < frames; frame++) {
  mixer.setTime(Math.min(frame / fps, mixer._actions[0].getClip().duration - 1e-5));
  gltf.scene.updateMatrixWorld(true);
  const bones = {};
  let low = Infinity;
  gltf.scene.traverse((node) => {
    if (node.isBone) bones[node.userData.name ?? node.name] = node.getWorldPosition(new THREE.Vector3()).toArray();
    if (node.isSkinnedMesh)
      for (let vertex = 0; vertex < node.geometry.attributes.position.count; vertex++)
        low = Math.min(low, node.getVertexPosition(vertex, point).applyMatrix4(node.matrixWorld).y);
  });
  out.push({ bones, low });
}
console.log(JSON.stringify(out));
"""


def node(script: str, *words: object) -> list[Any]:
    """What a script of node prints, a JSON a line."""
    command = ["node", "--input-type=module", "-e", script, *map(str, words)]
    done = subprocess.run(command, cwd=VIEWER, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_khronos_validator_finds_no_error_that_a_character_did_not_bring(rigs: Path, worn: Path) -> None:
    node_environment("gltf-validator")
    issues = node(VALIDATE, *(folder / name for folder in (rigs, worn) for name in RIGS))
    for before, after in zip(issues[: len(RIGS)], issues[len(RIGS) :], strict=True):
        assert after["numErrors"] == 0
        assert after["messages"] == before["messages"]  # empty nodes, and VRM's name, which the validator does not know


@pytest.mark.parametrize("name", ["mixamo.glb", "vrm1.vrm", "embedded.glb"])
def test_three_js_plays_a_character_whose_bones_point_as_the_motions_do(
    worn: Path, name: str, kick: Motion, source: Posed
) -> None:
    node_environment("three")
    ours = {their: joint for joint, their in FORMS[CHARACTERS[name].form].names.items()}
    (frames,) = node(THREE, worn / name, "kick", len(kick.trans_T3), kick.fps)
    theirs = {
        ours[bone]: np.array([frame["bones"][bone] for frame in frames]) for bone in frames[0]["bones"] if bone in ours
    }
    y_up = {joint: place @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) for joint, place in source.place.items()}
    bones = [bone for bone in BONES if bone != ("right_shoulder", "left_shoulder")]
    assert degrees_between(y_up, theirs, bones) < 1.0
    low_T = np.array([frame["low"] for frame in frames])
    assert abs(np.percentile(low_T, 5) - np.percentile(source.low_T, 5)) < 0.01  # metres: feet stand where ours do
    assert low_T.min() > source.low_T.min() - 0.03


@pytest.mark.parametrize(
    "form",
    ["Mixamo", "ACCAD", "Bandai-Namco", "Rigify", "SFU, z up", "3ds Max Biped", "Biovision", "names that say nothing"],
)
def test_a_motion_on_a_bvh_comes_back_the_same(tmp_path: Path, form: str, kick: Motion, source: Posed) -> None:
    walk = read(WALK)
    text = bvh_text(FORMS[form], walk.rotmat_TJ33.numpy(), walk.trans_T3.numpy() + rest_places()["pelvis"])
    (tmp_path / "rig.bvh").write_text(text)
    (tmp_path / "worn.bvh").write_bytes(put_on(tmp_path / "rig.bvh", kick))
    recording = read_recording(tmp_path / "worn.bvh")
    bones = [bone for bone in BONES if bone != ("right_shoulder", "left_shoulder")]
    assert degrees_between(source.place, Posed.of_recording(recording).place, bones) < 0.1
    assert len(recording.trans_T3) == len(kick.trans_T3)
    head = text[: text.index("MOTION")]
    assert (tmp_path / "worn.bvh").read_text().startswith(head)


def test_a_bvh_of_one_pose_is_a_character_though_no_motion(tmp_path: Path, kick: Motion, source: Posed) -> None:
    still = np.repeat(np.eye(3)[None, None], 24, axis=1)
    still[0, 0] = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    (tmp_path / "pose.bvh").write_text(bvh_text(FORMS["Mixamo"], still, np.array([[0, 0, 0.95]])))
    with pytest.raises(MotionError, match="one frame, a pose and no motion"):
        read_recording(tmp_path / "pose.bvh")
    (tmp_path / "worn.bvh").write_bytes(put_on(tmp_path / "pose.bvh", kick))
    back = Posed.of_recording(read_recording(tmp_path / "worn.bvh"))
    assert degrees_between(source.place, back.place) < 0.1


def test_vrma_goes_out_and_comes_back(tmp_path: Path, kick: Motion, source: Posed) -> None:
    write(tmp_path / "kick.vrma", kick)
    recording = read_recording(tmp_path / "kick.vrma")
    assert degrees_between(source.place, Posed.of_recording(recording).place) < 0.01
    assert (recording.account["by"], recording.account["skeleton"]) == ("VRM", "VRM")
    document = read_gltf((tmp_path / "kick.vrma").read_bytes()).document
    assert document["extensions"]["VRMC_vrm_animation"]["humanoid"]["humanBones"]["hips"] == {"node": 0}


def test_hands_of_a_rig_whose_arms_hang_go_on_straight_from_its_forearms(rigs: Path) -> None:
    gltf = read_gltf((rigs / "unreal.glb").read_bytes())
    nodes = nodes_of(gltf)
    place, linear = world_of(nodes.tree.parents, nodes.rest)
    rig = rig_of(nodes.tree, understood(nodes, place, {}), place[0], turns_of(linear[0]), up="y")
    local = rig.solved.local_TJ33[0]
    degrees = {joint: np.degrees(Rotation.from_matrix(local[JOINTS.index(joint)]).magnitude()) for joint in JOINTS}
    assert degrees["left_wrist"] == pytest.approx(0, abs=0.1)
    assert degrees["right_wrist"] == pytest.approx(0, abs=0.1)
    assert degrees["left_shoulder"] == pytest.approx(50, abs=2)


# --- sampling, against scipy


@pytest.mark.parametrize("seed", range(3))
def test_samplers_are_glTFs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    time = np.cumsum(generator.uniform(0.05, 0.4, 9)) + 0.3
    when = np.sort(generator.uniform(time[0], time[-1], 50))
    turns = Rotation.random(9, rng=generator)
    slerped = Track(0, "rotation", "LINEAR", time, turns.as_quat()).sampled(when)
    apart = (Rotation.from_quat(slerped).inv() * Slerp(time, turns)(when)).magnitude()
    assert apart.max() < 1e-9
    values, into, out = generator.normal(size=(3, 9, 3))
    cubic = Track(0, "translation", "CUBICSPLINE", time, np.stack((into, values, out), axis=1).reshape(27, 3))
    segment = np.searchsorted(time, when, side="right").clip(1, 8)
    expected = [
        CubicHermiteSpline(time[k - 1 : k + 1], values[k - 1 : k + 1], [out[k - 1], into[k]])(at)
        for k, at in zip(segment, when, strict=True)
    ]
    np.testing.assert_allclose(cubic.sampled(when), expected, atol=1e-9)
    steps = Track(0, "scale", "STEP", time, values).sampled(np.array([0.0, *time, 99.0]))
    np.testing.assert_array_equal(steps, [values[0], *values, values[-1]])


# --- several clips, files beside, and what is refused


def test_every_clip_of_a_file_is_a_sequence_named_by_file_and_clip(
    worn: Path, rigs: Path, tmp_path: Path, kick: Motion
) -> None:
    shutil.copy(worn / "mixamo.glb", tmp_path / "clips.glb")
    write(tmp_path / "one.glb", kick)
    write_character(tmp_path / "model.vrm", CHARACTERS["vrm1.vrm"], clip=False)
    assert [each.name for each in recordings(tmp_path)] == ["clips.glb/kick", "clips.glb/nod", "model.vrm", "one.glb"]
    store = tmp_path / "store.zarr"
    done = CliRunner().invoke(cli, ["prepare", str(tmp_path), str(store), "--scheduler", "sync"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in Path(f"{store}.manifest.jsonl").read_text().splitlines()]
    assert {line["file"]: line["outcome"] for line in lines} == {
        "clips.glb/kick": "done",
        "clips.glb/nod": "done",
        "one.glb": "done",
        "model.vrm": "passed over",
    }
    read_as = lines[0]["read_as"]
    assert (read_as["skeleton"], read_as["up"]) == ("Mixamo", "y")
    assert read_as["degrees"] < 0.1
    with pytest.raises(MotionError, match="2 clips in it: name one of them as FILE/CLIP: kick, nod"):
        read(tmp_path / "clips.glb")
    with pytest.raises(NoMotion, match="a model without an animation"):
        parse_motion((tmp_path / "model.vrm").read_bytes(), "", None, {})


def test_clips_of_one_name_are_told_apart() -> None:
    document = {"asset": {"version": "2.0"}, "animations": [{"name": "a/b"}, {"name": "a/b"}, {}]}
    assert clip_names(read_gltf(json.dumps(document).encode())) == ("a_b", "a_b#2", "clip 2")


def external(path: Path, uri: str, into: Path) -> Path:
    """A GLB as a .gltf whose buffer is at a URI."""
    text, _ = chunks_of(path.read_bytes())
    document = json.loads(bytes(text))
    document["buffers"][0]["uri"] = uri
    into.write_text(json.dumps(document))
    return into


def test_a_gltf_has_its_numbers_beside_it_or_in_itself_and_nowhere_else(
    tmp_path: Path, kick: Motion, source: Posed
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    write(folder / "a.glb", kick)
    binary = bytes(chunks_of((folder / "a.glb").read_bytes())[1])
    (folder / "some numbers.bin").write_bytes(binary)
    (tmp_path / "secret.bin").write_bytes(binary)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    inside = f"data:application/octet-stream;base64,{base64.b64encode(binary).decode()}"
    for uri in ("some%20numbers.bin", inside):
        back = Posed.of_recording(read_recording(external(folder / "a.glb", uri, folder / "b.gltf")))
        assert degrees_between(source.place, back.place) < 0.01
    leading_out = ("../secret.bin", str(tmp_path / "secret.bin"), "%2e%2e/secret.bin", "link.bin", "..\\secret.bin")
    for uri in (*leading_out, "https://example.org/a.bin", "file:///etc/passwd"):
        with pytest.raises(MotionError, match="does not lie beside it"):
            read_recording(external(folder / "a.glb", uri, folder / "b.gltf"))
    with pytest.raises(MotionError, match="not beside it"):
        beside(folder)("none.bin")
    with pytest.raises(MotionError, match="a file of its own: unpack it"):
        parse_motion((folder / "b.gltf").read_bytes().replace(b"file:///etc/passwd", b"c.bin"), "", None, {})


def test_packed_numbers_are_refused_by_name(worn: Path, tmp_path: Path) -> None:
    def sparse(document: Document) -> None:
        accessor = document["accessors"][document["animations"][0]["samplers"][0]["output"]]
        accessor["sparse"] = {"count": 1}

    def meshopt(document: Document) -> None:
        accessor = document["accessors"][document["animations"][0]["samplers"][0]["output"]]
        view = document["bufferViews"][accessor["bufferView"]]
        view["extensions"] = {"EXT_meshopt_compression": {}}

    for change, words in ((sparse, "is sparse"), (meshopt, "packed by EXT_meshopt_compression")):
        path = edited(worn / "embedded.glb", change, tmp_path / "packed.glb")
        with pytest.raises(MotionError, match=words):
            read_recording(path / "kick")


def test_quantized_rotations_are_read(worn: Path, tmp_path: Path, source: Posed) -> None:
    text, binary = chunks_of((worn / "vrm1.vrm").read_bytes())
    document, grown = json.loads(bytes(text)), bytearray(binary)
    for channel in document["animations"][0]["channels"]:
        if channel["target"]["path"] == "rotation":
            accessor = document["accessors"][document["animations"][0]["samplers"][channel["sampler"]]["output"]]
            view = document["bufferViews"][accessor["bufferView"]]
            values = np.frombuffer(binary, "<f4", 4 * accessor["count"], view["byteOffset"])
            view |= {"byteOffset": len(grown), "byteLength": 2 * values.size}
            grown += np.round(32767 * values).astype("<i2").tobytes()
            accessor |= {"componentType": 5122, "normalized": True}
    document["buffers"][0]["byteLength"] = len(grown)
    (tmp_path / "small.glb").write_bytes(glb_bytes(document, grown))
    back = Posed.of_recording(read_recording(tmp_path / "small.glb/kick"))
    assert degrees_between(source.place, back.place) < 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: d.pop("skins") and d.pop("extensions") and [n.pop("children", 0) for n in d["nodes"]],
            "no skeleton in it",
        ),
        (lambda d: [n.update(name=f"part {k}") for k, n in enumerate(d["nodes"]) if "Leg" in n.get("name", "")], ""),
        (lambda d: d["extensions"]["VRMC_vrm"]["humanoid"]["humanBones"].pop("hips"), "names no hips"),
        (lambda d: [n.update(scale=[-1, 1, 1]) for n in d["nodes"] if n.get("name") == "J_Bip_L_UpperLeg"], "mirrored"),
        (lambda d: d["nodes"][3].update(children=[0]), "lie below themselves|another's too"),
        (lambda d: d["asset"].update(version="1.0"), "expected glTF 2.0"),
        (lambda d: d["buffers"][0].update(uri="a.bin"), "lies in another file"),
    ],
)
def test_a_character_that_cannot_wear_a_motion_says_why_and_nothing_is_written(
    rigs: Path, tmp_path: Path, change: Callable[[Document], object], words: str
) -> None:
    path = edited(rigs / "vrm1.vrm", change, tmp_path / "rig.vrm")
    words_ = ["export", str(KICK), "--character", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words_)
    if not words:  # VRM's own word goes before names
        assert done.exit_code == 0, done.output
        return
    assert done.exit_code == 1
    assert any(word in done.output for word in words.split("|")), done.output
    assert "rig.vrm" in done.output
    assert not (tmp_path / "out").exists()


def test_an_unmappable_rig_names_what_is_missing_and_a_map_mends_it(
    rigs: Path, tmp_path: Path, kick: Motion, source: Posed
) -> None:
    theirs = FORMS["Mixamo"].names
    legs = [theirs[f"{side}_{part}"] for side in ("left", "right") for part in ("hip", "knee")]
    strange = {name: f"x{number}" for number, name in enumerate((theirs["pelvis"], *legs))}

    def renamed(document: Document) -> None:
        for node in document["nodes"]:
            if node.get("name") == theirs["left_ankle"]:  # legs unlike: the tree's shape says nothing either
                node["translation"] = [2 * each for each in node["translation"]]
            node["name"] = strange.get(node.get("name"), node.get("name"))

    path = edited(rigs / "mixamo.glb", renamed, tmp_path / "rig.glb")
    with pytest.raises(MotionError, match="rig.glb: no joint for left_ankle, left_hip, left_knee.*mclip skeleton FILE"):
        put_on(path, kick)
    lines = [f'{joint} = "{strange.get(name, name)}"' for joint, name in theirs.items()]
    (tmp_path / "map.toml").write_text("\n".join(lines))
    (tmp_path / "worn.glb").write_bytes(put_on(path, kick, str(tmp_path / "map.toml")))
    recording = read(tmp_path / "worn.glb/kick", asked=Asked(joint_map=str(tmp_path / "map.toml"))).recording
    assert recording
    assert degrees_between(source.place, Posed.of_recording(recording).place) < 0.1


def invoked(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)])


DECODING = {
    "generate": ("a kick",),
    "generate --sequence": ("a kick @1", "walk @1", "--sequence"),
    "edit": ("--base", KICK, "--from", KICK, "--to", WALK, "--scale", 1),
    "interpolate": (KICK, WALK, "--steps", 2),
    "style": ("--content", KICK, "--style", WALK, "--scale", 1),
}


@pytest.mark.parametrize(("command", "words"), DECODING.items())
def test_what_a_run_decodes_is_put_on_a_character_beside_the_other_files(
    run: Run, rigs: Path, tmp_path: Path, command: str, words: tuple[object, ...]
) -> None:
    asked = (command.split()[0], run.folder, *words, "--format", "npz", "--out", tmp_path)
    made = invoked(*asked, "--character", rigs / "mixamo.glb")
    assert made.exit_code == 0, made.output
    assert "on mixamo.glb: skeleton Mixamo" in made.output
    for entry in json.loads((tmp_path / "motions.json").read_text())["motions"]:
        plain, worn = entry["files"]
        assert worn == plain.replace(".npz", "-mixamo.glb")
        there = Posed.of_recording(read_recording(tmp_path / worn / Path(plain).stem))
        assert degrees_between(Posed.of_recording(read_recording(tmp_path / plain)).place, there.place) < 0.1
        assert abs(np.percentile(there.low_T, 5)) < 0.005


def test_a_folder_of_one_character_is_not_mixed_with_another(run: Run, rigs: Path, tmp_path: Path) -> None:
    prompts = prompts_of(["a kick"], torch.ones(1, 384))
    mixamo, vrm = (Character.read(rigs / name) for name in ("mixamo.glb", "vrm1.vrm"))
    write_kick = functools.partial(write_motions, run, "generate", prompts, tmp_path, frames=5, formats=("npz",))
    assert "1 motions" in write_kick(character=mixamo)
    assert "0 of 1" in write_kick(character=mixamo)
    with pytest.raises(ValueError, match="character mixamo.glb, not vrm1.vrm, another character"):
        write_kick(character=vrm)
    assert (tmp_path / "00-a-kick-mixamo.glb").exists()
    write_kick(character=vrm, replace=True)
    assert sorted(each.name for each in tmp_path.glob("00*")) == ["00-a-kick-vrm1.vrm", "00-a-kick.npz"]
    # A manifest that somebody wrote by hand deletes nothing but motions.
    (tmp_path / "00-a-kick-notes.txt").write_text("mine")
    manifest = tmp_path / "motions.json"
    manifest.write_text(manifest.read_text().replace('"vrm1.vrm"', '"notes.txt"'))
    with pytest.raises(ValueError, match=r"motions.json: damaged \(request.character: 'notes.txt'"):
        write_kick(replace=True)
    assert (tmp_path / "00-a-kick-notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", [*DECODING, "studio"])
def test_a_character_that_will_not_do_is_told_before_a_run_is_opened(rigs: Path, tmp_path: Path, command: str) -> None:
    path = edited(
        rigs / "vrm1.vrm",
        lambda d: d["extensions"]["VRMC_vrm"]["humanoid"]["humanBones"].pop("hips"),
        tmp_path / "rig.vrm",
    )
    words = (command.split()[0], tmp_path / "no run", *DECODING.get(command, ()))
    for character, told in (
        (path, "rig.vrm: a VRM whose humanoid names no hips"),
        (tmp_path / "hero.fbx", "an FBX by Blender"),
    ):
        done = invoked(*words, "--character", character)
        assert done.exit_code == 1
        assert told in done.output
    if command == "studio":  # elsewhere it may be a motion file's
        unused = invoked(*words, "--map", tmp_path / "map.toml")
        assert unused.exit_code == 2
        assert "--map says what joints of a --character are called: name one" in unused.output
    assert [each.name for each in tmp_path.iterdir()] == ["rig.vrm"]


def test_a_body_on_four_legs_is_no_character(rigs: Path, tmp_path: Path, kick: Motion) -> None:
    def on_four_legs(document: Document) -> None:
        node = {each.get("name"): each for each in document["nodes"]}
        node["Pelvis"]["rotation"] = Rotation.from_euler("x", 90, degrees=True).as_quat().tolist()
        for side, sign in (("L", 1), ("R", -1)):
            node[f"{side}_Hip"]["rotation"] = Rotation.from_euler("x", -90, degrees=True).as_quat().tolist()
            turn = Rotation.from_euler("x", -90, degrees=True) * Rotation.from_euler("z", -90 * sign, degrees=True)
            node[f"{side}_Shoulder"]["rotation"] = turn.as_quat().tolist()
        node["extra_head"]["name"] = "Tail"

    path = edited(rigs / "embedded.glb", on_four_legs, tmp_path / "dog.glb")
    document = read_gltf(path.read_bytes()).document
    document["skins"][0]["joints"].append(next(k for k, n in enumerate(document["nodes"]) if n.get("name") == "Tail"))
    path.write_bytes(glb_bytes(document, bytes(chunks_of(path.read_bytes())[1])))
    with pytest.raises(MotionError, match="on four legs"):
        put_on(path, kick)


def test_two_thousand_damaged_files_are_read_or_refused(rigs: Path, kick: Motion) -> None:
    short = Motion(kick.rotmat_TJ33[:4], kick.trans_T3[:4], kick.fps)
    whole = {name: put_on(rigs / name, short) for name in ("embedded.glb", "vrm0.vrm")}
    generator, outcomes = np.random.default_rng(7), {"read": 0, "refused": 0}
    for number in range(2000):
        content = bytearray(whole[("embedded.glb", "vrm0.vrm")[number % 2]])
        text, binary = chunks_of(bytes(content))
        if number % 4 < 2:  # bytes anywhere, mostly of the numbers
            for at in generator.integers(0, len(content), generator.integers(1, 30)):
                content[at] = generator.integers(256)
            if number % 3 == 0:
                del content[int(generator.integers(len(content))) :]
        else:  # values of the JSON
            document = json.loads(bytes(text))
            for _ in range(int(generator.integers(1, 4))):
                damage(document, generator)
            content = bytearray(glb_bytes(document, bytes(binary)))
        try:
            parse_motion(bytes(content), "kick", None, {})
            outcomes["read"] += 1
        except MotionError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes


ODD = (None, -1, 2**40, 1e308, "x", [], {}, True, [0] * 4, "NaN", 0)


def damage(document: Any, generator: np.random.Generator) -> None:
    """Put something odd in the place of one value, somewhere in a JSON."""
    while isinstance(document, dict | list) and document:
        keys: Any = list(document) if isinstance(document, dict) else range(len(document))
        key = keys[int(generator.integers(len(keys)))]
        if not isinstance(document[key], dict | list) or not document[key] or generator.random() < 0.15:
            document[key] = ODD[int(generator.integers(len(ODD)))]
            return
        document = document[key]
