"""A run outlives what happens to it: signals, full disks, vanished files, numbers that go wrong, a killed process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from options import as_words

from dptmat import files
from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.tasks import pretrain as task
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training import log as progress
from dptmat.training.lock import locked
from dptmat.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("freed")

SMALL = {"size": 64, "batch_size": 4, "model": "unet_resnet10t", "log_every": 1, "steps": 6, "save_every": 2, "keep": 9}


def run(data, out, **options):
    return pretrain(PretrainConfig(data=str(data), out=str(out), device="cpu", **{**SMALL, **options}))


def losses(out):
    """Loss of every step in the log."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def assert_same_bits(path, other):
    a, b = checkpoint.load(path), checkpoint.load(other)
    assert a["step"] == b["step"]
    assert all(torch.equal(value, b["model"][key]) for key, value in a["model"].items())
    for key, state in a["optimizer"]["state"].items():
        assert all(torch.equal(value, b["optimizer"]["state"][key][name]) for name, value in state.items())


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    """Last checkpoint of a run to which nothing happened."""
    return run(photographs, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def some(photographs, tmp_path):
    """Folder of 24 photographs that a test may damage."""
    (tmp_path / "data").mkdir()
    for path in sorted(photographs.iterdir())[:24]:
        shutil.copy(path, tmp_path / "data")
    return tmp_path / "data"


def at_step(monkeypatch, number, act):
    """Call ``act`` in the middle of a step, each time it comes."""
    step = Trainer.step

    def acting(self, at, batches):
        if at == number:
            act()
        return step(self, at, batches)

    monkeypatch.setattr(Trainer, "step", acting)


@pytest.mark.slow
@pytest.mark.parametrize("number", [
    signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.exhaustive) for other in (signal.SIGUSR1, signal.SIGINT)),
])  # fmt: skip
def test_a_signal_saves_the_step_under_way_and_says_how_to_go_on(
    photographs, tmp_path, monkeypatch, said, whole, number
):
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        at_step(patched, 2, lambda: os.kill(os.getpid(), number))
        last = run(photographs, tmp_path / "run")
    assert last.name == "step-000000003.pt"
    assert f"{number.name} asked to stop: saved {last} after step 3 of 6; go on by `resume` auto" in said()
    assert signal.getsignal(number) == before
    assert_same_bits(run(photographs, tmp_path / "run", resume="auto"), whole)
    assert losses(tmp_path / "run") == losses(whole.parent.parent)


