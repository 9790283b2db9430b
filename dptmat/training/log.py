"""The numbers of a run as it goes: said, as JSON lines, and for TensorBoard."""

import json
import logging
import math
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.tensorboard import SummaryWriter

from dptmat.defaults import METRICS, WITHOUT_TRIMAP
from dptmat.errors import first_line
from dptmat.files import Journal, drop_link, write_whole
from dptmat.training.tracking import Tracker

_logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"  # in the output folder
_WITHOUT = f"sad{WITHOUT_TRIMAP}"


class RunLog:
    """Writes ``log.jsonl`` and ``tensorboard/`` in the output folder and says a line per report.

    Args:
        out: Output folder; it exists.
        steps: Steps of the whole run.
        batch_size: Samples per step over all processes.
        start: Steps done before; what an earlier process logged beyond them is dropped, since it is done again.
        writes: Whether this process is the one that writes and speaks.
        tracker: What takes the curves beside TensorBoard, if anything.

    Attributes:
        skipped_steps: Number of steps that were skipped, since their loss or gradient was not finite.
    """

    def __init__(
        self, out: str | Path, steps: int, batch_size: int, *, start: int, writes: bool, tracker: Tracker | None = None
    ) -> None:
        self._steps, self._batch_size, self._tracker = steps, batch_size, tracker
        self.skipped_steps = 0
        self._lines: Journal | None = None
        self._board: _Board | None = None
        if writes:
            path = Path(out) / LOG_FILE
            _drop_after(path, start)
            self._lines = Journal(path)
            self._board = _Board(Path(out) / "tensorboard", start)
        self._began = self._last = Moment(time.perf_counter(), start, 0.0)
        self._waited_host = 0.0

    def report(
        self, step: int, scalars: dict[str, float], learning_rate: float, waited: float, waited_host: float
    ) -> None:
        """Log the scalars of a step (``loss``, its parts, ``grad_norm``), speed, and the share of time waited for data.

        Args:
            step: Steps done.
            scalars: Numbers by name.
            learning_rate: The step's.
            waited: Seconds that training has waited for data so far.
            waited_host: Seconds that the host has; on a GPU not all of them cost time.
        """
        now = Moment(time.perf_counter(), step, waited)
        seconds, steps, waited = now.since(self._last)
        speed = {
            "images_per_second": steps * self._batch_size / seconds,
            "waited": waited / seconds,
            "waited_host": (waited_host - self._waited_host) / seconds,
        }
        self._last, self._waited_host = now, waited_host
        numbers = {**scalars, "learning_rate": learning_rate, **speed}
        # JSON has no infinity, which is the norm of a gradient that float16 could not hold.
        plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        total_seconds, total_steps, _ = now.since(self._began)
        left = (self._steps - step) * total_seconds / total_steps
        self._write({"step": step, **plain}, numbers)
        self._say(
            f"step {step}/{self._steps}  loss {scalars['loss']:.4f}  lr {learning_rate:.2e}  "
            f"{speed['images_per_second']:.1f} images/s  waited {speed['waited']:.1%}  left {_clock(left)}"
        )

    def validated(self, step: int, scores: dict[str, float], seconds: float = 0.0) -> None:
        """Log the scores of the validation images at a step.

        Args:
            step: Steps done.
            scores: ``sad``, ``mse``, ``grad``, ``conn`` and others by name; those of networks that were shown no
                trimap end in ``_without_trimap``.
            seconds: That it took, which do not count in the speed of training.
        """
        self._last = self._last._replace(clock=self._last.clock + seconds)
        # JSON has no NaN, which the mean of no image is.
        plain = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        self._write({"step": step, "validation": plain}, {f"validation/{name}": scores[name] for name in scores})
        sad, mse, grad, conn = (scores[name] for name in METRICS)
        without = f"  without trimaps SAD {scores[_WITHOUT]:.2f} of the whole image" if _WITHOUT in scores else ""
        self._say(
            f"step {step}/{self._steps}  validation: SAD {sad:.2f}  MSE {1000 * mse:.2f}e-3  Grad {grad:.2f}  "
            f"Conn {conn:.2f}{without}"
        )

    def skipped(self, step: int, samples: list[int]) -> None:
        """Name a step that was skipped, since its loss or gradient is not finite, and the samples that can be why."""
        self.skipped_steps += 1
        self._write({"step": step, "skipped": samples})
        ids = f"{', '.join(map(str, samples[:8]))}{', ...' if len(samples) > 8 else ''}"
        self._say(f"step {step}/{self._steps} left out: loss or gradient is not finite; samples {ids}", logging.WARNING)

    def advise(self, step: int, sentence: str) -> None:
        """Say what would make the run faster."""
        self._write({"step": step, "advice": sentence})
        self._say(sentence, logging.WARNING)

    def left_out(self, path: str, reason: str) -> None:
        """Name a file that cannot be used."""
        self._write({"left_out": path, "reason": reason})
        self._say(f"left out: {path}: {reason}", logging.WARNING)

    def close(self) -> None:
        """Say how long the trainer waited for data in all, and close the files."""
        seconds, steps, waited = self._last.since(self._began)
        if steps:
            self._say(f"waited for data {waited / seconds:.1%} of {seconds:.0f} s")
        if self._lines and self._board:
            self._lines.close()
            self._board.close()

    def _write(self, line: dict[str, Any], curves: dict[str, float] | None = None) -> None:
        if self._lines and self._board:
            self._lines.add(json.dumps(line))
            self._board.add(curves or {}, line.get("step", 0))
            if self._tracker:
                self._tracker.add(curves or {}, line.get("step", 0))

    def _say(self, line: str, level: int = logging.INFO) -> None:
        if self._lines:
            _logger.log(level, "%s", line)


class _Board:
    """Curves for TensorBoard; where they cannot be written, the run goes on without them."""

    def __init__(self, folder: Path, start: int) -> None:
        self._writer: SummaryWriter | None = None
        try:
            # A name that nobody can have prepared a link under.
            self._writer = SummaryWriter(folder, purge_step=start + 1, filename_suffix=f".{secrets.token_hex(4)}")
        except Exception as error:  # a full disk, and whatever TensorBoard makes of one
            self._give_up(error)

    def add(self, numbers: dict[str, float], step: int) -> None:
        if self._writer is None:
            return
        try:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or first_line(error)
        _logger.warning("tensorboard/ cannot be written: %s; %s goes on", reason, LOG_FILE)
        self._writer = None


class Moment(NamedTuple):
    """State of a run at a report."""

    clock: float  # seconds
    step: int
    waited: float  # seconds

    def since(self, earlier: "Moment") -> tuple[float, int, float]:
        """Return the seconds, steps and seconds waited since an earlier moment."""
        return self.clock - earlier.clock, self.step - earlier.step, self.waited - earlier.waited


def _drop_after(path: Path, step: int) -> None:
    """Delete the lines of later steps, and one that a kill has cut short; files that are left out stay named.

    Lines that are none of a log go, too, which is said.
    """
    drop_link(path)
    if not path.is_file():
        return
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    steps = [_step_of(line) for line in lines]
    if foreign := sum(at is None for at in steps):
        _logger.warning("%s: %s lines that are not of a training's log are left out", path, foreign)
    kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
    write_whole(path, lambda file: file.write(b"".join(kept)))


def _step_of(line: bytes) -> int | None:
    """Return the step of a line of a log, 0 where it has none, or None if it is not such a line."""
    try:
        step = json.loads(line).get("step", 0)
    except (ValueError, AttributeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _clock(seconds: float) -> str:
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}"
