"""The studio as browsers meet it: a real server, real websockets, and one real Chromium."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import torch

pytest.importorskip("viser", reason="viser is not installed: pip install 'mclip[studio]'")

import msgspec
import viser
import websockets.exceptions
import zstandard
from websockets.sync.client import connect

from mclip.pipeline.characters.character import Character
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.prepare.amass import read_motion
from mclip.pipeline.store.store import Store
from mclip.training.api import MotionClip
from mclip.training.data.rows import rows_of_motion
from mclip.training.latent.space import decode, encode, facing_viewer, motion_rows, vectors_of
from mclip.training.latent.span import centred
from mclip.training.model.run import Run
from mclip.training.serve.doors import token_for
from mclip.training.show.folder import plain_name
from mclip.training.show.motion import Motion, motion_of_rows, read
from mclip.training.studio import session as studio
from mclip.training.studio.server import LONGEST_MESSAGE, Studio, serve
from mclip.training.studio.space import FIRST, TOP, Space
from mclip.workflows.make_characters import CHARACTERS, write_character

LONG_FRAMES = {0: 100, 1: 100, 2: 60, 4: 15}  # of windows of `long_store`
TOKEN = "correct horse battery"
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0, 0, 0),
    "position": (0.0, -4, 1),
    "fov": 0.6,
    "near": 0.1,
    "far": 100.0,
    "image_height": 400,
    "image_width": 600,
    "look_at": (0.0, 0, 0),
    "up_direction": (0.0, 0, 1),
}


def wait_for(true: Callable[[], Any], seconds: float = 60.0, seen: Callable[[], Any] = lambda: "") -> Any:
    """What `true` says once it says something; an assertion error with what was `seen` where it never does.

    A minute, for Chromium draws by the processor here: it takes seconds to a letter where tests run beside it.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {seen()}")


class Browser:
    """What a browser is to the server: it names its camera, keeps what it is sent, and presses things."""

    def __init__(self, port: int, name: str = "127.0.0.1", *, link: str = "", **headers: str) -> None:
        protocol: Any = f"viser-v{viser.__version__}"
        self.socket = connect(
            f"ws://{name}:{port}/?state={quote(link)}",
            sock=socket.create_connection(("127.0.0.1", port)),
            subprotocols=[protocol],
            additional_headers=headers,
            max_size=None,
            compression=None,
        )
        self.got: list[dict[str, Any]] = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):  # turned away already
            self.send(**CAMERA)

    def read(self) -> None:
        try:
            for raw in self.socket:
                assert isinstance(raw, bytes)
                packed = int.from_bytes(raw[8:16], "little")
                self.got += msgspec.msgpack.decode(zstandard.decompress(raw[16 : 16 + packed]))["messages"]
        except websockets.exceptions.ConnectionClosed:
            pass

    def send(self, **message: Any) -> None:
        self.socket.send(msgspec.msgpack.encode(message))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in list(self.got) if message["type"] == kind]

    def field(self, label: str, kind: str = "GuiTextMessage") -> str:
        """The id of a field by its label."""
        return str(wait_for(lambda: [m["uuid"] for m in self.all(kind) if m["props"]["label"].endswith(label)])[-1])

    def type(self, **words: str) -> None:
        """Write into fields."""
        for label, text in words.items():
            self.set(self.field(label), text)

    def click(self, label: str) -> None:
        self.set(self.field(label, "GuiButtonMessage"), True)

    def set(self, uuid: str, value: Any) -> None:
        self.send(type="GuiUpdateMessage", uuid=uuid, updates={"value": value})

    def said(self, label: str) -> str:
        """What a field says by now."""
        uuid = self.field(label)
        return str(
            next((m["updates"]["value"] for m in reversed(self.all("GuiUpdateMessage")) if m["uuid"] == uuid), "")
        )

    def upload(self, label: str, name: str, content: bytes, *, said: int | None = None) -> None:
        """Send a file, whose size is `said`."""
        start = {"source_component_uuid": self.field(label, "GuiUploadButtonMessage"), "transfer_uuid": name}
        told = {"filename": name, "mime_type": "", "part_count": 1, "size_bytes": said or len(content)}
        self.send(type="FileTransferStartUpload", **start, **told)
        self.send(type="FileTransferPart", **start, part_index=0, content=content)

    def downloads(self) -> list[bytes]:
        """What it was sent as files."""
        return [message["content"] for message in self.all("FileTransferPart")]

    def moves(self) -> bool:
        """Whether its body moves from now on."""
        before = len(self.all("SetBoneOrientationMessage"))
        return bool(wait_for(lambda: len(self.all("SetBoneOrientationMessage")) > before + 48))

    def close(self) -> None:
        self.socket.close()
        self.reader.join(5)


