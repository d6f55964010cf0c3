"""ONNX files give what torch gives, for any batch and number of frames; smaller weights are told with their error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mclip.pipeline.embed.encoder import Encoder
from mclip.training.latent.space import text_latent
from mclip.training.latent.span import Chance
from mclip.training.model.run import Run, RunError
from mclip.training.portable import graphs
from mclip.training.portable.precision import BLOCK, compressed

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
Models = dict[str, Any]
TOLERANCE = 1e-4  # float32 sums in another order: 1e-6 was measured
TEXTS = ["a person walks", "jump over the couch and fall down slowly", "kick"]


def answers(model: Any, folder: Path, **inputs: torch.Tensor) -> torch.Tensor:
    """The first output of a graph in onnxruntime."""
    onnx.save(model, folder / "model.onnx")
    found = graphs.session(folder / "model.onnx").run(None, {name: each.numpy() for name, each in inputs.items()})
    return torch.from_numpy(found[0])


@pytest.mark.parametrize(("batch", "frames"), [(1, 2), (3, 60), (2, 131)])
def test_the_decoder_is_torchs(run: Run, models: Models, tmp_path: Path, batch: int, frames: int) -> None:
    z = torch.randn(batch, run.model.config.latent, generator=torch.Generator().manual_seed(0))
    found = answers(models["decoder"], tmp_path, z=z, frames=torch.zeros(frames))
    wanted = run.model.decode(z, frames)
    assert found.shape == wanted.shape == (batch, frames, 25, 6)
    assert (found - wanted).abs().max() < TOLERANCE


@pytest.mark.parametrize(("batch", "frames"), [(1, 3), (4, 60)])
def test_the_encoder_is_torchs_and_sees_no_padding(
    run: Run, models: Models, tmp_path: Path, batch: int, frames: int
) -> None:
    motion = torch.randn(batch, frames, 25, 6, generator=torch.Generator().manual_seed(0))
    keep = torch.ones(batch, frames, dtype=torch.bool)
    keep[-1, frames // 2 :] = False
    z = run.model.encode(motion, keep)
    assert run.z_length is not None
    wanted = torch.nn.functional.normalize(z, dim=-1) * run.z_length  # the run decodes from unit vectors
    found = answers(models["encoder"], tmp_path, motion=motion, keep=keep)
    assert (found - wanted).abs().max() < TOLERANCE * run.z_length
    motion[-1, frames // 2 :] = 7
    assert torch.equal(answers(models["encoder"], tmp_path, motion=motion, keep=keep), found)


@pytest.mark.parametrize("count", [1, 3])
def test_texts_are_torchs(run: Run, encoder: Encoder, models: Models, tmp_path: Path, count: int) -> None:
    tokens = encoder.tokenize(TEXTS[:count])
    found = answers(models["text"], tmp_path, input_ids=tokens[:, : int((tokens != 0).sum(1).max())])
    assert (found - encoder.encode_texts(TEXTS[:count])).abs().max() < TOLERANCE


@pytest.mark.parametrize("seed", [None, 3])
def test_the_span_is_torchs_with_and_without_chance(
    run: Run, encoder: Encoder, models: Models, tmp_path: Path, seed: int | None
) -> None:
    assert run.z_NC is not None
    text_NC, kept = encoder.encode_texts(TEXTS), len(run.z_NC)
    chance = None if seed is None else Chance.of(TEXTS, kept, seed=seed, share=0.5)
    none = torch.zeros(len(TEXTS), kept)
    reach, lead = (none, none) if chance is None else (chance.reach_NM, chance.lead_NM)
    found = answers(models["span"], tmp_path, text=text_NC, reach=reach, lead=lead)
    assert (found - text_latent(run, text_NC, chance=chance)).abs().max() < TOLERANCE


def test_fewer_bits_are_told_with_size_and_error(
    run: Run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"z": "decoder", "motion": "encoder", "text": "span", "input_ids": "text"}
    monkeypatch.setattr(graphs, "traced", lambda graph: models[known[next(iter(graph.inputs))]])  # already traced
    told = graphs.write_graphs(run, tmp_path / "onnx", ("float32", "float16", "int8"))
    assert told[0] == "onnx: opset 18, dynamic batch and frames"
    assert [line.partition(":")[0] for line in told[1:]] == ["onnx float32", "onnx float16", "onnx int8"]
    errors = [float(line.partition(", ")[2].split()[1]) for line in told[1:]]
    assert errors[0] < 0.01 < errors[2] < 10  # mm
    sizes = {
        p: (tmp_path / "onnx" / graphs.file_name("text", p)).stat().st_size for p in ("float32", "float16", "int8")
    }
    assert sizes["float16"] / sizes["float32"] == pytest.approx(0.5, abs=0.02)
    assert sizes["int8"] / sizes["float32"] == pytest.approx(0.25 + 1 / BLOCK, abs=0.02)
    assert (tmp_path / "onnx/tokenizer.json").is_file()


def test_a_weight_of_few_bits_is_within_half_a_step(tmp_path: Path) -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, 96)
    weight[0, :BLOCK] = 0
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["rows", size]) for name, size in (("x", 64), ("y", 96))]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight.numpy(), "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", graphs.OPSET)], ir_version=10)
    steps = weight.reshape(-1, BLOCK).abs().amax(1, keepdim=True).expand(-1, BLOCK).reshape(weight.shape) / 127
    found = answers(compressed(model, "int8"), tmp_path, x=torch.eye(64))
    assert ((found - weight).abs() <= steps * 0.5001).all()
    assert (found - weight).abs().max() > 0
    assert torch.equal(answers(compressed(model, "float16"), tmp_path, x=torch.eye(64)), weight.half().float())
    assert compressed(model, "float32") is model


def test_mixed_weights_are_int8_where_rows_are_looked_up_and_float16_where_they_multiply() -> None:
    values = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    weights = [onnx.numpy_helper.from_array(each, name) for name, each in (("words", values), ("w", values.T.copy()))]
    nodes = [onnx.helper.make_node("Gather", ["words", "i"], ["x"]), onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [], [], weights)
    found = compressed(onnx.helper.make_model(graph), "mixed").graph.initializer
    assert [each.name for each in found] == ["words.int8", "words.scale", "words.shape", "w.half"]


def test_onnx_of_another_opset_is_told(models: Models, tmp_path: Path) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(models["span"])
    other.opset_import[0].version = 17
    onnx.save(other, tmp_path / "span.onnx")
    with pytest.raises(RunError, match=r"span.onnx: ONNX of opset 17, this mclip writes and reads opset 18: export it"):
        graphs.session(tmp_path / "span.onnx")


@pytest.mark.parametrize("content", [b"", b"rot" * 99])
def test_a_file_that_is_no_onnx_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "span.onnx").write_bytes(content)
    with pytest.raises(RunError, match=r"span.onnx: no ONNX file, or damaged"):
        graphs.session(tmp_path / "span.onnx")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"need the package onnx: pip install 'mclip\[onnx\]'"):
        graphs.require_installed("onnx")
