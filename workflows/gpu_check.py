"""What a device does with mclip, in one table: is it right, how fast is it, does it wait, does it go on after a kill.

    python workflows/gpu_check.py                        # about eight minutes on a GPU
    python workflows/gpu_check.py --quick                # everything, small
    python workflows/gpu_check.py --quick --device cpu   # what CI runs

It needs a checkout and torch 2.11 or newer with mclip's dependencies; mclip itself need not be installed. All data are
made up, in a temporary folder. A part that cannot run says why, and the others go on. The table is printed, and written
to workflows/records/gpu-DEVICE.md or to --out.
"""

import contextlib
import functools
import importlib.util
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch

HERE = Path(__file__).resolve().parent
PAPERS_STEPS = 100 * 40 * 3600 * 30 // 100 // 20  # of 100 epochs over 40 h at 30 fps, 100 frames a window, 20 a batch
BOTH = tuple(itertools.product((20, 128, 1024, 8192), (60, 120)))  # batch and frames
WAYS = ("eager", "graph", "compiled")
# What float32 on two devices may differ by.
LOSSES, GRADIENT, AFTER, DECODED, COSINE, FIGURE = 1e-4, 1e-3, 1e-2, 1e-3, 1e-4, 1e-3
WRONG = "NOT"  # within its bound, or equal
Row = tuple[str, str]


@dataclass(frozen=True)
class Setup:
    """Where to measure, how much, and a folder that goes afterwards."""

    device: torch.device
    quick: bool
    folder: Path
    minutes: float = 8
    started: float = field(default_factory=time.perf_counter)

    def late(self, share: float) -> bool:
        """Whether that share of the minutes is over."""
        return time.perf_counter() - self.started > share * 60 * self.minutes

    @property
    def sizes(self) -> dict[str, Any]:
        """Of the model: the paper's, or one that a CPU trains in no time."""
        return {"latent": 512} | ({"layers": 1, "feed_forward": 64} if self.quick else {})

    @property
    def clips(self) -> tuple[str, ...]:
        """CLIP models to try, by open_clip's names."""
        return ("ViT-S-32-alt",) if self.quick else ("ViT-B-32", "ViT-L-14")

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def seconds(self, work: Callable[[], Any], *, most: float) -> float:
        """Median seconds of a call, after two that warm up, in about `most` seconds."""
        taken, until = [], time.perf_counter() + (0.1 if self.quick else most)
        for number in itertools.count():
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if number >= 2:
                taken.append(time.perf_counter() - started)
            if taken and time.perf_counter() > until:
                return sorted(taken)[len(taken) // 2]
        raise AssertionError


def trainer(setup: Setup, *, batch: int, frames: int = 60, **options: Any) -> Any:
    """mclip's Steps on made-up crops, as the trainer takes them; `dropout` among the options is the model's."""
    from mclip.pipeline.geometry.body import load_body
    from mclip.training.data.feed import Feed
    from mclip.training.model.config import ModelConfig, TrainConfig
    from mclip.training.train.graph import Steps, way_of
    from mclip.training.train.step import Learner, vertex_loss_of
    from mclip.training.train.workers import Workers
    from mclip.workflows.benchmark_train import crops_of

    sizes = ModelConfig(**setup.sizes, dropout=options.pop("dropout", 0.1))
    config = TrainConfig(batch=batch, **options)
    feed = Feed(crops_of(max(200, batch), frames, setup.device), ["a", "b", "c"], config, setup.device)
    loss = vertex_loss_of(config, load_body("low").to(setup.device), feed.generator)
    learner = Learner(config, sizes, vertex_loss=loss, steps=10**6, device=setup.device, workers=Workers())
    return Steps(learner, feed, way_of(config, feed, 1)[0], refuse)


def refuse(why: str) -> None:
    """Where training would say so and go on in another way, a measurement ends."""
    raise RuntimeError(why)


def parity(setup: Setup) -> Iterator[Row]:
    """The same weights and batches on the CPU and on the device, in float32, without dropout."""
    from mclip.training.data.crops import Batch

    steps, batch = (5, 4) if setup.quick else (50, 20)
    here = Setup(torch.device("cpu"), setup.quick, setup.folder)
    pair = [trainer(each, batch=batch, dropout=0.0, precision="float32") for each in (here, setup)]
    ours, theirs = (each.learner for each in pair)
    for step in range(steps):
        drawn = pair[0].feed(step)
        moved = {name: each.to(setup.device) if torch.is_tensor(each) else each for name, each in vars(drawn).items()}
        found = []
        for learner, given in ((ours, drawn), (theirs, Batch(**moved))):
            learner.begin(step)
            found.append(learner.learn(given)[0])
        known, values = ({term: each.item() for term, each in terms.items()} for terms in found)
        apart = max(abs(values[term] / known[term] - 1) for term in known)
        if step == 0:
            yield "losses, largest relative difference", judged(apart, LOSSES)
            a, b = (torch.cat([p.grad.flatten().cpu() for p in learner.parameters]) for learner in (ours, theirs))
            yield "gradient, difference over its norm", judged(float((a - b).norm() / a.norm()), GRADIENT)
    yield f"losses after {steps} steps", judged(apart, AFTER)
    z_BC = torch.randn(8, 512)
    with torch.inference_mode():
        theirs.model.load_state_dict(ours.model.state_dict())
        a, b = (each.model.eval().decode(z_BC.to(at), 60).cpu() for each, at in ((ours, "cpu"), (theirs, setup.device)))
    yield "decoded, largest difference", judged(float((a - b).abs().max()), DECODED)
    rgb = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)
    a, b = (encoder_of(setup.clips[0], device).encode_pictures(rgb) for device in (here.device, setup.device))
    cosine = torch.nn.functional.cosine_similarity(a, b).min()
    yield "embedded pictures, 1 - cosine", judged(float(1 - cosine), COSINE)
    yield "drawn bodies by tensors, largest difference of 255", judged(drawn_apart(setup.device), 1)


