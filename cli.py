"""The commands of mclip, in the order the data goes: parse, call one function, echo."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.labels.spans import LabelRules
from mclip.pipeline.machine.commands import Group, Refusal, going_on, require_all
from mclip.pipeline.machine.options import Finite, options_of
from mclip.pipeline.machine.words import say, warn
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.render.options import RenderOptions, VideoOptions
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.show.options import LONGEST, SHORTEST, Shaping

OpenRun = Callable[[], Any]  # a Run
READ_BY = ("joints", "rot6d", "map", "up")  # options that say what a motion file does not say itself
FORMATS = ("npz", "bvh", "glb", "vrma", "mp4", "gif", "png", "html")
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


def finish(store: Any, *summaries: Any) -> None:
    """Print the summary lines of a stage, and keep them for `mclip status`; exit code 1 when something failed."""
    from mclip.pipeline.store.status import record_runs

    record_runs(store, summaries)
    for summary in summaries:
        say(summary)
    if any(summary.failed for summary in summaries):
        raise SystemExit(1)


def tell_plain(run: Any, *, plain: bool = False) -> None:
    """Say so when a run cannot carry texts to its training motions."""
    if not plain and run.z_NC is None:
        warn(f"{run.folder}: keeps no vectors of training motions: texts are decoded as with --plain")


store_argument = click.argument("store")  # a path or a URL: s3://, gs://, memory://, so no click.Path
run_argument = click.argument("run", type=click.Path(path_type=Path))
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after about this many items.")
scale_option = click.option(
    "--scale",
    "scales",
    multiple=True,
    type=Finite(-1e6, 1e6),
    default=(0.0, 0.5, 1.0),
    help="Strength of the change; may be repeated.",
)
WHERE = "Where to compute: cpu, cuda, cuda:N, mps, or auto, CUDA where there is a GPU."
device_option = click.option("--device", default="auto", help=WHERE)
checkpoint_option = click.option(
    "--checkpoint", default="last", help="Which of RUN's checkpoints: last, best, or a step."
)
clips_option = click.option("--store", help="Store whose clips store:LABEL names.")
trust_option = click.option(
    "--trust-encoder", is_flag=True, help="Load an encoder that RUN names outside its folder or on the hub."
)
plain_option = click.option(
    "--plain", is_flag=True, help="Decode texts as the paper does, not carried to where the training motions lie."
)
top_option = click.option("--top", type=click.IntRange(min=1), default=5, help="How many results to show.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def opens_run(command: Any) -> Any:
    """Give a command that takes RUN the options how to open it, and in their place `open_run`, which opens it."""

    @functools.wraps(command)
    def opening(*, run: Path, device: str, checkpoint: str, trust_encoder: bool = False, **options: Any) -> Any:
        from mclip.training.model.run import load_run

        open_run = functools.partial(load_run, run, device, checkpoint=checkpoint, trust_encoder=trust_encoder)
        return command(open_run=open_run, **options)

    return checkpoint_option(device_option(opening))


character_option = click.option(
    "--character", type=click.Path(path_type=Path), help="Your own .glb, .vrm, .vrma or .bvh, to put motions on."
)


def wears_character(command: Any) -> Any:
    """Give a command under `reads_motion` a `character` of its user's, read before anything else is done.

    What --map names are then the character's joints, and no motion file's.
    """

    @functools.wraps(command)
    def wearing(*, character: Path | None, asked: Asked, **options: Any) -> Any:
        if character is None:
            return command(character=None, asked=asked, **options)
        from mclip.pipeline.characters.character import Character

        worn = Character.read(character, asked.joint_map)
        return command(character=worn, asked=replace(asked, joint_map=""), **options)

    return character_option(wearing)


def together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorators as one, as if they stood above a command in this order."""
    return lambda command: functools.reduce(lambda made, decorate: decorate(made), reversed(decorators), command)


def motion_options(command: Any) -> Any:
    """The options of every command that decodes motions into a folder."""
    return together(
        click.option(
            "--root",
            type=click.Choice(("keep", "front")),
            default="keep",
            help="Where the motion faces: as decoded, or turned so that its first frame faces the viewer (-y).",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="Folder to write to [default: one that is named after what is made].",
        ),
        click.option("--replace", is_flag=True, help="Delete the motions of another request that the folder holds."),
        click.option(
            "--frames",
            type=click.IntRange(SHORTEST, LONGEST),
            help="Frames per motion [default: as many as a training crop].",
        ),
        click.option(
            "--format",
            "formats",
            multiple=True,
            type=click.Choice(FORMATS),
            default=("npz", "mp4"),
            help="Files to write for each motion.",
        ),
        wears_character,
        options_of(Shaping, VideoOptions),
        plain_option,
        trust_option,
    )(command)


def write_motions(run: Any, kind: str, prompts: Any, **how: Any) -> None:
    """Decode prompts into a folder as `motion_options` say, and print the summary line."""
    from mclip.training.show import folder

    looks = RenderOptions(**{name: how.pop(name) for name in VideoOptions.__dataclass_fields__})
    shaping = Shaping(**{name: how.pop(name) for name in Shaping.__dataclass_fields__})
    say(folder.write_motions(run, kind, prompts, looks=looks, shaping=shaping, **how))


