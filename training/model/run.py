"""The run folder: config.json, metrics.jsonl, and checkpoints that appear by rename.

RUN/config.json                       model, training options, encoder, data, versions
RUN/metrics.jsonl, RUN/tensorboard/   what was measured on the way
RUN/checkpoints/00001500/             model.safetensors, optimizer.safetensors, ema.safetensors, state.json, and
                                      latents.safetensors: where the training motions lie

An exported model (`training/model/exported.py`) is a run folder that is its own and only checkpoint.
"""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mclip.pipeline.embed.encoder import Encoder, EncoderError
from mclip.pipeline.embed.loading import FOLDER, HUB, is_tag, load_encoder
from mclip.pipeline.files.assets import HOUSE
from mclip.pipeline.files.atomic import delete_whole, write_aside
from mclip.pipeline.files.documents import read_document, read_sealed, short
from mclip.pipeline.files.torchscript import check_weights
from mclip.pipeline.machine.devices import multiplies_bfloat16, pick_device
from mclip.pipeline.store.lock import clear_dead_lock
from mclip.pipeline.store.store import version
from mclip.training.model.config import METRICS, ModelConfig, TrainConfig
from mclip.training.model.exported import check_exported, fetched, is_exported
from mclip.training.model.network import MotionClip
from mclip.training.model.run_documents import ROOT_PATH, RunConfig, State
from mclip.training.model.run_documents import RunError as RunError  # which most know from here

CONFIG, STATE = "config.json", "state.json"
EVALUATION, REPORT = "evaluation.json", "report.html"  # what `mclip evaluate` writes into a run
KEEP = 2  # checkpoints that stay: the last, and the one before it; and the best, and every --keep-every
WEIGHTS, AVERAGE, LATENTS = "model.safetensors", "ema.safetensors", "latents.safetensors"


def way_out(file: Path) -> str:
    """What to do about a damaged file of a checkpoint, or of an exported model."""
    if file.parent.parent.name == "checkpoints":
        return "delete this checkpoint's folder to go on from the one before it"
    return "export or fetch the model again"