def drawn_apart(device: torch.device) -> int:
    """By how much pixels differ that the compiled rasteriser and tensors on a device draw."""
    from mclip.pipeline.draw.backends import render_bodies
    from mclip.pipeline.draw.camera import front_camera
    from mclip.pipeline.geometry.body import load_body
    from mclip.pipeline.geometry.rotations import axis_angle_to_matrix

    body = load_body("low")
    rotmat = axis_angle_to_matrix(0.4 * torch.randn(4, 24, 3))
    vertices = body.pose(rotmat)
    camera = front_camera(rotmat[:, 0], vertices)
    there = replace(camera, R_B33=camera.R_B33.to(device), T_B3=camera.T_B3.to(device))
    known = render_bodies(vertices, body.faces_F3, camera, backend="cpu")
    found = render_bodies(vertices.to(device), body.faces_F3.to(device), there, backend="torch").cpu()
    return int((known.int() - found.int()).abs().max())


def judged(value: float, bound: float) -> str:
    """A difference, and whether it is within its bound."""
    return f"{value:.1e} ({'within' if value <= bound else f'{WRONG} within'} {bound:.0e})"


@functools.cache
def encoder_of(clip: str, device: torch.device, precision: str = "float32") -> Any:
    """An encoder with random weights, the same on every device."""
    import open_clip

    from mclip.pipeline.embed.encoder import Encoder

    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random, as they should be
    model = open_clip.create_model(clip).eval().requires_grad_(False).to(device)
    return Encoder(clip, clip, None, model, open_clip.get_tokenizer(clip), (), precision)


def steps(setup: Setup) -> Iterator[Row]:
    """Milliseconds of a step, share of the peak, memory: by operations, as one graph, and compiled into one."""
    precision, times = precision_of(setup), dict[str, float]()
    for batch, frames, way in shapes(setup):
        name = f"step, batch {batch:,}, {frames} frames, {precision}, {way}"
        if setup.late(0.6):
            yield name, "not run: other parts need the rest of the minutes"
            continue
        try:
            seconds, told = timed_step(setup, batch=batch, frames=frames, precision=precision, step=way)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            yield name, f"not run: {reason(error)}"
            continue
        yield name, told
        if (batch, frames) == (20, 60):
            times[way] = seconds
    if times:
        yield "fastest at batch 20: what --step should be", min(times, key=times.__getitem__)


def muon(setup: Setup) -> Iterator[Row]:
    """A step whose optimizer is Muon beside one with AdamW, in the same way."""
    way, precision = "graph" if setup.device.type == "cuda" else "eager", precision_of(setup)
    for batch in (4,) if setup.quick else (20, 1024) if setup.device.type == "cuda" else (20,):
        made = {"batch": batch, "frames": 60, "precision": precision, "step": way}
        ours, adamw = timed_step(setup, **made, optimizer="muon")[0], timed_step(setup, **made)[0]
        yield f"step with Muon, batch {batch:,}, {way}", f"{1000 * ours:,.2f} ms, {ours / adamw:,.2f} times AdamW's"