def serving_options(port: int, *, asks: str) -> Callable[[Any], Any]:
    """The options of a command that listens on a port; `asks` are those whom it asks for a token."""
    return together(
        click.option(
            "--host",
            default="127.0.0.1",
            help=f"Address to listen on; any other than this machine asks {asks} for a token.",
        ),
        click.option(
            "--port", type=click.IntRange(0, 65535), default=port, help="Port to listen on; 0 takes any free one."
        ),
        click.option(
            "--token",
            envvar="MCLIP_TOKEN",
            help=f"Token that {asks} must name [default: made up where --host needs one].",
        ),
    )


def fps_in_option(name: str) -> Callable[[Any], Any]:
    """The option for the frame rate that a file does not say, under the name that a command calls it by."""
    told = "Frames per second of source files that do not say it themselves."
    return click.option("--fps-in", "--array-fps", name, type=Finite(0, min_open=True), help=told)


def reads_motion(command: Any) -> Any:
    """Give a command that takes motion files what `mclip prepare` asks of them, and in its place `asked`."""

    @functools.wraps(command)
    def reading(*, fps_in: float | None, **options: Any) -> Any:
        said = {name: options.pop(name) for name in READ_BY}
        return command(asked=PrepareOptions(array_fps=fps_in, **said).asked, **options)

    others = tuple(each for each in PrepareOptions.__dataclass_fields__ if each not in READ_BY)
    return fps_in_option("fps_in")(options_of(PrepareOptions, without=others)(reading))


GROUPS = {
    "Make a store": ("prepare", "skeleton", "body", "render", "embed"),
    "Train": ("train", "evaluate", "import-checkpoint"),
    "Use a run": ("generate", "edit", "interpolate", "style", "recognise", "search", "export"),
    "Show and share": ("gallery", "studio", "serve", "page", "export-model"),
    "Look at a store": ("status", "validate", "inspect", "video"),
    "Run everything": ("quickstart", "run"),
}


@click.group(cls=Group, groups=GROUPS, context_settings=CONTEXT)
@click.version_option(package_name="mclip")
def cli() -> None:
    """Train MotionCLIP on motion capture and use its latent space: text to motion, editing, search, recognition."""


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@store_argument
@click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Labels: a folder of BABEL, HumanML3D or BONES-SEED, a .csv or .jsonl, `embedded` or `everyday`; "
    "may be repeated.",
)
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    help="A .csv or .jsonl of path,split, which overrides all other splits; or `amass` for AMASS's own split.",
)
@options_of(PrepareOptions, LabelRules, without=("array_fps",))
@fps_in_option("array_fps")
@click.option(
    "--only", multiple=True, help="Only files whose path holds this word, or matches this pattern; may be repeated."
)
@limit_option
@click.option("--workers", default=2, help="How many blocks of sequences are read at the same time.")
@click.option("--scheduler", default="threads", help="sync, threads, processes, or a dask cluster's tcp://HOST:PORT.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--replace", is_flag=True, help="Empty the store first.")
@click.option("--replace-changed", is_flag=True, help="Prepare files again that changed since; deletes the pictures.")
@click.option("--take-over", is_flag=True, help="Write to a remote store although a dead run still holds it.")
def prepare(
    source: Path,
    store: str,
    labels: tuple[Path, ...],
    split: Path | None,
    only: tuple[str, ...],
    limit: int | None,
    workers: int,
    scheduler: str,
    dry_run: bool,
    replace: bool,
    replace_changed: bool,
    take_over: bool,
    **options: Any,
) -> None:
    """Read motion and label files into a store.

    SOURCE is a folder, an archive (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz) or a file: .bvh, .glb, .gltf, .vrm or .vrma
    of any human skeleton, .amc with its .asf, .c3d of joints; or arrays (.npz, .npy, .smpl, .pkl, .pt) of SMPL's,
    SMPL+H's or SMPL-X's rotations under the names of AMASS, smplx, AIST++, Meshcapade, GVHMR, WHAM, TRAM, PromptHMR,
    4D-Humans, PHC or Motion-X, or of joint places as HumanML3D, MDM, Kinect, MediaPipe, OpenPose and others write them.
    Each person or clip in a file is a sequence. mclip ships two sources: `embedded`, twenty captured motions, and
    `everyday`, twenty written by hand.

    \b
    Example: mclip prepare AMASS store.zarr --labels BABEL
    """
    from mclip.pipeline.files.assets import SHIPPED
    from mclip.pipeline.labels.label_files import read_labels
    from mclip.pipeline.machine.terminal import peak_memory
    from mclip.pipeline.prepare import prepare as stage
    from mclip.pipeline.store.lock import one_writer
    from mclip.pipeline.store.store import delete_store, is_store, open_store

    if str(source) in SHIPPED:
        source, labels = SHIPPED[str(source)], labels or (source,)
    labels = tuple(SHIPPED[str(each)] / "babel" if str(each) in SHIPPED else each for each in labels)
    rules = LabelRules(**{name: options.pop(name) for name in LabelRules.__dataclass_fields__})
    shape = PrepareOptions(**options)
    if dry_run:
        say(stage.preview(source, store, shape, only=only, limit=limit))
        return
    found = read_labels(labels, split, rules)
    if replace or not is_store(store):
        stage.require_motions(source, only, shape.map)  # before a store is emptied, or made for nothing
    with one_writer(store, take_over=take_over):
        if replace:
            delete_store(store)
        opened = open_store(store, create=True)
        summary = stage.prepare(
            source,
            opened,
            labels=found,
            label_files=", ".join(map(str, labels)),
            options=shape,
            only=only,
            limit=limit,
            workers=workers,
            scheduler=scheduler,
            replace_changed=replace_changed,
        )
        say(f"{stage.summary_line(opened)}; {peak_memory()}")
        for line in (*stage.told_of_kinds(opened), *stage.told_of_labels(opened)):
            say(f"  {line}")
    finish(opened, summary)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "joint_map", default="", help='A .toml of `left_hip = "THEIR NAME"` to read it with.')
