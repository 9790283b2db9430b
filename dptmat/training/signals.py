"""Signals that ask a run to stop: noted, so that the step under way is finished and its result saved."""

import os
import signal
import threading

_ASKING = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT  # the first two: what Slurm sends before it takes a machine


class Signals:
    """Context in which SIGTERM, SIGUSR1 and the first SIGINT are noted; a second SIGINT interrupts at once.

    Python leaves signals to the main thread: in another one, nothing is noted.

    Attributes:
        asked: Name of the last signal that asked the run to stop, "" before there was one.
    """

    def __init__(self):
        self.asked, self._former = "", {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in _ASKING}
        return self

    def __exit__(self, *_):
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.asked = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(2, b"stopping after this step; once more to stop at once\n")  # print() is not reentrant