@functools.cache
def timed_step(setup: Setup, *, batch: int, **options: Any) -> tuple[float, str]:
    """Seconds of a step, and what to say of it; RuntimeError where it cannot be taken in the way that is asked for."""
    from mclip.training.train.graph import compile_parts
    from mclip.training.train.train import measure_speed

    taken, count = trainer(setup, batch=batch, **options), itertools.count()
    speed = measure_speed(taken.learner, taken.feed(0))
    if options["step"] == "compiled" and "failed" in (told := compile_parts(taken.learner, taken.feed, 0)):
        raise RuntimeError(told)
    forget_peak(setup)
    for _ in range(5):  # a graph is captured at the fourth
        taken(next(count))
    seconds = setup.seconds(lambda: taken(next(count)), most=2)
    return seconds, f"{1000 * seconds:,.2f} ms, {batch / seconds:,.0f} crops/s, {speed.told(seconds)}{peak(setup)}"


def shapes(setup: Setup) -> Iterator[tuple[int, int, str]]:
    """Batch, frames and way of the steps that are measured, what tells most first: compiling takes a minute."""
    if setup.device.type != "cuda":
        yield from ((batch, frames, "eager") for batch, frames in ([(4, 60)] if setup.quick else BOTH))
    elif setup.quick:
        yield from ((4, 60, way) for way in ("eager", "graph"))
    else:
        yield from ((batch, 60, way) for batch in (20, 1024) for way in WAYS)
        yield from ((batch, frames, "graph") for batch, frames in BOTH if (batch, frames) not in ((20, 60), (1024, 60)))
        yield from ((batch, frames, "compiled") for batch, frames in BOTH[::-1] if batch in (128, 8192))


def precision_of(setup: Setup) -> str:
    """What --precision auto takes."""
    from mclip.pipeline.machine.devices import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16(setup.device) else "float32"


def forget_peak(setup: Setup) -> None:
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setup.device)


def peak(setup: Setup) -> str:
    """The most memory that was taken since, where the device counts it."""
    if setup.device.type != "cuda":
        return ""
    return f", {torch.cuda.max_memory_allocated(setup.device) / 1e9:,.2f} GB at most"


def against_plain(setup: Setup) -> Iterator[Row]:
    """The paper's release written plainly, on the same device, and how long the paper's training takes on both."""
    from mclip.workflows.benchmark_train import plain_step

    if setup.quick and setup.device.type == "cpu":
        raise RuntimeError("--quick on a CPU leaves it out: a plain step takes about ten seconds there")
    plain = setup.seconds(plain_step(time.perf_counter, setup.device), most=10)
    yield "the release's step, plainly, batch 20, float32", f"{1000 * plain:,.1f} ms"
    full, ways = replace(setup, quick=False), WAYS[1:] if setup.device.type == "cuda" else WAYS[:1]
    for way in ways[:1] if setup.quick else ways:
        ours, _ = timed_step(full, batch=20, frames=60, precision=precision_of(setup), step=way)
        yield f"mclip's, {way}, over it", f"{1000 * ours:,.2f} ms, {plain / ours:,.1f} times as fast"
        took = f"release {plain * PAPERS_STEPS / 3600:,.1f} hours, mclip {ours * PAPERS_STEPS / 60:,.1f} minutes"
        yield f"the paper's 100 epochs on AMASS (40 h), {PAPERS_STEPS:,} steps, {way}", took


def embedding(setup: Setup) -> Iterator[Row]:
    """Pictures and texts a second, against the model alone in a loop on what lies on the device already."""
    count = 4 if setup.quick else 2048
    rgb, texts = torch.randint(0, 256, (count, 224, 224, 3), dtype=torch.uint8), ["a person walks"] * count
    for clip in setup.clips:
        encoder = encoder_of(clip, setup.device, precision_of(setup))
        ready = encoder.preprocess(rgb[: encoder.batch].to(setup.device))
        whole = setup.seconds(functools.partial(encoder.encode_pictures, rgb), most=3)
        bare = setup.seconds(functools.partial(bare_loop, encoder, ready), most=3) * count / len(ready)
        yield (
            f"embed {clip}, pictures",
            f"{count / whole:,.1f}/s, {bare / whole:.0%} of a bare loop's {count / bare:,.1f}/s",
        )
        exact = encoder_of(clip, setup.device).encode_pictures(rgb[:4])
        cosine = torch.nn.functional.cosine_similarity(exact, encoder.encode_pictures(rgb[:4])).min()
        yield f"embed {clip} in {encoder.precision}, least cosine to float32", f"{cosine:.6f}"
        yield (
            f"embed {clip}, texts",
            f"{count / setup.seconds(functools.partial(encoder.encode_texts, texts), most=3):,.1f}/s",
        )