@pytest.fixture(scope="module")
def space(run: Run, store: Store, encoder: Encoder) -> Space:
    classes = ["walk", "kick", "lie", "sit", "run", "jump"]
    return Space.of(run, encoder, body=load_body("low"), classes=classes, store=store)


@pytest.fixture(scope="module")
def served(space: Space) -> Iterator[Studio]:
    opened = Studio(space, host="127.0.0.1", port=0, token=None)
    yield opened
    opened.stop()


@pytest.fixture
def browser(served: Studio) -> Iterator[Browser]:
    opened = Browser(served.port)
    wait_for(lambda: opened.said("motion") == FIRST)
    yield opened
    opened.close()
    wait_for(lambda: not served.sessions)


def bodies(served: Studio, title: str) -> list[Motion]:
    """The motions that stand side by side."""
    player = session_of(served, title).player
    assert player is not None
    return [track.motion for track in player.tracks]


def assert_same(found: Motion, wanted: Motion) -> None:
    """Equal but for where the body faces."""
    assert torch.allclose(found.rotmat_TJ33[:, 1:], wanted.rotmat_TJ33[:, 1:].float(), atol=1e-4)


def test_samples_stand_side_by_side_and_are_those_of_python(browser: Browser, served: Studio, run: Run) -> None:
    model = MotionClip(run)
    browser.set(browser.field("seconds", "GuiSliderMessage"), 1.5)
    browser.set(browser.field("side by side", "GuiSliderMessage"), 3)
    wait_for(lambda: browser.said("motion") == f"{FIRST} | {FIRST} (seed 1) | {FIRST} (seed 2)")
    for found, seed in zip(bodies(served, FIRST), (None, 1, 2), strict=True):
        assert_same(found, model.generate(FIRST, 45, seed=seed))
    assert len(browser.all("SkinnedMeshMessage")) == 3
    browser.set(browser.field("side by side", "GuiSliderMessage"), 1)
    wait_for(lambda: browser.said("motion") == FIRST)
    assert len(bodies(served, FIRST)) == 1


def test_lines_become_one_motion(browser: Browser, served: Studio, run: Run) -> None:
    browser.type(lines="walk @1\n\nkick @1.5")
    browser.click("play as one motion")
    title = "walk @1, then kick @1.5"
    wait_for(lambda: browser.said("motion") == title)
    assert_same(bodies(served, title)[0], MotionClip(run).sequence(["walk", "kick"], [1.0, 1.5]))
    browser.type(lines="walk @500")
    browser.click("play as one motion")
    wait_for(lambda: "expected at most 16, of 60 s together" in str(browser.got))


def test_an_edit_stands_beside_its_base(browser: Browser, served: Studio, space: Space) -> None:
    browser.set(browser.field("beside the base", "GuiCheckboxMessage"), True)
    title = f"{FIRST} + 1 (run - walk)"
    wait_for(lambda: browser.said("motion") == f"{title} | {FIRST}")
    base, away, goal = space.vectors(FIRST, "walk", "run")
    for found, vector in zip(bodies(served, title), (base + goal - away, base), strict=True):
        assert_same(found, motion_of_rows(space.decoded(vector), space.run.fps))


def test_a_link_shows_what_was_shown(browser: Browser, served: Studio) -> None:
    browser.set(browser.field("seed", "GuiSliderMessage"), 7)
    wait_for(lambda: browser.said("motion") == f"{FIRST} (seed 7)")
    link = wait_for(lambda: browser.said("link") if "seed" in browser.said("link") else "")
    assert json.loads(unquote(link)) == {"kind": "text", "text": FIRST, "seed": 7}
    other = Browser(served.port, link=link)
    wait_for(lambda: other.said("motion") == f"{FIRST} (seed 7)")
    wait_for(lambda: other.said("link") == link)
    other.close()


