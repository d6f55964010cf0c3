"""How commands fail and are listed: a mistake becomes one line with its remedy and exit code 1; help has headings."""

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import click

from mclip.pipeline.machine.words import visible, warn

Command = Callable[..., Any]
REMEDIES = {
    FileNotFoundError: "name a path that exists",
    FileExistsError: "expected a folder, or no file yet: name another",
    NotADirectoryError: "expected a folder: name another",
    IsADirectoryError: "expected a file: name another",
    PermissionError: "name another, or get the right to it",
}
LONGEST_NAME = 300  # letters of an item that are told: a prompt may be a whole book
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
TOLD = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
SERVICES = ("botocore", "aiohttp", "gcsfs")  # stores elsewhere, whose errors have types of their own


class Refusal(click.ClickException):
    """A user's mistake or a damaged input: its text, and exit code 1."""

    def format_message(self) -> str:
        """The text as a terminal may show it."""
        return visible(self.message)


class Stopped(click.ClickException):
    """Ctrl+C: what is kept, and exit code 130, as a shell has it."""

    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it in one line; it is no error. Of the processes that torchrun started one speaks."""
        if os.environ.get("RANK", "0") == "0":
            click.echo(visible(self.format_message()), file=file, err=file is None)


def stopped(said: str) -> Stopped:
    """What to say of a command that was interrupted: what it said itself, or what holds for all."""
    # Zarr's event loop ends with the process, and would complain of every file that was under way.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    context = click.get_current_context(silent=True)
    name = context.info_name if context else "mclip"
    return Stopped(f"{said or f'{name} stopped, what is done is kept'}: the same command goes on from there")


def describe_error(error: Exception) -> str:
    """An error's text, with a remedy where it is the operating system's, which says none."""
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}): ask for less at a time"
    if is_device_full(error):
        first = str(error).split(". ")[0]
        return (
            f"the device has no memory left ({first}): lower --batch or --frames, raise --accumulate of `mclip "
            "train`, or pass --device cpu; what was saved before, such as the last checkpoint, is whole"
        )
    if is_unknown_to_mps(error):
        return f"{str(error).splitlines()[0]}: pass --device cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1"
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}: make room and run the same command again"
    if isinstance(error, OSError) and error.filename is not None:
        remedy = next((text for kind, text in REMEDIES.items() if isinstance(error, kind)), "name another")
        return f"{os.fsdecode(error.filename)}: {error.strerror}: {remedy}"
    return str(error) or type(error).__name__


def is_users_error(error: Exception) -> bool:
    """Whether an error is a user's or a service's, whose text is enough; all others are faults of ours."""
    service = type(error).__module__.split(".")[0] in SERVICES
    told = isinstance(error, TOLD) and not isinstance(error, NotImplementedError)
    return service or told or is_unknown_to_mps(error)


def is_device_full(error: Exception) -> bool:
    """Whether a GPU's memory ran out; by its name, as torch is not imported for every command."""
    return type(error).__name__ == "OutOfMemoryError"


def is_unknown_to_mps(error: Exception) -> bool:
    """Whether torch lacks an operator, or a type, on Apple's GPU."""
    return isinstance(error, NotImplementedError | TypeError) and "MPS" in str(error)


@contextlib.contextmanager
def going_on(failed: list[str], item: object) -> Iterator[None]:
    """Do one of several items: a mistake in it is told at once, kept in `failed`, and the next item follows."""
    try:
        yield
    except Exception as error:
        if not is_users_error(error):
            raise
        failed.append(str(item))
        warn(f"Error: {describe_error(error)}")


def require_all(failed: list[str], total: int) -> None:
    """Exit code 1 where an item failed; several are counted."""
    if failed and total > 1:
        names = [name if len(name) <= LONGEST_NAME else f"{name[:40]}..." for name in failed[:10]]
        raise Refusal(f"{len(failed)} of {total} failed: {visible(', '.join(names), keep='')}")
    if failed:
        raise SystemExit(1)


def without_traceback(command: Command) -> Command:
    """Turn the library's errors, which say what to do, into a message without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except (KeyboardInterrupt, click.Abort) as error:
            raise stopped(str(error)) from error
        except Exception as error:
            if not is_users_error(error):
                raise
            raise Refusal(describe_error(error)) from error

    return wrapped


class Group(click.Group):
    """A group whose errors are plain, and whose help lists its commands under headings, in the order of the data."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.groups = groups or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.groups.values() for name in names] or list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        room = formatter.width - 6 - max(map(len, self.commands))
        for title, names in (self.groups or {"Commands": self.list_commands(ctx)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(room)) for name in names])

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        assert cmd.callback is not None
        cmd.callback = without_traceback(cmd.callback)
        super().add_command(cmd, name)
