"""The studio's server: who may connect, how much they may send, and the clock that moves all bodies."""

import contextlib
import io
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mclip.training.serve.doors import address, is_foreign, is_loopback
from mclip.training.studio.session import Session
from mclip.training.studio.space import Space
from mclip.training.studio.tabs import build_tabs
from mclip.training.studio.web import OwnPage
from mclip.training.studio.wishes import wish_of

LONGEST_MESSAGE = 1 << 20  # bytes that a browser may send at once; a prompt is a few thousand
MOST_BROWSERS = 16
TICKS = 30  # a second


class Studio:
    """A viser server with a session a browser; `stop` it."""

    def __init__(self, space: Space, *, host: str, port: int, token: str | None) -> None:
        self.space, self.token = space, token
        self.sessions: dict[int, Session] = {}
        self.links: dict[int, str] = {}  # what the address of a page named that is about to be let in
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
        if is_foreign(hosts, origins, loopback=self.loopback):
            await live.close(1008, "another page's script")
        self.links[connection.client_id] = "".join(parse_qs(urlsplit(live.request.path).query).get("state", [])[:1])

    def connected(self, client: Any) -> None:
        """A browser is there."""
        if len(self.sessions) >= MOST_BROWSERS:
            client.add_notification("Full", f"{MOST_BROWSERS} browsers are here already.", color="red")
            return
        wish = wish_of(self.links.pop(client.client_id, ""))
        self.sessions[client.client_id] = session = Session(client, self.space, build_tabs, wish)
        session.admit(self.token)
        if client.client_id not in self.server.get_clients():  # it left before it was in
            self.sessions.pop(client.client_id, None)

    async def gone(self, client: Any) -> None:
        """A browser is no more there. A coroutine, for viser has no threads left when it stops."""
        self.sessions.pop(client.client_id, None)
        self.links.pop(client.client_id, None)

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
    say(f"studio: {address(host, studio.port)} (Ctrl+C ends it)" + (f", token {token}" if token else ""))
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    end.wait()
    studio.stop()
    say("studio: ended")


def listening(host: str, port: int) -> Any:
    """A viser server on exactly this port, without viser's public tunnel; OSError where it is taken."""
    try:
        import viser
    except ImportError as error:
        raise ImportError("mclip studio needs viser: pip install 'mclip[studio]'") from error

    class Server(OwnPage, viser.ViserServer):
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
