"""What a browser asks by: a tab for texts, sequences, edits, ways between two motions, searching, and own motions."""

import functools
from collections.abc import Sequence
from typing import Any

from mclip.pipeline.prepare.sources import clip_name
from mclip.training.latent.search import Hit
from mclip.training.serve.uploads import UPLOADS
from mclip.training.studio.session import Session
from mclip.training.studio.space import FIRST
from mclip.training.studio.wishes import MOST_SAMPLES, MOST_SEED, SECONDS, Between, Clip, Edit, Parts, Text

EXAMPLES = (FIRST, "a karate kick", "dance", "get up from the floor")
LINES = "a person walks @3\nsits down @2"


def build_tabs(session: Session) -> None:
    """Build the tabs of a session; the search where there is a store."""
    tabs = {"Text": build_text, "Sequence": build_parts, "Edit": build_edit, "Between": build_between}
    if session.space.store is not None:
        tabs["Search"] = build_search
    tabs["Own"] = build_own
    group = session.gui.add_tab_group()
    for title, build in tabs.items():
        with group.add_tab(title):
            build(session)


def put(fields: Sequence[Any], values: Sequence[Any]) -> None:
    """Fill fields in, as if they had been so from the beginning."""
    for field, value in zip(fields, values, strict=True):
        if field.value != value:
            field.value = value


def build_text(session: Session) -> None:
    """A field whose text is played, as long, by the seed and as often as is said."""
    gui, crop = session.gui, session.space.run.crop / session.space.run.fps
    text = gui.add_text("text", FIRST, hint="What the person does.")
    examples = gui.add_button_group("for example", EXAMPLES)
    seconds = gui.add_slider("seconds", *SECONDS, 0.1, min(max(round(crop, 1), SECONDS[0]), SECONDS[1]))
    seed = gui.add_slider("seed", 0, MOST_SEED, 1, 0, hint="0 is the text's own motion; others lead near it.")
    samples = gui.add_slider("side by side", 1, MOST_SAMPLES, 1, 1, hint="As many motions, from this seed on.")

    def show() -> None:
        lasting, number, count = float(seconds.value), int(seed.value), int(samples.value)
        session.show(Text(text=text.value, seconds=lasting, seed=number, samples=count))

    def example(event: Any) -> None:
        text.value = event.target.value
        session.newest(show)(event)

    text.on_update(session.typed([text], show))
    examples.on_click(session.told(example))
    for slider in (seconds, seed, samples):
        slider.on_update(session.newest(show))
    session.fills[Text] = lambda wish: put(
        (text, seconds, seed, samples), (wish.text, wish.seconds, wish.seed, wish.samples)
    )


def build_parts(session: Session) -> None:
    """A field whose lines become one motion."""
    lines = session.gui.add_text("lines", LINES, multiline=True, hint="A text a line; @3 at its end are seconds.")
    seed = session.gui.add_slider("seed of all", 0, MOST_SEED, 1, 0)
    button = session.gui.add_button("play as one motion")

    def show() -> None:
        session.show(Parts(lines=lines.value, seed=int(seed.value)))

    button.on_click(session.newest(show))
    seed.on_update(session.newest(show))
    session.fills[Parts] = lambda wish: put((lines, seed), (wish.lines, wish.seed))


def build_edit(session: Session) -> None:
    """Fields of base + scale (to - from)."""
    pairs = zip(("base", "from", "to"), (FIRST, "walk", "run"), strict=True)
    words = [session.gui.add_text(*pair, hint=session.hint) for pair in pairs]
    scale = session.gui.add_slider("scale", -1.0, 2.0, 0.05, 1.0)
    beside = session.gui.add_checkbox("beside the base", False, hint="base + scale (to - from), and the base in grey")

    def show() -> None:
        base, away, goal = (each.value for each in words)
        session.show(Edit(base=base, away=away, goal=goal, scale=scale.value, beside=beside.value))

    for each in words:
        each.on_update(session.typed(words, show))
    scale.on_update(session.newest(show))
    beside.on_update(session.newest(show))
    session.fills[Edit] = lambda wish: put(
        (*words, scale, beside), (wish.base, wish.away, wish.goal, wish.scale, wish.beside)
    )


def build_between(session: Session) -> None:
    """Fields of two ends, and a slider from one to the other."""
    ends = [session.gui.add_text(*pair, hint=session.hint) for pair in (("start", "walk"), ("end", "crawl"))]
    share = session.gui.add_slider("share", 0.0, 1.0, 0.01, 0.5, hint="0 is the start, 1 is the end")
    path = session.gui.add_button_group("path", ("line", "circle"))

    def show() -> None:
        start, end = (each.value for each in ends)
        session.show(Between(start=start, end=end, share=share.value, path=path.value))

    for each in ends:
        each.on_update(session.typed(ends, show))
    share.on_update(session.newest(show))
    path.on_click(session.newest(show))
    session.fills[Between] = lambda wish: put((*ends, share), (wish.start, wish.end, wish.share))


def build_search(session: Session) -> None:
    """A field whose nearest clips stand below it as pictures, to be played."""
    query = session.gui.add_text("query", "", hint=session.hint)
    results = session.gui.add_folder("found")
    shown: list[Any] = []

    def show() -> None:
        found = session.space.found(query.value)
        while shown:
            shown.pop().remove()
        with results:
            for hit in found:
                shown.append(session.gui.add_image(session.space.picture(hit), format="jpeg", jpeg_quality=80))
                button = session.gui.add_button(button_text(hit), hint=f"{hit.clip} {seconds_of(hit)}"[:200])
                button.on_click(session.newest(functools.partial(play_hit, session, hit)))
                shown.append(button)

    query.on_update(session.typed([query], show))


def build_own(session: Session) -> None:
    """A button for a motion file, which is played and read."""
    session.gui.add_text("files", f"{', '.join(UPLOADS)}: played, and read as its nearest classes.", disabled=True)
    own = session.gui.add_upload_button("open a motion", mime_type=",".join(UPLOADS))

    def show() -> None:
        session.play(session.space.own(own.value.name, own.value.content))

    own.on_upload(lambda _: session.newest(show)(None))


def play_hit(session: Session, hit: Hit) -> None:
    """Play the seconds of a clip that were found."""
    session.show(Clip(window=hit.window, name=f"{clip_name(hit.clip)} {seconds_of(hit)}"))


def button_text(hit: Hit) -> str:
    """What was found, in the words that it was found by."""
    return f"{hit.score:.2f} {hit.text[:60] or f'no label: {clip_name(hit.clip)}'}"


def seconds_of(hit: Hit) -> str:
    """When in its clip a hit is."""
    return f"{hit.from_s:.1f} to {hit.to_s:.1f} s"
