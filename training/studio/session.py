"""A local web page, on viser, where a text becomes a motion at once: generate, edit, interpolate, search, save.

What a browser sees and does is its own (viser's client.gui and client.scene); nothing is shared but the model.
"""

# T frames, J joints, C latent width, K classes

import contextlib
import hmac
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.machine.words import visible, warn
from mclip.training.show.export import FORMATS, write
from mclip.training.show.folder import plain_name
from mclip.training.show.motion import motion_of_rows
from mclip.training.studio.inputs import check_arrivals
from mclip.training.studio.player import Player
from mclip.training.studio.space import FIRST, Space

PAUSE = 0.15  # seconds without a letter, after which a text is decoded
SAVED = tuple(kind for kind in FORMATS if kind not in ("gif", "png"))


class Session:
    """One browser: its fields and buttons, and its player."""

    def __init__(self, client: Any, space: Space, build_tabs: Callable[["Session"], None]) -> None:
        self.client, self.space, self.gui, self.build_tabs = client, space, client.gui, build_tabs
        check_arrivals(client, self.tell)
        self.player: Player | None = None  # nobody sees anything before `enter`
        self.asked, self.counting = 0, threading.Lock()
        self.title, self.rows = "", torch.zeros(0, 25, 6)
        self.ends: tuple[tuple[str, ...], Tensor] | None = None

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
        self.build_tabs(self)
        self.build_player(player)
        self.player = player
        self.newest(lambda: self.generate(FIRST))(None)

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

    def tell(self, words: str, title: str = "That did not work") -> None:
        """Show words on the page; nothing where nobody is there any more."""
        with contextlib.suppress(Exception):  # of viser's, whatever a closed connection makes of it
            self.client.add_notification(title, visible(words)[:500], color="red")

    def told(self, work: Callable[[Any], None]) -> Callable[[Any], None]:
        """`work` as viser calls it, in a thread; its errors are told on the page, and those of ours in a line here."""

        def called(event: Any) -> None:
            try:
                work(event)
            except (ValueError, OSError) as error:
                self.tell(str(error))
            except Exception as error:
                warn(f"studio: {error!r:.300} in {traceback.extract_tb(error.__traceback__)[-1]}")
                self.tell("The studio made a mistake; the terminal where it was started says which.")

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
            path = Path(folder, f"{plain_name(title) or 'motion'}.{kind}")
            write(path, track.motion)
            self.client.send_file_download(path.name, path.read_bytes(), save_immediately=True)

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        if self.player is not None:
            self.player.tick(passed)
            if self.player.playing and self.player.length:
                self.time_slider.value = round(self.player.seconds / self.player.length, 1)
