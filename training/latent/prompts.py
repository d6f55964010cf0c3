"""What is asked for: texts, tables of edits and interpolations, and their titles."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.embed.encoder import Encoder, check_text
from mclip.pipeline.files.assets import SHIPPED
from mclip.pipeline.files.documents import read_text
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import CLIP
from mclip.training.latent.edits import between, edited, styled, varied
from mclip.training.latent.space import is_file, is_motion, text_latent, text_vectors, vectors_of
from mclip.training.latent.span import Chance
from mclip.training.model.run import Run

VARY = 0.5  # how far a seed leads away from a text, as a share of the vector's length
MOST_PROMPTS = 10_000  # of one command: their motions are decoded together, 400 MB for crops of 60 frames
SHORTEST, LONGEST = 0.5, 600.0  # seconds of a part of a sequence: a seam takes 0.4
LONGEST_WHOLE = 3600  # seconds of a sequence: at 30 fps an .npz of 134 MB
# Columns of the release's paper_edits.csv and paper_interps.csv; `motion_source`, text or data, may be another.
EDIT = ("base", "v_start", "v_end")
INTERPOLATION = ("start", "end")


@dataclass(frozen=True)
class Prompt:
    """What to decode: a title for people, and the vector."""

    title: str
    vector_C: np.ndarray
    lead_T3: np.ndarray | None = None  # how its root is led away from the decoded path: radians, and metres in x and y
    told: tuple[str, ...] = ()  # of how it was found

    frames_P: ClassVar[tuple[int, ...]] = ()  # as long as is asked for all

    @property
    def vector_PC(self) -> np.ndarray:
        """The vector as the one part of a motion."""
        return self.vector_C[None]


@dataclass(frozen=True)
class Joined:
    """Several vectors to decode into one motion, the one after the other, and how many frames each lasts."""

    title: str
    vector_PC: np.ndarray
    frames_P: tuple[int, ...]

    lead_T3: ClassVar[None] = None
    told: ClassVar[tuple[str, ...]] = ()


def prompts_in(lines: Iterable[str]) -> list[str]:
    """The prompts of a file: one a line; # begins a comment where it begins a line or follows a space."""
    found = (re.split(r"(?:^|\s)#", line.removeprefix("\ufeff"), maxsplit=1)[0].strip() for line in lines)
    return [line for line in found if line]


def timed(words: str) -> tuple[str, float | None]:
    """A part of a sequence: its text, and the seconds that it names as its last word, "@3"; ValueError for others."""
    text, at, said = words.rpartition("@")
    if not at or (text and not text[-1].isspace()):
        return words, None
    try:
        seconds = float(said)
    except ValueError:
        raise ValueError(f"{words!r}: @{said} is no number of seconds; expected such as 'a person walks @3'") from None
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"{words!r}: {seconds:g} seconds; expected {SHORTEST:g} to {LONGEST:g} a part")
    return text.strip(), seconds


def table_in(file: Path, columns: Sequence[str], *, source: str = "text") -> list[dict[str, str]]:
    """The rows of a csv with these columns, whose cells are texts, motion files or clips; ValueError naming what lacks.

    A row whose `motion_source` is `data` means clips of the store by their labels, as the release reads it; `source` is
    that of a table without the column.
    """
    with io.StringIO(read_text(file), newline="") as opened:
        reader = csv.DictReader(opened, skipinitialspace=True)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{file}: no column {', '.join(missing)}; expected the columns {', '.join(columns)}")
        rows = []
        for row in reader:
            of_store = (row.get("motion_source") or source) == "data"
            cells = {name: (row[name] or "").strip() for name in columns}
            rows.append(
                {name: CLIP + cell if of_store and not is_motion(cell) else cell for name, cell in cells.items()}
            )
    for number, row in enumerate(rows, 1):
        if empty := [name for name in columns if not row[name].removeprefix(CLIP)]:
            raise ValueError(f"{file}: row {number} has no {', '.join(empty)}: write a text or a motion file")
    if not rows:
        raise ValueError(f"{file}: no row in it; expected one an edit or interpolation")
    return rows


# Words without sense, in as many letters as prompts have: what an encoder says of them is chance.
NONSENSE = (
    "asdkjhaskdjh",
    "qwpoeiru zmxnbv",
    "fjdksla",
    "xkcvb plmqw rtzs",
    "hgfd",
    "zzxqv wwpt",
    "bnmcx",
    "tgbyhn ujm",
)


