"""What the server does when it is asked: every path is a call of the Python API, done in its turn."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from motionmcp.server import build_app as mmcp_app
from starlette.exceptions import HTTPException

from mclip.pipeline.machine.words import visible
from mclip.pipeline.store.store import Store, version
from mclip.training.api import Motion, MotionClip
from mclip.training.serve import mmcp
from mclip.training.serve.answers import MEDIA, motions_as, page_of, vectors_as
from mclip.training.serve.asked import (
    LONGEST,
    MOST_RESULTS,
    MOST_SECONDS,
    MOST_TEXTS,
    Edit,
    Encode,
    Generate,
    Search,
    Shaped,
)
from mclip.training.serve.gate import LARGEST_MOTION, Gate, told
from mclip.training.serve.line import Busy, Line
from mclip.training.serve.uploads import UPLOADS, read_upload
from mclip.training.show.options import Shaping

Found = TypeVar("Found")
Name = Annotated[str, Query(max_length=200, description=f"The file's name, which ends in {' or '.join(UPLOADS)}.")]
Top = Annotated[int, Query(ge=1, le=MOST_RESULTS, description="How many results.")]
Classes = Annotated[str, Query(pattern="^babel(60|120)$", description="babel60, babel120.")]
FILE = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
ABOUT = f"""Texts become motions, and motions vectors, on this machine.
An answer is JSON unless a format is asked for; an error is {{"error": "a sentence"}}, with a status of 400 or more.
Bodies are JSON, or the bytes of a motion file of at most {LARGEST_MOTION >> 20} MB. Metres, z up, 6D rotations by rows.
Programs that speak MMCP, as Blender's Proscenium, find it at {mmcp.PATH}."""


@dataclass
class Service:
    """A model, perhaps a store to search, and the line before them."""

    model: MotionClip
    store: Store | None = None
    line: Line = field(default_factory=Line)

    async def capabilities(self) -> dict[str, Any]:
        """What this server has, and how much may be asked for at once."""
        run = self.model.run
        return {
            "model": run.folder.name,
            "version": version(),
            "step": run.step,
            "encoder": run.config["encoder"]["name"],
            "fps": run.fps,
            "crop_frames": run.crop,
            "latent": run.model.config.latent,
            "store": self.store and len(self.store.sequences),
            "formats": ["json", *(kind for kind in MEDIA if kind != "zip")],
            "uploads": UPLOADS,
            "most": {"texts": MOST_TEXTS, "seconds": LONGEST, "seconds_together": MOST_SECONDS, "top": MOST_RESULTS},
            "mmcp": mmcp.PATH,
        }

    async def generate(self, asked: Generate) -> Response:
        """Motions of texts: one each, or with `sequence` one of all."""
        return await self.line.do(lambda: self.generated(asked))

    def generated(self, asked: Generate) -> Response:
        model, seed, plain, shaping = self.model, asked.seed, asked.plain, shaping_of(asked)
        if asked.sequence:
            whole = model.sequence(asked.texts, asked.each, seed=seed, plain=plain, shaping=shaping)
            return motions_as(asked.format, [", then ".join(asked.texts)], [whole])
        found = [
            model.generate(text, self.frames(seconds), seed=seed, plain=plain, shaping=shaping)
            for text, seconds in zip(asked.texts, asked.each, strict=True)
        ]
        return motions_as(asked.format, asked.texts, found)

    async def edit(self, asked: Edit) -> Response:
        """The motion of base + scale (to - from)."""
        return await self.line.do(lambda: self.edited(asked))

    def edited(self, asked: Edit) -> Response:
        found = self.model.edit(
            asked.base,
            asked.from_,
            asked.to,
            asked.scale,
            frames=self.frames(asked.seconds),
            store=self.store,
            plain=asked.plain,
            shaping=shaping_of(asked),
        )
        return motions_as(asked.format, [f"{asked.base} + {asked.scale:g} ({asked.to} - {asked.from_})"], [found])

    async def encode(self, asked: Encode) -> Response:
        """Vectors of texts."""
        return await self.line.do(lambda: encoded(asked.format, self.model.encode_text(asked.texts, plain=asked.plain)))

    async def encode_motion(self, request: Request, name: Name) -> Response:
        """The vector of a motion file's middle, a training crop of it; the body is the file."""
        vector = await self.of_upload(request, name, self.model.encode_motion)
        return encoded("json", vector[None])

    async def search(self, asked: Search) -> dict[str, Any]:
        """The clips of the store that are nearest to a text, or to one of them."""
        return await self.line.do(lambda: self.found(asked.query, asked.top))

    async def search_motion(self, request: Request, name: Name, top: Top = 5) -> dict[str, Any]:
        """The clips of the store that are nearest to a motion file, which is the body."""
        return await self.of_upload(request, name, lambda motion: self.found(motion, top))

    async def recognise(
        self, request: Request, name: Name, classes: Classes = "babel60", top: Top = 5
    ) -> dict[str, Any]:
        """The classes nearest to each piece of a motion file, which is the body."""
        pieces = await self.of_upload(request, name, lambda motion: self.model.recognise(motion, classes, top))
        return {"pieces": [asdict(piece) for piece in pieces]}

    def found(self, query: str | Motion, top: int) -> dict[str, Any]:
        """The answer to a search; ValueError where there is no store."""
        if self.store is None:
            raise ValueError("There is no store to search: start the server with --store STORE.")
        return {"hits": [asdict(hit) for hit in self.model.search(self.store, query, top)]}

    async def of_upload(self, request: Request, name: str, work: Callable[[Motion], Found]) -> Found:
        """What `work` finds in the motion that a request brings."""
        content = await request.body()
        return await self.line.do(lambda: work(Motion.of(read_upload(name, content))))

    async def tell_wrong(self, _: Request, error: Exception) -> Response:
        """A request that the model cannot do. Where the store lies is nobody's business."""
        words = str(error) if self.store is None else str(error).replace(f"{self.store.url}: ", "")
        return told(400, visible(words)[:1000])

    def frames(self, seconds: float | None) -> int | None:
        """Frames of so many seconds."""
        return None if seconds is None else max(2, round(seconds * self.model.run.fps))


