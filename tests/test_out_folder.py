"""The output folder of a run: nothing planted in it is followed, and a run notices that it has lost it."""

import errno
import json
import os
import stat
import subprocess

import pytest
import torch

from dptmat import files
from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.files import Journal, refusal_to_write
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training.lock import Place, locked
from dptmat.training.log import RunLog
from dptmat.training.trainer import Trainer

SMALL = {"size": 64, "batch_size": 4, "model": "unet_resnet10t", "log_every": 1, "save_every": 2, "device": "cpu"}
MADE = (".lock", ".lock-holder", "config.toml", "log.jsonl", "files.txt", "preview.png", "predictions.png")


def run(data, out, **options):
    return pretrain(PretrainConfig(data=str(data), out=str(out), **{**SMALL, **options}))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["there", "dangling"])
def test_no_link_in_the_folder_is_followed(photographs, tmp_path, target):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    for name in (*MADE, "quarantine.txt", "checkpoints/step-000000001.pt"):
        link = tmp_path / "run" / name
        path = tmp_path / "mine" / link.name
        if name not in ("config.toml", "quarantine.txt") and target == "there":
            path.write_text("precious")
        if name != "config.toml" or target == "dangling":  # one that is there is another run
            link.symlink_to(path)
    run(photographs, tmp_path / "run", steps=1)
    left = {path.name: path.read_text() for path in (tmp_path / "mine").iterdir()}
    assert set(left.values()) <= {"precious"}
    assert len(left) == (0 if target == "dangling" else len(MADE))
    for name in set(MADE) - {".lock", ".lock-holder"}:
        assert (tmp_path / "run" / name).is_file()
        assert not (tmp_path / "run" / name).is_symlink()


def test_the_names_of_event_files_cannot_be_known_before(tmp_path):
    names = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        RunLog(tmp_path / name, 1, 1, start=0, writes=True).close()
        (path,) = (tmp_path / name / "tensorboard").iterdir()
        names.append(path.name)
    ends = {name.rpartition(".")[2] for name in names}
    assert len(ends) == 2
    assert all(len(end) == 8 for end in ends)


def test_a_journal_follows_no_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "log").symlink_to("mine")
    journal = Journal(tmp_path / "log")
    journal.add("line")
    journal.close()
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "log").read_text() == "line\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is there and is no file: .*pipe"):
        Journal(tmp_path / "pipe")