@click.option("--write-map", type=click.Path(path_type=Path), help="Write a .toml for --map, to be edited.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the file's skeleton and ours to this .png.")
def skeleton(file: Path, joint_map: str, write_map: Path | None, picture: Path | None) -> None:
    """Show which joint of a BVH or glTF file is taken for which of SMPL's, and how well they agree.

    \b
    Example: mclip skeleton walk.bvh --picture walk.png
             mclip skeleton strange.bvh --write-map map.toml
             mclip prepare FOLDER store.zarr --map map.toml
    """
    from mclip.pipeline.characters.look import look

    seen = look(file, joint_map)
    say(seen.text)
    if write_map:
        write_map.write_text(seen.map, encoding="utf-8")
        say(f"map: {write_map}")
    if picture and seen.solved:
        seen.draw(picture)
        say(f"picture: {picture}")
    if seen.reason:
        raise Refusal(seen.reason)


@cli.group(cls=Group)
def body() -> None:
    """Import body models such as SMPL to draw.

    \b
    Example: mclip body import smplh/neutral/model.npz neutral.npz
    """


@body.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def import_body(file: Path, out: Path) -> None:
    """Convert a SMPL, SMPL+H or SMPL-X model FILE (.npz or .pkl) into OUT.npz, which --body takes.

    A .pkl is read without running it, and chumpy is not needed. The models are free for research, after registering:

    \b
    SMPL    https://smpl.is.tue.mpg.de    basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl, ..._f_..., ..._m_...
    SMPL+H  https://mano.is.tue.mpg.de    smplh/neutral/model.npz of `Extended SMPL+H model`, as AMASS uses it
    SMPL-X  https://smpl-x.is.tue.mpg.de  SMPLX_NEUTRAL.npz
    Example: mclip body import smplh/neutral/model.npz bodies/neutral.npz
    """
    from mclip.pipeline.geometry import body_files as body_file

    say(body_file.import_body(file, out))


@cli.command()
@store_argument
@options_of(RenderOptions)
@click.option("--backend", default="auto", help="auto, cpu, torch, pytorch3d or pyrender.")
@device_option
@click.option("--sheet", type=click.Path(path_type=Path), help="Where to write the contact sheet [default: STORE.png].")
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    help="Export all pictures: to a folder of PNGs, or to a WebDataset .tar.",
)
@limit_option
@click.option("--workers", default=1, help="How many blocks of pictures are drawn at the same time.")
@click.option("--scheduler", default="sync", help="sync, threads, processes, or a dask cluster's tcp://HOST:PORT.")
@click.option("--dry-run", is_flag=True, help="Only say what would be drawn.")
@click.option("--replace", is_flag=True, help="Delete the store's pictures and vectors first.")
@click.option("--take-over", is_flag=True, help="Write to a remote store although a dead run still holds it.")
def render(
    store: str,
    backend: str,
    device: str,
    sheet: Path | None,
    export: Path | None,
    limit: int | None,
    workers: int,
    scheduler: str,
    dry_run: bool,
    replace: bool,
    take_over: bool,
    **options: Any,
) -> None:
    """Draw pictures of every window of a store.

    \b
    A folder of bodies has a *_NEUTRAL.npz, *_FEMALE.npz and *_MALE.npz; each sequence gets its gender's.
    Example: mclip render store.zarr --frames 3
             mclip render store.zarr --pick random --views 4 --export pictures.tar
    """
    from mclip.pipeline.render import picture_files as pictures
    from mclip.pipeline.render import render as stage
    from mclip.pipeline.render.sheets import contact_sheet
    from mclip.pipeline.store.location import beside
    from mclip.pipeline.store.lock import one_writer
    from mclip.pipeline.store.store import open_store

    shape = RenderOptions(**options)
    if dry_run:
        say(stage.preview(open_store(store), shape))
        return
    with one_writer(store, take_over=take_over):
        opened = open_store(store)
        summary = stage.render(
            opened,
            shape,
            backend=backend,
            device=device,
            limit=limit,
            scheduler=scheduler,
            workers=workers,
            replace=replace,
        )
        sheet = sheet or beside(store, ".png")
        if contact_sheet(opened, sheet):  # always: nobody knows whether a file that is there shows all of today's
            say(f"contact sheet: {sheet}")
        if export:
            say(pictures.export_pictures(opened, export))
    finish(opened, summary)


@cli.command()
@store_argument
@click.argument("clip")
@click.argument("out", type=click.Path(path_type=Path))
@options_of(RenderOptions, without=("frames", "pick", "seed"))
@click.option("--backend", default="auto", help="auto, cpu, torch, pytorch3d or pyrender.")
@device_option
def video(store: str, clip: str, out: Path, backend: str, device: str, **options: Any) -> None:
    """Write one sequence of a store as a video.

    CLIP is the sequence's name, or a part of it that no other name has. OUT ends in .mp4.

    \b
    Example: mclip video store.zarr 01_01 walk.mp4 --ground
    """
    from mclip.pipeline.render.video import write_video
    from mclip.pipeline.store.store import open_store

    opened = open_store(store)
    item = opened.find_sequence(clip)
    say(write_video(opened, item, out, options=RenderOptions(**options), backend=backend, device=device))


