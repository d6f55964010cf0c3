"""What a GPU would be asked, without one: tensors that say they are on CUDA and compute nothing.

Torch's fake tensors refuse what a GPU refuses, such as a tensor of another device in a product. `Watched` names the
lines that make the host wait for the device, and generators of another device. What runs backward is not tried:
autograd needs CUDA's driver. On a CPU `test_graph` looks at every operation of it.
"""

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mclip.pipeline.files.assets import HOUSE
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.machine import devices
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import load_crops
from mclip.training.data.feed import Feed
from mclip.training.latent import edits, space
from mclip.training.latent.search import Index
from mclip.training.latent.span import Chance, centred
from mclip.training.measure.kept import errors, z_of
from mclip.training.measure.learnt_judge import lesson
from mclip.training.measure.reconstruction import quality, reconstruct, reconstructed
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import Run
from mclip.training.train import step as stepping
from mclip.training.train.step import Learner, vertex_loss_of
from mclip.training.train.workers import Workers

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GENERATOR = torch.Generator
SIZES = ModelConfig(latent=384, layers=2, feed_forward=32, dropout=0.1)
# By name: what no device can do without telling the host how large the result is, or whether it went well.
ASKS = ("nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "linalg_eigh", "_linalg_svd", "_linalg_eigh")


class Watched(TorchDispatchMode):
    """Notes lines of this house that make the host wait, and generators that draw for another device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.foreign: list[str] = []
        self.generators: list[tuple[torch.Generator, torch.device]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            func.namespace == "aten" and torch.is_inference_mode_enabled()
        ):  # where autograd takes no compound apart, such as `item`
            with self:
                if (found := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return found
        name, first = func._schema.name.removeprefix("aten::"), args[0] if args else None
        device = kwargs.get("device")
        if name == "_local_scalar_dense":
            self.note(name, on_device(first))
            return {torch.bool: True}.get(first.dtype, 1.0 if first.is_floating_point() else 1)
        if name == "_pin_memory":
            return first
        if name in ("_to_copy", "copy_"):
            source, to = (first, device or first.device) if name == "_to_copy" else (args[1], first.device)
            down = on_device(source) and torch.device(to).type == "cpu"
            up = not on_device(source) and torch.device(to).type != "cpu"
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
            self.note(name, down or (up and waits))
        elif name in ("index", "index_put_", "_index_put_impl_"):
            args = (first, [self.as_numbers(each, first) for each in args[1]], *args[2:])
        elif name == "_fused_adamw_":  # of which torch has no fake where the rate is a tensor
            places = {each.device.type for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
            assert places == {"cuda"}
            return None
        elif name in ASKS:
            self.note(name, on_device(first))
        return func(*args, **kwargs)

    def generator(self, device: torch.device | str = CPU) -> torch.Generator:
        """One of the CPU's that is said to be of another device: CUDA's needs the driver."""
        self.generators.append((GENERATOR(), torch.device(device)))
        return self.generators[-1][0]

    def drawing(self, draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A function of torch's that draws, noting a generator of another device."""

        def drawn(*size: Any, generator: Any = None, device: Any = CPU, **how: Any) -> Tensor:
            if any(made is generator and of.type != torch.device(device).type for made, of in self.generators):
                self.foreign.append(where(draw.__name__))
            return draw(*size, generator=generator, device=device, **how)

        return drawn

    def note(self, name: str, waits: bool) -> None:
        if waits:
            self.waits.append(where(name))

    def as_numbers(self, index: Tensor | None, into: Tensor) -> Tensor | None:
        """An index as numbers on the device: a mask as if it kept all, as nobody knows its values."""
        if index is None or not on_device(into):
            return index
        self.note("index", index.dtype == torch.bool or not on_device(index))
        assert index.dtype != torch.bool or index.ndim == 1
        return torch.arange(len(index), device=into.device) if index.dtype == torch.bool else index.to(into.device)


def on_device(tensor: Tensor) -> bool:
    return tensor.device.type != "cpu"


def where(what: str) -> str:
    """The innermost line of this house that is being run."""
    frame = sys._getframe()
    while frame:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(HOUSE / "pipeline") or file.is_relative_to(HOUSE / "training"):
            return f"{file.relative_to(HOUSE)}:{frame.f_lineno} {what}"
        frame = frame.f_back
    return f"outside: {what}"


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """`Module.to`, which cannot exchange parameters for fake ones."""
    for part in module.modules():
        for name, each in part._parameters.items():
            if each is not None:
                part._parameters[name] = nn.Parameter(each.detach().to(device), requires_grad=each.requires_grad)
        for name, each in part._buffers.items():
            if each is not None:
                part._buffers[name] = each.to(device)
    return module


def copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """A deep copy of a fake tensor: torch's own reads memory that is not there."""
    clone = tensor.detach().clone()
    return nn.Parameter(clone, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else clone


def values_of(tensor: Tensor) -> np.ndarray:
    """`Tensor.numpy` of a fake tensor: ones; TypeError for one on a device, as torch says it."""
    if on_device(tensor):
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    return np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch."))


@pytest.fixture
def on_fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which a GPU seems to be there: everything in it runs watched."""

    @contextlib.contextmanager
    def pretend() -> Iterator[Watched]:
        with contextlib.ExitStack() as opened, monkeypatch.context() as changed:
            watched = Watched()
            changed.setattr(torch, "Generator", watched.generator)
            for draw in (torch.rand, torch.randint, torch.randn, torch.randperm):
                changed.setattr(torch, draw.__name__, watched.drawing(draw))
            # Streams need the driver: everything is on one.
            changed.setattr(devices, "copying", lambda device: None)
            changed.setattr(torch.cuda, "current_stream", lambda device=None: Mock())
            changed.setattr(FakeTensor, "record_stream", lambda tensor, stream: None, raising=False)
            changed.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
            changed.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)
            changed.setattr(nn.Module, "to", moved)
            changed.setattr(FakeTensor, "numpy", values_of, raising=False)
            changed.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
            opened.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            yield opened.enter_context(watched)

    return pretend


# Every option that changes what a step does, and all at once.
SETTINGS: dict[str, dict[str, Any]] = {
    "masked": {"short": "mask"},
    "continued": {"short": "continue"},
    "changed": {"mirror": 0.5, "yaw": 90.0, "speed": 0.2, "target": "any"},
    "muon": {"optimizer": "muon"},
    "averaged": {"ema": 0.99, "clip_gradient": 1.0, "schedule": "cosine", "warmup": 3},
    "full": {"vertex_loss": "full"},
    "subset": {"vertex_loss": "subset", "vertex_subset": 50},
    "world": {"places_weight": 1.0, "steps_weight": 1.0, "feet_weight": 1.0},
    "infonce": {"clip_loss": "infonce"},
    "mse": {"clip_loss": "mse"},
    "noise": {"text_decoding": 0.3, "latent_noise": 0.5, "middle_crops": 0.5},
    "half": {"precision": "bfloat16", "storage": "float16"},
}
SETTINGS["all"] = {name: value for each in SETTINGS.values() for name, value in each.items()}


def learn(store: Store, *, steps: int = 3, **options: Any) -> None:
    """Some training steps from the store, as the trainer takes them between two logged ones."""
    config = TrainConfig(**{"batch": 2, "precision": "float32", "target": "label"} | options)
    texts = store.strings("texts")
    made = {"encoder": "offline", "target": config.target, "storage": config.storage, "short": config.short}
    with unwatched():
        crops = load_crops(store, split="train", device=CUDA, **made)
        feed = Feed(crops, texts, config, CUDA)
        vertex_loss = vertex_loss_of(config, load_body("low").to(CUDA), feed.generator)
        learner = Learner(config, SIZES, vertex_loss=vertex_loss, steps=steps, device=CUDA, workers=Workers())
    for step in range(steps):
        learner.begin(step)
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(torch.autograd, "backward", lambda total: give_gradients(learner))
            learner.learn(feed(step))


def give_gradients(learner: Learner) -> None:
    """Gradients that no backward gave."""
    for each in learner.parameters:
        each.grad = torch.zeros_like(each)


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """What is done once, before the first step, may wait."""
    watched = next(
        mode for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack() if isinstance(mode, Watched)
    )
    before = len(watched.waits)
    yield
    del watched.waits[before:]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_step_stays_on_its_device_and_waits_for_nothing(on_fake, long_store, setting):
    with on_fake() as watched:
        learn(long_store, **SETTINGS[setting])
    assert (watched.waits, watched.foreign) == ([], [])


def planted(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor]) -> None:
    """A fault in what goes into the decoder."""
    whole = stepping.decoder_input
    monkeypatch.setattr(stepping, "decoder_input", lambda z_BC, *rest: spoil(whole(z_BC, *rest)))


def test_a_planted_wait_is_found_with_its_line(on_fake, long_store, monkeypatch):
    for spoil in (
        lambda z: z * z.sum().item(),
        lambda z: z if z.sum() > 0 else -z,
        lambda z: z[(z > 0).any(1)],
        lambda z: z + torch.ones(1).to(z.device),
        lambda z: z[:, list(range(z.shape[1]))],
        lambda z: z + z.new_tensor([1.0]),
        lambda z: z + z.cpu().to(z.device, non_blocking=True),
    ):
        with monkeypatch.context() as changed:
            planted(changed, spoil)
            with on_fake() as watched:
                learn(long_store, steps=1)
        (wait,) = watched.waits
        assert wait.startswith("training/train/step.py:")


def test_a_planted_tensor_of_another_device_is_found(on_fake, long_store, monkeypatch):
    planted(monkeypatch, lambda z: z + torch.ones(z.shape))
    with on_fake(), pytest.raises(RuntimeError, match="two different devices cuda:0, cpu"):
        learn(long_store)


def test_a_planted_generator_of_another_device_is_found(on_fake, long_store, monkeypatch):
    planted(monkeypatch, lambda z: z + torch.rand(z.shape, generator=torch.Generator(), device=z.device))
    with on_fake() as watched:
        learn(long_store, steps=1)
    assert len(watched.foreign) == 1


@pytest.fixture
def faked(on_fake, run: Run, long_store: Store) -> Iterator[tuple[Watched, Run]]:
    """A run on CUDA, and what watches it."""
    own = copy.deepcopy(run.model)
    with on_fake() as watched:
        assert run.z_NC is not None
        yield watched, replace(run, model=own.to(CUDA), z_NC=run.z_NC.to(CUDA))


def test_texts_and_motions_are_encoded_changed_and_decoded_on_the_device(faked, long_store):
    watched, run = faked
    watched.waits.clear()
    text_NC = torch.rand(3, 384).to(run.device, non_blocking=True)
    varied_NC = space.text_latent(run, text_NC, chance=Chance.of(["a", "b", "c"], len(run.z_NC), seed=1, share=0.5))
    moved_NC = torch.cat(
        [
            edits.edited(*varied_NC, (0.0, 1.0)),
            edits.between(*varied_NC[:2], 4),
            edits.styled(*varied_NC[:2], (1.0,)),
            edits.varied(varied_NC[0], "a", seed=1, share=0.5)[None],
        ]
    )
    rows = space.decode(run, moved_NC, 20)
    z_C = space.encode(run, rows[0])
    assert {each.device.type for each in (varied_NC, moved_NC, rows, z_C, centred(z_C, run.z_NC))} == {"cuda"}
    # Sent up: the chance of a seed's draws (two), and a variation's. Nothing comes down.
    assert all("_to_copy" in wait for wait in watched.waits)
    assert [wait.split(":")[0] for wait in watched.waits] == ["training/latent/span.py"] * 2 + [
        "training/latent/edits.py"
    ]


def test_a_motion_of_the_host_is_encoded_where_the_model_is_and_a_search_comes_down_once(faked, monkeypatch):
    watched, run = faked
    z_C = space.encode(run, torch.rand(20, 25, 6))
    assert z_C.device.type == "cuda"
    index = Index(torch.rand(9, 384, device=CUDA), np.array([0, 3, 6]))
    watched.waits.clear()
    windows, scores = index.best(z_C, 2)
    assert (windows.shape, scores.shape) == ((2,), (2,))
    (wait,) = watched.waits
    assert wait.startswith("training/latent/search.py")


def test_a_validation_stays_on_the_device_until_its_figures_are_whole(faked, long_store):
    watched, run = faked
    crops = load_crops(long_store, split="train", encoder="offline", target="label", device=CUDA)
    items = torch.arange(len(crops), device=CUDA)
    watched.waits.clear()
    assert errors(run.model, crops, items, z_of(run.model, crops, items)).device.type == "cuda"
    assert len(watched.waits) == 1  # the skeleton goes there
    found, posed = reconstruct(run.model, crops), quality(run.model, crops, fps=30.0)
    assert found.mpjpe_W.shape == posed.vertex_mm.shape == (len(crops),)
    source, decoded = reconstructed(run.model, crops, 0)
    assert source.device.type == decoded.device.type == "cuda"


def test_a_judge_learns_from_crops_on_the_device_that_the_hosts_chance_chose(faked, long_store):
    watched, _ = faked
    crops = load_crops(long_store, split="train", encoder="offline", target="label", device=CUDA)
    seen, label = lesson(crops, 2, 7, torch.Generator())
    assert (len(seen), seen.device, label.device) == (7, CPU, CPU)
    assert watched.foreign == []


def test_pictures_and_texts_are_embedded_on_the_device(on_fake, encoder):
    own = copy.deepcopy(encoder.model)
    with on_fake():
        there = replace(encoder, model=own.to(CUDA))
        assert there.encode_pictures(torch.zeros(33, 96, 96, 3, dtype=torch.uint8)).shape == (33, 384)
        assert there.encode_texts(["a walk", "a person kicks with the left leg"]).shape == (2, 384)
