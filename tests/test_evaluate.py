"""Retrieval, recognition and reconstruction on cases whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.body import load_body
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.store import Store
from mclip.training import evaluate
from mclip.training.crops import Crops, load_crops
from mclip.training.metrics import mpjpe_mm
from mclip.training.model import MotionClip
from mclip.training.run import Run


@pytest.fixture(scope="module")
def crops(store: Store) -> Crops:
    """The middle crops are all that is used of them."""
    return load_crops(store, split="train", encoder="offline", target="joined", device=torch.device("cpu"))


def gallery(z: np.ndarray, labels: list[set[str]]) -> evaluate.Gallery:
    """Two windows of clip a, one of b and one of c."""
    sequence = np.array([0, 0, 1, 2])
    names = ["set/a/a_poses.npz", "set/b/b_poses.npz", "set/c/c_poses.npz"]
    return evaluate.Gallery(z, sequence, names, labels, [{"walk"}, {"walk"}, {"kick"}, {"sit", "walk"}])


AXES = np.eye(4, dtype=np.float32)
LABELS = [{"strolls"}, {"kicks"}, {"sits", "strolls"}]
VECTORS = {"strolls": AXES[0], "kicks": AXES[2], "sits": AXES[3], "walk": AXES[1], "kick": AXES[2], "sit": AXES[3]}


def test_a_sequence_scores_as_its_best_window() -> None:
    assert gallery(AXES, LABELS).score(AXES[1:2]).tolist() == [[1.0, 0.0, 0.0]]


def test_retrieval_is_perfect_when_every_motion_lies_on_its_label() -> None:
    found = evaluate.retrieval(gallery(AXES, LABELS), VECTORS)
    assert found["text_to_motion"]["R@1"] == 1.0
    assert found["motion_to_text"]["R@1"] == 1.0
    assert found["text_to_motion"]["queries"] == 3


def test_a_collapsed_model_finds_nothing_first() -> None:
    same = np.repeat(AXES[:1], 4, axis=0)
    found = evaluate.retrieval(gallery(same, LABELS), VECTORS)
    assert found["text_to_motion"]["R@1"] == 0.0


def test_recognition_counts_any_true_category_of_the_crop() -> None:
    # Window 0 lies on no class, 1 on walk, 2 on kick, 3 on sit, which is one of its two classes.
    found = evaluate.recognition(gallery(AXES, LABELS), VECTORS)
    assert found["top1"] == 0.75
    assert found["classes"] == 3


def test_phrases_hit_clips_by_their_folder() -> None:
    query = np.stack([AXES[2], AXES[0]])
    assert evaluate.hit_rate(gallery(AXES, LABELS), query, [["b"], ["c"]])["R@1"] == 0.5


def test_reconstruction_counts_valid_frames_only(run: Run, crops: Crops) -> None:
    found = evaluate.reconstruct(run.model, crops)
    joints = load_body().joints_J3
    for item in range(len(crops)):
        source, decoded = evaluate.reconstructed(run.model, crops, item)
        alone = mpjpe_mm(rot6d_to_matrix(decoded[:, :24]), rot6d_to_matrix(source[:, :24]), joints)
        assert found.mpjpe_W[item] == pytest.approx(float(alone.mean()), rel=1e-3)
    assert crops.frames.min() < crops.crop  # or nothing was padded, and this test says nothing


def test_a_model_that_stands_still_is_seen_in_the_movement_ratio(run: Run, crops: Crops) -> None:
    class Still(MotionClip):
        def decode(self, z: torch.Tensor, frames: int, mask: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            first = super().decode(z, frames, mask)[:, :1]
            return first.expand(-1, frames, -1, -1)

    still = Still(run.model.config)
    still.load_state_dict(run.model.state_dict())
    assert evaluate.reconstruct(still, crops).moved < 1e-4
    assert evaluate.reconstruct(run.model, crops).moved > 1e-3


def test_evaluation_is_written_once_and_made_again_for_other_queries(
    run: Run, store: Store, encoder: Encoder, tmp_path: Path
) -> None:
    file = run.folder / "evaluation.json"
    figures, line = evaluate.evaluate_once(run, store, split=None, queries=None, replace=False)
    assert "windows of split train done" in line
    assert json.loads(file.read_text())["reconstruction"] == figures["reconstruction"]
    assert "nothing to do" in evaluate.evaluate_once(run, store, split=None, queries=None, replace=False)[1]
    queries = tmp_path / "queries.json"
    queries.write_text('[{"text": "roundhouse", "clip": "kick"}, {"text": "a stroll", "clips": ["walk"]}]')
    figures, _ = evaluate.evaluate_once(run, store, split=None, queries=queries, replace=False)
    assert figures["phrases"]["queries"] == 2
    file.unlink()


def test_all_figures_are_there_and_asked_classes_too(run: Run, store: Store, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("walk\nkick\nget up\nswim\n")
    figures = evaluate.evaluate(
        run, store, split="train", queries=None, encoder=encoder, classes=str(tmp_path / "classes.txt")
    )
    assert figures["recognition_classes"]["crops"] > 0
    assert set(figures["protocols"]) == {"all", "threshold"}
    assert figures["protocols"]["all"]["text_to_motion"]["queries"] == 3
    assert figures["generation"]["fid"] > 0
    assert 0 < figures["alignment"]["cka_text"] <= 1
    for name, (low, high) in figures["ci95"].items():
        mean = {**figures["reconstruction"], **figures["quality"]}[name]
        assert low <= mean + 1e-3 * abs(mean), name
        assert high >= mean - 1e-3 * abs(mean), name


def test_another_class_file_is_measured_anew(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("walk\nkick\n")
    args = {"split": "train", "queries": None, "replace": False}
    evaluate.evaluate_once(run, store, **args)
    figures, line = evaluate.evaluate_once(run, store, **args, classes=str(tmp_path / "a.txt"))
    assert "done" in line
    assert "recognition_classes" in figures
    (run.folder / "evaluation.json").unlink()
