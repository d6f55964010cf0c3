"""Every command has its help, and mistakes get one clear line and exit code 1 or 2."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mclip.cli import cli
from mclip.pipeline.store.lock import one_writer
from mclip.pipeline.store.store import Store, open_store
from mclip.training.model.run import Run, load_run


def mclip(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    told = mclip(name, "-h")
    assert told.exit_code == 0
    assert f"mclip {name}" in told.output.split("Example:")[1]


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{name} {option.opts[0]}"
        for name, command in cli.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


def test_help_needs_neither_torch_nor_open_clip() -> None:
    code = "import sys; from mclip.cli import cli; cli(['-h'], standalone_mode=False); print({*sys.modules} & {HEAVY})"
    code = code.replace("HEAVY", "'torch', 'open_clip'")
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.splitlines()[-1] == "set()"


def test_a_folder_without_motions_is_named(tmp_path: Path) -> None:
    told = mclip("prepare", tmp_path, tmp_path / "s.zarr")
    assert told.exit_code == 1
    kinds = ".npz, .npy, .bvh, .amc, .c3d, .smpl, .pkl, .pt, .glb, .gltf, .vrm, .vrma"
    assert f"{tmp_path}: no {kinds} file or archive below this folder" in told.output
    assert "expected AMASS's SET/SUBJECT/CLIP_poses.npz" in told.output


def test_a_missing_store_names_the_command_that_makes_one(tmp_path: Path) -> None:
    told = mclip("render", tmp_path / "s.zarr")
    assert told.exit_code == 1
    assert "no store here; `mclip prepare SOURCE" in told.output


def test_an_unknown_encoder_offers_the_near_ones(store: Store) -> None:
    told = mclip("embed", store.url, "--clip", "ViT-B-3")
    assert told.exit_code == 1
    assert "ViT-B-32" in told.output
    assert "offline" in told.output


def test_a_run_folder_with_other_contents_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for words in ((), ("--replace",)):
        told = mclip("train", store.url, tmp_path, *words)
        assert told.exit_code == 1
        assert "no config.json in it" in told.output
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_run_made_with_other_options_is_refused_by_their_names(store: Store, run: Run) -> None:
    told = mclip("train", store.url, run.folder, "--learning-rate", 7e-4, "--layers", 1, "--feed-forward", 64)
    assert told.exit_code == 1
    assert re.search(r"learning_rate': '0\.0001 -> 0\.0007'.*pass --replace", told.output, re.DOTALL)


def test_a_second_trainer_of_a_run_is_refused_while_the_first_lives(store: Store, tmp_path: Path) -> None:
    words = ["train", store.url, str(tmp_path / "run"), "--layers", "1", "--batch", "2", "--epochs", "0.5"]
    with one_writer(str(tmp_path / "run")):
        told = CliRunner().invoke(cli, [*words, "--replace"])
    assert told.exit_code == 1
    assert "has been writing here" in told.output
    assert not (tmp_path / "run").exists()
    assert CliRunner().invoke(cli, words).exit_code == 0


def test_replacing_a_run_by_what_cannot_be_trained_leaves_it(store: Store, tmp_path: Path) -> None:
    words = ["train", store.url, str(tmp_path / "run"), "--layers", "1", "--batch", "2", "--epochs", "0.5"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    told = CliRunner().invoke(cli, [*words, "--replace", "--loss-body", "nowhere.npz"])
    assert told.exit_code == 1
    assert "nowhere.npz: no such file" in told.output
    assert load_run(tmp_path / "run").step == 1


def test_a_device_that_is_none_is_named(store: Store, tmp_path: Path) -> None:
    refused = mclip("train", store.url, tmp_path / "run", "--device", "tpu")
    assert refused.exit_code == 1
    assert "--device tpu: expected auto, cpu, cuda, cuda:N or mps" in refused.output
    assert not (tmp_path / "run").exists()


def test_a_full_disk_asks_for_room(tmp_path: Path, amass_folder: Path) -> None:
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(1, (9000, 9000))"
    )
    words = ["prepare", str(amass_folder), str(tmp_path / "s.zarr")]
    child = subprocess.run(
        [sys.executable, "-c", f"{limit}; from mclip.cli import cli; cli({words})"], capture_output=True, text=True
    )
    assert child.returncode == 1
    assert "make room and run the same command again" in child.stderr


def test_generating_nothing_is_a_usage_error(run: Run) -> None:
    told = mclip("generate", run.folder)
    assert told.exit_code == 2
    assert "name at least one text" in told.output


def test_status_draws_the_chain_with_counts(store: Store) -> None:
    told = mclip("status", store.url)
    assert told.exit_code == 0
    for line in (
        r"prepare .* 3 of 3 sequences, 0 pending, 0 failed",
        r"render .* 3 of 3 pictures",
        r"embed offline .* 3 of 3 images",
    ):
        assert re.search(line, told.output), told.output


def test_a_second_source_joins_the_embedded_motions_in_one_store(tmp_path: Path, amass_folder: Path) -> None:
    (tmp_path / "own.csv").write_text("path,text\nKIT/3/kick,a kick\n")
    shared = ("--labels", "embedded", "--labels", tmp_path / "own.csv")
    for source, *options in (("embedded", "--only", "/kick/"), (amass_folder,)):
        made = mclip("prepare", source, tmp_path / "s.zarr", *shared, *options)
        assert made.exit_code == 0, made.output
    assert "5 sequences done, 1 skipped" in made.output
    texts = open_store(tmp_path / "s.zarr").strings("texts")
    assert {"a kick", "karate kick"} <= set(texts)


def test_everyday_motions_have_their_own_labels(tmp_path: Path) -> None:
    assert mclip("prepare", "everyday", tmp_path / "s.zarr", "--only", "/row/", "--only", "/wave/").exit_code == 0
    texts = open_store(tmp_path / "s.zarr").strings("texts")
    assert {"row", "a person rows a boat", "wave"} <= set(texts)
    assert "walk" not in texts


def test_what_the_operating_system_refuses_comes_with_a_remedy(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, remedy in (
        (("edit", run.folder, "--file", tmp_path / "none.csv"), "name a path that exists"),
        (("edit", run.folder, "--file", tmp_path), "expected a file"),
    ):
        refused = mclip(*words)
        assert refused.exit_code == 1
        assert re.search(rf"Error: {tmp_path}\S*: [A-Z].*: {remedy}", refused.output), refused.output


def test_a_file_in_place_of_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        f"{tmp_path / 'file'}: a file: expected a folder that is a store" in mclip("status", tmp_path / "file").output
    )


def test_too_little_memory_is_told_in_one_line(tmp_path: Path) -> None:
    made = mclip("prepare", "embedded", tmp_path / "s.zarr", "--only", "/walk/", "--window", 10**12)
    assert made.exit_code == 1
    assert "Error: not enough memory (Unable to allocate" in made.output


def test_a_field_that_is_true_or_false_is_an_option_without_a_value() -> None:
    for command, field in (("prepare", "mirror"), ("render", "ground"), ("train", "tf32"), ("generate", "ground")):
        (option,) = (each for each in cli.commands[command].params if each.name == field)
        assert isinstance(option, click.Option)
        assert option.is_flag, f"{command} --{field}"


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "RUN", "walk", "--seed", 1, "--vary", "nan"),
        ("edit", "RUN", "--base", "a", "--from", "b", "--to", "c", "--scale", "nan"),
        ("edit", "RUN", "--base", "a", "--from", "b", "--to", "c", "--scale", "1e300"),
        ("export", "a.npz", "--to", "bvh", "--fps", "nan"),
        ("gallery", "RUN", "s.zarr", "--most", 0),
        ("train", "s.zarr", "RUN", "--learning-rate", "nan"),
        ("train", "s.zarr", "RUN", "--heads", 0),
    ],
)
def test_numbers_that_mean_nothing_are_usage_errors(run: Run, words: tuple[object, ...]) -> None:
    refused = mclip(*(run.folder if word == "RUN" else word for word in words))
    assert refused.exit_code == 2
    assert f"Invalid value for '{words[-2]}'" in refused.output


def test_ctrl_c_is_one_line_and_exit_code_130_in_a_recipe_too(monkeypatch, tmp_path):
    def pressed(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mclip.pipeline.store.status.status", pressed)
    (tmp_path / "r.toml").write_text('[status]\nstore = "s"\n')
    monkeypatch.setattr("mclip.pipeline.store.store.open_store", lambda url: None)
    for words in (["status", "s"], ["run", str(tmp_path / "r.toml"), "--folder", str(tmp_path)]):
        told = CliRunner().invoke(cli, words)
        assert told.exit_code == 130
        assert told.stderr == "status stopped, what is done is kept: the same command goes on from there\n"


@pytest.mark.parametrize("command", ["generate", "edit", "interpolate", "style", "recognise", "search", "export"])
def test_a_command_that_takes_motion_files_reads_them_as_prepare_does(command):
    help_text = CliRunner().invoke(cli, [command, "--help"]).output
    for name in ("--fps-in", "--joints", "--rot6d", "--map", "--up"):
        assert len(re.findall(rf"^  {name}(?:,| [A-Z\[])", help_text, re.MULTILINE)) == 1, name
