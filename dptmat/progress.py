"""The numbers of a run as it goes: printed, as JSON lines, and for TensorBoard."""

import json
import math
import time
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from dptmat.files import write_whole


class Progress:
    """Writes ``log.jsonl`` and ``tensorboard/`` in the output folder and prints a line per report.

    Args:
        out: Output folder; it exists.
        steps: Steps of the whole run.
        batch_size: Samples per step over all processes.
        start: Steps done before; what an earlier process logged beyond them is dropped, since it is done again.
        writes: Whether this process is the one that writes and prints; the others only name bad photographs.
    """

    def __init__(self, out, steps, batch_size, *, start, writes):
        self._steps, self._batch_size, self._writes = steps, batch_size, writes
        if writes:
            path = Path(out) / "log.jsonl"
            _drop_after(path, start)
            self._lines = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by close()
            self._board = SummaryWriter(Path(out) / "tensorboard", purge_step=start + 1)
        self._began = self._last = _Moment(time.perf_counter(), start, 0.0)

    def report(self, step, scalars, learning_rate, waited):
        """Log the scalars of a step (``loss``, its parts, ``grad_norm``), speed, and the share of time waited for data.

        Args:
            step: Steps done.
            scalars: Dictionary of numbers.
            learning_rate: The step's.
            waited: Seconds that this process has waited for data so far.
        """
        if not self._writes:
            return
        now = _Moment(time.perf_counter(), step, waited)
        seconds, steps, waited = now.since(self._last)
        speed = {"images_per_second": steps * self._batch_size / seconds, "waited": waited / seconds}
        numbers = {**scalars, "learning_rate": learning_rate, **speed}
        self._last = now
        # JSON has no infinity, which is the norm of a gradient that float16 could not hold.
        plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._lines.write(json.dumps({"step": step, **plain}) + "\n")
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        total_seconds, total_steps, _ = now.since(self._began)
        left = (self._steps - step) * total_seconds / total_steps
        print(
            f"step {step}/{self._steps}  loss {scalars['loss']:.4f}  lr {learning_rate:.2e}  "
            f"{speed['images_per_second']:.1f} images/s  waited {speed['waited']:.1%}  left {_clock(left)}",
            flush=True,
        )

    def left_out(self, path, reason):
        """Name a photograph that cannot be used."""
        if self._writes:
            self._lines.write(json.dumps({"left_out": path, "reason": reason}) + "\n")
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


class _Moment(NamedTuple):
    """State of a run at a report."""

    clock: float  # seconds
    step: int
    waited: float  # seconds

    def since(self, earlier):
        """Seconds, steps and seconds waited since an earlier moment."""
        return tuple(a - b for a, b in zip(self, earlier, strict=True))


def _drop_after(path, step):
    """Delete the lines of later steps, and one that a kill has cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line).get("step", 0) > step:
            break
        kept.append(line)
    write_whole(path, lambda file: file.write(b"".join(kept)))


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
