"""Latent arithmetic, and folders of motions that appear whole and are made once."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mclip.cli import cli
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.prepare.amass import read_motion
from mclip.pipeline.store.store import Store
from mclip.training.latent import prompts
from mclip.training.latent.edits import between, edited, styled
from mclip.training.latent.prompts import (
    EDIT,
    INTERPOLATION,
    Prompt,
    prompts_in,
    prompts_of,
    styles,
    table_in,
    variations,
)
from mclip.training.latent.space import decode, latent, vectors_of
from mclip.training.model.run import Run
from mclip.training.show import folder as generate
from mclip.training.show.motion import motion_of_rows, read

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def test_texts_get_the_length_of_z(run: Run) -> None:
    vectors = torch.randn(3, 384) * torch.tensor([[0.1], [1.0], [9.0]])
    scaled = latent(run, vectors)
    assert torch.allclose(scaled.norm(dim=-1), torch.full((3,), run.z_length))
    assert torch.allclose(torch.nn.functional.cosine_similarity(scaled, vectors), torch.ones(3))


def test_an_imported_run_takes_vectors_as_they_are(run: Run) -> None:
    imported = replace(run, state={"step": 1})
    vectors = torch.randn(2, 384)
    assert torch.equal(latent(imported, vectors), vectors)


def test_editing_by_nothing_gives_the_base_and_by_all_the_goal() -> None:
    base, away, goal = torch.randn(3, 8)
    found = edited(base, away, goal, (0.0, 1.0, 0.5))
    assert torch.allclose(found[0], base)
    assert torch.allclose(found[1], base - away + goal)
    assert torch.allclose(found[2], base + (goal - away) / 2)


def test_interpolation_keeps_its_ends_and_steps_evenly() -> None:
    a, b = torch.randn(2, 8)
    found = between(a, b, 5)
    assert torch.allclose(found[0], a)
    assert torch.allclose(found[-1], b)
    assert torch.allclose(found.diff(dim=0), ((b - a) / 4).expand(4, 8), atol=1e-6)


def test_one_step_is_no_interpolation() -> None:
    with pytest.raises(ValueError, match="--steps is 1: expected at least 2"):
        between(torch.zeros(2), torch.ones(2), 1)


def test_a_motion_file_is_encoded_as_the_trainer_would(run: Run) -> None:
    rot6d, trans = resample(read_motion(WALK), 30.0)
    rows = torch.cat((rot6d, torch.nn.functional.pad(trans - trans[:1], (0, 3))[:, None]), dim=1)
    z = torch.nn.functional.normalize(run.model.encode(rows[None]), dim=-1)[0] * run.z_length
    assert torch.allclose(vectors_of(run, [str(WALK)])[0], z, atol=1e-4)


def test_texts_and_files_keep_their_order(run: Run, encoder: Encoder) -> None:
    mixed = vectors_of(run, ["kick", str(WALK), "walk"], encoder)
    alone = [vectors_of(run, [source], encoder)[0] for source in ("kick", str(WALK), "walk")]
    assert torch.allclose(mixed, torch.stack(alone), atol=1e-4)


@pytest.mark.parametrize(("text", "told"), [("  ", "an empty text"), ("go " * 1000, "expected at most 2,000")])
def test_texts_that_say_nothing_or_too_much_are_refused(run: Run, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        vectors_of(run, [text])


def test_many_motions_are_decoded_as_each_alone(run: Run) -> None:
    vectors = torch.randn(5, 384)
    together = decode(run, vectors, 12)
    for item in range(5):
        assert torch.allclose(together[item], decode(run, vectors[item : item + 1], 12)[0], atol=1e-5)


def test_an_imported_runs_ankle_row_is_not_taken_for_the_roots_path(run: Run) -> None:
    config = run.config | {"data": run.config["data"] | {"row25": "ankle"}}
    vectors = torch.randn(2, 384)
    own, imported = (decode(each, vectors, 6) for each in (run, replace(run, config=config)))
    assert own[:, :, 24, :3].abs().max() > 0
    assert imported[:, :, 24].eq(0).all()
    assert torch.equal(own[:, :, :24], imported[:, :, :24])


def test_file_names_are_plain_whatever_the_prompt() -> None:
    assert generate.file_name(3, "../../etc/Passwd!") == "03-etc-passwd"
    assert generate.file_name(0, "跳舞 💃") == "00"
    assert len(generate.file_name(7, "x" * 500)) < 50


def test_a_folder_is_written_once_whole_and_reads_back(run: Run, encoder: Encoder, tmp_path: Path) -> None:
    prompts = prompts_of(["a kick"], vectors_of(run, ["a kick"], encoder))
    formats = ("npz", "mp4", "gif", "png")
    line = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats)
    assert "1 motions of 10 frames done" in line
    made = json.loads((tmp_path / "motions.json").read_text())
    assert made["motions"] == [{"title": "a kick", "files": [f"00-a-kick.{suffix}" for suffix in formats]}]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*made["motions"][0]["files"], "motions.json", "sheet.png"]
    )
    rot6d, trans = resample(read_motion(tmp_path / "00-a-kick.npz"), 30.0)
    rows = decode(run, torch.from_numpy(prompts[0].vector_C)[None], 10)[0]
    expected = motion_of_rows(rows, 30.0)
    assert torch.allclose(rot6d_to_matrix(rot6d), expected.rotmat_TJ33, atol=1e-5)
    assert torch.allclose(trans, expected.trans_T3, atol=1e-5)
    again = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats)
    assert "0 of 1 motions to do" in again


def test_a_file_that_was_deleted_is_made_again(run: Run, tmp_path: Path) -> None:
    prompts = [Prompt("z", np.ones(384, np.float32))]
    generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    (tmp_path / "00-z.npz").unlink()
    assert "done" in generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    assert (tmp_path / "00-z.npz").exists()


def test_the_great_circle_turns_evenly_and_keeps_its_ends() -> None:
    a, b = torch.tensor([3.0, 0, 0]), torch.tensor([0.0, 5, 0])
    found = between(a, b, 4, path="circle")
    angles = torch.atan2(found[:, 1], found[:, 0])
    assert torch.allclose(angles, torch.deg2rad(torch.tensor([0.0, 30, 60, 90])), atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.tensor([3, 11 / 3, 13 / 3, 5.0]))
    assert torch.allclose(between(a, a, 3, path="circle"), a.expand(3, 3))
    with pytest.raises(ValueError, match="opposite vectors.*--path line"):
        between(a, -a, 3, path="circle")


def test_a_prompt_file_has_comments_blank_lines_and_any_script() -> None:
    lines = ["\ufeff# prompts\n", "\n", "walk  # slowly\n", "play a C# chord\n", "  跳舞 💃 \n", "يمشي إلى الوراء\n"]
    assert prompts_in(lines) == ["walk", "play a C# chord", "跳舞 💃", "يمشي إلى الوراء"]


def test_prompts_of_any_script_and_of_many_words_are_decoded(run: Run, encoder: Encoder) -> None:
    prompts = ["跳舞 💃", "يمشي إلى الوراء", "a person walks " * 120]
    vectors = vectors_of(run, prompts, encoder)
    assert torch.isfinite(decode(run, vectors, 4)).all()
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)


def test_the_releases_tables_are_read_as_they_are(tmp_path: Path) -> None:
    edits = tmp_path / "paper_edits.csv"
    edits.write_text("motion_source,base,v_start,v_end\ndata,walk,Standing,drink\ntext,Sit,Stand,Argue angrily\n")
    assert table_in(edits, EDIT) == [
        {"base": "store:walk", "v_start": "store:Standing", "v_end": "store:drink"},
        {"base": "Sit", "v_start": "Stand", "v_end": "Argue angrily"},
    ]
    interps = tmp_path / "paper_interps.csv"
    interps.write_text("start,end\nbowling,jogging\n")
    assert table_in(interps, INTERPOLATION) == [{"start": "bowling", "end": "jogging"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("base,v_start\nwalk,run\n", "no column v_end; expected the columns base, v_start, v_end"),
        ("base,v_start,v_end\nwalk,,run\n", "row 1 has no v_start"),
        ("base,v_start,v_end\nwalk,run\n", "row 1 has no v_end"),
        ("base,v_start,v_end\n", "no row in it"),
    ],
)
def test_a_table_that_lacks_something_is_named(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"a\.csv: {told}"):
        table_in(file, EDIT)


def test_every_row_is_edited_at_every_scale(run: Run, store: Store, encoder: Encoder) -> None:
    rows = [
        {"base": str(WALK), "v_start": "walk", "v_end": "run"},
        {"base": "sit", "v_start": "store:kick", "v_end": "store:walk"},
    ]
    made = prompts.edits(run, rows, (0.0, 1.0), store=store, encoder=encoder)
    assert [prompt.title for prompt in made] == [
        "walk + 0 (run - walk)", "walk + 1 (run - walk)", "sit + 0 (walk - kick)", "sit + 1 (walk - kick)",
    ]  # fmt: skip
    base, away, goal = vectors_of(run, ["sit", "store:kick", "store:walk"], encoder, store=store)
    assert np.allclose(made[3].vector_C, base - away + goal, atol=1e-4)
    assert np.allclose(made[2].vector_C, base, atol=1e-4)


def test_a_clip_without_a_store_says_which_option_is_missing(run: Run) -> None:
    with pytest.raises(ValueError, match="store:walk: a clip of a store: pass --store"):
        vectors_of(run, ["store:walk"])


def test_commands_take_words_or_a_file_but_not_both(run: Run, tmp_path: Path) -> None:
    for words in (
        ["edit", "--base", "walk"], ["edit", "--file", "a.csv", "--base", "a"],
        ["interpolate", "walk"], ["interpolate", "a", "b", "--file", "a.csv"],
    ):  # fmt: skip
        told = CliRunner().invoke(cli, [words[0], str(run.folder), *words[1:]])
        assert told.exit_code == 2, told.output
    (tmp_path / "a.csv").write_text("start,end\nwalk,run\nkick,sit\n")
    told = CliRunner().invoke(cli, ["interpolate", str(run.folder), "--file", str(tmp_path / "a.csv"), "--steps", "2",
                                    "--frames", "3", "--format", "bvh", "--out", str(tmp_path / "o")])  # fmt: skip
    assert told.exit_code == 0, told.output
    assert len(list((tmp_path / "o").glob("*.bvh"))) == 4


def test_a_seed_gives_another_motion_of_a_text_and_always_the_same(run: Run, encoder: Encoder) -> None:
    texts = ["walk", "kick"]
    vectors = vectors_of(run, texts, encoder)
    plain = variations(texts, vectors, ())
    assert [prompt.title for prompt in plain] == texts
    assert np.array_equal(plain[1].vector_C, vectors[1].numpy())
    made = variations(texts, vectors, (1, 2), share=0.25)
    assert [prompt.title for prompt in made] == [
        "walk (seed 1)", "walk (seed 2)", "kick (seed 1)", "kick (seed 2)",
    ]  # fmt: skip
    away = [np.linalg.norm(prompt.vector_C - vectors[item // 2].numpy()) for item, prompt in enumerate(made)]
    assert away == pytest.approx([0.25 * run.z_length] * 4, rel=1e-4)
    alone = variations(texts[1:], vectors[1:], (2,), share=0.25)[0]  # whatever is asked for beside it
    assert np.array_equal(alone.vector_C, made[3].vector_C)
    directions = np.stack([made[item].vector_C - vectors[item // 2].numpy() for item in range(4)])
    assert np.abs(np.corrcoef(directions) - np.eye(4)).max() < 0.3


def test_how_far_without_a_seed_is_a_usage_error(run: Run) -> None:
    told = CliRunner().invoke(cli, ["generate", str(run.folder), "walk", "--vary", "0.5"])
    assert told.exit_code == 2
    assert "name at least one" in told.output


def test_a_style_is_added_at_the_contents_length_or_exchanged_for_its_neutral(run: Run, store: Store) -> None:
    content, style = torch.tensor([3.0, 0]), torch.tensor([0.0, 4.0])
    found = styled(content, style, (0.0, 1.0))
    assert torch.allclose(found, torch.tensor([[3.0, 0], [1.8, 2.4]]))
    words = ("store:walk", "store:kick", "store:getup_facedown")
    made = styles(run, *words[:2], (0.5,), neutral=words[2], store=store)
    walk, kick, getup = vectors_of(run, words, store=store)
    assert np.allclose(made[0].vector_C, walk + 0.5 * (kick - getup), atol=1e-5)
    assert made[0].title == "walk + 0.5 (kick - getup_facedown)"
    added = styles(run, *words[:2], (1.0,), store=store)[0]
    assert added.title == "walk + 1 kick"
    cosines = [torch.nn.functional.cosine_similarity(torch.from_numpy(added.vector_C), z, dim=0) for z in (walk, kick)]
    assert cosines[0] == pytest.approx(float(cosines[1]), abs=1e-5)  # the sum of two of one length lies between them


def test_a_motion_that_is_turned_to_the_front_faces_the_viewer_and_moves_as_before(run: Run, tmp_path: Path) -> None:
    vectors = torch.randn(3, 384, generator=torch.Generator().manual_seed(0))
    prompts = prompts_of(["a", "b", "c"], vectors)
    for root in ("keep", "front"):
        generate.write_motions(run, "generate", prompts, tmp_path / root, frames=6, root=root, formats=("npz",))
    for name in ("00-a.npz", "01-b.npz", "02-c.npz"):
        kept, turned = (read(tmp_path / root / name) for root in ("keep", "front"))
        facing = turned.rotmat_TJ33[0, 0, :, 2]
        assert facing[1] < 0
        assert abs(float(facing[0])) < 1e-5
        assert torch.allclose(turned.rotmat_TJ33[:, 1:], kept.rotmat_TJ33[:, 1:], atol=1e-5)
        steps = [motion.trans_T3.diff(dim=0).norm(dim=1) for motion in (kept, turned)]
        assert torch.allclose(*steps, atol=1e-5)
        assert torch.allclose(turned.trans_T3[:, 2], kept.trans_T3[:, 2], atol=1e-4)
    assert abs(float(kept.rotmat_TJ33[0, 0, 0, 2])) > 1e-3  # or there was nothing to turn
    again = generate.write_motions(run, "generate", prompts, tmp_path / "front", frames=6, formats=("npz",))
    assert "3 motions of 6 frames done" in again  # another request


def test_a_sheet_shows_the_first_motions_only(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MOST_ROWS", 2)
    prompts = prompts_of(["a", "b", "c"], torch.randn(3, 384))
    generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 160, 2 * 160)
    assert (tmp_path / "02-c.npz").exists()


def test_a_request_that_was_half_overwritten_by_another_is_made_again(run: Run, tmp_path: Path) -> None:
    mine, other = (prompts_of(["a"], torch.randn(1, 384)) for _ in range(2))
    generate.write_motions(run, "generate", mine, tmp_path, frames=4, formats=("npz",))
    generate.begin(tmp_path, generate.request_of(run, "generate", other, frames=4, formats=("npz",)))  # then killed
    assert "1 motions" in generate.write_motions(run, "generate", mine, tmp_path, frames=4, formats=("npz",))


# A write beyond the limit first fails as on a full disk, then kills the process in the middle of it.
FULL_DISK = """
import resource, signal, sys, warnings
warnings.simplefilter("ignore")
from mclip.cli import cli
limit, command = int(sys.argv[1]), sys.argv[2:]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    cli.main(command, standalone_mode=False)
except Exception as error:
    print(error.format_message(), flush=True)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
