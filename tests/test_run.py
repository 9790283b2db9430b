"""The loop of a run: what it reports and saves, when it stops, and that nothing bad gets into the state it leaves."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import batch_of, make_normalized, make_trainer, spoil, state_of

from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.training import distributed
from dptmat.training.averages import Averages
from dptmat.training.run import Run


class Notes:
    """Notes what a run hands to one of its parts."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))


class Loop(Run):
    """A run on batches in memory, whose log and checkpoints are noted."""

    def __init__(self, trainer, batches, steps, start=0, **settings):
        self.task = SimpleNamespace(steps=steps, micro_batch=2, sampler=Sampler(0, 2 * steps, 2))
        self.settings = SimpleNamespace(**{"save_every": 100, "log_every": 2, "max_nonfinite": 10, **settings})
        self.process = distributed.single_process("cpu")
        self.trainer, self.batches, self.averages = trainer, iter(batches), Averages(start)
        self.done = self._saved = start
        self.stop_reason, self.owes_validation = "", False
        self.data_wait = SimpleNamespace(seconds=0.0, host_seconds=0.0)
        self.bottleneck = SimpleNamespace(look=lambda step, waited: "")
        self.log, self.saves, self.out = Notes(), [], Path()
        self.checkpoints = SimpleNamespace(pending=False)

    def poll(self):
        return "asked" if self.done == getattr(self, "asked_at", None) else ""

    def validate(self):
        self.saves.append(("validated", self.done))

    def save(self):
        self.saves.append((self.stop_reason, self.done))
        self._saved = self.done

    def loop(self):
        """Do the loop alone: reports by step, and what was skipped."""
        self.train()
        reports = {call[1]: call[2] for call in self.log.calls if call[0] == "report"}
        return reports, {call[1]: call[2] for call in self.log.calls if call[0] == "skipped"}


def test_the_loop_reports_means_and_saves_at_the_end():
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(5)]
    # the weights stay, so that every step's loss can be computed apart
    expected = [make_trainer(lr=0.0).step(0, iter([batch]))[0]["loss"].item() for batch in batches]
    run = Loop(make_trainer(lr=0.0), batches[1:], 5, start=1, log_every=4, save_every=3)
    reports, _ = run.loop()
    assert list(reports) == [3, 4, 5]
    losses = [scalars["loss"] for scalars in reports.values()]
    assert losses == pytest.approx([sum(expected[1:3]) / 2, *expected[3:]], rel=1e-6)
    assert run.saves == [("", 1), ("validated", 3), ("", 3), ("validated", 5), ("", 5)]


def run_with(bad, trainer=None, steps=8, **settings):
    """A run on batches of which those of the steps ``bad`` are spoilt."""
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(steps)]
    for step in bad:
        spoil(batches[step], "input")
    return Loop(trainer or make_normalized(), batches, steps, **settings)


def test_skipped_steps_are_named_and_do_not_count_in_the_mean():
    run = run_with(bad=[1, 4, 5])
    reports, skipped = run.loop()
    assert list(reports) == [2, 4, 6, 8]
    assert skipped == {2: [2, 3], 5: [8, 9], 6: [10, 11]}  # by the steps done then; the ids of their samples
    assert reports[2]["loss"] == make_normalized().step(0, iter([batch_of([0, 1])]))[0]["loss"].item()
    assert math.isnan(reports[6]["loss"])
    assert run.saves == [("validated", 0), ("validated", 8), ("", 8)]


def test_too_many_in_a_row_stop_the_run_with_the_last_good_state():
    expected = make_normalized()
    for step in range(3):
        expected.step(step, iter([batch_of([2 * step, 2 * step + 1])]))
    run = run_with(bad=[3, 4, 5], max_nonfinite=3)
    with pytest.raises(UserError, match="3 steps in a row up to step 6 had a loss or a gradient that is not finite"):
        run.loop()
    assert all(map(torch.equal, state_of(run.trainer), state_of(expected)))
    assert [step for _, step in run.saves] == [0, 6]
    run_with(bad=[2, 3, 5, 6], max_nonfinite=3).loop()  # not in a row


def test_a_reason_to_stop_ends_the_loop_after_a_save():
    run = run_with(bad=[])
    run.asked_at = 3
    reports, _ = run.loop()
    assert run.saves == [("validated", 0), ("asked", 3)]
    assert list(reports) == [2, 3]


ERRORS = [
    UserError("no file can be read"), RuntimeError("CUDA error"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    StopIteration(), IndexError("x"), MemoryError(), OSError(5, "Input/output error"), torch.OutOfMemoryError("full"),
    AssertionError(), KeyError("x"), TypeError("x"), ZeroDivisionError("x"),
]  # fmt: skip


class Failing:
    """Batches of which one raises an error."""

    def __init__(self, good, error):
        self.left, self.error = list(good), error

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise self.error
        return self.left.pop(0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("seam", ["loader", "log", "validation", "poll", "averages"])
def test_whatever_ends_a_run_saves_what_was_reached_before(error, seam, monkeypatch):
    expected = make_normalized()
    expected.step(0, iter([batch_of([0, 1])]))
    run = Loop(make_normalized(), Failing([batch_of([0, 1])], error), 8, log_every=1, save_every=1)

    def fail(*_):
        raise error

    if seam == "log":
        run.log = SimpleNamespace(report=fail)
    elif seam == "poll":
        run.poll = fail
    elif seam == "averages":
        run.averages.read = fail
    elif seam == "validation":
        run.validate = lambda: fail() if run.done else None
    with pytest.raises(type(error)):
        run.loop()
    assert run.saves[-1][1] == 1
    assert all(map(torch.equal, state_of(run.trainer), state_of(expected)))


def test_an_error_amid_the_update_saves_nothing(monkeypatch):
    run = Loop(make_normalized(), [batch_of([0, 1]), batch_of([2, 3])], 8)
    step = run.trainer.optimizer.step

    def half(*_, **__):
        step()
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(run.trainer.optimizer, "step", half)
    with pytest.raises(RuntimeError):
        run.loop()
    assert run.saves == [("validated", 0)]


def test_a_step_that_fails_saves_what_was_reached_before():
    def batches():
        yield batch_of([0, 1])
        raise UserError("no file can be read any more")

    run = Loop(make_normalized(), batches(), 8)
    with pytest.raises(UserError, match="no file can be read"):
        run.loop()
    assert run.saves == [("validated", 0), ("no file can be read any more", 1)]
    late = batches()
    next(late)
    run = Loop(make_normalized(), late, 8, start=4)
    with pytest.raises(UserError):
        run.loop()
    assert run.saves == [("", 4)]  # as it began; nothing is newer
