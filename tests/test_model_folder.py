"""Model folders are read as data: no key beyond sizes, words and colours, and nothing that lies in them is run."""

import copy
import importlib.util
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mclip.pipeline.embed.encoder import EncoderError
from mclip.pipeline.embed.loading import load_encoder
from mclip.pipeline.embed.model_folder import Model
from mclip.pipeline.embed.offline import OFFLINE_PACKAGE
from mclip.pipeline.files.documents import adapter

MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
COLOURS = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
TEXTS = ["walk", "", "a person crawls on the floor", "Jump, then KICK!", "跳舞"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as open_clip writes it, of random weights."""
    made = tmp_path / "clip"
    made.mkdir()
    file = tmp_path / "folder-model.json"
    file.write_text(json.dumps(MODEL))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    save_file(open_clip.create_model("folder-model").state_dict(), made / "open_clip_model.safetensors")
    write_config(made)
    return made


def write_config(folder: Path, change: Callable[[dict[str, Any]], object] = lambda config: None) -> None:
    """The folder's config with something changed in it."""
    config = copy.deepcopy({"model_cfg": MODEL, "preprocess_cfg": COLOURS})
    change(config)
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def plant(folder: Path) -> Path:
    """A tokenizer and a model of the folder's own in Python, under every name that transformers asks for."""
    mark = folder / "executed"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').write('run')\nfrom transformers import PreTrainedTokenizer, PretrainedConfig\n"
        "class Evil(PreTrainedTokenizer):\n    pass\nclass EvilConfig(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    auto = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil"}
    words = {"tokenizer_class": "Evil", "auto_map": auto, "trust_remote_code": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    return mark


FORMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "trust_remote_code": lambda c: c["model_cfg"]["text_cfg"].update(
        hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": True}
    ),
    "trust_remote_code off, a revision": lambda c: c["model_cfg"]["text_cfg"].update(
        hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": False, "code_revision": "main"}
    ),
    "a tokenizer class": lambda c: c["model_cfg"]["text_cfg"].update(
        hf_tokenizer_name="x", tokenizer_kwargs={"tokenizer_type": "Evil"}
    ),
    "a cleaning of another name": lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"clean": "__import__"}),
    "a text tower in the folder": lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="FOLDER"),
    "a text tower on the hub": lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="someone/evil"),
    "a picture tower on the hub": lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="hf-hub:someone/evil"),
    "a picture tower in the folder": lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="local-dir:FOLDER"),
    "a key of a tower": lambda c: c["model_cfg"]["vision_cfg"].update(act_layer="os.system"),
    "a key of an activation": lambda c: c["model_cfg"]["text_cfg"].update(act_kwargs={"approximate": "none", "x": 1}),
    "a key of a norm": lambda c: c["model_cfg"]["vision_cfg"].update(norm_kwargs={"device": "cuda"}),
    "a key of the model": lambda c: c["model_cfg"].update(cast_dtype="float16"),
    "a key of the colours": lambda c: c["preprocess_cfg"].update(transform="evil.Transform"),
    "numbers without end": lambda c: c["model_cfg"]["vision_cfg"].update(mlp_ratio=float("inf")),
    "a size as text": lambda c: c["model_cfg"].update(embed_dim="32"),
    "a size below one": lambda c: c["model_cfg"]["text_cfg"].update(layers=0),
    "a width of terabytes": lambda c: c["model_cfg"]["vision_cfg"].update(width=2_000_000),
    "words of gigabytes": lambda c: c["model_cfg"]["text_cfg"].update(vocab_size=2_000_000, width=4096),
    "layers without end": lambda c: c["model_cfg"]["text_cfg"].update(layers=2_000_000),
    "no model": lambda c: c.pop("model_cfg"),
    "no text tower": lambda c: c["model_cfg"].pop("text_cfg"),
    "a list for a model": lambda c: c.update(model_cfg=[]),
    "a division by zero": lambda c: c["preprocess_cfg"].update(std=[0.0] * 3),
    "two colours": lambda c: c["preprocess_cfg"].update(mean=[0.5] * 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_config_that_asks_for_more_is_refused_by_name_and_nothing_runs(folder: Path, form: str) -> None:
    mark = plant(folder)

    def change(config: dict[str, Any]) -> None:
        FORMS[form](config)
        for tower in (config.get("model_cfg") or {}).values() if isinstance(config.get("model_cfg"), dict) else ():
            for key, value in tower.items() if isinstance(tower, dict) else ():
                tower[key] = value.replace("FOLDER", str(folder)) if isinstance(value, str) else value

    write_config(folder, change)
    with pytest.raises(EncoderError, match="open_clip_config.json: "):
        load_encoder(f"local-dir:{folder}")
    assert not mark.exists()


def test_the_attack_works_on_open_clip_itself(folder: Path) -> None:
    # The control: what is refused above runs where nobody reads the config first.
    mark = plant(folder)
    write_config(folder, FORMS["trust_remote_code"])
    program = f"import open_clip; open_clip.get_tokenizer('local-dir:{folder}')"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert mark.exists()


def text_package() -> Path:
    """The folder of all-MiniLM-L6-v2: a real tokenizer.json."""
    found = importlib.util.find_spec(OFFLINE_PACKAGE)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0], "model")


def with_tokenizer(config: dict[str, Any]) -> None:
    """Ask for a tokenizer of the folder's own."""
    config["model_cfg"]["text_cfg"].update(hf_tokenizer_name="someone/clip", tokenizer_kwargs={"clean": "canonicalize"})