@cli.command()
@store_argument
@click.option("--clip", default="ViT-B-32", help="An open_clip model, hf-hub:ORG/NAME, local-dir:PATH, or offline.")
@click.option("--pretrained", help="Tag of that model, or a file with its weights [default: openai].")
@click.option(
    "--template",
    "templates",
    multiple=True,
    help='Template such as "a person {}"; may be repeated, then the vectors are averaged.',
)
@click.option(
    "--dtype", type=click.Choice(("float32", "float16")), default="float32", help="Type of the stored vectors."
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float32",
    help="Precision of the matrix products.",
)
@click.option(
    "--without", multiple=True, type=click.Choice(("texts", "pictures")), help="Go on although the store has none."
)
@click.option("--device", default="auto", help=f"{WHERE} Several share the pictures: cuda:0,cuda:1.")
@limit_option
@click.option("--replace", is_flag=True, help="Delete this encoder's vectors first.")
def embed(
    store: str,
    clip: str,
    pretrained: str | None,
    templates: tuple[str, ...],
    dtype: str,
    precision: str,
    without: tuple[str, ...],
    device: str,
    limit: int | None,
    replace: bool,
) -> None:
    """Compute the CLIP vector of every picture and text of a store.

    \b
    Example: mclip embed store.zarr --clip ViT-B-32 --pretrained openai
             mclip embed store.zarr --clip ViT-B-32 --pretrained ViT-B-32.pt --template "a person {}"
             mclip embed store.zarr --clip offline
    """
    from mclip.pipeline.embed import embed as stage
    from mclip.pipeline.embed.loading import load_encoder
    from mclip.pipeline.embed.offline import OFFLINE
    from mclip.pipeline.embed.vectors import cut_texts, zero_shot
    from mclip.pipeline.machine.devices import pick_device
    from mclip.pipeline.store.lock import one_writer
    from mclip.pipeline.store.store import open_store

    first, *others = map(pick_device, device.split(","))
    if pretrained is None and ":" not in clip and clip != OFFLINE:
        pretrained = "openai"
    with one_writer(store):
        opened = open_store(store)
        encoder = load_encoder(clip, pretrained, templates=templates, precision=precision, device=first)
        if replace:
            stage.forget(opened, encoder.name)
        beside = [encoder.on(each) for each in others]
        summaries = stage.embed(opened, encoder, beside=beside, dtype=dtype, limit=limit, without=without)
        if precision != "float32":
            say(f"{precision} against float32: cosine at least {stage.cosine_to_float32(opened, encoder):.6f}")
        say(f"cut to {encoder.context} tokens: {cut_texts(opened, encoder.name)} texts")
        for name, figure in zero_shot(opened, encoder.name).items():
            say(f"text -> picture {name}: {figure:.2f}")
    finish(opened, *summaries)


