"""prepare on a SLURM cluster: dask workers that SLURM starts, and the very command of one machine.

    pip install dask-jobqueue
    python slurm_prepare.py /data/AMASS /scratch/amass.zarr --labels /data/babel --jobs 8 --walltime 02:00:00

The source and the store must be seen by every node: a shared file system, or a store's s3:// URL. Each worker writes
files of its own; a job that SLURM kills loses the block it was at, and another does it again. `--cluster local` tries
the same on one machine.
"""

import subprocess
import sys
from typing import Any

import click


def cluster_of(kind: str, jobs: int, options: dict[str, Any]) -> Any:
    """A cluster of `jobs` workers: SLURM's, or processes of this machine."""
    if kind == "local":
        from distributed import LocalCluster

        return LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    from dask_jobqueue import SLURMCluster  # type: ignore[import-not-found,import-untyped,unused-ignore]

    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory="4GB",
        scheduler_options={"dashboard_address": None},
        **{name: value for name, value in options.items() if value},
    )
    cluster.scale(jobs=jobs)
    return cluster


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--cluster", "kind", type=click.Choice(("slurm", "local")), default="slurm")
@click.option("--jobs", default=8, help="Workers.")
@click.option("--account", help="SLURM's account.")
@click.option("--queue", help="SLURM's partition.")
@click.option("--walltime", help="A job's time, HH:MM:SS.")
@click.option("--interface", help="Network that nodes see each other by, as ib0.")
def main(words: tuple[str, ...], kind: str, jobs: int, **options: Any) -> None:
    """Run `mclip prepare WORDS` on a cluster."""
    with cluster_of(kind, jobs, options) as cluster:
        command = [sys.executable, "-m", "mclip.cli", "prepare", *words, "--scheduler", cluster.scheduler_address]
        raise SystemExit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
