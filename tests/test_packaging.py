"""The package that is built holds what the source tree holds, under its own name only."""

import subprocess
import sys
import tarfile
import tomllib
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
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()[-1]  # fmt: skip
    with tarfile.open(out / sdist) as archive:
        archive.extractall(out, filter="data")
    name = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, "build_wheel", str(out)],
        cwd=out / sdist.removesuffix(".tar.gz"), check=True, capture_output=True, text=True,
    ).stdout.splitlines()[-1]  # fmt: skip
    return zipfile.ZipFile(out / name)


def tracked(pattern: str) -> set[str]:
    """Files of the tree below the package's folders."""
    folders = ("pipeline", "training", "workflows")
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).glob(pattern)}


def test_the_wheel_holds_every_module_and_data_file_under_mclip(wheel: zipfile.ZipFile) -> None:
    packed = {name.removeprefix("mclip/") for name in wheel.namelist() if name.startswith("mclip/")}
    wanted = {"cli.py"} | {file for file in tracked("*.py") if not file.startswith("workflows/")}
    wanted |= (
        {f for f in tracked("data/**/*") if (ROOT / f).is_file()}
        | tracked("*.toml")
        | tracked("*.j2")
        | tracked("*.min.js")
    )
    wanted |= tracked("*.expected.json")
    assert wanted - packed == set()


def test_the_wheel_puts_nothing_generic_into_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("mclip")} == set()


def test_every_package_folder_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        f"mclip.{path.parent.relative_to(ROOT).as_posix().replace('/', '.')}" for path in ROOT.glob("*/**/__init__.py")
    }
    assert {folder for folder in folders if not folder.startswith("mclip.tests")} <= set(listed)


def test_the_pipeline_never_imports_the_training() -> None:
    for file in (ROOT / "pipeline").glob("*.py"):
        assert "mclip.training" not in file.read_text(), file.name
