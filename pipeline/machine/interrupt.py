"""Ctrl+C while a run trains: the step under way is ended and saved."""

import signal
import threading
import time
from types import FrameType, TracebackType

# Seconds in which signals are one press: a terminal sends it to all processes, and torchrun sends it on to its workers.
ONE_PRESS = 1.0


class Interrupt:
    """Whether Ctrl+C was pressed since this was entered; pressed again later it stops at once, saving nothing."""

    def __init__(self) -> None:
        self.pressed, self.at = False, 0.0
        self.listens = threading.current_thread() is threading.main_thread()  # no other gets signals

    def __enter__(self) -> "Interrupt":
        if self.listens:
            self.before = signal.signal(signal.SIGINT, self.press)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)

    def press(self, number: int, frame: FrameType | None) -> None:
        """Note the first, obey a later one."""
        if self.pressed and time.monotonic() > self.at + ONE_PRESS:
            raise KeyboardInterrupt
        self.pressed, self.at = True, time.monotonic()
