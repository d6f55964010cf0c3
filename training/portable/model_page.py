"""`mclip page`: one HTML file in which texts become motions, without a server and without a network.

The model, its text tower and tokenizer, ONNX Runtime compiled to WebAssembly and the viewer of all of mclip's pages lie
in it. What is the decoder's is traced from torch; only the floor is found by a script (workflows/viewer/floor.js).
"""

# B batch, T frames

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor, nn

from mclip.pipeline.embed.encoder import LONGEST_TEXT, Encoder
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.geometry.body import Body, load_body, skin
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import FEET, JOINTS, SMPLH_JOINTS, forward_kinematics
from mclip.pipeline.store.store import version
from mclip.training.data.rows import joints_of, root_of
from mclip.training.latent.prompts import VARY, generated
from mclip.training.latent.space import in_place
from mclip.training.latent.span import LEAD, REACH
from mclip.training.measure import physics
from mclip.training.model.run import Run, RunError
from mclip.training.portable.graphs import TOKENIZER, Graph, graphs_of, text_tower, tokenizer_json, traced
from mclip.training.portable.precision import compressed
from mclip.training.show import motion as motions
from mclip.training.show.options import Shaping
from mclip.training.show.page import TEMPLATE, Card, Page, Section, is_made_of, packed
from mclip.training.show.shaping import made
from mclip.training.show.writers import bvh_nodes

HERE = Path(__file__).parent
SCRIPT, RUNTIME, PANEL = HERE / "model.min.js", HERE / "runtime.wasm.gz", HERE / "panel.html.j2"  # of workflows/viewer
FIRST = "a person walks"
QUICK = 1  # of gzip: weights are hardly redundant, and 90 MB of them take it ten seconds at its best
# Of int8 in all its weights joints would be off by more than 10 mm (workflows/records/portable.md).
INT8 = {"text": "mixed", "decoder": "float16"}


class Pose(nn.Module):
    """Rows of motions as matrices, the root's path, joints' places, and the heights that the floor is found by."""

    def __init__(self, run: Run, body: Body):
        super().__init__()
        self.run, self.body = run, body
        self.feet_NV = [mask.nonzero()[:, 0] for mask in motions.foot_vertices(body)]

    def forward(self, motion: Tensor) -> tuple[Tensor, ...]:
        """(T, 24, 3, 3), (T, 3), (T, 24, 3), (T,) and (T, 2) of rows (T, 25, 6); metres, z up."""
        rows = in_place(self.run, motion)
        rotmat, root_T3 = rot6d_to_matrix(joints_of(rows)), root_of(rows)
        _, places = forward_kinematics(rotmat, self.body.joints_J3, root_B3=root_T3)
        affine = self.body._affine(rotmat)
        z_TV = (skin(self.body.v_template_V3[None], self.body.weights_VJ, affine) + root_T3[:, None])[..., 2]
        soles = torch.stack([z_TV[:, foot_V].amin(1) for foot_V in self.feet_NV], dim=1)
        return rotmat, root_T3, places, z_TV.amin(1), soles


def write_model_page(run: Run, out: Path, *, precision: str, title: str) -> str:
    """Write the page, which is there whole or not at all; its size, in a line. RunError for a run that has none.

    A page of the same model in the same precision is not made again.
    """
    if out.is_dir():
        raise RunError(f"{out}: is a folder, expected the name of an HTML file")
    if is_made_of(out, made_of(run, precision, title)):
        return f"page: nothing to do, {out} is there"
    encoder = require_text_tower(run)
    page = model_page(run, encoder, traced_for_page(run, encoder), precision=precision, title=title)
    write_aside(out, page.html())
    return f"page: {out}, {out.stat().st_size / 1e6:.1f} MB in {precision}: open it in a browser, it asks no network"


def made_of(run: Run, precision: str, title: str) -> str:
    """What says whether a page is of this model: the hashes of its weights, and of all else that makes a page."""
    digest = hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for _, tensor in sorted(run.kept.items())))
    told = [run.config["encoder"], run.config["data"], run.z_length, precision, INT8, title, version()]
    digest.update(json.dumps(told, sort_keys=True).encode())
    for part in (SCRIPT, RUNTIME, PANEL, TEMPLATE):
        digest.update(part.read_bytes())
    return f"weights {run.fingerprint}, all {digest.hexdigest()[:16]}"


