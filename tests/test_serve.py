"""The server as programs meet it: real sockets, answers that are those of the Python API, and clients that are slow."""

import functools
import http.client
import io
import json
import os
import re
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'mclip[serve]'")
pytest.importorskip("motionmcp", reason="motionmcp-sdk is not installed: pip install 'mclip[serve]'")

from motionmcp import client as mmcp

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import matrix_to_rot6d
from mclip.pipeline.geometry.skeleton import JOINTS, forward_kinematics
from mclip.pipeline.store.store import Store
from mclip.training import Motion, MotionClip
from mclip.training.model.run import Run
from mclip.training.serve import gate, server
from mclip.training.serve.app import Service
from mclip.training.serve.line import Line
from mclip.training.serve.server import Served, serve
from mclip.training.show.writers import Y_UP

KICK = MOTIONS / "EMBEDDED/kick/kick_poses.npz"
JSON = {"Content-Type": "application/json"}
TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def model(run: Run) -> MotionClip:
    return MotionClip.from_pretrained(run.folder)


@pytest.fixture(scope="module")
def port(model: MotionClip, store: Store) -> Iterator[int]:
    with Served(Service(model, store), host="127.0.0.1", port=0, token=None) as served:
        yield served.port


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of an answer; what is no bytes is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = JSON if not isinstance(body, bytes) else {}
    method = "GET" if body is None else "POST"
    connection.request(method, path, content, kind | {name.replace("_", "-"): word for name, word in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def answered(port: int, path: str, body: Any = None) -> Any:
    """The JSON of an answer that is right."""
    status, content = ask(port, path, body)
    assert status == 200, content
    return json.loads(content)


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as opened:
        return dict(opened)


def saved(motion: Motion, folder: Path) -> dict[str, np.ndarray]:
    motion.save(folder / "wanted.npz")
    return arrays_of((folder / "wanted.npz").read_bytes())


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert np.array_equal(found[name], wanted[name]), name


def test_a_text_becomes_the_file_that_python_saves(port: int, model: MotionClip, tmp_path: Path) -> None:
    asked = {"texts": ["a person kicks"], "seconds": 1.5, "seed": 3, "format": "npz"}
    status, content = ask(port, "/generate", asked)
    assert status == 200
    assert_equal(arrays_of(content), saved(model.generate("a person kicks", 45, seed=3), tmp_path))


def test_several_texts_are_a_zip_or_a_list_of_numbers(port: int, model: MotionClip, tmp_path: Path) -> None:
    texts = ["walk", "歩く"]
    _, content = ask(port, "/generate", {"texts": texts, "format": "bvh"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["00-walk.bvh", "01-歩く.bvh"]
        (tmp_path / "walk.bvh").write_bytes(archive.read("00-walk.bvh"))
    wanted = model.generate("walk")
    assert torch.allclose(Motion.load(tmp_path / "walk.bvh").rotmat_TJ33.float(), wanted.rotmat_TJ33, atol=1e-4)
    walk, _ = answered(port, "/generate", {"texts": texts})["motions"]
    assert (walk["title"], walk["fps"]) == ("walk", model.run.fps)
    for name, values in (("rot6d", matrix_to_rot6d(wanted.rotmat_TJ33)), ("joints", wanted.joints())):
        assert np.allclose(walk[name], values, atol=1e-5), name


def test_a_sequence_is_the_one_motion_that_generate_sequence_writes(
    port: int, model: MotionClip, run: Run, tmp_path: Path
) -> None:
    words = ["generate", str(run.folder), "walk @1", "kick @1.5", "--sequence", "--format", "npz", "--out"]
    told = CliRunner().invoke(cli, [*words, str(tmp_path / "out")], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    (wanted,) = (arrays_of(file.read_bytes()) for file in (tmp_path / "out").glob("*.npz"))
    assert_equal(saved(model.sequence(["walk", "kick"], [1.0, 1.5]), tmp_path), wanted)
    asked = {"texts": ["walk", "kick"], "seconds": [1, 1.5], "sequence": True, "format": "npz"}
    assert_equal(arrays_of(ask(port, "/generate", asked)[1]), wanted)


def test_python_refuses_a_sequence_that_the_command_line_refuses(model: MotionClip) -> None:
    with pytest.raises(ValueError, match="seconds of 1 texts, expected those of 2"):
        model.sequence(["walk", "kick"], [1.0])
    with pytest.raises(ValueError, match="0.1 seconds of a text, expected 0.5 to 600"):
        model.sequence(["walk", "kick"], 0.1)


def test_edits_vectors_hits_and_classes_are_those_of_python(port: int, model: MotionClip, store: Store) -> None:
    (edit,) = answered(port, "/edit", {"base": "store:walk", "from": "walk", "to": "kick", "scale": 0.5})["motions"]
    assert np.allclose(edit["joints"], model.edit("store:walk", "walk", "kick", 0.5, store=store).joints(), atol=1e-5)
    z_NC = model.encode_text(["walk", "kick"])
    assert np.allclose(answered(port, "/encode", {"texts": ["walk", "kick"]})["vectors"], z_NC)
    packed = ask(port, "/encode", {"texts": ["walk", "kick"], "format": "npz"})[1]
    assert np.allclose(arrays_of(packed)["vectors"], z_NC)
    hits = answered(port, "/search", {"query": "a karate kick", "top": 2})["hits"]
    assert [(hit["clip"], hit["score"]) for hit in hits] == [
        (hit.clip, hit.score) for hit in model.search(store, "a karate kick", 2)
    ]


def test_a_motion_that_is_sent_is_encoded_searched_and_recognised(port: int, model: MotionClip, store: Store) -> None:
    content = KICK.read_bytes()
    (vector,) = answered(port, "/encode/motion?name=kick.npz", content)["vectors"]
    assert np.allclose(vector, model.encode_motion(KICK), atol=1e-5)
    (hit,) = answered(port, "/search/motion?name=kick.npz&top=1", content)["hits"]
    assert hit["clip"] == "EMBEDDED/kick/kick_poses.npz"
    (piece,) = answered(port, "/recognise?name=kick.npz&top=3", content)["pieces"]
    (wanted,) = model.recognise(KICK, top=3)
    assert [name for name, _ in piece["classes"]] == [name for name, _ in wanted.classes]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/generate", {"texts": []}, 422, "texts: List should have at least 1 item"),
        ("/generate", {"texts": ["walk"] * 17}, 422, "texts: List should have at most 16 items"),
        ("/generate", {"texts": ["w" * 3000]}, 422, "texts[0]: it should have at most 2000 characters"),
        ("/generate", {"texts": ["walk"], "seconds": 900}, 422, "seconds: should be less than or equal to 60"),
        ("/generate", {"texts": ["walk"] * 3, "seconds": 60}, 422, "180 seconds of motion, expected at most 120"),
        ("/generate", {"texts": ["walk"] * 3, "seconds": [1, 2]}, 422, "seconds are 2, texts 3"),
        ("/generate", {"texts": ["walk"], "secnods": 3}, 422, "secnods: Extra inputs are not permitted"),
        ("/generate", {"texts": ["/etc/secret.npz"]}, 422, "texts[0]: names a motion, expected a text"),
        ("/generate", {"texts": ["walk"], "format": "exe"}, 422, "format: should be 'npz', 'glb', 'bvh' or 'json'"),
        ("/generate", {"texts": [" "]}, 400, "text"),
        ("/edit", {"base": "/etc/a.bvh", "from": "walk", "to": "run"}, 422, "a file of the server cannot be named"),
        ("/edit", {"base": "store:nobody", "from": "walk", "to": "run"}, 400, "no clip is labelled or called 'nobody'"),
        ("/search", {"query": "walk", "top": 0}, 422, "top: should be greater than or equal to 1 (found 0)"),
        ("/generate", b"{", 422, ""),
        ("/recognise?name=a.exe", b"x", 400, "'a.exe': expected the name of a motion file, which ends in .npz or .bvh"),
        ("/recognise?name=a.pkl", b"x", 400, "expected the name of a motion file"),
        ("/recognise?name=a.npz", b"not a zip", 400, "a.npz: "),
        ("/recognise?name=../../a.bvh", b"HIERARCHY", 400, "../../a.bvh: "),
        ("/recognise?name=a.npz&classes=/etc/passwd", b"x", 422, "classes: it should match"),
        ("/generate", b"x" * (gate.LARGEST_MOTION + 1), 413, "larger than 16,777,216 bytes"),
        ("/generate", {"texts": ["w" * gate.LARGEST_WORDS]}, 413, "larger than 262,144 bytes"),
        ("/nowhere", None, 404, "Not Found: GET / says what there is."),
        ("/generate", None, 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(port: int, path: str, body: Any, status: int, told: str) -> None:
    found, content = ask(port, path, body)
    said = json.loads(content)
    assert found == status
    assert said.keys() == {"error"}
    assert told in said["error"]
    assert "/tmp" not in said["error"]
    assert answered(port, "/capabilities")["crop_frames"] == 60  # and the server goes on


def test_a_server_without_a_store_says_how_to_give_it_one(model: MotionClip) -> None:
    with Served(Service(model), host="127.0.0.1", port=0, token=None) as served:
        status, content = ask(served.port, "/search", {"query": "walk"})
    assert (status, json.loads(content)["error"]) == (
        400,
        "There is no store to search: start the server with --store STORE.",
    )


def test_a_page_of_somebody_else_is_turned_away(port: int) -> None:
    own = f"127.0.0.1:{port}"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": f"evil.example:{port}"}):
        assert ask(port, "/capabilities", **headers)[0] == 403, headers
    for headers in ({}, {"Host": "localhost"}, {"Host": own, "Origin": f"http://{own}"}):
        assert ask(port, "/capabilities", **headers)[0] == 200, headers


def test_without_the_token_nothing_of_the_model_is_said(model: MotionClip) -> None:
    with Served(Service(model), host="127.0.0.1", port=0, token=TOKEN) as served:
        for path in ("/capabilities", "/mmcp/capabilities"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                assert ask(served.port, path, **headers)[0] == 401
            assert ask(served.port, path, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(served.port, "/")[0] == 200


def test_the_page_that_says_how_to_ask_asks_nothing_of_a_network(port: int) -> None:
    status, content = ask(port, "/")
    page = content.decode()
    assert status == 200
    assert re.findall(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|src=|url\(|@import|https?:", page) == []
    for path, methods in answered(port, "/openapi.json")["paths"].items():
        assert f"{next(iter(methods)).upper()} {path}" in page
    for said in ("seconds", "0.5 to 60", "npz, glb, bvh, json", "Leads to another motion of the same text."):
        assert said in page


def test_one_too_many_is_told_to_come_again(model: MotionClip) -> None:
    service, go_on = Service(model, line=Line(most=2)), threading.Event()
    with Served(service, host="127.0.0.1", port=0, token=None) as served:
        service.line.thread.submit(go_on.wait)
        waiting = [threading.Thread(target=ask, args=(served.port, "/encode", {"texts": ["walk"]})) for _ in range(2)]
        for each in waiting:
            each.start()
        end = time.monotonic() + 10
        while service.line.waiting < 2 and time.monotonic() < end:
            time.sleep(0.01)
        status, content = ask(served.port, "/encode", {"texts": ["walk"]})
        go_on.set()
        for each in waiting:
            each.join()
        assert (status, json.loads(content)["error"]) == (
            503,
            "2 requests are waiting already; ask again in some seconds.",
        )
        assert ask(served.port, "/encode", {"texts": ["walk"]})[0] == 200


def test_who_is_slow_to_ask_or_to_read_holds_nobody_up_and_is_let_go(
    model: MotionClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 4.0)
    monkeypatch.setattr(gate, "BODY_SECONDS", 4.0)
    head = b"POST /encode HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    whole = head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    begun = [b"", head, whole, whole + b'{"texts"']
    with Served(Service(model), host="127.0.0.1", port=0, token=None) as served:
        slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
        for number, each in enumerate(slow):
            each.sendall(begun[number % len(begun)])
        reader = socket.create_connection(("127.0.0.1", served.port))  # asks for much and reads none of it
        long = json.dumps({"texts": ["walk"], "seconds": 30}).encode()
        reader.sendall(whole.replace(b"100", str(len(long)).encode()).replace(b"/encode", b"/generate") + long)
        start = time.monotonic()
        assert ask(served.port, "/capabilities")[0] == 200
        assert time.monotonic() - start < 3.9  # none of the slow ones is gone by then
        assert ask(served.port, "/encode", {"texts": ["walk"]})[0] == 200
        ends = []
        for each in slow:
            each.settimeout(20)
            ends.append(b"".join(iter(functools.partial(each.recv, 4096), b"")))
            each.close()
        reader.close()
    told = [end.split(b"\r\n\r\n")[-1] for end in ends]
    late = b'{"error":"The request did not arrive within 4 seconds."}'
    assert told == [(b"", b"", late, late)[number % 4] for number in range(200)]


def test_blenders_protocol_gives_the_motion_that_python_makes(port: int, model: MotionClip) -> None:
    """By the client of the protocol's own kit; joints by forward kinematics of what it reads from the answer."""
    url = f"http://127.0.0.1:{port}/mmcp"
    found = mmcp.pick_model(mmcp.get_capabilities(url, use_cache=False))
    parts = [{"type": "text", "prompt": text, "duration_frames": 40} for text in ("walk", "kick")]
    asked = {"protocol_version": "1.4", "model": found["id"], "segments": parts, "options": {"seed": 5}}
    (sample,) = mmcp.parse_gltf_samples(mmcp.generate(url, asked | {"skeleton": found["canonical_skeleton"]}))
    wanted = model.sequence(["walk", "kick"], [40 / 30, 40 / 30], seed=5).joints().double() @ Y_UP.T
    assert sample["joint_names"] == list(JOINTS)
    rotmat = torch.from_numpy(sample["local_rot_mats"]).double()
    joints_J3 = load_body("low").joints_J3.double()
    root = torch.from_numpy(sample["posed_joints"][:, 0]).double() - joints_J3[0]
    assert torch.allclose(forward_kinematics(rotmat, joints_J3, root_B3=root)[1], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"segments": [{"type": "unconditioned", "duration_frames": 30}]}, "unsupported_segment"),
        ({"segments": [{"type": "text", "prompt": "walk", "duration_frames": 10_000}]}, "invalid_options"),
        ({"segments": [{"type": "text", "prompt": "a.npz\x00 ", "duration_frames": 60}] * 40}, "invalid_options"),
        ({"model": "another"}, "unknown_model"),
        ({"segments": [{"type": "text", "prompt": " ", "duration_frames": 60}]}, "invalid_request"),
    ],
)
def test_blenders_protocol_tells_what_the_model_cannot_do(port: int, change: dict[str, Any], told: str) -> None:
    url = f"http://127.0.0.1:{port}/mmcp"
    found = mmcp.pick_model(mmcp.get_capabilities(url, use_cache=False))
    parts = [{"type": "text", "prompt": "walk", "duration_frames": 60}]
    asked = {"protocol_version": "1.4", "model": found["id"], "segments": parts}
    with pytest.raises(mmcp.MmcpError) as error:
        mmcp.generate(url, asked | {"skeleton": found["canonical_skeleton"]} | change)
    assert error.value.code == told


def test_a_port_in_use_is_told(model: MotionClip, port: int) -> None:
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}: Address already in use.*; name another --port"):
        Served(Service(model), host="127.0.0.1", port=port, token=None)


def test_it_ends_at_a_signal_and_frees_its_port(model: MotionClip) -> None:
    said: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end() -> None:
        while not said:
            time.sleep(0.01)
        found = int(said[0].split(":")[3].split()[0])
        said.append(str(ask(found, "/capabilities")[0]))
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    try:
        serve(model, None, host="127.0.0.1", port=0, token=None, say=said.append)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ending.join()
    assert said[1:] == ["200", "serve: ended"]
    socket.create_server(("127.0.0.1", int(said[0].split(":")[3].split()[0]))).close()
