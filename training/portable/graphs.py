"""The model as ONNX files: text encoder, carrying to the span of the motions, decoder and motion encoder.

    text.onnx     input_ids (B, N) int64 of tokenizer.json     -> text (B, C)
    span.onnx     text (B, C), reach (B, M), lead (B, M)       -> z (B, C); zeros for `reach` and `lead`: no chance
    decoder.onnx  z (B, C), frames (T,) float32, any numbers   -> motion (B, T, 25, 6)
    encoder.onnx  motion (B, T, 25, 6), keep (B, T) bool       -> z (B, C)

Batch, frames and tokens are dynamic. What weighs is written in each precision, as NAME.PRECISION.onnx.
"""

# B batch, N tokens, T frames, M kept training motions, C latent width

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.offline import OFFLINE
from mclip.training.latent.space import decode, latent, text_latent, text_vectors
from mclip.training.latent.span import Chance, carried
from mclip.training.model.network import MotionClip, position_code
from mclip.training.model.run import Run, RunError
from mclip.training.portable.precision import compressed
from mclip.training.show.motion import motion_of_rows

OPSET = 18  # the least that torch's exporter writes
TOKENIZER = "tokenizer.json"
TEXTS = (
    "a person walks",
    "run",
    "kick with the right leg",
    "dance",
    "jump up",
    "get up from the floor",
    "punch",
    "turn",
)
INSTALL = "pip install 'mclip[onnx]'"


class Unbounded(MotionClip):
    """The model that computes the codes of positions: no table of 5,000 lies in the file, 7.7 MB at a width of 384."""

    def positions(self, frames: int) -> Tensor:
        """The codes of the first frames."""
        return position_code(self.config.latent, frames)


class Decode(nn.Module):
    """`decode`; the length of `frames` says how many."""

    def __init__(self, model: MotionClip):
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, frames: Tensor) -> Tensor:
        """Motions (B, T, 25, 6) of z (B, C) and any numbers (T,)."""
        return self.model.decode(z, frames.shape[0])


class Encode(nn.Module):
    """`encode` with a mask, as the run is used: at the length that its decoder knows where that is fixed."""

    def __init__(self, model: MotionClip, run: Run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, motion: Tensor, keep: Tensor) -> Tensor:
        """z (B, C) of motions (B, T, 25, 6) and which frames are none of padding (B, T)."""
        z_BC = self.model.encode(motion, keep)
        return latent(self.run, z_BC) if self.model.config.unit_latent else z_BC


class Carry(nn.Module):
    """`text_latent`: to the span of the training motions, at the length of z."""

    z_NC: Tensor
    told_NC: Tensor | None

    def __init__(self, run: Run):
        super().__init__()
        assert run.z_NC is not None
        self.run = run
        self.register_buffer("z_NC", run.z_NC.cpu())
        self.register_buffer("told_NC", None if run.told_NC is None else run.told_NC.cpu())

    def forward(self, text: Tensor, reach: Tensor, lead: Tensor) -> Tensor:
        """z (B, C) of texts' vectors (B, C), by chance (B, M), or without it where that is zero throughout."""
        drawn_BC = carried(text, self.z_NC, self.told_NC, chance=Chance(reach, lead))
        none_B1 = (reach == 0).all(1, keepdim=True) & (lead == 0).all(1, keepdim=True)
        return latent(self.run, torch.where(none_B1, carried(text, self.z_NC, self.told_NC), drawn_BC))


class Text(nn.Module):
    """The text tower of an encoder."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.tower = encoder.model.text

    def forward(self, input_ids: Tensor) -> Tensor:
        """Vectors (B, C) of tokens (B, N), 0 where there is none."""
        found: Tensor = self.tower(input_ids)
        return found


@dataclass(frozen=True)
class Graph:
    """A module to trace, with inputs to trace it by: two of everything, for one would be taken for fixed."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]  # by input, which axis is dynamic under which name


def graphs_of(run: Run, encoder: Encoder | None) -> dict[str, Graph]:
    """The graphs of a run by name; that of the text tower only where its licence is known to let it go."""
    model = Unbounded(run.model.config)
    model.load_state_dict(run.model.state_dict())
    width = run.model.config.latent
    batch = {0: "batch"}
    found = {
        "decoder": Graph(
            Decode(model),
            {"z": torch.ones(2, width), "frames": torch.zeros(7)},
            ("motion",),
            {"z": batch, "frames": {0: "frames"}},
        ),
        "encoder": Graph(
            Encode(model, run),
            {"motion": torch.ones(2, 7, 25, 6), "keep": torch.ones(2, 7, dtype=torch.bool)},
            ("z",),
            {"motion": {0: "batch", 1: "frames"}, "keep": {0: "batch", 1: "frames"}},
        ),
    }
    if run.z_NC is not None:
        inputs = {"text": torch.ones(2, width)} | {name: torch.zeros(2, len(run.z_NC)) for name in ("reach", "lead")}
        found["span"] = Graph(Carry(run), inputs, ("z",), dict.fromkeys(inputs, batch))
    if encoder is not None:
        tokens = {"input_ids": torch.ones(2, 7, dtype=torch.int64)}
        found["text"] = Graph(Text(encoder), tokens, ("text",), {"input_ids": {0: "batch", 1: "tokens"}})
    return found