@dataclass(frozen=True)
class Run:
    """A trained model with everything that is needed to use it."""

    folder: Path
    config: dict[str, Any]
    model: MotionClip
    state: dict[str, Any]
    trust_encoder: bool = False  # whether config.json may name an encoder anywhere
    z_NC: Tensor | None = None  # of training windows, evenly chosen; None for an imported run or one of before
    told_NC: Tensor | None = None  # vectors of texts of those, where the decoder does not understand texts themselves

    @property
    def step(self) -> int:
        """Steps it was trained for."""
        return int(self.state["step"])

    @property
    def z_length(self) -> float | None:
        """Mean length of z over the windows it was last validated on; None when nobody measured it."""
        return self.state.get("z_length")

    @property
    def fingerprint(self) -> str:
        """Short hash of the weights, and of what is in the 25th row where that is not the root's path."""
        digest = hashlib.sha256(b"" if self.row25 == ROOT_PATH else self.row25.encode())
        for _, tensor in sorted(self.model.state_dict().items()):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def class_temperature(self) -> float | None:
        """What makes probabilities of cosines with classes; None where nobody evaluated these weights.

        ValueError for a damaged evaluation.
        """
        file = self.folder / EVALUATION
        if not file.exists():
            return None
        figures = read_sealed(file, remedy="measure again by `mclip evaluate --replace`, or delete it")
        if figures.get("weights") != self.fingerprint:
            return None
        found = figures.get("calibration", {}).get("temperature")
        return found if found is None else float(found)

    @property
    def fps(self) -> float:
        """Frames per second of the motions it was trained on."""
        return float(self.config["data"]["fps"])

    @property
    def crop(self) -> int:
        """Frames of a training crop."""
        return int(self.config["data"]["crop"])

    @property
    def kept(self) -> dict[str, Tensor]:
        """What the run keeps of its training windows, as its file has it."""
        named = {"z": self.z_NC, "told": self.told_NC}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def row25(self) -> str:
        """What the 25th row of its motions holds: the root's displacement, or in the release's models the ankle's."""
        return str(self.config["data"].get("row25", ROOT_PATH))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def load_encoder(self) -> Encoder:
        """The CLIP encoder the run was trained with, on the model's device.

        RunError when config.json leads elsewhere, or today's weights are others.
        """
        described = self.config["encoder"]
        clip, pretrained = self.encoder_names()
        try:
            encoder = load_encoder(
                clip,
                pretrained,
                templates=described.get("templates", ()),  # an imported run's record has none of these
                precision=described.get("precision", "float32"),
                device=self.device,
            )
        except EncoderError as error:
            raise RunError(f"{self.folder / CONFIG}: at encoder: {error}") from error
        if described["weights_sha256"] not in (None, encoder.fingerprint):  # None: imported, nobody recorded it
            raise RunError(
                f"{self.folder}: trained with weights {described['weights_sha256'][:12]} of {described['clip']}, found "
                f"{encoder.fingerprint[:12]}: install the version it was trained with, or embed and train again"
            )
        return encoder

    def encoder_names(self) -> tuple[str, str | None]:
        """What to load as encoder: a name of open_clip's, or what lies in the run folder, as paths.

        Whoever gave the run folder away wrote the names: RunError for one that leads out of it or to the network,
        unless `trust_encoder`.
        """
        described = self.config["encoder"]
        clip, pretrained = described["clip"], described["pretrained"]
        if clip.startswith(HUB):
            self.check_trust("clip", clip, "the network")
        elif clip.startswith(FOLDER):
            clip = FOLDER + self.within("clip", clip.removeprefix(FOLDER))
        elif pretrained is not None and not is_tag(clip, pretrained):
            pretrained = self.within("pretrained", pretrained)
        return clip, pretrained

    def within(self, key: str, name: str) -> str:
        """The path of a file that config.json names, from the run folder on."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            self.check_trust(key, name, "a place outside this folder")
        return str(path)

    def check_trust(self, key: str, name: str, where: str) -> None:
        """RunError for a name of config.json that leads elsewhere, where nobody said to trust it."""
        if not self.trust_encoder:
            raise RunError(
                f"{self.folder / CONFIG}: at encoder.{key}: found {short(name)}, which leads to {where}; expected a "
                "model and tag of open_clip, or what lies in this folder: pass --trust-encoder if you know who made it"
            )


def start_run(folder: Path, config: dict[str, Any]) -> None:
    """Make the folder with its config.json, or continue one of equal config; RunError for any other.

    One of fewer epochs continues, too: config.json then has the new number, and under `lengthened` what was before.
    """
    file = folder / CONFIG
    config = json.loads(json.dumps(config))
    if not file.exists():
        if folder.exists() and any(".partial" not in path.name for path in folder.iterdir()):
            raise RunError(f"{folder}: exists and is no run folder (no config.json in it); name another")
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(file, json.dumps(config | {"version": version(), "commit": git_commit()}, indent=2) + "\n")
        return
    made_with = read_config(folder)
    if is_exported(made_with):
        raise RunError(f"{folder}: an exported model, which has no optimizer: train elsewhere, --start-from {folder}")
    require_known_options(folder, made_with, config)
    longer = lengthen(made_with, config, checkpoints(folder))
    differ = {key: (made_with.get(key), config.get(key)) for key in config | {"started_from": None}}
    differ = {key: changed(*pair) for key, pair in differ.items() if pair[0] != pair[1]}
    if differ:
        raise RunError(f"{folder}: this run was made with other options: {differ}; pass --replace or name another")
    if longer:
        write_aside(file, json.dumps(made_with, indent=2) + "\n")


def require_known_options(folder: Path, made_with: dict[str, Any], config: dict[str, Any]) -> None:
    """RunError for a run of a version that had other options; those that are new since then have their defaults."""
    made_with["train"].pop("compile", None)  # it changed no number; --step says as much today
    for part, kind in (("model", ModelConfig), ("train", TrainConfig)):
        if gone := sorted(set(made_with[part]) - set(config[part])):
            raise RunError(
                f"{folder}: trained by another version of mclip, with options that are no more ({', '.join(gone)}): it "
                "can be used; to train it, begin again with --replace or in another folder"
            )
        made_with[part] = {each.name: each.default for each in fields(kind) if each.name in config[part]} | made_with[
            part
        ]


def lengthen(made_with: dict[str, Any], config: dict[str, Any], saved: list[Path]) -> bool:
    """Give a run's config the epochs of another where these are more, and note what it had; whether they are."""
    before, now = (each["train"].get("epochs", 0) for each in (made_with, config))
    if not 0 < before < now:
        return False
    made_with["train"]["epochs"] = now
    step = read_state(saved[-1])["step"] if saved else 0
    made_with["lengthened"] = [*made_with.get("lengthened", []), {"epochs": before, "step": step}]
    return True