def test_lines_that_are_none_of_a_log_are_left_out_and_said(tmp_path, said):
    lines = ["not json", "[1]", "[" * 100_000, '{"step": "x"}', '{"step": null}', '{"step": 1, "loss": 2}', "\0", "3"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    RunLog(tmp_path, 9, 1, start=1, writes=True).close()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [{"step": 1, "loss": 2}]
    assert said().count("7 lines that are not of a training's log are left out") == 1


def replaced(folder):
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


def linked_elsewhere(folder):
    folder.rename(folder.with_name("moved"))
    folder.with_name("other").mkdir()
    folder.symlink_to("other")


def copied(folder):
    subprocess.run(["cp", "-a", folder, folder.with_name("copy")], check=True)
    folder.rename(folder.with_name("moved"))
    folder.with_name("copy").rename(folder)


def deleted(folder):
    subprocess.run(["rm", "-r", folder], check=True)


def deleted_and_made(folder):
    deleted(folder)
    folder.mkdir()


def a_file_now(folder):
    deleted(folder)
    folder.write_text("")


def locked_by_another(folder):
    (folder / ".lock").unlink()
    (folder / ".lock").touch()


WAYS = [
    (replaced, "is another folder now", "moved"), (linked_elsewhere, "is another folder now", "moved"),
    (copied, "is another folder now", "moved"), (deleted, "is gone", "run"),
    (deleted_and_made, "is another folder now", "run.*"), (a_file_now, "is another folder now", "run.*"),
    (locked_by_another, "was taken by another run", "run.*"),
]  # fmt: skip


@pytest.mark.parametrize(("happen", "loss", "refuge"), WAYS)
def test_a_folder_that_is_lost_is_noticed_and_another_found(tmp_path, happen, loss, refuge):
    with locked(tmp_path / "run"):
        place = Place(tmp_path / "run")
        (tmp_path / "run/checkpoints").mkdir()
        assert place.loss() == ""
        keep = os.open(tmp_path / "run/.lock", os.O_RDONLY)  # so that its number is not used again
        happen(tmp_path / "run")
        assert place.loss() == loss
        found = place.refuge()
        assert found.match(refuge)
        assert found.parent == tmp_path
        os.close(keep)


def test_a_folder_under_another_name_that_leads_to_it_is_not_lost(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    place = Place("run")
    (tmp_path / "run").unlink()
    (tmp_path / "real").rename("moved")
    (tmp_path / "run").symlink_to("moved")
    assert place.loss() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("happen", "loss", "refuge"), [
    WAYS[0], *(pytest.param(*way, marks=pytest.mark.exhaustive) for way in (WAYS[3], WAYS[4], WAYS[6])),
])  # fmt: skip
def test_a_run_that_loses_its_folder_saves_its_state_and_ends(
    photographs, tmp_path, monkeypatch, said, happen, loss, refuge
):
    step = Trainer.step

    def losing(self, at, batches):
        if at == 2:
            happen(tmp_path / "run")
        return step(self, at, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", losing)
        with pytest.raises(UserError, match=f"`out` .*run {loss}, so the run ends; what was reached is in ") as ended:
            run(photographs, tmp_path / "run", steps=6)
    assert "saved" not in said()
    path = next(path for path in tmp_path.glob(f"{refuge}/checkpoints/step-000000004.pt"))
    assert str(ended.value).endswith(str(path))
    if loss == "is another folder now":
        assert not list((tmp_path / "run").iterdir())
    last = run(photographs, path.parent.parent, steps=6, resume="auto")
    whole = run(photographs, tmp_path / "whole", steps=6)
    a, b = checkpoint.load(last)["model"], checkpoint.load(whole)["model"]
    assert all(torch.equal(a[key], value) for key, value in b.items())


COMMANDS = [
    ["index", "--data", "{photos}", "--out", "{out}"],
    ["preview", "--data", "{photos}", "--out", "{out}", "--device", "cpu"],
    ["report", "--run", "{tmp}", "--out", "{out}"],
    *(["convert", "--to", form, "{tmp}/no.pt", "{out}"] for form in ("dptmat", "timm", "onnx")),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words[:3]))
def test_an_output_that_cannot_be_written_is_noticed_before_the_work(dptmat, photographs, tmp_path, monkeypatch, words):
    """Some of what is read does not even exist. Root may write anywhere, so that the system is told what to say."""
    (tmp_path / "place").mkdir()
    out = tmp_path / "place/page.html"
    words = [word.format(photos=photographs, tmp=tmp_path, out=out) for word in words]
    access, opened = os.access, os.open
    for reason in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        with monkeypatch.context() as patched:
            if reason == errno.EACCES:
                patched.setattr(files.os, "access", lambda path, mode, **_: path != out.parent and access(path, mode))
            else:

                def full(path, flags, *rest, reason=reason, **named):
                    if path == out.parent:
                        raise OSError(reason, os.strerror(reason))
                    return opened(path, flags, *rest, **named)

                patched.setattr(files.os, "open", full)
            status, output, error = dptmat(*words)
        assert (status, output) == (2, "")
        assert f"{out} cannot be written: {os.strerror(reason)}; give a place" in error
        assert error.count("\n") == 1
        assert not list((tmp_path / "place").iterdir())


def test_to_ask_whether_a_file_can_be_written_makes_and_changes_nothing(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dangling").symlink_to("none")
    os.mkfifo(tmp_path / "pipe")
    before = {path.name: (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in tmp_path.iterdir()}
    for name in ("old", "link", "dangling", "pipe", "new"):
        assert refusal_to_write(tmp_path / name) == ""
    assert refusal_to_write("/dev/null") == ""
    assert {path.name: (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in tmp_path.iterdir()} == before
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["page", "page.xyz", "page.txt"])
def test_a_preview_is_a_picture_by_its_name(dptmat, photographs, tmp_path, name):
    status, _, error = dptmat("preview", "--data", photographs, "--out", tmp_path / name)
    assert status == 2
    assert "is not the name of an image that OpenCV writes; use one that ends in .png" in error
