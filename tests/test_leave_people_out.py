"""Whole people are held out, whatever else says a split, and the recipe that trains without them is a recipe."""

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from mclip.pipeline.labels.label_files import read_labels

WORKFLOWS = Path(__file__).parent.parent / "workflows"
NAMES = ["CMU/07/07_01_poses.npz", "CMU/07/07_05_poses.npz", "CMU/08/08_01_poses.npz", "CMU/070/a,b_poses.npz"]


@pytest.fixture(scope="module")
def workflow() -> Any:
    spec = importlib.util.spec_from_file_location("leave_people_out", WORKFLOWS / "leave_people_out.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_clips_of_a_person_are_held_out_and_no_other_though_labels_say_otherwise(
    workflow: Any, tmp_path: Path
) -> None:
    (tmp_path / "split.csv").write_text(workflow.split_of_people(NAMES, ["CMU/07"]), encoding="utf-8")
    (tmp_path / "own.csv").write_text("path,text,split\nCMU/08/08_01,walk,val\nCMU/07/07_01,walk,train\n")
    said = read_labels((tmp_path / "own.csv",), tmp_path / "split.csv").split
    assert said == {"CMU/07/07_01": "val", "CMU/07/07_05": "val", "CMU/08/08_01": "train", "CMU/070/a,b": "train"}


@pytest.mark.parametrize(
    ("folders", "told"),
    [(["CMU/09"], "no clip below CMU/09; they are called as CMU/07/07_01"), (["CMU"], "every clip is held out")],
)
def test_a_folder_of_nobody_and_one_of_all_are_refused(workflow: Any, folders: list[str], told: str) -> None:
    with pytest.raises(click.ClickException, match=told):
        workflow.split_of_people(NAMES, folders)


def test_the_recipe_is_the_same_but_for_its_split(workflow: Any, tmp_path: Path) -> None:
    was = tomllib.loads((WORKFLOWS / "cmu.toml").read_text(encoding="utf-8"))
    made = tomllib.loads(workflow.recipe_with(WORKFLOWS / "cmu.toml", tmp_path / "split.csv"))
    for name in ("prepare", "prepare.2"):
        assert made[name].pop("split") == str(tmp_path / "split.csv")
        assert Path(made[name]["labels"][1]).is_absolute()
        was[name].pop("split")
        assert {**made[name], "source": "", "labels": ""} == {**was[name], "source": "", "labels": ""}
    assert {name: made[name] for name in made if name[:7] != "prepare"} == {
        name: was[name] for name in was if name[:7] != "prepare"
    }
    with pytest.raises(click.ClickException, match="no line that begins with"):
        workflow.recipe_with(WORKFLOWS / "quickstart.toml", tmp_path / "split.csv")
