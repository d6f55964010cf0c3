"""What a trained model is worth on a store: reconstruction, alignment with CLIP, retrieval, recognition, generation."""

# W windows, T frames, J joints, C CLIP width, Q queries, K classes, P pairs, N items

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mclip.pipeline.embed.classes import classes_of
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.vectors import unit, vectors_by_text
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.files.documents import read_sealed, read_text
from mclip.pipeline.files.seal import sealed
from mclip.pipeline.labels.crop_texts import THEN
from mclip.pipeline.machine.words import warn
from mclip.pipeline.store.middle import middle_texts
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops, crops_of, default_split
from mclip.training.evaluate.edits_report import arithmetic, there_and_back
from mclip.training.evaluate.recognition import (
    babel_chunks,
    confusion,
    linear_probe,
    random_crops,
    recognition,
    recognition_by,
    relevance,
)
from mclip.training.evaluate.report import Plots, write_report
from mclip.training.evaluate.texts_report import judge_for, judged, known_crops, labels_asked
from mclip.training.latent.space import text_latent
from mclip.training.latent.span import centred
from mclip.training.measure.calibration import calibration
from mclip.training.measure.learnt_judge import LearntJudge
from mclip.training.measure.metrics import cosines
from mclip.training.measure.reconstruction import Reconstruction, middle_batches, quality, reconstruct
from mclip.training.measure.retrieval import Gallery, batch_recalls, gallery_of, hit_rate, protocols, recalls, retrieval
from mclip.training.measure.statistics import (
    Measured,
    diversity,
    figures_of,
    frechet_distance,
    intervals_of,
    known,
    linear_cka,
)
from mclip.training.model.run import EVALUATION, REPORT, Run, RunError, in_bfloat16

CLASSES = "babel60"  # that scores are made probabilities among, where none are named
MOST_PAIRS = 1000  # texts that are decoded and encoded again


def decoded_back(run: Run, text_QC: np.ndarray) -> np.ndarray:
    """Vectors (Q, C) of the motions that the run decodes from texts' vectors (Q, C), as a user gets them."""
    text = torch.from_numpy(text_QC).to(run.device)
    back: np.ndarray = there_and_back(run, text_latent(run, text)).cpu().numpy()
    return back


def centre(run: Run, z_NC: np.ndarray) -> np.ndarray:
    """Vectors (N, C) to recognise classes by, as `centred`."""
    found: np.ndarray = centred(torch.from_numpy(z_NC).to(run.device), run.z_NC).cpu().numpy()
    return found


def middle_text_vectors(crops: Crops) -> tuple[np.ndarray, np.ndarray]:
    """Text vector (W, C) of the middle crop of every window, and whether it has one (W,)."""
    pairs = [(batch.text_BC, batch.has_text_B) for batch, _ in middle_batches(crops)]
    text_WC, has_W = (torch.cat(column).cpu().numpy() for column in zip(*pairs, strict=True))
    return text_WC, has_W


def generation(run: Run, z_NC: np.ndarray, text_NC: np.ndarray) -> dict[str, Any]:
    """Motions decoded from up to MOST_PAIRS texts, evenly chosen, beside the motions of those texts.

    In the space of the model's own encoder, vectors of length one.
    """
    chosen = np.unique(np.linspace(0, len(text_NC) - 1, min(len(text_NC), MOST_PAIRS)).astype(int))
    back_NC = decoded_back(run, text_NC[chosen])
    real, made = unit(z_NC[chosen]), unit(back_NC)
    return {
        "fid": frechet_distance(real, made),
        "diversity": diversity(made),
        "source_diversity": diversity(real),
        "text_cosine": float(cosines(back_NC, text_NC[chosen]).diagonal().mean()),
        "motions": len(chosen),
    }


