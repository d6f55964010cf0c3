"""How the server bears many at once: `python workflows/benchmark_serve.py RUN STORE [CLIENTS]`.

CLIENTS programs (50) ask for four things each, one after the other: a motion as .glb, a search, the vectors of two
texts, and a sequence of two texts as JSON. Meanwhile as many others begin a request and never end it. Printed are the
times of an answer, and what was no answer.
"""

import http.client
import json
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

from mclip.pipeline.store.store import open_store
from mclip.training.api import MotionClip
from mclip.training.model.run import load_run
from mclip.training.serve.app import Service
from mclip.training.serve.server import Served

DOES = ("walks", "spins around", "kicks a ball", "gets off the ground", "jumps high")
SLOW = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def wishes(number: int) -> list[tuple[str, dict[str, object]]]:
    """What a client asks for."""
    text, other = (f"person {number} {DOES[(number + more) % len(DOES)]}" for more in (0, 1))
    return [
        ("/generate", {"texts": [text], "format": "glb"}),
        ("/search", {"query": other}),
        ("/encode", {"texts": [text, other]}),
        ("/generate", {"texts": [text, other], "seconds": 3, "sequence": True}),
    ]


def ask(port: int, number: int, times: dict[str, list[float]], faults: list[str]) -> None:
    """A client's wishes, one after the other."""
    for path, wish in wishes(number):
        start = time.perf_counter()
        try:
            status, content = answer_to(port, path, wish)
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{path}: {error!r}")
            continue
        name = "sequence" if "sequence" in wish else path[1:]
        times.setdefault(name, []).append(time.perf_counter() - start)
        if status != 200:
            faults.append(f"{path}: {status} {content[:200]!r}")


def answer_to(port: int, path: str, wish: dict[str, object]) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, json.dumps(wish), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def main() -> None:
    run, store, clients = load_run(Path(sys.argv[1])), open_store(sys.argv[2]), int([*sys.argv, "50"][3])
    service = Service(MotionClip(run), store)
    service.model.generate("a person walks")
    times: dict[str, list[float]] = {}
    faults: list[str] = []
    with Served(service, host="127.0.0.1", port=0, token=None) as served:
        ask(served.port, 0, alone := {}, faults)
        slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(clients)]
        for each in slow:
            each.sendall(SLOW)
        threads = [threading.Thread(target=ask, args=(served.port, each, times, faults)) for each in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        passed = time.perf_counter() - start
    for name, (single,) in alone.items():
        found = [1000 * each for each in times[name]]
        p95 = statistics.quantiles(found, n=20)[-1]
        print(f"{name}: alone {1000 * single:.0f} ms; median {statistics.median(found):.0f} ms, p95 {p95:.0f} ms")
    count = sum(map(len, times.values()))
    print(f"{clients} clients, {count} requests in {passed:.1f} s, {count / passed:.1f} a second, {len(faults)} errors")
    print("\n".join(faults[:5]))


if __name__ == "__main__":
    main()
