"""Model folders, the user's and those fetched from the hub: their configs are read here, against a list of keys.

open_clip passes what such a folder says on to constructors, transformers and timm, and some of that runs Python from
the folder (`trust_remote_code`, a tokenizer's `auto_map`) or leads elsewhere. Here a folder says sizes, words and
colours; its weights are tensors, and its tokenizer is tokenizer.json, whatever class stands beside it.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
from open_clip.tokenizer import HFTokenizer
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic asks for it under Python 3.12

from mclip.pipeline.embed.encoder import EncoderError
from mclip.pipeline.files.documents import read_document

CONFIG, TOKENIZER, SPECIAL = "open_clip_config.json", "tokenizer.json", "tokenizer_config.json"
# As open_clip writes them and the hub has them, the best first.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
REMEDY = "a model folder says sizes, words and colours only; nothing else in it is followed"

Size = Annotated[int, Field(ge=1, le=2_000_000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=4096)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,100}$")]  # no address, no path
CLOSED = ConfigDict(extra="forbid", strict=True)


@with_config(CLOSED)
class Activation(TypedDict, total=False):
    """Of torch's GELU."""

    approximate: Literal["none", "tanh"]


@with_config(CLOSED)
class Norm(TypedDict, total=False):
    """Of torch's LayerNorm."""

    eps: Number


@with_config(CLOSED)
class Tower(TypedDict, total=False):
    """What both towers of open_clip take."""

    width: Size
    mlp_ratio: Number
    ls_init_value: Number | None
    final_ln_after_pool: bool
    pool_type: Word
    output_tokens: bool
    act_kwargs: Activation | None
    norm_kwargs: Norm | None
    block_type: Word | None
    qk_norm: bool
    scaled_cosine_attn: bool
    scale_heads: bool
    scale_attn_inner: bool
    scale_attn: bool
    scale_fc: bool


@with_config(CLOSED)
class Vision(Tower, total=False):
    """open_clip's CLIPVisionCfg."""

    layers: Size | list[Size]
    head_width: Size
    patch_size: Side | None  # none of a ResNet
    image_size: Side | list[Side]
    patch_dropout: Number
    attentional_pool: bool | Word
    attn_pooler_queries: Size
    attn_pooler_heads: Size
    no_ln_pre: bool
    pos_embed_type: Word
    timm_model_name: Word
    timm_model_pretrained: bool
    timm_pool: Literal["abs_attn", "rot_attn", "avg", "map", "token", ""]
    timm_proj: Literal["linear", "mlp", "none", ""] | None
    timm_proj_bias: bool
    timm_drop: Number
    timm_drop_path: Number | None


@with_config(CLOSED)
class Cleaning(TypedDict, total=False):
    """How a text is cleaned before it is cut into tokens."""

    clean: Literal["lower", "whitespace", "canonicalize"]
    strip_sep_token: bool


@with_config(CLOSED)
class Text(Tower, total=False):
    """open_clip's CLIPTextCfg."""

    layers: Size
    heads: Size
    context_length: Annotated[int, Field(ge=1, le=4096)]
    vocab_size: Size
    embed_cls: bool
    pad_id: int
    eos_id: int
    no_causal_mask: bool
    proj_bias: bool
    proj_type: Word | None
    hf_tokenizer_name: str  # only whether there is one: its own tokenizer.json is read
    tokenizer_mode: Literal["clips"] | None
    tokenizer_kwargs: Cleaning
    hf_model_name: str  # one that open_clip's own models have
    hf_model_pretrained: bool
    hf_proj_type: Literal["linear", "mlp"] | None
    hf_pooler_type: Word


@with_config(CLOSED)
class Multimodal(Text, total=False):
    """open_clip's MultimodalCfg, of CoCa."""

    dim_head: Size
    n_queries: Size
    attn_pooler_heads: Size


@with_config(CLOSED)
class Model(TypedDict, total=False):
    """The arguments of open_clip's models."""

    embed_dim: Size
    vision_cfg: Vision
    text_cfg: Text
    multimodal_cfg: Multimodal
    custom_text: bool
    quick_gelu: bool
    init_logit_scale: Number
    init_logit_bias: Number | None
    nonscalar_logit_scale: bool


