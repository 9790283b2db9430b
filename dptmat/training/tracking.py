"""The curves of a run for Weights & Biases or Trackio, beside TensorBoard's: sent by a process of its own.

Whatever becomes of that process (no network, a full disk, a kill), training does not wait for it and does not end.
"""

import contextlib
import importlib.util
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dptmat.errors import UserError

_logger = logging.getLogger(__name__)

_BEGINS = 60.0  # seconds that training waits for the process to begin
_ENDS = 15.0  # seconds that the end of the run waits for it; it gives up sending before
_MOST_WAITING = 1 << 26  # bytes of numbers that it has not taken yet


def require_installed(kind: str) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        UserError: It is.
    """
    if kind != "none" and importlib.util.find_spec(kind) is None:
        raise UserError(f"`track` {kind} needs the package {kind}; install it: pip install 'dptmat[{kind}]'")


def _start(kind: str, out: str) -> subprocess.Popen:
    """Start the process; it imports what this one can, and Ctrl-C is not for it."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "dptmat.training.tracking_process", kind, out],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip


class Tracker:
    """A tracked run.

    Args:
        kind: "wandb" or "trackio".
        out: Output folder of the run, whose name the tracked run has, and which what is written lies in.
        settings: Those of the run, plain values by name.
        start: Steps done before: a run that goes on goes on in the same tracked run.
    """

    def __init__(self, kind: str, out: str | Path, settings: Mapping[str, Any], start: int) -> None:
        self._kind, self._waiting, self._said = kind, b"", b""
        self._process: subprocess.Popen | None = None
        try:
            self._process = process = _start(kind, os.path.abspath(out))
        except OSError as error:
            _logger.warning("%s cannot be started: %s; the run goes on without it", kind, error.strerror)
            return
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        self._input, self._output = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        # Names of files need not be valid text.
        plain = {k: v.encode(errors="replace").decode() if isinstance(v, str) else v for k, v in settings.items()}
        self._send({"settings": plain, "start": start})
        if not select.select([self._output], [], [], _BEGINS)[0]:
            _logger.warning("%s has not begun within %.0f s; training does not wait for it", kind, _BEGINS)
        self._hear()

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Hand over the numbers of a step, without waiting."""
        if numbers:
            self._send({"step": step, "numbers": dict(numbers)})
            self._hear()

    def close(self) -> None:
        """Let the process send what is left, for some seconds."""
        deadline = time.monotonic() + _ENDS
        self._send({"end": True})
        while self._process and self._waiting and time.monotonic() < deadline:
            select.select([], [self._input], [], deadline - time.monotonic())
            self._write()
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(deadline - time.monotonic(), 1))
        self._hear()
        if self._process and self._process.poll() is None:
            self._give_up(f"it does not end within {_ENDS:.0f} s")
        self._drop()

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None:
            return
        self._waiting += json.dumps(message).encode() + b"\n"
        self._write()
        if len(self._waiting) > _MOST_WAITING:
            self._give_up("it takes no more numbers")

    def _write(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._input, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self._hear()  # its reason, if it has told one
            self._give_up("its process has ended")

    def _hear(self) -> None:
        """Say what the process tells, a sentence a line; an empty one says that it has begun."""
        while self._process is not None:
            try:
                piece = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            if not piece:
                if self._process.poll() or not self._process.stdin or not self._process.stdin.closed:
                    self._give_up("its process has ended")
                return
            *lines, self._said = (self._said + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"!"):
                    self._give_up(line[1:].decode(errors="replace"))
                elif line:
                    _logger.warning("%s: %s", self._kind, line.decode(errors="replace"))

    def _give_up(self, reason: str) -> None:
        if self._process is not None:
            _logger.warning("%s: %s; the run goes on without it", self._kind, reason)
            self._drop()

    def _drop(self) -> None:
        if (process := self._process) is not None:
            self._process, self._waiting = None, b""
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
