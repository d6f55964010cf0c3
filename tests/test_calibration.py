"""Scores of recognition that are probabilities: their error by hand, their temperature, and what a user reads."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.files.seal import sealed
from mclip.training.measure.calibration import calibration, calibration_error, fitted_temperature, probabilities
from mclip.training.model.run import EVALUATION, Run, load_run

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def test_the_calibration_error_is_the_one_worked_by_hand() -> None:
    """Two items at 0.9, of which one is right: |1.8 - 1|. Two at 0.6, both right: |1.2 - 2|. 1.6 of 4 items."""
    found = calibration_error(np.array([0.9, 0.6, 0.9, 0.6]), np.array([True, True, False, True]))
    assert found == pytest.approx(0.4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_a_softmax_is_the_one_worked_by_hand() -> None:
    found = probabilities(np.array([[0.1, 0.2, 0.1 + 0.1 * math.log(3)]]), 0.1)
    assert found == pytest.approx(np.array([[1, math.e, 3]]) / (4 + math.e))


def test_the_temperature_makes_the_first_class_as_likely_as_it_is_right() -> None:
    """Of two classes the first is 0.1 ahead, in 30 of 40 items rightly. Platt's targets are 31/32 and 1/12 of them:
    29.9 of 40, whose log odds are 1.085, so the temperature is 0.1 / 1.085."""
    score = np.tile([0.3, 0.2], (40, 1)).astype(np.float32)
    found = fitted_temperature(score, np.arange(40) < 30)
    assert found == pytest.approx(0.1 / 1.085, rel=0.03)  # neighbours on the grid are 2.3 % apart
    assert 0.01 < fitted_temperature(score, np.ones(40, bool)) < 0.05  # forty hits of forty are not certainty


def test_scores_of_a_known_temperature_are_calibrated_by_it() -> None:
    """Truth is drawn from the softmax of the scores at 0.05, so nothing is left but chance: 0.03 of 2,000 items."""
    generator = np.random.default_rng(0)
    score = generator.uniform(-0.2, 0.4, (2000, 10))
    drawn = np.array([generator.choice(10, p=each) for each in probabilities(score, 0.05)])
    found = calibration(score, np.eye(10, dtype=bool)[drawn], np.arange(2000))
    assert found["temperature"] == pytest.approx(0.05, rel=0.1)
    assert found["ece"] < 0.05 < found["ece_cosines"]
    assert (found["items"], found["classes"]) == (2000, 10)
    none = np.zeros((2000, 10), bool)
    assert calibration(score, none, np.arange(2000)) == {}


def test_an_evaluated_run_says_probabilities_and_any_other_cosines(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    words = ["recognise", str(copy), str(WALK), "--top", "60", "--json"]

    def said(temperature: float | None, weights: str) -> tuple[str, list[float]]:
        figures = {"weights": weights, "calibration": {"temperature": temperature} if temperature else {}}
        (copy / EVALUATION).write_text(json.dumps(sealed(figures)))
        (piece, *_) = json.loads(CliRunner().invoke(cli, words).output)[str(WALK)]
        return piece["scores"], [score for _, score in piece["classes"]]

    what, likely = said(0.05, run.fingerprint)
    assert what == "probability"
    assert sum(likely) == pytest.approx(1, abs=1e-5)
    assert min(likely) > 0
    for temperature, weights in ((0.05, "others"), (None, run.fingerprint)):
        what, cosine = said(temperature, weights)
        assert what == "cosine"
        assert np.allclose(probabilities(np.array([cosine]), 0.05)[0], likely, atol=1e-5)
    (copy / EVALUATION).write_text("{")
    with pytest.raises(ValueError, match=r"evaluation.json: .*mclip evaluate --replace"):
        _ = load_run(copy).class_temperature
    assert replace(run, folder=tmp_path).class_temperature is None
