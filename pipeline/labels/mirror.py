"""A text of the mirrored motion: sides and turns swapped where they are meant, none where that is not sure."""

import re

# What a side may stand before: a body part, a thing that has sides, a movement.
PARTS = frozenset(
    "hand arm leg foot feet knee elbow shoulder hip side ankle wrist thigh fist heel toe ear eye cheek finger thumb "
    "palm forearm calf calves shin limb biceps chest pocket temple rib hook jab uppercut punch kick cross step turn "
    "lunge corner lane diagonal handed footed hander most cartwheel sidestep roundhouse".split()
)
PLACES = frozenset("upper lower front back rear index middle ring little pinky big".split())  # before a part
OWNERS = frozenset("the his her their its my your our".split())
LEADING = OWNERS | frozenset(
    "to toward towards from on at with of in far upper lower front back rear forward forwards backward backwards "
    "sideways bottom top slightly diagonally diagonal facing over behind across".split()
)
MOVES = frozenset(
    "turn step walk move go look lean bend veer strafe shift sidestep jump run hop face swing rotate shuffle slide "
    "curve sway tilt kick punch reach dodge roll jog dance duck spin twist pivot circle glance point throw bank swerve "
    "skip leap crawl hook jab lunge gallop stumble drift wave march sidle dip rock raise lower stretch extend "
    "stand".split()
)
JOINING = ("and", "or", "then", "to", "over", "with", "behind", "across")
AFTER = frozenset(("", *"and or then before while with as again twice when once slightly side slowly quickly".split()))
AFTER_LEFT = AFTER | frozenset("to in on at into from for around".split())  # "walks right into" is no side
AFTER_OWNED = AFTER_LEFT | frozenset("of he she they by until but".split())  # "to the right of"
THINGS = frozenset("the a an this that these those him it them me us you".split())
SUBJECTS = frozenset("he she they who person man woman someone somebody people figure it has have had".split())
SAYINGS = {
    "right": frozenset("away now after here there angle angles angled time moment one thing way height amount".split()),
    "left": frozenset(("behind", "alone", "off", "out", "over", "overs")),
}
TURNS = {"ccw": "cw", "cw": "ccw"}

WORD = re.compile(
    r"(?P<turn>\b(?:(?:counter|anti)[\s-]*)?clock[\s-]?wise\b)|(?P<short>\bc?cw\b)"
    r"|\b(?P<side>left|right)(?=(?:wards?|most|s|y|ies|(?:hand|foot)(?:ed|er)?)?\b)|(?P<letter>(?<![\w'])[LR](?![\w'.]))"
    r"|(?P<small>(?<![\w'])[lr](?=[\s-](?:hand|arm|leg|foot|knee|elbow|shoulder|hip|wrist|ankle)s?\b))",
    re.IGNORECASE,
)


def mirror_text(text: str) -> str | None:
    """The text of the mirrored motion: left and right swapped, and the ways round; None where it is not sure.

    "he left the room" and "right away" stay as they are: the words around tell a side from a verb or a saying.
    """
    out, end = [], 0
    for found in WORD.finditer(text):
        if (other := swapped(found, text[: found.start()], text[found.end() :])) is None:
            return None
        out += [text[end : found.start()], match_case(found[0], other)]
        end = found.end()
    return "".join([*out, text[end:]])


def swapped(found: re.Match[str], before: str, after: str) -> str | None:
    """What stands for a word that may name a side or a turn; the word itself where it names none, None if not sure."""
    word = found[0].lower()
    if found["turn"]:
        return "counterclockwise" if word.startswith("clock") else "clockwise"
    if found["short"]:
        return TURNS[word]
    if found["side"]:
        meant = is_side(word, before.lower(), after.lower())
        return None if meant is None else {"left": "right", "right": "left"}[word] if meant else word
    following = words_of(after.lower())
    return {"l": "r", "r": "l"}[word] if following and is_part(following[0]) else None


CLAUSE = re.compile(r"[.,;:!?()\[\]\"/&+]")


def words_of(text: str) -> list[str]:
    """Words up to the end of the clause; a hyphen parts words."""
    return re.findall(r"[\w']+", CLAUSE.split(text, maxsplit=1)[0])


def is_side(word: str, before: str, after: str) -> bool | None:
    """Whether `left` or `right` names a side, by the words around it; None where that is not sure."""
    if ending := re.match(r"(wards?|most|hand|foot)|(s|y|ies)\b", after):
        return True if ending[1] else None
    previous, following = words_of(CLAUSE.split(before)[-1])[::-1], words_of(after)
    last, coming = (previous or [""])[0], (following or [""])[0]
    beyond = (*following, "", "")[1]
    other = "right" if word == "left" else "left"
    if is_part(coming) or (coming in PLACES and (is_part(beyond) or last in LEADING)):
        return True
    if coming in MOVES and last not in SUBJECTS:  # a left hop
        return True
    if coming == other or (coming in JOINING and beyond == other):
        return True
    if word == "left" and coming in THINGS:  # he left the room
        return None if last in OWNERS else False
    if coming in SAYINGS[word] or (word == "right" and last in ("all", "that's")):
        return None if word == "left" and is_move(last) else False
    if last in SUBJECTS:
        return False if word == "left" and coming == "" else None
    if last in OWNERS:
        return True if coming in AFTER_OWNED else None
    known = last in LEADING or is_move(last) or not previous or (last in JOINING and re.search(rf"\b{other}\b", before))
    return True if known and coming in (AFTER_LEFT if word == "left" else AFTER) else None


def is_part(word: str) -> bool:
    """Whether a word is a part of the body or another thing that has a left and a right one."""
    return word in PARTS or word.removesuffix("s") in PARTS or word.removesuffix("es") in PARTS


def is_move(word: str) -> bool:
    """Whether a word is a movement that takes a side: turn, turns, turning, turned."""
    stems = {word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ing"), word.removesuffix("ed")}
    stems |= {f"{stem}e" for stem in stems} | {stem[:-1] for stem in stems if len(stem) > 3 and stem[-1] == stem[-2]}
    return bool(stems & MOVES)


def match_case(word: str, other: str) -> str:
    """`other` with the capitals of `word`."""
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
