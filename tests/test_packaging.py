"""The package that is built holds what the source tree holds, under its own name only."""

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
        archive.extractall(out, filter="data")
    name = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, "build_wheel", str(out)],
        cwd=out / sdist.removesuffix(".tar.gz"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    return zipfile.ZipFile(out / name)


SHIPPED = (".py", ".npz", ".json", ".safetensors", ".md", ".j2", ".min.js")  # of pipeline and training
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


def test_the_wheel_puts_nothing_generic_into_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("mclip")} == set()
