"""Run folders that somebody damaged or made to harm: told by file and place, and nothing outside them is read."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.embed.loading import load_encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.training.latent.space import decode
from mclip.training.model.run import Run, RunError, best_checkpoint, load_run, read_config

FUZZED = 500
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**30,
    2**63,
    "",
    "x" * 10_000,
    "../../..",
    "\ud800",
    "💃",
    [],
    {},
    [[[]]],
    {"a": {}},
    float("nan"),
    float("inf"),
    "60",
    3.5,
]


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    """A copy of a trained run, to be damaged."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def mutated(content: str, chance: random.Random) -> bytes:
    """A document with something else at one place, or lacking it, or with bytes changed, cut or repeated."""
    whole, raw = json.loads(content), bytearray(content.encode())
    kind = chance.choice(("value", "value", "value", "key", "extra", "byte", "cut", "twice", "deep"))
    if kind in ("value", "key", "extra"):
        *path, last = chance.choice(places(whole)[1:])
        at = whole
        for key in path:
            at = at[key]
        if kind == "key":
            del at[last]
        elif kind == "extra" and isinstance(at, dict):
            at[chance.choice(("", "__class__", "\ud800", "trust_remote_code"))] = chance.choice(VALUES)
        else:
            at[last] = chance.choice(VALUES)
        return json.dumps(whole).encode()
    if kind == "byte":
        for _ in range(chance.randint(1, 5)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        return bytes(raw)
    if kind == "cut":
        return bytes(raw[: chance.randrange(len(raw))])
    return bytes(raw + raw) if kind == "twice" else b"[" * 100_000 + bytes(raw)


def used(folder: Path) -> None:
    """What every command does with a run, but for loading the encoder itself."""
    run = load_run(folder, checkpoint="best")
    assert run.step >= 0
    assert run.fps > 0
    assert run.crop > 0
    run.encoder_names()
    assert torch.isfinite(decode(run, torch.randn(1, run.model.config.latent), 4)).all()


def test_five_hundred_damaged_runs_are_told_by_file_and_place_or_work(copied: Path) -> None:
    chance = random.Random(0)
    files = [copied / "config.json", *copied.glob("checkpoints/*/state.json")]
    whole = {file: file.read_text() for file in files}
    refused = 0
    for _ in range(FUZZED):
        file = chance.choice(files)
        file.write_bytes(mutated(whole[file], chance))
        try:
            used(copied)
        except ValueError as error:
            refused += 1
            told = str(error)
            # A size that fits the schema and not the weights is told where the weights are.
            assert file.name in told or "does not fit the model of config.json" in told, told
            assert ("found" in told and "expected" in told) or "no JSON" in told or "restore it" in told, told
        file.write_text(whole[file])
    assert FUZZED / 2 < refused < FUZZED
    used(copied)


def changed(folder: Path, **encoder: Any) -> None:
    """Another encoder in a run's config.json."""
    config = read_config(folder)
    config["encoder"] |= encoder
    (folder / "config.json").write_text(json.dumps(config))


OUTSIDE: dict[str, dict[str, Any]] = {
    "hub": {"clip": "hf-hub:someone/evil"},
    "hub and weights": {"clip": "hf-hub:someone/evil", "pretrained": "weights.pt"},
    "absolute folder": {"clip": "local-dir:/OUTSIDE"},
    "folder above": {"clip": "local-dir:../clip"},
    "folder through itself": {"clip": "local-dir:checkpoints/../../clip"},
    "link": {"clip": "local-dir:link"},
    "absolute weights": {"clip": "ViT-B-32", "pretrained": "/etc/passwd"},
    "weights above": {"clip": "ViT-B-32", "pretrained": "../weights.pt"},
    "weights by a link": {"clip": "ViT-B-32", "pretrained": "link/weights.pt"},
    "a tag of another model": {"clip": "ViT-B-32", "pretrained": "../laion2b_s39b_b160k"},
}


@pytest.mark.parametrize("form", OUTSIDE)
def test_an_encoder_outside_the_run_or_on_the_network_needs_the_users_word(copied: Path, form: str) -> None:
    (copied.parent / "clip").mkdir()
    (copied / "link").symlink_to(copied.parent / "clip")
    changed(copied, **{key: value.replace("/OUTSIDE", str(copied.parent)) for key, value in OUTSIDE[form].items()})
    with pytest.raises(RunError, match=r"config\.json: at encoder\.(clip|pretrained): found .* --trust-encoder"):
        load_run(copied).load_encoder()
    load_run(copied, trust_encoder=True).encoder_names()  # said so, it goes on


@pytest.mark.parametrize(
    "names",
    [
        {"clip": "offline", "pretrained": None},
        {"clip": "ViT-B-32", "pretrained": "openai"},
        {"clip": "ViT-B/32", "pretrained": "laion2b_s34b_b79k"},
        {"clip": "local-dir:clip", "pretrained": None},
        {"clip": "ViT-B-32", "pretrained": "clip/weights.pt"},
    ],
)
def test_names_of_open_clip_and_what_lies_in_the_run_are_taken(copied: Path, names: dict[str, Any]) -> None:
    changed(copied, **names)
    clip, pretrained = load_run(copied).encoder_names()
    assert {clip.replace(f"{copied.resolve()}/", ""), (pretrained or "").replace(f"{copied.resolve()}/", "")} == {
        names["clip"],
        names["pretrained"] or "",
    }


@pytest.mark.parametrize("words", [["generate", "walk"], ["search", "walk", "--store", "s"], ["recognise", "a.npz"]])
def test_commands_take_the_word_and_say_how(copied: Path, words: list[str], store: Any) -> None:
    changed(copied, clip="hf-hub:someone/evil")
    command, *others = [store.url if word == "s" else word for word in words]
    said = CliRunner().invoke(cli, [command, str(copied), *others])
    assert said.exit_code == 1
    assert "Traceback" not in said.output
    assert "--trust-encoder" in said.output


def test_an_encoder_of_another_width_or_hash_is_still_refused_when_trusted(copied: Path) -> None:
    changed(copied, weights_sha256="0" * 64)
    with pytest.raises(RunError, match="trained with weights 000000000000"):
        load_run(copied, trust_encoder=True).load_encoder()
    assert load_encoder("offline").width == 384


BOMBS: dict[str, Callable[[dict[str, Any]], object]] = {
    "latent": lambda c: c["model"].update(latent=999_996),
    "layers": lambda c: c["model"].update(layers=1000, latent=999_996),
    "feed forward": lambda c: c["model"].update(feed_forward=1_000_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_sizes_that_the_weights_do_not_have_take_no_memory(copied: Path, bomb: str) -> None:
    config = read_config(copied)
    BOMBS[bomb](config)
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="does not fit the model of config.json"):
        load_run(copied)


@pytest.mark.parametrize("missing", [1, 1000])
def test_weights_that_are_cut_say_how_many_bytes_are_missing(copied: Path, missing: int) -> None:
    file = sorted(copied.glob("checkpoints/*/model.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(RunError, match=rf"model\.safetensors: .*, {missing:,} more are missing"):
        load_run(copied)


def test_the_best_is_found_among_checkpoints_only(copied: Path) -> None:
    (copied / "checkpoints" / "1abc").mkdir()
    (copied / "checkpoints" / "1abc" / "state.json").write_text("{}")
    assert best_checkpoint(copied) is not None


DAMAGED = int(os.environ.get("MCLIP_DAMAGED", "40"))  # times that a command meets a damaged folder
MADE = ("--format", "npz", "--frames", "4", "--out")
USES: dict[str, tuple[str, ...]] = {  # what is damaged, and who reads it
    "run/config.json": ("generate", "recognise", "evaluate", "gallery", "search"),
    "run/checkpoints/*/state.json": ("generate", "recognise", "evaluate"),
    "run/checkpoints/*/*.safetensors": ("generate", "recognise", "evaluate", "gallery"),
    "run/metrics.jsonl": ("evaluate", "gallery"),
    "run/evaluation.json": ("evaluate", "gallery"),
    "made/motions.json": ("generate", "gallery"),
}


def damaged(content: bytes, kind: str, chance: random.Random) -> bytes:
    """A file with something else in it: a document, lines of documents, or tensors behind a header."""
    if kind == ".json":
        return mutated(content.decode(), chance)
    if kind == ".jsonl":
        lines = content.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = mutated(lines[at].decode(), chance)
        return b"\n".join(lines) + b"\n"
    size = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + size], content[8 + size :]
    header = mutated(header.decode(), chance)
    told = chance.choice((len(header), len(header), size, chance.randrange(2 ** chance.randrange(1, 64))))
    return told.to_bytes(8, "little") + header + tensors[: chance.choice((None, None, -1, -1000, 0))]


def test_commands_tell_of_damaged_folders_in_one_line_or_work(
    run: Run, store: Any, encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(clip: str, pretrained: str | None, **how: Any) -> Any:  # loaded once, which takes seconds
        plain = (clip, pretrained) == ("offline", None) and not how["templates"] and how["precision"] == "float32"
        return encoder if plain else load_encoder(clip, pretrained, **how)

    monkeypatch.setattr("mclip.training.model.run.load_encoder", offline)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.folder, "run")
    shutil.copytree(store.url, "store.zarr")
    motion = str(next(MOTIONS.rglob("kick_poses.npz")))
    words = {
        "generate": ["generate", "run", "walk", *MADE, "made"],
        "recognise": ["recognise", "run", motion, "--top", "1"],
        "evaluate": ["evaluate", "run", "store.zarr"],
        "search": ["search", "run", "walk", "--store", "store.zarr"],
        "gallery": ["gallery", "run", "store.zarr", "made", "--most", "1", "--page", "page.html"],
    }
    for command in ("generate", "evaluate", "gallery"):
        assert CliRunner().invoke(cli, words[command]).exit_code == 0
    whole = {path: path.read_bytes() for path in (*Path("run").rglob("*"), *Path("made").rglob("*")) if path.is_file()}
    chance, refused, slowest = random.Random(1), 0, 0.0
    for number in range(DAMAGED):
        where = [*USES][number % len(USES)]
        file = chance.choice(sorted(Path().glob(where)))
        file.write_bytes(damaged(whole[file], file.suffix, chance))
        Path("page.html").unlink(missing_ok=True)
        command = chance.choice(USES[where])
        since = time.monotonic()
        told = CliRunner().invoke(cli, words[command])
        slowest = max(slowest, time.monotonic() - since)
        assert told.exception is None or isinstance(told.exception, SystemExit), (command, file, told.exception)
        assert told.exit_code in (0, 1, 2), (command, file)
        if told.exit_code:
            refused += 1
            assert len(told.stderr.strip()) < 2000, (command, file)
            # Sizes that the weights do not have, and another request than the folder's: each is told where it is met.
            elsewhere = ("does not fit the model of config.json", "Error: made: ")
            assert any(words in told.stderr for words in (file.name, *elsewhere)), (file, told.stderr)
        for path, content in whole.items():
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    print(f"{DAMAGED} damaged folders: {refused} refused, the slowest in {slowest:.1f} s")
    assert DAMAGED / 4 < refused < DAMAGED
    assert slowest < 60
