"""Recipes become the command lines one would type, and a planted change of their results is seen."""

import json
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest

from mclip.cli import cli
from mclip.training import recipe as recipes

WORKFLOWS = Path(__file__).parents[1] / "workflows"


def words(name: str, **table: object) -> list[str]:
    return recipes.arguments(cli, name, table, Path("r.toml"))


def test_arguments_come_first_and_lists_repeat_their_option() -> None:
    made = words("prepare", store="s.zarr", only=["walk", "run"], source="embedded")
    assert made == ["prepare", "embedded", "s.zarr", "--only", "walk", "--only", "run"]


def test_a_recipe_may_name_what_lies_beside_it(tmp_path: Path) -> None:
    made = recipes.arguments(
        cli, "prepare", {"source": "a", "store": "b", "split": "{here}/s.csv"}, tmp_path / "r.toml"
    )
    assert made[-2:] == ["--split", str(tmp_path / "s.csv")]


def test_a_false_flag_is_left_out_or_said_where_it_is_on() -> None:
    assert words("prepare", source="a", store="b", mirror=False) == ["prepare", "a", "b"]
    assert words("train", store="s", run="r", unit_latent=False) == ["train", "s", "r"]
    assert words("train", store="s", run="r", unit_latent=True) == ["train", "s", "r", "--unit-latent"]
    assert words("generate", run="r", ground=False) == ["generate", "r", "--no-ground"]  # it is on by itself
    with pytest.raises(ValueError, match=r"r.toml: \[prepare\] mirror is 'no': expected true or false"):
        words("prepare", source="a", store="b", mirror="no")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"prepare = 3", "prepare outside of a table"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"\xff", "is no text in UTF-8"),
    ],
)
def test_a_recipe_without_tables_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"r\.toml: {told}"):
        recipes.run(cli, tmp_path / "r.toml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_table_of_a_command_runs_it_again() -> None:
    assert words("generate.2", run="r", texts=["a b"]) == ["generate", "r", "a b"]


def test_an_unknown_key_is_refused_by_name_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"\[render\] has no sise; it has .*size"):
        words("render", store="s", sise=3)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="no command bake; expected one of prepare, "):
        words("bake")


@pytest.mark.parametrize("file", sorted(WORKFLOWS.glob("*.toml")), ids=lambda file: file.name)
def test_every_shipped_recipe_parses_into_valid_command_lines(file: Path) -> None:
    # As the group calls them: a command keeps the help options of the first context it meets.
    parent = click.Context(cli, info_name="mclip", **cli.context_settings)
    for name, table in tomllib.loads(file.read_text()).items():
        line = recipes.arguments(cli, name, table, file)
        command = cli.commands[line[0]]
        assert command.make_context(line[0], line[1:], parent=parent).params


def test_a_recipe_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[prepare\n")
    with pytest.raises(ValueError, match=r"r\.toml: not TOML"):
        recipes.read_recipe(tmp_path / "r.toml")


def test_a_recipe_that_is_nowhere_is_told_with_those_that_are_shipped(tmp_path: Path) -> None:
    shipped = "babel60, bandai, cmu, cmu_bandai, paper, quickstart, tiny"
    told = f"nonsense: no such recipe: expected a .toml, or one that mclip ships: {shipped}"
    with pytest.raises(ValueError, match=told):
        recipes.find_recipe(Path("nonsense"))
    mine = tmp_path / "mine.toml"
    mine.write_text("")
    assert recipes.find_recipe(mine) == mine
    assert recipes.find_recipe(Path("tiny")).resolve() == WORKFLOWS / "tiny.toml"


def test_a_command_that_fails_stops_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[status]\nstore = "nowhere.zarr"\n[render]\nstore = "nowhere.zarr"\n')
    with pytest.raises(click.ClickException, match="no store here"):
        recipes.run(cli, tmp_path / "r.toml", tmp_path / "out")


def measured() -> dict[str, object]:
    rng = np.random.default_rng(3)
    return {
        "fingerprint": "abc",
        "rot6d": rng.normal(size=8).tolist(),
        "pictures": rng.uniform(100, 255, (2, 8, 8)).tolist(),
        "image_vectors": rng.normal(size=8).tolist(),
        "text_vectors": rng.normal(size=8).tolist(),
        "first_losses": [1.0, 0.9, 0.8, 0.7, 0.6],
        "final": {"loss": 0.2, "mpjpe_mm": 60.0},
    }


def changed(value: object) -> object:
    """The same with its last number half as large again: every tolerance is narrower."""
    if isinstance(value, str):
        return value[::-1]
    if isinstance(value, dict):
        return value | {"mpjpe_mm": value["mpjpe_mm"] * 1.5}
    assert isinstance(value, list)
    return [*value[:-1], changed(value[-1])] if isinstance(value[-1], list) else [*value[:-1], value[-1] * 1.5]


@pytest.mark.parametrize("name", ["fingerprint", *recipes.TOLERANCE])
def test_a_change_of_any_one_result_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "r.toml"
    recipes.expected_file(recipe).write_text(json.dumps(measured()))
    found = measured()
    monkeypatch.setattr(recipes, "measure", lambda *_: found)
    assert "within tolerance" in recipes.check(recipe, tmp_path)
    found[name] = changed(found[name])
    with pytest.raises(ValueError, match=rf"1 of 7 checks are off\n  {name}"):
        recipes.check(recipe, tmp_path)


def test_a_recipe_without_expected_values_says_how_to_write_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine.expected.json: no expected values; --regenerate writes them"):
        recipes.check(tmp_path / "mine.toml", tmp_path)


def test_projections_see_a_change_of_sign_and_of_order() -> None:
    values = np.random.default_rng(1).normal(size=(40, 6))
    base = np.array(recipes.project(values))
    flipped = values.copy()
    flipped[:, 2] *= -1
    assert np.abs(np.array(recipes.project(flipped)) - base).max() > 0.1
    assert np.abs(np.array(recipes.project(values[::-1])) - base).max() > 0.1
