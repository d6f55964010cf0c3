"""What a browser asks to see, as its address, its history and its saved sessions keep it."""

import json
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MOST_SAMPLES = 4
SECONDS = (0.5, 20.0)  # of a text's motion
MOST_SEED = 99
LONGEST_LINK = 4000  # characters: a server reads eight thousand of an address
MOST_KEPT = 100  # wishes of a history

Words = Annotated[str, Field(min_length=1)]  # how long a text may be is the encoder's to say


class Kept(BaseModel):
    """A wish; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(Kept):
    """Motions of a text: `samples` of them, from seed `seed` on, of which 0 is the text's own."""

    kind: Literal["text"] = "text"
    text: Words
    seconds: float = Field(default=2.0, ge=SECONDS[0], le=SECONDS[1])
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    samples: int = Field(default=1, ge=1, le=MOST_SAMPLES)

    @property
    def title(self) -> str:
        return self.text.strip()


class Parts(Kept):
    """One motion of several texts, a line each, with their seconds as "a person walks @3"."""

    kind: Literal["parts"] = "parts"
    lines: Words
    seed: int = Field(default=0, ge=0, le=MOST_SEED)

    @property
    def title(self) -> str:
        return ", then ".join(line.strip() for line in self.lines.splitlines() if line.strip())


class Edit(Kept):
    """base + scale (to - from), beside the base where that is asked for."""

    kind: Literal["edit"] = "edit"
    base: Words
    away: Words
    goal: Words
    scale: float = Field(default=1.0, ge=-1, le=2)
    beside: bool = False

    @property
    def title(self) -> str:
        return f"{self.base} + {self.scale:g} ({self.goal} - {self.away})"


class Between(Kept):
    """A place on the way from one motion to another."""

    kind: Literal["between"] = "between"
    start: Words
    end: Words
    share: float = Field(default=0.5, ge=0, le=1)
    path: Literal["line", "circle"] = "line"

    @property
    def title(self) -> str:
        return f"{self.start} to {self.end}: {self.share:g}"


class Clip(Kept):
    """The middle crop of a window of the store."""

    kind: Literal["clip"] = "clip"
    window: int = Field(ge=0)
    name: Words

    @property
    def title(self) -> str:
        return self.name


Wish = Text | Parts | Edit | Between | Clip
WISH: TypeAdapter[Wish] = TypeAdapter(Annotated[Wish, Field(discriminator="kind")])


class Session(BaseModel):
    """A history as a file keeps it."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["mclip studio 1"] = "mclip studio 1"
    wishes: list[Annotated[Wish, Field(discriminator="kind")]] = Field(min_length=1, max_length=MOST_KEPT)


def link_of(wish: Wish) -> str:
    """What stands after the # of an address that shows a wish; empty where that would be too long."""
    link = quote(json.dumps(wish.model_dump(exclude_defaults=True) | {"kind": wish.kind}, ensure_ascii=False))
    return link if len(link) <= LONGEST_LINK else ""


def wish_of(link: str) -> Wish | None:
    """The wish in an address; None where there is none that anybody could have made."""
    try:
        return WISH.validate_json(unquote(link[:LONGEST_LINK]))
    except ValidationError:
        return None


def session_of(content: bytes, name: str) -> Session:
    """The history in a file; ValueError where it holds none."""
    try:
        return Session.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{name[:100]}: no session of a studio ({where}: {first['msg']})") from error
