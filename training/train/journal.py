"""What a run writes of itself: metrics.jsonl, TensorBoard, Weights & Biases if asked, and its curves at the end."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.files.documents import read_lines
from mclip.training.model.run import RunError, read_config

METRICS, CURVES = "metrics.jsonl", "curves.png"


class Journal:
    """metrics.jsonl and TensorBoard, cut back to the checkpoint's step when a run continues; and a run of W&B."""

    def __init__(self, folder: Path, step: int, *, wandb: str = ""):
        from torch.utils.tensorboard.writer import SummaryWriter

        self.file = folder / METRICS
        lines = [json.dumps(line) for line in read_journal(self.file) if line["step"] <= step]
        write_aside(self.file, "".join(f"{line}\n" for line in lines))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        self.wandb = wandb_run(wandb, folder) if wandb else None

    def write(self, step: int, **values: float) -> None:
        """Append one line of named numbers; those that nobody could measure (NaN) are left out."""
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | known) + "\n")
        for name, value in known.items():
            self.board.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(known, step=step)

    def close(self, *, whole: bool = True) -> None:
        """Close TensorBoard's file, and tell W&B whether the run is whole."""
        self.board.close()
        if self.wandb:
            self.wandb.finish(exit_code=int(not whole))


def require_wandb() -> Any:
    """The package wandb; RunError saying how to get it."""
    try:
        import wandb
    except ImportError as error:
        raise RunError(
            f"--wandb needs the package wandb ({error}): pip install 'mclip[wandb]', or leave --wandb out: "
            "metrics.jsonl and TensorBoard are written anyway"
        ) from error
    return wandb


def wandb_run(project: str, folder: Path) -> Any:
    """The run of a W&B project that this folder reports to; the same one when training continues, or for longer."""
    config = read_config(folder)
    fixed = config | {"train": config["train"] | {"epochs": None}, "lengthened": None}
    name = hashlib.sha256(f"{folder.resolve()} {json.dumps(fixed, sort_keys=True)}".encode()).hexdigest()[:16]
    return require_wandb().init(project=project, id=name, name=folder.name, dir=folder, config=config, resume="allow")


def read_journal(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, named numbers with their step; none where there is no file.

    A broken line is told and passed over, and so is, in silence, a last one that a kill cut short.
    """
    lines = read_lines(file.read_bytes(), dict[str, float], file=file) if file.exists() else []
    return [{**line, "step": int(line["step"])} for line in lines if "step" in line]


def points(lines: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one measured name."""
    known = [(line["step"], line[name]) for line in lines if name in line]
    return np.array([step for step, _ in known]), np.array([value for _, value in known])
