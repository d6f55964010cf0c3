"""One small recipe in float32 and in bfloat16 with three seeds: how far apart do their validation errors end?

    python workflows/compare_precisions.py STORE

STORE is prepared, rendered and embedded, and has a val split. Each run is finished before; the same command again only
prints the table.
"""

import statistics
from pathlib import Path

import click
import torch

from mclip.pipeline.store.store import open_store
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import checkpoints, read_state
from mclip.training.train.train import train

SIZES = ModelConfig(layers=2, dropout=0.1, unit_latent=True)
RECIPE = {
    "batch": 16,
    "learning_rate": 6e-4,
    "schedule": "cosine",
    "warmup": 50,
    "clip_gradient": 1.0,
    "short": "continue",
    "target": "label",
    "text": 0.1,
    "image": 0.1,
    "vertices": 4.0,
    "velocity": 4.0,
    "validate_every": 10_000,
    "save_every": 10_000,
}


@click.command()
@click.argument("store")
@click.option("--runs", type=click.Path(path_type=Path), default="precisions", help="Folder of the runs.")
@click.option("--epochs", default=60.0)
@click.option("--threads", default=1)
@click.option("--seeds", default=3)
def main(store: str, runs: Path, epochs: float, threads: int, seeds: int) -> None:
    torch.set_num_threads(threads)
    errors: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for seed in range(1, seeds + 1):
        for precision, found in errors.items():
            folder = runs / f"{precision}-{seed}"
            config = TrainConfig(**RECIPE, epochs=epochs, seed=seed, precision=precision)
            click.echo(train(open_store(store), folder, config, SIZES, device=torch.device("cpu")), err=True)
            found.append(read_state(checkpoints(folder)[-1])["mpjpe_mm"])
    print("| precision |", " | ".join(f"seed {seed}" for seed in range(1, seeds + 1)), "| mean | spread of seeds |")
    print("|---|" + "---|" * (seeds + 2))
    for precision, found in errors.items():
        cells = [f"{error:.1f} mm" for error in (*found, statistics.mean(found), statistics.stdev(found))]
        print("|", " | ".join([precision, *cells]), "|")
    pairs = zip(*errors.values(), strict=True)
    ratios = [bfloat16 / float32 - 1 for float32, bfloat16 in pairs]
    print("bfloat16 over float32, seed by seed:", ", ".join(f"{ratio:+.1%}" for ratio in ratios))
    print(f"of the means: {statistics.mean(errors['bfloat16']) / statistics.mean(errors['float32']) - 1:+.1%}")


if __name__ == "__main__":
    main()