def model_page(run: Run, encoder: Encoder, models: dict[str, Any], *, precision: str, title: str) -> Page:
    """The page of the traced `models`, with everything that its script unpacks."""
    page = first_page(run, encoder, title, precision)
    for name, model in models.items():
        weighing = INT8 if precision == "int8" else dict.fromkeys(INT8, precision)
        wanted = weighing.get(name, "float32")
        page.files[f"{name}.onnx"] = packed(compressed(model, wanted).SerializeToString(), level=QUICK)
    page.files[TOKENIZER] = packed(tokenizer_json(encoder).encode())
    page.files["model.json"] = packed(json.dumps(told_to_script(run, encoder)).encode())
    page.files["runtime.wasm"] = base64.b64encode(RUNTIME.read_bytes()).decode()
    return page


def require_text_tower(run: Run) -> Encoder:
    """The run's encoder. RunError where its text tower cannot lie in a page, or texts cannot be carried."""
    encoder = text_tower(run)
    if encoder is None or encoder.templates:
        clip = run.config["encoder"]["clip"] + (" with templates" if encoder else "")
        raise RunError(
            f"{run.folder}: its encoder is {clip}; a page holds the text tower of `--clip offline` only, whose licence "
            "and tokenizer let it: use the studio"
        )
    if run.z_NC is None:
        raise RunError(
            f"{run.folder}: keeps no vectors of training motions, to which a page carries texts: train again"
        )
    return encoder


def traced_for_page(run: Run, encoder: Encoder) -> dict[str, Any]:
    """What a page runs, as ONNX by name."""
    outputs = ("rotations", "root", "places", "lowest", "soles")
    body = Graph(Pose(run, load_body("low")), {"motion": torch.ones(7, 25, 6)}, outputs, {"motion": {0: "frames"}})
    graphs = graphs_of(run, encoder) | {"body": body}
    return {name: traced(graph) for name, graph in graphs.items() if name != "encoder"}


def first_page(run: Run, encoder: Encoder, title: str, precision: str) -> Page:
    """The page with the motion that it begins with, whose files are the templates of all others."""
    (prompt,) = generated(run, [FIRST], [], encoder=encoder)
    motion = made(run, prompt, run.crop, Shaping()).motion
    lead = f"Type what a person does; the model in this file makes the motion, here ({precision}). Nothing leaves it."
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return Page(
        title,
        lead,
        [Section("", [Card(FIRST, {"motion": motion})])],
        made_of=made_of(run, precision, title),
        panel=environment.from_string(PANEL.read_text(encoding="utf-8")).render(text=FIRST),
        script=SCRIPT.read_text(encoding="utf-8"),
        begin="viewer.start();",
    )


def told_to_script(run: Run, encoder: Encoder) -> dict[str, Any]:
    """What the script knows of the model: sizes, and the constants of what it does itself."""
    assert run.z_NC is not None
    joints_J3 = load_body("low").joints_J3
    return {
        "width": run.model.config.latent,
        "kept": len(run.z_NC),
        "reach": VARY * REACH,
        "lead": VARY * LEAD,
        "frames": run.crop,
        "fps": run.fps,
        "joints": len(JOINTS),
        "context": encoder.context,
        "longestText": LONGEST_TEXT,
        "pelvis": joints_J3[0].tolist(),
        "order": bvh_nodes(joints_J3.numpy().astype(float))[1],
        "rows": list(SMPLH_JOINTS),
        "floor": {
            "feet": FEET,
            "often": motions.OFTEN,
            "carries": motions.CARRIES,
            "rolls": motions.ROLLS,
            "dips": physics.DIPS,
            "height": physics.HEIGHT,
            "speed": physics.SPEED,
            "ofPlanted": physics.OF_PLANTED,
            "slowest": physics.SLOWEST,
            "fastest": physics.FASTEST,
            "atLeast": physics.AT_LEAST,
            "toeBelowAnkle": physics.TOE_BELOW_ANKLE,
        },
    }
