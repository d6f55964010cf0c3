"""What a cluster's users start from, tried with processes of this machine in the places of nodes."""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import validate
from mclip.training.train.journal import read_journal

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SMALL = (
    "--layers",
    "1",
    "--feed-forward",
    "64",
    "--epochs",
    "1",
    "--batch",
    "2",
    "--precision",
    "float32",
    "--device",
    "cpu",
)

# SLURM's commands as far as the scripts need them: jobs and nodes are processes of this machine.
SLURM = {
    "sbatch": """cp "$1" "$JOBS/job"; setsid bash "$JOBS/job" > "$JOBS/log" 2>&1 < /dev/null &
echo "Submitted batch job $!"; cat "$1" >> "$JOBS/submitted"
""",
    "scancel": 'kill -- "-$1"',
    "scontrol": "printf '%s\\n' 127.0.0.1 elsewhere",
    "srun": """for node in $(seq "$SLURM_NNODES"); do "$@" & started="${started:-} $!"; done
for each in $started; do wait "$each" || exit 1; done""",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that submitted jobs are kept in; the commands above are found first."""
    for name, script in SLURM.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("JOBS", str(tmp_path))
    return tmp_path


def started(*words: object) -> str:
    """What a script says that works."""
    told = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=180)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_torchrun_script_trains_alike_on_one_machine_and_on_two_slurm_nodes(tmp_path, store, slurm, monkeypatch):
    for name, value in {"PROCESSES": "2", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    script = WORKFLOWS / "torchrun_train.sh"
    told = [started(script, store.url, tmp_path / "machine", *SMALL)]
    nodes = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "PROCESSES": "1"}
    for name, value in (nodes | {"PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    told.append(started(script, store.url, tmp_path / "nodes", *SMALL))
    assert [each.count(" steps") for each in told] == [1, 1]  # one process of the two speaks
    # Each process has a dropout of its own, so one process alone, or twice one, would have another loss.
    machine, nodes_ = (read_journal(tmp_path / name / "metrics.jsonl")[0] for name in ("machine", "nodes"))
    assert nodes_["loss/total"] == pytest.approx(machine["loss/total"], rel=1e-5)


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_slurm_jobs_prepare_what_one_machine_prepares(tmp_path, prepared: Store, amass_folder, slurm):
    pytest.importorskip("dask_jobqueue")
    told = started(
        sys.executable,
        WORKFLOWS / "slurm_prepare.py",
        amass_folder,
        tmp_path / "s.zarr",
        "--jobs",
        1,
        "--queue",
        "short",
        "--account",
        "motion",
        "--walltime",
        "02:00:00",
        "--interface",
        "lo",
    )
    assert "5 sequences done, 0 skipped, 0 failed" in told
    made = open_store(tmp_path / "s.zarr")
    assert validate(made) == []
    for path in ("motion/rot6d", "motion/trans", "sequences/sha256", "windows/row"):
        assert np.array_equal(made.read(path), prepared.read(path))
    submitted = (slurm / "submitted").read_text()
    for line in (
        "#SBATCH -p short",
        "#SBATCH -A motion",
        "#SBATCH -t 02:00:00",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --mem=4G",
    ):
        assert f"{line}\n" in submitted
    assert f"{sys.executable} -m distributed.cli.dask_worker tcp://127.0.0.1:" in submitted
    assert "--nthreads 1 " in submitted


@pytest.mark.parametrize("script", sorted(file.stem for file in WORKFLOWS.glob("*.py")))
def test_every_script_finds_what_it_imports(script: str) -> None:
    importlib.import_module(f"mclip.workflows.{script}")