def shaping_of(asked: Shaped) -> Shaping:
    """What becomes of the motions that are asked for."""
    return Shaping(foot_lock=asked.foot_lock, loop=asked.loop, in_place=asked.in_place)


def encoded(kind: str, vectors_NC: torch.Tensor) -> Response:
    """The answer that gives vectors."""
    return vectors_as(kind, vectors_NC.cpu().numpy())


def app_of(service: Service, *, token: str | None, loopback: bool) -> Gate:
    """The ASGI app of a service, behind its gate."""
    app = FastAPI(title="mclip serve", description=ABOUT, version=version(), docs_url=None, redoc_url=None)
    app.get("/capabilities")(service.capabilities)
    for path in ("/generate", "/edit", "/encode", "/search"):
        app.post(path)(getattr(service, path[1:]))
    for path, work in (
        ("/encode/motion", service.encode_motion),
        ("/search/motion", service.search_motion),
        ("/recognise", service.recognise),
    ):
        app.post(path, openapi_extra={"requestBody": FILE})(work)
    app.get("/", include_in_schema=False)(functools.partial(page_of, app.openapi()))
    for kind, tell in (TELLS | {ValueError: service.tell_wrong}).items():
        app.add_exception_handler(kind, tell)
    app.mount(mmcp.PATH, mmcp_app(mmcp.Mmcp(service.model, service.line), title="mclip, by MMCP"))
    return Gate(app, token=token, loopback=loopback)


async def tell_schema(_: Request, error: RequestValidationError) -> Response:
    """A request that is not as it should be, field by field; of a field that may be several things, the first."""
    faults = {str(fault["loc"][1:2]): fault for fault in reversed(error.errors())}
    return told(422, "; ".join(sentence(fault) for fault in [*faults.values()][::-1][:5]))


def sentence(fault: Any) -> str:
    """One fault of a request, as pydantic found it."""
    name, *place = fault["loc"][1:] or ("the body",)
    where = f"{name}[{place[0]}]" if place and isinstance(place[0], int) else str(name)
    words = str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "should").replace("String", "it")
    found = fault.get("input")
    shown = f" (found {found!r:.60})" if isinstance(found, str | int | float) else ""
    return visible(f"{where}: {words}{shown}", keep="")


async def tell_busy(_: Request, error: Exception) -> Response:
    """A request that is one too many."""
    return told(503, str(error), **{"retry-after": "2"})


async def tell_http(_: Request, error: HTTPException) -> Response:
    """A path or a method that is not there."""
    return told(error.status_code, f"{error.detail}: GET / says what there is.")


async def tell_mistake(_: Request, error: Exception) -> Response:
    """A mistake of ours, which the gate says in the terminal."""
    return told(500, "The server made a mistake; the terminal where it was started says which.")


TELLS: dict[Any, Any] = {
    RequestValidationError: tell_schema,
    Busy: tell_busy,
    HTTPException: tell_http,
    Exception: tell_mistake,
}
