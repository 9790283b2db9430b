"""Files survive a kill and a full disk: whole or as before, and lines wait for room."""

import errno
import logging
import os
import subprocess
import sys

import pytest

from dptmat.files import Journal, cause, write_whole


def test_a_file_is_made_and_replaced(tmp_path):
    for content in (b"first", b"2"):
        write_whole(tmp_path / "a.bin", lambda file, content=content: file.write(content))
        assert (tmp_path / "a.bin").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.bin", fail)
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_kill_leaves_the_old_content(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    code = """
import os, signal, sys
from dptmat.files import write_whole
def write(file):
    file.write(b"new" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_whole(sys.argv[1], write)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    write_whole(tmp_path / "a.bin", lambda file: file.write(b"again"))  # what the kill has left is in nobody's way
    assert (tmp_path / "a.bin").read_bytes() == b"again"
    (left,) = tmp_path.glob("a.bin.*.part")
    assert left.stat().st_size == 300_000


def test_a_full_disk_is_what_the_error_says(tmp_path):
    def write(file):
        with open("/dev/full", "wb") as full:
            full.write(b"x" * 100_000)

    with pytest.raises(OSError, match="No space left") as raised:
        write_whole(tmp_path / "a.bin", write)
    assert cause(raised.value).errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_the_cause_is_found_behind_the_error_of_a_library():
    def fail():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")  # what torch.save says of it

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert cause(raised.value).errno == errno.ENOSPC
    alone = RuntimeError("alone")
    assert cause(alone) is alone


def test_a_journal_goes_on_where_it_ended(tmp_path):
    for line in ("one", "two \udcff"):  # a name of a file that is no text
        journal = Journal(tmp_path / "log.txt")
        journal.add(line)
        journal.close()
    assert (tmp_path / "log.txt").read_bytes() == b"one\ntwo \xff\n"


def test_lines_wait_for_room_and_that_is_said_once(tmp_path, monkeypatch, caplog):
    journal, path, write, room = Journal(tmp_path / "log.txt"), tmp_path / "log.txt", os.write, [0]

    def write_what_fits(descriptor, content):
        if descriptor != journal._descriptor:
            return write(descriptor, content)
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_what_fits)
    with caplog.at_level(logging.WARNING, "dptmat"):
        for line in ("one", "two", "three"):
            journal.add(line)
        assert path.read_text() == ""
        room[0] = 6  # a line and a part of the next
        journal.add("four")
        assert path.read_text() == "one\ntw"
        room[0] = 100
        journal.add("five")
    assert path.read_text() == "one\ntwo\nthree\nfour\nfive\n"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} cannot be written: No space left on device; its lines wait for room"
    ]
    room[0] = 0
    journal.add("six")
    assert len(caplog.records) == 2  # a second lack of room is said again
    journal.close()