def unplaced(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts that lie no nearer to any motion that mclip knows by name than words without sense lie.

    Known are BABEL's classes and the labels of the shipped motions. The measure is NONSENSE's nearest of all: encoders
    differ in how near everything is to everything.
    """
    spans = read_labels(tuple(each / "babel" for each in SHIPPED.values()), None).spans.values()
    known = dict.fromkeys([*BABEL_60, *(span.text for each in spans for span in each)])
    known_KC, sense_NC, text_NC = (
        F.normalize(encoder.encode_texts([*words]), dim=-1) for words in (known, NONSENSE, texts)
    )
    least = float((sense_NC @ known_KC.T).max())
    nearest = (text_NC @ known_KC.T).amax(dim=1).tolist()
    return [text for text, cosine in zip(texts, nearest, strict=True) if cosine < least + 0.01]


def prompts_of(titles: Sequence[str], vectors_NC: Float[Tensor, "N C"]) -> list[Prompt]:
    """A prompt for every title and vector."""
    return [Prompt(title, vector) for title, vector in zip(titles, vectors_NC.cpu().numpy(), strict=True)]


def variations(
    texts: Sequence[str], vectors_NC: Float[Tensor, "N C"], seeds: Sequence[int], *, share: float = VARY
) -> list[Prompt]:
    """The prompts of every text, each as it is where no seed is given, else one a seed."""
    if not seeds:
        return prompts_of(texts, vectors_NC)
    return [
        Prompt(f"{text} (seed {seed})", varied(vector_C, text, seed=seed, share=share).numpy())
        for text, vector_C in zip(texts, vectors_NC.cpu(), strict=True)
        for seed in seeds
    ]


def generated(
    run: Run,
    texts: Sequence[str],
    seeds: Sequence[int],
    *,
    share: float = VARY,
    plain: bool = False,
    encoder: Encoder | None = None,
) -> list[Prompt]:
    """The prompts of texts, one for every seed where there are any; a seed leads to other training motions near it.

    `plain`, or a run that keeps no training z: as `variations`, in a random direction.
    """
    for text in texts:
        check_text(text)
    text_NC = text_vectors(run, texts, encoder)
    if plain or run.z_NC is None or not seeds:
        return variations(texts, text_latent(run, text_NC, plain=plain), seeds, share=share)
    made = []
    for seed in seeds:
        chance = Chance.of(texts, len(run.z_NC), seed=seed, share=share)
        titles = [f"{text} (seed {seed})" for text in texts]
        made.append(prompts_of(titles, text_latent(run, text_NC, chance=chance)))
    return [prompt for of_text in zip(*made, strict=True) for prompt in of_text]


def in_sequence(prompts: Sequence[Prompt], seconds: Sequence[float | None], *, fps: float, frames: int) -> list[Joined]:
    """One motion of the prompts of some texts, in their order; one a seed where every text has several.

    A text without seconds lasts `frames`.
    """
    lasting = tuple(frames if each is None else round(each * fps) for each in seconds)
    if sum(lasting) > LONGEST_WHOLE * fps:
        raise ValueError(f"a sequence of {sum(lasting) / fps:,.0f} seconds; expected at most {LONGEST_WHOLE:,}")
    seeds = len(prompts) // len(lasting)
    made = []
    for parts in (prompts[seed::seeds] for seed in range(seeds)):
        named, more = ", then ".join(each.title for each in parts[:3]), len(parts) - 3
        title = f"{named} and {more:,} more" if more > 0 else named
        made.append(Joined(title, np.stack([each.vector_C for each in parts]), lasting))
    return made


def named(source: str) -> str:
    """A source as a title has it: a text, or a file's name without its folder and ending."""
    return Path(source).stem.removesuffix("_poses") if is_file(source) else source.removeprefix(CLIP)


def edits(
    run: Run,
    rows: Sequence[Mapping[str, str]],
    scales: Sequence[float],
    *,
    store: Store | None = None,
    encoder: Encoder | None = None,
    plain: bool = False,
    asked: Asked = NOTHING,
) -> list[Prompt]:
    """The prompts of base + scale (v_end - v_start), for every row of the three, and every scale."""
    words = [row[name] for row in rows for name in EDIT]
    vectors_NC = vectors_of(run, words, encoder, store=store, plain=plain, asked=asked)
    made = []
    for row, (base_C, from_C, to_C) in zip(rows, vectors_NC.unflatten(0, (-1, 3)), strict=True):
        base, away, goal = (named(row[name]) for name in EDIT)
        titles = [f"{base} + {scale:g} ({goal} - {away})" for scale in scales]
        made += prompts_of(titles, edited(base_C, from_C, to_C, scales))
    return made


def styles(
    run: Run,
    content: str,
    style: str,
    scales: Sequence[float],
    *,
    neutral: str | None = None,
    store: Store | None = None,
    encoder: Encoder | None = None,
    plain: bool = False,
    asked: Asked = NOTHING,
) -> list[Prompt]:
    """The prompts of a content in a style, each a text, a motion file or a clip, at every scale.

    The paper adds the vector of the style's name. A clip shows an action beside its style: with `neutral`, the same
    action without the style, what is added is only style - neutral, an edit.
    """
    words = [content, style] if neutral is None else [content, style, neutral]
    content_C, style_C, *neutral_C = vectors_of(run, words, encoder, store=store, plain=plain, asked=asked)
    what, how, *without = map(named, words)
    if neutral_C:
        vectors_NC, added = edited(content_C, neutral_C[0], style_C, scales), f"({how} - {without[0]})"
    else:
        vectors_NC, added = styled(content_C, style_C, scales), how
    return prompts_of([f"{what} + {scale:g} {added}" for scale in scales], vectors_NC)


def interpolations(
    run: Run,
    rows: Sequence[Mapping[str, str]],
    steps: int,
    *,
    path: str,
    store: Store | None = None,
    encoder: Encoder | None = None,
    plain: bool = False,
    asked: Asked = NOTHING,
) -> list[Prompt]:
    """The prompts on the way from start to end, for every row of both."""
    words = [row[name] for row in rows for name in INTERPOLATION]
    vectors_NC = vectors_of(run, words, encoder, store=store, plain=plain, asked=asked)
    made = []
    for row, (start_C, end_C) in zip(rows, vectors_NC.unflatten(0, (-1, 2)), strict=True):
        start, end = (named(row[name]) for name in INTERPOLATION)
        titles = [f"{start} to {end}: {step}/{steps - 1}" for step in range(steps)]
        made += prompts_of(titles, between(start_C, end_C, steps, path=path))
    return made
