"""What every request passes before it is read: whose it is, how much it brings, and how long it takes to bring it."""

import asyncio
import hmac
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import status
from fastapi.responses import JSONResponse

from mclip.pipeline.machine.words import warn
from mclip.training.serve.doors import is_foreign

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_WORDS = 1 << 18  # bytes of a JSON: 16 texts of the longest, in four bytes a letter and escaped
LARGEST_MOTION = 16 << 20  # bytes of a file: an hour of a .npz at 30 fps is 134 MB, so some minutes of one
BODY_SECONDS = 20.0  # that a body may take to arrive
OPEN = ("/", "/openapi.json")  # how to ask: says nothing of the model


class Refused(Exception):
    """A request that is not let in, and the status that says why."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


def told(code: int, words: str, **headers: str) -> JSONResponse:
    """An error as every answer of the server tells it."""
    return JSONResponse({"error": words}, status_code=code, headers=headers)


class Gate:
    """An ASGI app around another, which gets only requests that are whole, and only from those who may ask."""

    def __init__(self, app: Any, *, token: str | None, loopback: bool) -> None:
        self.app, self.token, self.loopback = app, token, loopback

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self.check(scope["path"], scope["headers"])
            async with asyncio.timeout(BODY_SECONDS):
                body = await whole(receive, most_of(scope["headers"]))
        except Refused as refusal:
            await told(refusal.code, refusal.words, connection="close")(scope, receive, send)
            return
        except TimeoutError:
            words = f"The request did not arrive within {BODY_SECONDS:g} seconds."
            await told(status.HTTP_408_REQUEST_TIMEOUT, words, connection="close")(scope, receive, send)
            return
        if body is None:
            return
        try:
            await self.app(scope, replayed(body, receive), send)
        except Exception as error:  # a mistake of ours, which Starlette has answered
            warn(f"serve: {error!r:.300} in {traceback.extract_tb(error.__traceback__)[-1]}")

    def check(self, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Refused for a request of another page's script, or one that does not name the token."""
        if is_foreign(values(headers, b"host"), values(headers, b"origin"), loopback=self.loopback):
            raise Refused(403, "This request comes from another page, or by a name that is not this server's.")
        if self.token is None or path in OPEN:
            return
        named = [value.encode() for value in values(headers, b"authorization")]
        if len(named) != 1 or not hmac.compare_digest(named[0], f"Bearer {self.token}".encode()):
            raise Refused(401, "Name the token, as the header 'Authorization: Bearer TOKEN'; the server printed it.")


def values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """The values of a header."""
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def most_of(headers: list[tuple[bytes, bytes]]) -> int:
    """Bytes that a request may bring: words are few, a motion is a file."""
    return LARGEST_WORDS if any("json" in kind for kind in values(headers, b"content-type")) else LARGEST_MOTION


async def whole(receive: Receive, most: int) -> bytes | None:
    """The whole body, None where its sender left; Refused where it is larger than `most`, as soon as that is known."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            raise Refused(413, f"The request is larger than {most:,} bytes, which is the most that is read.")
        if not message.get("more_body"):
            return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again
