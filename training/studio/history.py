"""What was shown, one after the other, and where in it a browser stands."""

import time
from dataclasses import dataclass, field

from mclip.training.studio.wishes import MOST_KEPT, Wish

SOON = 2.0  # seconds within which a wish of the same kind takes the place of the last: a slider on its way


@dataclass
class History:
    """Wishes in their order, at most MOST_KEPT, of which one is shown."""

    wishes: list[Wish] = field(default_factory=list)
    at: int = -1
    when: float = 0.0

    def add(self, wish: Wish) -> None:
        """Show a wish: what was undone before it is forgotten."""
        now, last = time.monotonic(), self.shown
        if last == wish:
            return
        on_its_way = last is not None and last.kind == wish.kind and now - self.when < SOON and self.at > 0
        kept = self.wishes[: self.at + (0 if on_its_way else 1)]
        self.wishes = [*kept, wish][-MOST_KEPT:]
        self.at, self.when = len(self.wishes) - 1, now

    def move(self, steps: int) -> Wish | None:
        """The wish so many steps away, which is shown now; None where there is none."""
        if not 0 <= self.at + steps < len(self.wishes):
            return None
        self.at, self.when = self.at + steps, 0.0
        return self.wishes[self.at]

    @property
    def shown(self) -> Wish | None:
        """The wish that is shown."""
        return self.wishes[self.at] if self.wishes else None

    @property
    def titles(self) -> tuple[str, ...]:
        """A line for every wish, the newest first."""
        return tuple(f"{number}. {wish.title[:60]}" for number, wish in enumerate(self.wishes, 1))[::-1]