@with_config(CLOSED)
class Colours(TypedDict, total=False):
    """open_clip's PreprocessCfg."""

    size: Side | list[Side]
    mode: Literal["RGB"]
    mean: Annotated[list[Number], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    interpolation: Literal["bicubic", "bilinear", "nearest", "random"]
    resize_mode: Literal["shortest", "longest", "squash"]
    fill_color: int


class Config(TypedDict):
    """open_clip_config.json; what else stands in it is not read."""

    model_cfg: Model
    preprocess_cfg: Colours


TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SIDES = ("padding_side", "truncation_side")


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose config was read and found plain."""

    folder: Path
    config: Config
    weights: Path

    @classmethod
    def of(cls, folder: Path) -> "ModelFolder":
        """The folder with the best of its weight files. EncoderError for a config that asks for anything else."""
        try:
            config: Config = read_document(folder / CONFIG, Config, remedy=REMEDY)
        except ValueError as error:
            raise EncoderError(str(error)) from None
        weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        if weights is None:
            raise EncoderError(f"{folder}: no weights in this folder; expected one of {', '.join(WEIGHTS)}")
        made = cls(folder, config, weights)
        made.check()
        return made

    @property
    def text(self) -> Text:
        """What it says of its text tower."""
        return self.config["model_cfg"]["text_cfg"]

    def check(self) -> None:
        """EncoderError for a model that lacks a part, lies elsewhere, or is larger than its weights."""
        file, model = self.folder / CONFIG, self.config["model_cfg"]
        if missing := {"embed_dim", "vision_cfg", "text_cfg"} - model.keys():
            raise EncoderError(f"{file}: no {', '.join(sorted(missing))} in model_cfg: it is no model of open_clip")
        known = text_models()
        if (name := self.text.get("hf_model_name")) is not None and name not in known:
            raise EncoderError(
                f"{file}: at text_cfg.hf_model_name: found {name[:100]!r}, expected one of open_clip's own, "
                f"{', '.join(sorted(known))}: {REMEDY}"
            )
        numbers, size = fewest_numbers(model), self.weights.stat().st_size
        if numbers > size:
            raise EncoderError(
                f"{file}: over {numbers:,} numbers, but {self.weights.name} has {size:,} bytes: they differ"
            )

    def tokenizer(self) -> Any:
        """open_clip's tokenizer, or the one in the folder's tokenizer.json; of no class that the folder names."""
        cleaning: dict[str, Any] = dict(self.text.get("tokenizer_kwargs", {}))
        context = self.text.get("context_length", 77)
        if not self.text.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(context_length=context, **cleaning)
        if not (self.folder / TOKENIZER).is_file():
            raise EncoderError(f"{self.folder}: lacks {TOKENIZER}, which is all that is read of a tokenizer")
        with tempfile.TemporaryDirectory() as plain:
            Path(plain, TOKENIZER).write_bytes((self.folder / TOKENIZER).read_bytes())
            Path(plain, SPECIAL).write_text(json.dumps(self.special_tokens()))
            mode = self.text.get("tokenizer_mode")
            return HFTokenizer(plain, context_length=context, tokenizer_mode=mode, **cleaning)

    def special_tokens(self) -> dict[str, Any]:
        """The words of tokenizer_config.json that name special tokens and sides, for transformers' plain class."""
        file = self.folder / SPECIAL
        found = read_document(file, dict[str, Any], remedy="fetch it again") if file.is_file() else {}
        words = {key: found[key] for key in TOKENS if key in found}
        words = {key: each.get("content") if isinstance(each, dict) else each for key, each in words.items()}
        plain = {key: word for key, word in words.items() if isinstance(word, str)}
        sides = {key: found[key] for key in SIDES if found.get(key) in ("left", "right")}
        return {"tokenizer_class": "PreTrainedTokenizerFast"} | plain | sides


@contextlib.contextmanager
def registered(config: dict[str, Any]) -> Iterator[str]:
    """The name under which open_clip knows a model config for as long as it takes to build it."""
    known, name = open_clip.factory._MODEL_CONFIGS, "mclip-model"  # its public way keeps a name for ever
    known[name] = config
    try:
        yield name
    finally:
        del known[name]


def text_models() -> set[str]:
    """The text models of transformers that open_clip's own configs name."""
    texts = (open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models())
    return {text["hf_model_name"] for text in texts if "hf_model_name" in text}


def fewest_numbers(model: Model) -> int:
    """Fewer numbers than a model of these sizes has: a square of the width a layer, and the words."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    layers = vision.get("layers", 1)
    pictures = (sum(layers) if isinstance(layers, list) else layers) * vision.get("width", 1) ** 2
    texts = text.get("layers", 1) * text.get("width", 1) ** 2 + text.get("vocab_size", 1) * text.get("width", 1)
    # The sizes of a model of timm's or transformers' are in its name.
    return (0 if "timm_model_name" in vision else pictures) + (0 if "hf_model_name" in text else texts)
