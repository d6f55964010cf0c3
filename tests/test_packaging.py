"""The package that is built holds what the source tree holds, under its own name only."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the source archive, as an installer would."""
    out = tmp_path_factory.mktemp("dist")
    build = "from setuptools import build_meta as b; import sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    sdist = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, "build_sdist", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    with tarfile.open(out / sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none
        archive.extractall(out)
    name = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, "build_wheel", str(out)],
        cwd=out / sdist.removesuffix(".tar.gz"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    return zipfile.ZipFile(out / name)


SHIPPED = (".py", ".npz", ".json", ".safetensors", ".md", ".j2", ".min.js", ".wasm.gz")  # of pipeline and training
RECIPES = (".toml", ".csv", ".expected.json")  # of workflows


def sources() -> set[str]:
    """What a user needs of the source tree: every module and every file that it reads."""
    house = {path for folder in ("pipeline", "training") for path in (ROOT / folder).rglob("*") if path.is_file()}
    house = {path for path in house if path.name.endswith(SHIPPED)}
    recipes = {path for path in (ROOT / "workflows").iterdir() if path.name.endswith(RECIPES)}
    return {path.relative_to(ROOT).as_posix() for path in house | recipes} | {"cli.py"}


def test_the_wheel_holds_every_module_and_data_file_under_mclip(wheel: zipfile.ZipFile) -> None:
    packed = {name.removeprefix("mclip/") for name in wheel.namelist() if name.startswith("mclip/")}
    assert sources() - packed == set()


def run_installed(wheel: zipfile.ZipFile, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`mclip run WORDS` by the package of the wheel, in an empty folder."""
    wheel.extractall(folder / "installed")
    (folder / "here").mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "mclip.cli", "run", *words]
    found = os.environ | {"PYTHONPATH": str(folder / "installed")}
    return subprocess.run(command, cwd=folder / "here", env=found, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "workflows").glob("*.toml")))
def test_an_installed_package_runs_its_recipes_by_name(wheel: zipfile.ZipFile, tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / f"here/mclip-{name}").write_text("no folder")  # the first thing that running it cannot go on from
    told = run_installed(wheel, tmp_path, name)
    assert told.stderr == f"Error: mclip-{name}: File exists: expected a folder, or no file yet: name another\n"


def test_a_recipe_of_the_package_finds_what_lies_beside_it(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    told = run_installed(wheel, tmp_path, "cmu")
    split = tmp_path / "installed/mclip/workflows/cmu_split.csv"
    assert f"--split {split}" in told.stdout
    assert split.is_file()
    assert "shared/data/cmu/babel" in told.stderr  # development data, no part of the package
    assert not (tmp_path / "here/mclip-cmu/store.zarr").exists()


def test_the_wheel_puts_nothing_generic_into_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("mclip")} == set()