cli.main(command, standalone_mode=False)
"""


def test_a_full_disk_and_a_kill_leave_no_half_written_file_and_the_same_command_goes_on(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["interpolate", str(run.folder), str(WALK), str(WALK), "--steps", "3", "--frames", "30", "--format",
               "npz", "--format", "html", "--out", str(out)]  # fmt: skip
    limit = 200_000  # bytes: enough for an .npz, not for a page with its viewer
    child = subprocess.run([sys.executable, "-c", FULL_DISK, str(limit), *command], capture_output=True, text=True)
    assert child.returncode == -signal.SIGXFSZ, child.stderr
    assert "File too large" in child.stdout
    whole = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert [path.name for path in whole] == ["00-walk-to-walk-0-2.npz"]
    assert len(read(whole[0]).trans_T3) == 30
    written = whole[0].stat().st_mtime_ns
    told = CliRunner().invoke(cli, command)
    assert "3 motions of 30 frames done" in told.output
    assert whole[0].stat().st_mtime_ns == written
    assert sorted(path.suffix for path in out.iterdir()) == [".html"] * 3 + [".json"] + [".npz"] * 3 + [".png"]
    assert "0 of 3 motions to do" in CliRunner().invoke(cli, command).output


@pytest.mark.parametrize("text", ["", "   ", "walk " * 10_000])
def test_prompts_that_say_nothing_or_too_much_get_one_line(run: Run, tmp_path: Path, text: str) -> None:
    told = CliRunner().invoke(cli, ["generate", str(run.folder), text, "--out", str(tmp_path / "o")])
    assert told.exit_code == 1
    assert len(told.output.splitlines()) == 1
    assert "an empty text: write what the person does" in told.output or "expected at most 2,000" in told.output
    assert not (tmp_path / "o").exists()


def test_motions_of_one_frame_or_of_another_skeleton_are_named(run: Run, tmp_path: Path) -> None:
    with np.load(WALK) as file:
        arrays = dict(file)
    one = {name: array[:1] if name in ("poses", "trans") else array for name, array in arrays.items()}
    np.savez(tmp_path / "one.npz", **one)
    np.savez(tmp_path / "other.npz", **{**arrays, "poses": arrays["poses"][:, :66]})
    (tmp_path / "other.bvh").write_text(
        "HIERARCHY\nROOT trunk\n{\nOFFSET 0 0 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation "
        "Yrotation\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\nMOTION\nFrames: 2\nFrame Time: 0.033333\n"
        "0 0 0 0 0 0\n0 0 0 0 0 0\n"
    )
    for name, told in {
        "one.npz": "one.npz: 1 frames, expected at least 2",
        "other.npz": "other.npz: poses has shape (39, 66), expected (T, 156|165|72)",
        "other.bvh": "other.bvh: no joint for left_ankle",
    }.items():
        words = ["edit", str(run.folder), "--from", "walk", "--to", "run", "--base", str(tmp_path / name)]
        found = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o")])
        assert found.exit_code == 1
        assert told in found.output
    assert not (tmp_path / "o").exists()


def test_the_releases_interpolations_are_clips_where_a_store_is_named(tmp_path: Path) -> None:
    file = tmp_path / "paper_interps.csv"
    file.write_text("start,end\nbowling,jogging\nwalk.npz,store:kick\n")
    assert table_in(file, INTERPOLATION, source="data") == [
        {"start": "store:bowling", "end": "store:jogging"}, {"start": "walk.npz", "end": "store:kick"},
    ]  # fmt: skip
