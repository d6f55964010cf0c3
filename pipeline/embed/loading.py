"""Encoders by name: open_clip's models and tags, the hub, folders, and weight files."""

import contextlib
import difflib
import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
from open_clip.pretrained import download_pretrained_from_hf
from torch import Tensor

from mclip.pipeline.embed.encoder import Encoder, EncoderError, quiet
from mclip.pipeline.embed.model_folder import CONFIG, SPECIAL, TOKENIZER, ModelFolder, registered
from mclip.pipeline.embed.offline import OFFLINE, load_offline
from mclip.pipeline.files.torchscript import check_weights, is_torchscript, read_tensors
from mclip.pipeline.machine.devices import pick_device
from mclip.pipeline.machine.words import first_line

WAYS_OUT = "pass --pretrained PATH to weights you have, or --clip offline, which needs no download"
HUB, FOLDER = "hf-hub:", "local-dir:"  # before a --clip that brings its own weights
PATIENCE = 5.0  # seconds that the hub may take to answer at all
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's files


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
    device: torch.device | str = "auto",
) -> Encoder:
    """The encoder `offline`, or any of open_clip by name and tag or weight file, on a device as `pick_device`.

    EncoderError naming the way out.
    """
    for template in templates:
        if "{}" not in template:
            raise EncoderError(f"--template {template!r}: expected {{}} where the text goes, as in 'a person {{}}'")
    place = pick_device(device)
    if clip == OFFLINE:
        model, tokenizer = load_offline()
        pretrained = None
    else:
        clip, pretrained = checked_names(clip, pretrained)
        model, tokenizer = load_open_clip(clip, pretrained)
    frozen = model.eval().requires_grad_(False).to(place)
    return Encoder(
        encoder_name(clip, pretrained, templates), clip, pretrained, frozen, tokenizer, tuple(templates), precision
    )


def checked_names(clip: str, pretrained: str | None) -> tuple[str, str | None]:
    """The names as open_clip knows them, a file by its whole path. EncoderError offering the near names."""
    if clip.startswith(FOLDER):
        folder = Path(clip.removeprefix(FOLDER)).resolve()
        if not (folder / CONFIG).is_file():
            raise EncoderError(f"--clip {clip}: expected a folder with {CONFIG} and weights")
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


def is_tag(clip: str, pretrained: str) -> bool:
    """Whether open_clip knows weights of a model by this tag."""
    return pretrained in open_clip.list_pretrained_tags_by_model(clip.replace("/", "-"))


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Up to three of the known names that are most like a name, whatever their case."""
    lower = {each.lower(): each for each in known}
    return [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]


def load_open_clip(clip: str, pretrained: str | None) -> tuple[Any, Any]:
    """open_clip's model and tokenizer; EncoderError when files cannot be fetched or do not fit."""
    tag = open_clip.get_pretrained_cfg(clip, pretrained) if pretrained else {}
    own = clip.startswith(FOLDER) or (pretrained and not tag)  # files of the user's
    with contextlib.nullcontext() if own else hub_or_cache():
        if clip.startswith((HUB, FOLDER)):
            found = ModelFolder.of(fetch_folder(clip))
            weights = found.weights
        else:
            found, weights = None, fetch(clip, pretrained, tag)
        with told_by_file(clip, weights, own=bool(own)), quiet():
            check_weights(weights)
            model = build_folder(found) if found else build(clip, weights, tag)
        return model, found.tokenizer() if found else named_tokenizer(clip)


@contextlib.contextmanager
def told_by_file(clip: str, weights: Path, *, own: bool) -> Iterator[None]:
    """Errors of building a model as EncoderErrors that name the file and the remedy."""
    remedy = "" if own else "; delete it to fetch it again"
    try:
        yield
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"{weights}: holds something other than weights, or is damaged, and is not run ({first_line(error)}): "
            f"expected a file of tensors{remedy}"
        ) from error
    except OSError as error:  # of transformers, which asks the hub for the text tower's config
        name = (open_clip.get_model_config(clip) or {}).get("text_cfg", {}).get("hf_model_name", "the text tower")
        raise EncoderError(f"{clip} lacks config.json of {name} ({first_line(error)}): {WAYS_OUT}") from error
    except Exception as error:  # damaged archives and other shapes have no common type
        raise EncoderError(f"{weights}: these weights do not load into {clip}: {first_line(error)}{remedy}") from error


def fetch(clip: str, pretrained: str | None, tag: dict[str, Any]) -> Path:
    """The weight file, from the cache or the hub; EncoderError with the ways out when it cannot be had."""
    try:
        return Path(open_clip.download_pretrained(tag) if tag else str(pretrained))
    except OSError as error:  # of the hub and of http
        asked = f"weights {pretrained} of {clip}"
        raise EncoderError(f"{asked} could not be fetched ({first_line(error)}): {WAYS_OUT}") from error


def fetch_folder(clip: str) -> Path:
    """The folder of a `local-dir:`, or that of a `hf-hub:` in the cache, with the files that are read of it."""
    if clip.startswith(FOLDER):
        return Path(clip.removeprefix(FOLDER))
    repository = clip.removeprefix(HUB)
    try:
        folder = Path(download_pretrained_from_hf(repository, filename=CONFIG)).parent
        download_pretrained_from_hf(repository)
    except OSError as error:
        raise EncoderError(f"{clip} could not be fetched ({first_line(error)}): {WAYS_OUT}") from error
    for name in (TOKENIZER, SPECIAL):
        with contextlib.suppress(OSError):  # a model with open_clip's own tokenizer has none
            download_pretrained_from_hf(repository, filename=name)
    return folder


def named_tokenizer(clip: str) -> Any:
    """The tokenizer of a model that open_clip knows by name; EncoderError naming the file that it lacks."""
    try:
        with quiet():
            return open_clip.get_tokenizer(clip)
    except Exception as error:  # transformers raises what its parsers raise when a file is not there
        name = open_clip.get_model_config(clip)["text_cfg"].get("hf_tokenizer_name", clip)
        raise EncoderError(
            f"{clip} lacks its tokenizer, {TOKENIZER} of {name} on the hub ({first_line(error)}): fetch that once with "
            f"the network, or put it into a folder with {CONFIG} and the weights and pass --clip {FOLDER}FOLDER, or "
            "--clip offline, which needs no download"
        ) from error


def build_folder(found: ModelFolder) -> Any:
    """The model of a folder: as its checked config says, with tensors only."""
    with registered(dict(found.config["model_cfg"])) as name:
        return open_clip.create_model(
            name,
            pretrained=str(found.weights),
            require_pretrained=True,
            force_preprocess_cfg=dict(found.config["preprocess_cfg"]),
        )


def build(clip: str, weights: Path, tag: dict[str, Any]) -> Any:
    """The model with its weights. Nothing that a file holds is run: tensors only."""
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
