"""The commands of mclip, in the order the data goes: parse, call one function, echo."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
HERE = Path(__file__).resolve().parent
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


class Refusal(click.ClickException):
    """A user's mistake or a damaged input: its text, and exit code 1."""


def plainly(command: Command) -> Command:
    """Turn the library's errors, which say what to do, into a message without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            if isinstance(error, NotImplementedError):
                raise
            raise Refusal(str(error)) from error

    return wrapped


class Group(click.Group):
    """A group whose commands are listed in the order of the data's way, and whose errors are plain."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        assert cmd.callback is not None
        cmd.callback = plainly(cmd.callback)
        super().add_command(cmd, name)


def finish(*summaries: Any) -> None:
    """Print the summary lines of a stage; exit code 1 when something failed."""
    for summary in summaries:
        click.echo(summary)
    if any(summary.failed for summary in summaries):
        raise SystemExit(1)


store_argument = click.argument("store", type=click.Path(path_type=Path))
run_argument = click.argument("run", type=click.Path(path_type=Path))
out_option = click.option("--out", type=click.Path(path_type=Path), default="out", help="Folder to write to.")
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Stop after about so many items.")
frames_option = click.option(
    "--frames", type=click.IntRange(2, 5000), help="Frames of a motion [default: a training crop's]."
)
format_option = click.option(
    "--format", "formats", multiple=True, type=click.Choice(("npz", "mp4", "gif", "png")), default=("npz", "mp4"),
    help="Files to write for each motion.",
)  # fmt: skip


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(package_name="mclip")
def cli() -> None:
    """Motion capture to CLIP space: AMASS to 6D rotations, pictures, CLIP vectors, and a trained MotionCLIP.

    \b
    prepare -> render -> embed -> train -> evaluate, generate, edit, interpolate, gallery
    """


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@store_argument
@click.option("--labels", type=click.Path(path_type=Path), help="Folder of BABEL's train.json and val.json.")
@click.option("--fps", default=30.0, help="Frames per second of the store; rotations are slerped to it.")
@click.option("--window", default=100, help="Frames of a window.")
@click.option("--crop", default=60, help="Frames of a training crop within a window.")
@click.option("--short", type=click.Choice(("pad", "drop")), default="pad", help="Sequences under a window.")
@click.option("--clip", "only", multiple=True, help="Only files whose path holds this word; may be repeated.")
@limit_option
@click.option("--workers", default=2, help="Blocks of sequences that are read at the same time.")
@click.option("--scheduler", default="threads", help="dask: sync, threads, processes, or tcp://HOST:PORT.")
@click.option("--replace", is_flag=True, help="Delete the store first.")
def prepare(
    source: Path, store: Path, labels: Path | None, replace: bool, only: tuple[str, ...], **options: Any
) -> None:
    """Read AMASS files of SOURCE into STORE; SOURCE `embedded` is the motions that mclip ships.

    \b
    Example: mclip prepare AMASS store.zarr --labels BABEL
    """
    from mclip.pipeline import labels as label_files
    from mclip.pipeline import prepare as stage
    from mclip.pipeline import store as stores

    if str(source) == "embedded":
        source, labels = HERE / "pipeline/data/motions", labels or HERE / "pipeline/data/motions/babel"
    found = label_files.read_babel(labels) if labels else label_files.Labels()
    shape = stage.PrepareOptions(**{name: options.pop(name) for name in ("fps", "window", "crop", "short")})
    stage.find_motions(source)
    with stores.one_writer(str(store)):
        if replace:
            stores.delete_store(str(store))
        opened = stores.open_store(store, create=True)
        summary = stage.prepare(source, opened, labels=found, options=shape, only=only, **options)
        (Path(f"{store}") / "manifest.jsonl").write_text(stage.manifest(opened) + "\n")
        click.echo(stage.account(opened))
    finish(summary)


@cli.command()
@store_argument
@click.option("--frames", default=1, help="Pictures a window; one is the middle frame.")
@click.option("--views", default=1, help="Cameras around the body, the front one first.")
@click.option("--size", default=224, help="Pixels of a side.")
@click.option("--antialias", default=1, help="Draw this many times as large, then average.")
@click.option("--body", default="default", help="default, low, or a body's .npz file.")
@click.option("--backend", default="auto", help="auto, cpu, pytorch3d or pyrender.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Where to put the contact sheet [default: STORE.png].")
@limit_option
@click.option("--replace", is_flag=True, help="Delete the store's pictures and vectors first.")
def render(store: Path, backend: str, sheet: Path | None, limit: int | None, replace: bool, **options: Any) -> None:
    """Draw the windows of STORE: one body, from the front, on white.

    \b
    Example: mclip render store.zarr --frames 3
    """
    from mclip.pipeline import render as stage
    from mclip.pipeline import store as stores

    with stores.one_writer(str(store)):
        opened = stores.open_store(store)
        if replace:
            opened.forget("pictures", "render")
            opened.forget("embeddings", "embed")
        summary = stage.render(opened, stage.RenderOptions(**options), backend=backend, limit=limit)
        sheet = sheet or store.with_suffix(".png")
        if summary.done or not sheet.exists():
            stage.contact_sheet(opened, sheet)
            click.echo(f"contact sheet: {sheet}")
    finish(summary)


