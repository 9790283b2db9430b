"""Checkpoints: whole or not there at all, the newest kept, foreign files refused."""

import os

import pytest
import torch

from dptmat import checkpoint
from dptmat.errors import UserError

STATE = {
    "model": {"w": torch.arange(5.0)},
    "optimizer": {"state": {}},
    "scaler": {},
    "step": 3,
    "config": {"seed": 2**64 - 1},
    "micro_batch": 4,
    "photographs": {"count": 9, "digest": "0"},
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


def test_a_full_disk_is_named(tmp_path):
    """/dev/full takes what is opened and refuses what is written, as a full disk does."""
    (tmp_path / "step-000000001.pt.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot be written: .*No space left"):
        checkpoint.save(tmp_path, 1, {**STATE, "model": {"w": torch.zeros(10**6)}}, keep=1)


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
        (lambda path: path.write_bytes(b"not a checkpoint"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: torch.save({"state_dict": {}, "iter": 3}, path), "has no config, micro_batch, model"),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "cannot be read"),  # pickled code is never run
        (lambda path: torch.save([1, 2], path), "has no config"),
        (lambda path: None, "cannot be read"),
    ],
    ids=["text", "empty", "official", "pickled module", "list", "missing"],
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
