"""What may be asked for, and how much of it at once."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mclip.pipeline.embed.encoder import LONGEST_TEXT
from mclip.training.latent.space import is_file, is_motion

MOST_TEXTS = 16
SHORTEST, LONGEST = 0.5, 60.0  # seconds of a motion
MOST_SECONDS = 120.0  # of all motions of a request together: two seconds of work on two cores
MOST_RESULTS = 100

Kind = Literal["npz", "glb", "bvh", "json"]


def no_motion(text: str) -> str:
    """A text; ValueError for what names a motion."""
    if is_motion(text):
        raise ValueError("names a motion, expected a text")
    return text


def no_file(source: str) -> str:
    """A text or store:LABEL; ValueError for what names a file."""
    if is_file(source):
        raise ValueError("a file of the server cannot be named; send the file's bytes to the path that ends in /motion")
    return source


Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(no_motion)]
Source = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_TEXT, description="A text, or store:LABEL for a clip of the store."),
    AfterValidator(no_file),
]
Seconds = Annotated[float, Field(ge=SHORTEST, le=LONGEST)]


class Asked(BaseModel):
    """A request; what it does not know is refused by name."""

    model_config = ConfigDict(extra="forbid")


class Shaped(Asked):
    """A request for motions."""

    plain: bool = Field(False, description="Decode texts as the paper does, not carried to the training motions.")
    foot_lock: bool = Field(False, description="Hold feet that stand where they stand.")
    loop: bool = Field(False, description="End each motion in the pose that it begins in.")
    in_place: bool = Field(False, description="Leave out the way over the floor.")
    format: Kind = Field("json", description="Of the answer; several motions in other formats than json are a zip.")


class Generate(Shaped):
    """Motions of texts, one each, or one of all."""

    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS, examples=[["a person walks"]])
    seconds: Seconds | list[Seconds] | None = Field(
        None, description="Of every motion, or of each; a training crop where none are said."
    )
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Leads to another motion of the same text.")
    sequence: bool = Field(False, description="Make one motion, the texts one after the other.")

    @model_validator(mode="after")
    def bounded(self) -> "Generate":
        """ValueError for as many seconds as nobody may ask for at once."""
        said = self.each
        if len(said) != len(self.texts):
            raise ValueError(f"seconds are {len(said)}, texts {len(self.texts)}: say one number, or one for each text")
        if (total := sum(each or 0 for each in said)) > MOST_SECONDS:
            raise ValueError(f"{total:g} seconds of motion, expected at most {MOST_SECONDS:g} a request")
        return self

    @property
    def each(self) -> list[float | None]:
        """Seconds of every text."""
        return list(self.seconds) if isinstance(self.seconds, list) else [self.seconds] * len(self.texts)


class Edit(Shaped):
    """The motion of base + scale (to - from)."""

    base: Source = Field(examples=["a person walks"])
    from_: Source = Field(alias="from", examples=["walk"])
    to: Source = Field(examples=["run"])
    scale: float = Field(1.0, ge=-100, le=100)
    seconds: Seconds | None = None


class Encode(Asked):
    """Vectors of texts."""

    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS, examples=[["a person walks"]])
    plain: bool = Field(False, description="Leave the vectors where CLIP has them, to compare them with motions'.")
    format: Literal["json", "npz"] = "json"


class Search(Asked):
    """The clips of the store that are nearest to a text, or to one of them."""

    query: Source = Field(examples=["a karate kick"])
    top: int = Field(5, ge=1, le=MOST_RESULTS)
