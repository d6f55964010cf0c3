"""README and guides: their commands run as they stand there, their Python too, and what they name exists."""

import ast
import contextlib
import functools
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mclip.cli import cli
from mclip.pipeline.files.assets import HOUSE, MOTIONS, RECIPES
from mclip.training import recipe

README = HOUSE / "README.md"
GUIDES = sorted((HOUSE / "workflows/guides").glob("*.md"))
DOCUMENTS = [README, *GUIDES]
PYTHON = [each for each in DOCUMENTS if "```python" in each.read_text(encoding="utf-8")]

# Commands that no test can run: each is parsed, and the reason says why that is all.
NOT_RUN = {
    r"mclip (quickstart|run) ": "takes minutes; .ci/run does it",
    r"mclip train ": "takes minutes; the run of these tests is trained by the same command",
    r"mclip studio ": "serves until it is ended; tests/test_studio.py",
    r"mclip serve ": "serves until it is ended; tests/test_serve.py",
    r"mclip (embed|render) amass.zarr": "a store that a real run would have by then",
    r"mclip page |--onnx": "traces a text tower for 30 s; tests/test_model_page.py, tests/test_graphs.py",
    r"mclip body import ": "wants a file under licence; tests/test_body_files.py",
    r"mclip import-checkpoint ": "wants a file of the release; tests/test_paper_checkpoint.py",
    r"bones-seed": "wants a data set for which one registers; tests/test_seed.py",
    r"s3://|tcp://": "wants a server; tests/test_remote.py, tests/test_stage.py",
}
PART = "@0.5"  # seconds of a part of a sequence, @3 in the documents: joining crops of 12 frames takes its time
CROP = 12  # frames of a crop and of all motions made here, 60 in the real quickstart: a fifth of the drawing
# Words that are options of other programs, in the lines that name them.
ELSEWHERE = {"--data-binary", "--num_repetitions", "--python-expr", "--repeat_times", "--nproc-per-node", "--prefix"}


