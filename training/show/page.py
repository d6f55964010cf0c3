"""A page that opens from disk: motions played in 3D by a script that lies in it, with their words and their files."""

# T frames, V vertices, S picture side in pixels

import base64
import functools
import gzip
import html
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mclip.pipeline.draw.camera import facing, follow_camera
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.render.options import RenderOptions
from mclip.training.evaluate.report import Table
from mclip.training.show.motion import Motion, pictures
from mclip.training.show.writers import DATA, Y_UP

TEMPLATE = Path(__file__).with_name("page.html.j2")
SCRIPT = Path(__file__).with_name("viewer.min.js")  # made by workflows/viewer
STILL = RenderOptions(size=224, antialias=2)  # what is seen before the script draws, and without WebGL
FRAME = "width:100%;height:640px;border:0"
BESIDE = 1.1  # metres between a source and what was made of it


@dataclass(frozen=True)
class Card:
    """Motions that are shown together (one, or a source and its reconstruction) by their files' names, and their words.

    facts: a short name and what it says, a line each. picture: a picture to stand beside, (S, S, 3).
    """

    title: str
    motions: Mapping[str, Motion]
    note: str = ""
    facts: Sequence[tuple[str, str]] = ()
    picture_SS3: np.ndarray | None = None


@dataclass(frozen=True)
class Section:
    """Cards under a heading."""

    title: str
    cards: Sequence[Card]
    lead: str = ""


@dataclass(frozen=True)
class File:
    """A file that lies in the page: under which key, and its name for those who save it."""

    key: str
    name: str

    @property
    def kind(self) -> str:
        """The name's ending."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Shown:
    """A card as the page has it."""

    card: Card
    files: dict[str, list[File]]  # by motion
    seconds: float
    fps: float
    path: str  # JSON: where the camera looks, a place a frame, metres, y up
    start: str  # JSON: from where it looks, seen from there
    still: str  # data: URL
    picture: str

    @property
    def played(self) -> str:
        """Keys of the files that the script plays."""
        return " ".join(file.key for files in self.files.values() for file in files if file.kind == "glb")


@dataclass
class Page:
    """What a page is made of; `html` makes it."""

    title: str
    lead: str
    sections: Sequence[Section]
    curves: str = ""  # SVG
    tables: Sequence[Table] = ()
    made_of: str = ""
    panel: str = ""  # HTML over the cards
    script: str = field(default_factory=functools.partial(SCRIPT.read_text, encoding="utf-8"))
    begin: str = "viewer.page.start();"  # what is called of the script
    files: dict[str, str] = field(default_factory=dict, init=False)  # key -> gzip in base64

    def html(self) -> str:
        """The page: one file that asks nothing of a network."""
        shown = [(section, [self.shown(card) for card in section.cards]) for section in self.sections]
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        return template.render(page=self, sections=shown)

    def shown(self, card: Card) -> Shown:
        """A card with its files put into the page."""
        files = {name: self.filed(name, motion) for name, motion in card.motions.items()}
        last = list(card.motions.values())[-1]
        path_T3, start_3 = glide(list(card.motions.values()))
        still = next(pictures(last, STILL, [len(last.trans_T3) // 2]))
        return Shown(
            card,
            files,
            (len(path_T3) - 1) / last.fps,
            last.fps,
            numbers(path_T3),
            numbers(start_3),
            picture_url(still),
            "" if card.picture_SS3 is None else picture_url(card.picture_SS3),
        )

    def filed(self, name: str, motion: Motion) -> list[File]:
        """The files of a motion, put into the page; those of two folders may have one name."""
        found = []
        for file, content in data_files(name, motion).items():
            found.append(File(str(len(self.files)), file))  # a key holds nothing of the name: that may hold anything
            self.files[found[-1].key] = packed(content)
        return found


def is_made_of(file: Path, made_of: str) -> bool:
    """Whether a page lies there that says that it was made of the same."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return made_of.encode() in opened.read(2000)


def framed(page: Page) -> str:
    """A page inside another, as a notebook shows it: on its own, and with nothing of the other's within its reach."""
    inner = html.escape(page.html(), quote=True)
    return f'<iframe sandbox="allow-scripts allow-downloads" style="{FRAME}" srcdoc="{inner}"></iframe>'


def numbers(metres: Float[Tensor, "*T 3"]) -> str:
    """JSON of places in the script's world, whose y is up, to a millimetre."""
    return json.dumps((metres.double() @ Y_UP.T).numpy().round(3).tolist(), separators=(",", ":"))


def picture_url(picture_SS3: np.ndarray) -> str:
    """A picture inside a page."""
    buffer = io.BytesIO()
    Image.fromarray(picture_SS3).save(buffer, "webp", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def packed(content: bytes, *, level: int = 9) -> str:
    """Bytes as the page's script unpacks them; the same for the same."""
    return base64.b64encode(gzip.compress(content, level, mtime=0)).decode()


def data_files(name: str, motion: Motion) -> dict[str, bytes]:
    """The files of a motion that other programs read."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder, f"motion.{kind}") for kind in DATA}  # a name may be too long for a file already
        for kind, path in paths.items():
            DATA[kind](path, motion)
        return {f"{name}.{kind}": path.read_bytes() for kind, path in paths.items()}


def glide(motions: Sequence[Motion]) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "3"]]:
    """The camera of mclip's pictures for motions seen together, z up: its target a frame (T, 3), and where it stands
    seen from there (3,)."""
    body = load_body("low")
    vertices = [body.pose(motion.rotmat_TJ33, trans_B3=motion.trans_T3) for motion in motions]
    camera = follow_camera(motions[0].rotmat_TJ33[:, 0].float(), torch.cat(vertices, dim=1), fps=motions[0].fps)
    forward_3 = camera.R_B33[0, :, 2]
    place_T3 = -(camera.R_B33 @ camera.T_B3[..., None])[..., 0]
    distance = ((vertices[0].mean(1) - place_T3) @ forward_3).mean()
    return place_T3 + distance * forward_3, -distance * forward_3


def side_by_side(source: Motion, made: Motion) -> tuple[Motion, Motion]:
    """Two motions that begin at one place, moved apart: seen from the front, the first one stands on the left."""
    x, y = torch.nn.functional.normalize(facing(source.rotmat_TJ33[:, 0].float()).mean(0), dim=0).tolist()
    aside = torch.tensor([-y, x, 0.0]) * BESIDE / 2  # to the body's left, which is the right of the picture
    return (
        Motion(source.rotmat_TJ33, source.trans_T3 - aside, source.fps),
        Motion(made.rotmat_TJ33, made.trans_T3 + aside, made.fps),
    )


def write_page(path: Path, motion: Motion, *, title: str) -> None:
    """A page of one motion."""
    lead = f"{len(motion.trans_T3):,} frames at {motion.fps:g} a second."
    path.write_text(Page(title, lead, [Section("", [Card(title, {title: motion})])]).html(), encoding="utf-8")
