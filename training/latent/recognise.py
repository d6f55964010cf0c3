"""The classes nearest to a motion."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.machine.terminal import table
from mclip.training.data.clips import chunks
from mclip.training.latent.space import encode, motion_rows
from mclip.training.latent.span import centred
from mclip.training.model.run import Run

PROBABILITY, COSINE = "probability", "cosine"


@dataclass(frozen=True)
class Seen:
    """The classes nearest to a piece of a motion, best first, with their scores."""

    from_s: float
    to_s: float
    classes: list[tuple[str, float]]
    scores: str  # what they are: PROBABILITY, that of all classes asked for this one is true; or COSINE


def recognise(
    run: Run, path: Path, class_KC: Float[Tensor, "K C"], names: Sequence[str], *, top: int, asked: Asked = NOTHING
) -> list[Seen]:
    """What a motion file shows, as `recognise_rows`."""
    return recognise_rows(run, motion_rows(run, path, asked), class_KC, names, top=top)


@torch.inference_mode()
def recognise_rows(
    run: Run, rows_TRD: Float[Tensor, "T 25 6"], class_KC: Float[Tensor, "K C"], names: Sequence[str], *, top: int
) -> list[Seen]:
    """What a motion shows, piece by piece of a training crop's length; `class_KC` are the names' text vectors.

    Scores are probabilities for a run that was evaluated, and cosines for any other (`Run.class_temperature`).
    """
    pieces = chunks(len(rows_TRD), run.crop)
    z_NC = torch.stack([encode(run, rows_TRD[start:stop]) for start, stop in pieces])
    temperature = run.class_temperature
    best = scores(run, z_NC, class_KC, temperature).topk(min(top, len(names)), dim=1)
    what = COSINE if temperature is None else PROBABILITY
    return [
        Seen(start / run.fps, stop / run.fps, [(names[k], score) for k, score in zip(index, value, strict=True)], what)
        for (start, stop), index, value in zip(pieces, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def scores(
    run: Run, z_NC: Float[Tensor, "N C"], class_KC: Float[Tensor, "K C"], temperature: float | None
) -> Float[Tensor, "N K"]:
    """Cosines (N, K) of centred vectors of motions with classes'; their softmax where there is a temperature."""
    cosine_NK = F.normalize(centred(z_NC, run.z_NC), dim=-1) @ F.normalize(class_KC.to(run.device), dim=-1).T
    return cosine_NK if temperature is None else (cosine_NK / temperature).softmax(-1)


def told_of(what: str) -> str:
    """What scores are, for people."""
    return what if what == PROBABILITY else f"{what} (`mclip evaluate` makes probabilities of them)"


def format_classes(found: dict[str, list[Seen]], *, as_json: bool) -> str:
    """What motions show, as tables or as JSON."""
    if as_json:
        named: dict[str, Any] = {path: [asdict(seen) for seen in pieces] for path, pieces in found.items()}
        return json.dumps(named, indent=2, ensure_ascii=False)
    return "".join(
        table(
            path,
            ("seconds", f"nearest classes, each with its {told_of(pieces[0].scores)}"),
            [
                (
                    f"{seen.from_s:.1f} to {seen.to_s:.1f}",
                    ", ".join(f"{name} {score:.3f}" for name, score in seen.classes),
                )
                for seen in pieces
            ],
        )
        for path, pieces in found.items()
    )
