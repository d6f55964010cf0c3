"""A split and a recipe in which whole people are held out: what a model is worth on somebody it never saw.

    mclip run workflows/cmu.toml --folder cmu
    python workflows/leave_people_out.py cmu/store.zarr CMU/07 CMU/08 --folder cmu_07_08
    mclip run cmu_07_08/cmu.toml --folder cmu_07_08
    python workflows/compare_baselines.py cmu_07_08/run cmu_07_08/store.zarr

The store says which clips there are: every clip below one of the folders is for validation, and every other one trains,
whatever labels or another split say. The recipe is workflows/cmu.toml (`--recipe` another) with that split.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import click

from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.store.store import open_store

HERE = Path(__file__).parent


def split_of_people(names: Sequence[str], folders: Sequence[str]) -> str:
    """The csv of `path,split` that holds out what lies in the folders; ClickException for one in which nothing lies."""
    empty = [folder for folder in folders if not any(is_below(name, folder) for name in names)]
    if empty:
        raise click.ClickException(f"no clip below {', '.join(empty)}; they are called as {names[0]}")
    rows = [(name, "val" if any(is_below(name, folder) for folder in folders) else "train") for name in names]
    if all(split == "val" for _, split in rows):
        raise click.ClickException("every clip is held out: leave somebody to learn from")
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([("path", "split"), *rows])
    return written.getvalue()


def is_below(name: str, folder: str) -> bool:
    """Whether a clip lies in a folder."""
    return name.startswith(f"{folder.rstrip('/')}/")


def recipe_with(recipe: Path, split: Path) -> str:
    """A recipe's text whose split is another; what it names beside itself is still found."""
    lines = recipe.read_text(encoding="utf-8").replace("{here}", str(recipe.parent.resolve())).splitlines()
    changed = [f'split = "{split.resolve()}"' if line.startswith("split = ") else line for line in lines]
    if changed == lines:
        raise click.ClickException(f'{recipe}: no line that begins with "split = ": add one to each [prepare]')
    return "\n".join([*changed, ""])


@click.command()
@click.argument("store")
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@click.option("--folder", "out", type=click.Path(path_type=Path), required=True, help="Folder to write both files to.")
@click.option("--recipe", type=click.Path(exists=True, path_type=Path), default=HERE / "cmu.toml", help="The recipe.")
def main(store: str, folders: tuple[str, ...], out: Path, recipe: Path) -> None:
    """Write a split that holds out all clips below some folders, and a recipe that trains by it."""
    text = split_of_people(open_store(store).strings("sequences/name"), folders)
    out.mkdir(parents=True, exist_ok=True)
    split, made = out / "split.csv", out / recipe.name
    write_aside(made, recipe_with(recipe, split))
    write_aside(split, text)
    click.echo(f"{text.count(',val'):,} clips held out: mclip run {made} --folder {out}")


if __name__ == "__main__":
    main()
