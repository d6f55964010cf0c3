"""Recipes: a table a command, with its options by their own names; and the figures a recipe must come back to."""

import contextlib
import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np

from mclip.pipeline.files.assets import RECIPES
from mclip.pipeline.files.documents import checked, read_object, read_sealed, read_text
from mclip.pipeline.machine.commands import Refusal, Stopped
from mclip.pipeline.machine.words import say
from mclip.pipeline.store.store import open_store
from mclip.training.model.run import EVALUATION
from mclip.training.train.journal import METRICS, read_journal

Value = str | int | float | bool


def run(cli: click.Group, recipe: Path, folder: Path) -> None:
    """Run the recipe's commands in order, inside `folder`; each is printed as one would type it."""
    tables = read_recipe(recipe)
    commands = [arguments(cli, name, table, recipe) for name, table in tables.items()]
    for name, words in zip(tables, commands, strict=True):
        require_words(cli, words, f"{recipe}: [{name}]")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{recipe.stem}: {len(commands)} commands in {folder.resolve()}")
    with contextlib.chdir(folder):
        for words in commands:
            say(f"$ mclip {shlex.join(words)}")
            run_command(cli, words)


def require_words(cli: click.Group, words: list[str], where: str) -> None:
    """ValueError, naming the table, for words that their command would refuse: before hours of those above it."""
    # As the group calls them: a command keeps the help options of the first context it meets.
    parent = click.Context(cli, info_name="mclip", **cli.context_settings)
    try:
        cli.commands[words[0]].make_context(words[0], words[1:], parent=parent).close()
    except click.ClickException as error:
        raise ValueError(f"{where} {error.format_message()}") from error
    except ValueError as error:  # a path with a NUL in it
        raise ValueError(f"{where} {error}") from error


def find_recipe(named: Path) -> Path:
    """The file of a recipe, or the one of that name that mclip ships; ValueError naming these for any other."""
    shipped = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}
    if named.is_file():
        return named
    if str(named) in shipped:
        return shipped[str(named)]
    raise ValueError(f"{named}: no such recipe: expected a .toml, or one that mclip ships: {', '.join(shipped)}")


def run_command(cli: click.Group, words: list[str]) -> None:
    """Run one command of a recipe; Refusal naming it, and why it ended, where it does not go through."""
    command = f"`mclip {shlex.join(words)}`"
    try:
        cli.main(args=words, prog_name="mclip", standalone_mode=False)
    except Stopped:  # Ctrl+C ends a recipe as it ends a command
        raise
    except click.ClickException as error:
        raise Refusal(f"the recipe ends at {command}: {error.format_message()}") from error
    except SystemExit as ended:
        if ended.code:
            raise Refusal(
                f"the recipe ends at {command}, which did not do all it should (exit code {ended.code}): what failed "
                "stands above; run the recipe again to go on without it, or mend it first"
            ) from ended


def read_recipe(recipe: Path) -> dict[str, dict[str, Any]]:
    """The tables of a recipe; ValueError when it is no TOML."""
    text = read_text(recipe)
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of a thousand digits is no TOMLDecodeError
        raise ValueError(f"{recipe}: not TOML: {error}") from error
    if loose := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise ValueError(f"{recipe}: {', '.join(loose)} outside of a table: expected tables of commands, as [prepare]")
    return checked(tables, dict[str, dict[str, Value | list[Value]]], file=recipe, remedy="mend this line")


def arguments(cli: click.Group, name: str, table: dict[str, Any], recipe: Path) -> list[str]:
    """The command line of a table: `evaluate.2` is a second `evaluate`; `{here}` in a value is the recipe's folder.

    ValueError naming an unknown command or key.
    """
    command = cli.commands.get(name.split(".")[0])
    if command is None:
        raise ValueError(f"{recipe}: no command {name}; expected one of {', '.join(cli.commands)}")
    known = {parameter.name: parameter for parameter in command.params}
    by_flag = {flag.lstrip("-").replace("-", "_"): each for each in command.params for flag in each.opts}
    unknown = set(table) - set(known) - set(by_flag)
    if unknown:
        raise ValueError(f"{recipe}: [{name}] has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(by_flag))}")
    options, positional = [], {}
    for key, value in table.items():
        parameter = by_flag.get(key) or known[key]
        values = [str(each) for each in (value if isinstance(value, list) else [value])]
        values = [each.replace("{here}", str(recipe.resolve().parent)) for each in values]
        if isinstance(parameter, click.Argument):
            positional[parameter.name] = values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            if not isinstance(value, bool):
                raise ValueError(f"{recipe}: [{name}] {key} is {value!r}: expected true or false")
            options += parameter.opts[:1] if value else parameter.secondary_opts[:1]  # --no-, where it is on by itself
        else:
            options += [word for each in values for word in (parameter.opts[-1], each)]
    order = [parameter.name for parameter in command.params if isinstance(parameter, click.Argument)]
    places = [word for place in order for word in positional.get(place, [])]
    if any(word.startswith("-") for word in places):  # a text, and no option
        return [name.split(".")[0], *options, "--", *places]
    return [name.split(".")[0], *places, *options]


