"""A local web page, on viser, where a text becomes a motion at once: generate, edit, interpolate, search, save.

What a browser sees and does is its own (viser's client.gui and client.scene); nothing is shared but the model.
"""

# T frames, J joints, C latent width, K classes

import contextlib
import functools
import hmac
import io
import ipaddress
import math
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.backends import COLOUR
from mclip.pipeline.body import Body
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.rotations import matrix_to_quaternion
from mclip.pipeline.skeleton import forward_kinematics
from mclip.pipeline.store import Store
from mclip.training.clips import clip_rows
from mclip.training.export import FORMATS, write
from mclip.training.generate import between, decode, edited, encode, facing_viewer, file_name, is_file, vectors_of
from mclip.training.motion import Motion, motion_of_rows
from mclip.training.page import glide
from mclip.training.run import Run
from mclip.training.search import Hit, Index, hits, index_of

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
LONGEST_MESSAGE = 1 << 20  # bytes that a browser may send at once; a prompt is a few thousand
MOST_BROWSERS = 16
TICKS = 30  # a second
PAUSE = 0.15  # seconds without a letter, after which a text is decoded
TOP = 5
SAVED = tuple(kind for kind in FORMATS if kind not in ("gif", "png"))
FIRST = "a person walks"


@dataclass(frozen=True)
class Space:
    """What all browsers share: a model, its encoder, a body, classes, and perhaps a store. One computes at a time."""

    run: Run
    encoder: Encoder
    body: Body
    classes: Sequence[str]
    class_KC: Float[Tensor, "K C"]
    store: Store | None = None
    index: Index | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)  # tokenizers may not be used by two threads

    @classmethod
    def of(
        cls, run: Run, encoder: Encoder, *, body: Body, classes: Sequence[str], store: Store | None = None
    ) -> "Space":
        """A space that is warm: the first text is as quick as the next."""
        class_KC = F.normalize(encoder.encode_texts(list(classes)), dim=-1)
        space = cls(run, encoder, body, classes, class_KC, store, index_of(run, store) if store else None)
        space.seen(space.decoded(space.vectors(FIRST)[0]))
        return space

    def vectors(self, *sources: str) -> Float[Tensor, "N C"]:
        """Latent vectors of texts and of clips of the store (store:LABEL). A browser names no files of this machine."""
        for source in filter(is_file, sources):
            raise ValueError(f"{source}: a file of this machine cannot be named from a browser; write a text")
        return vectors_of(self.run, [source.strip() for source in sources], self.encoder, store=self.store)

    def decoded(self, vector_C: Float[Tensor, " C"]) -> Float[Tensor, "T 25 6"]:
        """The rows of a vector's motion, a training crop long, that begins facing the viewer."""
        return facing_viewer(decode(self.run, vector_C[None], self.run.crop)[0])

    def clip(self, hit: Hit) -> Float[Tensor, "T 25 6"]:
        """The rows of a clip that was found."""
        assert self.store is not None
        return facing_viewer(clip_rows(self.store, hit.clip, self.run.crop))

    def found(self, query: str) -> list[Hit]:
        """The nearest clips of the store."""
        assert self.store is not None
        assert self.index is not None
        return hits(self.store, *self.index.best(self.vectors(query)[0], TOP))

    def seen(self, rows_TRD: Float[Tensor, "T 25 6"]) -> list[tuple[str, float]]:
        """The classes nearest to a motion, best first, with their cosines."""
        z_C = F.normalize(encode(self.run, rows_TRD[: self.run.crop]), dim=0)
        best = (self.class_KC @ z_C).topk(min(TOP, len(self.classes)))
        return [(self.classes[k], score) for k, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


@dataclass(frozen=True)
class Track:
    """A motion as the page's bones take it, frame by frame."""

    motion: Motion
    path_T3: np.ndarray
    wxyz_TJ4: np.ndarray
    place_TJ3: np.ndarray

    @classmethod
    def of(cls, motion: Motion, body: Body) -> "Track":
        """A motion on a body's skeleton."""
        world_TJ33, place_TJ3 = forward_kinematics(
            motion.rotmat_TJ33.float(), body.joints_J3, root_B3=motion.trans_T3.float()
        )
        return cls(motion, glide([motion])[0].numpy(), matrix_to_quaternion(world_TJ33).numpy(), place_TJ3.numpy())

    @property
    def length(self) -> float:
        """Seconds from the first frame to the last."""
        return (len(self.place_TJ3) - 1) / self.motion.fps

    def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the world stands (3,), and every bone's turn (J, 4) and place (J, 3) in it."""
        frame = min(round(seconds * self.motion.fps), len(self.place_TJ3) - 1)
        return -self.path_T3[frame], self.wxyz_TJ4[frame], self.place_TJ3[frame]


class Player:
    """A body on a browser's screen, and how far it is in its motion."""

    def __init__(self, client: Any, body: Body) -> None:
        self.client, self.body = client, body
        self.track: Track | None = None
        self.seconds, self.speed, self.playing = 0.0, 1.0, True
        self.turn = threading.Lock()  # the clock's thread and those of buttons
        colour = tuple(round(255 * share) for share in COLOUR)
        client.scene.set_up_direction("+z")
        # What follows the body is the world: it slides the other way, so that a person may turn the camera meanwhile.
        self.world = client.scene.add_frame("/world", show_axes=False)
        client.scene.add_grid(
            "/world/floor", width=30, height=30, fade_distance=12, shadow_opacity=0.3, cell_color=(225, 225, 225),
            section_color=(190, 190, 190),
        )  # fmt: skip
        self.mesh = client.scene.add_mesh_skinned(
            "/world/body", body.v_template_V3.numpy(), body.faces_F3.numpy(), skin_weights=body.weights_VJ.numpy(),
            bone_wxyzs=[(1.0, 0.0, 0.0, 0.0)] * 24, bone_positions=body.joints_J3.numpy(), color=colour,
        )  # fmt: skip
        client.camera.fov = math.radians(35)
        client.camera.position = (0.0, -4.4, 0.9)
        client.camera.look_at = (0.0, 0.0, 0.0)  # last: a new position takes the old target along

    @property
    def length(self) -> float:
        """Seconds from the first frame to the last."""
        return 0.0 if self.track is None else self.track.length

    def show(self, motion: Motion) -> None:
        """Play another motion, from where the last one was: a slider that is dragged does not start it anew."""
        track = Track.of(motion, self.body)
        with self.turn:
            self.track, self.seconds = track, min(self.seconds, track.length)
            self.pose()

    def seek(self, share: float) -> None:
        """Stand still at a share of the motion."""
        with self.turn:
            self.playing, self.seconds = False, share * self.length
            self.pose()

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        with self.turn:
            if self.playing and self.length:
                self.seconds = (self.seconds + passed * self.speed) % self.length
                self.pose()

    def pose(self) -> None:
        """Pose the body as it is now."""
        if self.track is None:
            return
        world, bones, places = self.track.at(self.seconds)
        with self.client.atomic():
            self.world.position = world
            for bone, wxyz, place in zip(self.mesh.bones, bones, places, strict=True):
                bone.wxyz, bone.position = wxyz, place


class Session:
    """One browser: its fields and buttons, and its player."""

    def __init__(self, client: Any, space: Space) -> None:
        self.client, self.space, self.gui = client, space, client.gui
        self.player: Player | None = None  # nobody sees anything before `enter`
        self.asked, self.counting = 0, threading.Lock()
        self.title, self.rows = "", torch.zeros(0, 25, 6)
        self.ends: tuple[tuple[str, ...], Tensor] | None = None
        self.buttons: list[Any] = []

    def admit(self, token: str | None) -> None:
        """Let the browser in: at once, or when it has named the token."""
        if token is None:
            self.enter()
            return
        folder = self.gui.add_folder("This studio asks for its token")
        with folder:
            named, button = self.gui.add_text("token", ""), self.gui.add_button("Enter")

        def check(_: Any) -> None:
            if not hmac.compare_digest(named.value.encode(), token.encode()):
                time.sleep(1)
                raise ValueError("that is not the token; it stands in the terminal where the studio was started")
            if self.player is None:
                folder.remove()
                self.enter()

        button.on_click(self.told(check))

    def enter(self) -> None:
        """Build the page and play a first motion."""
        player = Player(self.client, self.space.body)
        tabs = self.gui.add_tab_group()
        with tabs.add_tab("Text"):
            self.build_text()
        with tabs.add_tab("Edit"):
            self.build_edit()
        with tabs.add_tab("Between"):
            self.build_between()
        if self.space.store is not None:
            with tabs.add_tab("Search"):
                self.build_search()
        self.build_player(player)
        self.player = player
        self.newest(lambda: self.generate(FIRST))(None)

    def build_text(self) -> None:
        text = self.gui.add_text("text", FIRST, hint="What the person does.")
        text.on_update(self.typed([text], lambda: self.generate(text.value)))

    def build_edit(self) -> None:
        pairs = zip(("base", "from", "to"), (FIRST, "walk", "run"), strict=True)
        words = [self.gui.add_text(*pair, hint=self.hint) for pair in pairs]
        scale = self.gui.add_slider("scale", -1.0, 2.0, 0.05, 1.0, hint="base + scale (to - from)")

        def show() -> None:
            base, away, goal = (each.value for each in words)
            base_C, from_C, to_C = self.vectors_of(base, away, goal)
            title = f"{base} + {scale.value:g} ({goal} - {away})"
            self.play(title, self.space.decoded(edited(base_C, from_C, to_C, [scale.value])[0]))

        for each in words:
            each.on_update(self.typed(words, show))
        scale.on_update(self.newest(show))

    def build_between(self) -> None:
        start, end = (self.gui.add_text(*pair, hint=self.hint) for pair in (("start", "walk"), ("end", "crawl")))
        share = self.gui.add_slider("share", 0.0, 1.0, 0.01, 0.5, hint="0 is the start, 1 is the end")
        path = self.gui.add_button_group("path", ("line", "circle"))

        def show() -> None:
            a_C, b_C = self.vectors_of(start.value, end.value)
            steps = between(a_C, b_C, 101, path=path.value)
            title = f"{start.value} to {end.value}: {share.value:g}"
            self.play(title, self.space.decoded(steps[round(100 * share.value)]))

        for each in (start, end):
            each.on_update(self.typed([start, end], show))
        share.on_update(self.newest(show))
        path.on_click(self.newest(show))

    def build_search(self) -> None:
        query = self.gui.add_text("query", "", hint=self.hint)
        results = self.gui.add_folder("found")

        def show() -> None:
            found = self.space.found(query.value)
            while self.buttons:
                self.buttons.pop().remove()
            with results:
                for hit in found:
                    name = Path(hit.clip).stem.removesuffix("_poses")
                    button = self.gui.add_button(f"{hit.score:.2f} {name}", hint=hit.text[:200] or hit.clip)
                    button.on_click(self.newest(functools.partial(self.play_hit, name, hit)))
                    self.buttons.append(button)

        query.on_update(self.typed([query], show))

    def build_player(self, player: Player) -> None:
        with self.gui.add_folder("playing"):
            # Plain fields, not markdown: a label of a store must not become markup.
            self.named = self.gui.add_text("motion", "", disabled=True)
            self.classes = self.gui.add_text("reads as", "", multiline=True, disabled=True)
            play = self.gui.add_checkbox("play", True)
            time_slider = self.gui.add_slider("time", 0.0, 1.0, 0.01, 0.0, hint="A share of the motion.")
            speed = self.gui.add_slider("speed", 0.1, 2.0, 0.1, 1.0)
            save = self.gui.add_button_group("save", SAVED)

        def scrub(event: Any) -> None:
            if event.client is not None:  # a hand, not the player below
                play.value = False
                player.seek(time_slider.value)

        play.on_update(lambda _: setattr(player, "playing", play.value))
        speed.on_update(lambda _: setattr(player, "speed", speed.value))
        time_slider.on_update(scrub)
        save.on_click(self.told(lambda event: self.save(event.target.value)))
        self.time_slider = time_slider

    @property
    def hint(self) -> str:
        """What may stand in a field."""
        return "A text" + (", or store:LABEL for a clip of the store." if self.space.store else ".")

    def told(self, work: Callable[[Any], None]) -> Callable[[Any], None]:
        """`work` as viser calls it, in a thread; its errors are told on the page."""

        def called(event: Any) -> None:
            try:
                work(event)
            except (ValueError, OSError) as error:
                self.client.add_notification("That did not work", str(error)[:500], color="red")

        return called

    def newest(self, work: Callable[[], None], *, pause: float = 0.0) -> Callable[[Any], None]:
        """`work` when its turn has come; what was overtaken by something newer while it waited does nothing."""

        def called(_: Any) -> None:
            with self.counting:
                self.asked += 1
                mine = self.asked
            time.sleep(pause)
            with self.space.turn:
                if mine == self.asked:
                    work()

        return self.told(called)

    def typed(self, fields: Sequence[Any], work: Callable[[], None]) -> Callable[[Any], None]:
        """`work` when whoever types stops for a moment, and every field says something.

        Not when Enter is pressed: viser's page sends a form's Enter in place of the letters just before it.
        """
        return self.newest(lambda: work() if all(each.value.strip() for each in fields) else None, pause=PAUSE)

    def vectors_of(self, *sources: str) -> Tensor:
        """Vectors of a tab's sources; while a slider is dragged they are not encoded again."""
        if self.ends is None or self.ends[0] != sources:
            self.ends = sources, self.space.vectors(*sources)
        return self.ends[1]

    def generate(self, text: str) -> None:
        """Play what a text says."""
        self.play(text.strip(), self.space.decoded(self.space.vectors(text)[0]))

    def play_hit(self, name: str, hit: Hit) -> None:
        """Play a clip that was found."""
        self.play(name, self.space.clip(hit))

    def play(self, title: str, rows_TRD: Float[Tensor, "T 25 6"]) -> None:
        """Play rows, and say what they look like."""
        assert self.player is not None
        self.title, self.rows = title, rows_TRD
        self.player.show(motion_of_rows(rows_TRD, self.space.run.fps))
        self.client.flush()
        self.named.value = title
        self.classes.value = "\n".join(f"{score:.2f}  {name}" for name, score in self.space.seen(rows_TRD))

    def save(self, kind: str) -> None:
        """Send what plays as a file."""
        assert self.player is not None
        track, title = self.player.track, self.title
        if track is None or kind not in SAVED:
            raise ValueError(f"nothing to save as {kind}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{file_name(0, title)}.{kind}")
            write(path, track.motion)
            self.client.send_file_download(path.name, path.read_bytes(), save_immediately=True)

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        if self.player is not None:
            self.player.tick(passed)
            if self.player.playing and self.player.length:
                self.time_slider.value = round(self.player.seconds / self.player.length, 1)


class Studio:
    """A viser server with a session a browser; `stop` it."""

    def __init__(self, space: Space, *, host: str, port: int, token: str | None) -> None:
        self.space, self.token = space, token
        self.sessions: dict[int, Session] = {}
        self.over = threading.Event()
        self.loopback = is_loopback(host)
        self.server = listening(host, port)
        self.server.gui.configure_theme(show_share_button=False, show_logo=False)
        self.server._websock_server.on_client_connect(self.guard)  # viser has no public way to the handshake
        self.server.on_client_connect(self.connected)
        self.server.on_client_disconnect(self.gone)
        self.clock = threading.Thread(target=self.run_clock, daemon=True)
        self.clock.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server.get_port())

    async def guard(self, connection: Any) -> None:
        """Turn away other pages' scripts, and bound what a browser may send."""
        live = self.server._websock_server._live_connections[connection.client_id]
        live.protocol.max_message_size = LONGEST_MESSAGE
        hosts, origins = (live.request.headers.get_all(name) for name in ("Host", "Origin"))
        foreign = [origin for origin in origins if hosts != [origin.partition("://")[2]]]
        rebound = self.loopback and [host for host in hosts if host.rpartition(":")[0] not in LOOPBACK]
        if foreign or rebound:
            await live.close(1008, "another page's script")

    def connected(self, client: Any) -> None:
        """A browser is there."""
        if len(self.sessions) >= MOST_BROWSERS:
            client.add_notification("Full", f"{MOST_BROWSERS} browsers are here already.", color="red")
            return
        self.sessions[client.client_id] = session = Session(client, self.space)
        session.admit(self.token)
        if client.client_id not in self.server.get_clients():  # it left before it was in
            self.sessions.pop(client.client_id, None)

    async def gone(self, client: Any) -> None:
        """A browser is no more there. A coroutine, for viser has no threads left when it stops."""
        self.sessions.pop(client.client_id, None)

    def run_clock(self) -> None:
        """Move all bodies, until the end."""
        before = time.monotonic()
        while not self.over.wait(1 / TICKS):
            now = time.monotonic()
            for number, session in list(self.sessions.items()):
                try:
                    session.tick(now - before)
                except Exception as error:  # whatever ails one browser, the others go on
                    self.sessions.pop(number, None)
                    print(f"studio: a browser is left alone: {error!r}", file=sys.stderr)
            before = now

    def stop(self) -> None:
        """Close every connection and the port."""
        self.over.set()
        self.clock.join()
        with quiet():
            self.server.stop()


