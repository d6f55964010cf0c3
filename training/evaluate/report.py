"""An evaluation as people read it: tables for the terminal, and one HTML file with its curves, map and matrix."""

# W windows, K classes, N items, C latent width

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.machine.terminal import table
from mclip.pipeline.store.store import Store
from mclip.training.measure.statistics import principal_axes
from mclip.training.model.run import REPORT, Run

TEMPLATE = Path(__file__).with_name("report.html.j2")
INK = "#123456"  # what is drawn in it takes the page's own text colour, dark or light
HUE = "#2a78d6"  # readable on both
MOST_CLASSES = 40  # of the matrix: the most frequent
MOST_NAMED = 30  # windows that the map names one by one; of more it names the most frequent kinds
CURVE_TO = 50

# Section -> group of figures -> what its figures are called.
MEASURES: dict[str, dict[str, dict[str, str]]] = {
    "Reconstruction": {
        "reconstruction": {
            "mpjpe_mm": "MPJPE, mm",
            "geodesic_deg": "joint angle, degrees",
            "movement_ratio": "movement over the source's",
        },
        "quality": {
            "pa_mpjpe_mm": "PA-MPJPE, mm",
            "vertex_mm": "vertices, mm",
            "root_mm": "root's path, mm",
            "turned": "frames turned by over 20 degrees",
            "planted_mm_s": "standing foot, mm/s",
            "source_planted_mm_s": "standing foot of the source, mm/s",
            "floating_cm": "height over the floor, cm",
            "source_floating_cm": "height of the source, cm",
            "over_floor": "frames over 5 cm high",
            "under_floor": "frames under the floor by 3 cm",
            "root_jerk_ratio": "jerk of the root over the source's",
            "joint_jerk_ratio": "jerk of joints over the source's",
        },
    },
    "Alignment with CLIP": {
        "reconstruction": {
            "text_cosine": "cosine with the text",
            "image_cosine": "cosine with the picture",
            "z_spread": "spread of z",
        },
        "alignment": {"cka_text": "CKA with the texts"},
        "chronology": {"order": "nearer to its events in order than backwards (chance 0.5)"},
    },
    "Motions decoded from texts": {
        "generation": {
            "fid": "FID, model's own features",
            "diversity": "diversity",
            "source_diversity": "diversity of the source",
            "text_cosine": "cosine with the text, encoded again",
            "motions": "motions",
        }
    },
    "Latent arithmetic": {
        "disentanglement": {
            "direction": "edit: cosine of effect and edit",
            "agreement": "edit: cosine of effects on other bases",
        },
        "interpolation": {
            "step_mm": "interpolation: mean step, mm",
            "largest_step": "interpolation: largest over mean step",
            "detour": "interpolation: way over distance",
            "jerk": "interpolation: jerk over that of the ends",
        },
    },
}
RECOGNITION = {  # the release: a random crop, any true class of it; BABEL: chunks of five seconds, one class each
    "recognition": "own categories",
    "recognition_probe": "own categories, by a linear probe",
    "recognition_release": "release",
    "recognition_babel": "BABEL",
}
PHRASES = {
    "through_encoder": "by the vectors of the motions",
    "decoded_back": "decoded, and found again by the run's own encoder: no measure of motion",
}
WAYS = {"text_to_motion": "text to motion", "motion_to_text": "motion to text"}


@dataclass(frozen=True)
class Plots:
    """What the report draws: ranks by name, the classes taken for one another, vectors and what they show."""

    ranks: Mapping[str, np.ndarray]
    classes: Sequence[str]
    confusion_KK: np.ndarray
    z_WC: np.ndarray
    shown_W: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table with its title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(figures: dict[str, Any]) -> list[Table]:
    """Every figure of an evaluation with its interval, in tables."""
    made = [*measure_tables(figures), *judged_tables(figures), *ranking_tables(figures), *recognition_tables(figures)]
    made += calibration_tables(figures)
    return [each for each in made if each.rows]


def measure_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """The tables of MEASURES."""
    for title, groups in MEASURES.items():
        rows = []
        for group, names in groups.items():
            found, sure = figures.get(group, {}), figures["ci95"].get(group, {})
            rows += [(label, number(found[key]), span(sure.get(key))) for key, label in names.items() if key in found]
        yield Table(title, ("", "value", "95 % interval"), rows)


