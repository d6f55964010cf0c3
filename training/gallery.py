"""One HTML file that opens from disk: motions beside their reconstructions, what was generated, curves and figures."""

# T frames, S picture side in pixels

import base64
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mclip.pipeline.render import window_pictures
from mclip.pipeline.store import Store
from mclip.training.config import TERMS
from mclip.training.crops import Crops
from mclip.training.evaluate import crops_of, default_split, label_sets, reconstructed
from mclip.training.export import write_mp4
from mclip.training.generate import MANIFEST, in_place
from mclip.training.motion import motion_of_rows, pictures
from mclip.training.run import EVALUATION, Run, write_aside

TEMPLATE = Path(__file__).with_name("gallery.html.j2")


@dataclass(frozen=True)
class Card:
    """A looping animation with a title and a line under it."""

    title: str
    note: str
    video: str  # data: URL
    picture: str = ""  # data: URL of a still beside it


def data_url(kind: str, content: bytes) -> str:
    """Bytes inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def video_url(frames_TSS3: np.ndarray, fps: float) -> str:
    """An MP4 inside a page."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clip.mp4")
        write_mp4(file, frames_TSS3, fps)
        return data_url("video/mp4", file.read_bytes())


def png_url(picture_SS3: np.ndarray) -> str:
    """A PNG inside a page."""
    buffer = io.BytesIO()
    Image.fromarray(picture_SS3).save(buffer, "png")
    return data_url("image/png", buffer.getvalue())


def reconstruction_cards(run: Run, store: Store, split: str, most: int) -> list[Card]:
    """Windows of a split: the store's picture, and source and reconstruction side by side in one video."""
    crops = crops_of(run, store, split)
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(most, len(crops))).astype(int))
    texts, names = store.strings("texts"), store.strings("sequences/name")
    labels, still = label_sets(store, "labels", texts), window_pictures(store, crops.window.numpy()[chosen])
    sequence = store.read("windows/sequence")[crops.window.numpy()]
    return [
        Card(
            title=names[sequence[item]].rsplit("/", 1)[-1].removesuffix("_poses.npz"),
            note="; ".join(sorted(labels[int(crops.labelset[item, 0])])),
            picture=png_url(still[place]),
            **reconstruction_video(run, crops, int(item)),
        )
        for place, item in enumerate(chosen)
    ]


def reconstruction_video(run: Run, crops: Crops, item: int) -> dict[str, str]:
    """Source left, reconstruction right, frame by frame."""
    source, decoded = reconstructed(run.model, crops, item)
    pair = [pictures(motion_of_rows(rows, run.fps)).numpy() for rows in (source, in_place(run, decoded))]
    return {"video": video_url(np.concatenate(pair, axis=2), run.fps)}


def generated_cards(folder: Path) -> tuple[str, list[Card]]:
    """Heading and cards of a folder that generate, edit or interpolate wrote with --format mp4."""
    file = folder / MANIFEST
    if not file.exists():
        raise ValueError(f"{folder}: no {MANIFEST} in it; expected what `mclip generate ... --out {folder}` writes")
    made = json.loads(file.read_text(encoding="utf-8"))
    cards = []
    for entry in made["motions"]:
        video = next((name for name in entry["files"] if name.endswith(".mp4")), None)
        if video is None:
            raise ValueError(f"{folder}: {entry['title']!r} has no .mp4; generate it with --format mp4")
        url = data_url("video/mp4", (folder / video).read_bytes())
        cards.append(Card(entry["title"], ", ".join(entry["files"]), url))
    return made["request"]["kind"], cards


def curves(run: Run) -> str:
    """The run's losses over steps as SVG."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for term in TERMS:
        points = [(line["step"], line[f"loss/{term}"]) for line in lines if f"loss/{term}" in line]
        left.semilogy(*zip(*points, strict=True), label=term)
    left.set(xlabel="step", title="losses, not weighted")
    left.legend(fontsize=8)
    errors = [(line["step"], v) for line in lines for name, v in line.items() if name.endswith("/mpjpe_mm")]
    right.semilogy(*zip(*errors, strict=True), marker=".")
    right.set(xlabel="step", title="MPJPE, mm")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mclip"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().split("?>", 1)[1]


def flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Rows of a table: nested names joined, numbers rounded."""
    rows: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name} ")
        else:
            rows.append(
                (f"{prefix}{name}".replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
            )
    return rows


def write_gallery(run: Run, store: Store, page: Path, *, folders: Sequence[Path], split: str | None, most: int) -> str:
    """Write the page; returns the summary line. A page of the same run, store and folders is not made again."""
    split = split or default_split(store)
    manifests = "".join((folder / MANIFEST).read_text() for folder in folders if (folder / MANIFEST).exists())
    evaluation = run.folder / EVALUATION
    figures = json.loads(evaluation.read_text()) if evaluation.exists() else {}
    identity = json.dumps([run.fingerprint, store.fingerprint(), split, most, manifests, figures])
    made_of = hashlib.sha256(identity.encode()).hexdigest()
    if page.exists() and made_of in page.read_text(encoding="utf-8")[:2000]:
        return f"gallery: nothing to do, {page} is there"
    sections = [generated_cards(folder) for folder in folders]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        made_of=made_of, run=run, split=split, sections=sections, figures=flat(figures),
        reconstructions=reconstruction_cards(run, store, split, most), curves=curves(run),
    )  # fmt: skip
    page.parent.mkdir(parents=True, exist_ok=True)
    write_aside(page, text)
    return f"gallery: {page} ({page.stat().st_size / 1e6:.1f} MB)"
