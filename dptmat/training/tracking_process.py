"""The process that `dptmat.training.tracking` starts: numbers come by standard input, and go to a tracker's library.

It reads a JSON object a line: first the settings of the run, then numbers of steps, and at last that the run ends. It
writes a sentence a line for people: an empty one when it has begun, and with a ``!`` before it the one that it ends
with. The end of the input ends it within seconds, also where the run was killed.

In the output folder ``wandb-run.json`` or ``trackio-run.json`` tells which tracked run it is, and by the name of each
number its last step: what a resumed run does again has the same numbers, and is not sent twice.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

from dptmat.errors import first_line
from dptmat.files import drop_link, write_whole

_SENDS, _ENDS = 8.0, 12  # seconds for what is left at the end, and until the process ends whatever it does
_CONNECTS = 20.0  # seconds
_PROJECT = "dptmat"

Say = Callable[[str], None]


class _Run(Protocol):
    """A run of a tracker's library."""

    id: str

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Take numbers of a step."""

    def finish(self, exit_code: int) -> None:
        """Send what is left, and whether the run has ended by itself: 0, or 1 where it was killed."""


class _Sent:
    """Which tracked run it is, and what it has been sent."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self.ident, self._steps, self.last = "", dict[str, int](), -1
        if start:  # else the run begins anew, and so does the tracked one
            try:
                state = json.loads(path.read_text(encoding="utf-8"))
                ident, steps = state["id"], {str(name): int(step) for name, step in state["sent"].items()}
            except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
                return
            if isinstance(ident, str) and re.fullmatch(r"[\w-]{1,64}", ident):
                self.ident, self._steps, self.last = ident, steps, max(steps.values(), default=-1)

    def news(self, numbers: dict[str, float], step: int) -> dict[str, float]:
        """Take those of the numbers that have not been sent."""
        return {name: value for name, value in numbers.items() if step > self._steps.get(name, -1)}

    def note(self, ident: str, names: Iterable[str] = (), step: int = 0) -> None:
        self._steps |= dict.fromkeys(names, step)
        content = json.dumps({"id": ident, "sent": self._steps}).encode()
        write_whole(self._path, lambda file: file.write(content))


def _name(out: Path) -> str:
    """Name a tracked run after its folder, whose name need not be valid text."""
    return out.name.encode(errors="replace").decode() or _PROJECT


class _Wandb:
    """A run of Weights & Biases: online if there is a login, else, or where the network fails, offline."""

    def __init__(self, out: Path, settings: dict[str, Any], sent: _Sent, say: Say) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_CACHE_DIR", str(out / "wandb" / "cache"))  # its process writes messages there
        import wandb

        self._say = say
        self._floor = sent.last + 1  # the numbers of the steps before are complete, to wandb
        self.id = sent.ident or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        options: dict[str, Any] = {
            "dir": os.environ.get("WANDB_DIR") or out, "id": self.id, "resume": "allow" if sent.ident else None,
            "project": os.environ.get("WANDB_PROJECT") or _PROJECT, "name": os.environ.get("WANDB_NAME") or _name(out),
            "config": settings, "save_code": False,
            # Nothing but the numbers and the settings: no output, code, packages, or what the machine is like.
            "settings": wandb.Settings(
                console="off", disable_git=True, disable_code=True, x_save_requirements=False, x_disable_meta=True,
                x_disable_machine_info=True, x_disable_stats=True, symlink=False, silent=True,
                init_timeout=_CONNECTS, finish_timeout=_SENDS, finish_timeout_raises=True, allow_val_change=True,
                stop_fn=lambda: None,
            ),
        }  # fmt: skip
        offline = _why_offline(wandb)
        if not offline:
            try:
                self._run = wandb.init(**options)
            except Exception as error:  # no network, a refused login, no such project
                offline = f"it cannot be reached: {first_line(error)}"
        if offline:
            self._run = wandb.init(**options, mode="offline")
            say(f"{offline.rstrip('.')}; the run is tracked offline: wandb sync {self._run.settings.sync_dir} sends it")

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._run.log(numbers, step=max(step, self._floor))

    def finish(self, exit_code: int) -> None:
        folder = self._run.settings.sync_dir
        try:
            self._run.finish(exit_code)
        except TimeoutError:
            self._say(f"not all was sent within {_SENDS:.0f} s; wandb sync {folder} sends the rest")


def _why_offline(wandb: Any) -> str:
    """Say why there can be no run online where one is wanted, or ""."""
    if wandb.setup().settings.mode != "online":
        return ""
    try:
        return "" if wandb.login(prompt=False) else "there is no login (wandb login, or WANDB_MODE=offline)"
    except Exception as error:
        return f"the login cannot be used: {first_line(error)}"


class _Trackio:
    """A run of Trackio: on this machine, unless its own variables name a Space or a server."""

    def __init__(self, out: Path, settings: dict[str, Any], sent: _Sent, say: Say) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(out / "trackio"))
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        # What it cannot write it tells by a warning.
        warnings.showwarning = lambda message, *_: say(str(message).splitlines()[0])
        import trackio

        self._trackio = trackio
        run = trackio.init(
            _PROJECT, name=_name(out), config=settings,
            resume="allow" if sent.ident else "never", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        run.id = sent.ident or run.id  # of several of one name the right one
        self.id = run.id

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._trackio.log(numbers, step=step)

    def finish(self, exit_code: int) -> None:
        self._trackio.finish()


def _follow(run: _Run, sent: _Sent, lines: TextIO) -> int:
    """Hand what comes to the tracked run, until there is no more; 0 if the run ends by itself, 1 if it was killed."""
    sent.note(run.id)
    for line in lines:
        if not line.endswith("\n"):
            break
        message = json.loads(line)
        if "end" in message:
            return 0
        if numbers := sent.news(message["numbers"], message["step"]):
            run.log(numbers, message["step"])
            sent.note(run.id, numbers, message["step"])
    return 1


def _take_streams() -> tuple[TextIO, TextIO]:
    """Take standard input and output for this process alone: libraries and their processes write into nothing."""
    lines, messages = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    return lines, messages


def main(kind: str, out: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the run hears them, and ends this process by closing its input
    lines, messages = _take_streams()

    def say(sentence: str) -> None:
        with contextlib.suppress(OSError):  # the run has gone, and nobody listens
            print(sentence, file=messages, flush=True)

    try:
        path = out / f"{kind}-run.json"
        lock = out / f".{kind}-lock"
        drop_link(lock)
        with open(lock, "w") as held:
            with contextlib.suppress(OSError):  # on a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX)  # that of a run which was killed may still be sending
            head = json.loads(next(lines))
            sent = _Sent(path, head["start"])
            begin: Callable[..., _Run] = _Wandb if kind == "wandb" else _Trackio
            run = begin(out, head["settings"], sent, say)
            say("")
            exit_code = _follow(run, sent, lines)
            signal.alarm(_ENDS)
            run.finish(exit_code)
    except BaseException as error:
        say(f"!{first_line(error)}")
        signal.alarm(_ENDS)
        raise


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