JUDGED = {
    "right": "right",
    "natural": "natural",
    "both": "both",
    "natural_mm": "from real, mm",
    "learnt_R@1": "learnt R@1",
    "learnt_R@3": "R@3",
    "planted_mm_s": "standing foot, mm/s",
    "floating_cm": "height, cm",
    "jerk": "jerk, m/s³",
    "root_jerk": "of the root",
}


def cells(found: Mapping[str, float | None]) -> list[str]:
    """JUDGED's figures, nothing for those that are not known."""
    return ["" if (value := found.get(key)) is None else number(value) for key in JUDGED]


def judged_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """What texts are decoded into, by the judge: a row a way; and the source's own motion."""
    rows = []
    for kind in ("label", "phrase"):
        found = figures.get(f"{kind}_motions", {})
        ways = [way for way in ("carried", "plain") if way in found]
        rows += [(f"{found['texts']} {kind}s, {way}", *cells(found[way])) for way in ways]
    if rows:
        real = {key: figures["quality"].get(f"source_{key}") for key in JUDGED}
        rows.append(("real motion of the split", *cells(real)))
    bound = figures.get("judge", {}).get("bound_mm", 0)
    title = f"Texts decoded, as real motion judges them (natural: within {bound:.0f} mm of it)"
    yield Table(title, ("", *JUDGED.values()), rows)


def ranking_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """Retrieval: a row a protocol and way."""
    sure = figures["ci95"]
    found = [(f"labels, {label}", figures.get(way, {}), sure.get(way, {})) for way, label in WAYS.items()]
    for name, both in figures.get("protocols", {}).items():
        found += [(f"{name.replace('_', ' ')}, {WAYS[way]}", both[way], sure["protocols"][name][way]) for way in both]
    columns = ("R@1", "R@2", "R@3", "R@5", "R@10", "MedR")
    rows = [
        (title, *(f"{number(each[k])} {span(interval[k])}" for k in columns), str(each["queries"]))
        for title, each, interval in found
        if each
    ]
    yield Table("Retrieval: labels over sequences, then TMR's protocols over pairs", ("", *columns, "queries"), rows)
    phrases = figures.get("phrases", {})
    rows = [
        (told_way, *(f"{number(phrases[way][k])} {span(sure['phrases'][way][k])}" for k in ("R@1", "R@3")))
        for way, told_way in PHRASES.items()
        if phrases.get(way)
    ]
    yield Table(f"{phrases.get('queries')} phrases and the clips they should find", ("", "R@1", "R@3"), rows)


def recognition_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """Recognition: a row a protocol."""
    columns = {"top1": "top-1", "top5": "top-5", "top1_norm": "mean of classes", "mAP": "mAP"}
    rows = [
        (
            title,
            *(f"{number(figures[key][k])} {span(figures['ci95'][key][k])}" for k in columns),
            number(figures[key]["chance"]),
            str(figures[key]["classes"]),
            str(figures[key]["items"]),
        )
        for key, title in RECOGNITION.items()
        if figures.get(key)
    ]
    yield Table(
        "Recognition: any true class of a crop; BABEL: the one class of a chunk of 5 s",
        ("", *columns.values(), "chance", "classes", "items"),
        rows,
    )


def calibration_tables(figures: dict[str, Any]) -> Iterator[Table]:
    """How far scores are from shares of hits, as cosines and as probabilities."""
    if found := figures.get("calibration"):
        columns = ("cosines", "probabilities", "temperature", "classes", "items")
        rows = [tuple(number(found[key]) for key in ("ece_cosines", "ece", "temperature", "classes", "items"))]
        yield Table("Expected calibration error of the first class that `mclip recognise` names", columns, rows)


def number(value: float | int) -> str:
    """Three digits, or a whole number."""
    return str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def span(interval: Sequence[float] | None) -> str:
    """An interval in brackets; nothing for none."""
    return f"[{number(interval[0])}, {number(interval[1])}]" if interval else ""


def format_tables(figures: dict[str, Any]) -> str:
    """All tables for the terminal."""
    return "".join(table(each.title, each.columns, each.rows) for each in tables(figures))


