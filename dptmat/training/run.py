"""A training run from its settings to its last checkpoint: what pre-training and fine-tuning have in common."""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dptmat.config.run import RunConfig
from dptmat.config.settings import to_toml
from dptmat.contact_sheets import predictions_sheet, write_sheet
from dptmat.errors import UserError, first_line
from dptmat.files import write_whole
from dptmat.training import checkpoint, distributed
from dptmat.training.averages import Averages
from dptmat.training.bottleneck import Bottleneck
from dptmat.training.build import make_loader, make_trainer
from dptmat.training.compile import cause_of_failure
from dptmat.training.data_wait import DataWait
from dptmat.training.distributed import Process
from dptmat.training.lock import Place, locked
from dptmat.training.log import LOG_FILE, RunLog
from dptmat.training.quarantine import QUARANTINE_FILE, open_quarantine
from dptmat.training.resume import FILES, list_begun_with, refuse_another_run, resume
from dptmat.training.signals import Signals
from dptmat.training.task import Task
from dptmat.training.tracking import Tracker, require_installed
from dptmat.weights.initialize import initialize

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def joined_processes(settings: RunConfig) -> Iterator[Process]:
    """Join the processes of a run, and hold its output folder for them.

    Raises:
        UserError: Another run has the folder, the processes do not meet, or one has gone.
    """
    graceful = False
    with contextlib.ExitStack() as held:
        process = distributed.start(settings.device)
        try:
            distributed.on_all_ranks(lambda: _take_folder(settings, held) if process.is_main else None)
            yield process
            graceful = True
        except RuntimeError as error:
            if not distributed.is_loss_of_another(error):
                raise
            raise UserError(
                "another process of this run has ended, and its message says why; so does this one"
            ) from error
        finally:
            distributed.shutdown(graceful)


def _take_folder(settings: RunConfig, held: contextlib.ExitStack) -> None:
    """Take the output folder for this run alone, and remove what a kill has left half written."""
    require_installed(settings.track)
    held.enter_context(locked(settings.out))
    refuse_another_run(settings)
    if settings.resume == "auto" and not list_begun_with(settings):  # of a try that ended before its first checkpoint
        (Path(settings.out) / QUARANTINE_FILE).unlink(missing_ok=True)
    for folder in (Path(settings.out), Path(settings.out) / "checkpoints"):
        checkpoint.remove_parts(folder)


