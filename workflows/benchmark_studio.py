"""How long after the last letter a motion is at the browser: `python workflows/benchmark_studio.py RUN STORE`.

A websocket client types 20 texts that nobody typed before, at a warm studio on this machine. The time runs from sending
a text to the arrival of the first bone of its motion; the pause that tells the end of the typing is in it.
"""

import contextlib
import statistics
import sys
import time
from pathlib import Path

import msgspec
import viser
import zstandard
from websockets.sync.client import ClientConnection, connect

from mclip.pipeline.embed.classes import classes_of
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.store.store import open_store
from mclip.training.model.run import load_run
from mclip.training.studio import session as studio
from mclip.training.studio.server import Studio
from mclip.training.studio.space import Space

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
WHO = ("a person", "someone", "a dancer", "a child", "an athlete")
DOES = ("spins around", "kicks a ball", "walks up slowly", "gets off the ground")


def messages(raw: bytes) -> list[dict[str, object]]:
    """The messages of one frame of viser's protocol."""
    packed = int.from_bytes(raw[8:16], "little")
    return msgspec.msgpack.decode(zstandard.decompress(raw[16 : 16 + packed]))["messages"]


def waited(socket: ClientConnection, field: str, text: str) -> float:
    """Seconds from the text to the first bone after it; the body stands still meanwhile."""
    start = time.perf_counter()
    socket.send(msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": field, "updates": {"value": text}}))
    while True:
        if any(message["type"] == "SetBoneOrientationMessage" for message in messages(socket.recv())):
            return time.perf_counter() - start


def drain(socket: ClientConnection) -> None:
    """Read on until nothing comes for half a second."""
    with contextlib.suppress(TimeoutError):
        while True:
            socket.recv(timeout=0.5)


def main() -> None:
    run, store = load_run(Path(sys.argv[1])), open_store(sys.argv[2])
    names = classes_of("babel60")
    space = Space.of(run, run.load_encoder(), body=load_body("low"), classes=names, store=store)
    served = Studio(space, host="127.0.0.1", port=0, token=None)
    protocol = f"viser-v{viser.__version__}"
    with connect(f"ws://127.0.0.1:{served.port}", subprotocols=[protocol], max_size=None, compression=None) as socket:
        socket.send(msgspec.msgpack.encode(CAMERA))
        fields: dict[str, str] = {}
        while "play" not in fields or "text" not in fields:
            for message in messages(socket.recv()):
                if "props" in message and "label" in message["props"] and "uuid" in message:
                    fields.setdefault(str(message["props"]["label"]), str(message["uuid"]))
        stop = {"type": "GuiUpdateMessage", "uuid": fields["play"], "updates": {"value": False}}
        socket.send(msgspec.msgpack.encode(stop))
        found, busy = list[float](), list[float]()
        for text in [f"{who} {does}" for who in WHO for does in DOES]:
            drain(socket)
            before = time.process_time()
            found.append(1000 * waited(socket, fields["text"], text))
            busy.append(1000 * (time.process_time() - before))
    served.stop()
    print(f"{len(found)} texts: median {statistics.median(found):.0f} ms, slowest {max(found):.0f} ms")
    pause, computed = 1000 * studio.PAUSE, statistics.median(busy)
    print(f"of each, {pause:.0f} ms wait for the end of the typing, {computed:.0f} ms of processor time")


if __name__ == "__main__":
    main()
