"""The server's socket, its thread, and its end."""

import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mclip.pipeline.store.store import Store
from mclip.training.api import MotionClip
from mclip.training.serve.app import Service, app_of
from mclip.training.serve.doors import address, is_loopback

HEAD_SECONDS = 10.0  # that a request's first lines may take to arrive
END_SECONDS = 5  # that answers under way are given when the server ends


class Patience(H11Protocol):
    """A connection that is closed when a request does not begin within HEAD_SECONDS: uvicorn itself would wait on."""

    late: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.expect()

    def data_received(self, data: bytes) -> None:
        self.expect()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self.late is not None:
            self.late.cancel()
            self.late = None

    def expect(self) -> None:
        """Begin to count, unless a request has begun or the count is on."""
        if self.late is None and self.conn.their_state is h11.IDLE:
            self.late = self.loop.call_later(HEAD_SECONDS, self.give_up)

    def give_up(self) -> None:
        """Close where no request has come; one that is being answered goes on."""
        self.late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class Served:
    """A server in a thread of its own, from its making to `stop`."""

    def __init__(self, service: Service, *, host: str, port: int, token: str | None) -> None:
        self.service, self.socket = service, listening(host, port)
        config = uvicorn.Config(
            app_of(service, token=token, loopback=is_loopback(host)),
            http=Patience,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=END_SECONDS,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    def stop(self) -> None:
        """End what is under way, and free the port."""
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
        self.service.line.end()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def serve(
    model: MotionClip, store: Store | None, *, host: str, port: int, token: str | None, say: Callable[[str], None]
) -> None:
    """Serve until Ctrl+C or SIGTERM."""
    model.generate("a person walks")  # the first who asks waits no longer than the next
    with Served(Service(model, store), host=host, port=port, token=token) as served:
        say(f"serve: {address(host, served.port)} (Ctrl+C ends it)" + (f", token {token}" if token else ""))
        end = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: end.set())
        end.wait()
    say("serve: ended")


def listening(host: str, port: int) -> socket.socket:
    """A socket on exactly this port; OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error}; name another --port, or --port 0 for any") from error
