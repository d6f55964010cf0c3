"""The names that Python programs begin with: they give what the commands give, and refuse what is wrong in a line."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import mclip.pipeline
import mclip.training
from mclip.cli import cli
from mclip.pipeline import open_store
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.schema import FAILED, StoreError
from mclip.pipeline.store.store import Store
from mclip.training import Motion, MotionClip
from mclip.training.latent.space import motion_vector, text_vectors
from mclip.training.model.run import Run, RunError

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"
KICK = MOTIONS / "EMBEDDED/kick/kick_poses.npz"


@pytest.fixture(scope="module")
def model(run: Run) -> MotionClip:
    return MotionClip.from_pretrained(run.folder)


def told(*words: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def made_by(folder: Path, *words: object) -> list[dict[str, np.ndarray]]:
    """The motions that a command writes into a folder, in their order."""
    told(*words, "--out", folder, "--format", "npz")
    return [arrays_of(file) for file in sorted(folder.glob("*.npz"))]


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as opened:
        return dict(opened)


def assert_saved_as(motion: Motion, wanted: dict[str, np.ndarray], folder: Path) -> None:
    """The motion's file holds what the command's does, to the last bit."""
    motion.save(folder / "mine.npz")
    found = arrays_of(folder / "mine.npz")
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert np.array_equal(found[name], wanted[name]), name


def test_the_names_are_imported_when_they_are_asked_for() -> None:
    code = (
        "import sys, mclip.pipeline, mclip.training; before = {*sys.modules}; from mclip.training import MotionClip\n"
    )
    code += "print(sorted(before & {HEAVY}), sorted({*sys.modules} & {HEAVY}))".replace("HEAVY", "'torch', 'zarr'")
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == "[] ['torch', 'zarr']"


@pytest.mark.parametrize("package", [mclip.pipeline, mclip.training])
def test_every_name_that_a_package_offers_is_there_and_no_other(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'MotionClop'"):
        _ = package.MotionClop


@pytest.mark.parametrize("frames", [20, 90])  # of a part of a crop, and of a motion that is joined out of crops
def test_generate_is_the_commands(model: MotionClip, tmp_path: Path, frames: int) -> None:
    texts = ["a person walks", "karate"]
    command = made_by(tmp_path / "out", "generate", model.run.folder, *texts, "--frames", frames, "--device", "cpu")
    for motion, wanted in zip(model.generate(texts, frames), command, strict=True):
        assert_saved_as(motion, wanted, tmp_path)
    alone = model.generate(texts[1], frames)
    assert np.allclose(alone.trans_T3.numpy(), command[1]["trans"], atol=1e-4)  # metres: an encoder's batch rounds


def test_a_seed_and_plain_are_the_commands(model: MotionClip, tmp_path: Path) -> None:
    words = ("generate", model.run.folder, "a person walks", "--frames", 20, "--device", "cpu")
    (seeded,) = made_by(tmp_path / "seeded", *words, "--seed", 7)
    (plain,) = made_by(tmp_path / "plain", *words, "--plain")
    assert_saved_as(model.generate("a person walks", 20, seed=7), seeded, tmp_path)
    assert_saved_as(model.generate("a person walks", 20, plain=True), plain, tmp_path)
    assert not np.array_equal(seeded["poses"], plain["poses"])


def test_decoding_a_texts_vector_is_generating_it(model: MotionClip) -> None:
    z_NC = model.encode_text(["a person walks", "karate"])
    one, other = model.decode(z_NC, frames=20)
    alone = model.decode(z_NC[1].numpy(), frames=20)
    generated = model.generate(["a person walks", "karate"], 20)
    assert isinstance(alone, Motion)
    assert torch.equal(alone.rotmat_TJ33, other.rotmat_TJ33)
    assert torch.equal(generated[1].rotmat_TJ33, other.rotmat_TJ33)
    assert not torch.equal(one.rotmat_TJ33, other.rotmat_TJ33)
    assert len(model.decode(z_NC[0]).trans_T3) == model.run.crop


def test_edit_is_the_commands(model: MotionClip, store: Store, tmp_path: Path) -> None:
    parts = ("--base", "store:walk", "--from", "walk", "--to", "kick", "--scale", 0.5, "--store", store.url)
    (wanted,) = made_by(tmp_path / "out", "edit", model.run.folder, *parts, "--device", "cpu")
    assert_saved_as(model.edit("store:walk", "walk", "kick", 0.5, store=store), wanted, tmp_path)


@pytest.mark.parametrize("query", ["a karate kick", str(WALK), "store:kick"])
def test_search_finds_what_the_command_finds(model: MotionClip, store: Store, query: str) -> None:
    words = ("search", model.run.folder, query, "--store", store.url, "--top", 2, "--json", "--device", "cpu")
    assert [asdict(hit) for hit in model.search(store, query, 2)] == json.loads(told(*words))["hits"]


def test_a_motion_in_memory_finds_itself_in_the_store(model: MotionClip, store: Store) -> None:
    motion = Motion.from_rot6d(*store.motion("kick"), fps=store.fps)
    best, *_ = model.search(store, motion)
    assert best.clip == "EMBEDDED/kick/kick_poses.npz"
    assert best.score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("classes", [None, ["walk", "kick", "stand up"]])
def test_recognise_names_what_the_command_names(model: MotionClip, tmp_path: Path, classes: list[str] | None) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(classes or ()))
    named = ("--classes", tmp_path / "classes.txt") if classes else ()
    words = ("recognise", model.run.folder, KICK, "--top", 3, "--json", "--device", "cpu", *named)
    (wanted,) = json.loads(told(*words)).values()
    assert json.loads(json.dumps([asdict(seen) for seen in model.recognise(KICK, classes, 3)])) == wanted
    in_memory = model.recognise(Motion.load(KICK), classes, 3)
    assert [[name for name, _ in seen.classes] for seen in in_memory] == [
        [name for name, _ in seen["classes"]] for seen in wanted
    ]


def test_a_motion_in_memory_has_the_vector_of_its_file(model: MotionClip) -> None:
    wanted = motion_vector(model.run, KICK)
    assert torch.equal(model.encode_motion(KICK), wanted)
    motion = Motion.load(KICK)
    assert motion.fps != model.run.fps  # or slerping was never tried
    assert torch.allclose(model.encode_motion(motion), wanted, atol=1e-4)  # of numbers up to 1
    many = model.encode_motion([str(WALK), motion])
    assert many.shape == (2, len(wanted))
    assert torch.equal(many[1], model.encode_motion(motion))


def test_what_was_changed_in_a_loaded_motion_is_what_is_encoded(model: MotionClip) -> None:
    motion, other = Motion.load(WALK), Motion.load(KICK)
    frames = min(len(motion.trans_T3), len(other.trans_T3))
    changed = replace(motion, rotmat_TJ33=other.rotmat_TJ33[:frames], trans_T3=other.trans_T3[:frames], fps=other.fps)
    wanted = Motion(other.rotmat_TJ33[:frames], other.trans_T3[:frames], other.fps)
    assert torch.equal(model.encode_motion(changed), model.encode_motion(wanted))


def test_a_plain_text_is_the_encoders_own(model: MotionClip) -> None:
    own = text_vectors(model.run, ["a person walks"])[0]
    cosine = torch.cosine_similarity
    plain, carried = (model.encode_text("a person walks", plain=each) for each in (True, False))
    assert float(cosine(plain, own, dim=0)) == pytest.approx(1, abs=1e-6)
    assert float(cosine(carried, own, dim=0)) < 0.99


def at_rest(frames: int) -> torch.Tensor:
    return torch.eye(3).expand(frames, 24, 3, 3).clone()


def test_joints_are_places_in_the_world() -> None:
    rest_J3, shift = load_body("low").joints_J3, torch.tensor([1.0, 2.0, 3.0])
    rotmat = at_rest(2)
    elbow, wrist = (JOINTS.index(f"left_{name}") for name in ("elbow", "wrist"))
    rotmat[1, elbow] = axis_angle_to_matrix(torch.tensor([0, 0, torch.pi / 2]))
    found = Motion(rotmat, shift.expand(2, 3), 30.0).joints()
    assert torch.allclose(found[0], rest_J3 + shift, atol=1e-6)
    # A quarter turn about z leads (x, y) to (-y, x); only what hangs on the elbow moves.
    x, y, z = (rest_J3[wrist] - rest_J3[elbow]).tolist()
    assert torch.allclose(found[1, wrist], found[0, elbow] + torch.tensor([-y, x, z]), atol=1e-6)
    assert torch.allclose(found[1, :elbow], found[0, :elbow])


@pytest.mark.parametrize("ending", ["npz", "bvh"])
def test_a_motion_comes_back_from_its_file(tmp_path: Path, ending: str) -> None:
    motion = Motion.load(WALK, fps=30.0)
    motion.save(tmp_path / f"walk.{ending}")
    again = Motion.load(str(tmp_path / f"walk.{ending}"))
    assert again.fps == pytest.approx(30.0, abs=1e-3)
    assert torch.allclose(again.joints(), motion.joints(), atol=1e-3)  # 1 mm: a BVH's numbers are text


def test_a_stores_sequence_is_its_file_at_the_stores_rate(store: Store) -> None:
    motion = Motion.from_rot6d(*store.motion("kick"), fps=store.fps)
    wanted = Motion.load(KICK, fps=store.fps)
    assert torch.allclose(motion.joints(), wanted.joints(), atol=1e-4)


def test_a_store_tells_its_sequences_and_windows(store: Store, long_store: Store) -> None:
    opened = open_store(long_store.url)
    assert opened.sequences == [
        f"SET/{name}_poses.npz" for name in ("01/changing", "02/the end", "03/hop", "04/nobody_said")
    ]
    windows = opened.windows()
    assert windows.sequence.tolist() == [0, 0, 0, 1, 2, 3]
    assert windows.frames.tolist() == [100, 100, 60, 80, 15, 100]  # of LONG's frames; a rest of 30 is none
    assert windows.row[:3].tolist() == [0, 100, 200]
    assert [len(opened.windows(split=split).row) for split in ("train", "val", "test")] == [6, 0, 0]


def test_a_sequence_is_found_by_what_its_file_is_called(tmp_path: Path, write_amass: Any) -> None:
    for number, name in enumerate(("02/02_05", "102/102_05")):
        write_amass(tmp_path / f"AMASS/CMU/{name}_poses.npz", 60 + 30 * number)
    made = open_store(tmp_path / "s.zarr", create=True)
    prepare(tmp_path / "AMASS", made, labels=Labels(), options=PrepareOptions())
    assert [len(made.motion(name)[1]) for name in ("02_05", "102_05", "CMU/02/02_05_poses.npz")] == [60, 90, 60]
    with pytest.raises(StoreError, match="2 sequences hold '_05': CMU/02/02_05_poses.npz, CMU/102/102_05_poses.npz"):
        made.motion("_05")
    made.write("sequences/done", np.array([FAILED, 1], np.uint8))
    with pytest.raises(StoreError, match="CMU/02/02_05_poses.npz has no motion: it is failed"):
        made.motion("02_05")


def walking(frames: int = 4) -> Motion:
    return Motion(at_rest(frames), torch.zeros(frames, 3), 30.0)


REFUSED = {
    "a folder without a model": (lambda m, s: MotionClip.from_pretrained(s.url), "is a store, expected a run"),
    "no folder": (lambda m, s: MotionClip.from_pretrained("nowhere"), r"nowhere: no run here \(no config.json\)"),
    "no checkpoint": (
        lambda m, s: MotionClip.from_pretrained(m.run.folder, checkpoint=99),
        "no such checkpoint; here are those of the steps",
    ),
    "an unknown ending": (lambda m, s: walking().save("a.fbx"), r"cannot write \.fbx; expected one of npz, bvh"),
    "a file that is none": (lambda m, s: Motion.load("none.bvh"), "none.bvh"),
    "no rate": (lambda m, s: Motion(at_rest(4), torch.zeros(4, 3), 0.0), "0 frames per second, expected 1 to 1000"),
    "a narrow vector": (
        lambda m, s: m.decode(torch.zeros(2, 7)),
        r"z: found the shape \(2, 7\), expected \(\d+,\) or \(N, \d+\)",
    ),
    "no numbers": (lambda m, s: m.decode(torch.nan * m.encode_text("walk")), "z: found NaN or infinity"),
    "one frame": (lambda m, s: m.generate("walk", 1), "1 frames, expected 2 to 5,000"),
    "an empty text": (lambda m, s: m.encode_text(["walk", " "]), "an empty text"),
    "no text": (lambda m, s: m.generate([]), "no text: name at least one"),
    "no motion": (lambda m, s: m.encode_motion([]), "no motion: name at least one"),
    "a clip without its store": (lambda m, s: m.encode_motion("store:walk"), "store:walk: a clip of a store"),
    "NaN in a motion": (
        lambda m, s: m.encode_motion(Motion(at_rest(4), torch.full((4, 3), torch.nan), 30.0)),
        "trans has NaN or infinity, first in frame 0",
    ),
    "nothing of a store": (lambda m, s: m.search(s, "walk", 0), "top is 0, expected at least 1"),
    "no class": (lambda m, s: m.recognise(WALK, []), "no text: name at least one"),
    "an unknown split": (lambda m, s: s.windows(split="dev"), "split 'dev': expected one of train, val, test"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_a_line(
    case: str, model: MotionClip, store: Store, tmp_path: Path, monkeypatch
) -> None:
    call, says = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says) as refused:
        call(model, store)
    assert "\n" not in str(refused.value)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("4, 22, 3, 3", "rotmat_TJ33: found the shape (4, 22, 3, 3), expected (4, 24, 3, 3) for 4 frames"),
        ("5, 24, 3, 3", "rotmat_TJ33: found the shape (5, 24, 3, 3), expected (4, 24, 3, 3) for 4 frames"),
    ],
)
def test_arrays_of_other_shapes_are_no_motion(shape: str, says: str) -> None:
    # In a process of its own: here the checks of jaxtyping come first, which users do not have.
    code = f"import torch; from mclip.training import Motion; Motion(torch.zeros({shape}), torch.zeros(4, 3), 30.0)"
    printed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert printed.stderr.splitlines()[-1] == f"ValueError: {says}"


def test_a_run_without_checkpoints_is_no_model(model: MotionClip, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text((model.run.folder / "config.json").read_text())
    with pytest.raises(RunError, match="no checkpoint yet"):
        MotionClip.from_pretrained(tmp_path / "run")
