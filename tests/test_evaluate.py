"""Retrieval, recognition and reconstruction on cases whose answer is known."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.embed.embed import embed
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.labels.spans import LabelRules, Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.render import render
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Crops, crops_of, load_crops
from mclip.training.evaluate import evaluate
from mclip.training.measure.metrics import mpjpe_mm
from mclip.training.measure.reconstruction import reconstruct, reconstructed
from mclip.training.measure.retrieval import Gallery, gallery_of, hit_rate, retrieval
from mclip.training.measure.statistics import figures_of
from mclip.training.model.network import MotionClip
from mclip.training.model.run import Run

EMBEDDED = MOTIONS


@pytest.fixture(scope="module")
def crops(store: Store) -> Crops:
    """The middle crops are all that is used of them."""
    return load_crops(store, split="train", encoder="offline", target="joined", device=torch.device("cpu"))


def gallery(z: np.ndarray, labels: list[set[str]]) -> Gallery:
    """Two windows of clip a, one of b and one of c."""
    sequence = np.array([0, 0, 1, 2])
    names = ["set/a/a_poses.npz", "set/b/b_poses.npz", "set/c/c_poses.npz"]
    return Gallery(z, sequence, names, labels, [{"walk"}, {"walk"}, {"kick"}, {"sit", "walk"}])


AXES = np.eye(4, dtype=np.float32)
LABELS = [{"strolls"}, {"kicks"}, {"sits", "strolls"}]
VECTORS = {"strolls": AXES[0], "kicks": AXES[2], "sits": AXES[3], "walk": AXES[1], "kick": AXES[2], "sit": AXES[3]}


def test_a_sequence_scores_as_its_best_window() -> None:
    assert gallery(AXES, LABELS).score(AXES[1:2]).tolist() == [[1.0, 0.0, 0.0]]


def test_retrieval_is_perfect_when_every_motion_lies_on_its_label() -> None:
    ranks = retrieval(gallery(AXES, LABELS), VECTORS)
    assert ranks["text_to_motion"].tolist() == [1, 1, 1]
    assert ranks["motion_to_text"].tolist() == [1, 1, 1]


def test_a_collapsed_model_finds_nothing_first() -> None:
    same = np.repeat(AXES[:1], 4, axis=0)
    assert retrieval(gallery(same, LABELS), VECTORS)["text_to_motion"].min() > 1


def test_phrases_hit_clips_by_their_folder() -> None:
    query = np.stack([AXES[2], AXES[0]])
    assert figures_of(hit_rate(gallery(AXES, LABELS), query, [["b"], ["c"]]))["R@1"] == 0.5


def test_the_map_calls_a_window_by_its_class_or_else_by_a_label() -> None:
    found = gallery(AXES, LABELS)
    assert evaluate.map_labels(found) == ["walk", "walk", "kick", "sit"]
    found.categories_W[2].clear()
    assert evaluate.map_labels(found)[2] == "kicks"


def test_reconstruction_counts_valid_frames_only(run: Run, crops: Crops) -> None:
    found = reconstruct(run.model, crops)
    joints = load_body().joints_J3
    for item in range(len(crops)):
        source, decoded = reconstructed(run.model, crops, item)
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
    assert reconstruct(still, crops).moved < 1e-4
    assert reconstruct(run.model, crops).moved > 1e-3


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


def test_all_figures_are_there_each_within_its_interval(
    run: Run, store: Store, encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("walk\nkick\nstand up\nswim\n")
    (tmp_path / "queries.json").write_text(
        '[{"text": "roundhouse", "clip": "kick"}, {"text": "stroll", "clip": "walk"}]'
    )
    figures, plots = evaluate.evaluate(
        run,
        store,
        split="train",
        queries=tmp_path / "queries.json",
        encoder=encoder,
        classes=str(tmp_path / "classes.txt"),
    )
    assert figures["recognition_release"]["items"] == 3
    assert figures["recognition_babel"]["items"] >= 3
    assert figures["recognition_release"]["classes"] == 4
    assert (figures["calibration"]["classes"], figures["calibration"]["items"]) == (4, 3)
    assert 0 <= figures["calibration"]["ece"] <= 1
    asked = ("all", "threshold", "all_by_text", "threshold_by_text")
    assert set(figures["protocols"]) == set(asked)
    assert figures["protocols"]["all"]["text_to_motion"]["queries"] == 3
    assert figures["generation"]["fid"] > 0
    assert 0 < figures["alignment"]["cka_text"] <= 1
    within = list(intervals_beside(figures, figures["ci95"]))
    assert {"mpjpe_mm", "R@1", "MedR", "top1", "top1_norm", "vertex_mm", "direction", "detour"} <= {
        w[0] for w in within
    }
    for name, value, (low, high) in within:
        assert low - 1e-3 * abs(value) <= value <= high + 1e-3 * abs(value), name
    assert plots.classes == ["walk", "kick", "stand up", "swim"]
    assert plots.confusion_KK.sum() == sum(
        len({"walk", "kick", "stand up"} & found) for found in plots_true(run, store)
    )
    assert plots.z_WC.shape == (3, 384)
    assert set(plots.ranks) == {
        f"{name}, {way}" for name in ("labels", *asked) for way in ("text_to_motion", "motion_to_text")
    }


def intervals_beside(figures: dict[str, Any], intervals: dict[str, Any]) -> Iterator[tuple[str, float, list[float]]]:
    """Every figure that has an interval, with it."""
    for name, interval in intervals.items():
        if isinstance(interval, dict):
            yield from intervals_beside(figures[name], interval)
        else:
            yield name, figures[name], interval


def plots_true(run: Run, store: Store) -> list[set[str]]:
    """Categories of the middle crops."""
    crops = crops_of(run, store, "train")
    return gallery_of(store, crops, np.zeros((len(crops), 384))).categories_W


def test_a_store_whose_vectors_come_from_other_weights_is_refused(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = run.config["encoder"] | {"weights_sha256": "0" * 64}
    monkeypatch.setitem(run.config, "encoder", other)
    with pytest.raises(
        StoreError, match="vectors of offline come from weights .* was trained with 000000000000: embed"
    ):
        crops_of(run, store, "train")
    monkeypatch.setitem(run.config, "encoder", other | {"weights_sha256": None})  # imported: nobody knows
    assert len(crops_of(run, store, "train")) == 3
    monkeypatch.setitem(run.config, "encoder", other | {"name": "ViT-B-32_openai"})
    with pytest.raises(StoreError, match=r"no vectors of encoder ViT-B-32_openai, only of \['offline'\]"):
        crops_of(run, store, "train")


def test_bfloat16_stays_inside_the_model(run: Run, crops: Crops) -> None:
    exact = reconstruct(run.model, crops).summary()
    fast = reconstruct(run.model, crops, bfloat16=True).summary()
    assert fast != exact
    for name in ("mpjpe_mm", "geodesic_deg", "movement_ratio"):
        assert fast[name] == pytest.approx(exact[name], rel=0.02), name


def test_the_command_prints_tables_or_json_and_writes_a_report(run: Run, store: Store) -> None:
    words = ["evaluate", str(run.folder), store.url, "--replace"]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "MPJPE, mm" in told.output
    assert "windows of split train done" in told.output
    assert (run.folder / "report.html").exists()
    told = CliRunner().invoke(cli, [*words[:3], "--json"])
    assert json.loads(told.output)["windows"] == 3
    (run.folder / "report.html").unlink()
    assert "done" in CliRunner().invoke(cli, words[:3]).output  # a page that was deleted is made again
    for name in ("report.html", "evaluation.json"):
        (run.folder / name).unlink()


def test_a_store_without_any_text_is_trained_on_and_evaluated_for_what_it_has(
    store: Store, encoder: Encoder, tmp_path: Path
) -> None:
    silent = open_store(tmp_path / "silent.zarr", create=True)
    prepare(EMBEDDED, silent, labels=Labels(), options=PrepareOptions(), only=["/walk/", "/kick/"])
    render(silent, RenderOptions(body="low", size=32))
    embed(silent, encoder, without=("texts",))
    assert silent.strings("texts") == []
    words = (
        "--layers",
        "1",
        "--feed-forward",
        "64",
        "--epochs",
        "1",
        "--batch",
        "2",
        "--mirror",
        "0.5",
        "--yaw",
        "90",
        "--text-weight",
        "0",
    )
    folder = str(tmp_path / "run")
    told = CliRunner().invoke(cli, ["train", silent.url, folder, *words])
    assert told.exit_code == 0, told.output
    told = CliRunner().invoke(cli, ["evaluate", folder, silent.url, "--json"])
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert figures["windows"] == 2
    assert figures["reconstruction"]["mpjpe_mm"] > 0
    assert -1 <= figures["reconstruction"]["image_cosine"] <= 1
    assert "text_cosine" not in figures["reconstruction"]
    assert not {"protocols", "generation", "text_to_motion"} & set(figures)


def test_another_class_file_is_measured_anew(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("walk\nkick\n")
    args = {"split": "train", "queries": None, "replace": False}
    evaluate.evaluate_once(run, store, **args)
    figures, line = evaluate.evaluate_once(run, store, **args, classes=str(tmp_path / "a.txt"))
    assert "done" in line
    assert figures["recognition_release"]["classes"] == 2
    (run.folder / "evaluation.json").unlink()


def test_a_motion_is_asked_which_of_its_events_came_first(run: Run, tmp_path: Path, write_amass, encoder) -> None:
    write_amass(tmp_path / "A/CMU/01/01_01_poses.npz", 60, 30.0)
    spans = (Span("walk", 0.0, 1.0), Span("sit", 1.0, 2.0))
    store = open_store(str(tmp_path / "s.zarr"), create=True)
    labels = Labels({"CMU/01/01_01": spans}, rules=LabelRules(join="ordered"))
    prepare(tmp_path / "A", store, labels=labels, options=PrepareOptions())
    embed(store, encoder, without=("pictures",))
    orders = evaluate.in_other_orders(store, crops_of(run, store, "train"))
    assert orders == {0: ("walk, then sit", "sit, then walk")}
    for text, answer in (("walk, then sit", 1.0), ("sit, then walk", 0.0)):
        assert evaluate.chronology(encoder.encode_texts([text]).numpy(), orders, encoder).figure == answer
    figures, _ = evaluate.evaluate(run, store, split=None, queries=None, encoder=encoder)
    assert figures["chronology"]["motions"] == 1
