"""Pairs of action and manner that training never saw, by texts and by edits, held against real motion of the pair.

    python workflows/compare_pairs.py RUN STORE

For stores of sequences that are called ACTION/MANNER_TAKE, as ../shared/data/bandai2 is. A motion is what the judge by
pieces of real motion takes it for, among the pairs of all splits, without mirror images since actions tell sides:
action, manner, both. Rows:

- real motion of the pairs, its own clip left out: what the judge can tell; its first pose held: what a still body
  gets; and the same windows reconstructed
- texts of the pairs, which were in no training; carried, and in the plain way
- edits: ACTION in the neutral manner + SCALE (OTHER in the manner - OTHER in the neutral manner), for every other
  action, by texts, by single clips, and by the mean z of all clips; BASE is a clip
- nearest neighbour: the training clip whose text is nearest to the pair's; it is always another pair
"""

# N motions, T frames, C latent width

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Crops, crops_of
from mclip.training.data.rows import rows_of_motion
from mclip.training.latent.space import decode, latent, text_latent
from mclip.training.measure.judge import Judge, held
from mclip.training.measure.reconstruction import reconstruct
from mclip.training.measure.retrieval import gallery_of
from mclip.training.model.run import Run, load_run

EVERY = 4  # of the real windows of a pair
Pair = tuple[str, str]
Said = tuple[str, str, bool]  # action, manner, natural


def pair_of(name: str) -> Pair:
    """Action and manner of a sequence."""
    action, take = name.split("/")[-2:]
    return action, take.split("_")[0]


@dataclass(frozen=True)
class Windows:
    """The windows of a split: sequence and pair of each, its rows, its unit z, and the texts of every sequence."""

    names: list[str]
    pairs: list[Pair]
    rows: list[Float[Tensor, "_ 25 6"]]
    z_NC: Float[Tensor, "N C"]
    texts: dict[Pair, list[str]]

    def of(self, pair: Pair) -> list[int]:
        """The windows of a pair."""
        return [number for number, each in enumerate(self.pairs) if each == pair]

    def mean(self, pair: Pair) -> Float[Tensor, " C"]:
        """Unit mean z of a pair."""
        return F.normalize(self.z_NC[self.of(pair)].mean(0), dim=0)


def windows_of(run: Run, store: Store, split: str) -> Windows:
    """The windows of a split, encoded."""
    crops = crops_of(run, store, split)
    every, sequence_W = store.strings("sequences/name"), store.read("windows/sequence")
    names = [every[sequence] for sequence in sequence_W[crops.window.numpy()]]
    gallery = gallery_of(store, crops, np.zeros((len(crops), 0)))
    texts: dict[Pair, set[str]] = {}
    for name, said in zip(gallery.names, gallery.labels, strict=True):
        texts.setdefault(pair_of(name), set()).update(said - {""})
    z_NC = F.normalize(torch.from_numpy(reconstruct(run.model, crops).z_WC).float(), dim=-1)
    told = {pair: sorted(said) for pair, said in texts.items()}
    return Windows(names, [*map(pair_of, names)], [*rows_of(crops)], z_NC, told)


def rows_of(crops: Crops) -> Iterator[Float[Tensor, "_ 25 6"]]:
    """The motion of every window."""
    for row, frames in zip(crops.row.tolist(), crops.frames.tolist(), strict=True):
        yield rows_of_motion(crops.rot6d[row : row + frames].float(), crops.trans[row : row + frames])


def nearest_pair(mm_NS: Float[Tensor, "N S"], pairs: Sequence[Pair]) -> tuple[Pair, float]:
    """The pair whose clips (columns) the pieces of a motion (rows) are nearest to in the mean, and how near, mm."""
    columns = {pair: [number for number, each in enumerate(pairs) if each == pair] for pair in dict.fromkeys(pairs)}
    mm = {pair: float(mm_NS[:, own].amin(1).mean()) for pair, own in columns.items()}
    best = min(mm, key=lambda pair: mm[pair])
    return best, mm[best]


class PairJudge:
    """What motions are taken for, by real motion of every pair."""

    def __init__(self, windows: Sequence[Windows], *, fps: float):
        clips = [clip for each in windows for clip in zip(each.names, each.rows, strict=True)]
        self.judge = Judge.of(clips, fps=fps, mirrored=False)
        self.pairs = [pair_of(name) for name in self.judge.names]

    def __call__(self, rows_TRD: Float[Tensor, "T 25 6"], *, without: str | None = None) -> Said:
        """Action, manner, and whether it is natural; `without` is a clip that is left out."""
        mm_NS = self.judge.distances(held(rows_TRD, self.judge.length))
        if without is not None:
            mm_NS[:, self.judge.names.index(without)] = torch.inf
        (action, manner), mm = nearest_pair(mm_NS, self.pairs)
        return action, manner, mm <= self.judge.bound_mm


