"""A trained model and its motions in Python: what the commands do, without files between the steps."""

# N texts or motions, T frames, C latent width

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.embed.classes import classes_of
from mclip.pipeline.embed.encoder import Encoder, check_text
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry.recording import require_length
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.prepare.sources import clip_name
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import middle_rows
from mclip.training.data.dataset import CropDataset as CropDataset
from mclip.training.latent.edits import edited
from mclip.training.latent.prompts import LONGEST as LONGEST_PART
from mclip.training.latent.prompts import SHORTEST as SHORTEST_PART
from mclip.training.latent.prompts import Joined, Prompt, generated, in_sequence, prompts_of
from mclip.training.latent.recognise import Seen, recognise_rows
from mclip.training.latent.search import Hit, Searcher
from mclip.training.latent.space import (
    facing_viewer,
    is_clip,
    is_motion,
    middle_vector,
    motion_rows,
    recording_rows,
    text_latent,
    text_vectors,
    vectors_of,
)
from mclip.training.model.run import Run, load_run
from mclip.training.show import motion as motions
from mclip.training.show.export import MOST_DRAWN, write
from mclip.training.show.options import LONGEST, SHORTEST, Shaping
from mclip.training.show.page import Card, Page, Section, framed
from mclip.training.show.shaping import made

AS_DECODED = Shaping()
Name = str | os.PathLike[str]


@dataclass(frozen=True)
class Motion(motions.Motion):
    """Local rotations of SMPL's 24 joints (T, 24, 3, 3), the root's translation (T, 3), and frames per second.

    Translations are in metres, in a world whose z is up. ValueError for arrays of other shapes.
    """

    def __post_init__(self) -> None:
        frames = len(self.trans_T3)
        for name, wanted in (("rotmat_TJ33", (frames, 24, 3, 3)), ("trans_T3", (frames, 3))):
            if (shape := tuple(getattr(self, name).shape)) != wanted:
                raise ValueError(f"{name}: found the shape {shape}, expected {wanted} for {frames} frames")
        require_length(frames, self.fps)

    @classmethod
    def of(cls, motion: motions.Motion) -> "Motion":
        """The same motion, which can be saved."""
        return cls(motion.rotmat_TJ33, motion.trans_T3, motion.fps, motion.recording)

    @classmethod
    def from_rot6d(
        cls,
        rot6d_TJD: Float[np.ndarray, "T 24 6"] | Float[Tensor, "T 24 6"],
        trans_T3: Float[np.ndarray, "T 3"] | Float[Tensor, "T 3"],
        *,
        fps: float,
    ) -> "Motion":
        """The motion in 6D rotations, the first two rows of each matrix, as a store's `motion` gives them."""
        return cls(rot6d_to_matrix(torch.as_tensor(rot6d_TJD)), torch.as_tensor(trans_T3), fps)

    @classmethod
    def load(cls, path: Name, *, fps: float | None = None, fps_in: float | None = None) -> "Motion":
        """The motion in a file that `mclip export` takes, as .bvh, .npz or .glb: at its rate, or slerped to `fps`.

        A .glb or .vrma of several clips is named with one of them, as walks.glb/run.

        One of several motions in a file is named as people.pkl/person_1.

        `fps_in` is the rate of a file that does not say it. MotionError for what cannot be read.
        """
        return cls.of(motions.read(Path(path), fps=fps, asked=Asked(fps=fps_in)))

    def save(self, path: Name) -> None:
        """Write it as the ending says: npz, bvh, glb, vrma, mp4, gif, png or html. It appears whole or not at all.

        ValueError for another ending, and for a motion that is too long to be drawn.
        """
        write(Path(path), self)

    def _repr_html_(self) -> str | None:
        """The motion as a notebook shows it, moving; None for one that is too long for that."""
        frames = len(self.trans_T3)
        if frames > MOST_DRAWN:
            return None
        lead = f"{frames:,} frames at {self.fps:g} a second."
        return framed(Page("motion", lead, [Section("", [Card("motion", {"motion": self})])]))


class Hits(list[Hit]):
    """What a search found, best first. A notebook shows it, moving."""

    def __init__(self, found: Sequence[Hit], store: Store) -> None:
        super().__init__(found)
        self.store = store

    def motion(self, hit: Hit) -> Motion:
        """The frames of a hit that were compared, facing the viewer."""
        return Motion.of(motions.motion_of_rows(facing_viewer(middle_rows(self.store, hit.window)), self.store.fps))

    def _repr_html_(self) -> str:
        cards = [
            Card(
                hit.text or "no label",
                {clip_name(hit.clip): self.motion(hit)},
                note=f"cosine {hit.score:.3f}",
                facts=[("clip", hit.clip), ("seconds", f"{hit.from_s:.1f} to {hit.to_s:.1f}")],
            )
            for hit in self
        ]
        return framed(Page("found", f"{len(self)} clips of the store, the nearest first.", [Section("", cards)]))


Source = Name | motions.Motion


