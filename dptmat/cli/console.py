"""What a person sees: the log of the library, and standard streams that end nothing where they cannot be written."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click

from dptmat.cli.group import with_options


class Console(logging.Handler):
    """Shows what the library logs; a closed terminal ends nothing."""

    def __init__(self, command: click.Command, *, err: bool) -> None:
        super().__init__()
        self._command, self._err = command, err

    def emit(self, record: logging.LogRecord) -> None:
        line = escape(with_options(_in_one_line(record), self._command))
        if self._err and sys.stderr.isatty():
            line = f"\n{line}"  # below the line of a progress bar
        with contextlib.suppress(OSError, ValueError):
            click.echo(line, err=self._err)


def _in_one_line(record: logging.LogRecord) -> str:
    """Write what is logged; what it names may hold line breaks, which would look like lines of this library."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    names = (str(value).replace("\n", "\\n") if isinstance(value, str | Path) else value for value in record.args)
    return str(record.msg) % tuple(names) if record.args else str(record.msg)


def escape(text: str) -> str:
    """Show control characters, which names of files may hold to write over a terminal, as Python writes them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def show_log(*, err: bool) -> None:
    """Show what the library logs, from now on, on standard output or error; and not what Pillow warns of by itself."""
    warnings.filterwarnings("ignore", module="PIL")
    logger = logging.getLogger("dptmat")
    logger.handlers = [Console(click.get_current_context().command, err=err)]
    logger.setLevel(logging.INFO)


def tell_left_out(left_out: Iterable[tuple[str, str]]) -> None:
    """Name what was left out, on standard error: a line for each name and its reason."""
    command = click.get_current_context().command
    for name, reason in left_out:
        click.echo(escape(with_options(f"left out: {name}: {reason}", command)), err=True)


def tell_results(results: Iterable[tuple[str, str | None]], total: int, out: str, called: str) -> None:
    """Show the progress of files that are written one by one, name those left out, and end with 1, or 2 if all are.

    Args:
        results: (name, None), or (name, reason) of one that is left out.
        total: How many there will be.
        out: Where they are written to.
        called: What they are, in the plural.
    """
    with click.progressbar(results, length=total, file=sys.stderr) as bar:
        left_out = [(name, reason) for name, reason in bar if reason]
    tell_left_out(left_out)
    click.echo(f"{out}: {total - len(left_out)} {called}, {len(left_out)} left out")
    if left_out:
        click.get_current_context().exit(2 if len(left_out) == total else 1)


class Tolerant:
    """Standard error, which is for people: where it cannot be written, nothing else fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Let standard output and error be there, even where the shell has closed them, and take names of any bytes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # before any other file takes its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lives
        getattr(sys, name).reconfigure(errors="backslashreplace")
    sys.stderr = Tolerant(sys.stderr)


def give_up_unless_flushed(stream: TextIO) -> None:
    """Drop what cannot be written, which Python would complain of at its end by a status of its own."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
