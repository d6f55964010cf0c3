"""Checkpoints of the paper's release (GuyTevet/MotionCLIP, `checkpoint_NNNN.pth.tar`) as run folders of mclip.

Our model is the release's function with what never matters left out: queries and keys of the cross-attention on one
vector, and the decoder's action biases. Every other key has its place, and one that is missing or unknown is an error.
"""

# C latent width

import hashlib
import pickle
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mclip.pipeline.embed.loading import encoder_name
from mclip.pipeline.files.torchscript import check_weights
from mclip.training.model.config import ModelConfig
from mclip.training.model.network import MotionClip, position_code
from mclip.training.model.run import RunError, save_checkpoint, start_run
from mclip.training.model.run_documents import ANKLE_PATH

UNUSED = ("rotation2xyz.", "clip_model.", "decoder.actionBiases")
CODES = ("encoder.sequence_pos_encoder.pe", "decoder.sequence_pos_encoder.pe")
SAME = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight", "norm1.bias")
ATTENTION = {
    "self_attn.in_proj_weight": "attention.qkv.weight",
    "self_attn.in_proj_bias": "attention.qkv.bias",
    "self_attn.out_proj.weight": "attention.out.weight",
    "self_attn.out_proj.bias": "attention.out.bias",
}
# An encoder layer's second norm is the one behind the feed-forward layers: our third.
ENCODER = ATTENTION | {key: key for key in SAME} | {"norm2.weight": "norm3.weight", "norm2.bias": "norm3.bias"}
CROSS = {
    "multihead_attn.in_proj_weight": "value.weight",
    "multihead_attn.in_proj_bias": "value.bias",
    "multihead_attn.out_proj.weight": "out.weight",
    "multihead_attn.out_proj.bias": "out.bias",
}
DECODER = (
    ATTENTION
    | CROSS
    | {f"{norm}.{kind}": f"{norm}.{kind}" for norm in ("norm2", "norm3") for kind in ("weight", "bias")}
)
DECODER |= {key: key for key in SAME}


def key_map(layers: int) -> dict[str, str]:
    """The release's key -> ours, for a model of so many layers; the two tokens and the codes are apart."""
    ends = {"encoder.skelEmbedding": "embed", "decoder.finallayer": "final"}
    named = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in ends.items() for kind in ("weight", "bias")}
    stacks = {
        "encoder": ("encoder.seqTransEncoder.layers", ENCODER),
        "decoder": ("decoder.seqTransDecoder.layers", DECODER),
    }
    for ours, (theirs, names) in stacks.items():
        for layer in range(layers):
            named |= {f"{theirs}.{layer}.{a}": f"{ours}.{layer}.{b}" for a, b in names.items()}
    return named


def release_to_state(release: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Our state dict of the release's; RunError listing what is missing, unknown, or of another position code."""
    prefix = "encoder.seqTransEncoder.layers."
    layers = len({key.split(".")[3] for key in release if key.startswith(prefix)})
    mapped = key_map(layers)
    tokens = ("encoder.muQuery", "encoder.sigmaQuery")
    found = {key for key in release if not key.startswith(UNUSED) and key not in CODES}
    missing, extra = sorted({*mapped, *tokens} - found), sorted(found - {*mapped, *tokens})
    if missing or extra or not layers:
        raise RunError(
            f"{file}: not a checkpoint of MotionCLIP's release with {layers} layers: {len(missing)} keys missing "
            f"{missing[:8]}, {len(extra)} unknown {extra[:8]}"
        )
    width = release[tokens[0]].shape[-1]
    for key in CODES:
        code = release.get(key)
        if code is not None and not torch.allclose(
            code.flatten(1)[:100], position_code(width)[: len(code)][:100], atol=1e-5
        ):
            raise RunError(f"{file}: {key} is no sine and cosine code of {width} numbers: another model's checkpoint")
    state = {ours: release[theirs].float() for theirs, ours in mapped.items()}
    for name in (name for name in state if ".value." in name):
        state[name] = state[name][2 * width :]  # queries and keys of a softmax over one element never matter
    return state | {"tokens": torch.cat([release[token].float() for token in tokens])}


def read_release(file: Path) -> dict[str, Tensor]:
    """The tensors of a release checkpoint, without running any code in it; RunError when it is something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol that torch does not write: it is refused below
            check_weights(file)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{file}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's text advises to load it with weights_only=False, which runs it.
        raise RunError(
            f"{file}: refused, expected tensors by name and nothing else ({told_of(error)}): it is damaged or no "
            "checkpoint of the release; download it again, and do not open it by other means"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise RunError(f"{file}: found {type(loaded).__name__}, expected tensors by name, as the release saves them")
    return loaded


def told_of(error: Exception) -> str:
    """Our own words on a pickle; of torch's only what kind of error it is: its text advises to run the file."""
    words = str(error)
    return type(error).__name__ if "weights_only" in words or not words else words.splitlines()[0]


def read_options(file: Path | None) -> dict[str, Any]:
    """opt.yaml of the release, plain values only; empty when there is none."""
    import yaml

    if file is None:
        return {}
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: not plain YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(options, dict):
        raise RunError(f"{file}: found {type(options).__name__}, expected the release's options by name")
    return options


def sizes_of(state: dict[str, Tensor], options: dict[str, Any], file: Path) -> ModelConfig:
    """The model's sizes from the weights; heads and dropout, which they do not show, from opt.yaml, else the paper's.

    RunError when opt.yaml belongs to another model.
    """
    layers = len({name.split(".")[1] for name in state if name.startswith("encoder.")})
    found = {
        "latent_dim": state["tokens"].shape[1],
        "num_layers": layers,
        "ff_size": len(state["encoder.0.linear1.weight"]),
    }
    other = {
        key: f"{options[key]}, weights say {size}" for key, size in found.items() if options.get(key, size) != size
    }
    if other:
        raise RunError(f"{file}: the options beside it are another model's: {other}")
    known = {"heads": options.get("num_heads"), "dropout": options.get("dropout")}
    given = {name: value for name, value in known.items() if value is not None}
    return ModelConfig(latent=found["latent_dim"], layers=layers, feed_forward=found["ff_size"], **given)


def import_checkpoint(file: Path, options_file: Path | None, folder: Path, *, clip: str, pretrained: str | None) -> str:
    """Make a run folder of a release checkpoint; returns the summary line. The same call again does nothing."""
    options, state = read_options(options_file), release_to_state(read_release(file), file)
    sizes = sizes_of(state, options, file)
    model = MotionClip(sizes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise RunError(f"{file}: shapes do not fit together: {told}") from error
    config = {
        "model": asdict(sizes),
        "train": {"target": "joined", "short": "mask"},
        # Whose vectors these are is known, their weights' hash is not: nobody recorded it.
        "encoder": {
            "name": encoder_name(clip, pretrained),
            "clip": clip,
            "pretrained": pretrained,
            "weights_sha256": None,
        },
        "data": {"fps": 30.0, "crop": int(options.get("num_frames", 60)), "store": None, "row25": ANKLE_PATH},
        "imported": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    }
    start_run(folder, config)
    save_checkpoint(folder, model, (), {"step": 0, "steps": 0, "z_length": None})
    count = sum(each.numel() for each in model.parameters())
    return f"import-checkpoint: {sizes.layers} + {sizes.layers} layers, {count:,} numbers in {folder}"
