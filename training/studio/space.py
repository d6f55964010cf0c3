"""What all browsers of a studio share: a model, its encoder, a body, classes, and perhaps a store."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.characters.character import Character
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.geometry.body import Body
from mclip.pipeline.geometry.rotations import matrix_to_rot6d
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import middle_rows
from mclip.training.data.rows import rows_of_motion
from mclip.training.latent.edits import between, edited
from mclip.training.latent.prompts import Prompt, generated, in_sequence, timed
from mclip.training.latent.recognise import recognise_rows
from mclip.training.latent.search import Hit, Searcher
from mclip.training.latent.space import decode, facing_viewer, is_file, is_motion, recording_rows, vectors_of
from mclip.training.model.run import Run
from mclip.training.serve.uploads import read_upload
from mclip.training.show.folder import plain_name
from mclip.training.show.motion import Motion, motion_of_rows, pictures, recording_of
from mclip.training.show.options import Shaping
from mclip.training.show.shaping import made
from mclip.training.show.writers import evenly
from mclip.training.studio.wishes import Clip, Edit, Parts, Text, Wish

TOP = 5
FIRST = "a person walks"
MOST_KNOWN = 64  # sources whose vectors are kept
STEPS = 101  # places on the way between two motions
LOOKS = RenderOptions(size=112, antialias=2)  # of a hit's picture
MOST_PARTS, LONGEST_PARTS = 16, 60.0  # texts of one motion, and their seconds together
FRAMES = 4  # of a hit's picture


@dataclass(frozen=True)
class Shown:
    """Motions that are seen together, each with what it is called, and the first of them as the model takes it."""

    titles: tuple[str, ...]
    motions: tuple[Motion, ...]
    rows_TRD: Float[Tensor, "T 25 6"]


@dataclass(frozen=True)
class Space:
    """What all browsers share: a model, its encoder, a body, classes, and perhaps a store and a character.

    One computes at a time.
    """

    run: Run
    encoder: Encoder
    body: Body
    classes: Sequence[str]
    class_KC: Float[Tensor, "K C"]
    store: Store | None = None
    searcher: Searcher | None = None
    character: Character | None = None  # that motions can be saved on
    known: dict[tuple[tuple[str, ...], bool], Tensor] = field(default_factory=dict)  # while a slider is dragged
    turn: threading.Lock = field(default_factory=threading.Lock)  # tokenizers may not be used by two threads

    @classmethod
    def of(
        cls,
        run: Run,
        encoder: Encoder,
        *,
        body: Body,
        classes: Sequence[str],
        store: Store | None = None,
        character: Character | None = None,
    ) -> "Space":
        """A space that is warm: the first text is as quick as the next."""
        class_KC = F.normalize(encoder.encode_texts(list(classes)).to(run.device), dim=-1)
        searcher = Searcher(run, store) if store else None
        space = cls(run, encoder, body, classes, class_KC, store, searcher, character)
        space.seen(space.decoded(space.vectors(FIRST)[0]))
        return space

    def vectors(self, *sources: str, plain: bool = False) -> Float[Tensor, "N C"]:
        """Latent vectors of texts and of clips of the store (store:LABEL). A browser names no files of this machine.

        `plain`: of texts as they are, to search by, and not carried to where motions can be decoded.
        """
        for source in filter(is_file, sources):
            raise ValueError(f"{source}: a file of this machine cannot be named from a browser; write a text")
        words = tuple(source.strip() for source in sources)
        if (words, plain) not in self.known:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            found = vectors_of(self.run, words, self.encoder, store=self.store, say=lambda _: None, plain=plain)
            self.known[words, plain] = found
        return self.known[words, plain]

    def decoded(self, vector_C: Float[Tensor, " C"]) -> Float[Tensor, "T 25 6"]:
        """The rows of a vector's motion, a training crop long, that begins facing the viewer."""
        return facing_viewer(decode(self.run, vector_C[None], self.run.crop)[0].cpu())

    def shown(self, wish: Wish) -> Shown:
        """What a wish asks to see, each motion facing the viewer."""
        if isinstance(wish, Text):
            return self.samples(wish)
        if isinstance(wish, Parts):
            return self.joined(wish)
        if isinstance(wish, Clip):
            return self.of_rows((wish.title,), self.clip(wish.window))
        if isinstance(wish, Edit):
            base_C, away_C, goal_C = self.vectors(wish.base, wish.away, wish.goal)
            made = self.decoded(edited(base_C, away_C, goal_C, [wish.scale])[0])
            if wish.beside:
                return self.of_rows((wish.title, wish.base), made, self.decoded(base_C))
            return self.of_rows((wish.title,), made)
        start_C, end_C = self.vectors(wish.start, wish.end)
        steps = between(start_C, end_C, STEPS, path=wish.path)
        return self.of_rows((wish.title,), self.decoded(steps[round((STEPS - 1) * wish.share)]))

    def samples(self, wish: Text) -> Shown:
        """The motions of a text, one a seed."""
        text, frames = wish.title, round(wish.seconds * self.run.fps)
        if is_motion(text):
            return self.of_rows((text,), self.decoded(self.vectors(text)[0]))
        seeds = range(wish.seed, wish.seed + wish.samples)
        prompts = [self.prompt(text, seed) for seed in seeds]
        found = [made(self.run, prompt, frames, Shaping(), front=True).motion for prompt in prompts]
        return self.of_motions(tuple(f"{text} (seed {seed})" if seed else text for seed in seeds), found)

    def joined(self, wish: Parts) -> Shown:
        """The one motion of several texts."""
        parts = [timed(line.strip()) for line in wish.lines.splitlines() if line.strip()]
        if len(parts) > MOST_PARTS or sum(seconds or 0 for _, seconds in parts) > LONGEST_PARTS:
            raise ValueError(f"{len(parts)} lines; expected at most {MOST_PARTS}, of {LONGEST_PARTS:g} s together")
        self.vectors(*(text for text, _ in parts))  # refuses what is no text
        prompts = [self.prompt(text, wish.seed) for text, _ in parts]
        (whole,) = in_sequence(prompts, [s for _, s in parts], fps=self.run.fps, frames=self.run.crop)
        return self.of_motions((wish.title,), [made(self.run, whole, self.run.crop, Shaping(), front=True).motion])

    def prompt(self, text: str, seed: int) -> Prompt:
        """What to decode for a text; seed 0 is the text itself."""
        return generated(self.run, [text], [seed] if seed else [], encoder=self.encoder)[0]

    def of_rows(self, titles: tuple[str, ...], *rows: Float[Tensor, "_ 25 6"]) -> Shown:
        """Motions in the model's rows, on the floor."""
        return Shown(titles, tuple(motion_of_rows(each, self.run.fps) for each in rows), rows[0])

    def of_motions(self, titles: tuple[str, ...], motions: Sequence[Motion]) -> Shown:
        """Motions that are on the floor already."""
        first = motions[0]
        rows = rows_of_motion(matrix_to_rot6d(first.rotmat_TJ33), first.trans_T3)
        return Shown(titles, tuple(motions), rows)

    def own(self, name: str, content: bytes) -> Shown:
        """The motion in a file that a browser sends, at the run's frame rate."""
        rows = recording_rows(self.run, recording_of(read_upload(name, content)))
        return self.of_rows((plain_name(name.rpartition(".")[0]) or "motion",), facing_viewer(rows))

    def clip(self, window: int) -> Float[Tensor, "T 25 6"]:
        """The rows of a window's frames that are compared; ValueError where the store has no such window."""
        if self.store is None or window >= len(self.store.read("windows/row")):
            raise ValueError(f"no window {window} in the store that this studio was started with")
        return facing_viewer(middle_rows(self.store, window))

    def picture(self, hit: Hit) -> UInt8[np.ndarray, "height width 3"]:
        """Some frames of what was found, side by side."""
        motion = motion_of_rows(self.clip(hit.window), self.run.fps)
        frames = evenly(len(motion.trans_T3), FRAMES)
        return np.concatenate([*pictures(motion, LOOKS, frames)], axis=1)

    def found(self, query: str) -> list[Hit]:
        """The nearest clips of the store."""
        assert self.searcher is not None
        return self.searcher.nearest(self.vectors(query, plain=True)[0], top=TOP)

    def seen(self, rows_TRD: Float[Tensor, "T 25 6"]) -> list[tuple[str, float]]:
        """The classes nearest to a motion, best first, with their scores, as `mclip recognise`."""
        (piece,) = recognise_rows(self.run, rows_TRD[: self.run.crop], self.class_KC, self.classes, top=TOP)
        return piece.classes
