"""How large the house is: files, functions, arrows between files, circles, and what each room holds.

    python workflows/measure_house.py            # this checkout
    python workflows/measure_house.py FOLDER     # another one, such as an older commit

See workflows/records/house.md for the figures. Everything is read by ast; nothing is imported.
"""

import ast
import itertools
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

PARTS = ("pipeline", "training")
LONG = 50  # lines of a function, which style asks to stop at


def files_of(house: Path) -> dict[str, Path]:
    """Every module of the house by its dotted name."""
    found = itertools.chain([house / "cli.py"], *((house / part).rglob("*.py") for part in PARTS))
    return {".".join(file.relative_to(house).with_suffix("").parts): file for file in sorted(found)}


def functions_in(tree: ast.AST) -> Iterator[int]:
    """Lines of every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def imports_in(tree: ast.AST, modules: dict[str, Path]) -> set[str]:
    """The modules of the house that a module imports, inside functions too; importing from a package is no arrow."""
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("mclip.") for name in named} & set(modules)


def circles_in(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or by way of others."""
    names = sorted(arrows)
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[name], place[target]) for name in names for target in arrows[name]]
    rows, columns = np.array(pairs).reshape(-1, 2).T
    graph = csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(names), len(names)))
    count, label = connected_components(graph, directed=True, connection="strong")
    groups = [[name for name, of in zip(names, label, strict=True) if of == number] for number in range(count)]
    return [group for group in groups if len(group) > 1]


def room_of(module: str) -> str:
    """The folder that a module lies in, as pipeline/store."""
    return "/".join(module.split(".")[:-1]) or "."


def main(house: Path) -> None:
    """Print the figures of a checkout as tables in Markdown."""
    modules = files_of(house)
    text = {name: file.read_text(encoding="utf-8") for name, file in modules.items()}
    trees = {name: ast.parse(source) for name, source in text.items()}
    lines = {name: len(source.splitlines()) for name, source in text.items()}
    lengths = np.array([length for tree in trees.values() for length in functions_in(tree)])
    arrows = {name: imports_in(tree, modules) for name, tree in trees.items()}
    to_part = Counter((name.split(".")[0], each.split(".")[0]) for name, found in arrows.items() for each in found)
    figures = {
        "files": len(modules),
        "lines": sum(lines.values()),
        "lines of a file, median": f"{np.median([*lines.values()]):.0f}",
        "functions": len(lengths),
        "lines of a function: median, mean": f"{np.median(lengths):.0f}, {lengths.mean():.1f}",
        "lines of a function: 90th percentile, longest": f"{np.percentile(lengths, 90):.0f}, {lengths.max()}",
        f"functions of more than {LONG} lines": int((lengths > LONG).sum()),
        "`# fmt: skip`": sum(source.count("# fmt: skip") for source in text.values()),
        "imports between files": sum(map(len, arrows.values())),
        "of them training -> pipeline, pipeline -> training": " and ".join(
            str(to_part[pair]) for pair in (("training", "pipeline"), ("pipeline", "training"))
        ),
        "circles": len(circles := circles_in(arrows)),
    }
    print("| figure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value} |")
    for circle in circles:
        print(f"\nA circle: {', '.join(circle)}")
    rooms = defaultdict(list)
    for name in modules:
        rooms[room_of(name)].append(name)
    print("\n| room | files | lines |\n|---|---|---|")
    for room, names in rooms.items():
        print(f"| `{room}` | {len(names)} | {sum(lines[name] for name in names):,} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
