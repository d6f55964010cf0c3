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
from pydantic import ValidationError

from mclip.pipeline.machine.words import visible, warn
from mclip.training.show.export import write, write_worn
from mclip.training.show.folder import plain_name
from mclip.training.studio.history import History
from mclip.training.studio.inputs import check_arrivals, check_uploads
from mclip.training.studio.panels import SAVED, WORN, build_history, build_playing
from mclip.training.studio.player import Player
from mclip.training.studio.space import FIRST, Shown, Space
from mclip.training.studio.wishes import Session as Kept
from mclip.training.studio.wishes import Text, Wish, link_of, session_of

PAUSE = 0.15  # seconds without a letter, after which a text is decoded
LARGEST_FILE = 16 << 20  # bytes that a browser may send


class Session:
    """One browser: its fields and buttons, its history, and its player."""

    # Fields of the page that are written from here, as panels.py builds them.
    named: Any
    classes: Any
    playing: Any
    time: Any
    speed: Any
    past: Any
    link: Any

    def __init__(
        self, client: Any, space: Space, build_tabs: Callable[["Session"], None], wish: Wish | None = None
    ) -> None:
        self.client, self.space, self.gui, self.build_tabs = client, space, client.gui, build_tabs
        check_arrivals(client, self.tell)
        check_uploads(client, LARGEST_FILE, self.tell)
        self.player: Player | None = None  # nobody sees anything before `enter`
        self.asked, self.counting = 0, threading.Lock()
        self.title, self.rows = "", torch.zeros(0, 25, 6)
        self.first = wish or Text(text=FIRST)
        self.history = History()
        self.fills: dict[type[Wish], Callable[[Any], None]] = {}  # how a tab's fields say a wish

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
        """Build the page and play what its address names, or a first motion."""
        player = Player(self.client, self.space.body)
        with self.client.atomic():  # whole and filled in, or not there: a hand that is quick is not written over
            self.build_tabs(self)
            build_playing(self, player)
            build_history(self)
            self.fill(self.first)
        self.player = player
        self.newest(lambda: self.show(self.first))(None)

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
            except ValidationError as error:  # a wish that says nothing
                self.tell("; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()))
            except (ValueError, OSError) as error:
                self.tell(str(error))
            except Exception as error:
                warn(f"studio: {error!r:.300} in {traceback.extract_tb(error.__traceback__)[-1]}")
                self.tell("The studio made a mistake; the terminal where it was started says which.")

        return called

    def newest(self, work: Callable[[], None], *, pause: float = 0.0) -> Callable[[Any], None]:
        """`work` when its turn has come; what was overtaken by something newer while it waited does nothing.

        Nor does what no hand did: a field that is filled in from here.
        """

        def called(event: Any) -> None:
            if event is not None and event.client is None:
                return
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

    def show(self, wish: Wish) -> None:
        """Play what a wish asks for, and keep it."""
        shown = self.space.shown(wish)
        self.history.add(wish)
        self.play(shown)
        self.tell_where(wish)

    def restore(self, wish: Wish) -> None:
        """Play a wish of before, and fill in the fields that say it: first of all, for a hand may go on from there."""
        self.fill(wish)
        self.show(wish)

    def fill(self, wish: Wish) -> None:
        """Let the fields say a wish, where there are fields for it."""
        if type(wish) in self.fills:
            self.fills[type(wish)](wish)

    def tell_where(self, wish: Wish) -> None:
        """Bring the page's address and its list up to what is shown."""
        self.link.value = link_of(wish)
        titles = self.history.titles
        self.past.options = titles
        self.past.value = titles[len(titles) - 1 - self.history.at]

    def go(self, steps: int) -> None:
        """Show again what was shown so many steps away."""
        wish = self.history.move(steps)
        if wish is None:
            raise ValueError("nothing before this" if steps < 0 else "nothing after this")
        self.restore(wish)

    def play(self, shown: Shown) -> None:
        """Play motions, and say what the first looks like."""
        assert self.player is not None
        self.title, self.rows = shown.titles[0], shown.rows_TRD
        self.player.show(shown.motions)
        self.client.flush()
        self.named.value = " | ".join(shown.titles)
        self.classes.value = "\n".join(f"{score:.2f}  {name}" for name, score in self.space.seen(shown.rows_TRD))
        length, step = round(self.player.length, 3), round(1 / self.player.fps, 4)
        if (self.time.max, self.time.step) != (length, step):
            self.time.max, self.time.step = length, step

    def save(self, kind: str) -> None:
        """Send what plays as a file; of several bodies a file each."""
        assert self.player is not None
        tracks, character = self.player.tracks, self.space.character
        worn = character if kind == WORN else None
        if not tracks or not (worn or kind in SAVED):
            raise ValueError(f"nothing to save as {kind}")
        for number, track in enumerate(tracks):
            title = f"{plain_name(self.title) or 'motion'}{f'-{number}' if number else ''}"
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"{title}-{worn.path.name}" if worn else f"{title}.{kind}")
                if worn:
                    write_worn(path, track.motion, worn, name=title)
                else:
                    write(path, track.motion)
                self.client.send_file_download(path.name, path.read_bytes(), save_immediately=True)

    def save_session(self) -> None:
        """Send the history as a file."""
        kept = Kept(wishes=self.history.wishes).model_dump_json(indent=1)
        self.client.send_file_download("studio.json", kept.encode(), save_immediately=True)

    def open_session(self, name: str, content: bytes) -> None:
        """Go on from a history that a file holds."""
        opened = session_of(content, name)
        self.history = History(list(opened.wishes), len(opened.wishes) - 1)
        self.restore(opened.wishes[-1])

    def press(self, key: str) -> None:
        """What a key of the keyboard does."""
        player = self.player
        if player is None or not player.tracks:
            return
        if key == " ":
            self.playing.value = player.playing = not player.playing
        elif key in (",", "."):
            self.playing.value = False
            player.seek(player.seconds + (1 if key == "." else -1) / player.fps)
            self.time.value = min(player.seconds, self.time.max)
        elif key in ("[", "]"):
            self.speed.value = player.speed = min(max(round(player.speed + (0.1 if key == "]" else -0.1), 1), 0.1), 2.0)
        elif key in ("u", "r"):
            self.newest(lambda: self.go(-1 if key == "u" else 1))(None)

    def tick(self, passed: float) -> None:
        """Go on by some seconds of the clock."""
        if self.player is not None:
            self.player.tick(passed)
            tenth = round(self.player.seconds, 1)
            if self.player.playing and self.player.length and tenth <= self.time.max:
                self.time.value = tenth
