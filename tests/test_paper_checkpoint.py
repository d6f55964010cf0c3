"""The paper's release, rebuilt on torch's stock modules with its own names and its own order of axes, is the judge."""

import json
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mclip.training.latent.space import latent
from mclip.training.model.paper_checkpoint import import_checkpoint
from mclip.training.model.run import RunError, load_run
from mclip.training.model.run_documents import ANKLE_PATH

WIDTH, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 96


class PositionalEncoding(nn.Module):
    def __init__(self):
        super().__init__()
        position = torch.arange(5000).unsqueeze(1)
        rate = torch.exp(torch.arange(0, WIDTH, 2) * (-torch.log(torch.tensor(10000.0)) / WIDTH))
        pe = torch.zeros(5000, 1, WIDTH)
        pe[:, 0, 0::2], pe[:, 0, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return x + self.pe[: len(x)]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.muQuery, self.sigmaQuery = (nn.Parameter(torch.randn(1, WIDTH)) for _ in range(2))
        self.skelEmbedding = nn.Linear(150, WIDTH)
        self.sequence_pos_encoder = PositionalEncoding()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, activation="gelu")
        self.seqTransEncoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x_BRDT, mask_BT):
        x = self.skelEmbedding(x_BRDT.permute(3, 0, 1, 2).flatten(2))
        tokens = [each.expand(1, len(mask_BT), -1) for each in (self.muQuery, self.sigmaQuery)]
        ignored = torch.cat((torch.zeros(len(mask_BT), 2, dtype=torch.bool), ~mask_BT), dim=1)
        sequence = self.sequence_pos_encoder(torch.cat((*tokens, x)))
        return self.seqTransEncoder(sequence, src_key_padding_mask=ignored)[0]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.actionBiases = nn.Parameter(torch.randn(1, WIDTH))
        self.sequence_pos_encoder = PositionalEncoding()
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, FEED_FORWARD, activation="gelu")
        self.seqTransDecoder = nn.TransformerDecoder(layer, LAYERS)
        self.finallayer = nn.Linear(WIDTH, 150)

    def forward(self, z_BC, mask_BT):
        queries = self.sequence_pos_encoder(torch.zeros(mask_BT.shape[1], len(z_BC), WIDTH))
        out = self.seqTransDecoder(queries, z_BC[None], tgt_key_padding_mask=~mask_BT)
        motion = self.finallayer(out).view(len(queries), len(z_BC), 25, 6)
        motion[~mask_BT.T] = 0
        return motion.permute(1, 2, 3, 0)


