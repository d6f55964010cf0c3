"""The card of an exported model: what it was made of, what it is worth, how to use it, and what it is not."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mclip.pipeline.embed.offline import OFFLINE
from mclip.pipeline.files.documents import read_sealed
from mclip.pipeline.machine.words import visible
from mclip.pipeline.prepare.prepare import summary_line, told_of_labels
from mclip.pipeline.store.store import Store
from mclip.training.evaluate.report import Table, number, tables
from mclip.training.model.config import METRICS
from mclip.training.model.exported import sha256_of
from mclip.training.model.run import EVALUATION, Run

TEMPLATE = Path(__file__).with_name("card.md.j2")
LICENCES = {  # of the collections that mclip ships
    "EMBEDDED": "20 clips of DeepMimic (MIT), as shipped in pybullet (zlib); their labels and the embedded body are "
    "mclip's (MIT) and MakeHuman's (CC0)",
    "EVERYDAY": "written by hand for mclip, as are their labels (MIT)",
}
ENCODERS = {OFFLINE: "all-MiniLM-L6-v2 (Apache-2.0) and a small picture tower of mclip (MIT): a stand-in for CLIP"}


def write_card(file: Path, run: Run, *, title: str, store: Store | None, licence: str, onnx: Sequence[str]) -> None:
    """Write README.md beside the files of an exported model, with their hashes. ValueError for damaged figures."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "quoted": json.dumps}
    others = sorted(path for path in file.parent.rglob("*") if path.is_file())
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        title=title,
        encoder=ENCODERS.get(run.config["encoder"]["clip"], "its licence is that of its weights"),
        data=[*told_of_data(store)],
        licence=licence,
        tables=[*figures_of(run)],
        files={path.relative_to(file.parent).as_posix(): sha256_of(path) for path in others},
        onnx=onnx,
    )
    file.write_text(text, encoding="utf-8")


def plain(words: Any) -> str:
    """Words as one line of Markdown that mean nothing else there."""
    line = visible(" ".join(str(words).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in line)


def told_of_data(store: Store | None) -> Iterator[str]:
    """What a store says of its motions and labels, and of their licences."""
    if store is None:
        yield "The run says which store it was trained on only by its fingerprint."
        return
    yield summary_line(store).partition(": ")[2]
    yield from told_of_labels(store)
    for collection, count in Counter(name.split("/")[0] for name in store.sequences).most_common():
        known = LICENCES.get(collection, "mclip does not know its licence: the terms of who made it hold")
        yield f"{collection}, {count:,} sequences: {known}"


def figures_of(run: Run) -> Iterator[Table]:
    """What was measured of these weights: the evaluation, where it is of this step; else the last validation."""
    file = run.folder / EVALUATION
    if file.exists():
        figures = read_sealed(file, remedy="run `mclip evaluate --replace` again")
        if figures["step"] == run.step:
            split = f"split {figures['split']}, {figures['windows']:,} windows"
            yield from (Table(f"{each.title} ({split})", each.columns, each.rows) for each in tables(figures))
            return
    rows = [(name, number(run.state[name])) for name in METRICS if name in run.state]
    if rows:
        yield Table("The last validation while it was trained, without intervals", ("", "value"), rows)
