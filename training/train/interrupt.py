"""Ctrl+C while a run trains: the step under way is ended and saved."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Whether Ctrl+C was pressed since this was entered; pressed a second time it stops at once, saving nothing.

    Only of a process that trains alone: several would stop at different steps and wait for each other for ever.
    """

    def __init__(self, *, alone: bool):
        self.pressed = False
        self.listens = alone and threading.current_thread() is threading.main_thread()  # no other gets signals

    def __enter__(self) -> "Interrupt":
        if self.listens:
            self.before = signal.signal(signal.SIGINT, self.press)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)

    def press(self, number: int, frame: FrameType | None) -> None:
        """Note the first, obey the second."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
