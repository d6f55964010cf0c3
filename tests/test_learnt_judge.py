"""The learnt judge is judged: it ranks real motion by its texts, in every guise, and knows what is none of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mclip.pipeline.embed import embed
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Crops, load_crops
from mclip.training.measure.judge import at_speed
from mclip.training.measure.learnt_judge import LearntJudge, held_at_end, ranks_of_own
from mclip.training.measure.retrieval import gallery_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip_store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Store:
    """All twenty embedded clips with the vectors of their texts."""
    made = open_store(tmp_path_factory.mktemp("clips") / "store.zarr", create=True)
    prepare(MOTIONS, made, labels=read_labels((MOTIONS / "babel",), None), options=PrepareOptions())
    embed.embed(made, encoder, without=("pictures",))
    return made


@pytest.fixture(scope="module")
def crops(clip_store: Store) -> Crops:
    return load_crops(clip_store, split="train", encoder="offline", target="label", device=CPU, short="continue")


@pytest.fixture(scope="module")
def learnt(clip_store: Store, crops: Crops) -> LearntJudge:
    judge = LearntJudge.trained([crops], fps=clip_store.fps)
    assert judge
    return judge


@pytest.fixture(scope="module")
def share(clip_store: Store, crops: Crops, learnt: LearntJudge):
    """How many of a motion for each clip's labels are ranked first by them, of 92 labels."""
    gallery = gallery_of(clip_store, crops, np.zeros((len(crops), 0)))
    number = {text: at for at, text in enumerate(clip_store.strings("texts"))}
    labels = gallery.all_labels
    text_QC = crops.text[[number[label] for label in labels]]
    shown = [
        [name for name, own in zip(gallery.names, gallery.labels, strict=True) if label in own] for label in labels
    ]
    first = [gallery.names.index(names[0]) for names in shown]

    def measure(motions: torch.Tensor) -> float:
        ranks_Q = ranks_of_own(learnt.scores(motions[first], text_QC), shown)
        return float((ranks_Q == 1).mean())

    return measure


def middles(crops: Crops) -> torch.Tensor:
    return crops.middle(torch.arange(len(crops))).motion_BTRD


def of_length(rows: torch.Tensor, frames: int) -> torch.Tensor:
    """A motion cut, or held at its last frame."""
    return rows[torch.arange(frames).clamp_max(len(rows) - 1)]


def test_real_motion_is_known_by_its_texts_also_slower_and_faster(share, crops: Crops) -> None:
    real = middles(crops)
    assert share(real) > 0.97
    for speed in (0.85, 1.15):
        assert share(torch.stack([of_length(at_speed(rows, speed), crops.crop) for rows in real])) > 0.9


def test_still_other_and_reversed_motion_is_not(share, crops: Crops) -> None:
    real = middles(crops)
    assert share(real.mean((0, 1)).expand_as(real)) < 0.15
    assert share(real[:, :1].expand_as(real)) < 0.35  # some first poses, on all fours, say what follows
    assert share(real.roll(1, 0)) < 0.1
    assert share(real.flip(1)) < 0.4  # a dance backwards in time is a dance


def test_what_is_learnt_depends_on_the_seed_alone(clip_store: Store, crops: Crops, learnt) -> None:
    before = torch.random.get_rng_state()
    again = LearntJudge.trained([crops], fps=clip_store.fps)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody's stream is touched
    text = crops.text[:5]
    assert torch.allclose(again.scores(middles(crops), text), learnt.scores(middles(crops), text), atol=1e-4)


def test_padding_is_no_motion() -> None:
    rows = torch.randn(2, 6, 25, 6)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    held = held_at_end(rows, mask)
    assert torch.equal(held[0], rows[0])
    assert torch.equal(held[1], torch.stack([rows[1, 0], *[rows[1, 1]] * 5]))


def test_texts_of_one_clip_are_neither_right_nor_wrong() -> None:
    score = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.3, 0.4], [0.0, 0.0, 0.0]])
    assert ranks_of_own(score, [["a"], ["a", "b"], ["c"]]).tolist() == [1, 2, 3]


def test_a_store_without_texts_has_no_such_judge(clip_store: Store, crops: Crops) -> None:
    silent = replace(crops, labels=replace(crops.labels, count=torch.zeros_like(crops.labels.count)))
    silent = replace(silent, targets=silent.labels)
    assert LearntJudge.trained([silent], fps=clip_store.fps) is None
