"""What the server answers with: motions as files or as JSON, and a page that says how to ask."""

# T frames, J joints (24), D rotation numbers (6)

import io
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from fastapi import Response
from fastapi.responses import HTMLResponse, JSONResponse

from mclip.pipeline.geometry.rotations import matrix_to_rot6d
from mclip.training.api import Motion
from mclip.training.show.folder import file_name
from mclip.training.show.writers import DATA

MEDIA = {"npz": "application/x-npz", "glb": "model/gltf-binary", "bvh": "application/x-bvh", "zip": "application/zip"}
TEMPLATE = Path(__file__).with_name("page.html.j2")
# No script, no request, nothing of anybody else's: the page is words.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def motions_as(kind: str, titles: Sequence[str], motions: Sequence[Motion]) -> Response:
    """The answer that gives motions: one JSON, a file, or a zip of files."""
    if kind == "json":
        return JSONResponse({"motions": [numbers(*each) for each in zip(titles, motions, strict=True)]})
    names = [f"{file_name(number, title)}.{kind}" for number, title in enumerate(titles)]
    files = dict(zip(names, (file_of(kind, motion) for motion in motions), strict=True))
    if len(files) == 1:
        ((name, content),) = files.items()
        return download(name, content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return download("motions.zip", packed.getvalue())


def numbers(title: str, motion: Motion) -> dict[str, Any]:
    """A motion as JSON: 6D rotations (T, 24, 6), the root's place and all joints' places in metres, z up."""
    return {
        "title": title,
        "fps": motion.fps,
        "rot6d": rounded(matrix_to_rot6d(motion.rotmat_TJ33).numpy()),
        "trans": rounded(motion.trans_T3.numpy()),
        "joints": rounded(motion.joints().numpy()),
    }


def rounded(values: np.ndarray) -> list[Any]:
    """Numbers to a hundredth of a millimetre, or of a thousandth: a third of their letters."""
    return values.astype(float).round(5).tolist()


def file_of(kind: str, motion: Motion) -> bytes:
    """The bytes of a motion's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"motion.{kind}")
        DATA[kind](path, motion)
        return path.read_bytes()


def vectors_as(kind: str, vectors_NC: np.ndarray) -> Response:
    """The answer that gives vectors (N, C)."""
    if kind == "json":
        return JSONResponse({"vectors": vectors_NC.tolist()})
    packed = io.BytesIO()
    np.savez(packed, vectors=vectors_NC)
    return download("vectors.npz", packed.getvalue())


def download(name: str, content: bytes) -> Response:
    """A file, under a name of letters that a header may hold."""
    plain = name.encode("ascii", "ignore").decode()
    kind = name.rpartition(".")[2]
    said = {"Content-Disposition": f'attachment; filename="{plain}"', "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=MEDIA[kind], headers=said)


def page_of(description: dict[str, Any]) -> HTMLResponse:
    """The page that says how to ask, made of the OpenAPI description; it asks nothing of a network."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return HTMLResponse(template.render(api=description), headers={"Content-Security-Policy": POLICY})
