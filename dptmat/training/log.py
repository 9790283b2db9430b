"""The numbers of a run as it goes: printed, as JSON lines, and for TensorBoard."""

import json
import math
import time
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from dptmat.files import Journal, write_whole


class Progress:
    """Writes ``log.jsonl`` and ``tensorboard/`` in the output folder and prints a line per report.

    Args:
        out: Output folder; it exists.
        steps: Steps of the whole run.
        batch_size: Samples per step over all processes.
        start: Steps done before; what an earlier process logged beyond them is dropped, since it is done again.
        writes: Whether this process is the one that writes and prints.

    Attributes:
        skipped_steps: Number of steps that were left out, since loss or gradient were not finite.
    """

    def __init__(self, out, steps, batch_size, *, start, writes):
        self._steps, self._batch_size, self._writes = steps, batch_size, writes
        self.skipped_steps = 0
        if writes:
            path = Path(out) / "log.jsonl"
            _drop_after(path, start)
            self._lines = Journal(path)
            self._board = _Board(Path(out) / "tensorboard", start)
        self._began = self._last = Moment(time.perf_counter(), start, 0.0)
        self._waited_host = 0.0

    def report(self, step, scalars, learning_rate, waited, waited_host):
        """Log the scalars of a step (``loss``, its parts, ``grad_norm``), speed, and the share of time waited for data.

        Args:
            step: Steps done.
            scalars: Dictionary of numbers.
            learning_rate: The step's.
            waited: Seconds that training has waited for data so far.
            waited_host: Seconds that the host has; on a GPU not all of them cost time.
        """
        if not self._writes:
            return
        now = Moment(time.perf_counter(), step, waited)
        seconds, steps, waited = now.since(self._last)
        speed = {
            "images_per_second": steps * self._batch_size / seconds,
            "waited": waited / seconds,
            "waited_host": (waited_host - self._waited_host) / seconds,
        }
        numbers = {**scalars, "learning_rate": learning_rate, **speed}
        self._last, self._waited_host = now, waited_host
        # JSON has no infinity, which is the norm of a gradient that float16 could not hold.
        plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._lines.add(json.dumps({"step": step, **plain}))
        self._board.add(numbers, step)
        total_seconds, total_steps, _ = now.since(self._began)
        left = (self._steps - step) * total_seconds / total_steps
        print(
            f"step {step}/{self._steps}  loss {scalars['loss']:.4f}  lr {learning_rate:.2e}  "
            f"{speed['images_per_second']:.1f} images/s  waited {speed['waited']:.1%}  left {_clock(left)}",
            flush=True,
        )

    def validated(self, step, scores):
        """Log the scores of the validation images at a step: ``sad``, ``mse``, ``grad``, ``conn``."""
        if not self._writes:
            return
        self._lines.add(json.dumps({"step": step, "validation": scores}))
        self._board.add({f"validation/{name}": value for name, value in scores.items()}, step)
        sad, mse, grad, conn = (scores[name] for name in ("sad", "mse", "grad", "conn"))
        print(
            f"step {step}/{self._steps}  validation: SAD {sad:.2f}  MSE {1000 * mse:.2f}e-3  Grad {grad:.2f}  "
            f"Conn {conn:.2f}",
            flush=True,
        )

    def skipped(self, step, samples):
        """Name a step that was left out, since loss or gradient were not finite, and the samples that can be why."""
        self.skipped_steps += 1
        if self._writes:
            self._lines.add(json.dumps({"step": step, "skipped": samples}))
            ids = f"{', '.join(map(str, samples[:8]))}{', ...' if len(samples) > 8 else ''}"
            print(f"step {step}/{self._steps} left out: loss or gradient is not finite; samples {ids}", flush=True)

    def advise(self, step, sentence):
        """Say what would make the run faster."""
        if self._writes:
            self._lines.add(json.dumps({"step": step, "advice": sentence}))
            print(sentence, flush=True)

    def left_out(self, path, reason):
        """Name a file that cannot be used."""
        if not self._writes:
            return
        self._lines.add(json.dumps({"left_out": path, "reason": reason}))
        print(f"left out: {path}: {reason}", flush=True)

    def close(self):
        """Say how long the trainer waited for data in all, and close the files."""
        if not self._writes:
            return
        seconds, steps, waited = self._last.since(self._began)
        if steps:
            print(f"waited for data {waited / seconds:.1%} of {seconds:.0f} s", flush=True)
        self._lines.close()
        self._board.close()


class _Board:
    """Curves for TensorBoard; where they cannot be written, the run goes on without them."""

    def __init__(self, folder, start):
        self._writer = SummaryWriter(folder, purge_step=start + 1)

    def add(self, numbers, step):
        if self._writer is None:
            return
        try:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._give_up(error)

    def close(self):
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error):
        print(f"tensorboard/ cannot be written: {error.strerror}; log.jsonl goes on", flush=True)
        self._writer = None


class Moment(NamedTuple):
    """State of a run at a report."""

    clock: float  # seconds
    step: int
    waited: float  # seconds

    def since(self, earlier):
        """Seconds, steps and seconds waited since an earlier moment."""
        return tuple(a - b for a, b in zip(self, earlier, strict=True))


def _drop_after(path, step):
    """Delete the lines of later steps, and one that a kill has cut short; files that are left out stay named."""
    if not path.exists():
        return
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
    write_whole(path, lambda file: file.write(b"".join(kept)))


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
