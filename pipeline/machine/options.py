"""A command's options as the fields of a frozen dataclass: default, help, words and bounds are written once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from types import NoneType
from typing import Any, get_args

import click

Bound = int | float | None


def setting(
    default: Any,
    text: str,
    choices: tuple[str, ...] = (),
    *,
    least: Bound = None,
    above: Bound = None,
    most: Bound = None,
    below: Bound = None,
) -> Any:
    """A field with its default, its one line of help, the words it may take, and its bounds."""
    bounds = {"least": least, "above": above, "most": most, "below": below}
    return field(default=default, metadata={"help": text, "choices": choices, **bounds})


def check_settings(options: Any) -> None:
    """ValueError naming the first option of a dataclass that is none of its words, out of bounds, or not finite."""
    for each in fields(options):
        value = getattr(options, each.name)
        if value is not None and (expected := refusal_of(value, each.metadata)):
            raise ValueError(f"--{flag(each.name)} is {value!r}: expected {expected}")


def refusal_of(value: Any, told: Mapping[str, Any]) -> str:
    """What a value should have been; empty where it is all right."""
    if told["choices"] and value not in told["choices"]:
        return ", ".join(told["choices"])
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    low, open_low = (told["least"], False) if told["above"] is None else (told["above"], True)
    high, open_high = (told["most"], False) if told["below"] is None else (told["below"], True)
    if low is not None and (value < low or (open_low and value == low)):
        return f"more than {low:g}" if open_low else f"at least {low:g}"
    if high is not None and (value > high or (open_high and value == high)):
        return f"less than {high:g}" if open_high else f"at most {high:g}"
    return ""


def flag(name: str) -> str:
    """A field's name on the command line."""
    return name.replace("_", "-")


class Finite(click.FloatRange):
    """A number within bounds; NaN, which is outside of none, and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not finite.", param, ctx)
        return number


def click_type(each: Field[Any]) -> Any:
    """What click takes for a field: its words, a number within its bounds, or any text."""
    told = each.metadata
    (kind,) = set(get_args(each.type) or (each.type,)) - {NoneType}
    if told["choices"]:
        return click.Choice(told["choices"])
    if kind is int and told["least"] == told["most"] is None:
        return int
    if kind is int:
        return click.IntRange(told["least"], told["most"])
    if kind is float:
        low = told["least"] if told["above"] is None else told["above"]
        high = told["most"] if told["below"] is None else told["below"]
        return Finite(low, high, min_open=told["above"] is not None, max_open=told["below"] is not None)
    return kind


def option_of(each: Field[Any]) -> Callable[[Any], Any]:
    """The click option of a field; one that may be true or false is a flag, and one that is true has its --no-."""
    if each.type is bool:
        name = f"--{flag(each.name)}"
        names = f"{name}/--no-{flag(each.name)}" if each.default else name
        return click.option(names, is_flag=True, default=each.default, help=each.metadata["help"])
    return click.option(f"--{flag(each.name)}", default=each.default, help=each.metadata["help"], type=click_type(each))


def options_of(*kinds: Any, without: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """A decorator that gives a command an option for every field of some dataclasses, in their order."""

    def decorate(command: Any) -> Any:
        for each in reversed([each for kind in kinds for each in fields(kind) if each.name not in without]):
            command = option_of(each)(command)
        return command

    return decorate