def words_of(texts: str | Sequence[str]) -> list[str]:
    """One text, or several, as a list; ValueError for none at all, and for one that says nothing."""
    words = [texts] if isinstance(texts, str) else list(texts)
    if not words:
        raise ValueError("no text: name at least one")
    for text in words:
        check_text(text)
    return words


def require_some(top: int) -> None:
    """ValueError for a number of results that is none."""
    if top < 1:
        raise ValueError(f"top is {top}, expected at least 1")


@dataclass(frozen=True)
class MotionClip:
    """A trained model: texts and motions to vectors (C,) of one space, and vectors to motions.

    Vectors are on the model's device, C as wide as CLIP's, 512 for ViT-B-32; motions are on the host. Where a motion is
    asked for, it is a Motion at any frame rate, the name of a file, or with a `store` a clip of it, as store:LABEL.
    """

    run: Run

    @classmethod
    def from_pretrained(
        cls, folder: Name, device: str = "cpu", *, checkpoint: str | int = "last", trust_encoder: bool = False
    ) -> "MotionClip":
        """The model in a run folder or an exported one, or `hf-hub:ORG/NAME`; nothing that lies there is executed.

        `device`: cpu, cuda, cuda:N, mps, or auto. `checkpoint`: last, best, or a step. `trust_encoder`: load an encoder
        that the run names outside its folder or on the hub. RunError for a folder without a model, or a damaged one.
        """
        return cls(load_run(Path(folder), device, checkpoint=checkpoint, trust_encoder=trust_encoder))

    @cached_property
    def encoder(self) -> Encoder:
        """The CLIP encoder that it was trained with, loaded when the first text is encoded."""
        return self.run.load_encoder()

    @cached_property
    def searchers(self) -> dict[str, Searcher]:
        """What was read of stores that were searched, by path or URL."""
        return {}

    def encode_text(self, texts: str | Sequence[str], *, plain: bool = False) -> Float[Tensor, "*N C"]:
        """Vectors (N, C) of texts to decode, or (C,) of one: carried to where the training motions lie.

        `plain` leaves them where CLIP has them: to compare them with motions' vectors, or to decode as the paper does.
        ValueError for a text that says nothing.
        """
        z_NC = text_latent(self.run, text_vectors(self.run, words_of(texts), self.encoder), plain=plain)
        return z_NC[0] if isinstance(texts, str) else z_NC

    def encode_motion(self, motion: Source | Sequence[Source], *, store: Store | None = None) -> Float[Tensor, "*N C"]:
        """Vectors (N, C) of motions, or (C,) of one: of the middle of each, at most a training crop of it.

        MotionError for a file that cannot be read, StoreError for a clip that is not there.
        """
        if isinstance(motion, str | os.PathLike | motions.Motion):
            return self.motion_vector(motion, store)
        if not motion:
            raise ValueError("no motion: name at least one")
        return torch.stack([self.motion_vector(each, store) for each in motion])

    def decode(
        self,
        z: Float[Tensor, "*N C"] | Float[np.ndarray, "*N C"],
        frames: int | None = None,
        *,
        shaping: Shaping = AS_DECODED,
    ) -> Motion | list[Motion]:
        """The motion of a vector (C,), or the list of those of vectors (N, C), on the floor, at the run's frame rate.

        `frames` are 2 to 5000, those of a training crop where none are said; a longer motion is joined out of crops.
        `shaping` locks feet, or makes a loop. ValueError for vectors of another shape, or that are not finite.
        """
        z = torch.as_tensor(z).detach().float()
        width = self.run.model.config.latent
        if z.ndim not in (1, 2) or z.shape[-1] != width:
            raise ValueError(f"z: found the shape {tuple(z.shape)}, expected ({width},) or (N, {width})")
        if not z.isfinite().all():
            raise ValueError("z: found NaN or infinity, expected finite numbers")
        z_NC = z.reshape(-1, width)
        found = self.shaped(prompts_of([""] * len(z_NC), z_NC), frames, shaping)
        return found[0] if z.ndim == 1 else found

    @overload
    def generate(
        self, texts: str, frames: int | None = ..., *, seed: int | None = ..., plain: bool = ..., shaping: Shaping = ...
    ) -> Motion: ...

    @overload
    def generate(
        self,
        texts: list[str] | tuple[str, ...],
        frames: int | None = ...,
        *,
        seed: int | None = ...,
        plain: bool = ...,
        shaping: Shaping = ...,
    ) -> list[Motion]: ...

    def generate(
        self,
        texts: str | Sequence[str],
        frames: int | None = None,
        *,
        seed: int | None = None,
        plain: bool = False,
        shaping: Shaping = AS_DECODED,
    ) -> Motion | list[Motion]:
        """The motion of a text, or the list of those of several, as `mclip generate` makes them.

        The same text is always the same motion; a `seed` leads to another. `frames` and `shaping` as for `decode`.
        """
        seeds = [] if seed is None else [seed]
        prompts = generated(self.run, words_of(texts), seeds, plain=plain, encoder=self.encoder)
        found = self.shaped(prompts, frames, shaping)
        return found[0] if isinstance(texts, str) else found

    def sequence(
        self,
        texts: Sequence[str],
        seconds: float | Sequence[float | None] | None = None,
        *,
        seed: int | None = None,
        plain: bool = False,
        shaping: Shaping = AS_DECODED,
    ) -> Motion:
        """One motion of texts, the one after the other, as `mclip generate --sequence` makes it.

        `seconds` are those of every text, or one number for all: 0.5 to 600; a training crop where none are said.
        """
        words = words_of(texts)
        lasting = [seconds] * len(words) if seconds is None or isinstance(seconds, int | float) else list(seconds)
        if len(lasting) != len(words):
            raise ValueError(f"seconds of {len(lasting)} texts, expected those of {len(words)}")
        for each in lasting:
            if each is not None and not SHORTEST_PART <= each <= LONGEST_PART:
                raise ValueError(f"{each:g} seconds of a text, expected {SHORTEST_PART:g} to {LONGEST_PART:g}")
        seeds = [] if seed is None else [seed]
        prompts = generated(self.run, words, seeds, plain=plain, encoder=self.encoder)
        joined = in_sequence(prompts, lasting, fps=self.run.fps, frames=self.run.crop)
        return self.shaped(joined, None, shaping)[0]

    def edit(
        self,
        base: Source,
        from_: Source,
        to: Source,
        scale: float = 1.0,
        *,
        frames: int | None = None,
        store: Store | None = None,
        plain: bool = False,
        shaping: Shaping = AS_DECODED,
    ) -> Motion:
        """The motion of base + scale (to - from), as `mclip edit` makes it; each of the three a text or a motion."""
        base_C, from_C, to_C = self.vectors((base, from_, to), store, plain=plain)
        return self.shaped(prompts_of([""], edited(base_C, from_C, to_C, [scale])), frames, shaping)[0]

    def search(self, store: Store, query: Source, top: int = 5) -> Hits:
        """The `top` sequences of a store that are nearest to a text or a motion, best first, as `mclip search`.

        A hit has its cosine, its clip, the seconds of it that were compared, and what the store says they show. What
        the first search reads is kept with the model; the next reads it again only where the store has changed.
        """
        require_some(top)
        query_C = self.vectors((query,), store, plain=True)[0]
        if store.url not in self.searchers:
            self.searchers[store.url] = Searcher(self.run, store)
        return Hits(self.searchers[store.url].nearest(query_C, top=top), store)

    def recognise(self, motion: Source, classes: str | Sequence[str] | None = None, top: int = 5) -> list[Seen]:
        """The `top` classes nearest to each piece of a motion, with their scores, as `mclip recognise`.

        Scores are probabilities among the classes for a run that `mclip evaluate` has measured, else cosines; `scores`
        of a piece says which.

        Pieces are as long as a training crop. `classes` are names, or a string as for the command: babel60, which is
        taken where none are named, babel120, or a file of one a line.
        """
        require_some(top)
        names = classes_of(classes or "babel60") if isinstance(classes, str | None) else words_of(classes)
        class_KC = self.encoder.encode_texts(names)
        return recognise_rows(self.run, self.rows(motion), class_KC, names, top=top)

    def vectors(self, sources: Sequence[Source], store: Store | None, *, plain: bool) -> list[Float[Tensor, " C"]]:
        """Vectors (C,) of motions and texts; a string is either, as on the command line."""
        words = [source for source in sources if isinstance(source, str)]
        encoder = None if all(map(is_motion, words)) else self.encoder
        of_words = iter(vectors_of(self.run, words, encoder, store=store, plain=plain) if words else ())
        return [next(of_words) if isinstance(each, str) else self.motion_vector(each, store) for each in sources]

    def motion_vector(self, motion: Source, store: Store | None) -> Float[Tensor, " C"]:
        """Vector (C,) of a motion."""
        if isinstance(motion, str) and is_clip(motion):
            return vectors_of(self.run, [motion], store=store)[0]
        return middle_vector(self.run, self.rows(motion))

    def rows(self, motion: Source) -> Float[Tensor, "T 25 6"]:
        """A motion as the model takes it, at the run's frame rate: 24 joints in 6D, and the root's place in metres."""
        if not isinstance(motion, motions.Motion):
            return motion_rows(self.run, Path(motion))
        return recording_rows(self.run, motions.recording_of(motion))

    def shaped(self, prompts: Sequence[Prompt | Joined], frames: int | None, shaping: Shaping) -> list[Motion]:
        """The motions of prompts; ValueError for too few or too many frames."""
        frames = self.run.crop if frames is None else frames
        if not SHORTEST <= frames <= LONGEST:
            raise ValueError(f"{frames} frames, expected {SHORTEST} to {LONGEST:,} a motion")
        return [Motion.of(made(self.run, prompt, frames, shaping).motion) for prompt in prompts]