def write_report(run: Run, store: Store, figures: dict[str, Any], plots: Plots) -> Path:
    """Write RUN/report.html, which needs nothing beside it; returns its path."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run, store=Path(store.url).name, figures=figures, tables=tables(figures), drawings=[*drawings(plots)]
    )
    page = run.folder / REPORT
    write_aside(page, text)
    return page


def drawings(plots: Plots) -> Iterator[tuple[str, str, str]]:
    """Title, explanation and SVG of every plot there is something to draw for."""
    if plots.ranks:
        yield "Retrieval curves", "How often the right one is among the first k.", curves(plots.ranks)
    if len(plots.z_WC) > 2:
        place_W2, share = principal_axes(unit(plots.z_WC))
        told = f"Vectors of the windows on their two principal axes, which hold {share.sum():.0%} of their variance."
        yield "Map of the motions", told, motion_map(place_W2, plots.shown_W)
    if plots.confusion_KK.any():
        order = np.argsort(-plots.confusion_KK.sum(1), kind="stable")[:MOST_CLASSES]
        order = order[plots.confusion_KK.sum(1)[order] > 0]
        told = (
            f"Rows are true classes, columns the nearest; {len(order)} of {len(plots.classes)} classes, by frequency."
        )
        names = [plots.classes[k] for k in order]
        yield "Which class is taken for which", told, matrix(plots.confusion_KK, order, names)


# Text stays text, in the page's font; colours of axes and text become the page's own.
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
}


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element for a page; `name` keeps its ids apart from those of other figures."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :].replace(INK, "currentColor")


def curves(ranks: Mapping[str, np.ndarray]) -> str:
    """R@k over k, a line for every protocol: solid from texts to motions, dashed back."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        axes = figure.subplots()
        colours = {name: f"C{place}" for place, name in enumerate(dict.fromkeys(key.split(",")[0] for key in ranks))}
        for name, found in ranks.items():
            protocol, way = name.split(", ")
            most = np.arange(1, CURVE_TO + 1)
            share = (found[:, None] < most + 1).mean(0)  # as `recalls`
            axes.plot(
                most,
                share,
                color=colours[protocol],
                linestyle="-" if way == "text_to_motion" else "--",
                linewidth=1.6,
                label=f"{protocol.replace('_', ' ')}, {WAYS[way]}",
            )
        axes.set(xscale="log", xlabel="k", ylabel="R@k", ylim=(0, 1.02), xlim=(1, CURVE_TO))
        axes.set_xticks([1, 2, 3, 5, 10, 20, 50], ["1", "2", "3", "5", "10", "20", "50"], minor=False)
        axes.minorticks_off()
        axes.grid(True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return svg(figure, "curves")


def motion_map(place_W2: np.ndarray, shown_W: Sequence[str]) -> str:
    """Windows on a plane: named one by one where they are few, else by colour of the ten most frequent kinds."""
    kinds = [kind for kind, _ in Counter(shown_W).most_common(10) if kind]
    colour = {kind: f"C{place}" for place, kind in enumerate(kinds)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 5.2), layout="constrained")
        axes = figure.subplots()
        shown = np.array(shown_W)
        other = ~np.isin(shown, kinds)
        # Thousands of points are a picture inside the drawing, or the page weighs megabytes.
        dots: dict[str, Any] = {"s": 20 if len(shown) < 2000 else 5, "linewidths": 0, "rasterized": len(shown) > 500}
        axes.scatter(*place_W2[other].T, color=INK, alpha=0.3, **dots)
        for kind in kinds:
            axes.scatter(*place_W2[shown == kind].T, color=colour[kind], label=kind[:40], **dots)
        if len(shown) <= MOST_NAMED:
            for (x, y), kind in zip(place_W2, shown_W, strict=True):
                axes.annotate(kind[:24], (x, y), textcoords="offset points", xytext=(4, 3), fontsize=8)
        elif kinds:
            figure.legend(loc="outside lower center", ncols=2, fontsize=8, markerscale=2)
        axes.set(xticks=[], yticks=[], xlabel="first axis", ylabel="second axis")
    return svg(figure, "map")


def matrix(confusion_KK: np.ndarray, order: np.ndarray, names: Sequence[str]) -> str:
    """Row-wise shares of the confusion matrix among the classes of `order`."""
    share = confusion_KK[np.ix_(order, order)] / confusion_KK.sum(1)[order, None]
    side = max(4.0, 1.6 + 0.2 * len(order))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        clear = LinearSegmentedColormap.from_list("clear", [to_rgba(HUE, 0), to_rgba(HUE)])
        drawn = axes.imshow(share, cmap=clear, vmin=0, vmax=1)
        axes.set_xticks(range(len(order)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(order)), names, fontsize=8)
        axes.set(xlabel="nearest", ylabel="true")
        figure.colorbar(drawn, shrink=0.5, label="share of the row")
    return svg(figure, "matrix")
