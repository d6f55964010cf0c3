"""Names of action classes: BABEL-60, BABEL-120, or one's own."""

import json
import re
from pathlib import Path

from mclip.pipeline.embed.encoder import check_text
from mclip.pipeline.files.documents import read_text

# BABEL-60's classes in index order.
BABEL_60 = (
    "walk",
    "stand",
    "hand movements",
    "turn",
    "interact with/use object",
    "arm movements",
    "t pose",
    "step",
    "backwards movement",
    "raising body part",
    "look",
    "touch object",
    "leg movements",
    "forward movement",
    "circular movement",
    "stretch",
    "jump",
    "touching body part",
    "sit",
    "place something",
    "take/pick something up",
    "run",
    "bend",
    "throw",
    "foot movements",
    "a pose",
    "stand up",
    "lowering body part",
    "sideways movement",
    "move up/down incline",
    "action with ball",
    "kick",
    "gesture",
    "head movements",
    "jog",
    "grasp object",
    "waist movements",
    "lift something",
    "knee movement",
    "wave",
    "move something",
    "swing body part",
    "catch",
    "dance",
    "lean",
    "greet",
    "poses",
    "touching face",
    "sports move",
    "exercise/training",
    "clean something",
    "punch",
    "squat",
    "scratch",
    "hop",
    "play sport",
    "stumble",
    "crossing limbs",
    "perform",
    "martial art",
)


BABEL_NAMES = "action_label_2_idx.json"  # BABEL's own list of classes, in its release


def classes_of(spec: str) -> list[str]:
    """Class names: `babel60`, `babel120`, a file of one a line (# begins a comment), or BABEL's own list of classes.

    BABEL's further names are in its release only, so `babel120` looks for its list here and in a folder BABEL.
    """
    if spec == "babel60":
        return list(BABEL_60)
    if spec == "babel120":
        return names_in(babel_file())[:120]
    return names_in(Path(spec))


def babel_file() -> Path:
    """BABEL's list of classes; ValueError saying where it was looked for."""
    places = [Path(BABEL_NAMES), Path("BABEL", BABEL_NAMES)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = " nor ".join(map(str, places))
        raise ValueError(
            f"--classes babel120: neither {looked} here; its names 60 to 119 are in that file of BABEL's release "
            "(action_recognition/data): put it there, or pass its path as --classes"
        )
    return found


def names_in(file: Path) -> list[str]:
    """The class names in a file; ValueError for what is none."""
    if not file.is_file():
        raise ValueError(
            f"--classes {file}: no such file; expected babel60, babel120, a text file of one class a line, or BABEL's "
            f"{BABEL_NAMES}"
        )
    text = read_text(file)
    names = ranked_names(file, text) if file.suffix == ".json" else [*map(uncommented, text.splitlines())]
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if len(names) < 2:
        raise ValueError(f"{file}: {len(names)} classes, expected at least two names")
    for name in names:
        try:
            check_text(name)
        except ValueError as error:
            raise ValueError(f"{file}: class {name!r}: {error}") from error
    return names


def uncommented(line: str) -> str:
    """A line without its comment: from a # that begins it, or that follows a space."""
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0]


def ranked_names(file: Path, text: str) -> list[str]:
    """The names of a JSON object {name: number} by their numbers; ValueError for anything else."""
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(number, int) for number in found.values()):
        raise ValueError(f"{file}: no object of names and numbers; expected one as BABEL's {BABEL_NAMES}")
    return sorted(found, key=found.__getitem__)
