"""The report: every figure in it, nothing fetched, nothing a text could break."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mclip.pipeline.store.store import Store
from mclip.training.evaluate import report
from mclip.training.model.run import Run

FIGURES = {
    "split": "val",
    "windows": 12345,
    "sequences": 7,
    "step": 6500,
    "reconstruction": {"mpjpe_mm": 23.456, "z_spread": 0.5},
    "text_to_motion": {"R@1": 0.5, "R@2": 0.6, "R@3": 0.7, "R@5": 0.8, "R@10": 0.9, "MedR": 2.0, "queries": 31},
    "motion_to_text": {},
    "recognition": {"top1": 0.4, "top5": 0.9, "top1_norm": 0.3, "mAP": 0.5, "items": 9, "classes": 60, "chance": 0.02},
    "ci95": {
        "reconstruction": {"mpjpe_mm": [20.0, 27.1]},
        "text_to_motion": {k: [0.1, 0.2] for k in ("R@1", "R@2", "R@3", "R@5", "R@10", "MedR")},
        "recognition": {"top1": [0.3, 0.5], "top5": [0.8, 1.0], "top1_norm": [0.2, 0.4], "mAP": [0.4, 0.6]},
    },
}
EVIL = "<script>alert(1)</script> & walk $x^2$"


def plots(windows: int) -> report.Plots:
    generator = np.random.default_rng(0)
    kinds = [EVIL, "run", "sit", ""]
    return report.Plots(
        ranks={"labels, text_to_motion": np.array([1, 2, 7]), "all, motion_to_text": np.array([3, 1])},
        classes=[EVIL, "run", "never"],
        confusion_KK=np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]),
        z_WC=generator.normal(size=(windows, 8)),
        shown_W=[kinds[item % 4] for item in range(windows)],
    )


def test_every_figure_has_its_row_with_its_interval() -> None:
    found = {each.title: each for each in report.tables(FIGURES)}
    assert found["Reconstruction"].rows == [("MPJPE, mm", "23.5", "[20, 27.1]")]
    assert found["Alignment with CLIP"].rows == [("spread of z", "0.5", "")]
    ranking = found["Retrieval: labels over sequences, then TMR's protocols over pairs"].rows
    assert ranking[0][:2] == ("labels, text to motion", "0.5 [0.1, 0.2]")
    assert ranking[0][-1] == "31"
    assert len(ranking) == 1  # nothing was asked the other way
    assert next(each for title, each in found.items() if title.startswith("Recognition")).rows[0][1:4] == (
        "0.4 [0.3, 0.5]",
        "0.9 [0.8, 1]",
        "0.3 [0.2, 0.4]",
    )
    assert "Latent arithmetic" not in found
    assert "MPJPE, mm" in report.format_tables(FIGURES)


@pytest.mark.parametrize(("value", "told"), [(3, "3"), (0.12345, "0.123"), (1234.5, "1,234"), (float("nan"), "nan")])
def test_numbers_are_short(value: float, told: str) -> None:
    assert report.number(value) == told


class Page(HTMLParser):
    """What a page refers to, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.mark.parametrize("windows", [20, 700])
def test_the_page_needs_nothing_else_and_runs_no_text(run: Run, store: Store, windows: int) -> None:
    file = report.write_report(run, store, FIGURES, plots(windows))
    text = file.read_text(encoding="utf-8")
    file.unlink()
    page = Page(text)
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert all(each.startswith(("data:", "#")) for each in page.references)
    assert "url(http" not in text
    assert not re.search(r"@import|<link[^>]+stylesheet", text)
    assert "12,345 windows" in text
    assert "23.5" in text
    assert len(text) < 1_000_000
    assert report.INK not in text
    assert "currentColor" in text
    ids = [each for each in page.ids if re.fullmatch(r"\w*[0-9a-f]{10}", each)]
    assert len(ids) == len(set(ids))  # or one drawing would be clipped by another's shape


def test_the_rows_of_the_matrix_are_the_frequent_classes() -> None:
    _, told, drawn = list(report.drawings(plots(5)))[-1]
    assert "2 of 3 classes" in told
    assert "never" not in drawn


def test_there_is_no_drawing_of_nothing() -> None:
    empty = report.Plots({}, [], np.zeros((0, 0), int), np.zeros((2, 4)), ["", ""])
    assert list(report.drawings(empty)) == []


def test_many_windows_are_a_picture_inside_the_map() -> None:
    generator = np.random.default_rng(1)
    drawn = report.motion_map(generator.normal(size=(5000, 2)), ["walk"] * 5000)
    assert "data:image/png" in drawn
    assert len(drawn) < 300_000