def changed(was: Any, now: Any) -> Any:
    """What differs between two config values: the pair, or by key in two dicts."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return f"{was} -> {now}"
    return {key: f"{was.get(key)} -> {now.get(key)}" for key in was | now if was.get(key) != now.get(key)}


def delete_run(folder: Path) -> None:
    """Delete a run folder; RunError for a folder that is none."""
    if folder.exists() and not (folder / CONFIG).exists():
        raise RunError(f"{folder}: is no run folder (no config.json in it), so --replace leaves it alone")
    delete_whole(folder)


def git_commit() -> str | None:
    """Commit of the source tree this runs from; None outside a checkout."""
    if not (HOUSE / ".git").exists():
        return None
    command = ["git", "-C", str(HOUSE), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run; RunError naming `mclip train` when there is none, ValueError when it is damaged."""
    file = folder / CONFIG
    if (folder / "zarr.json").is_file():
        raise RunError(f"{folder}: is a store, expected a run: the other way round, or name its run")
    if not file.is_file():
        raise RunError(f"{folder}: no run here (no config.json); `mclip train STORE {folder}` makes one")
    schema: Any = RunConfig  # used by its keys, as what train writes is
    found: dict[str, Any] = read_document(file, schema, remedy="restore it, or train again with --replace")
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first; an exported model is its own."""
    if (folder / WEIGHTS).is_file():
        return [folder]
    found = (path for path in (folder / "checkpoints").glob("*") if path.name.isdecimal())
    return sorted(path for path in found if (path / STATE).exists())


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json of a checkpoint: step, steps, z_length, and the figures of a validation where there was one."""
    found: dict[str, Any] = read_document(checkpoint / STATE, State, remedy=way_out(checkpoint / STATE))
    return found


def best_by(folder: Path) -> str:
    """The metric of a run's best checkpoint."""
    return str(read_config(folder).get("train", {}).get("best", "mpjpe_mm"))


def best_checkpoint(folder: Path) -> Path | None:
    """The best checkpoint by the run's metric; None when none was validated."""
    metric = best_by(folder)
    states = {path: read_state(path) for path in checkpoints(folder)}
    known = {path: float(state[metric]) for path, state in states.items() if metric in state}
    best = max if METRICS[metric] else min
    return best(known, key=known.__getitem__, default=None)


def find_checkpoint(folder: Path, wanted: str | int) -> Path:
    """The `last` checkpoint of a run, the `best` by its --best, or that of a step; RunError naming those there are."""
    found = checkpoints(folder)
    if not found:
        raise RunError(f"{folder}: no checkpoint yet; run `mclip train` again to continue it")
    if wanted == "last":
        return found[-1]
    steps = {str(read_state(path)["step"] if path == folder else int(path.name)): path for path in found}
    here = f"here are those of the steps {', '.join(steps)}: pass one of them, or last"
    if wanted == "best":
        best = best_checkpoint(folder)
        if best is None:
            raise RunError(f"{folder}: --checkpoint best: no checkpoint was validated by {best_by(folder)}; {here}")
        return best
    step = str(int(wanted)) if str(wanted).isdecimal() else ""
    if step not in steps:
        raise RunError(f"{folder}: --checkpoint {wanted}: no such checkpoint; {here}, or best")
    return steps[step]