@torch.inference_mode()
def bare_loop(encoder: Any, ready: torch.Tensor) -> None:
    with encoder.computing():
        encoder.working.encode_image(ready)


def space(setup: Setup) -> Iterator[Row]:
    """Motions decoded a second, and a search among a million."""
    import numpy as np

    from mclip.training.latent.search import Index
    from mclip.training.latent.space import decode
    from mclip.training.model.config import ModelConfig
    from mclip.training.model.network import MotionClip
    from mclip.training.model.run import Run

    model = MotionClip(ModelConfig(**setup.sizes)).eval().requires_grad_(False).to(setup.device)
    run = Run(setup.folder, {"data": {"fps": 30.0, "crop": 60}, "train": {}}, model, {"step": 0})
    count, windows = (8, 10_000) if setup.quick else (1024, 1_000_000)
    seconds = setup.seconds(lambda: decode(run, torch.randn(count, 512), 60).cpu(), most=5)
    yield "decode, 60 frames each", f"{count / seconds:,.0f} motions/s, {60 * count / seconds:,.0f} frames/s"
    index = Index(torch.randn(windows, 512, device=setup.device), np.arange(0, windows, 10))
    query = torch.randn(512, device=setup.device)
    yield f"search of {windows:,}", f"{1000 * setup.seconds(lambda: index.best(query, 10), most=3):,.2f} ms"


def waits(setup: Setup) -> Iterator[Row]:
    """How often the host waits between two logs, by torch's own count."""
    if setup.device.type != "cuda":
        raise RuntimeError("only CUDA counts them (tests/test_fake_device.py asks without a GPU)")
    rows = {way: trainer(setup, batch=20, precision=precision_of(setup), step=way) for way in ("eager", "graph")}
    for way, taken in rows.items():
        yield f"waits in 10 steps, {way}", waits_of(taken)


def waits_of(taken: Any) -> str:
    """How many there are in ten steps, and in which lines."""
    for step in range(5):
        taken(step)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(5, 15):
                taken(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines = sorted({f"{Path(each.filename).name}:{each.lineno}" for each in caught})
    return f"{len(caught)} {', '.join(lines)}".strip()


def resume(setup: Setup) -> Iterator[Row]:
    """The losses of a training that was killed and went on, against one that was not."""
    from mclip.pipeline.store.store import open_store
    from mclip.training.model.config import ModelConfig, TrainConfig
    from mclip.training.train.journal import METRICS, read_journal
    from mclip.training.train.train import train

    url = make_store(setup.folder)
    options = {"batch": 2, "epochs": 8.0, "log_every": 1, "save_every": 2, "image_weight": 0.0, "precision": "float32"}
    sizes = ModelConfig(layers=1, feed_forward=64)
    whole, broken = (setup.folder / name for name in ("whole", "broken"))
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += ["--layers=1", "--feed-forward=64", f"--device={setup.device}"]
    kill_when_saved([sys.executable, "-m", "mclip.cli", "train", url, str(broken), *words], broken)
    for folder in (whole, broken):
        train(open_store(url), folder, TrainConfig(**options), sizes, device=setup.device)
    losses = [
        [each["loss/total"] for each in read_journal(folder / METRICS) if "loss/total" in each]
        for folder in (whole, broken)
    ]
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    yield (
        f"losses of {len(losses[0])} steps, killed and resumed",
        "equal" if apart == 0 else f"{WRONG} equal: {apart:.1e} apart",
    )


def figures(setup: Setup) -> Iterator[Row]:
    """Whether `mclip evaluate` runs on the device and finds the CPU's error, of the run that was killed."""
    from mclip.pipeline.store.store import open_store
    from mclip.training.data.crops import crops_of
    from mclip.training.evaluate.evaluate import evaluate
    from mclip.training.measure.reconstruction import reconstruct
    from mclip.training.model.run import load_run

    store = open_store(setup.folder / "store.zarr")
    known, there = (load_run(setup.folder / "broken", device=each) for each in ("cpu", setup.device))
    known_mm = reconstruct(known.model, crops_of(known, store, "train")).summary()["mpjpe_mm"]
    tree, _ = evaluate(there, store, split=None, queries=None, encoder=None)
    yield (
        "evaluate, MPJPE, relative difference",
        judged(abs(tree["reconstruction"]["mpjpe_mm"] / known_mm - 1), FIGURE),
    )


def make_store(folder: Path) -> str:
    """A store of one shipped motion with a random vector for each text."""
    import numpy as np

    from mclip.pipeline.files.assets import MOTIONS
    from mclip.pipeline.labels.label_files import read_labels
    from mclip.pipeline.prepare.options import PrepareOptions
    from mclip.pipeline.prepare.prepare import prepare
    from mclip.pipeline.store.store import open_store
    from mclip.workflows.benchmark_space import add_vectors

    store = open_store(folder / "store.zarr", create=True)
    labels = read_labels((MOTIONS / "babel",), None)
    prepare(MOTIONS, store, labels=labels, options=PrepareOptions(), only=("/walk/", "/kick/", "/run/"))
    add_vectors(store, np.random.default_rng(0))
    ((name, known),) = store.encoders.items()
    made_up = {"clip": "ViT-B-32", "pretrained": None, "weights_sha256": None}
    store.set_attributes("embed", encoders={name: known | made_up})
    return store.url


def kill_when_saved(words: list[str], folder: Path, *, patience: float = 300) -> None:
    """Start a training and kill it when its first checkpoint is there; RuntimeError where none comes."""
    child = subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + patience
    while not list(folder.glob("checkpoints/*[0-9]/state.json")):
        if child.poll() is not None or time.monotonic() > until:
            child.kill()
            raise RuntimeError(
                f"the training to be killed saved nothing: {(child.communicate()[1] or '').strip()[-300:]}"
            )
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    child.communicate()


PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "as the CPU": parity,
    "a step": steps,
    "Muon": muon,
    "against the release": against_plain,
    "embed": embedding,
    "the latent space": space,
    "waiting": waits,
    "after a kill": resume,
    "figures": figures,
}