@pytest.mark.parametrize(
    "link",
    [
        "{",
        '{"kind": "text"}',
        '{"kind": "clip", "window": 10000, "name": "x"}',
        '{"kind": "text", "text": "a.npz"}',
        "%00",
    ],
)
def test_a_link_that_nobody_can_have_made_hurts_nobody(browser: Browser, served: Studio, link: str) -> None:
    other = Browser(served.port, link=link)
    assert wait_for(lambda: other.said("motion") == FIRST or other.all("NotificationShowMessage"))
    other.type(text="jump high")
    wait_for(lambda: other.said("motion") == "jump high")
    other.close()
    assert browser.moves()


def test_what_was_shown_comes_back_step_by_step_and_out_of_a_file(browser: Browser, served: Studio) -> None:
    browser.type(text="jump high")
    wait_for(lambda: browser.said("motion") == "jump high")
    browser.set(browser.field("scale", "GuiSliderMessage"), 0.5)
    edit = f"{FIRST} + 0.5 (run - walk)"
    wait_for(lambda: browser.said("motion") == edit)
    browser.set(browser.field("session", "GuiButtonGroupMessage"), "save session")
    saved = wait_for(browser.downloads)[0]
    for step, title in (("undo", "jump high"), ("undo", FIRST), ("redo", "jump high")):
        browser.set(browser.field("step", "GuiButtonGroupMessage"), step)
        wait_for(lambda title=title: browser.said("motion") == title)
    browser.set(browser.field("key"), "u1")
    wait_for(lambda: browser.said("motion") == FIRST and browser.said("text") == FIRST)  # the field says it, too
    other = Browser(served.port)
    wait_for(lambda: other.said("motion") == FIRST)
    other.upload("open a session", "mine.json", saved)
    wait_for(lambda: other.said("motion") == edit)
    other.upload("open a session", "bad.json", b'{"wishes": [{"kind": "text", "text": "x", "samples": 99}]}')
    wait_for(lambda: "bad.json: no session of a studio" in str(other.got))
    other.close()


def test_a_motion_that_is_sent_is_played_and_read(browser: Browser, served: Studio, space: Space) -> None:
    kick = MOTIONS / "EMBEDDED/kick/kick_poses.npz"
    browser.upload("open a motion", "<b>My Kick.npz", kick.read_bytes())
    wait_for(lambda: browser.said("motion") == "b-my-kick")
    wanted = space.seen(facing_viewer(motion_rows(space.run, kick)))
    wait_for(lambda: browser.said("reads as").splitlines()[0] == f"{wanted[0][1]:.2f}  {wanted[0][0]}")
    browser.upload("open a motion", "big.npz", b"x", said=1 << 40)
    wait_for(lambda: "big.npz is larger than 16,777,216 bytes" in str(browser.got))
    browser.upload("open a motion", "evil.pkl", b"x")
    wait_for(lambda: "expected the name of a motion file" in str(browser.got))


def test_keys_play_and_step(browser: Browser, served: Studio) -> None:
    player = session_of(served, FIRST).player
    assert player is not None
    browser.set(browser.field("key"), " 1")
    wait_for(lambda: not player.playing)
    before = player.seconds
    browser.set(browser.field("key"), ".2")
    wait_for(lambda: player.seconds == pytest.approx(min(before + 1 / 30, player.length)))
    browser.set(browser.field("key"), "]3")
    wait_for(lambda: player.speed == 1.1)


def hits_on(browser: Browser) -> list[str]:
    """What the buttons of hits say."""
    return [label for m in browser.all("GuiButtonMessage") if (label := m["props"]["label"])[:1].isdigit()]


def session_of(served: Studio, title: str) -> studio.Session:
    return next(session for session in served.sessions.values() if session.title == title)