def share(said: Sequence[Said], wanted: Sequence[Pair]) -> dict[str, float]:
    """How often action, manner and both are the wanted ones, and how often a motion is natural."""
    action, manner, natural = (np.array(column) for column in zip(*said, strict=True))
    wanted_action, wanted_manner = (np.array(column) for column in zip(*wanted, strict=True))
    right = {"action": action == wanted_action, "manner": manner == wanted_manner}
    right |= {"both": right["action"] & right["manner"], "natural": natural}
    return {"motions": len(said)} | {name: round(float(each.mean()), 2) for name, each in right.items()}


def edits(unseen: Sequence[Pair], seen: set[Pair], neutral: str) -> Iterator[tuple[Pair, Pair, Pair, Pair]]:
    """For every unseen pair and every other action: the pair, its base, and from what to what."""
    for action, manner in unseen:
        for other in sorted({each for each, _ in seen} - {action}):
            found = (action, neutral), (other, neutral), (other, manner)
            if seen.issuperset(found):
                yield (action, manner), *found


def compare(run: Run, store: Store, neutral: str, scale: float = 1.0) -> dict[str, dict[str, float]]:
    """The rows of the table."""
    train, val = (windows_of(run, store, split) for split in ("train", "val"))
    judge = PairJudge((train, val), fps=run.fps)
    seen, unseen = set(train.pairs), sorted(set(val.pairs) - set(train.pairs))
    if not unseen:
        raise click.ClickException(f"{store.url}: no pair of action and manner is in val alone")
    vectors = {text: torch.from_numpy(each) for text, each in vectors_by_text(store, encoder_of(run)).items()}
    chance = np.random.default_rng(0)

    def decoded(vectors_NC: Tensor, wanted: Sequence[Pair]) -> dict[str, float]:
        return share([judge(rows) for rows in decode(run, latent(run, vectors_NC), run.crop).cpu()], wanted)

    def clip(pair: Pair) -> Tensor:
        return train.z_NC[chance.choice(train.of(pair))]

    def edited(vector: Callable[[Pair], Tensor], base: Callable[[Pair], Tensor]) -> dict[str, float]:
        asked = [*edits(unseen, seen, neutral)]
        found = [base(one) + scale * (vector(goal) - vector(away)) for _, one, away, goal in asked]
        return decoded(torch.stack(found), [pair for pair, *_ in asked])

    real = [number for pair in unseen for number in val.of(pair)][::EVERY]
    real_pairs = [val.pairs[number] for number in real]
    asked = [(pair, text) for pair in unseen for text in val.texts[pair]]
    text_NC, wanted = torch.stack([vectors[text] for _, text in asked]), [pair for pair, _ in asked]
    known = [(pair, text) for pair in sorted(seen) for text in train.texts[pair]]
    known_NC = F.normalize(torch.stack([vectors[text] for _, text in known]), dim=-1)
    nearest = [known[int(number)][0] for number in (F.normalize(text_NC, dim=-1) @ known_NC.T).argmax(1)]
    return {
        "real motion": share([judge(val.rows[i], without=val.names[i]) for i in real], real_pairs),
        "their first pose, held": share([judge(val.rows[i][:1], without=val.names[i]) for i in real], real_pairs),
        "reconstructed": decoded(val.z_NC[real], real_pairs),
        "texts, carried": decoded(text_latent(run, text_NC), wanted),
        "texts, plain": decoded(text_NC, wanted),
        "edits by texts": edited(lambda pair: F.normalize(vectors[train.texts[pair][0]], dim=0), train.mean),
        "edits by single clips": edited(clip, clip),
        "edits by mean z": edited(train.mean, train.mean),
        "nearest neighbour": share([(*pair, True) for pair in nearest], wanted),
    }


def encoder_of(run: Run) -> str:
    """The name of the encoder that a run was trained with."""
    name: str = run.config["encoder"]["name"]
    return name


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as markdown."""
    columns = [*next(iter(rows.values()))]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in rows.items())])


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("store")
@click.option("--neutral", default="normal", help="The manner that is none.")
@click.option("--scale", default=1.0, help="How much of a manner an edit adds.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write to as well.")
def main(run: Path, store: str, neutral: str, scale: float, out: Path | None) -> None:
    """Print what a run makes of pairs of action and manner that it never saw."""
    found = compare(load_run(run), open_store(store), neutral, scale)
    click.echo(format_table(found))
    if out:
        write_aside(out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