def measure(recipe: Path, folder: Path) -> dict[str, Any]:
    """What the recipe's results are: fingerprint, pictures, vectors, first losses, final figures."""
    tables = read_recipe(recipe)
    store = open_store(folder / tables["prepare"]["store"])
    encoder = next(iter(store.encoders))
    run = folder / tables["train"]["run"]
    lines = read_journal(run / METRICS)
    losses = [line["loss/total"] for line in lines if "loss/total" in line]
    figures = read_sealed(run / EVALUATION, remedy="run `mclip evaluate` again with --replace")
    rgb = store.read("pictures/rgb").astype(float)
    return {
        "fingerprint": store.fingerprint(),
        "rot6d": project(store.read("motion/rot6d")),
        # 8 x 8 cells of each picture: where the body is and how it is lit.
        "pictures": cells(rgb).round(2).tolist(),
        "image_vectors": project(store.read(f"embeddings/{encoder}/image")),
        "text_vectors": project(store.read(f"embeddings/{encoder}/text")),
        "first_losses": losses[:5],
        "final": {"loss": losses[-1], **figures["reconstruction"]},
    }


def cells(rgb_BSS3: np.ndarray) -> np.ndarray:
    """Mean brightness (B, 8, 8) of an 8 x 8 grid over every picture."""
    side = rgb_BSS3.shape[1] // 8
    return rgb_BSS3.mean(-1)[:, : 8 * side, : 8 * side].reshape(-1, 8, side, 8, side).mean((2, 4))


def project(values: np.ndarray) -> list[float]:
    """Eight fixed random projections of an array: any change of sign or order moves them."""
    flat = values.reshape(-1).astype(float)
    rows = np.random.default_rng(0).standard_normal((8, flat.size)) / np.sqrt(flat.size)
    return [float(number) for number in rows @ flat]


# Largest difference from the expected value: absolute, or a share of it. Kernels of other machines add in another
# order, which moves what is trained more than what is only computed; a wrong sign anywhere moves all by far more.
TOLERANCE = {
    "rot6d": {"absolute": 1e-4},
    "pictures": {"absolute": 1.0},
    "image_vectors": {"absolute": 2e-3},
    "text_vectors": {"absolute": 2e-3},
    "first_losses": {"share": 0.02},
    "final": {"share": 0.15},
}


def expected_file(recipe: Path) -> Path:
    """Where a recipe's expected values lie."""
    return recipe.with_suffix(".expected.json")


def regenerate(recipe: Path, folder: Path) -> str:
    """Write the expected values from the results."""
    file = expected_file(recipe)
    file.write_text(json.dumps(measure(recipe, folder), indent=1) + "\n")
    return f"check: {file} written"


def check(recipe: Path, folder: Path) -> str:
    """Compare the results with the expected values; ValueError listing all that are off."""
    file = expected_file(recipe)
    if not file.exists():
        raise ValueError(f"{file}: no expected values; --regenerate writes them from results that you trust")
    expected, found = read_object(file, remedy="restore it, or pass --regenerate"), measure(recipe, folder)
    off = (
        []
        if found["fingerprint"] == expected["fingerprint"]
        else [f"fingerprint: {found['fingerprint']}, expected {expected['fingerprint']}"]
    )
    for name, tolerance in TOLERANCE.items():
        got, want = (np.array(numbers(each[name])) for each in (found, expected))
        if got.shape != want.shape:
            off.append(f"{name}: {got.size} numbers, expected {want.size}")
            continue
        allowed = tolerance.get("absolute", 0) + tolerance.get("share", 0) * np.abs(want)
        worst = float((np.abs(got - want) / allowed).max())
        if not worst <= 1:
            off.append(f"{name}: off by {worst:.1f} times the tolerance {tolerance}")
    if off:
        raise ValueError(f"{recipe.stem}: {len(off)} of {len(TOLERANCE) + 1} checks are off\n  " + "\n  ".join(off))
    return f"check: {len(TOLERANCE) + 1} of {len(TOLERANCE) + 1} checks are within tolerance"


def numbers(value: Any) -> list[float]:
    """All numbers of nested lists and dicts, in order."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(value)]
