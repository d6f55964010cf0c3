"""What a browser asks by: a tab for texts, edits, ways between two motions, and searching."""

import functools
from typing import Any

from mclip.pipeline.prepare.sources import clip_name
from mclip.training.latent.edits import between, edited
from mclip.training.latent.search import Hit
from mclip.training.studio.session import Session
from mclip.training.studio.space import FIRST

STEPS = 101  # places on the way between two motions


def build_tabs(session: Session) -> None:
    """Build the tabs of a session; the search where there is a store."""
    tabs = {"Text": build_text, "Edit": build_edit, "Between": build_between}
    if session.space.store is not None:
        tabs["Search"] = build_search
    group = session.gui.add_tab_group()
    for title, build in tabs.items():
        with group.add_tab(title):
            build(session)


def build_text(session: Session) -> None:
    """A field whose text is played."""
    text = session.gui.add_text("text", FIRST, hint="What the person does.")
    text.on_update(session.typed([text], lambda: session.generate(text.value)))


def build_edit(session: Session) -> None:
    """Fields of base + scale (to - from)."""
    pairs = zip(("base", "from", "to"), (FIRST, "walk", "run"), strict=True)
    words = [session.gui.add_text(*pair, hint=session.hint) for pair in pairs]
    scale = session.gui.add_slider("scale", -1.0, 2.0, 0.05, 1.0, hint="base + scale (to - from)")

    def show() -> None:
        base, away, goal = (each.value for each in words)
        base_C, from_C, to_C = session.vectors_of(base, away, goal)
        title = f"{base} + {scale.value:g} ({goal} - {away})"
        session.play(title, session.space.decoded(edited(base_C, from_C, to_C, [scale.value])[0]))

    for each in words:
        each.on_update(session.typed(words, show))
    scale.on_update(session.newest(show))


def build_between(session: Session) -> None:
    """Fields of two ends, and a slider from one to the other."""
    ends = [session.gui.add_text(*pair, hint=session.hint) for pair in (("start", "walk"), ("end", "crawl"))]
    share = session.gui.add_slider("share", 0.0, 1.0, 0.01, 0.5, hint="0 is the start, 1 is the end")
    path = session.gui.add_button_group("path", ("line", "circle"))

    def show() -> None:
        start, end = (each.value for each in ends)
        a_C, b_C = session.vectors_of(start, end)
        steps = between(a_C, b_C, STEPS, path=path.value)
        session.play(f"{start} to {end}: {share.value:g}", session.space.decoded(steps[round(100 * share.value)]))

    for each in ends:
        each.on_update(session.typed(ends, show))
    share.on_update(session.newest(show))
    path.on_click(session.newest(show))


def build_search(session: Session) -> None:
    """A field whose nearest clips stand below it, to be played."""
    query = session.gui.add_text("query", "", hint=session.hint)
    results = session.gui.add_folder("found")
    buttons: list[Any] = []

    def show() -> None:
        found = session.space.found(query.value)
        while buttons:
            buttons.pop().remove()
        with results:
            for hit in found:
                button = session.gui.add_button(button_text(hit), hint=f"{hit.clip} {seconds(hit)}"[:200])
                button.on_click(session.newest(functools.partial(play_hit, session, hit)))
                buttons.append(button)

    query.on_update(session.typed([query], show))


def play_hit(session: Session, hit: Hit) -> None:
    """Play the seconds of a clip that were found."""
    session.play(f"{clip_name(hit.clip)} {seconds(hit)}", session.space.clip(hit))


def button_text(hit: Hit) -> str:
    """What was found, in the words that it was found by."""
    return f"{hit.score:.2f} {hit.text[:40] or 'no label'} ({clip_name(hit.clip)} {seconds(hit)})"


def seconds(hit: Hit) -> str:
    """When in its clip a hit is."""
    return f"{hit.from_s:.1f} to {hit.to_s:.1f} s"