@pytest.mark.slow
def test_the_second_interrupt_ends_at_once(photographs, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run/checkpoints").name == "step-000000002.pt"


@pytest.mark.slow
def test_a_truncated_newest_checkpoint_is_passed_over(photographs, tmp_path, said, whole):
    shutil.copytree(whole.parent.parent, tmp_path / "run")
    newest = checkpoint.latest(tmp_path / "run/checkpoints")
    os.truncate(newest, newest.stat().st_size // 2)
    (newest.parent / "step-000000007.pt.part").write_bytes(b"half")
    assert_same_bits(run(photographs, tmp_path / "run", resume="auto"), whole)
    printed = said()
    assert "step-000000006.pt cannot be read" in printed
    assert "going on from step-000000004.pt instead" in printed
    assert not list(newest.parent.glob("*.part"))


@pytest.mark.slow
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(photographs, tmp_path, monkeypatch, said, whole):
    """Nothing can be written from step 3 to 5: neither checkpoint, nor log, nor TensorBoard's curves."""
    full, write = [False], os.write

    def opened(path, mode):
        return open("/dev/full", "wb") if full[0] else open(path, mode)

    def written(descriptor, content):
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    def curve(*_):
        if full[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "open", opened, raising=False)
    monkeypatch.setattr(files.os, "write", written)
    monkeypatch.setattr(progress.SummaryWriter, "add_scalar", curve)
    at_step(monkeypatch, 2, lambda: full.__setitem__(0, True))
    at_step(monkeypatch, 5, lambda: full.__setitem__(0, False))
    last = run(photographs, tmp_path / "run")
    assert_same_bits(last, whole)
    assert sorted(path.name for path in last.parent.iterdir()) == ["step-000000002.pt", "step-000000006.pt"]
    assert losses(tmp_path / "run") == losses(whole.parent.parent)  # the lines have waited
    printed = said()
    assert "step-000000004.pt cannot be written: [Errno 28] No space left on device; make room" in printed
    assert "the last good one is step-000000002.pt" in printed
    assert printed.count("log.jsonl cannot be written: No space left on device") == 1
    assert printed.count("tensorboard/ cannot be written") == 1


def test_two_runs_in_one_folder_are_refused(photographs, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"in use by process {os.getpid()} on .*; wait until"):
        run(photographs, tmp_path / "run")
    assert run(photographs, tmp_path / "run", steps=1).exists()


def test_an_out_that_cannot_be_written_is_refused_in_one_line(photographs, dptmat):
    status, _, error = dptmat("pretrain", "--data", photographs, "--out", "/proc/run")
    assert status == 2
    assert error.startswith("dptmat: --out /proc/run cannot be written: ")
    assert error.count("\n") == 1


def images_of_steps(data, first, last):
    """Paths that the steps first..last show, in order."""
    from dptmat.data.index import ImageIndex
    from dptmat.data.sampler import Sampler

    index = ImageIndex.open(data)
    sampler = Sampler(0, len(index), SMALL["batch_size"])
    return [Path(index[i]) for step in range(first, last + 1) for i in sampler.images_of(sampler.ids(step))]


@pytest.mark.slow
def test_bad_files_are_listed_and_the_list_repeats_the_run(some, tmp_path, said):
    cut, gone = images_of_steps(some, 1, 1)[0], images_of_steps(some, 4, 4)[2]
    content = gone.read_bytes()
    os.truncate(cut, 700)
    gone.write_bytes(b"")
    first = run(some, tmp_path / "first", max_bad=0.2)
    lines = (tmp_path / "first/quarantine.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(cut), str(gone)]
    assert lines[1].endswith("\tthe file is empty")
    printed = said()
    assert f"left out: {gone}: the file is empty" in printed
    assert "2 of 24 photographs left out, listed in" in printed

    gone.write_bytes(content)  # the list decides, and not the file
    again = run(some, tmp_path / "again", quarantine=str(tmp_path / "first/quarantine.txt"), max_bad=0.2)
    assert_same_bits(again, first)
    assert "left out: " not in said()
    for step in (4, 6):
        checkpoint.path_of(first.parent, step).unlink()
    assert_same_bits(run(some, tmp_path / "first", resume="auto", max_bad=0.2), again)
    assert (tmp_path / "first/quarantine.txt").read_text().splitlines() == lines
    assert "left out: " not in said()


def test_bad_files_of_another_data_set_do_not_count(photographs, tmp_path):
    (tmp_path / "quarantine.txt").write_text("".join(f"/elsewhere/{i}.jpg\tis damaged\n" for i in range(5)))
    assert run(photographs, tmp_path / "run", steps=1, quarantine=str(tmp_path / "quarantine.txt")).exists()


@pytest.mark.slow
def test_a_run_goes_on_though_files_have_gone_and_others_have_come(some, tmp_path, monkeypatch, said):
    gone = images_of_steps(some, 4, 4)[2]
    content = gone.read_bytes()
    gone.unlink()
    gone.touch()
    expected = run(some, tmp_path / "whole")
    gone.write_bytes(content)
    with monkeypatch.context() as patched:
        at_step(patched, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(some, tmp_path / "run")
    shutil.copy(gone, some / "a_new_one.jpg")
    gone.unlink()
    assert_same_bits(run(some, tmp_path / "run", resume="auto"), expected)
    assert f"left out: {gone}: No such file or directory" in said()


@pytest.mark.slow
def test_more_bad_files_than_allowed_stop_the_run_with_a_checkpoint(some, tmp_path):
    for path in images_of_steps(some, 3, 3)[:2]:
        path.write_text("not a photograph\n" * 20)
    sentence = (
        r"2 of 24 photographs are bad, more than `max_bad` 0.01 of them.*step-000000004.pt holds what was reached"
    )
    with pytest.raises(UserError, match=sentence):
        run(some, tmp_path / "run")
    state = checkpoint.load(tmp_path / "run/checkpoints/step-000000004.pt")
    assert state["step"] == 4
    with pytest.raises(UserError, match="2 of 24 photographs are bad"):  # they still are
        run(some, tmp_path / "run", resume="auto")
    assert run(some, tmp_path / "run", resume="auto", max_bad=0.1).name == "step-000000006.pt"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_named_with_its_samples(photographs, tmp_path, monkeypatch, said, whole):
    synthesize_batch = task.synthesize_batch

    def spoilt(views, *rest):
        batch = synthesize_batch(views, *rest)
        if 14 in views.ids:
            batch.input[0, 0, 0, 0] = torch.nan
        return batch

    monkeypatch.setattr(task, "synthesize_batch", spoilt)
    last = run(photographs, tmp_path / "run", micro_batch=2)
    assert "step 4/6 left out: loss or gradient is not finite; samples 14, 15\n" in said()
    assert all(value.isfinite().all() for value in checkpoint.load(last)["model"].values())
    entries = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"step": 4, "skipped": [14, 15]} in entries
    assert [entry["loss"] is None for entry in entries if "loss" in entry] == [False] * 3 + [True] + [False] * 2


@pytest.mark.slow
def test_a_lack_of_gpu_memory_is_a_sentence_and_keeps_what_was_reached(photographs, tmp_path, monkeypatch):
    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    at_step(monkeypatch, 3, out_of_memory)
    with pytest.raises(
        UserError, match=r"does not hold 4 of the `batch_size` 4 samples; use `grad_checkpointing` or a `mi"
    ):
        run(photographs, tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run/checkpoints").name == "step-000000003.pt"


def test_synchronised_batch_norm_needs_gpus(photographs, tmp_path):
    with pytest.raises(UserError, match="`sync_bn` needs GPUs"):
        run(photographs, tmp_path / "run", sync_bn=True)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.exhaustive
def test_a_killed_process_is_started_again_and_a_signal_to_one_stops_all(photographs, tmp_path, monkeypatch):
    """Of two, the second is killed after step 3; when they have reached step 6 again, the first is asked to stop."""
    options = {"steps": 40, "micro_batch": 2, "clip": 0}
    with monkeypatch.context() as patched:
        at_step(patched, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(photographs, tmp_path / "one", **options)

    given = {**SMALL, **options, "resume": "auto", "data": photographs, "out": tmp_path / "two"}
    words = as_words(given)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    process = subprocess.Popen(
        [*torchrun, "-m", "dptmat", "pretrain", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    printed, killed = "", False
    for line in process.stdout:
        printed += line
        if line.startswith("step 3/") and not killed:
            killed = True
            os.kill(children(process.pid)[1], signal.SIGKILL)
        elif line.startswith("step 6/"):
            os.kill(children(process.pid)[0], signal.SIGTERM)
    assert process.wait() == 0
    assert re.search("going on after step [3-5]$", printed, re.MULTILINE)  # the last whole step, and not the last save
    assert "asked to stop: saved" in printed
    assert 6 < checkpoint.load(checkpoint.latest(tmp_path / "two/checkpoints"))["step"] < 40
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    # Sums in another order differ in the last places, which Adam makes 0.2 % of the loss in six steps; other samples
    # make 5 %.
    assert [two[step] for step in range(1, 7)] == pytest.approx([one[step] for step in range(1, 7)], rel=1e-2)
