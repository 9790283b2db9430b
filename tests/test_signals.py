"""Signals that ask a run to stop are noted, and Python's own handlers come back."""

import os
import signal
import threading

import pytest

from dptmat.training.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_noted(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.requested == ""
        os.kill(os.getpid(), number)
        assert signals.requested == number.name
    assert signal.getsignal(number) == before


def test_the_second_interrupt_is_not_held_back():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_nothing_is_noted_and_nothing_breaks():
    seen = []

    def work():
        with Signals() as signals:
            seen.append(signals.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested == ""
    finally:
        signal.signal(signal.SIGHUP, before)
