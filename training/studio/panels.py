"""What stands below the tabs: what plays and how, and what was shown before."""

from typing import Any

from mclip.training.show.export import FORMATS
from mclip.training.studio.player import Player

SAVED = tuple(kind for kind in FORMATS if kind != "gif")
WORN = "on the character"
KEYS = "Keys: space plays, comma and full stop a frame, [ ] slower and faster, u undoes, r redoes."


def build_playing(session: Any, player: Player) -> None:
    """What plays, what it looks like, and how it is played."""
    gui = session.gui
    with gui.add_folder("playing"):
        # Plain fields, not markdown: a label of a store must not become markup.
        session.named = gui.add_text("motion", "", disabled=True)
        session.classes = gui.add_text("reads as", "", multiline=True, disabled=True)
        session.playing = gui.add_checkbox("play", True, hint=KEYS)
        session.time = gui.add_slider("time", 0.0, 2.0, 0.01, 0.0, hint="Seconds.")
        session.speed = gui.add_slider("speed", 0.1, 2.0, 0.1, 1.0)
        kinds = (*SAVED, WORN) if session.space.character else SAVED
        save = gui.add_button_group("save", kinds)

    def scrub(event: Any) -> None:
        if event.client is not None:  # a hand, not the player
            session.playing.value = False
            player.seek(session.time.value)

    session.playing.on_update(lambda _: setattr(player, "playing", session.playing.value))
    session.speed.on_update(lambda _: setattr(player, "speed", session.speed.value))
    session.time.on_update(scrub)
    save.on_click(session.told(lambda event: session.save(event.target.value)))


def build_history(session: Any) -> None:
    """What was shown, a way back, a file that keeps it; and two fields that only the page's script reads and writes."""
    gui = session.gui
    with gui.add_folder("history"):
        session.past = gui.add_dropdown("shown", ("",), initial_value="")
        steps = gui.add_button_group("step", ("undo", "redo"))
        keep = gui.add_button_group("session", ("save session",))
        opened = gui.add_upload_button("open a session", mime_type="application/json")
    session.link = gui.add_text("link", "", disabled=True, visible=False)
    pressed = gui.add_text("key", "", visible=False)

    def chosen(event: Any) -> None:
        number = int(session.past.value.partition(".")[0]) - 1
        session.newest(lambda: session.go(number - session.history.at))(event)

    session.past.on_update(session.told(chosen))
    steps.on_click(session.told(lambda event: step(session, event)))
    keep.on_click(session.told(lambda _: session.save_session()))
    opened.on_upload(session.told(lambda event: read(session, event)))
    pressed.on_update(session.told(lambda _: session.press(pressed.value[:1])))


def step(session: Any, event: Any) -> None:
    """One back, or forward again."""
    steps = -1 if event.target.value == "undo" else 1
    session.newest(lambda: session.go(steps))(event)


def read(session: Any, event: Any) -> None:
    """Open the session that a browser sent."""
    file = event.target.value
    session.newest(lambda: session.open_session(file.name, file.content))(None)
