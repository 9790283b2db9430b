"""Checkpoints: whole or not there at all, the newest kept, foreign files refused."""

import os

import pytest
import torch

from dptmat import files
from dptmat.errors import UserError
from dptmat.training import checkpoint

STATE = {
    "model": {"w": torch.arange(5.0)},
    "optimizer": {"state": {}},
    "scaler": {},
    "running_norm": torch.zeros(()),
    "step": 3,
    "config": {"seed": 2**64 - 1},
    "micro_batch": 4,
    "data_fingerprint": {"count": 9, "digest": "0"},
}


def test_what_was_saved_is_loaded(tmp_path):
    loaded = checkpoint.load(checkpoint.save(tmp_path / "new", 3, STATE, keep=1))
    assert torch.equal(loaded["model"]["w"], STATE["model"]["w"])
    assert loaded["config"] == STATE["config"]


def test_the_newest_are_kept(tmp_path):
    for step in (5, 10, 1000, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, STATE, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-099999999.pt", "step-100000000.pt"]
    assert checkpoint.latest(tmp_path).name == "step-100000000.pt"


def test_later_ones_can_be_dropped(tmp_path):
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, STATE, keep=9)
    checkpoint.drop_after(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000005.pt", "step-000000010.pt"]


def test_an_empty_folder_has_no_latest(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None


def test_a_write_that_breaks_off_leaves_the_older_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, STATE, keep=1)

    def half(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(UserError, match="step-000000002.pt cannot be written: .*No space left.*make room"):
        checkpoint.save(tmp_path, 2, STATE, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert checkpoint.load(checkpoint.latest(tmp_path))["step"] == 3


def fill_disk(monkeypatch, full=lambda: True):
    """/dev/full takes what is opened and refuses what is written, as a full disk does."""

    def opened(path, mode):
        return open("/dev/full", "wb") if full() else open(path, mode)

    monkeypatch.setattr(files, "open", opened, raising=False)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    fill_disk(monkeypatch)
    with pytest.raises(UserError, match="cannot be written: .*No space left"):
        checkpoint.save(tmp_path, 1, {**STATE, "model": {"w": torch.zeros(10**6)}}, keep=1)
    assert not list(tmp_path.iterdir())


def test_on_a_full_disk_older_ones_make_room_but_for_the_newest(tmp_path, monkeypatch, said):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, STATE, keep=3)
    fill_disk(monkeypatch, full=lambda: (tmp_path / "step-000000001.pt").exists())
    checkpoint.save(tmp_path, 4, STATE, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003.pt", "step-000000004.pt"]
    assert "the disk is full: deleted step-000000001.pt, step-000000002.pt to make room" in said()
    fill_disk(monkeypatch)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.save(tmp_path, 5, STATE, keep=3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004.pt"]


def test_a_failed_save_is_made_up_for_when_its_time_has_come(tmp_path, monkeypatch, said):
    checkpoints = checkpoint.Checkpoints(tmp_path, 2, lambda step: {**STATE, "step": step})
    checkpoints.save(1)
    checkpoints.save_if_due(2)
    assert len(list(tmp_path.iterdir())) == 1  # nothing had failed
    full, clock = [True], [1000.0]
    fill_disk(monkeypatch, full=lambda: full[0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    checkpoints.save(3)
    assert "No space left on device; make room" in said()
    full[0] = False
    checkpoints.save_if_due(4)
    assert not checkpoint.path_of(tmp_path, 4).exists()
    clock[0] += 61
    checkpoints.save_if_due(5)
    checkpoints.save_if_due(6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001.pt", "step-000000005.pt"]


def test_the_last_save_waits_for_room_but_not_for_ever(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(checkpoint.time, "sleep", waits.append)
    checkpoints = checkpoint.Checkpoints(tmp_path, 2, lambda step: STATE)
    fill_disk(monkeypatch, full=lambda: len(waits) < 3)
    assert checkpoints.save_at_last(7).exists()
    fill_disk(monkeypatch)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save_at_last(8)
    assert 10 < sum(waits) < 40
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000007.pt"]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-100], lambda content: content[:1000] + b"?" + content[1001:], lambda content: b""],
)
def test_where_the_newest_is_damaged_the_one_before_is_found(tmp_path, damage):
    """Truncated, a byte changed among the weights (which torch alone would load), and emptied."""
    large = {**STATE, "model": {"w": torch.arange(1000.0)}}
    first, second = (checkpoint.save(tmp_path, step, large, keep=2) for step in (1, 2))
    assert checkpoint.newest_whole(tmp_path)[0] == second
    second.write_bytes(damage(second.read_bytes()))
    path, state, sentences = checkpoint.newest_whole(tmp_path)
    assert path == first
    assert torch.equal(state["model"]["w"], large["model"]["w"])
    assert len(sentences) == 1
    assert "step-000000002.pt cannot be read" in sentences[0]
    first.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint in .* is whole"):
        checkpoint.newest_whole(tmp_path)
    assert checkpoint.newest_whole(tmp_path / "missing") == (None, None, [])


def test_what_a_kill_left_half_written_is_removed_with_the_next(tmp_path):
    (tmp_path / "step-000000001.pt.part").write_bytes(b"half of it")
    checkpoint.save(tmp_path, 2, STATE, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.pt"]


def test_the_name_appears_after_the_content_is_on_the_disk(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    checkpoint.save(tmp_path, 1, STATE, keep=1)
    assert events == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: path.write_bytes(b"not a checkpoint"), "cannot be read: it is text;"),
        (lambda path: path.write_bytes(b""), "cannot be read: it is empty;"),
        (
            lambda path: torch.save({"state_dict": {}, "iter": 3}, path),
            "has no config, data_fingerprint, micro",
        ),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "cannot be read"),  # pickled code is never run
        (lambda path: torch.save([1, 2], path), "holds a list"),
        (lambda path: None, "cannot be read"),
        (lambda path: path.mkdir(), "cannot be read: it is a folder"),
        (lambda path: torch.save({**STATE, "step": True}, path), "holds no number of steps"),
        (lambda path: torch.save({**STATE, "step": 10**30}, path), "holds no number of steps"),
        (lambda path: torch.save({**STATE, "micro_batch": [4]}, path), "holds no size of a micro-batch"),
        (lambda path: torch.save({**STATE, "config": {"seed": [0]}}, path), "holds no settings"),
        (
            lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
            "not in the format of PyTorch 1.6 and later",
        ),
    ],
    ids=[
        "text",
        "empty",
        "official",
        "pickled module",
        "list",
        "missing",
        "folder",
        "truth",
        "many steps",
        "micro-batches",
        "settings",
        "old format",
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "foreign.pt"
    content(path)
    with pytest.raises(UserError, match=f"foreign.pt .*{message}.* dptmat wrote"):
        checkpoint.load(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(path)