def test_a_text_becomes_the_motion_that_generate_decodes(
    browser: Browser, served: Studio, run: Run, encoder: Encoder
) -> None:
    browser.type(text="a person kicks")
    wait_for(lambda: browser.said("motion") == "a person kicks")
    rows = decode(run, vectors_of(run, ["a person kicks"], encoder), run.crop)[0]
    wanted = motion_of_rows(facing_viewer(rows), run.fps)
    player = session_of(served, "a person kicks").player
    assert player is not None
    assert torch.allclose(player.tracks[0].motion.rotmat_TJ33, wanted.rotmat_TJ33, atol=1e-5)
    assert browser.moves()


def test_only_what_stands_when_the_typing_pauses_is_played(browser: Browser) -> None:
    for end in range(1, len("a person kicks") + 1):
        browser.type(text="a person kicks"[:end])
    wait_for(lambda: browser.said("motion") == "a person kicks")
    browser.type(text="")
    time.sleep(2 * studio.PAUSE)
    titles = [m["updates"]["value"] for m in browser.all("GuiUpdateMessage") if m["uuid"] == browser.field("motion")]
    assert titles == [FIRST, "a person kicks"]
    assert browser.all("NotificationShowMessage") == []


def test_what_plays_is_named_by_its_nearest_classes(browser: Browser, served: Studio, space: Space) -> None:
    lines = wait_for(lambda: browser.said("reads as")).splitlines()
    assert len(lines) == TOP
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    z_C = centred(encode(space.run, session_of(served, FIRST).rows[: space.run.crop]), space.run.z_NC)
    cosine_K = torch.cosine_similarity(z_C[None], space.encoder.encode_texts(list(space.classes)))
    assert lines[0] == f"{float(cosine_K.max()):.2f}  {space.classes[int(cosine_K.argmax())]}"


def test_a_dragged_scale_ends_at_the_motion_of_its_last_place(browser: Browser, served: Studio, space: Space) -> None:
    slider = browser.field("scale", "GuiSliderMessage")
    for place in range(41):
        browser.set(slider, -1 + 0.05 * place)
    wait_for(lambda: browser.said("motion") == "a person walks + 1 (run - walk)" and not space.turn.locked())
    base, away, goal = space.vectors("a person walks", "walk", "run")
    wanted = space.decoded(base + goal - away)
    found = session_of(served, "a person walks + 1 (run - walk)").rows
    assert float((found - wanted).abs().max()) < 1e-4


def test_between_its_ends_lie_the_ends(browser: Browser, served: Studio, space: Space) -> None:
    slider = browser.field("share", "GuiSliderMessage")
    for share, text in ((0.0, "walk"), (1.0, "crawl")):
        browser.set(slider, share)
        wait_for(lambda share=share: browser.said("motion") == f"walk to crawl: {share:g}")
        found = session_of(served, f"walk to crawl: {share:g}").rows
        assert float((found - space.decoded(space.vectors(text)[0])).abs().max()) < 1e-4


