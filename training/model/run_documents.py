"""What config.json and state.json of a run hold, as a schema: whatever is read of a run has its type and its bounds."""

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,  # pydantic asks for it under Python 3.12
)

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from mclip.training.model.config import METRICS

ROOT_PATH, ANKLE_PATH = "displacement of the root", "displacement of the right ankle"  # what a 25th row can hold
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,300}$")]  # a group of a store, and no way out of it
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OPEN, CLOSED = ConfigDict(extra="allow"), ConfigDict(extra="forbid")


class RunError(ValueError):
    """A run folder that is missing, damaged, or was made with other options."""


@with_config(CLOSED)
class Sizes(TypedDict, total=False):
    """The model's, as ModelConfig."""

    latent: Required[Size]
    layers: Annotated[int, Field(ge=1, le=1000)]
    heads: Size
    feed_forward: Size
    dropout: Annotated[float, Field(ge=0, lt=1)]
    unit_latent: bool
    copied_layers: bool


@with_config(OPEN)
class Trained(TypedDict, total=False):
    """How it was trained: what of TrainConfig is asked for later."""

    target: Literal["joined", "label", "category", "any"]
    short: Literal["mask", "continue"]
    precision: str
    epochs: Positive
    best: Literal[tuple(METRICS)]  # type: ignore[valid-type]
    keep_every: Count


@with_config(OPEN)
class Described(TypedDict):
    """The encoder whose vectors it was trained on."""

    name: Name
    clip: str
    pretrained: str | None
    weights_sha256: str | None  # None: imported, nobody recorded it
    templates: NotRequired[list[str]]
    precision: NotRequired[Literal["float32", "bfloat16"]]


@with_config(OPEN)
class Data(TypedDict):
    """The motions that it was trained on."""

    fps: Annotated[float, Field(gt=0, le=1000)]
    crop: Annotated[int, Field(ge=1, le=5000)]
    store: str | None
    row25: NotRequired[Literal["displacement of the root", "displacement of the right ankle"]]


@with_config(CLOSED)
class Lengthened(TypedDict):
    """How many epochs a run was to have, until a step where more were asked for."""

    epochs: Positive
    step: Count


@with_config(CLOSED)
class Origin(TypedDict):
    """The run whose weights a run began with, at which step, and their hash."""

    run: str
    step: Count
    weights: str


@with_config(OPEN)
class Exported(TypedDict):
    """What makes a run folder an exported model: how it is laid out, and what lies in it."""

    layout: Count
    sha256: dict[Name, Sha256]


@with_config(OPEN)
class RunConfig(TypedDict):
    """config.json."""

    model: Sizes
    train: Trained
    encoder: Described
    data: Data
    lengthened: NotRequired[list[Lengthened]]
    started_from: NotRequired[Origin]
    exported: NotRequired[Exported]


State: Any = with_config(OPEN)(
    TypedDict(  # type: ignore[operator]
        "State",
        {"step": Count, "steps": Count, "z_length": Positive | None} | {name: NotRequired[float] for name in METRICS},
    )
)
State.__doc__ = "state.json of a checkpoint: where it stands, the mean length of z, and a validation's figures."