@cli.command()
@store_argument
@run_argument
@options_of(TrainConfig, ModelConfig)
@device_option
@click.option("--start-from", type=click.Path(path_type=Path), help="Begin with the weights of this other run.")
@click.option("--replace", is_flag=True, help="Delete the run first.")
def train(store: str, run: Path, device: str, start_from: Path | None, replace: bool, **options: Any) -> None:
    """Train MotionCLIP on a store.

    Everything is written to the folder RUN. The same command again continues an interrupted run, and with more
    --epochs a finished one.

    \b
    Example: mclip train store.zarr runs/cmu --encoder offline
             mclip train mine.zarr runs/mine --start-from runs/cmu --epochs 20
             torchrun --nproc-per-node 2 -m mclip.cli train store.zarr runs/cmu
    """
    from mclip.pipeline.machine.devices import pick_device
    from mclip.pipeline.store.lock import one_writer
    from mclip.pipeline.store.store import open_store
    from mclip.training.model.config import split_options
    from mclip.training.train import train as trainer
    from mclip.training.train.workers import is_first

    config, sizes = split_options(options)
    opened, place = open_store(store), pick_device(device)
    with one_writer(str(run)) if is_first() else contextlib.nullcontext():
        line = trainer.train(opened, run, config, sizes, device=place, replace=replace, start_from=start_from)
    if is_first():
        say(line)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("opt_yaml", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run folder to make.")
@click.option("--clip", default="ViT-B-32", help="open_clip model that it was trained with.")
@click.option("--pretrained", default="openai", help="Tag of that model, or a file with its weights.")
def import_checkpoint(checkpoint: Path, opt_yaml: Path | None, out: Path, clip: str, pretrained: str) -> None:
    """Make a run folder from a checkpoint of the paper's release.

    CHECKPOINT is its checkpoint_NNNN.pth.tar; OPT_YAML is the opt.yaml beside it.

    \b
    Example: mclip import-checkpoint checkpoint_0100.pth.tar opt.yaml --out runs/release
    """
    from mclip.training.model import paper_checkpoint as release

    say(release.import_checkpoint(checkpoint, opt_yaml, out, clip=clip, pretrained=pretrained))


@cli.command()
@run_argument
@store_argument
@click.option("--split", type=click.Choice(("train", "val", "test")), help="[default: val if there is one, else train]")
@click.option("--queries", type=click.Path(path_type=Path), help='JSON list of {"text": ..., "clip": ...} to find.')
@click.option("--classes", help="Recognise among these too, as recognise takes them.")
@json_option
@click.option("--replace", is_flag=True, help="Measure again.")
@trust_option
@opens_run
def evaluate(
    open_run: OpenRun,
    store: str,
    split: str | None,
    queries: Path | None,
    classes: str | None,
    as_json: bool,
    replace: bool,
) -> None:
    """Measure how good a run is on a store.

    Reconstruction, retrieval and recognition go to RUN/evaluation.json and RUN/report.html.

    \b
    Example: mclip evaluate runs/cmu store.zarr --split val
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.evaluate import evaluate as evaluation
    from mclip.training.evaluate.report import format_tables

    figures, line = evaluation.evaluate_once(
        open_run(), open_store(store), split=split, queries=queries, classes=classes, replace=replace
    )
    say(json.dumps(figures, indent=2) if as_json else f"{format_tables(figures)}{line}")


@cli.command()
@run_argument
@click.argument("texts", nargs=-1)
@click.option(
    "--file", "file", type=click.File("r", encoding="utf-8"), help="File of prompts, one per line; # begins a comment."
)
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="Make another motion of each text with this seed; may be repeated."
)
@click.option(
    "--vary",
    type=Finite(0, min_open=True),
    help="How far --seed moves away from the text, as a share of its vector [default: 0.5].",
)
@click.option(
    "--sequence", is_flag=True, help='Make one motion of all texts; "a person walks @3" lasts three seconds of it.'
)
@click.option(
    "--pose", "poses", multiple=True, metavar="FRAME=FILE[:FRAME]", help="A pose to go through; may be repeated."
)
@click.option("--path", metavar="'X,Y X,Y ...'", help="Points on the floor to go along at even times, in metres.")
@reads_motion
@motion_options
@opens_run
def generate(
    open_run: OpenRun,
    texts: tuple[str, ...],
    file: Any,
    seeds: tuple[int, ...],
    vary: float | None,
    sequence: bool,
    poses: tuple[str, ...],
    path: str | None,
    plain: bool,
    asked: Asked,
    **how: Any,
) -> None:
    """Turn texts into motions.

    Each text gives one motion. The decoder is deterministic: the same text always gives the same motion. --seed gives
    others. With --sequence the texts are the parts of one motion.

    \b
    Example: mclip generate runs/cmu "a person walks" "jump over the couch"
             mclip generate runs/cmu "a person dances" --seed 1 --seed 2 --seed 3
             mclip generate runs/cmu "a person waves" --character hero.vrm
             mclip generate runs/cmu "a person walks @3" "sits down @2" --sequence
             mclip generate runs/cmu "a person walks" --pose 45=kick.npz:20 --path "0,0 0,-1 0.5,-1.5"
    """
    from mclip.pipeline.files.documents import not_utf8
    from mclip.training.latent.keyframes import steering
    from mclip.training.latent.prompts import MOST_PROMPTS, VARY, generated, in_sequence, prompts_in, timed, unplaced
    from mclip.training.latent.space import require_readable

    try:
        prompts = [*texts, *prompts_in(file or ())]
    except UnicodeDecodeError as error:
        raise not_utf8(file.name, error) from error
    if not prompts:
        told = f"{file.name}: no text in it" if file else "nothing to generate"
        raise click.UsageError(f"{told}: name at least one text, or a --file of them")
    if len(prompts) > MOST_PROMPTS:
        raise click.UsageError(f"{len(prompts):,} texts, expected at most {MOST_PROMPTS:,}: name fewer at a time")
    if vary and not seeds:
        raise click.UsageError("--vary says how far a --seed leads: name at least one")
    if (poses or path) and (sequence or how["loop"]):
        raise click.UsageError("--pose and --path steer one crop: leave out --sequence and --loop")
    parts = [timed(prompt) if sequence else (prompt, None) for prompt in prompts]
    opened = open_run()
    tell_plain(opened, plain=plain)
    steer = steering(opened, poses, path, frames=how["frames"], asked=asked)
    encoder = opened.load_encoder()
    good, failed = list[str](), list[str]()
    for prompt, _ in parts:
        with going_on(failed, prompt):
            require_readable(prompt)
            good.append(prompt)
    if sequence:
        require_all(failed, len(prompts))
    for prompt in unplaced(encoder, good) if good else []:
        warn(f"{prompt!r} is as far from all known motions as words without sense: expect any motion")
    if good:
        made: Any = generated(opened, good, seeds, share=vary or VARY, plain=plain, encoder=encoder)
        made = [steer(prompt) for prompt in made]
        if sequence:
            lasting = [seconds for _, seconds in parts]
            made = in_sequence(made, lasting, fps=opened.fps, frames=how["frames"] or opened.crop)
        write_motions(opened, "generate", made, **how)
    require_all(failed, len(prompts))


@cli.command()
@run_argument
@click.option("--base", help="A text, a motion file (.npz, .bvh), or store:LABEL for a clip of --store.")
@click.option("--from", "from_", help="What to take away, given as --base.")
@click.option("--to", help="What to put in its place, given as --base.")
@scale_option
@click.option(
    "--file", type=click.Path(path_type=Path), help="A csv of base,v_start,v_end instead, as in the paper's release."
)
@clips_option
@reads_motion
@motion_options
@opens_run
def edit(
    open_run: OpenRun,
    base: str | None,
    from_: str | None,
    to: str | None,
    scales: tuple[float, ...],
    file: Path | None,
    store: str | None,
    plain: bool,
    asked: Asked,
    **how: Any,
) -> None:
    """Edit a motion: decode base + scale (to - from).

    \b
    Example: mclip edit runs/cmu --base walk.npz --from "walk" --to "run"
             mclip edit runs/cmu --file paper_edits.csv --store store.zarr
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.latent.prompts import EDIT, edits, table_in

    words = (base, from_, to)
    if (file is None) == (None in words) or (file and any(words)):
        raise click.UsageError("name all of --base, --from and --to, or a --file of them")
    named = dict(zip(EDIT, map(str, words), strict=True))
    rows = table_in(file, EDIT) if file else [named]
    opened = open_run()
    tell_plain(opened, plain=plain)
    made = edits(opened, rows, scales, store=open_store(store) if store else None, plain=plain, asked=asked)
    write_motions(opened, "edit", made, **how)


@cli.command()
@run_argument
@click.argument("start", required=False)
@click.argument("end", required=False)
@click.option("--steps", default=5, help="How many motions, both ends included.")
@click.option(
    "--path",
    type=click.Choice(("line", "circle")),
    default="line",
    help="Interpolate on a straight line or on the great circle.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="A csv of start,end instead, as in the paper's release; it names clips of --store.",
)
@clips_option
@reads_motion
@motion_options
@opens_run
def interpolate(
    open_run: OpenRun,
    start: str | None,
    end: str | None,
    steps: int,
    path: str,
    file: Path | None,
    store: str | None,
    plain: bool,
    asked: Asked,
    **how: Any,
) -> None:
    """Make motions between two motions.

    START and END are each a text, a motion file (.npz, .bvh), or store:LABEL.

    \b
    Example: mclip interpolate runs/cmu "walk" "crawl" --steps 5
             mclip interpolate runs/cmu --file paper_interps.csv --store store.zarr
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.latent.prompts import INTERPOLATION, interpolations, table_in

    if (file is None) == (end is None) or (file and start):
        raise click.UsageError("name START and END, or a --file of them")
    words = {"start": start or "", "end": end or ""}
    # The release's table has no column that says so, and its words are labels of its data.
    rows = table_in(file, INTERPOLATION, source="data" if store else "text") if file else [words]
    opened = open_run()
    tell_plain(opened, plain=plain)
    opened_store = open_store(store) if store else None
    made = interpolations(opened, rows, steps, path=path, store=opened_store, plain=plain, asked=asked)
    write_motions(opened, "interpolate", made, **how)


@cli.command()
@run_argument
@click.option("--content", required=True, help="What is done: a text, a motion file, or store:LABEL of --store.")
@click.option("--style", "style_", required=True, help="How it is done, given as --content.")
@click.option("--neutral", help="The action of --style without the style, which is taken away; given as --content.")
@scale_option
@clips_option
@reads_motion
@motion_options
@opens_run
def style(
    open_run: OpenRun,
    content: str,
    style_: str,
    neutral: str | None,
    scales: tuple[float, ...],
    store: str | None,
    plain: bool,
    asked: Asked,
    **how: Any,
) -> None:
    """Do one thing in the style of another.

    Decodes content + scale * style, as the paper adds a style; with --neutral, content + scale (style - neutral).

    \b
    Example: mclip style runs/cmu --content run.npz --style "proud"
             mclip style runs/cmu --content run.npz --style proud_walk.npz --neutral walk.npz
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.latent.prompts import styles

    opened = open_run()
    tell_plain(opened, plain=plain)
    opened_store = open_store(store) if store else None
    made = styles(opened, content, style_, scales, neutral=neutral, store=opened_store, plain=plain, asked=asked)
    write_motions(opened, "style", made, **how)


@cli.command()
@run_argument
@click.argument("motions", nargs=-1, required=True, metavar="MOTION...", type=click.Path(path_type=Path))
@click.option(
    "--classes", default="babel60", help="babel60, babel120, a file with one class per line, or BABEL's list."
)
@top_option
@json_option
@trust_option
@reads_motion
@opens_run
def recognise(
    open_run: OpenRun, motions: tuple[Path, ...], classes: str, top: int, as_json: bool, asked: Asked
) -> None:
    """Name what motions show.

    Each MOTION (.npz, .bvh) is cut into pieces as long as a training crop; the nearest classes of each are named.

    \b
    Example: mclip recognise runs/cmu walk.npz --classes babel60 --top 3
    """
    from mclip.pipeline.embed.classes import classes_of
    from mclip.training.latent.recognise import format_classes
    from mclip.training.latent.recognise import recognise as recognise_motion

    names = classes_of(classes)
    opened = open_run()
    vectors = opened.load_encoder().encode_texts(names)
    found, failed = {}, list[str]()
    for motion in motions:
        with going_on(failed, motion):
            found[str(motion)] = recognise_motion(opened, motion, vectors, names, top=top, asked=asked)
    if found:
        say(format_classes(found, as_json=as_json))
    require_all(failed, len(motions))


@cli.command()
@run_argument
@click.argument("query")
@click.option("--store", required=True, help="Store to search.")
@top_option
@json_option
@trust_option
@reads_motion
@opens_run
def search(open_run: OpenRun, query: str, store: str, top: int, as_json: bool, asked: Asked) -> None:
    """Find the clips of a store that are nearest to a query.

    QUERY is a text, a motion file (.npz, .bvh), or store:LABEL.

    \b
    Example: mclip search runs/cmu "a karate kick" --store store.zarr --top 3
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.latent import search as searching

    found = searching.search(open_run(), open_store(store), query, top=top, asked=asked)
    say(searching.format_hits(query, found, as_json=as_json))


@cli.command()
@click.argument("motions", nargs=-1, required=True, metavar="MOTION...", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "formats",
    multiple=True,
    type=click.Choice((*FORMATS, "humanml3d")),
    help="Format to write; may be repeated.",
)
@character_option
@click.option("--fps", type=Finite(1, 240), help="Frames per second [default: those of the motion].")
@click.option("--out", type=click.Path(path_type=Path), default="exported", help="Folder to write to.")
@options_of(Shaping, without=("loop", "in_place"))
@options_of(VideoOptions)
@reads_motion
def export(
    motions: tuple[Path, ...],
    formats: tuple[str, ...],
    fps: float | None,
    out: Path,
    foot_lock: bool,
    character: Path | None,
    asked: Asked,
    **looks: Any,
) -> None:
    """Convert motion files to other formats, or put them on a character of your own.

    Each MOTION is a .bvh, .amc, .c3d, .glb, .gltf, .vrm or .vrma, or arrays of rotations or joint places: .npz, .npy,
    .smpl, .pkl, .pt; FILE/NAME is one of several in a file. `humanml3d` writes features and places at 20 fps, in that
    data set's folders. A character comes out as it was, with the motion as an animation; --map is then of its joints.

    \b
    Example: mclip export out/00-a-person-walks.npz --to bvh --to glb --out walk
             mclip export out/00-a-person-walks.npz --to npz --foot-lock --out locked
             mclip export out/00-a-person-walks.npz --character hero.vrm --out worn
    """
    from mclip.training.show.export import export as write
    from mclip.training.show.export import export_worn

    if not formats and character is None:
        raise click.UsageError("name a format by --to, or a --character to put the motion on")
    how: dict[str, Any] = {"fps": fps, "foot_lock": foot_lock}
    of_motion = replace(asked, joint_map="") if character else asked
    shown = RenderOptions(**looks)
    failed: list[str] = []
    for motion in motions:
        with going_on(failed, motion):
            if character:
                path, worn = export_worn(motion, character, out, asked=of_motion, joint_map=asked.joint_map, **how)
                say(f"{path}: {worn}")
            if formats:
                paths, lock = write(motion, formats, out, looks=shown, asked=of_motion, **how)
                say("\n".join(map(str, paths)))
                if lock:
                    say(f"{motion}: {lock}")
    require_all(failed, len(motions))


@cli.command()
@run_argument
@store_argument
@click.argument("motions", nargs=-1, type=click.Path(path_type=Path))
@click.option("--page", type=click.Path(path_type=Path), default="gallery.html", help="The HTML file to write.")
@click.option("--split", type=click.Choice(("train", "val", "test")), help="[default: val if there is one, else train]")
@click.option("--most", type=click.IntRange(min=1), default=30, help="How many reconstructions to show.")
@opens_run
def gallery(open_run: OpenRun, store: str, motions: tuple[Path, ...], page: Path, split: str | None, most: int) -> None:
    """Make one page to look at.

    It shows the clips of STORE beside their reconstructions by RUN, and the folders of generated MOTIONS.

    \b
    Example: mclip gallery runs/cmu store.zarr out --page gallery.html
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.show.gallery import write_gallery

    say(write_gallery(open_run(), open_store(store), page, folders=motions, split=split, most=most))


@cli.command()
@run_argument
@click.option("--store", help="Store to search, whose clips store:LABEL names.")
@click.option("--body", default="low", help="default, low, or a body's .npz file.")
@click.option("--classes", default="babel60", help="Classes to recognise, given as for mclip recognise.")
@character_option
@click.option("--map", "joint_map", default="", help='A .toml of `left_hip = "THEIR NAME"` for the character.')
@serving_options(8080, asks="browsers")
@trust_option
@opens_run
def studio(
    open_run: OpenRun,
    store: str | None,
    body: str,
    classes: str,
    character: Path | None,
    joint_map: str,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Open a local web page where texts become motions.

    \b
    Example: mclip studio runs/cmu --store store.zarr
             mclip studio runs/cmu --character hero.vrm
    """
    from mclip.pipeline.characters.character import Character
    from mclip.pipeline.embed.classes import classes_of
    from mclip.pipeline.geometry.body import load_body
    from mclip.pipeline.store.store import open_store
    from mclip.training.serve.doors import token_for
    from mclip.training.studio.server import serve
    from mclip.training.studio.space import Space

    token = token_for(host, token, guards="the studio")
    if joint_map and character is None:
        raise click.UsageError("--map says what joints of a --character are called: name one")
    worn = Character.read(character, joint_map) if character else None
    opened = open_store(store) if store else None
    names, model = classes_of(classes), open_run()
    tell_plain(model)
    shown, encoder = load_body(body), model.load_encoder()
    space = Space.of(model, encoder, body=shown, classes=names, store=opened, character=worn)
    serve(space, host=host, port=port, token=token, say=say)


@cli.command("export-model")
@run_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--store", help="Store that RUN was trained on: the card then tells of its motions and labels.")
@click.option("--licence", default="", help="Licence of the weights, as the card is to state it.")
@click.option("--onnx", is_flag=True, help="Write ONNX files of the model, and of the text encoder where it may go.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(("float32", "float16", "int8")),
    default=("float32", "float16", "int8"),
    help="Precision of the weights in ONNX files; may be repeated.",
)
@click.option("--replace", is_flag=True, help="Replace an exported model that OUT holds.")
@trust_option
@opens_run
def export_model(
    open_run: OpenRun,
    out: Path,
    store: str | None,
    licence: str,
    onnx: bool,
    precisions: tuple[str, ...],
    replace: bool,
) -> None:
    """Write a run's model as a folder to give away.

    OUT holds its weights, its config and a model card; every command that takes RUN takes OUT, and hf-hub:ORG/NAME.

    \b
    Example: mclip export-model runs/cmu cmu-model --store store.zarr --licence "CC BY-NC 4.0"
             mclip export-model runs/cmu cmu-model --checkpoint best --onnx --precision int8
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.portable.export_model import Wish
    from mclip.training.portable.export_model import export_model as write

    wish = Wish(open_store(store) if store else None, licence, precisions if onnx else ())
    say(write(open_run(), out, wish, replace=replace))


@cli.command()
@run_argument
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), default="model.html")
@click.option(
    "--precision",
    type=click.Choice(("float32", "float16", "int8")),
    default="int8",
    help="Precision of the weights: the file's size against how near it comes to mclip generate.",
)
@click.option("--title", default="Text to motion", help="What the page is called.")
@trust_option
@opens_run
def page(open_run: OpenRun, out: Path, precision: str, title: str) -> None:
    """Make one page that generates: texts become motions in a browser.

    OUT is one HTML file with the model, its text encoder and the viewer. It opens from disk and asks no network.

    \b
    Example: mclip page runs/cmu model.html
    """
    from mclip.training.portable.model_page import write_model_page

    say(write_model_page(open_run(), out, precision=precision, title=title))


