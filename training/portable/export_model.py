"""`mclip export-model`: a run's checkpoint as a folder that others load, with its card."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from mclip.pipeline.embed.loading import FOLDER, HUB
from mclip.pipeline.files.atomic import folder_by_rename
from mclip.pipeline.files.documents import read_object
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.store.store import Store
from mclip.training.model.exported import EXPORTED, LAYOUT, is_exported, sha256_of
from mclip.training.model.run import CONFIG, LATENTS, STATE, WEIGHTS, Run, RunError
from mclip.training.portable.card import write_card

CARD = "README.md"


@dataclass(frozen=True)
class Wish:
    """What an exported model is to hold beside the weights, and what its card is to say."""

    store: Store | None = None  # that it was trained on
    licence: str = ""
    precisions: tuple[str, ...] = ()  # of the ONNX files; none without them


def export_model(run: Run, out: Path, wish: Wish, *, replace: bool = False) -> str:
    """Write a run's model to a folder, which is there whole or not at all; what was written, in lines.

    RunError for a folder that is there already, unless it is an exported model and `replace`.
    """
    require_free(out, replace=replace)
    require_own_store(run, wish.store)
    with folder_by_rename(out) as folder:
        write_tensors(run, folder)
        copy_encoder(run, folder)
        told = write_onnx(run, folder, wish.precisions)
        write_config(run, folder)
        write_card(folder / CARD, run, title=out.name, store=wish.store, licence=wish.licence, onnx=told)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return "\n".join([*told, f"export-model: step {run.step:,} of {run.folder} in {out}, {size / 1e6:.1f} MB"])


def require_free(out: Path, *, replace: bool) -> None:
    """RunError for a place that is taken."""
    if not out.exists():
        return
    if not replace:
        raise RunError(f"{out}: there already: name another folder, or pass --replace")
    file = out / CONFIG
    if not (file.is_file() and is_exported(read_object(file, remedy="name another folder"))):
        raise RunError(f"{out}: is no exported model, so --replace leaves it alone: name another folder")


def require_own_store(run: Run, store: Store | None) -> None:
    """RunError for a store that the run was not trained on: the card would tell of other data."""
    if store is not None and store.fingerprint() != run.config["data"]["store"]:
        raise RunError(f"{store.url}: not the store that {run.folder} was trained on: name that one, or leave it out")


def write_tensors(run: Run, folder: Path) -> None:
    """The weights that the run is used with, the z that texts are carried to, and what its checkpoint says."""
    tensors = {WEIGHTS: run.model.state_dict()} | ({LATENTS: run.kept} if run.kept else {})
    for name, named in tensors.items():
        try:
            save_file({key: tensor.cpu().contiguous() for key, tensor in named.items()}, folder / name)
        except SafetensorError as error:
            raise RunError(f"{folder.parent}: {name} could not be written ({error}): make room") from error
    (folder / STATE).write_text(json.dumps(run.state), encoding="utf-8")


def copy_encoder(run: Run, folder: Path) -> None:
    """An encoder that lies in the run folder goes along; one that lies elsewhere, or has a name, is only named."""
    described = run.config["encoder"]
    for name in (described["clip"].removeprefix(FOLDER), described["pretrained"]):
        if name is None or name.startswith(HUB) or Path(name).is_absolute() or ".." in Path(name).parts:
            continue
        source, place = run.folder / name, folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        elif source.is_file():
            shutil.copy(source, place)


def write_onnx(run: Run, folder: Path, precisions: tuple[str, ...]) -> list[str]:
    """The ONNX files that were asked for; what to say of them."""
    if not precisions:
        return []
    from mclip.training.portable.graphs import write_graphs

    return write_graphs(run, folder / "onnx", precisions)


def write_config(run: Run, folder: Path) -> None:
    """The run's config.json, with what makes the folder an exported model; paths of this machine are cut."""
    hashes = {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}
    config = dict(run.config)
    if origin := config.get("started_from"):
        config["started_from"] = origin | {"run": Path(origin["run"]).name}
    config[EXPORTED] = {
        "layout": LAYOUT,
        "weights": run.fingerprint,
        "preprocessing": preprocessing(run),
        "sha256": hashes,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def preprocessing(run: Run) -> dict[str, Any]:
    """How a motion becomes the model's numbers, for those who do it without mclip."""
    return {
        "fps": run.fps,
        "frames": run.crop,
        "rows": [*JOINTS, run.row25],
        "rotations": "local, 6D: the first two rows of each joint's matrix, row by row",
        "root": "metres, world z up, from where the crop begins; three zeros follow",
        "body": "SMPL's 24 joints; the embedded body poses them, without shape",
    }
