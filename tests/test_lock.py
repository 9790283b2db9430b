"""One run in a folder at a time, however its holder ends."""

import os
import signal
import subprocess
import sys

import pytest

from dptmat.errors import UserError
from dptmat.training.lock import locked

HOLD = """
import sys, time
from dptmat.training.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        message = f"`out` .*run is in use by process {holder.pid} on .*; wait until that run has ended"
        with pytest.raises(UserError, match=message), locked(tmp_path / "run"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with locked(tmp_path / "run"):
            pass
    finally:
        holder.kill()
        holder.stdout.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="`out` .*file/run cannot be written: Not a directory"),
        locked(tmp_path / "file/run"),
    ):
        pass