def test_a_hit_that_is_clicked_plays_and_is_saved(browser: Browser, served: Studio, tmp_path: Any) -> None:
    browser.type(query="store:kick")
    wait_for(lambda: len(hits_on(browser)) == 3)  # as many clips as the store has
    label = hits_on(browser)[0]
    found = served.space.found("store:kick")[0]
    name = f"kick {found.from_s:.1f} to {found.to_s:.1f} s"
    assert label == f"1.00 {found.text[:60]}"
    assert len(browser.all("GuiImageMessage")) == 3
    pictures = [served.space.picture(hit) for hit in served.space.found("store:kick")]
    assert {picture.shape for picture in pictures} == {(112, 448, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 3
    browser.click(label)
    wait_for(lambda: browser.said("motion") == name)
    assert browser.moves()
    browser.set(browser.field("save", "GuiButtonGroupMessage"), "npz")
    (start,) = wait_for(lambda: browser.all("FileTransferStartDownload"))
    (part,) = wait_for(lambda: browser.all("FileTransferPart"))
    assert start["filename"] == f"{plain_name(name)}.npz"
    motion = session_of(served, name).player.tracks[0].motion  # type: ignore[union-attr]
    (tmp_path / "a.npz").write_bytes(part["content"])
    again = read_motion(tmp_path / "a.npz")
    assert torch.allclose(torch.from_numpy(again.trans_T3).float(), motion.trans_T3, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/etc/secret.npz", "a file of this machine cannot be named from a browser"),
        ("walk " * 10_000, "a text of 49,999 characters"),
        ("store:nobody", "no clip is labelled or called 'nobody'"),
    ],
)
def test_a_text_that_will_not_do_is_told_and_the_body_goes_on(browser: Browser, text: str, told: str) -> None:
    browser.type(text=text)
    notes = wait_for(lambda: browser.all("NotificationShowMessage") or browser.all("NotificationMessage"))
    assert told in json.dumps(notes[-1], default=str)
    assert browser.said("motion") == FIRST
    assert browser.moves()


@pytest.mark.parametrize(
    ("label", "kind", "value", "told"),
    [
        ("scale", "GuiSliderMessage", 5000, "scale: 5000, expected a number from -1 to 2"),
        ("scale", "GuiSliderMessage", "much", "scale: 'much', expected a number from -1 to 2"),
        ("share", "GuiSliderMessage", -3, "share: -3, expected a number from 0 to 1"),
        ("share", "GuiSliderMessage", float("nan"), "share: nan, expected a number from 0 to 1"),
        ("time", "GuiSliderMessage", [1], "time: [1], expected a number from 0 to"),
        ("speed", "GuiSliderMessage", 1e9, "speed: 1000000000.0, expected a number from 0.1 to 2"),
        ("text", "GuiTextMessage", 7, "text: 7, expected a text"),
        ("text", "GuiTextMessage", None, "text: None, expected a text"),
        ("path", "GuiButtonGroupMessage", "spiral", "path: 'spiral', expected one of line, circle"),
        ("save", "GuiButtonGroupMessage", "exe", "save: 'exe', expected one of npz"),
        ("play", "GuiCheckboxMessage", "no", "play: 'no', expected true or false"),
    ],
)
def test_a_value_that_no_page_can_send_is_told_to_its_sender(
    browser: Browser, served: Studio, capfd: pytest.CaptureFixture[str], label: str, kind: str, value: Any, told: str
) -> None:
    browser.set(browser.field(label, kind), value)
    notes = wait_for(lambda: browser.all("NotificationShowMessage") or browser.all("NotificationMessage"))
    assert told in str(notes[-1])
    assert browser.moves()  # it is still connected, and plays what it played
    assert browser.said("motion") == FIRST
    assert capfd.readouterr().err == ""


def test_only_the_value_of_a_field_can_be_changed(browser: Browser, capfd: pytest.CaptureFixture[str]) -> None:
    field = browser.field("scale", "GuiSliderMessage")
    browser.send(type="GuiUpdateMessage", uuid=field, updates={"max": 5000.0})
    wait_for(lambda: "only its value can be changed" in str(browser.got))
    browser.set(field, 4000)
    wait_for(lambda: "expected a number from -1 to 2" in str(browser.got))
    assert capfd.readouterr().err == ""


def test_a_hit_plays_the_seconds_that_were_found(run: Run, long_store: Store, encoder: Encoder) -> None:
    """Windows 0, 1 and 2 of one sequence; each is asked for by its own vector."""
    long = Space.of(run, encoder, body=load_body("low"), classes=["walk", "kick"], store=long_store)
    assert long.searcher is not None
    for window in (0, 1, 2, 4):
        hit = long.searcher.nearest(long.searcher.index.unit_WC[window], top=1)[0]
        first = int(long_store.read("windows/row")[window]) + {0: 20, 1: 20, 2: 0, 4: 0}[window]
        motion = long_store.motion(slice(first, first + min(60, LONG_FRAMES[window])))
        wanted = facing_viewer(rows_of_motion(*map(torch.from_numpy, motion)))
        assert torch.equal(long.clip(hit.window), wanted)


def test_a_second_browser_does_not_disturb_the_first(browser: Browser, served: Studio) -> None:
    other = Browser(served.port)
    wait_for(lambda: other.said("motion") == FIRST)
    other.type(text="jump high")
    wait_for(lambda: other.said("motion") == "jump high")
    assert browser.said("motion") == FIRST
    assert "jump high" not in json.dumps(browser.got, default=str)
    other.close()
    assert browser.moves()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        "words",
        b"",
        msgspec.msgpack.encode({"type": "NoSuchMessage"}),
        msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": 3, "updates": None}),
        b"x" * (LONGEST_MESSAGE + 1),
    ],
)
def test_garbage_hurts_nobody_but_its_sender(browser: Browser, served: Studio, garbage: bytes | str) -> None:
    other = Browser(served.port)
    wait_for(lambda: len(served.sessions) == 2)
    other.socket.send(garbage)
    time.sleep(0.1)
    assert browser.moves()
    browser.type(text="a person kicks")
    wait_for(lambda: browser.said("motion") == "a person kicks")
    other.close()
    wait_for(lambda: len(served.sessions) == 1)


