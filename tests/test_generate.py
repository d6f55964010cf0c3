"""Latent arithmetic, and folders of motions that appear whole and are made once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.amass import read_motion, resample
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.store import Store
from mclip.training import generate
from mclip.training.motion import motion_of_rows
from mclip.training.run import Run

WALK = Path(generate.__file__).parents[1] / "pipeline/data/motions/EMBEDDED/walk/walk_poses.npz"


def test_texts_get_the_length_of_z(run: Run) -> None:
    vectors = torch.randn(3, 384) * torch.tensor([[0.1], [1.0], [9.0]])
    scaled = generate.latent(run, vectors)
    assert torch.allclose(scaled.norm(dim=-1), torch.full((3,), run.z_length))
    assert torch.allclose(torch.nn.functional.cosine_similarity(scaled, vectors), torch.ones(3))


def test_an_imported_run_takes_vectors_as_they_are(run: Run) -> None:
    imported = replace(run, state={"step": 1})
    vectors = torch.randn(2, 384)
    assert torch.equal(generate.latent(imported, vectors), vectors)


def test_editing_by_nothing_gives_the_base_and_by_all_the_goal() -> None:
    base, away, goal = torch.randn(3, 8)
    found = generate.edited(base, away, goal, (0.0, 1.0, 0.5))
    assert torch.allclose(found[0], base)
    assert torch.allclose(found[1], base - away + goal)
    assert torch.allclose(found[2], base + (goal - away) / 2)


def test_interpolation_keeps_its_ends_and_steps_evenly() -> None:
    a, b = torch.randn(2, 8)
    found = generate.between(a, b, 5)
    assert torch.allclose(found[0], a)
    assert torch.allclose(found[-1], b)
    assert torch.allclose(found.diff(dim=0), ((b - a) / 4).expand(4, 8), atol=1e-6)


def test_one_step_is_no_interpolation() -> None:
    with pytest.raises(ValueError, match="--steps is 1: expected at least 2"):
        generate.between(torch.zeros(2), torch.ones(2), 1)


def test_a_motion_file_is_encoded_as_the_trainer_would(run: Run) -> None:
    rot6d, trans = resample(read_motion(WALK), 30.0)
    rows = torch.cat((rot6d, torch.nn.functional.pad(trans - trans[:1], (0, 3))[:, None]), dim=1)
    z = torch.nn.functional.normalize(run.model.encode(rows[None]), dim=-1)[0] * run.z_length
    assert torch.allclose(generate.vectors_of(run, [str(WALK)])[0], z, atol=1e-4)


def test_texts_and_files_keep_their_order(run: Run, encoder: Encoder) -> None:
    mixed = generate.vectors_of(run, ["kick", str(WALK), "walk"], encoder)
    alone = [generate.vectors_of(run, [source], encoder)[0] for source in ("kick", str(WALK), "walk")]
    assert torch.allclose(mixed, torch.stack(alone), atol=1e-4)


@pytest.mark.parametrize(("text", "told"), [("  ", "an empty text"), ("go " * 1000, "expected at most 2,000")])
def test_texts_that_say_nothing_or_too_much_are_refused(run: Run, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        generate.vectors_of(run, [text])


def test_many_motions_are_decoded_as_each_alone(run: Run) -> None:
    vectors = torch.randn(5, 384)
    together = generate.decode(run, vectors, 12)
    for item in range(5):
        assert torch.allclose(together[item], generate.decode(run, vectors[item : item + 1], 12)[0], atol=1e-5)


def test_an_imported_runs_ankle_row_is_not_taken_for_the_roots_path(run: Run) -> None:
    config = run.config | {"data": run.config["data"] | {"row25": "ankle"}}
    vectors = torch.randn(2, 384)
    own, imported = (generate.decode(each, vectors, 6) for each in (run, replace(run, config=config)))
    assert own[:, :, 24, :3].abs().max() > 0
    assert imported[:, :, 24].eq(0).all()
    assert torch.equal(own[:, :, :24], imported[:, :, :24])


def test_file_names_are_plain_whatever_the_prompt() -> None:
    assert generate.file_name(3, "../../etc/Passwd!") == "03-etc-passwd"
    assert generate.file_name(0, "跳舞 💃") == "00"
    assert len(generate.file_name(7, "x" * 500)) < 50


def test_a_folder_is_written_once_whole_and_reads_back(run: Run, encoder: Encoder, tmp_path: Path) -> None:
    prompts = generate.prompts_of(["a kick"], generate.vectors_of(run, ["a kick"], encoder))
    formats = ("npz", "mp4", "gif", "png")
    line = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats)
    assert "1 motions of 10 frames done" in line
    made = json.loads((tmp_path / "motions.json").read_text())
    assert made["motions"] == [{"title": "a kick", "files": [f"00-a-kick.{suffix}" for suffix in formats]}]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*made["motions"][0]["files"], "motions.json", "sheet.png"]
    )
    rot6d, trans = resample(read_motion(tmp_path / "00-a-kick.npz"), 30.0)
    rows = generate.decode(run, torch.from_numpy(prompts[0].vector_C)[None], 10)[0]
    expected = motion_of_rows(rows, 30.0)
    assert torch.allclose(rot6d_to_matrix(rot6d), expected.rotmat_TJ33, atol=1e-5)
    assert torch.allclose(trans, expected.trans_T3, atol=1e-5)
    again = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats)
    assert "0 of 1 motions to do" in again


def test_a_file_that_was_deleted_is_made_again(run: Run, tmp_path: Path) -> None:
    prompts = [generate.Prompt("z", np.ones(384, np.float32))]
    generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    (tmp_path / "00-z.npz").unlink()
    assert "done" in generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    assert (tmp_path / "00-z.npz").exists()


def test_the_great_circle_turns_evenly_and_keeps_its_ends() -> None:
    a, b = torch.tensor([3.0, 0, 0]), torch.tensor([0.0, 5, 0])
    found = generate.between(a, b, 4, path="circle")
    angles = torch.atan2(found[:, 1], found[:, 0])
    assert torch.allclose(angles, torch.deg2rad(torch.tensor([0.0, 30, 60, 90])), atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.tensor([3, 11 / 3, 13 / 3, 5.0]))
    assert torch.allclose(generate.between(a, a, 3, path="circle"), a.expand(3, 3))
    with pytest.raises(ValueError, match="opposite vectors.*--path line"):
        generate.between(a, -a, 3, path="circle")


def test_a_prompt_file_has_comments_blank_lines_and_any_script() -> None:
    lines = ["\ufeff# prompts\n", "\n", "walk  # slowly\n", "play a C# chord\n", "  跳舞 💃 \n", "يمشي إلى الوراء\n"]
    assert generate.prompts_in(lines) == ["walk", "play a C# chord", "跳舞 💃", "يمشي إلى الوراء"]


def test_prompts_of_any_script_and_of_many_words_are_decoded(run: Run, encoder: Encoder) -> None:
    prompts = ["跳舞 💃", "يمشي إلى الوراء", "a person walks " * 120]
    vectors = generate.vectors_of(run, prompts, encoder)
    assert torch.isfinite(generate.decode(run, vectors, 4)).all()
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)


def test_the_releases_tables_are_read_as_they_are(tmp_path: Path) -> None:
    edits = tmp_path / "paper_edits.csv"
    edits.write_text("motion_source,base,v_start,v_end\ndata,walk,Standing,drink\ntext,Sit,Stand,Argue angrily\n")
    assert generate.table_in(edits, generate.EDIT) == [
        {"base": "store:walk", "v_start": "store:Standing", "v_end": "store:drink"},
        {"base": "Sit", "v_start": "Stand", "v_end": "Argue angrily"},
    ]
    interps = tmp_path / "paper_interps.csv"
    interps.write_text("start,end\nbowling,jogging\n")
    assert generate.table_in(interps, generate.INTERPOLATION) == [{"start": "bowling", "end": "jogging"}]


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
        generate.table_in(file, generate.EDIT)


def test_every_row_is_edited_at_every_scale(run: Run, store: Store, encoder: Encoder) -> None:
    rows = [
        {"base": str(WALK), "v_start": "walk", "v_end": "run"},
        {"base": "sit", "v_start": "store:kick", "v_end": "store:walk"},
    ]
    made = generate.edits(run, rows, (0.0, 1.0), store=store, encoder=encoder)
    assert [prompt.title for prompt in made] == [
        "walk + 0 (run - walk)", "walk + 1 (run - walk)", "sit + 0 (walk - kick)", "sit + 1 (walk - kick)",
    ]  # fmt: skip
    base, away, goal = generate.vectors_of(run, ["sit", "store:kick", "store:walk"], encoder, store=store)
    assert np.allclose(made[3].vector_C, base - away + goal, atol=1e-4)
    assert np.allclose(made[2].vector_C, base, atol=1e-4)


def test_a_clip_without_a_store_says_which_option_is_missing(run: Run) -> None:
    with pytest.raises(ValueError, match="store:walk: a clip of a store: pass --store"):
        generate.vectors_of(run, ["store:walk"])


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