def measured(setup: Setup, part: Callable[[Setup], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a part; where it cannot go on, why."""
    try:
        yield from part(setup)
    except Exception as error:  # whatever a machine may lack: the others go on
        yield part.__name__, f"not run: {reason(error)}"


def reason(error: Exception) -> str:
    """An error in a line of a table."""
    from mclip.pipeline.machine.words import first_line

    return first_line(error).replace("|", "/")[:300]


def name_of(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """mclip from this checkout, where it is not installed: a folder in which it has its name."""
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("mclip") is None:
            (Path(folder) / "mclip").symlink_to(HERE.parent, target_is_directory=True)
            sys.path.insert(0, folder)
        yield


@click.command()
@click.option("--quick", is_flag=True, help="Small models and few rounds: whether all runs, not how fast.")
@click.option("--device", "word", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--minutes", type=click.FloatRange(1), default=8, show_default=True, help="Time for all of it.")
@click.option("--out", type=click.Path(path_type=Path), help="File of the table [default: records/gpu-DEVICE.md].")
def main(quick: bool, word: str, minutes: float, out: Path | None) -> None:
    """Measure what a device does with mclip."""
    with importable(), tempfile.TemporaryDirectory() as folder:
        from mclip.pipeline.files.atomic import write_aside
        from mclip.pipeline.machine.devices import pick_device

        setup = Setup(pick_device(word), quick, Path(folder), minutes)
        name, started = name_of(setup.device), time.perf_counter()
        kind = "quick: whether all runs, not how fast" if quick else "in full"
        lines = [
            f"# mclip on {name}",
            "",
            f"torch {torch.__version__}, {kind}.",
            "",
            "| part | what | found |",
            "|---|---|---|",
        ]
        print(*lines, sep="\n", flush=True)
        for title, part in PARTS.items():
            for what, found in measured(setup, part):
                lines.append(f"| {title} | {what} | {found} |")
                print(lines[-1], flush=True)
        lines += ["", f"{time.perf_counter() - started:.0f} seconds."]
        out = out or HERE / f"records/gpu-{name.lower().replace(' ', '-')}.md"
        write_aside(out, "\n".join(lines) + "\n")
        print("", lines[-1], f"written: {out}", sep="\n")
        if wrong := [line for line in lines if WRONG in line]:
            sys.exit("\n".join(["not as it should be:", *wrong]))


if __name__ == "__main__":
    main()