@cli.command()
@run_argument
@click.option("--store", help="Store to search, whose clips store:LABEL names.")
@serving_options(8000, asks="programs")
@trust_option
@opens_run
def serve(open_run: OpenRun, store: str | None, host: str, port: int, token: str | None) -> None:
    """Answer programs over HTTP.

    GET / says what can be asked for: motions of texts, edits, vectors, searches, classes of a motion. MMCP is spoken
    at /mmcp, for Blender.

    \b
    Example: mclip serve runs/cmu --store store.zarr
    """
    from mclip.pipeline.store.store import open_store
    from mclip.training.api import MotionClip
    from mclip.training.serve.doors import token_for

    try:
        from mclip.training.serve.server import serve as serve_model
    except ImportError as error:
        raise Refusal(f"mclip serve needs {error.name}: pip install 'mclip[serve]'") from error
    token = token_for(host, token, guards="the server")
    opened, model = open_store(store) if store else None, MotionClip(open_run())
    tell_plain(model.run)
    serve_model(model, opened, host=host, port=port, token=token, say=say)


@cli.command()
@store_argument
def status(store: str) -> None:
    """Show what is done, pending and failed.

    Also the size of the store and how fast each stage last went.

    \b
    Example: mclip status store.zarr
    """
    from mclip.pipeline.store.status import status as chain_of
    from mclip.pipeline.store.store import open_store

    say(chain_of(open_store(store)))


