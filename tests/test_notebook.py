"""The notebook of the guides runs from its first cell to its last, and shows words and motions."""

import html
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mclip.pipeline.files.assets import HOUSE
from mclip.pipeline.store.store import Store
from mclip.training import Motion, MotionClip
from mclip.training.model.run import Run

NOTEBOOK = HOUSE / "workflows/guides/mclip.ipynb"


def inner(shown: str) -> str:
    """The page in a frame."""
    (found,) = re.findall(
        r'^<iframe sandbox="allow-scripts allow-downloads" style="[^"]*" srcdoc="([^"]*)"></iframe>$', shown
    )
    return html.unescape(found)


def outside(page: str) -> list[str]:
    """What a page would ask a network for."""
    return re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)


def test_the_notebook_runs_and_shows_motions_hits_and_a_picture(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of mclip[dev]")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of mclip[dev]")
    pytest.importorskip("ipykernel", reason="needs ipykernel, of mclip[dev]")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what it shows is made, not kept
    with warnings.catch_warnings(action="ignore"):  # of Jupyter's own libraries
        nbclient.NotebookClient(
            notebook, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    outputs: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.get("data", {}).get("text/html", "") for output in outputs]
    pages = [inner(each) for each in shown if each.startswith("<iframe")]  # the rest are progress bars
    assert [page.count("<figure") for page in pages] == [1, 1, 2]  # the kick, the walk, two hits
    assert [outside(page) for page in pages] == [[]] * 3
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert (tmp_path / "walk.glb").read_bytes()[:4] == b"glTF"


def test_no_word_of_a_store_is_taken_for_more_in_a_notebook(
    run: Run, hostile_store: Store, hostile: tuple[str, ...]
) -> None:
    shown = MotionClip(run).search(hostile_store, "walk", top=len(hostile))._repr_html_()
    assert re.sub(r"&#?\w+;", "", shown).count("<") == 2  # the frame's own
    page = inner(shown)
    assert page.count("<figure") == len(hostile)
    for word in hostile:
        assert word not in page or html.escape(word) == word
    assert outside(page) == []


def test_a_motion_that_is_too_long_for_a_page_is_left_to_its_numbers() -> None:
    motion = Motion(torch.eye(3).expand(3001, 24, 3, 3), torch.zeros(3001, 3), 30.0)
    assert motion._repr_html_() is None