class Release(nn.Module):
    """The auto-encoder with random weights, and a stranger's buffer as the release's body model leaves them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.rotation2xyz = nn.Linear(3, 3)


@pytest.fixture(scope="module")
def release() -> Release:
    torch.manual_seed(0)
    model = Release().eval()
    for name, each in model.named_parameters():  # stock layers start as copies of one another
        if "norm" not in name:
            nn.init.normal_(each, std=0.1)
    return model


@pytest.fixture
def checkpoint(release, tmp_path):
    torch.save(release.state_dict(), tmp_path / "checkpoint_0100.pth.tar")
    return tmp_path / "checkpoint_0100.pth.tar"


def imported(checkpoint, tmp_path, options=None):
    return import_checkpoint(checkpoint, options, tmp_path / "run", clip="ViT-B-32", pretrained="openai")


@pytest.mark.parametrize("lengths", [(60, 60), (60, 23)])
def test_imported_model_gives_the_releases_outputs(release, checkpoint, tmp_path, lengths):
    imported(checkpoint, tmp_path)
    run = load_run(tmp_path / "run")
    motion = torch.randn(2, 60, 25, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(60) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        z = release.encoder(motion.permute(0, 2, 3, 1), mask)
        decoded = release.decoder(z, mask).permute(0, 3, 1, 2)
    torch.testing.assert_close(run.model.encode(motion, mask), z, rtol=0, atol=1e-5)
    torch.testing.assert_close(run.model.decode(z, 60, mask), decoded, rtol=0, atol=1e-5)
    assert decoded.std() > 0.1


def test_imported_run_knows_what_it_is(checkpoint, tmp_path):
    line = imported(checkpoint, tmp_path)
    run = load_run(tmp_path / "run")
    assert run.row25 == ANKLE_PATH
    assert run.z_length is None
    assert run.config["encoder"]["name"] == "ViT-B-32_openai"
    assert (run.fps, run.crop, run.step) == (30.0, 60, 0)
    assert run.config["imported"]["file"] == "checkpoint_0100.pth.tar"
    vectors = torch.randn(2, WIDTH)
    assert torch.equal(latent(run, vectors), vectors)  # nobody measured the length of z: vectors go as they are
    count = sum(each.numel() for each in run.model.parameters())
    assert f"2 + 2 layers, {count:,} numbers" in line


def test_second_import_changes_nothing_and_another_checkpoint_is_refused(checkpoint, tmp_path, release):
    imported(checkpoint, tmp_path)
    file = tmp_path / "run/checkpoints/00000000/model.safetensors"
    before = file.stat().st_mtime_ns
    imported(checkpoint, tmp_path)
    assert file.stat().st_mtime_ns == before
    other = release.state_dict() | {"encoder.muQuery": torch.zeros(1, WIDTH)}
    torch.save(other, checkpoint)
    with pytest.raises(RunError, match="made with other options"):
        imported(checkpoint, tmp_path)


def test_opt_yaml_gives_heads_and_frames(checkpoint, tmp_path):
    (tmp_path / "opt.yaml").write_text("latent_dim: 64\nnum_layers: 2\nff_size: 96\nnum_heads: 8\nnum_frames: 48\n")
    imported(checkpoint, tmp_path, tmp_path / "opt.yaml")
    run = load_run(tmp_path / "run")
    assert (run.config["model"]["heads"], run.crop) == (8, 48)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latent_dim: 512\n", "another model's.*latent_dim.*512, weights say 64"),
        ("- 1\n", "found list, expected the release's options"),
        ("a: !!python/object/apply:os.getcwd []\n", "not plain YAML"),
    ],
)
def test_options_that_do_not_fit_are_refused(checkpoint, tmp_path, text, told):
    (tmp_path / "opt.yaml").write_text(text)
    with pytest.raises(RunError, match=told):
        imported(checkpoint, tmp_path, tmp_path / "opt.yaml")
    assert not (tmp_path / "run").exists()


def test_missing_and_unknown_keys_are_listed(checkpoint, tmp_path, release):
    state = OrderedDict(release.state_dict())
    del state["encoder.sigmaQuery"]
    state["decoder.ztimelinear.weight"] = torch.zeros(2)
    torch.save(state, checkpoint)
    with pytest.raises(
        RunError, match=r"1 keys missing \['encoder.sigmaQuery'\], 1 unknown \['decoder.ztimelinear.weight'\]"
    ):
        imported(checkpoint, tmp_path)
    assert not (tmp_path / "run").exists()


def test_another_position_code_is_refused(checkpoint, tmp_path, release):
    state = release.state_dict()
    torch.save(state | {"encoder.sequence_pos_encoder.pe": state["encoder.sequence_pos_encoder.pe"] * 2}, checkpoint)
    with pytest.raises(RunError, match="encoder.sequence_pos_encoder.pe is no sine and cosine code"):
        imported(checkpoint, tmp_path)


def test_shapes_that_do_not_fit_are_named(checkpoint, tmp_path, release):
    torch.save(release.state_dict() | {"decoder.finallayer.weight": torch.zeros(7, WIDTH)}, checkpoint)
    with pytest.raises(RunError, match=r"shapes do not fit together: .*final.weight.*\[7, 64\]"):
        imported(checkpoint, tmp_path)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_a_pickle_in_disguise_is_refused_and_runs_nothing(checkpoint, tmp_path, save):
    with checkpoint.open("wb") as file:
        save({"encoder.muQuery": Bomb(tmp_path / "burnt")}, file)
    with pytest.raises(RunError, match="refused, expected tensors by name") as refusal:
        imported(checkpoint, tmp_path)
    assert "weights_only" not in str(refusal.value)  # no advice to run it
    assert not (tmp_path / "burnt").exists()


def test_a_file_that_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    checkpoint.write_bytes(b"\x00" * 100)
    with pytest.raises(RunError, match="refused, expected tensors by name"):
        imported(checkpoint, tmp_path)
    torch.save([torch.zeros(2)], checkpoint)
    with pytest.raises(RunError, match="found list, expected tensors by name"):
        imported(checkpoint, tmp_path)
    with pytest.raises(RunError, match="no such file"):
        imported(tmp_path / "missing.pth.tar", tmp_path)


def test_the_releases_defaults_without_opt_yaml(checkpoint, tmp_path):
    imported(checkpoint, tmp_path)
    sizes = json.loads((tmp_path / "run/config.json").read_text())["model"]
    assert sizes == {
        "latent": 64,
        "layers": 2,
        "heads": 4,
        "feed_forward": 96,
        "dropout": 0.1,
        "unit_latent": False,
        "copied_layers": False,
    }
