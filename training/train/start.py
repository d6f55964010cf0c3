"""Where training begins: at new weights, at another run's, or at the run's own last checkpoint."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mclip.training.data.crops import Crops
from mclip.training.measure.kept import kept_of
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import (
    AVERAGE,
    WEIGHTS,
    Run,
    RunError,
    checkpoints,
    load_model,
    load_optimizers,
    load_run,
    read_config,
    read_state,
    save_checkpoint,
)
from mclip.training.train.step import Learner

FREE = ("dropout", "copied_layers")  # sizes that two runs of one shape may differ in


def read_origin(start_from: Path | None, folder: Path, sizes: ModelConfig, *, replace: bool) -> dict[str, Any] | None:
    """The run that another starts from, as config.json records it: its folder, step and the hash of its weights.

    A run that has begun keeps its record, so the other may have gone. RunError where the two are one folder, or their
    models have other shapes.
    """
    if start_from is None:
        return None
    if start_from.resolve() == folder.resolve():
        raise RunError(f"{folder}: cannot start from itself: without --start-from it goes on from its last checkpoint")
    if checkpoints(folder) and not replace:
        recorded = read_config(folder).get("started_from")
        if recorded and recorded["run"] == str(start_from):
            return dict(recorded)
    source = load_run(start_from)
    require_shape(source, sizes)
    return {"run": str(start_from), "step": source.step, "weights": source.fingerprint}


def require_shape(source: Run, sizes: ModelConfig) -> None:
    """RunError naming the options in which a model's shape is another than that of a run."""
    theirs, ours = asdict(source.model.config), asdict(sizes)
    names = [name for name in ours if name not in FREE and ours[name] != theirs[name]]
    if names:
        differ = [f"--{name.replace('_', '-')} {theirs[name]} there, {ours[name]} here" for name in names]
        raise RunError(
            f"{source.folder}: weights of another shape: {', '.join(differ)}: train with its options, or start from "
            "another run"
        )


def take_weights(folder: Path, learner: Learner, crops: Crops, origin: dict[str, Any] | None) -> list[str]:
    """Make another run's weights checkpoint 0 of a run that has none yet; what to say of it.

    The weights that are learnt go on from those that were, the moving average from theirs; without an average the
    learnt ones go on from those that the other run is used with.
    """
    if origin is None or checkpoints(folder):
        return []
    source = Path(origin["run"])
    last = checkpoints(source)[-1]
    used = last / (AVERAGE if (last / AVERAGE).exists() else WEIGHTS)
    load_model(learner.model, last / WEIGHTS if learner.average is not None else used)
    if learner.average is not None:
        load_model(learner.average, used)
    write_checkpoint(folder, learner, crops, {"step": 0, "steps": learner.steps})
    told = f"weights of {source} after step {origin['step']:,} ({origin['weights']})"
    return [told + "".join(f"; {each}" for each in differences(read_config(source), read_config(folder)))]


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What two runs of one shape mean by the same numbers, where it is not the same: encoder, clock, 25th row."""
    places = (("encoder", "name"), ("encoder", "weights_sha256"), ("data", "fps"), ("data", "row25"))
    pairs = [(f"{part}.{key}", theirs[part].get(key), ours[part].get(key)) for part, key in places]
    return [f"{name} was {there}, is {here}" for name, there, here in pairs if there != here]


def resume(folder: Path, learner: Learner) -> dict[str, Any]:
    """Load the last whole checkpoint, if there is one; its state, or that of step 0."""
    found = checkpoints(folder)
    if not found:
        return {"step": 0, "steps": learner.steps}
    load_model(learner.model, found[-1] / WEIGHTS)
    if learner.average is not None:
        load_model(learner.average, found[-1] / AVERAGE)
    load_optimizers(learner.optimizers, found[-1])
    return read_state(found[-1])


def describe_longer(config: TrainConfig, state: dict[str, Any], steps: int) -> list[str]:
    """What to say where a run is trained for more steps than it was begun for."""
    first, before = state["step"], state["steps"]
    if steps <= before:
        return []
    told = f"trained longer: {before:,} steps became {steps:,}"
    if config.schedule == "constant":
        return [f"{told}, as if they had been asked for at first"]
    then, now = (config.learning_rate_at(first, total) for total in (before, steps))
    return [f"{told}; the {config.schedule} spans all of them, so the learning rate is {now:.3g} now, was {then:.3g}"]


def write_checkpoint(folder: Path, learner: Learner, crops: Crops, state: dict[str, Any]) -> None:
    """Save a checkpoint with everything that `resume` needs; of the state what could be measured."""
    kept = kept_of(learner.eval_model, crops)
    state["z_length"] = float(kept["z"].norm(dim=-1).mean())
    known = {name: value for name, value in state.items() if not math.isnan(value)}
    save_checkpoint(folder, learner.model, learner.optimizers, known, average=learner.average, kept=kept)
