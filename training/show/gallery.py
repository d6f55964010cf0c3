"""The page of a run: motions beside their reconstructions, what was generated, curves and figures."""

# W windows, C latent width, N texts

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.files.documents import read_document, read_sealed, read_text
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.prepare.sources import MOTION_FILES, clip_name
from mclip.pipeline.render.sheets import window_pictures
from mclip.pipeline.store.middle import middle_labelsets
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of, default_split
from mclip.training.evaluate.report import STYLE, svg, tables
from mclip.training.latent.search import Searcher
from mclip.training.latent.space import encode, in_place, motion_vector
from mclip.training.measure.metrics import geodesic_deg, mpjpe_mm
from mclip.training.measure.reconstruction import reconstructed
from mclip.training.measure.retrieval import label_sets
from mclip.training.model.run import EVALUATION, Run
from mclip.training.show.folder import MANIFEST, Manifest
from mclip.training.show.motion import Motion, motion_of_rows, read
from mclip.training.show.page import SCRIPT, TEMPLATE, Card, Page, Section, is_made_of, side_by_side
from mclip.training.train.curves import figure_of
from mclip.training.train.journal import read_journal

HEADINGS = {"generate": "Text to motion", "edit": "Edit", "interpolate": "Interpolation", "style": "Style"}
NEAREST = 3


@dataclass(frozen=True)
class Neighbours:
    """What lies around a motion's vector in a store: its clips and its labels."""

    clips: Searcher
    labels: list[str]
    label_NC: Float[Tensor, "N C"]  # of length one

    @classmethod
    def of(cls, run: Run, store: Store) -> "Neighbours":
        """Those of a store, by the vectors of a run."""
        texts, vectors = store.strings("texts"), vectors_by_text(store, run.config["encoder"]["name"])
        labels = [texts[number] for number in np.unique(store.read("labelsets/labels"))]
        label_NC = np.array([vectors[label] for label in labels], np.float32).reshape(len(labels), -1)
        return cls(Searcher(run, store), labels, F.normalize(torch.from_numpy(label_NC).to(run.device), dim=-1))

    def facts(self, z_C: Float[Tensor, " C"]) -> list[tuple[str, str]]:
        """The nearest labels and clips with their cosines, as lines of a card."""
        clips = [(clip_name(hit.clip), hit.score) for hit in self.clips.nearest(z_C, top=NEAREST)]
        found = {"nearest labels": self.nearest_labels(z_C), "nearest clips": clips}
        told = {name: ", ".join(f"{what} {score:.2f}" for what, score in each) for name, each in found.items()}
        return [(name, line) for name, line in told.items() if line]

    def nearest_labels(self, z_C: Float[Tensor, " C"]) -> list[tuple[str, float]]:
        """Labels and their cosines, best first; none in a store without labels."""
        if not self.labels:
            return []
        best = (self.label_NC @ F.normalize(z_C.float(), dim=0)).topk(min(NEAREST, len(self.labels)))
        return [(self.labels[n], score) for n, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def reconstruction_cards(run: Run, store: Store, around: Neighbours, *, split: str, most: int) -> list[Card]:
    """Windows of a split: the store's picture, and source and reconstruction side by side."""
    crops = crops_of(run, store, split)
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(most, len(crops))).astype(int))
    window = crops.window.cpu().numpy()
    texts, names = store.strings("texts"), store.strings("sequences/name")
    labels, still = label_sets(store, "labels", texts), window_pictures(store, window[chosen])
    sequence = store.read("windows/sequence")[window]
    labelset = middle_labelsets(store)[window[chosen]]
    cards = []
    for place, item in enumerate(chosen.tolist()):
        rows, decoded = (each.cpu() for each in reconstructed(run.model, crops, item))
        source, made = (motion_of_rows(each, run.fps) for each in (rows, in_place(run, decoded)))
        title = clip_name(names[sequence[item]])
        pair = zip((f"{title}-source", f"{title}-reconstruction"), side_by_side(source, made), strict=True)
        cards.append(
            Card(
                title,
                dict(pair),
                note="; ".join(sorted(labels[int(labelset[place])])),
                facts=[("error", told_error(source, made)), *around.facts(encode(run, decoded))],
                picture_SS3=still[place],
            )
        )
    return cards


def told_error(source: Motion, made: Motion) -> str:
    """How far a reconstruction is off, roots together."""
    pair = made.rotmat_TJ33, source.rotmat_TJ33
    mpjpe = mpjpe_mm(*pair, load_body("low").joints_J3).mean()
    return f"{mpjpe:.1f} mm MPJPE, {geodesic_deg(*pair).mean():.1f} degrees"


def manifest_of(folder: Path) -> Path:
    """What says which motions a folder has; ValueError where nothing does."""
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder}: no {MANIFEST} in it; expected what `mclip generate ... --out {folder}` writes")
    return file


def generated_section(run: Run, folder: Path, around: Neighbours) -> Section:
    """What generate, edit or interpolate wrote into a folder with --format npz or bvh."""
    file = manifest_of(folder)
    made, cards = read_document(file, Manifest, remedy=f"delete it and make {folder} again"), []
    for entry in made.motions:
        data = next((folder / name for name in entry.files if name.endswith(MOTION_FILES)), None)
        if data is None:
            raise ValueError(f"{folder}: {entry.title!r} has no .npz; generate it with --format npz")
        cards.append(Card(entry.title, {data.stem: read(data)}, facts=around.facts(motion_vector(run, data))))
    return Section(HEADINGS.get(made.request.kind, made.request.kind), cards)


def curves(run: Run) -> str:
    """What the run measured on its way, over steps, as SVG; nothing for a run that was imported."""
    lines = read_journal(run.folder / "metrics.jsonl")
    with matplotlib.rc_context(STYLE):
        return svg(figure_of(lines), "curves") if lines else ""


def write_gallery(run: Run, store: Store, page: Path, *, folders: Sequence[Path], split: str | None, most: int) -> str:
    """Write the page; returns the summary line. A page of the same run, store and folders is not made again."""
    split = split or default_split(store)
    manifests = "".join(read_text(manifest_of(folder)) for folder in folders)
    evaluation = run.folder / EVALUATION
    figures = read_sealed(evaluation, remedy="delete it and run `mclip evaluate` again") if evaluation.exists() else {}
    looks = TEMPLATE.read_text(encoding="utf-8") + SCRIPT.read_text(encoding="utf-8")
    identity = json.dumps([run.fingerprint, store.fingerprint(), split, most, manifests, figures, looks])
    made_of = hashlib.sha256(identity.encode()).hexdigest()
    if is_made_of(page, made_of):
        return f"gallery: nothing to do, {page} is there"
    around = Neighbours.of(run, store)
    sections = [generated_section(run, folder, around) for folder in folders]
    sections.append(
        Section(
            f"Motions of split {split} and their reconstructions",
            reconstruction_cards(run, store, around, split=split, most=most),
            lead="From the left: the picture that CLIP saw, the source (grey), the reconstruction.",
        )
    )
    encoder, version = run.config["encoder"]["name"], run.config["version"]
    made = Page(
        run.folder.name,
        f"A MotionCLIP trained for {run.step:,} steps against the encoder {encoder}; mclip {version}.",
        sections,
        curves=curves(run),
        tables=tables(figures) if figures else [],
        made_of=made_of,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    write_aside(page, made.html())
    motions = sum(len(section.cards) for section in sections)
    return f"gallery: {motions} motions in {page} ({page.stat().st_size / 1e6:.1f} MB)"