@cli.command()
@store_argument
@click.option("--clip", default="ViT-B-32", help="An open_clip model, or offline.")
@click.option("--pretrained", help="A tag of that model or a file with its weights [default: openai].")
@limit_option
@click.option("--replace", is_flag=True, help="Delete this encoder's vectors first.")
def embed(store: Path, clip: str, pretrained: str | None, limit: int | None, replace: bool) -> None:
    """Give every picture and every distinct text of STORE its CLIP vector.

    \b
    Example: mclip embed store.zarr --clip ViT-B-32 --pretrained openai
             mclip embed store.zarr --clip offline
    """
    from mclip.pipeline import embed as stage
    from mclip.pipeline import encoder as encoders
    from mclip.pipeline import store as stores

    if pretrained is None and clip != encoders.OFFLINE and not clip.startswith("hf-hub:"):
        pretrained = "openai"
    with stores.one_writer(str(store)):
        opened = stores.open_store(store)
        encoder = encoders.load_encoder(clip, pretrained)
        if replace:
            stage.forget(opened, encoder.name)
        summaries = stage.embed(opened, encoder, limit=limit)
        for name, figure in stage.zero_shot(opened, encoder.name).items():
            click.echo(f"text -> picture {name}: {figure:.2f}")
    finish(*summaries)


def config_options(command: Command) -> Command:
    """An option for every field of TrainConfig and ModelConfig: a default is written once, there."""
    from mclip.training.config import ModelConfig, TrainConfig, option_of

    fields = [*TrainConfig.__dataclass_fields__.values(), *ModelConfig.__dataclass_fields__.values()]
    for field in reversed(fields):
        command = option_of(field)(command)
    return command


@cli.command()
@store_argument
@run_argument
@config_options
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--replace", is_flag=True, help="Delete the run first.")
def train(store: Path, run: Path, device: str, replace: bool, **options: Any) -> None:
    """Train MotionCLIP on STORE into the folder RUN; the same command again continues it.

    \b
    Example: mclip train store.zarr runs/cmu --encoder offline --latent 384
    """
    from mclip.pipeline.store import open_store
    from mclip.training import train as trainer
    from mclip.training.config import split_options
    from mclip.training.run import delete_run

    config, sizes = split_options(options)
    opened = open_store(store)
    if replace:
        delete_run(run)
    click.echo(trainer.train(opened, run, config, sizes, device=trainer.pick_device(device)))


@cli.command()
@run_argument
@store_argument
@click.option("--split", type=click.Choice(("train", "val", "test")), help="[default: val if there is one, else train]")
@click.option("--queries", type=click.Path(path_type=Path), help='JSON list of {"text": ..., "clip": ...} to find.')
@click.option("--replace", is_flag=True, help="Measure again.")
def evaluate(run: Path, store: Path, split: str | None, queries: Path | None, replace: bool) -> None:
    """Measure RUN on STORE: reconstruction, retrieval, recognition; writes RUN/evaluation.json.

    \b
    Example: mclip evaluate runs/cmu store.zarr --split val
    """
    from mclip.pipeline.store import open_store
    from mclip.training import evaluate as evaluation
    from mclip.training.run import load_run

    figures, line = evaluation.evaluate_once(
        load_run(run), open_store(store), split=split, queries=queries, replace=replace
    )
    click.echo(json.dumps(figures, indent=2))
    click.echo(line)


@cli.command()
@run_argument
@click.argument("texts", nargs=-1)
@click.option("--file", "file", type=click.File("r", encoding="utf-8"), help="Prompts, one a line; # begins a comment.")
@out_option
@frames_option
@format_option
def generate(
    run: Path, texts: tuple[str, ...], file: Any, out: Path, frames: int | None, formats: tuple[str, ...]
) -> None:
    """Decode TEXTS into motions.

    \b
    Example: mclip generate runs/cmu "a person walks" "jump over the couch" --out out
    """
    from mclip.training import generate as generation
    from mclip.training.run import load_run

    lines = (line.split("#")[0].strip() for line in file or ())
    prompts = [*texts, *(line for line in lines if line)]
    if not prompts:
        raise click.UsageError("nothing to generate: name at least one text, or a --file of them")
    opened = load_run(run)
    vectors = generation.vectors_of(opened, prompts)
    made = generation.prompts_of(prompts, vectors)
    click.echo(generation.write_motions(opened, "generate", made, out, frames=frames, formats=formats))