def traced(graph: Graph) -> Any:
    """A graph as an onnx.ModelProto of OPSET. RunError where the packages are missing."""
    require_onnx()
    names = {name for axes in graph.axes.values() for name in axes.values()}
    sizes = {name: torch.export.Dim(name, min=1) for name in names}
    shapes = {each: {axis: sizes[name] for axis, name in axes.items()} for each, axes in graph.axes.items()}
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch about itself
            program = torch.onnx.export(
                graph.module.eval().cpu(),
                kwargs=dict(graph.inputs),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[*graph.inputs],
                output_names=[*graph.outputs],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    return program.model_proto


def require_onnx() -> None:
    """RunError naming what is not installed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise RunError(f"ONNX files need the package {package}: {INSTALL}")


def text_tower(run: Run) -> Encoder | None:
    """The run's encoder where its text tower may be given away, and is of a kind with a tokenizer in one file."""
    return run.load_encoder() if run.config["encoder"]["clip"] == OFFLINE else None


def write_graphs(run: Run, folder: Path, precisions: tuple[str, ...]) -> list[str]:
    """Write the ONNX files of a run; their opset, sizes and errors, in lines."""
    import onnx

    encoder = text_tower(run)
    folder.mkdir()
    for name, graph in graphs_of(run, encoder).items():
        whole = traced(graph)
        for precision in precisions if name != "span" else ("float32",):
            onnx.save(compressed(whole, precision), folder / file_name(name, precision))
    if encoder is not None:
        (folder / TOKENIZER).write_text(tokenizer_json(encoder), encoding="utf-8")
    return [*told_of(run, folder, precisions, encoder)]


def file_name(name: str, precision: str) -> str:
    """What the file of a graph is called."""
    return f"{name}.onnx" if precision == "float32" else f"{name}.{precision}.onnx"


def tokenizer_json(encoder: Encoder) -> str:
    """The encoder's tokenizer as the libraries of Hugging Face read it."""
    found: str = encoder.tokenizer.tokenizer.backend_tokenizer.to_str()
    return found


def told_of(run: Run, folder: Path, precisions: tuple[str, ...], encoder: Encoder | None) -> Iterator[str]:
    """What to say of the files: opset, whether texts go in, and what each precision weighs and costs."""
    yield f"onnx: opset {OPSET}, dynamic batch and frames"
    if encoder is None:
        clip = run.config["encoder"]["clip"]
        yield f"onnx: without the text tower of {clip}, whose licence mclip does not know: its vectors are the input"
    for precision in precisions:
        size = sum((folder / file_name(name, precision)).stat().st_size for name in weighing(encoder))
        mean, most = joint_errors(run, folder, precision, encoder)
        yield (
            f"onnx {precision}: {size / 1e6:.1f} MB, joints {mean:.3g} mm from torch's, {most:.3g} at most "
            f"({len(TEXTS)} texts)"
        )


def weighing(encoder: Encoder | None) -> tuple[str, ...]:
    """The graphs that are written in every precision."""
    return ("decoder", "encoder") if encoder is None else ("decoder", "encoder", "text")


def session(file: Path) -> Any:
    """An onnxruntime session of a file. RunError for one of another opset, or one that is damaged."""
    require_onnx()
    import onnx
    import onnxruntime

    try:
        opset = next(each.version for each in onnx.load(file).opset_import if each.domain in ("", "ai.onnx"))
    except Exception as error:  # protobuf has no type of its own for what it cannot read
        raise RunError(f"{file}: no ONNX file, or damaged ({' '.join(str(error).split())[:100]})") from error
    if opset != OPSET:
        raise RunError(f"{file}: ONNX of opset {opset}, this mclip writes and reads opset {OPSET}: export it again")
    options = onnxruntime.SessionOptions()
    # Weights become float32 once, when the file is opened, and not in every call.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def joint_errors(run: Run, folder: Path, precision: str, encoder: Encoder | None) -> tuple[float, float]:
    """How far joints are from torch's, mean and most over TEXTS, in mm: texts in, a crop on the floor out."""
    text_NC = text_vectors(run, TEXTS, encoder)
    ours = decode(run, text_latent(run, text_NC), run.crop)
    vectors = text_NC.cpu().numpy()
    if encoder is not None:
        tokens = encoder.tokenize(TEXTS)
        (vectors,) = session(folder / file_name("text", precision)).run(None, {"input_ids": tokens.numpy()})
    (rows,) = session(folder / file_name("decoder", precision)).run(
        None, {"z": carried_by(run, folder, vectors), "frames": np.zeros(run.crop, np.float32)}
    )
    apart = [
        (motion_of_rows(mine, run.fps).joints() - motion_of_rows(other, run.fps).joints()).norm(dim=-1)
        for mine, other in zip(ours.cpu(), torch.from_numpy(rows), strict=True)
    ]
    apart_NTJ = 1000 * torch.stack(apart)
    return float(apart_NTJ.mean()), float(apart_NTJ.max())


def carried_by(run: Run, folder: Path, vectors: np.ndarray) -> np.ndarray:
    """z of texts' vectors: by span.onnx, or as `latent` where the run keeps no training z."""
    if run.z_NC is None:
        found: np.ndarray = latent(run, torch.from_numpy(vectors)).numpy()
        return found
    none = np.zeros((len(vectors), len(run.z_NC)), np.float32)
    (z,) = session(folder / "span.onnx").run(None, {"text": vectors, "reach": none, "lead": none})
    return z