def is_best(folder: Path, figures: dict[str, float]) -> bool:
    """Whether a validation's figures are better than all checkpoints'; never where the metric is unknown (NaN)."""
    metric, best = best_by(folder), best_checkpoint(folder)
    value = figures.get(metric, math.nan)
    if best is None or math.isnan(value):
        return not math.isnan(value)
    before = float(read_state(best)[metric])
    return value > before if METRICS[metric] else value < before


def load_run(
    folder: Path | str,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | int = "last",
    trust_encoder: bool = False,
) -> Run:
    """A run's checkpoint in evaluation mode on a device: the weights' moving average where one was kept.

    `folder` may be an exported model, or `hf-hub:ORG/NAME`, of which documents and tensors are fetched. `device` as
    `pick_device`, `checkpoint` as `find_checkpoint`. RunError when there is none or it does not fit. `trust_encoder`:
    see `Run.encoder_names`.
    """
    folder, place = fetched(folder), pick_device(device)
    clear_dead_lock(str(folder))
    config = read_config(folder)
    if is_exported(config):
        check_exported(folder, config)
    chosen = find_checkpoint(folder, checkpoint)
    state = read_state(chosen)
    try:
        with torch.device("meta"):  # sizes only: nothing is taken for a model that its weights do not fit
            model = MotionClip(ModelConfig(**config["model"]))
    except ValueError as error:
        raise RunError(f"{folder / CONFIG}: at model: {error}: restore it") from error
    load_model(model, chosen / (AVERAGE if (chosen / AVERAGE).exists() else WEIGHTS))
    frozen = model.eval().requires_grad_(False).to(place)
    kept = load_latents(chosen, model.config.latent, place)
    return Run(folder, config, frozen, state, trust_encoder=trust_encoder, z_NC=kept.get("z"), told_NC=kept.get("told"))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint's file; RunError when it is damaged."""
    try:
        check_weights(file)
        return load_file(file)
    except Exception as error:  # safetensors raises a type of its own that it does not export
        raise RunError(f"{file}: damaged ({first_words(error)}); {way_out(file)}") from error


def first_words(error: Exception) -> str:
    """What an error says, in a line of at most 300 letters: safetensors quotes whatever a header holds."""
    said = "; ".join(line.strip() for line in str(error).splitlines()[:3])
    return said if len(said) <= 300 else f"{said[:297]}..."


