"""Texts of mirrored motion: sides and turns swapped in their sense, and no text where that is not sure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mclip.pipeline.labels.mirror import mirror_text

# By hand: what a person would write under the mirrored motion.
SWAPPED = [
    ("turn counter clockwise", "turn clockwise"),
    ("walks counter-clockwise, then clockwise", "walks clockwise, then counterclockwise"),
    ("anticlockwise turn", "clockwise turn"),
    ("spin ccw", "spin cw"),
    ("walks left-to-right", "walks right-to-left"),
    ("step front-left", "step front-right"),
    ("leans leftwards", "leans rightwards"),
    ("raise L arm", "raise R arm"),
    ("stand right foot over left", "stand left foot over right"),
    ("steps to his left, then right", "steps to his right, then left"),
    ("Turn LEFT then right-handed, leftover", "Turn RIGHT then left-handed, leftover"),
    ("he turned right and left the room", "he turned left and left the room"),
    ("pick up with left hand from right side", "pick up with right hand from left side"),
    ("Left foot", "Right foot"),
    ("left", "right"),
]
AS_THEY_ARE = [
    "he left the room",
    "right away he runs",
    "right after jumping",
    "all right",
    "a person is left behind",
    "right angle",
    "upright stance",
    "copyright",
    "the right way",
    "walk",
]
NOT_SURE = [
    "puts the box right in front",
    "right the chair",
    "moves right back to the start",
    "walk in an L shape",
    "what is left",
    "throws lefts and rights",
    "lefty throw",
    "turn right around",
]


@pytest.mark.parametrize(("text", "expected"), SWAPPED)
def test_sides_and_turns_are_swapped_in_their_sense(text, expected):
    assert mirror_text(text) == expected


@pytest.mark.parametrize("text", AS_THEY_ARE)
def test_verbs_and_sayings_stay_as_they_are(text):
    assert mirror_text(text) == text


@pytest.mark.parametrize("text", NOT_SURE)
def test_where_it_is_not_sure_there_is_no_mirrored_text(text):
    assert mirror_text(text) is None


@given(st.lists(st.sampled_from("turn left right hand the he to clockwise ccw room , and walks L arm away".split())))
def test_the_mirror_image_of_a_mirror_image_is_the_text_or_none(words):
    text = " ".join(words)
    once = mirror_text(text)
    if once is not None and (twice := mirror_text(once)) is not None:
        assert twice == text
