"""Signals that ask a run to stop: noted, so that the step under way is finished and its result saved."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# What Slurm sends before it takes a machine, a closed terminal, and Ctrl-C. Windows has but the first and the last.
_ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name)]


class Signals:
    """Context in which SIGTERM, SIGUSR1, SIGHUP and the first SIGINT are noted; a second SIGINT interrupts immediately.

    A signal that is ignored, as SIGHUP under nohup, stays so.

    Python leaves signals to the main thread: in another one, nothing is noted.

    Attributes:
        requested: Name of the last signal that asked the run to stop, "" before there was one.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in _ASKING if signal.getsignal(number) != signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(2, b"stopping after this step; once more to stop immediately\n")  # logging is not reentrant