def test_a_message_beyond_the_bound_is_refused(served: Studio) -> None:
    other = Browser(served.port)
    other.send(type="GuiUpdateMessage", uuid="x", updates={"value": "w" * (LONGEST_MESSAGE - 1000)})
    assert other.moves()
    other.socket.send(b"x" * (LONGEST_MESSAGE + 1))
    other.reader.join(5)
    assert other.socket.protocol.close_code == 1009
    other.close()


def test_a_browser_that_goes_away_in_mid_stream_is_forgotten(browser: Browser, served: Studio) -> None:
    other = Browser(served.port)
    assert other.moves()
    assert len(served.sessions) == 2
    other.socket.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
    wait_for(lambda: len(served.sessions) == 1)
    assert browser.moves()
    other.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "evil.example"])  # the second by DNS rebinding
def test_a_script_of_another_page_is_turned_away(served: Studio, name: str) -> None:
    port = served.port if name == "evil.example" else 80
    other = Browser(served.port, name, Origin=f"http://evil.example:{port}")
    other.reader.join(5)
    assert other.socket.protocol.close_code == 1008
    assert other.all("SkinnedMeshMessage") == []
    other.close()
    wait_for(lambda: not served.sessions)
    own = Browser(served.port, Origin=f"http://127.0.0.1:{served.port}")  # the control
    assert own.moves()
    own.close()


def test_what_plays_is_saved_on_the_users_character(space: Space, tmp_path: Path) -> None:
    write_character(tmp_path / "hero.glb", CHARACTERS["mixamo.glb"])
    wearing = Studio(
        replace(space, character=Character.read(tmp_path / "hero.glb")), host="127.0.0.1", port=0, token=None
    )
    try:
        browser = Browser(wearing.port)
        wait_for(lambda: browser.said("motion") == FIRST)
        browser.set(browser.field("save", "GuiButtonGroupMessage"), "on the character")
        (start,) = wait_for(lambda: browser.all("FileTransferStartDownload"))
        assert start["filename"] == "a-person-walks-hero.glb"
        (tmp_path / "worn.glb").write_bytes(wait_for(browser.downloads)[0])
        shown = session_of(wearing, FIRST).player.tracks[0].motion  # type: ignore[union-attr]
        found = read(tmp_path / "worn.glb/a-person-walks")
        theirs, ours = (each.joints() - each.joints()[:, :1] for each in (found, shown))
        assert theirs.shape == ours.shape
        assert (theirs - ours).norm(dim=-1).max() < 0.01  # from the pelvis, of SMPL's size again
        browser.close()
    finally:
        wearing.stop()


def test_without_a_character_nothing_is_saved_on_one(browser: Browser) -> None:
    save = browser.field("save", "GuiButtonGroupMessage")
    assert all("on the character" not in str(message["props"]) for message in browser.all("GuiButtonGroupMessage"))
    browser.set(save, "on the character")
    wait_for(lambda: "nothing to save as on the character" in str(browser.got) or "expected one of" in str(browser.got))
    assert browser.downloads() == []