@cli.command()
@run_argument
@click.option("--base", required=True, help="A text, or a motion file (.npz).")
@click.option("--from", "from_", required=True, help="What to take away: text or motion file.")
@click.option("--to", required=True, help="What to put there: text or motion file.")
@click.option("--scale", "scales", multiple=True, type=float, default=(0.0, 0.5, 1.0), help="May be repeated.")
@out_option
@frames_option
@format_option
def edit(
    run: Path, base: str, from_: str, to: str, scales: tuple[float, ...], out: Path, frames: int | None,
    formats: tuple[str, ...],
) -> None:  # fmt: skip
    """Decode base + scale (to - from).

    \b
    Example: mclip edit runs/cmu --base walk.npz --from "walk" --to "run" --out out
    """
    from mclip.training import generate as generation
    from mclip.training.run import load_run

    opened = load_run(run)
    vectors = generation.edited(*generation.vectors_of(opened, [base, from_, to]), scales)
    titles = [f"{Path(base).stem if base.endswith('.npz') else base} + {scale:g} ({to} - {from_})" for scale in scales]
    made = generation.prompts_of(titles, vectors)
    click.echo(generation.write_motions(opened, "edit", made, out, frames=frames, formats=formats))


@cli.command()
@run_argument
@click.argument("start")
@click.argument("end")
@click.option("--steps", default=5, help="Motions on the line, both ends included.")
@out_option
@frames_option
@format_option
def interpolate(
    run: Path, start: str, end: str, steps: int, out: Path, frames: int | None, formats: tuple[str, ...]
) -> None:
    """Decode points on the line from START to END, each a text or a motion file (.npz).

    \b
    Example: mclip interpolate runs/cmu "walk" "crawl" --steps 5 --out out
    """
    from mclip.training import generate as generation
    from mclip.training.run import load_run

    opened = load_run(run)
    vectors = generation.between(*generation.vectors_of(opened, [start, end]), steps)
    titles = [f"{start} to {end}: {step}/{steps - 1}" for step in range(steps)]
    made = generation.prompts_of(titles, vectors)
    click.echo(generation.write_motions(opened, "interpolate", made, out, frames=frames, formats=formats))


@cli.command()
@run_argument
@store_argument
@click.argument("motions", nargs=-1, type=click.Path(path_type=Path))
@click.option("--page", type=click.Path(path_type=Path), default="gallery.html", help="The HTML file to write.")
@click.option("--split", type=click.Choice(("train", "val", "test")), help="[default: val if there is one, else train]")
@click.option("--most", default=30, help="Reconstructions to show.")
def gallery(run: Path, store: Path, motions: tuple[Path, ...], page: Path, split: str | None, most: int) -> None:
    """One page to look at: STORE beside its reconstructions by RUN, and MOTIONS (folders of generate, edit, interpolate).

    \b
    Example: mclip gallery runs/cmu store.zarr out --page gallery.html
    """
    from mclip.pipeline.store import open_store
    from mclip.training.gallery import write_gallery
    from mclip.training.run import load_run

    click.echo(write_gallery(load_run(run), open_store(store), page, folders=motions, split=split, most=most))


@cli.command()
@store_argument
def status(store: Path) -> None:
    """Draw the chain of STORE with what is done, pending and failed.

    \b
    Example: mclip status store.zarr
    """
    from mclip.pipeline.status import status as told
    from mclip.pipeline.store import open_store

    click.echo(told(open_store(store)))


@cli.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), help="Where its paths begin [default: ./mclip-RECIPE].")
@click.option("--check", is_flag=True, help="Compare the results with the recipe's .expected.json.")
@click.option("--regenerate", is_flag=True, help="Write the recipe's .expected.json from these results.")
def run_recipe(recipe: Path, folder: Path | None, check: bool, regenerate: bool) -> None:
    """Run every command of RECIPE (a .toml), each only as far as something is missing.

    \b
    Example: mclip run workflows/tiny.toml --check
    """
    from mclip.training import recipe as recipes

    folder = folder or Path(f"mclip-{recipe.stem}")
    recipes.run(cli, recipe, folder)
    if regenerate:
        click.echo(recipes.regenerate(recipe, folder))
    if check:
        click.echo(recipes.check(recipe, folder))


@cli.command()
@click.option("--folder", type=click.Path(path_type=Path), default="mclip-quickstart", help="Where everything goes.")
def quickstart(folder: Path) -> None:
    """The main job on the motions, body and encoder that mclip ships: prepare to gallery, no download.

    \b
    Example: mclip quickstart
    """
    from mclip.training import recipe as recipes

    recipes.run(cli, HERE / "workflows/quickstart.toml", folder)
    click.echo(f"open {(folder / 'gallery.html').resolve()}")


if __name__ == "__main__":
    sys.exit(cli())