def with_texts(run: Run, result: Reconstruction, crops: Crops) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Figures over windows that have a text, and the ranks of the retrieval curves; nothing for under two of them."""
    text_WC, has_W = middle_text_vectors(crops)
    z_NC, text_NC = result.z_WC[has_W], text_WC[has_W]
    if len(text_NC) < 2:
        return {}, {}
    ranks = protocols(z_NC, text_NC)
    figures = {
        "protocols": {
            name: {
                way: (batch_recalls if name.startswith("small_batches") else recalls)(found)
                for way, found in both.items()
            }
            for name, both in ranks.items()
        },
        "alignment": {"cka_text": linear_cka(z_NC, text_NC)},
        "generation": generation(run, z_NC, text_NC),
        **arithmetic(run, z_NC, text_NC),
    }
    return figures, {f"{name}, {way}": ranks[name][way].ravel() for name in ranks for way in ranks[name]}


def in_other_orders(store: Store, crops: Crops) -> dict[int, tuple[str, str]]:
    """By window of `crops`: the text of its middle crop where that tells of events in order, and told backwards."""
    texts = middle_texts(store)
    told = {item: texts[window] for item, window in enumerate(crops.window.tolist()) if THEN in texts[window]}
    return {item: (text, THEN.join(reversed(text.split(THEN)))) for item, text in told.items()}


def chronology(z_WC: np.ndarray, orders: Mapping[int, tuple[str, str]], encoder: Encoder) -> Measured:
    """How often a motion is nearer to its events in their order than to the same told backwards; by chance a half.

    The question of CAR (Fujiwara et al., ECCV 2024). Labels in alphabetical order cannot answer it.
    """
    unit_NC = unit(z_WC[[*orders]])
    true_NC, wrong_NC = (unit(encoder.encode_texts(told).numpy()) for told in zip(*orders.values(), strict=True))
    return Measured(((unit_NC * (true_NC - wrong_NC)).sum(-1) > 0).astype(float))


def probed(run: Run, store: Store, trained: Crops, z_WC: np.ndarray, true_W: Sequence[set[str]]) -> dict[str, Any]:
    """Recognition by a linear probe that learns the categories of the training split's middle crops."""
    learnt = reconstruct(run.model, trained, bfloat16=in_bfloat16(run), bar="training split").z_WC
    known = gallery_of(store, trained, learnt).categories_W
    names = sorted(set().union(*known, *true_W))
    return recognition_by(linear_probe(unit(learnt), known, names)(unit(z_WC)), names, true_W)


def calibrated(
    run: Run, encoder: Encoder, z_WC: np.ndarray, gallery: Gallery, names: Sequence[str]
) -> dict[str, float | int]:
    """`calibration` of what `mclip recognise` says of every window's middle crop, among these classes."""
    score_WK = cosines(centre(run, z_WC), encoder.encode_texts(names).numpy())
    return calibration(score_WK, relevance(names, gallery.categories_W), np.asarray(gallery.sequence_W))


def map_labels(gallery: Gallery) -> list[str]:
    """What the map calls every window: its first category, else its sequence's first label."""
    labels = [sorted(found - {""})[:1] for found in gallery.labels]
    return [
        (sorted(found)[:1] or labels[s] or [""])[0]
        for found, s in zip(gallery.categories_W, gallery.sequence_W, strict=True)
    ]


def evaluate(
    run: Run,
    store: Store,
    *,
    split: str | None,
    queries: Path | None,
    encoder: Encoder | None,
    classes: str | None = None,
) -> tuple[dict[str, Any], Plots]:
    """All figures of a run on a split of a store (default: val where it has one, else train), and what to draw.

    Figures that are means or medians have 95 % intervals, in the same tree under `ci95`. What is not known is left out.

    `queries` is a JSON list of {"text", "clip"} or {"text", "clips"}: phrases with the sequences they should find,
    through the motion encoder and through decoding and encoding back. `classes` as `mclip recognise` takes them. Both
    need the `encoder`, and so do the probabilities that `mclip recognise` gives afterwards, among `classes` or CLASSES,
    and the question of which event came first, where texts tell it.
    """
    split = split or default_split(store)
    crops = crops_of(run, store, split)
    result = reconstruct(run.model, crops, bfloat16=in_bfloat16(run), bar="reconstruct")
    gallery = gallery_of(store, crops, result.z_WC)
    vectors = vectors_by_text(store, run.config["encoder"]["name"])
    ranks = retrieval(gallery, vectors)
    names = sorted(set().union(*gallery.categories_W))
    class_KC = np.stack([vectors[name] for name in names]) if names else np.zeros((0, result.z_WC.shape[1]))
    tree: dict[str, Any] = {
        "reconstruction": result.measured(),
        "quality": quality(run.model, crops, fps=run.fps).measured(),
        **{way: recalls(found) for way, found in ranks.items()},
        "recognition": recognition(centre(run, result.z_WC), gallery.categories_W, class_KC, names),
    }
    splits = known_crops(run, store, crops, split)
    if split != "train" and names:
        tree["recognition_probe"] = probed(run, store, splits[-1], result.z_WC, gallery.categories_W)
    told_of_texts, curves = with_texts(run, result, crops)
    tree |= told_of_texts
    judge = judge_for(run, store, splits)
    learnt = LearntJudge.trained(splits, fps=run.fps)
    tree["judge"] = {"bound_mm": judge.bound_mm, "clips": len(judge.names)}
    if labels := labels_asked(store, splits):
        label_NC = np.stack([vectors[label] for label in labels])
        tree["label_motions"] = judged(run, judge, learnt, label_NC, [*labels.values()], bar="labels")
    if encoder is not None and (orders := in_other_orders(store, crops)):
        tree["chronology"] = {"order": chronology(result.z_WC, orders, encoder), "motions": len(orders)}
    if encoder is not None:
        tree["calibration"] = calibrated(run, encoder, result.z_WC, gallery, classes_of(classes or CLASSES))
    if classes is not None and encoder is not None:
        names = classes_of(classes)
        class_KC = encoder.encode_texts(names).numpy()
        for way, (z_NC, true_N) in {
            "recognition_release": random_crops(run, store, crops),
            "recognition_babel": babel_chunks(run, store, split, names),
        }.items():
            tree[way] = recognition(centre(run, z_NC), true_N, class_KC, names)
    if queries is not None and encoder is not None:
        tree["phrases"], asked = phrases(run, gallery, queries, encoder)
        tree["phrase_motions"] = judged(run, judge, learnt, *asked, bar="phrases")
    header = {"split": split, "windows": len(crops), "sequences": len(gallery.names), "step": run.step}
    plots = Plots(
        ranks={f"labels, {way}": found for way, found in ranks.items()} | curves,
        classes=names,
        confusion_KK=confusion(centre(run, result.z_WC), gallery.categories_W, class_KC, names),
        z_WC=result.z_WC,
        shown_W=map_labels(gallery),
    )
    return header | known(figures_of(tree) | {"ci95": intervals_of(tree)}), plots