def test_nothing_is_sent_before_the_token_is_named(space: Space) -> None:
    guarded = Studio(space, host="127.0.0.1", port=0, token=TOKEN)
    try:
        browser = Browser(guarded.port)
        browser.type(token="a wrong one, but long")
        browser.click("Enter")
        wait_for(lambda: "that is not the token" in json.dumps(browser.got, default=str))
        assert browser.all("SkinnedMeshMessage") == browser.all("GuiSliderMessage") == []
        browser.type(token=TOKEN)
        browser.click("Enter")
        wait_for(lambda: browser.all("SkinnedMeshMessage"))
        assert browser.moves()
        browser.close()
    finally:
        guarded.stop()


def test_a_token_is_asked_for_wherever_others_could_come_in() -> None:
    assert [token_for(host, None, guards="it") for host in ("127.0.0.1", "localhost", "::1")] == [None] * 3
    made = {token_for(host, None, guards="it") for host in ("0.0.0.0", "::", "192.168.1.5", "example.org")}
    assert len(made) == 4
    assert all(token and len(token) > 20 for token in made)
    with pytest.raises(ValueError, match="--token has 4 characters, expected at least 12"):
        token_for("0.0.0.0", "1234", guards="it")


def test_no_browser_can_ask_for_a_public_address(served: Studio) -> None:
    assert type(served.server).request_share_url is not viser.ViserServer.request_share_url
    assert served.server.request_share_url() is None
    assert served.server._share_tunnel is None


def test_a_port_in_use_is_told(space: Space, served: Studio) -> None:
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{served.port}: Address already in use.*; name another --port"):
        Studio(space, host="127.0.0.1", port=served.port, token=None)


def test_it_ends_at_a_signal_and_frees_its_port(space: Space) -> None:
    said: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end() -> None:
        port = int(wait_for(lambda: said)[0].split(":")[3].split()[0])
        browser = Browser(port)
        assert browser.moves()
        os.kill(os.getpid(), signal.SIGTERM)
        browser.reader.join(5)
        said.append(f"port {port}")

    ending = threading.Thread(target=end)
    ending.start()
    try:
        serve(space, host="127.0.0.1", port=0, token=None, say=said.append)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ending.join()
    assert "studio: ended" in said
    port = next(int(line.split()[1]) for line in said if line.startswith("port"))
    socket.create_server(("127.0.0.1", port)).close()


def test_in_chromium_a_person_types_clicks_and_sees_it_move(chromium: Callable[..., Any], served: Studio) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.keys import Keys

    page = chromium()
    page.set_window_size(640, 480)
    page.get(f"http://127.0.0.1:{served.port}/")

    def field(value: str) -> Any:
        fields = page.find_elements("css selector", "input:not([disabled])")
        return next((each for each in fields if each.get_attribute("value") == value and each.is_displayed()), None)

    text = wait_for(lambda: field(FIRST))
    text.send_keys(Keys.CONTROL, "a")
    text.send_keys("a person kicks")

    def seen() -> tuple[Any, ...]:
        return session_titles(served), text.get_attribute("value"), page.get_log("browser")

    wait_for(lambda: session_titles(served) == ["a person kicks"], 120, seen)
    pictures = set()
    wait_for(lambda: pictures.add(hashlib.sha256(page.get_screenshot_as_png()).hexdigest()) or len(pictures) > 2)
    wait_for(lambda: "a%20person%20kicks" in page.current_url)
    assert page.title == "mclip studio"
    page.refresh()
    says = "return [...document.querySelectorAll('input')].some((field) => field.value === 'a person kicks')"
    wait_for(lambda: session_titles(served) == ["a person kicks"] and page.execute_script(says))
    next(tab for tab in page.find_elements("css selector", "[role=tab]") if tab.text == "Search").click()
    wait_for(lambda: field("")).send_keys("a karate kick")

    def play_hit() -> bool:
        with contextlib.suppress(StaleElementReferenceException):  # the list is new after every pause
            for button in page.find_elements("css selector", "button"):
                if "kick" in button.text and button.text[:1].isdigit():
                    button.click()
                    break
        return session_titles(served)[0].startswith("kick ")

    wait_for(play_hit)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert f"http://127.0.0.1:{served.port}/" in asked
    own = (f"http://127.0.0.1:{served.port}/", "data:", f"blob:http://127.0.0.1:{served.port}/")
    assert [url for url in asked if not url.startswith(own)] == []
    severe = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    # Where a hit is clicked in the moment in which a newer list takes its place, viser's page says so in its log.
    assert [message for message in severe if "Tried to update non-existent component" not in message] == []
    page.quit()
    wait_for(lambda: not served.sessions)


