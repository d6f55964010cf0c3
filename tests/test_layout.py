"""The house keeps its order: which room may import which, no circles, and no module outside a room."""

import ast
import graphlib
import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mclip.pipeline.files.assets import HOUSE

# A room imports from the rooms above it in its own list; training's rooms from all of pipeline's too.
ROOMS = {
    "pipeline": (
        "files",
        "machine",
        "geometry",
        "skeletons",
        "forms",
        "characters",
        "store",
        "labels",
        "prepare",
        "embed",
        "draw",
        "render",
    ),
    "training": ("model", "data", "measure", "train", "latent", "evaluate", "show", "portable", "serve", "studio"),
}
ON_API = {"serve"}  # rooms that stand on training/api.py, as programs of other people do
BESIDE = {
    "training/api.py",  # what Python programs call, of all rooms
    "training/recipe.py",  # runs the commands of all rooms
}
MODULES = range(3, 11)  # that a room may have


def modules(house: Path) -> dict[str, Path]:
    """Every module of the two folders by its dotted name; a package is called as its folder."""
    files = [file for folder in ROOMS for file in (house / folder).rglob("*.py")]
    return {".".join(file.relative_to(house).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports_of(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of this house that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import: write the whole path"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in (name.removeprefix("mclip.") for name in names if name.startswith("mclip.")):
            parts = name.split(".")
            longest = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            yield next((found for found in longest if found in known), name)


def arrows(house: Path) -> dict[str, set[str]]:
    """Every module with the modules that it imports."""
    known = modules(house)
    return {name: set(imports_of(file, known)) for name, file in known.items()}


def room_of(module: str) -> tuple[str, str]:
    """Folder and room of a module; an empty room for one that lies in none."""
    folder, *rest = module.split(".")
    return folder, rest[0] if rest and rest[0] in ROOMS.get(folder, ()) else ""


def wrong_arrows(house: Path) -> list[str]:
    """Imports that point down the list, or from pipeline to training, or to the command line."""
    wrong = []
    for module, targets in arrows(house).items():
        folder, room = room_of(module)
        for target in sorted(targets):
            to_folder, to_room = room_of(target)
            if not room or (folder, to_folder) == ("training", "pipeline"):
                continue
            if room in ON_API and target == "training.api":
                continue
            order = ROOMS[folder]
            if folder != to_folder or not to_room or order.index(to_room) > order.index(room):
                wrong.append(f"{module} imports {target}")
    return wrong


def test_a_room_imports_only_what_stands_above_it() -> None:
    assert wrong_arrows(HOUSE) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    tuple(graphlib.TopologicalSorter(arrows(HOUSE)).static_order())  # CycleError names the circle


def test_no_module_lies_outside_a_room() -> None:
    loose = {file.relative_to(HOUSE).as_posix() for folder in ROOMS for file in (HOUSE / folder).glob("*.py")}
    assert loose == {"pipeline/__init__.py", "training/__init__.py", *BESIDE}
    rooms = {(path.parent.parent.name, path.parent.name) for name in ROOMS for path in (HOUSE / name).rglob("*/*.py")}
    assert rooms == {(folder, room) for folder, names in ROOMS.items() for room in names}


@pytest.mark.parametrize(("folder", "room"), [(folder, room) for folder in ROOMS for room in ROOMS[folder]])
def test_a_room_has_a_sentence_and_a_handful_of_modules(folder: str, room: str) -> None:
    files = list((HOUSE / folder / room).glob("*.py"))
    assert len(files) - 1 in MODULES, sorted(file.name for file in files)
    (sentence,) = ast.parse((HOUSE / folder / room / "__init__.py").read_text()).body
    assert isinstance(sentence, ast.Expr)
    assert ast.literal_eval(sentence.value).endswith(".")


@pytest.mark.parametrize("folder", ROOMS)
def test_a_folder_is_a_sentence_and_the_names_that_it_gives(folder: str) -> None:
    sentence, *others = ast.parse((HOUSE / folder / "__init__.py").read_text()).body
    assert isinstance(sentence, ast.Expr)
    assert ast.literal_eval(sentence.value).endswith(".")
    assert [type(node) for node in others] == [ast.ImportFrom, ast.If, ast.Assign, ast.FunctionDef]
    assert others[0].module == "typing"  # type: ignore[attr-defined]
    assert others[-1].name == "__getattr__"  # type: ignore[attr-defined]


def test_every_room_is_listed_in_the_package() -> None:
    listed = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {f"mclip.{folder}.{room}" for folder, names in ROOMS.items() for room in names}
    assert rooms | {"mclip", "mclip.pipeline", "mclip.training", "mclip.workflows"} == set(listed)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pipeline/store/lock.py", "from mclip.pipeline.prepare import plan"),
        ("pipeline/files/npz.py", "def f():\n    from mclip.training.model import run"),
        ("pipeline/files/npz.py", "from mclip import training"),
        ("training/data/rows.py", "import mclip.training.show.page"),
        ("training/data/rows.py", "from mclip.cli import cli"),
    ],
)
def test_a_planted_wrong_import_is_reported(tmp_path: Path, module: str, line: str) -> None:
    for file in itertools.chain.from_iterable((HOUSE / folder).rglob("*.py") for folder in ROOMS):
        copy = tmp_path / file.relative_to(HOUSE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    assert wrong_arrows(tmp_path) == []
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert len(wrong_arrows(tmp_path)) == 1


def test_a_planted_circle_is_reported(tmp_path: Path) -> None:
    for name, target in (("one", "two"), ("two", "one")):
        file = tmp_path / f"pipeline/files/{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f():\n    from mclip.pipeline.files import {target}\n")
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(arrows(tmp_path)).static_order())
