"""What is measured of a model during training, on the same windows every time, and what tells that it collapsed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops
from mclip.training.measure.judge import judge_of
from mclip.training.measure.reconstruction import quality, reconstruct, reconstructed
from mclip.training.measure.retrieval import gallery_of, recalls, retrieval
from mclip.training.measure.statistics import figures_of
from mclip.training.model.network import MotionClip

WINDOWS = 512  # of a large split, so that a validation stays a matter of seconds; `mclip evaluate` takes them all
JUDGED = 8  # and windows that are judged: a tenth of a second each
QUALITY = ("pa_mpjpe_mm", "vertex_mm", "root_mm", "planted_ratio", "root_jerk_ratio", "joint_jerk_ratio", "floating_cm")
POSED = 64  # of these, windows whose vertices are posed
STILL = 0.2  # decoded movement, or variety, below this share of the source's is a collapse
ALIKE = 0.01  # spread of unit vectors z below which all motions have one z; random directions have 1
REMEDY = (
    "Train longer; if it stays, lower --learning-rate, add --warmup, or raise --rot6d-weight, --vertices-weight and "
    "--velocity-weight"
)


class Validation:
    """Figures of a model on up to WINDOWS windows of a split: millimetres, degrees, cosines, retrieval, spreads."""

    def __init__(self, store: Store, crops: Crops, texts: Sequence[str], *, fps: float):
        self.crops, self.fps = crops.some(WINDOWS), fps
        self.gallery = gallery_of(store, self.crops, np.zeros((len(self.crops), 0)))
        self.vectors = dict(zip(texts, crops.text.cpu().numpy(), strict=True))
        names = [self.gallery.names[sequence] for sequence in self.gallery.sequence_W]
        self.judge = judge_of([self.crops], [names], fps=fps)
        self.judged = [int(item) for item in np.linspace(0, len(names) - 1, min(len(names), JUDGED)).round()]

    def __call__(self, model: MotionClip) -> dict[str, float]:
        """The figures by name; NaN where nothing could be measured."""
        was_training = model.training
        model.eval()
        found, posed = reconstruct(model, self.crops), quality(model, self.crops, fps=self.fps, most=POSED)
        verdicts = [self.judge(reconstructed(model, self.crops, item)[1].cpu()) for item in self.judged]
        model.train(was_training)
        figures = found.summary() | {"variety_ratio": found.varied}
        figures |= {name: posed.measured()[name].figure for name in QUALITY}
        figures["natural"] = float(np.mean([verdict.natural for verdict in verdicts]))
        own = [self.gallery.names[self.gallery.sequence_W[item]] for item in self.judged]
        called = [self.judge.names[verdict.clip] for verdict in verdicts]
        figures["right"] = float(np.mean([ours == theirs for ours, theirs in zip(own, called, strict=True)]))
        for way, ranks in retrieval(replace(self.gallery, z_WC=found.z_WC), self.vectors).items():
            figures |= {
                f"{way}_{name}": value for name, value in figures_of(recalls(ranks)).items() if name != "queries"
            }
        return figures


def collapse(figures: dict[str, float]) -> list[str]:
    """What to say when decoded motion hardly moves, the failure most often told of MotionCLIP, or all of it is one."""
    moves, differs, spread = (figures[name] for name in ("movement_ratio", "variety_ratio", "z_spread"))
    told = []
    if moves < STILL:
        told.append(f"static motion: what is decoded moves {moves:.2f} times as much as its source, expected 1")
    if differs < STILL:
        told.append(
            f"one motion for all: what is decoded differs {differs:.2f} times as much as sources do, expected 1"
        )
    if spread < ALIKE:
        told.append(f"one vector for all: z spreads by {spread:.4f}, random directions by 1")
    return [f"{each}. {REMEDY}" for each in told]
