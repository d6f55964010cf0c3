"""The one command for whoever has a GPU, on a CPU: so that it still runs on the day when somebody has one."""

import os
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parent.parent


def test_every_part_is_measured_or_says_why_it_cannot_be(tmp_path: Path) -> None:
    words = [sys.executable, str(HOUSE / "workflows/gpu_check.py"), "--quick", "--device", "cpu"]
    told = subprocess.run(
        [*words, "--out", str(tmp_path / "table.md")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert told.returncode == 0, told.stderr
    rows = [line.split(" | ") for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| ")]
    found = {what: figure.removesuffix(" |") for _, what, figure in rows[1:]}
    # The CPU against itself: not a number may differ. And only CUDA counts waits; a plain step takes too long here.
    assert found["losses, largest relative difference"] == "0.0e+00 (within 1e-04)"
    assert found["losses of 12 steps, killed and resumed"] == "equal"
    assert found["evaluate, MPJPE, relative difference"] == "0.0e+00 (within 1e-03)"
    assert {what for what, figure in found.items() if figure.startswith("not run")} == {"waits", "against_plain"}
    assert all(line in told.stdout for line in (tmp_path / "table.md").read_text().splitlines())