@cli.command()
@store_argument
def validate(store: str) -> None:
    """Read and check every chunk of a store.

    Checks checksums, offsets, rotations, and the marks against what they stand for.

    \b
    Example: mclip validate store.zarr
    """
    from mclip.pipeline.store.store import open_store
    from mclip.pipeline.store.validate import validate as problems_of

    problems = problems_of(open_store(store))
    for problem in problems:
        say(problem)
    if problems:
        raise Refusal(f"{store}: {len(problems)} problems")
    say(f"{store}: sound")


@cli.command()
@store_argument
@click.argument("clip")
@click.option("--out", type=click.Path(path_type=Path), default="inspect.png", help="The PNG to write.")
def inspect(store: str, clip: str, out: Path) -> None:
    """Show one sequence: labels, frames, joint angles.

    CLIP is the sequence's name, or a part of it that no other name has.

    \b
    Example: mclip inspect store.zarr 01_01
    """
    from mclip.pipeline.render import inspect as looking
    from mclip.pipeline.store.store import open_store

    opened = open_store(store)
    item = opened.find_sequence(clip)
    say(looking.describe(opened, item))
    looking.draw(opened, item, out)
    say(f"picture: {out}")


@cli.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder that the recipe's paths start from [default: ./mclip-RECIPE].",
)
@click.option("--check", is_flag=True, help="Compare the results with the recipe's .expected.json.")
@click.option("--regenerate", is_flag=True, help="Write the recipe's .expected.json from these results.")
def run_recipe(recipe: Path, folder: Path | None, check: bool, regenerate: bool) -> None:
    """Run the commands of a recipe.

    RECIPE is a .toml with one table per command, or the name of one that mclip ships: babel60, bandai, cmu, paper,
    quickstart, tiny. What is there already is not made again.

    \b
    Example: mclip run tiny --check
             mclip run my_recipe.toml --folder results
    """
    from mclip.training import recipe as recipes

    recipe = recipes.find_recipe(recipe)
    folder = folder or Path(f"mclip-{recipe.stem}")
    recipes.run(cli, recipe, folder)
    if regenerate:
        say(recipes.regenerate(recipe, folder))
    if check:
        say(recipes.check(recipe, folder))


@cli.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default="mclip-quickstart", help="Folder to write everything to."
)
def quickstart(folder: Path) -> None:
    """Try everything on what mclip ships.

    Runs all steps from prepare to page without a download, in about five minutes on two cores.

    \b
    Example: mclip quickstart
    """
    from mclip.training import recipe as recipes

    recipes.run(cli, recipes.find_recipe(Path("quickstart")), folder)
    say(f"open {(folder / 'gallery.html').resolve()} to look, and model.html beside it to type texts of your own")


if __name__ == "__main__":
    sys.exit(cli())
