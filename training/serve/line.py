"""One thread that computes, and the line of those who wait for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Found = TypeVar("Found")
MOST_WAITING = 64  # requests: some five seconds of work on two cores


class Busy(Exception):
    """Too many wait already."""


class Line:
    """Work is done in the order in which it was asked for, one piece at a time: a tokenizer may not be used by two
    threads. Meanwhile whoever is slow to ask or to read holds nobody up."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="mclip")
        self.most, self.waiting = most, 0

    async def do(self, work: Callable[[], Found]) -> Found:
        """What `work` returns, when its turn has come. Busy where the line is as long as it may be."""
        if self.waiting >= self.most:
            raise Busy(f"{self.waiting} requests are waiting already; ask again in some seconds.")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, work)
        finally:
            self.waiting -= 1

    def end(self) -> None:
        """Do no more: what waits is dropped."""
        self.thread.shutdown(wait=True, cancel_futures=True)
