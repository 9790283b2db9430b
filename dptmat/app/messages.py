"""What the page says: errors that a person can mend in one line, and what the library warns of."""

import html
import logging
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from dptmat.errors import UserError, first_line

_logger = logging.getLogger(__name__)


class Messages:
    """Messages for a person at the page, who knows the names of files, and not the folder that they were put into.

    Args:
        folder: The temporary folder of the page.
    """

    def __init__(self, folder: str) -> None:
        self._folders = re.compile(re.escape(folder) + r"[/\\](?:[^/\\]+[/\\])*")

    def plain(self, message: object) -> str:
        """Word a message of the library for the page, where a name cannot be more than text."""
        text = self._folders.sub("", str(message))
        return html.escape(re.sub(r"`(\w+)`", r"--\1", text))

    def refuse(self, error: Exception) -> None:
        """Say what did not work; what is our own fault goes to the terminal as well."""
        told = self.plain(error)
        if isinstance(error, MemoryError):
            told = "The memory does not suffice for a photograph of this size; make it smaller."
        elif not isinstance(error, UserError):
            _logger.error("".join(traceback.format_exception(error)))
            told = f"Something went wrong ({self.plain(first_line(error))}); the terminal says where."
        gr.Warning(told, title="That did not work", duration=20)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Say what the library warns of meanwhile."""
        warnings, logger = _Warnings(), logging.getLogger("dptmat")
        logger.addHandler(warnings)
        try:
            yield
        finally:
            logger.removeHandler(warnings)
            for line in warnings.lines:
                gr.Info(self.plain(line), title="Note", duration=20)


class _Warnings(logging.Handler):
    """Keeps the warnings of this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())
