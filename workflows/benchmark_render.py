"""Frames a second of the renderers, one table from one run.

    python workflows/benchmark_render.py

"render" is vertices in, picture out, on a body of SMPL's size (6,890 vertices, 13,776 faces); "pose + render" adds
linear blend skinning of the embedded body. Figures are medians over rounds in which the backends take turns, so that a
busy machine slows all of them alike; the ratio is the median of the rounds' ratios to pyrender. Then the whole stage,
as the command runs it, in a process of its own, whose largest memory is told too.
"""

# B batch, J joints

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import front_camera
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix

VERTICES = 6890


def knobbly_body(vertices: int) -> tuple[Tensor, Tensor]:
    """A closed surface (V, 3) of exactly `vertices` vertices, as large as a standing body, and its 2 V - 4 faces.

    A sphere's triangulated spiral, drawn out to 1.7 m and given waists, so that its faces are as small and as
    many as a body's.
    """
    from scipy.spatial import ConvexHull

    step = np.arange(vertices) + 0.5
    height = 1 - 2 * step / vertices
    angle = math.pi * (1 + math.sqrt(5)) * step
    ring = np.sqrt(1 - height**2)
    sphere = np.stack((ring * np.cos(angle), height, ring * np.sin(angle)), axis=1)
    faces = ConvexHull(sphere).simplices
    corners = sphere[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normal * corners.sum(1)).sum(1) < 0
    faces[inward] = faces[inward][:, ::-1]
    girth = 0.14 + 0.04 * np.sin(9 * sphere[:, 1])
    body = sphere * np.stack((girth * 1.6, np.full(vertices, 0.85), girth), axis=1)
    return torch.from_numpy(body.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))


def poses(batch: int) -> Tensor:
    """Local rotations (B, 24, 3, 3): a body that turns and swings its limbs, standing upright (z up)."""
    generator = torch.Generator().manual_seed(0)
    axis_angle_BJ3 = 0.25 * torch.randn(batch, 24, 3, generator=generator)
    rotmat_BJ33 = axis_angle_to_matrix(axis_angle_BJ3)
    upright = axis_angle_to_matrix(torch.tensor([math.pi / 2, 0, 0]))
    rotmat_BJ33[:, 0] = upright @ axis_angle_to_matrix(torch.tensor([0, 0.3, 0]) * torch.arange(batch)[:, None])
    return rotmat_BJ33


def seconds_a_frame(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    frames = len(call())
    return (time.perf_counter() - start) / frames


def render_call(backend: str, *, batch: int, size: int, threads: int) -> Callable[[], Tensor]:
    """Vertices in, picture out."""
    rest_V3, faces_F3 = knobbly_body(VERTICES)
    root_B33 = poses(batch)[:, 0]
    vertices_BV3 = rest_V3 @ root_B33.transpose(1, 2)
    camera = front_camera(root_B33, vertices_BV3)
    return lambda: render_bodies(vertices_BV3, faces_F3, camera, size=size, backend=backend, threads=threads)


def pose_and_render(body: Body, *, batch: int, size: int, threads: int) -> Callable[[], Tensor]:
    """Rotations in, picture out, camera included."""
    rotmat_BJ33 = poses(batch)

    def call() -> Tensor:
        vertices_BV3 = body.pose(rotmat_BJ33)
        camera = front_camera(rotmat_BJ33[:, 0], vertices_BV3)
        return render_bodies(vertices_BV3, body.faces_F3, camera, size=size, backend="cpu", threads=threads)

    return call


def stage(folder: Path, *words: str) -> tuple[str, float]:
    """The last line of `mclip render` in a process of its own, and the largest memory that it had, in MB."""
    command = [sys.executable, "-m", "mclip.cli", "render", str(folder / "store.zarr"), "--replace", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, told
    return told.splitlines()[-1], usage.ru_maxrss / 1024


def print_stages() -> None:
    """The whole stage: read rotations, pose, draw, write to Zarr; and its memory for many pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = [sys.executable, "-m", "mclip.cli", "prepare", "embedded", str(folder / "store.zarr")]
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        for title, words in (
            ("whole stage, embedded body, 224 px", ("--frames", "50")),
            ("the same on a floor, still camera", ("--frames", "50", "--ground", "--camera", "fixed")),
            ("many small pictures, 48 px", ("--body", "low", "--size", "48", "--pick", "all", "--views", "20")),
        ):
            line, memory = stage(folder, *words)
            click.echo(f"{title:36}{line}, peak memory {memory:,.0f} MB")


@click.command()
@click.option("--batch", default=32, show_default=True, help="Bodies a call.")
@click.option("--size", default=224, show_default=True, help="Picture side in pixels.")
@click.option("--threads", default=2, show_default=True, help="Threads of the cpu backend and of torch.")
@click.option("--rounds", default=7, show_default=True, help="Rounds; the table shows medians.")
@click.option("--pytorch3d/--no-pytorch3d", default=True, show_default=True, help="Its CPU path takes seconds a frame.")
@click.option("--pyrender/--no-pyrender", default=True, show_default=True, help="Needs EGL.")
def benchmark(batch: int, size: int, threads: int, rounds: int, pytorch3d: bool, pyrender: bool) -> None:
    """Print frames a second of the renderers on this machine."""
    torch.set_num_threads(threads)
    body = load_body()
    calls = {
        "cpu, render": render_call("cpu", batch=batch, size=size, threads=threads),
        "cpu, pose + render": pose_and_render(body, batch=batch, size=size, threads=threads),
    }
    if pyrender:
        calls["pyrender, render"] = render_call("pyrender", batch=batch, size=size, threads=threads)
    times = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles, opens the window
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds_a_frame(call))
    if pytorch3d:
        times["pytorch3d on the CPU, render"] = [
            seconds_a_frame(render_call("pytorch3d", batch=1, size=size, threads=threads))
        ]
    print_table(times, body=body, batch=batch, size=size, threads=threads)
    print_stages()


def print_table(times: dict[str, list[float]], *, body: Body, batch: int, size: int, threads: int) -> None:
    click.echo(
        f"{size} px, batch {batch}, {threads} threads; render: {VERTICES:,} vertices, pose: {len(body.v_template_V3):,}"
    )
    click.echo(f"{'':30}{'frames/s':>10}{'ms a frame':>12}{'x pyrender':>12}")
    reference = times.get("pyrender, render")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratio = "-"
        if reference and len(seconds) == len(reference):
            ratios = [slow / fast for slow, fast in zip(reference, seconds, strict=True)]
            ratio = f"{statistics.median(ratios):.1f}"
        click.echo(f"{name:30}{1 / middle:>10,.1f}{1e3 * middle:>12.2f}{ratio:>12}")


if __name__ == "__main__":
    benchmark()
