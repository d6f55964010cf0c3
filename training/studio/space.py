"""What all browsers of a studio share: a model, its encoder, a body, classes, and perhaps a store."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.geometry.body import Body
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import middle_rows
from mclip.training.latent.search import Hit, Index, hits, index_of
from mclip.training.latent.space import decode, encode, facing_viewer, is_file, vectors_of
from mclip.training.latent.span import centred
from mclip.training.model.run import Run

TOP = 5
FIRST = "a person walks"


@dataclass(frozen=True)
class Space:
    """What all browsers share: a model, its encoder, a body, classes, and perhaps a store. One computes at a time."""

    run: Run
    encoder: Encoder
    body: Body
    classes: Sequence[str]
    class_KC: Float[Tensor, "K C"]
    store: Store | None = None
    index: Index | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)  # tokenizers may not be used by two threads

    @classmethod
    def of(
        cls, run: Run, encoder: Encoder, *, body: Body, classes: Sequence[str], store: Store | None = None
    ) -> "Space":
        """A space that is warm: the first text is as quick as the next."""
        class_KC = F.normalize(encoder.encode_texts(list(classes)).to(run.device), dim=-1)
        space = cls(run, encoder, body, classes, class_KC, store, index_of(run, store) if store else None)
        space.seen(space.decoded(space.vectors(FIRST)[0]))
        return space

    def vectors(self, *sources: str, plain: bool = False) -> Float[Tensor, "N C"]:
        """Latent vectors of texts and of clips of the store (store:LABEL). A browser names no files of this machine.

        `plain`: of texts as they are, to search by, and not carried to where motions can be decoded.
        """
        for source in filter(is_file, sources):
            raise ValueError(f"{source}: a file of this machine cannot be named from a browser; write a text")
        words = [source.strip() for source in sources]
        return vectors_of(self.run, words, self.encoder, store=self.store, say=lambda _: None, plain=plain)

    def decoded(self, vector_C: Float[Tensor, " C"]) -> Float[Tensor, "T 25 6"]:
        """The rows of a vector's motion, a training crop long, that begins facing the viewer."""
        return facing_viewer(decode(self.run, vector_C[None], self.run.crop)[0].cpu())

    def clip(self, hit: Hit) -> Float[Tensor, "T 25 6"]:
        """The rows of what was found: the frames that were compared."""
        assert self.store is not None
        return facing_viewer(middle_rows(self.store, hit.window))

    def found(self, query: str) -> list[Hit]:
        """The nearest clips of the store."""
        assert self.store is not None
        assert self.index is not None
        return hits(self.store, *self.index.best(self.vectors(query, plain=True)[0], TOP))

    def seen(self, rows_TRD: Float[Tensor, "T 25 6"]) -> list[tuple[str, float]]:
        """The classes nearest to a motion, best first, with their cosines."""
        z_C = F.normalize(centred(encode(self.run, rows_TRD[: self.run.crop]), self.run.z_NC), dim=0)
        best = (self.class_KC @ z_C).topk(min(TOP, len(self.classes)))
        return [(self.classes[k], score) for k, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
