"""What sums and paths in the latent space are worth: edits that do one thing to every base, ways without jumps."""

# P pairs, B bases, N motions on the way, T frames, J joints, C latent width

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.data.rows import joints_of
from mclip.training.latent.edits import between
from mclip.training.latent.space import latent
from mclip.training.measure.physics import jerk
from mclip.training.measure.reconstruction import BATCH
from mclip.training.measure.statistics import Measured
from mclip.training.model.run import Run, autocast

BASES, EDITS, WAYS, STEPS = 16, 16, 16, 8
Back = Callable[[Tensor], Tensor]  # vectors (N, C) -> vectors (N, C) of the motions they are decoded into


def arithmetic(run: Run, z_WC: np.ndarray, text_NC: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Edits by differences of texts on motions, and ways between motions, seeded; empty for a single text or motion."""
    generator = np.random.default_rng(seed)
    text = latent(run, torch.from_numpy(np.unique(text_NC, axis=0)).to(run.device))
    z = of_model(run, torch.from_numpy(z_WC).to(run.device))
    if min(len(text), len(z)) < 2:
        return {}
    base_BC = z[generator.permutation(len(z))[:BASES]]
    edit_PC = torch.stack([text[b] - text[a] for a, b in pairs(len(text), EDITS, generator)])
    ways = [between(z[a], z[b], STEPS) for a, b in pairs(len(z), WAYS, generator)]
    joints = torch.stack([decoded_joints(run, way_NC) for way_NC in ways])
    return {
        "disentanglement": edit_consistency(lambda vectors: there_and_back(run, vectors), base_BC, edit_PC),
        "interpolation": smoothness(joints, fps=run.fps),
    }


def pairs(count: int, most: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Up to `most` random pairs of different numbers below `count`."""
    first = generator.integers(count, size=most)
    second = (first + generator.integers(1, count, size=most)) % count
    return list(dict.fromkeys(zip(first.tolist(), second.tolist(), strict=True)))


def of_model(run: Run, z_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Encoded vectors as the decoder knows them: those of a run that decodes from z / |z| have one length."""
    return latent(run, z_NC) if run.model.config.unit_latent else z_NC


@torch.inference_mode()
def there_and_back(run: Run, vectors_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Vectors (N, C) of the motions, a crop long, that a run decodes from vectors (N, C)."""
    with autocast(run):
        parts = vectors_NC.to(run.device).split(BATCH)
        back_NC = torch.cat([run.model.encode(run.model.decode(part, run.crop)) for part in parts])
    return of_model(run, back_NC.float())


@torch.inference_mode()
def decoded_joints(run: Run, vectors_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N T 24 3"]:
    """Joints (N, T, 24, 3) of decoded motions, metres, roots together."""
    rows = run.model.decode(vectors_NC.to(run.device), run.crop).cpu()
    return forward_kinematics(rot6d_to_matrix(joints_of(rows)), load_body("low").joints_J3)[1]


def edit_consistency(back: Back, base_BC: Float[Tensor, "B C"], edit_PC: Float[Tensor, "P C"]) -> dict[str, Measured]:
    """Whether an edit does the same to every base, and what it was asked to do.

    An edit's effect on a base is how far the motion of base + edit lies from the motion of base, both encoded again.
    `direction`: cosine of effect and edit, over pairs of an edit and a base; 1 where it did just what was asked.
    `agreement`: mean cosine between the effects of one edit on different bases, over edits; 1 where the bases do not
    matter, as in a space where edits are disentangled from what they edit (paper, section 4.2).
    """
    plain_BC = back(base_BC)
    effect_PBC = torch.stack([back(base_BC + edit_C) - plain_BC for edit_C in edit_PC])
    direction_PB = F.cosine_similarity(effect_PBC, edit_PC[:, None], dim=-1)
    unit_PBC = F.normalize(effect_PBC, dim=-1)
    bases = len(base_BC)
    # The mean over different bases: that of all pairs, without each one's cosine with itself.
    own_P = unit_PBC.square().sum((1, 2))
    agreement_P = (unit_PBC.sum(1).square().sum(-1) - own_P) / (bases * (bases - 1))
    return {
        "direction": Measured(direction_PB.flatten().cpu().numpy()),
        "agreement": Measured(agreement_P.cpu().numpy()),
    }


def smoothness(joints_PNTJ3: Float[Tensor, "P N T J 3"], *, fps: float) -> dict[str, Measured]:
    """How evenly motions change on a way from one to another, for P ways of N motions; joints in metres.

    `step_mm`: mean distance of a joint from where the neighbouring motion has it. `largest_step`: a way's largest step
    over its mean one; 1 is even, N - 1 is a single jump. `detour`: all steps over the distance of the two ends; 1 is
    straight. `jerk`: of the motions between, over that of the two ends; above 1 they shake more than what they join.
    """
    step_PM = mean_distance(joints_PNTJ3[:, 1:], joints_PNTJ3[:, :-1])
    ends_P = mean_distance(joints_PNTJ3[:, -1], joints_PNTJ3[:, 0])
    jerk_PN = jerk(
        joints_PNTJ3.flatten(0, 1), torch.ones(len(joints_PNTJ3.flatten(0, 1)), joints_PNTJ3.shape[2]).bool(), fps=fps
    ).unflatten(0, joints_PNTJ3.shape[:2])
    columns = {
        "step_mm": 1000 * step_PM.mean(1),
        "largest_step": step_PM.amax(1) / step_PM.mean(1),
        "detour": step_PM.sum(1) / ends_P,
        "jerk": jerk_PN[:, 1:-1].mean(1) / jerk_PN[:, [0, -1]].mean(1),
    }
    return {name: Measured(values.numpy()) for name, values in columns.items()}


def mean_distance(a: Float[Tensor, "*batch T J 3"], b: Float[Tensor, "*batch T J 3"]) -> Float[Tensor, "*batch"]:
    """Mean distance between joints of two motions, over frames and joints."""
    distance: Tensor = (a - b).norm(dim=-1)
    return distance.mean((-1, -2))