def phrases(
    run: Run, gallery: Gallery, queries: Path, encoder: Encoder
) -> tuple[dict[str, Any], tuple[np.ndarray, list[list[str]]]]:
    """How often phrases find the sequences they should, through the motion encoder and decoded and encoded back.

    And the phrases' vectors with those sequences. What the run's own encoder says of what its decoder made is no
    measure of motion: a still body that twitches by 2 cm can be fitted to please it better than any dance.
    """
    try:
        asked = [(entry["text"], entry.get("clips") or [entry["clip"]]) for entry in json.loads(read_text(queries))]
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, RecursionError) as error:
        expected_form = 'a JSON list of {"text": ..., "clip": ...}'
        raise ValueError(f"--queries {queries}: expected {expected_form}, found otherwise ({error!r})") from error
    if not asked:
        raise ValueError(f'--queries {queries}: expected a JSON list of {{"text": ..., "clip": ...}}, found none')
    texts, expected = [text for text, _ in asked], [clips for _, clips in asked]
    query = encoder.encode_texts(texts).numpy()
    found = {
        "queries": len(asked),
        "through_encoder": hit_rate(gallery, query, expected),
        "decoded_back": hit_rate(gallery, decoded_back(run, query), expected),
    }
    return found, (query, expected)


def encoder_of(run: Run, *, needed: bool) -> Encoder | None:
    """The run's encoder; None where it cannot be loaded and is only wanted for `mclip recognise`, which is said."""
    try:
        return run.load_encoder()
    except RunError as error:
        if needed:
            raise
        warn(f"the scores of `mclip recognise` stay cosines: {error}")
        return None


def evaluate_once(
    run: Run, store: Store, *, split: str | None, queries: Path | None, replace: bool, classes: str | None = None
) -> tuple[dict[str, Any], str]:
    """`evaluate` into RUN/evaluation.json and RUN/report.html, or what lies there already for the same; and a line."""
    file, page = run.folder / EVALUATION, run.folder / REPORT
    asked = read_text(queries) if queries else None
    names = classes_of(classes) if classes else None
    identity = json.dumps([run.fingerprint, store.fingerprint(), split, asked, names])
    made_of = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if file.exists() and page.exists() and not replace:
        figures = read_sealed(file, remedy="pass --replace to measure again")
        if figures.get("made_of") == made_of:
            return figures, f"evaluate: nothing to do, {file} is there"
    encoder = encoder_of(run, needed=bool(queries or classes or any(THEN in text for text in middle_texts(store))))
    figures, plots = evaluate(run, store, split=split, queries=queries, encoder=encoder, classes=classes)
    figures |= {"made_of": made_of, "weights": run.fingerprint}
    write_report(run, store, figures, plots)
    write_aside(file, json.dumps(sealed(figures), indent=2, allow_nan=False) + "\n")
    windows, split = figures["windows"], figures["split"]
    return figures, f"evaluate: {windows:,} windows of split {split} done, in {file} and {page}"