def test_in_chromium_no_word_of_a_store_a_run_or_a_person_is_taken_for_more(
    chromium: Callable[..., Any], hostile: tuple[str, ...], hostile_run: Run, hostile_store: Store, encoder: Encoder
) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.keys import Keys

    space = Space.of(hostile_run, encoder, body=load_body("low"), classes=list(hostile), store=hostile_store)
    served = Studio(space, host="127.0.0.1", port=0, token=None)
    page = chromium()
    page.set_window_size(640, 900)
    page.get(f"http://127.0.0.1:{served.port}/")
    fields = "input[type=text], input:not([type]), textarea"

    def shown() -> list[str]:
        """What stands in the fields, and on the buttons."""
        return page.execute_script(
            f"return [...document.querySelectorAll(`{fields}`)].map((field) => field.value)"
            ".concat([...document.querySelectorAll('button')].map((button) => button.textContent))"
        )

    def write(place: int, word: str) -> None:
        """Write into one of the fields that take words."""
        free = [
            each for each in page.find_elements("css selector", fields) if each.is_enabled() and each.is_displayed()
        ]
        free[place].send_keys(Keys.CONTROL, "a")
        free[place].send_keys(word)

    wait_for(lambda: FIRST in shown())
    for word in hostile:
        write(0, word)
        wait_for(lambda word=word: session_titles(served) == [word])
        wait_for(lambda word=word: shown().count(word) >= 2)  # where it was written, and as what plays
        assert page.execute_script("return window.__hit ?? null") is None
    classes = wait_for(lambda: [text for text in shown() if "\n" in text and text[:1].isdigit()])[
        0
    ].splitlines()  # that it reads as
    assert {line.split("  ", 1)[1] for line in classes} <= set(hostile)
    next(tab for tab in page.find_elements("css selector", "[role=tab]") if tab.text == "Search").click()
    for word in hostile:
        write(0, f"store:{word}")

        def found(word: str = word) -> bool:
            with contextlib.suppress(StaleElementReferenceException):
                return any(f"1.00 {word[:60]}" in text for text in shown())
            return False

        wait_for(found)
        assert page.execute_script("return window.__hit ?? null") is None
    write(0, f"store:nowhere {hostile[1]}")
    wait_for(lambda: f"nowhere {hostile[1]}" in page.execute_script("return document.body.textContent"))
    assert page.execute_script("return window.__hit ?? null") is None
    assert page.execute_script("return document.querySelectorAll('img[src=x], svg[onload]').length") == 0
    page.quit()
    served.stop()


def test_in_chromium_a_studio_that_goes_is_told_of_in_words_and_comes_back_by_itself(
    chromium: Callable[..., Any], run: Run
) -> None:
    """A process that is killed, and started again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mclip.cli", "studio", str(run.folder), "--port", str(port)]
    page = chromium()

    def shows(title: str) -> bool:
        seen = "return [...document.querySelectorAll('input, textarea')].map((each) => each.value)"
        return any(title in value for value in page.execute_script(seen))

    with started(words, port) as first:
        page.get(f"http://127.0.0.1:{port}/#{quote(json.dumps({'kind': 'text', 'text': 'jump high'}))}")
        wait_for(lambda: shows("jump high"), 60)
        first.kill()
        told = wait_for(lambda: page.find_elements("id", "mclip-gone"), 60)
        assert told[0].text.startswith("The studio is not there")
    with started(words, port):
        wait_for(lambda: not page.find_elements("id", "mclip-gone") and shows("jump high"), 60)
    page.quit()


@contextlib.contextmanager
def started(words: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A studio in a process of its own, once it answers; killed in the end."""

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(answers, 120)
            yield process
        finally:
            process.kill()


def session_titles(served: Studio) -> list[str]:
    return [session.title for session in served.sessions.values()]
