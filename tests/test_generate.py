"""Latent arithmetic, and folders of motions that appear whole and are made once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
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
from mclip.pipeline.render import scene
from mclip.pipeline.render.options import RenderOptions
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
    assert generate.file_name(0, "跳舞 💃") == "00-跳舞"
    assert generate.file_name(1, "Ein Mann läuft\u202e/..") == "01-ein-mann-läuft"
    assert generate.file_name(2, "💃") == "02"
    assert len(generate.file_name(7, "x" * 500)) < 50


def test_a_folder_is_written_once_whole_and_reads_back(run: Run, encoder: Encoder, tmp_path: Path) -> None:
    prompts = prompts_of(["a kick"], vectors_of(run, ["a kick"], encoder))
    formats = ("npz", "mp4", "gif", "png")
    looks = RenderOptions(size=64, ground=True)
    line = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats, looks=looks)
    assert "1 motions of 10 frames done" in line
    made = json.loads((tmp_path / "motions.json").read_text())
    files = [f"00-a-kick.{suffix}" for suffix in formats]
    assert made["motions"] == [{"title": "a kick", "files": files, "told": []}]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*made["motions"][0]["files"], "motions.json", "sheet.png"]
    )
    rot6d, trans = resample(read_motion(tmp_path / "00-a-kick.npz"), 30.0)
    rows = decode(run, torch.from_numpy(prompts[0].vector_C)[None], 10)[0]
    expected = motion_of_rows(rows, 30.0)
    assert torch.allclose(rot6d_to_matrix(rot6d), expected.rotmat_TJ33, atol=1e-5)
    assert torch.allclose(trans, expected.trans_T3, atol=1e-5)
    with av.open(str(tmp_path / "00-a-kick.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (64, 64)
    again = generate.write_motions(run, "generate", prompts, tmp_path, frames=10, formats=formats, looks=looks)
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
    vectors = vectors_of(run, prompts, encoder, plain=True)
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
        "walk + 0 (run - walk)",
        "walk + 1 (run - walk)",
        "sit + 0 (walk - kick)",
        "sit + 1 (walk - kick)",
    ]
    base, away, goal = vectors_of(run, ["sit", "store:kick", "store:walk"], encoder, store=store)
    assert np.allclose(made[3].vector_C, base - away + goal, atol=1e-4)
    assert np.allclose(made[2].vector_C, base, atol=1e-4)


def test_a_clip_without_a_store_says_which_option_is_missing(run: Run) -> None:
    with pytest.raises(ValueError, match="store:walk: a clip of a store: pass --store"):
        vectors_of(run, ["store:walk"])


def test_commands_take_words_or_a_file_but_not_both(run: Run, tmp_path: Path) -> None:
    for words in (
        ["edit", "--base", "walk"],
        ["edit", "--file", "a.csv", "--base", "a"],
        ["interpolate", "walk"],
        ["interpolate", "a", "b", "--file", "a.csv"],
    ):
        told = CliRunner().invoke(cli, [words[0], str(run.folder), *words[1:]])
        assert told.exit_code == 2, told.output
    (tmp_path / "a.csv").write_text("start,end\nwalk,run\nkick,sit\n")
    told = CliRunner().invoke(
        cli,
        [
            "interpolate",
            str(run.folder),
            "--file",
            str(tmp_path / "a.csv"),
            "--steps",
            "2",
            "--frames",
            "3",
            "--format",
            "bvh",
            "--out",
            str(tmp_path / "o"),
        ],
    )
    assert told.exit_code == 0, told.output
    assert len(list((tmp_path / "o").glob("*.bvh"))) == 4


def test_a_seed_gives_another_motion_of_a_text_and_always_the_same(run: Run, encoder: Encoder) -> None:
    texts = ["walk", "kick"]
    vectors = vectors_of(run, texts, encoder)
    plain = variations(texts, vectors, ())
    assert [prompt.title for prompt in plain] == texts
    assert np.array_equal(plain[1].vector_C, vectors[1].numpy())
    made = variations(texts, vectors, (1, 2), share=0.25)
    assert [prompt.title for prompt in made] == ["walk (seed 1)", "walk (seed 2)", "kick (seed 1)", "kick (seed 2)"]
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
    with pytest.raises(ValueError, match="was made with root front, not keep"):
        generate.write_motions(run, "generate", prompts, tmp_path / "front", frames=6, formats=("npz",))


def test_a_sheet_shows_the_first_motions_only(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MOST_ROWS", 2)
    prompts = prompts_of(["a", "b", "c"], torch.randn(3, 384))
    generate.write_motions(run, "generate", prompts, tmp_path, frames=4, formats=("npz",))
    with Image.open(tmp_path / "sheet.png") as sheet:
        two = sheet.height
    generate.write_motions(run, "generate", prompts[:1], tmp_path / "one", frames=4, formats=("npz",))
    with Image.open(tmp_path / "one/sheet.png") as sheet:
        assert two == 2 * sheet.height
    assert (tmp_path / "02-c.npz").exists()


def folder_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_folder_of_another_request_is_refused_and_left_as_it_is(run: Run, tmp_path: Path) -> None:
    mine, other = prompts_of(["a", "b"], torch.randn(2, 384)), prompts_of(["c"], torch.randn(1, 384))
    how: dict[str, Any] = {"frames": 4, "formats": ("npz",)}
    generate.write_motions(run, "generate", mine, tmp_path, **how)
    before = folder_of(tmp_path)
    for asked, differ, told in (
        (other, {}, "holds 2 of generate: 'a', 'b'; this is 1 of generate: 'c'"),
        (mine, {"frames": 5}, "was made with frames 4, not 5"),
        (mine, {"formats": ("npz", "bvh")}, r"was made with formats \['npz'\], not \['npz', 'bvh'\]"),
        (prompts_of(["a", "b"], torch.randn(2, 384)), {}, "was made with other vectors"),
    ):
        with pytest.raises(ValueError, match=rf"{told}; name another --out, or pass --replace"):
            generate.write_motions(run, "generate", asked, tmp_path, **(how | differ))
        assert folder_of(tmp_path) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert "1 motions" in generate.write_motions(run, "generate", other, tmp_path, replace=True, **how)
    assert sorted(folder_of(tmp_path)) == ["00-c.npz", "motions.json", "notes.txt", "sheet.png"]


def test_a_request_that_a_kill_cut_short_goes_on_and_another_is_refused(run: Run, tmp_path: Path) -> None:
    mine, other = (prompts_of(["a"], torch.randn(1, 384)) for _ in range(2))
    generate.begin(tmp_path, generate.request_of(run, "generate", mine, frames=4, formats=("npz",)))  # then killed
    with pytest.raises(ValueError, match="was made with other vectors; name another --out"):
        generate.write_motions(run, "generate", other, tmp_path, frames=4, formats=("npz",))
    assert "1 motions" in generate.write_motions(run, "generate", mine, tmp_path, frames=4, formats=("npz",))


def test_a_file_that_nobody_knows_is_not_taken_for_a_motion(run: Run, tmp_path: Path) -> None:
    (tmp_path / "00-a.npz").write_text("mine")
    with pytest.raises(ValueError, match=r"00-a\.npz: there already, and nothing says what made it"):
        generate.write_motions(run, "generate", prompts_of(["a"], torch.randn(1, 384)), tmp_path, formats=("npz",))
    assert folder_of(tmp_path) == {"00-a.npz": b"mine"}


def test_a_manifest_that_leads_out_of_its_folder_deletes_nothing(run: Run, tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    mine = prompts_of(["a"], torch.randn(1, 384))
    generate.write_motions(run, "generate", mine, out, frames=4, formats=("npz",))
    victim.write_text("whole")
    manifest = json.loads((out / "motions.json").read_text())
    manifest["request"] |= {"formats": ["x/../../victim"], "frames": 3}
    (out / "motions.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"motions\.json: damaged .*formats"):
        generate.write_motions(run, "generate", mine, out, frames=4, formats=("npz",), replace=True)
    assert victim.read_text() == "whole"


@pytest.mark.parametrize(
    ("kind", "titles", "name"),
    [
        ("generate", ["a person walks"], "generated-a-person-walks"),
        ("generate", ["karate", "disco", "run"], "generated-karate-and-2-more"),
        ("interpolate", [f"walk to crawl: {step}/4" for step in range(5)], "interpolated-walk-to-crawl"),
        ("edit", ["a jump + 0 (run - walk)", "a jump + 0.5 (run - walk)"], "edited-a-jump"),
        ("style", ["💃"], "styled-motion"),
        ("generate", ["../../etc"], "generated-etc"),
    ],
)
def test_a_folder_is_named_after_what_is_in_it(kind: str, titles: list[str], name: str) -> None:
    assert generate.folder_for(kind, titles) == Path(name)


def test_two_commands_in_a_row_write_to_two_folders(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("walk", "run"):
        words = ["generate", str(run.folder.resolve()), text, "--frames", "3", "--format", "npz"]
        told = CliRunner().invoke(cli, words)
        assert told.exit_code == 0, told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generated-run", "generated-walk"]


def test_frames_beyond_a_crop_are_joined_out_of_crops(run: Run, tmp_path: Path) -> None:
    prompts = prompts_of(["a"], torch.randn(1, 384, generator=torch.Generator().manual_seed(0)))
    for frames in (run.crop, 3 * run.crop):
        generate.write_motions(run, "generate", prompts, tmp_path / str(frames), frames=frames, formats=("npz",))
    crop, whole = (read(tmp_path / str(frames) / "00-a.npz") for frames in (run.crop, 3 * run.crop))
    assert len(whole.trans_T3) == 3 * run.crop
    assert torch.allclose(whole.trans_T3[:20], crop.trans_T3[:20], atol=1e-6)


def test_prompts_that_the_encoder_cannot_place_are_told_and_others_are_not(encoder: Encoder) -> None:
    """What names a motion in other words than any label, beside what names none."""
    known = ["karate", "bruce lee", "a toddler crawling", "pirouette", "soccer penalty", "a zombie limps", "moonwalk"]
    strange = ["asdkjhaskdjh", "SELECT * FROM users", "kubernetes deployment", "1234567890", "photosynthesis"]
    assert prompts.unplaced(encoder, [*known, *strange]) == strange


def invoked(*words: object) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words])


PLAIN = ("--frames", "3", "--format", "npz", "--out")


def test_a_file_of_prompts_goes_on_after_a_line_that_is_none(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK no npz")
    file.write_text(f"a person walks\n{broken}\n{'x' * 10_000_000}\na person walks\nkick # twice above\n")
    told = invoked("generate", run.folder, "--file", file, *PLAIN, tmp_path / "made")
    assert told.exit_code == 1
    assert "3 motions of 3 frames done" in told.output  # equal lines are as many motions, in the order of the file
    names = sorted(path.name for path in (tmp_path / "made").glob("*.npz"))
    assert names == ["00-a-person-walks.npz", "01-a-person-walks.npz", "02-kick.npz"]
    assert f"Error: {broken}" in told.stderr
    assert "a text of 10,000,000 characters, expected at most" in told.stderr
    assert "2 of 5 failed: " in told.stderr
    assert len(told.stderr) < 3000


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"", 2, "prompts.txt: no text in it: name at least one text"),
        (b"# only a comment\n\n   \n", 2, "prompts.txt: no text in it"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", 1, "prompts.txt: is no text in UTF-8"),
        (bytes(4096), 1, "an empty text"),
        (b"walk\n" * 2_000_000, 2, "2,000,000 texts, expected at most 10,000: name fewer at a time"),  # 10 MB
    ],
)
def test_a_file_without_prompts_or_with_too_many_is_told(
    run: Run, tmp_path: Path, content: bytes, code: int, told: str
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    said = invoked("generate", run.folder, "--file", file, *PLAIN, tmp_path / "made")
    assert said.exit_code == code
    assert told in said.stderr
    assert len(said.stderr) < 1000
    assert not (tmp_path / "made").exists()


def test_recognise_and_export_go_on_after_a_bad_file_and_name_it(run: Run, tmp_path: Path) -> None:
    good = MOTIONS / "EMBEDDED/kick/kick_poses.npz"
    bad, missing = tmp_path / "bad.npz", tmp_path / "missing.bvh"
    bad.write_bytes(b"no archive")
    for words in (("recognise", run.folder, bad, good, missing), ("export", bad, good, missing, "--to", "bvh")):
        out = () if words[0] == "recognise" else ("--out", tmp_path / "made")
        told = invoked(*words, *out)
        assert told.exit_code == 1
        assert f"Error: {bad}: " in told.stderr
        assert f"Error: {missing}: " in told.stderr
        assert f"2 of 3 failed: {bad}, {missing}" in told.stderr
        assert "kick_poses" in told.stdout
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["kick_poses.bvh"]
    alone = invoked("export", bad, "--to", "bvh", "--out", tmp_path / "made")
    assert (alone.exit_code, alone.stderr.count("\n")) == (1, 1)  # one file: one line says it


def test_only_the_sheets_frames_are_drawn_where_no_video_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = scene.picture

    def counted(vertices_BV3: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
        drawn.append(len(vertices_BV3))
        return draw(vertices_BV3, *more, **options)

    monkeypatch.setattr(scene, "picture", counted)
    prompts = prompts_of(["a"], torch.randn(1, 384))
    generate.write_motions(run, "generate", prompts, tmp_path, frames=40, formats=("npz",))
    assert sum(drawn) == 8
