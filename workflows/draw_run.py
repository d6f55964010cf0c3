"""Two pictures of a run for a record: its validation over the steps, and motions beside their reconstructions.

    python workflows/draw_run.py RUN STORE --curves CURVES.png --motions MOTIONS.png --only 07_06 --only 02_08

The curves have the nearest neighbour's figures as dotted lines where compare_baselines.py has measured them.
In the motions, each file that `--only` names has two rows: its middle window, above, and what the run decodes of it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mclip.pipeline.prepare.prepare import matches
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.sheets import tile
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import crops_of, default_split
from mclip.training.measure.reconstruction import reconstructed
from mclip.training.model.run import Run, load_run
from mclip.training.show.motion import motion_of_rows, pictures
from mclip.training.show.writers import evenly
from mclip.training.train.journal import points, read_journal

FRAMES, SIDE, COLOURS = 8, 88, 64  # pictures of a row, their side in pixels, colours of the file
LOOKS = RenderOptions(size=224, antialias=2)
PANELS = {
    "MPJPE, mm": {"mpjpe_mm": "mpjpe_mm"},
    "text -> motion": {"text_to_motion_R@1": "t2m_R@1", "text_to_motion_R@3": "t2m_R@3"},
    "movement, 1 is the source's": {"movement_ratio": "movement_ratio"},
}


def draw_curves(run: Run, split: str, picture: Path) -> None:
    """Validation figures over steps, beside the nearest neighbour's."""
    lines, measured = read_journal(run.folder / "metrics.jsonl"), run.folder / "baselines.json"
    neighbour = json.loads(measured.read_text())["nearest neighbour"] if measured.exists() else {}
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    for panel, (title, names) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for name, key in names.items():
            (line,) = panel.plot(*points(lines, f"{split}/{name}"), marker=".", label=name)
            if key in neighbour:
                panel.axhline(neighbour[key], color=line.get_color(), linestyle=":", label="nearest neighbour")
        panel.set(title=title, xlabel="step", ylim=(0, None))
        panel.legend(fontsize=7)
    figure.savefig(picture, dpi=80)


def draw_motions(run: Run, store: Store, split: str, words: Sequence[str], picture: Path) -> None:
    """The middle window of each file that a word names, its reconstruction below. ValueError for a strange word."""
    crops, names = crops_of(run, store, split), store.strings("sequences/name")
    files = [names[sequence] for sequence in store.read("windows/sequence")[crops.window.numpy()]]
    strips = []
    for word in words:
        items = [item for item, file in enumerate(files) if matches(file, word)]
        if not items:
            raise ValueError(f"{store.url}: no file called {word} in split {split}")
        for rows in reconstructed(run.model, crops, items[len(items) // 2]):
            motion = motion_of_rows(rows, run.fps)
            strips.append(np.stack([*pictures(motion, LOOKS, evenly(len(motion.trans_T3), FRAMES))]))
    sheet = tile(np.concatenate(strips), columns=FRAMES, side=SIDE)
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--curves", type=click.Path(path_type=Path), required=True)
@click.option("--motions", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, required=True, help="A word in the path of a file to show; may be repeated.")
def main(run: Path, store: Path, curves: Path, motions: Path, only: tuple[str, ...]) -> None:
    """Draw RUN on STORE's validation split."""
    opened, data = load_run(run), open_store(store)
    split = default_split(data)
    draw_curves(opened, split, curves)
    draw_motions(opened, data, split, only, motions)


if __name__ == "__main__":
    main()