def blocks(text: str, language: str) -> Iterator[str]:
    """The fenced blocks of a language; those of "" are the indented ones, where nothing but shell stands."""
    if language:
        yield from (found[1] for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        return
    unfenced = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (found[0] for found in re.finditer(r"(?:(?:^    .*\n)+\n?)+", unfenced, re.MULTILINE))


def lines_of(document: Path) -> list[str]:
    """The lines of a document's shell blocks, `\\` at their ends joined."""
    text = "\n".join(blocks(document.read_text(encoding="utf-8"), ""))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def commands(document: Path) -> list[tuple[str, list[str]]]:
    """(command, lines that are shown below it) for every `mclip ...` of a document's shell blocks."""
    found: list[tuple[str, list[str]]] = []
    for line in lines_of(document):
        if line.removeprefix("$ ").startswith("mclip "):
            found.append((line.removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line)
    return found


def words_of(command: str) -> list[str]:
    """What a shell would give to mclip, comments left out, and parts of sequences shorter."""
    return [re.sub(r" @3$", f" {PART}", word) for word in shlex.split(command, comments=True)[1:]]


def is_run(command: str) -> bool:
    """Whether a command is run here, and not only parsed; one that is shortened by ` ...` is of the quickstart."""
    return not any(re.search(pattern, f"{command} ") for pattern in NOT_RUN) and not command.endswith(" ...")


def parsed(words: list[str]) -> None:
    """Let click read a command line, without running it."""
    command, context = cli, click.Context(cli, info_name="mclip", **cli.context_settings)
    while isinstance(command, click.Group):
        _, command, words = command.resolve_command(context, words)
        assert command is not None
    with command.make_context(command.name, words, parent=context):
        pass  # files that it opened are closed


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `mclip quickstart` leaves, after three steps of training; and files that the guides name."""
    folder = tmp_path_factory.mktemp("readme")
    text = (RECIPES / "quickstart.toml").read_text(encoding="utf-8")
    text = re.sub(r'^(\[prepare\]|\["prepare.2"\])', rf"\1\ncrop = {CROP}", text, flags=re.MULTILINE)
    text = text.replace('[evaluate]\nrun = "run"\nstore = "store.zarr"\n', "")  # a guide's command does it
    text = text.replace('[page]\nrun = "run"\nout = "model.html"\n', "")  # traced for 30 s; tests/test_model_page.py
    text = re.sub(r"^epochs = .*", "epochs = 1", text, flags=re.MULTILINE)
    text = re.sub(r"^texts = .*", 'texts = ["karate"]\nformat = ["npz"]', text, flags=re.MULTILINE)
    text = re.sub(r"^(out = .*(?:edited|interpolated).*)", r'\1\nformat = ["npz"]', text, flags=re.MULTILINE)
    short = tmp_path_factory.mktemp("recipe") / "quickstart.toml"
    short.write_text(text, encoding="utf-8")
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        recipe.run(cli, short, folder)
    (folder / "told.txt").write_text(told.getvalue().replace(f" --crop {CROP}", ""), encoding="utf-8")
    (folder / "AMASS").symlink_to(MOTIONS)
    (folder / "BABEL").symlink_to(MOTIONS / "babel")
    for name, clip in (("walk", "walk"), ("running", "run")):
        shutil.copy(MOTIONS / f"EMBEDDED/{clip}/{clip}_poses.npz", folder / f"{name}.npz")
    (folder / "prompts.txt").write_text("a person walks\njumping  # twice\n")
    return folder


@pytest.fixture
def folder(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and the working directory."""
    copy = tmp_path / "mclip-quickstart"
    shutil.copytree(quickstart, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="module")
def outputs(quickstart: Path) -> dict[str, list[str]]:
    """What each command printed, those of the quickstart to begin with: none is run twice."""
    _, *parts = (quickstart / "told.txt").read_text(encoding="utf-8").split("$ ")
    return {command: lines for command, *lines in map(str.splitlines, parts)}


def numberless(line: str) -> str:
    """A line with every number replaced, for figures differ between runs."""
    return re.sub(r"\d[\d,.]*", "#", line)


def summaries(lines: list[str]) -> set[str]:
    """The lines that sum a command up, as `generate: 4 motions ...`, without their numbers; shortened ones left out."""
    kept = (line for line in lines if re.match(r"[\w.]+(?: \w+)?: ", line) and not line.endswith("..."))
    return {numberless(line) for line in kept}


def write_blocks(document: Path, folder: Path) -> None:
    """The table of labels that a guide shows, as the file that its command names."""
    for block in blocks(document.read_text(encoding="utf-8"), "csv"):
        (folder / "own.csv").write_text(block, encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_command_parses(document: Path, folder: Path) -> None:
    for command, _ in commands(document):
        if not command.endswith(" ..."):
            parsed(words_of(command))


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if any(is_run(c) for c, _ in commands(each))], ids=lambda path: path.stem
)
def test_commands_run_in_order_and_say_what_is_shown(
    document: Path, folder: Path, outputs: dict[str, list[str]]
) -> None:
    write_blocks(document, folder)
    for command, shown in commands(document):
        if not is_run(command):
            continue
        if command not in outputs:
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                cli.main(args=words_of(command), prog_name="mclip", standalone_mode=False)
            outputs[command] = told.getvalue().splitlines()
        assert summaries(shown) <= summaries(outputs[command]), command


def test_the_quickstart_prints_what_the_readme_shows(outputs: dict[str, list[str]]) -> None:
    shortened = [
        (command.removesuffix("..."), shown) for command, shown in commands(README) if command.endswith(" ...")
    ]
    assert len(shortened) == 2
    for begin, shown in shortened:
        (told,) = (lines for command, lines in outputs.items() if command.startswith(begin.split("'")[0]))
        assert summaries(shown) <= summaries(told), begin


@pytest.mark.parametrize("document", PYTHON, ids=lambda path: path.stem)
def test_python_runs(document: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(document.read_text(encoding="utf-8"), "python"):
        exec(compile(block, str(document), "exec"), {"__name__": "__main__"})


def test_most_commands_are_run_and_every_one_is_named() -> None:
    every = [command for document in DOCUMENTS for command, _ in commands(document)]
    assert sum(map(is_run, every)) >= 30
    named = {words_of(command)[0] for command in every}
    assert set(cli.commands) - named == {"quickstart"}  # which stands behind its pip install


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = document.read_text(encoding="utf-8")
    found = (title.lower() for title in re.findall(r"^#+ (.*)", text, re.MULTILINE))
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_link_and_picture_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in headings(file), target


def options_of(command: click.Command) -> Iterator[str]:
    """Every option of a command and of its subcommands."""
    for each in command.params:
        yield from each.opts
    for name in getattr(command, "commands", {}):
        yield from options_of(command.commands[name])  # type: ignore[attr-defined]


@functools.cache
def known_options() -> set[str]:
    """The options of all commands, and of the scripts in workflows."""
    scripts = [*(HOUSE / "workflows").glob("*.py"), *(HOUSE / "workflows").glob("*.sh")]
    texts = (script.read_text(encoding="utf-8") for script in scripts)
    return {*options_of(cli), *(word for text in texts for word in re.findall(r"--[a-z][\w-]+", text)), *ELSEWHERE}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_option_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", document.read_text(encoding="utf-8")))
    assert named - known_options() == set()


def names_in(file: Path) -> set[str]:
    """Functions, methods, classes and constants of a module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_the_walks_name_what_is_there() -> None:
    text = (HOUSE / "workflows/guides/house.md").read_text(encoding="utf-8")
    steps = re.findall(r"`([\w/]+\.py): (\w+)`", text)
    assert len(steps) >= 30
    for file, name in steps:
        assert name in names_in(HOUSE / file), f"{file}: {name}"
    for file in re.findall(r"`((?:pipeline|training|tests)/[\w/]+\.py)", text):
        assert (HOUSE / file).exists(), file


def test_the_map_lists_the_rooms_in_the_order_that_the_layout_test_holds() -> None:
    layout = ast.parse((HOUSE / "tests/test_layout.py").read_text(encoding="utf-8"))
    (rooms,) = (node.value for node in layout.body if isinstance(node, ast.Assign) and node.targets[0].id == "ROOMS")  # type: ignore[attr-defined]
    (house,) = blocks(README.read_text(encoding="utf-8"), "text")
    drawn = re.findall(r"^  (\w+)/ ", house, re.MULTILINE)
    assert drawn == [room for names in ast.literal_eval(rooms).values() for room in names]


def test_the_readme_is_short_enough_to_be_read() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 100 and not line.startswith("|") and "](" not in line] == []


def test_ci_finds_its_two_commands() -> None:
    # .ci/run takes them from the README by this very pattern.
    found = re.findall(r"^    (pip install .*&& (mclip quickstart|pytest)) .*", README.read_text("utf-8"), re.MULTILINE)
    assert [name for _, name in found] == ["mclip quickstart", "pytest"]