def load_latents(checkpoint: Path, width: int, device: torch.device) -> dict[str, Tensor]:
    """What a checkpoint keeps of training windows, `z` (N, width) and perhaps `told`; empty where it keeps nothing.

    RunError for a damaged file.
    """
    file = checkpoint / LATENTS
    if not file.exists():
        return {}
    tensors = read_tensors(file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    right = len(set(shapes.values())) == 1 and all(len(each) == 2 and each[1] == width for each in shapes.values())
    if set(shapes) not in ({"z"}, {"z", "told"}) or not right:
        raise RunError(
            f"{file}: damaged (found {short(shapes)}, expected z of N x {width}, and told of the same or none); "
            f"{way_out(file)}"
        )
    for name, tensor in tensors.items():
        if not len(tensor) or not (tensor.float().isfinite().all() and tensor.any(dim=1).all()):
            raise RunError(f"{file}: damaged ({name} holds no vector, or one without a direction); {way_out(file)}")
    return {name: tensor.float().to(device) for name, tensor in tensors.items()}


def load_model(model: MotionClip, file: Path) -> None:
    """Put a checkpoint's weights into a model; RunError listing the first keys or shapes that do not fit."""
    weights = read_tensors(file)
    require_names(model, weights, file)
    try:
        model.take(weights)
    except RuntimeError as error:
        raise RunError(
            f"{file}: does not fit the model of config.json: {first_words(error)}; {way_out(file)}"
        ) from error


def require_names(model: MotionClip, weights: dict[str, Tensor], file: Path) -> None:
    """RunError for weights that another version of mclip called otherwise, whatever the number of layers."""
    found, expected = ({re.sub(r"\d+", "N", name) for name in each} for each in (weights, model.state_dict()))
    if found != expected:
        there, here = (", ".join(sorted(more)[:2]) or "no more" for more in (found - expected, expected - found))
        raise RunError(
            f"{file}: weights of another version of mclip (found {there}; expected {here}): use that version, or train "
            "the run again with --replace"
        )


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' states as flat named tensors; the weights of each are numbered on from those before."""
    named: dict[str, Tensor] = {}
    first = 0
    for whole in (each.state_dict() for each in optimizers):
        state = whole["state"].items()
        named |= {f"{first + index}.{name}": value for index, values in state for name, value in values.items()}
        first += sum(len(group["params"]) for group in whole["param_groups"])
    return named


def load_optimizers(optimizers: Sequence[torch.optim.Optimizer], checkpoint: Path) -> None:
    """Inverse of `optimizer_tensors`. RunError when the file is damaged."""
    states: dict[int, dict[str, Tensor]] = {}
    file = checkpoint / "optimizer.safetensors"
    for key, value in read_tensors(file).items():
        index, _, name = key.partition(".")
        if not index.isdecimal():
            raise RunError(f"{file}: damaged (found {short(key)}, expected a number and a name); {way_out(file)}")
        states.setdefault(int(index), {})[name] = value
    first = 0
    for optimizer in optimizers:
        whole = optimizer.state_dict()
        count = sum(len(group["params"]) for group in whole["param_groups"])
        whole["state"] = {index: states[first + index] for index in range(count) if first + index in states}
        optimizer.load_state_dict(whole)
        first += count


def save_checkpoint(
    folder: Path,
    model: MotionClip,
    optimizers: Sequence[torch.optim.Optimizer],
    state: dict[str, Any],
    *,
    average: MotionClip | None = None,
    kept: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint aside, rename it, then drop the oldest. A kill or a full disk leaves the last one whole."""
    final = folder / "checkpoints" / f"{state['step']:08d}"
    if final.exists():
        return final
    for left_over in final.parent.glob(".*.partial"):
        shutil.rmtree(left_over)
    aside = final.with_name(f".{final.name}.partial")
    aside.mkdir(parents=True)
    tensors = {WEIGHTS: model.state_dict()}
    if average is not None:
        tensors[AVERAGE] = average.state_dict()
    if kept:
        tensors[LATENTS] = dict(kept)
    if optimizers:
        tensors["optimizer.safetensors"] = optimizer_tensors(optimizers)
    try:
        for name, named in tensors.items():
            save_file({key: value.contiguous() for key, value in named.items()}, aside / name)
        (aside / STATE).write_text(json.dumps(state))
    except Exception as error:
        raise RunError(
            f"{aside}: could not be written ({error}); earlier checkpoints are whole: make room and run the same "
            "command again"
        ) from error
    os.replace(aside, final)
    drop_old(folder)
    return final


def drop_old(folder: Path) -> None:
    """Delete checkpoints that are neither the last two, nor the best, nor one of every --keep-every steps."""
    best, every = best_checkpoint(folder), read_config(folder).get("train", {}).get("keep_every", 0)
    for old in checkpoints(folder)[:-KEEP]:
        if old != best and not (every and int(old.name) % every == 0):
            delete_whole(old)


def in_bfloat16(run: Run) -> bool:
    """Whether to use a run in bfloat16: what it was trained in, where its device multiplies it fast."""
    return run.config["train"].get("precision") == "bfloat16" and multiplies_bfloat16(run.device)


def autocast(run: Run) -> torch.autocast:
    """A context in which the run's model computes as `in_bfloat16` says; for nothing but the model."""
    return torch.autocast(run.device.type, torch.bfloat16, enabled=in_bfloat16(run))
