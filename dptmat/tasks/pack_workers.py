"""Who packs the shards: processes of this machine, or Ray's on many; one that dies costs its shard a second try."""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from dptmat.errors import UserError, first_line
from dptmat.tasks.pack_shard import Part, pack_part, photo_name

_logger = logging.getLogger(__name__)

_TRIES = 3  # of a shard whose process dies
_PATIENCE = 10  # seconds for a process to end that was asked to


def run_here(parts: Iterable[Part], workers: int) -> Iterator[int]:
    """Pack shards by processes of this machine.

    Args:
        parts: The shards.
        workers: Processes.

    Yields:
        How many photographs more have been looked at; less than 0 where a process has died.

    Raises:
        UserError: The process of a shard has died again and again.
        OSError: A shard cannot be written, or the photographs cannot be read any more.
    """
    waiting, again, deaths = iter(parts), list[Part](), Counter[int]()
    idle, busy = list[_Worker](), dict[Any, _Worker]()
    try:
        while True:
            while len(busy) < workers and (part := again.pop() if again else next(waiting, None)):
                worker = idle.pop() if idle else _Worker()
                worker.begin(part)
                busy[worker.connection] = worker
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]
                message = worker.receive()
                if isinstance(message, int):
                    yield message
                    continue
                del busy[connection]
                if message is None:
                    idle.append(worker)
                    continue
                yield -worker.reported
                deaths[worker.part.number] += 1
                if deaths[worker.part.number] == _TRIES:
                    raise UserError(_tell_deaths(worker.part, message))
                _logger.warning("a worker %s; shard %s is packed again", message, worker.part.name)
                again.append(worker.part)
    finally:
        for worker in (*idle, *busy.values()):
            worker.end()


def _tell_deaths(part: Part, how: str) -> str:
    photos = f"photographs {part.first} to {part.first + len(part.photos) - 1}, the first {photo_name(part.photos[0])}"
    return (
        f"shard {part.name} ({photos}) cannot be packed: its process {how}, {_TRIES} times; where the system has no "
        "memory left for it, give fewer `workers`"
    )


class _Worker:
    """A process that packs one shard after the other."""

    part: Part

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _without_interrupts():
            self._process.start()
        theirs.close()  # so that its death shows as the end of the pipe

    def begin(self, part: Part) -> None:
        self.part, self.reported = part, 0
        try:
            self.connection.send(part)
        except OSError:  # it is dead, which `receive` tells
            return

    def receive(self) -> int | str | None:
        """Return how many photographs more it has looked at, None at the end of the shard, or how it has died.

        Raises:
            UserError, OSError: What it was ended by.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(_PATIENCE)
            self.connection.close()
            return _tell_end(self._process.exitcode)
        if isinstance(message, Exception):
            raise message
        self.reported += message or 0
        return message

    def end(self) -> None:
        """End it, and let it take its unfinished file away."""
        self._process.terminate()
        self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that no Ctrl-C reaches, not even while they import: this one hears it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let interrupts through again when it begins
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _tell_end(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"has ended with status {status}"


def _work(connection: Connection) -> None:
    """Pack the shards that come, until the other process is gone."""
    set_up_process()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not from within an import
    while True:
        try:
            connection.send(_try_part(connection.recv(), connection.send))
        except (EOFError, OSError):
            return


def _try_part(part: Part, report: Callable[[int], object]) -> Exception | None:
    """Pack a shard, and give what is wrong with it or with the machine; the other process's end is raised."""
    try:
        pack_part(part, report)
    except BrokenPipeError:
        raise
    except MemoryError:
        return UserError(f"there is no memory left for shard {part.name}; give fewer `workers`")
    except (OSError, UserError) as error:
        return error
    return None


def set_up_process() -> None:
    """Let the libraries of this process compute on one core, as there is a process for each, and say nothing."""
    import cv2
    import torch

    warnings.filterwarnings("ignore", module="PIL")  # of what photographs' heads hold
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def run_on_ray(parts: Iterable[Part], address: str | None) -> Iterator[int]:
    """Pack shards as tasks of Ray, which has dead machines' tasks done by others.

    Args:
        parts: The shards.
        address: Of a cluster, "auto" for the one that this machine belongs to; None to start one here.

    Yields:
        How many photographs more have been looked at.

    Raises:
        UserError: Ray is not installed, or does not start.
        OSError: As `run_here`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    try:
        import ray
    except ImportError as error:
        raise UserError("`engine` ray needs the package ray; install it: pip install 'dptmat[ray]'") from error
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except Exception as error:  # of many types
        raise UserError(f"`address` {address}: Ray does not start: {first_line(error)}") from error
    try:
        yield from _run_tasks(ray, parts)
    finally:
        ray.shutdown()


def _run_tasks(ray: Any, parts: Iterable[Part]) -> Iterator[int]:
    task = ray.remote(num_cpus=1, max_retries=_TRIES)(_pack_task)
    waiting, running = iter(parts), dict[Any, int]()
    while True:
        while len(running) < 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
            if (part := next(waiting, None)) is None:
                break
            running[task.remote(part)] = len(part.photos)
        if not running:
            return
        (done,), _ = ray.wait(list(running))
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray has given a shard up: {first_line(error)}; the same command goes on") from error
        yield running.pop(done)


def _pack_task(part: Part) -> None:
    set_up_process()
    pack_part(part)