def serve(space: Space, *, host: str, port: int, token: str | None, say: Callable[[str], None]) -> None:
    """Serve until Ctrl+C or SIGTERM."""
    # A browser that left is told of by viser in so many words, once for every bone.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection", module="viser")
    studio = Studio(space, host=host, port=port, token=token)
    name = f"[{host}]" if ":" in host else host
    say(f"studio: http://{name}:{studio.port} (Ctrl+C ends it)" + (f", token {token}" if token else ""))
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    end.wait()
    studio.stop()
    say("studio: ended")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str, token: str | None) -> str | None:
    """The token that browsers must name: the given one, elsewhere than on loopback else a fresh one; ValueError for one
    that could be guessed."""
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(16)
    if len(token) < 12:
        raise ValueError(f"--token has {len(token)} characters, expected at least 12: it is all that guards the studio")
    return token


def listening(host: str, port: int) -> Any:
    """A viser server on exactly this port, without viser's public tunnel; OSError where it is taken."""
    try:
        import viser
    except ImportError as error:
        raise ImportError("mclip studio needs viser: pip install 'mclip[studio]'") from error

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            """Nothing: any browser could ask for a public address."""

    try:
        # viser itself would take the next free port, or try for ever.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error}; name another --port, or --port 0 for any") from error
    with quiet():
        return Server(host=host, port=port, label="mclip studio", verbose=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without viser's own lines, which name another address than ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
