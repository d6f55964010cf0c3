"""What an exported model says of itself, and how one is fetched from the hub: documents and tensors, never code.

OUT/config.json           the run's, and under `exported` the layout, the preprocessing and the files' hashes
OUT/model.safetensors     the weights, OUT/latents.safetensors the z that texts are carried to, OUT/state.json
OUT/README.md             the model card; OUT/onnx/ where it was asked for
"""

import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub

from mclip.pipeline.embed.loading import HUB, hub_or_cache
from mclip.training.model.run_documents import RunError

EXPORTED, LAYOUT = "exported", 1
NEEDED = ("model.safetensors", "state.json")
FETCHED = ("*.json", "*.txt", "*.safetensors")  # documents and tensors: no code, and no format that can hold any


def fetched(name: Path | str) -> Path:
    """The folder of a model: as it is named, or of `hf-hub:ORG/NAME` that of the cache, once it was fetched.

    RunError where it is neither there nor to be had.
    """
    if not str(name).startswith(HUB):
        return Path(name)
    try:
        with hub_or_cache():
            return Path(huggingface_hub.snapshot_download(str(name).removeprefix(HUB), allow_patterns=[*FETCHED]))
    except (OSError, ValueError) as error:  # of the hub, of http, and of a name that is none
        said = " ".join(str(error).split())[:200]
        raise RunError(f"{name}: could not be fetched ({said}): expected {HUB}ORG/NAME, or a folder") from error


def is_exported(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of an exported model."""
    return EXPORTED in config


def check_exported(folder: Path, config: dict[str, Any]) -> None:
    """RunError for an exported model of another version's layout, without its files, or with other files."""
    told = config[EXPORTED]
    if told["layout"] != LAYOUT:
        raise RunError(
            f"{folder}: an exported model of layout {told['layout']}, this mclip reads layout {LAYOUT}: use the mclip "
            f"that made it (version {config.get('version', 'unknown')}), or export the run again"
        )
    for name in sorted({*NEEDED, *told["sha256"]}):
        file, expected = folder / name, told["sha256"].get(name, "nothing")
        if not file.is_file():
            raise RunError(f"{folder}: no {name} here: an exported model without it is none: export or fetch it again")
        if (found := sha256_of(file)) != expected:
            raise RunError(
                f"{file}: damaged or changed (its sha256 is {found[:12]}, config.json says {expected[:12]}): export or "
                "fetch it again"
            )


def sha256_of(file: Path) -> str:
    """A file's sha256 in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