class Run:
    """One training run.

    Writes into ``settings.out``: ``config.toml``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/``, ``preview.png``,
    ``predictions.png``, ``files.txt`` and, if files are bad, ``quarantine.txt``. SIGTERM, SIGUSR1, SIGHUP and SIGINT
    end the run after the step under way with a checkpoint of it.

    The methods are called by all processes together; the main one writes and speaks.

    Args:
        task: What is trained on what.
        settings: Of the run.
        process: This one among those of the run.
    """

    def __init__(self, task: Task, settings: RunConfig, process: Process) -> None:
        self.task, self.settings, self.process = task, settings, process
        self.out = Path(settings.out)
        self.stop_reason = ""  # why it ends before its last step
        self._failure = ""  # if that is nothing to go on from without a change
        self._signals, self._tally = Signals(), distributed.Tally()
        self._opened = contextlib.ExitStack()  # closed at the end of the run, whatever it is

    def run(self) -> Path:
        """Train from the start, or from where a checkpoint says, to the last step; return the last checkpoint's path.

        Raises:
            UserError, OSError: Something that the user can mend, in one sentence.
        """
        try:
            with self._opened:
                self.start()
                with self._signals:  # until here there is nothing to lose
                    self.train()
                return self.finish()
        except torch.OutOfMemoryError as error:
            raise UserError(self._out_of_memory()) from error
        except RuntimeError as error:
            cause = cause_of_failure(error) if self.settings.compile else None
            if cause is None:
                raise
            raise UserError(
                f"`compile` fails here: {first_line(cause)}; leave it out, or see that there is a C++ compiler, and on "
                "a GPU a Triton that knows it"
            ) from error

    def start(self) -> None:
        """Make the parts of the run, as they were where it goes on.

        Raises:
            UserError: It cannot begin or go on: the checkpoint, the weights, the quarantine or the data say why.
        """
        task, settings, process = self.task, self.settings, self.process
        self.trainer = make_trainer(task, settings, process)
        self.done, self.owes_validation = distributed.on_all_ranks(
            lambda: resume(task, self.trainer, settings, speaks=process.is_main)
        )
        self._saved = self.done
        self._require_same_everywhere()
        if process.is_main:
            going_on = f", going on after step {self.done}" if self.done else ""
            _logger.info(
                "%s, %s steps of %s on %s%s", task.summary, task.steps, settings.batch_size, process.device, going_on
            )
        if not self.done:
            initialize(self.trainer.model, settings.model, settings.init, settings.load)
        if process.is_main:
            self.place = Place(self.out)
            self._write_head()
        self.log = RunLog(
            self.out, task.steps, settings.batch_size, start=self.done, writes=process.is_main, tracker=self._track()
        )
        self.quarantine = distributed.on_all_ranks(
            lambda: open_quarantine(
                self.out, settings.quarantine, self.log.left_out, task.source, writes=process.is_main
            )
        )
        if process.is_main:
            write_sheet(self.out / "preview.png", task.preview(self.quarantine))
        loader = self._opened.enter_context(
            contextlib.closing(make_loader(task, settings, process, self.done, self.quarantine))
        )
        self.data_wait = DataWait(loader, process.device)
        self.batches = map(task.batch, self.data_wait)
        self.bottleneck = Bottleneck(loader, settings, process, task.micro_batch)
        self.averages = Averages(self.done)
        self.checkpoints = checkpoint.Checkpoints(self.out / "checkpoints", settings.keep, self._state)
        if failure := self.quarantine.too_many(task.source, settings.max_bad):
            raise UserError(failure)

    def train(self) -> None:
        """Do the steps, until the last one or until there is a reason to stop."""
        # At the start, what training improves on; and what is wrong with the validation's files shows immediately.
        if not self.done or self.owes_validation:
            self.validate()
        if self.done and not checkpoint.path_of(self.out / "checkpoints", self.done).exists():
            self.save()  # the run was begun in another folder
        try:
            while self.done < self.task.steps and not self.stop_reason:
                self.advance()
        except Exception as error:  # whatever it is, and wherever it comes from
            self._save_what_was_reached(error)
            raise

    def advance(self) -> None:
        """Do a step, and what is due after it."""
        self.step()
        self.stop_reason = self.poll()
        # With every save, so that a run resumed there reports what an uninterrupted one does.
        if self.stop_reason or self.saves_here or self.done % self.settings.log_every == 0:
            self.report()
        if self.saves_here and not self.stop_reason:
            self.validate()
        if self.saves_here or self.stop_reason:
            self.save()

    @property
    def saves_here(self) -> bool:
        """Whether a checkpoint is due after the steps that are done."""
        return self.done % self.settings.save_every == 0 or self.done == self.task.steps

    def step(self) -> None:
        """Do one step of the optimizer."""
        self.averages.add(*self.trainer.step(self.done, self.batches))
        self.done += 1

    def poll(self) -> str:
        """Hear of signals and bad files in all processes: why the run has to stop here, or ""."""
        if self.process.is_main:
            self.checkpoints.save_if_due(self.done)
        signals, found = self._tally.add(int(bool(self._signals.requested)), self.quarantine.unshared)
        if found:
            self.quarantine.share()
            self._failure = self.quarantine.too_many(self.task.source, self.settings.max_bad)
        asked = f"{self._signals.requested or 'a signal to another process'} asked to stop"
        return self._failure or (asked if signals else "")

    def report(self) -> None:
        """Log the means since the last report, the wait for data, and the steps that were skipped.

        Raises:
            UserError: Too many steps in a row were skipped.
        """
        means, skipped = self.averages.read()
        # All processes wait for the one that waits longest.
        waits = distributed.gather((self.data_wait.seconds, self.data_wait.host_seconds))
        waited, waited_host = map(max, zip(*waits, strict=True))
        self.log.report(self.done, means, self.trainer.learning_rate(self.done - 1), waited, waited_host)
        if self.process.is_main and (advice := self.bottleneck.look(self.done, waited)):
            self.log.advise(self.done, advice)
        if skipped:  # the same steps in all processes
            self._name_skipped(skipped)
        longest = self.averages.longest
        if longest >= self.settings.max_nonfinite + self.trainer.overflows_allowed:
            raise UserError(
                f"{longest} steps in a row up to step {self.done} had a loss or a gradient that is not finite and were "
                "left out, so the network is as before them; start again with a lower `lr` or with `amp` off, or look "
                "at the samples named above"
            )

    def validate(self) -> None:
        """Score the network, if the task has something to score it by."""
        began = time.perf_counter()
        with torch.compiler.set_stance("force_eager"):  # nothing is compiled anew for images of any size
            scores = self.task.validate(self.trainer.model, self.done)
        if scores and self.process.is_main:
            self.log.validated(self.done, scores, time.perf_counter() - began)

    def save(self) -> None:
        """Write a checkpoint; the last one of the run waits for room on a full disk, another is made up for later."""
        self.owes_validation = bool(self.stop_reason) and self.saves_here
        if self.process.is_main:
            self._require_own_folder()
            last = self.stop_reason or self.done == self.task.steps
            (self.checkpoints.save_at_last if last else self.checkpoints.save)(self.done)
        self._saved = self.done

    def finish(self) -> Path:
        """Say what was written, and do what comes after the last step; return the path of the last checkpoint.

        Raises:
            UserError: The run was stopped since too many files are bad.
        """
        self._tally.drain()
        self.quarantine.share()
        last = checkpoint.path_of(self.out / "checkpoints", self.done)
        if self._failure:
            raise UserError(f"{self._failure}; {last} holds what was reached")
        if self.process.is_main and not self.stop_reason:
            write_sheet(self.out / "predictions.png", self._draw_predictions())
        self.log.close()
        if self.process.is_main:
            self._sum_up(last)
        if not self.stop_reason:
            self.task.finish()
        return last

    def _require_own_folder(self) -> None:
        """Save the state elsewhere, and end the run, if ``out`` is no longer the folder that it was.

        Raises:
            UserError: It is so.
        """
        try:
            loss = self.place.loss()
        except OSError:  # the file system is away; saving tells
            return
        if not loss:
            return
        refuge = self.place.refuge()
        self._saved, self.stop_reason = self.done, f"`out` {self.out} {loss}"
        self.checkpoints = checkpoint.Checkpoints(refuge / "checkpoints", self.settings.keep, self._state)
        path = self.checkpoints.save_at_last(self.done)
        self._write_settings(refuge)
        raise UserError(f"{self.stop_reason}, so the run ends; what was reached is in {path}")

    def _save_what_was_reached(self, error: Exception) -> None:
        """Save the state before an error, which may be this process's alone; a failure to save is only said."""
        if (self.done == self._saved and not self.checkpoints.pending) or not self.trainer.is_whole:
            return
        self.stop_reason = str(error) or type(error).__name__
        try:
            self.save()
        except Exception as another:  # the first error is the one to tell
            _logger.warning("what was reached after step %s cannot be saved: %s", self.done, another)

    def _require_same_everywhere(self) -> None:
        seen = self.done, self.task.data_fingerprint, self.task.micro_batch
        if len(set(map(str, distributed.gather(seen)))) > 1:
            raise UserError(
                "the processes do not see the same files and `out`; use a file system that all machines share"
            )

    def _write_head(self) -> None:
        """Write what the run begins with, and remove the checkpoints of steps that it does again."""
        if not self.done:
            self.task.index.write(self.out / FILES)
        self._write_settings(self.out)
        checkpoint.drop_after(self.out / "checkpoints", self.done)

    def _write_settings(self, folder: Path) -> None:
        write_whole(folder / "config.toml", lambda file: file.write(os.fsencode(to_toml(self.settings))))

    def _state(self, step: int) -> dict[str, Any]:
        """Make the content of a checkpoint: plain values and tensors."""
        return {
            **self.trainer.state_dict(),
            "step": step,
            "config": dataclasses.asdict(self.settings),
            "data_fingerprint": self.task.data_fingerprint,
            "micro_batch": self.task.micro_batch,
            "owes_validation": self.owes_validation,
        }

    def _track(self) -> Tracker | None:
        """Begin or go on with the tracked run, if one is asked for and this process is the one that writes."""
        if self.settings.track == "none" or not self.process.is_main:
            return None
        tracker = Tracker(self.settings.track, self.out, dataclasses.asdict(self.settings), self.done)
        self._opened.callback(tracker.close)
        return tracker

    def _name_skipped(self, skipped: dict[int, list[int]]) -> None:
        """Name the samples of skipped steps whose loss is not finite; without one, those of the whole batch."""
        size, sampler = self.task.micro_batch, self.task.sampler
        own = {
            step: [int(ident) for part in parts for ident in sampler.micro_batch(step, part, size)]
            for step, parts in skipped.items()
        }
        everywhere = distributed.gather(own)
        for step in skipped:
            samples = sorted(ident for ids in everywhere for ident in ids[step])
            if samples or not self.trainer.overflows_allowed:  # float16 is finding its scale
                self.log.skipped(step + 1, samples or sampler.global_ids(step).tolist())

    @torch.no_grad()
    @torch.compiler.set_stance("force_eager")
    def _draw_predictions(self) -> np.ndarray:
        model, batch = self.trainer.model, next(self.batches)
        model.eval()
        return predictions_sheet(batch, model(batch.input[: self.task.preview_rows])["alpha_os1"])

    def _sum_up(self, last: Path) -> None:
        if bad := self.task.source.own(self.quarantine.bad):
            _logger.info("%s of %s left out, listed in %s", len(bad), self.task.summary, self.out / QUARANTINE_FILE)
        if self.log.skipped_steps:
            _logger.info("%s steps left out, since loss or gradient were not finite", self.log.skipped_steps)
        if self.stop_reason:
            at = f"{last} after step {self.done} of {self.task.steps}"
            _logger.info("%s: saved %s; go on by `resume` auto", self.stop_reason, at)
            return
        _logger.info("checkpoint  %s", last)
        for kind, name in (("log", LOG_FILE), ("picture", "preview.png"), ("picture", "predictions.png")):
            _logger.info("%-10s  %s", kind, self.out / name)

    def _out_of_memory(self) -> str:
        settings, size = self.settings, self.task.micro_batch
        remedies = [f"a `micro_batch` below {size} (in a new run)"]
        if not settings.grad_checkpointing:
            remedies.insert(0, "`grad_checkpointing`")
        if settings.amp == "off":
            remedies.append("`amp` auto (in a new run)")
        return (
            f"the memory of {self.process.device} does not hold {size} of the `batch_size` {settings.batch_size} "
            f"samples; use {' or '.join(remedies)}"
        )
