"""Damaged files of text and JSON, of a run folder above all, are named with a way out and no traceback."""

import functools
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mclip.cli import cli
from mclip.pipeline.store.store import Store
from mclip.training.evaluate.evaluate import evaluate_once
from mclip.training.model.run import Run, load_run
from mclip.training.show.gallery import curves, write_gallery
from mclip.training.train.journal import read_journal


def refused(*words: object) -> str:
    told: Result = CliRunner().invoke(cli, [str(word) for word in words])
    assert told.exit_code == 1, told.output
    assert isinstance(told.exception, SystemExit), told.exception
    return told.output


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """A copy of a trained run, to be damaged."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


@pytest.mark.parametrize("content", [b'{"model": ', b"[]", b"\xff\xfe", b"{}", b'{"model": {"bogus": 1}}'])
def test_a_damaged_config_is_named_with_a_way_out(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    told = refused("generate", folder, "walk")
    assert str(folder / "config.json") in told
    assert "restore it" in told


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("layrs", "at model.layrs: found a key that nobody knows, expected 'layers'"),
        ("bogus", "at model.bogus: found a key that nobody knows, expected one of latent, layers, heads"),
        ("a\x1b[31m", "at model.'a\\x1b[31m': found a key that nobody knows"),
    ],
)
def test_an_unknown_key_is_told_with_its_place_and_the_nearest(folder: Path, key: str, expected: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"][key] = 1
    (folder / "config.json").write_text(json.dumps(config))
    told = refused("generate", folder, "walk")
    assert f"{folder / 'config.json'}: damaged ({expected}" in told
    assert "Extra inputs" not in told


def test_what_was_expected_is_told_in_plain_words(folder: Path) -> None:
    whole = (folder / "config.json").read_text()
    for path, value, expected in (
        (("encoder", "name"), "../x", "at encoder.name: found '../x', expected a text that matches pattern"),
        (("model", "latent"), "512", "at model.latent: found '512', expected a valid integer"),
        (("data", "fps"), -3, "at data.fps: found -3, expected greater than 0"),
        (("train",), [], "at train: found [], expected a"),
    ):
        config = json.loads(whole)
        *above, last = path
        functools.reduce(dict.__getitem__, above, config)[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        assert f"config.json: damaged ({expected}" in refused("generate", folder, "walk")


@pytest.mark.parametrize("content", [b'{"step": 6', b"[]"])
def test_a_damaged_state_is_named_with_a_way_out(folder: Path, content: bytes) -> None:
    for state in folder.glob("checkpoints/*/state.json"):
        state.write_bytes(content)
    told = refused("generate", folder, "walk")
    assert "state.json: damaged" in told
    assert "delete this checkpoint's folder" in told


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_figures_are_named_with_a_way_out(folder: Path, store: Store, tmp_path: Path, content: str) -> None:
    evaluate_once(load_run(folder), store, split=None, queries=None, replace=False)
    (folder / "evaluation.json").write_text(content)
    assert "evaluation.json: damaged" in refused("evaluate", folder, store.url)
    assert "evaluation.json: damaged" in refused("gallery", folder, store.url, "--page", tmp_path / "page.html")


def test_a_run_without_metrics_has_a_gallery_without_curves(folder: Path, store: Store, tmp_path: Path) -> None:
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    line = write_gallery(load_run(folder), store, tmp_path / "page.html", folders=(), split=None, most=1)
    assert line.startswith("gallery: 1 motions")
    assert 'class="curves"' not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_curves_are_drawn_of_the_whole_lines_that_a_kill_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ('{"step": 1, "loss/total": 2.0, "loss/rot6d": 1.0}', '{"step": 2, "loss/total": 1.0, "loss/rot6d": 0.5}')
    (folder / "metrics.jsonl").write_text("\n".join((*lines, '{"step": 3, "lo')))
    assert ">rot6d<" in curves(load_run(folder))  # the legend names what was drawn
    (folder / "metrics.jsonl").write_text('garbage\n{"step": 1, "loss/total": "2"}\n')
    assert read_journal(folder / "metrics.jsonl") == []
    told = capsys.readouterr().err.splitlines()
    assert [line.split("metrics.jsonl: ")[1].split(" (")[0] for line in told] == [
        f"line {number} is broken and passed over" for number in (1, 2)
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "RUN", "--file", "FILE"),
        ("edit", "RUN", "--file", "FILE"),
        ("recognise", "RUN", "a.npz", "--classes", "FILE"),
        ("evaluate", "RUN", "STORE", "--queries", "FILE"),
    ],
)
def test_a_picture_in_place_of_a_text_is_named(run: Run, store: Store, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    for_words = {"RUN": run.folder, "FILE": tmp_path / "picture.png", "STORE": store.url}
    assert f"{tmp_path / 'picture.png'}: is no text in UTF-8" in refused(*(for_words.get(each, each) for each in words))


@pytest.mark.parametrize("content", ["[", "{}", '[{"text": "walk"}]', "3"])
def test_queries_of_another_form_are_refused_by_name(run: Run, store: Store, tmp_path: Path, content: str) -> None:
    (tmp_path / "queries.json").write_text(content)
    told = refused("evaluate", run.folder, store.url, "--queries", tmp_path / "queries.json")
    assert "queries.json: expected a JSON list of" in told


@pytest.mark.parametrize("content", ["{", "{}", "[" * 9999, '{"request": {"kind": 3}}', '{"request": "\\ud800"}'])
def test_a_damaged_list_of_motions_is_named(run: Run, store: Store, tmp_path: Path, content: str) -> None:
    (tmp_path / "motions.json").write_text(content)
    told = refused("gallery", run.folder, store.url, tmp_path, "--page", tmp_path / "page.html")
    assert str(tmp_path / "motions.json") in told


def test_every_change_of_the_figures_is_seen(folder: Path, store: Store) -> None:
    evaluate_once(load_run(folder), store, split=None, queries=None, replace=False)
    file = folder / "evaluation.json"
    whole = file.read_text()
    assert '"windows": ' in whole
    file.write_text(whole.replace('"windows": ', '"windows": 1'))
    assert "evaluation.json: damaged (what it says does not fit its crc32): pass --replace" in refused(
        "evaluate", folder, store.url
    )


def test_a_run_in_place_of_a_store_and_the_reverse_are_told(run: Run, store: Store) -> None:
    assert f"{run.folder}: is a run, expected a store: the other way round" in refused("status", run.folder)
    assert f"{store.url}: is a store, expected a run: the other way round" in refused("generate", store.url, "walk")


@pytest.mark.parametrize(
    "content", ["[prepare]\nstore = 1979-05-27", "x = " + "[" * 9999, "[prepare]\nstore = {a = 1}"]
)
def test_a_recipe_of_another_form_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.toml").write_text(content)
    assert str(tmp_path / "r.toml") in refused("run", tmp_path / "r.toml", "--folder", tmp_path / "out")