def test_a_folders_tokenizer_is_read_without_its_class(folder: Path) -> None:
    mark = plant(folder)
    (folder / "tokenizer.json").write_bytes((text_package() / "tokenizer.json").read_bytes())
    theirs = json.loads((text_package() / "tokenizer_config.json").read_text())
    evil = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(theirs | evil | {"pad_token": {"content": "[PAD]"}}))
    write_config(folder, with_tokenizer)
    encoder = load_encoder(f"local-dir:{folder}")
    assert not mark.exists()
    # transformers' own class of that tokenizer, with the same cleaning by open_clip.
    expected = open_clip.tokenizer.HFTokenizer(str(text_package()), context_length=77, clean="canonicalize")
    assert torch.equal(encoder.tokenize(TEXTS), expected(TEXTS))
    assert encoder.tokenize(TEXTS).ne(0).sum() > 20
    assert encoder.encode_texts(TEXTS).shape == (5, 32)


def test_a_folder_without_the_tokenizer_that_it_asks_for_says_which_file_it_lacks(folder: Path) -> None:
    plant(folder)
    write_config(folder, with_tokenizer)
    with pytest.raises(EncoderError, match=r"clip: lacks tokenizer\.json"):
        load_encoder(f"local-dir:{folder}")


def test_a_pickle_in_a_folder_runs_nothing(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "executed",)

    (folder / "open_clip_model.safetensors").unlink()
    for dump in (torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))):
        dump(
            {"visual.proj": Bomb(), "as large as the model": torch.zeros(450_000)},
            folder / "open_clip_pytorch_model.bin",
        )
        with pytest.raises(EncoderError, match=r"open_clip_pytorch_model\.bin: .*is not run"):
            load_encoder(f"local-dir:{folder}")
        assert not (folder / "executed").exists()


def test_a_folder_gives_what_open_clip_reads_of_it(folder: Path) -> None:
    encoder = load_encoder(f"local-dir:{folder}")
    own = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens, rgb = open_clip.tokenize(TEXTS), torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(encoder.encode_texts(TEXTS), own.encode_text(tokens), atol=1e-5)
        assert torch.allclose(encoder.model.encode_image(rgb), own.encode_image(rgb), atol=1e-5)
    assert encoder.preprocessing == own.visual.preprocess_cfg
    assert encoder.width == 32


@pytest.mark.parametrize("name", open_clip.list_models())
def test_the_config_of_every_model_of_open_clip_is_admitted(name: str) -> None:
    adapter(Model).validate_json(json.dumps(open_clip.get_model_config(name)), strict=True)


# The smallest of each family whose picture tower is timm's; eva_giant's class is eva02's, and takes 4 GB.
FAMILIES = (
    "convnext_tiny",
    "EVA02-B-16",
    "swin_base_patch4_window7_224",
    "MobileCLIP2-S0",
    "MobileCLIP-B",
    "ViT-B-16-SigLIP",
    "PE-Core-T-16-384",
    "ViTamin-S",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
)


def small_tokenizer(texts: list[str], context_length: int) -> torch.Tensor:
    """Tokens for models whose own tokenizer is on the hub; their encoding is compared, whatever the words are."""
    return torch.tensor([[len(text), *range(1, context_length)] for text in texts])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_with_a_picture_tower_of_timms_gives_open_clips_own_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = open_clip.get_model_config(name)
    config["text_cfg"]["layers"] = 1  # the picture tower is whole
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    torch.manual_seed(0)
    own = open_clip.create_model(name).eval()
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    if "hf_tokenizer_name" in config["text_cfg"]:
        small_tokenizer.context_length = config["text_cfg"]["context_length"]  # type: ignore[attr-defined]
        monkeypatch.setattr("open_clip.get_tokenizer", lambda _: small_tokenizer)
    encoder = load_encoder(name, str(tmp_path / "weights.pt"), device=torch.device("cpu"))
    rgb = torch.randint(0, 255, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        texts, pictures = own.encode_text(encoder.tokenize(TEXTS)), own.encode_image(encoder.preprocess(rgb))
    assert encoder.describe()["width"] == config["embed_dim"] == texts.shape[1] == pictures.shape[1]
    for found, expected in ((encoder.encode_texts(TEXTS), texts), (encoder.encode_pictures(rgb), pictures)):
        largest = float(expected.abs().max())  # 1e-4 of PE-Core's, whose layers begin near zero
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * largest)
        assert expected.std() > 0.1 * largest


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub whose port is closed, and an empty cache."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("no_hub")
def test_a_model_that_lacks_its_tokenizer_offline_says_which_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    config |= {"vision_cfg": MODEL["vision_cfg"], "embed_dim": 32}  # a small one: it is built before it is refused
    config["text_cfg"] |= {"width": 32, "heads": 1, "layers": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-SigLIP", config)
    torch.save(open_clip.create_model("ViT-B-16-SigLIP").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(EncoderError, match=r"lacks its tokenizer, tokenizer\.json of timm/ViT-B-16-SigLIP on the hub"):
        load_encoder("ViT-B-16-SigLIP", str(tmp_path / "weights.pt"))


@pytest.mark.usefixtures("no_hub")
def test_a_model_that_lacks_its_text_towers_config_offline_says_which_file(tmp_path: Path) -> None:
    torch.save({"visual.proj": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(EncoderError, match=r"lacks config\.json of facebook/nllb-200-distilled-600M"):
        load_encoder("nllb-clip-base-siglip", str(tmp_path / "weights.pt"))
