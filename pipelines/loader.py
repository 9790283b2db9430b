"""Runs the graph: feeds it sample ids ahead of time, hands its outputs to torch without a copy, survives a bad file."""

import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from dptmat.errors import UserError, first_line
from dptmat.pipelines.paths import find_unopened
from dptmat.pipelines.probe import find_unreadable
from dptmat.pipelines.source import BadFiles, Order, Source

_logger = logging.getLogger(__name__)

_TRIES = 5  # of a batch whose files can all be decoded when asked one by one
_FULL_OF_BAD = 8  # times in a row that substitutes in one batch are bad, too
_WAITS = 1, 2, 4, 8, 16  # seconds for a file system to come back


class Loader:
    """Endless iterator over the micro-batches of a run, from any step on.

    Each batch is a function of its number alone, so starting at a step is the same as having run up to it. A file that
    cannot be read or decoded is reported once, and another, drawn from (seed, sample id), takes its place; all other
    samples stay as they are. A failure that is gone when the files are looked at costs a second try of the batch.

    Args:
        source: The graph and its arguments for any sample ids.
        sampler: The order of the ids.
        micro_batch: Samples per batch; divides the sampler's samples per step.
        quarantine: What is left out: grows by what is found here, and may grow by what others find.
        device: torch device of the outputs.
        threads: Threads that decode.
        prefetch: Batches prepared ahead.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1; the default is DALI's.
        start: Step whose first micro-batch comes first.

    Raises:
        UserError: Nothing that can be decoded is left; from the iterator also that no file can be read any more, or
            that a batch cannot be made for another reason.
    """

    def __init__(
        self,
        source: Source,
        sampler: Order,
        *,
        micro_batch: int,
        quarantine: BadFiles,
        device: str | torch.device = "cpu",
        threads: int = 1,
        prefetch: int = 2,
        hw_decoder_load: float = 0.65,
        start: int = 0,
    ) -> None:
        self._source, self._sampler = source, sampler
        self._micro_batch, self._quarantine = micro_batch, quarantine
        self._per_step = sampler.batch_size // sampler.world_size // micro_batch
        device = torch.device(device)
        self._gpu = device if device.type == "cuda" else None
        self._device_id = (device.index or 0) if self._gpu else None
        self._threads = threads
        self._options = {
            "gpu": self._gpu is not None,
            "hw_decoder_load": hw_decoder_load,
            "batch_size": micro_batch,
            "num_threads": threads,
            "prefetch_queue_depth": prefetch,
            "device_id": self._device_id,
            "exec_dynamic": True,  # zero-copy outputs that stay valid, and shapes of GPU data on the CPU
        }
        self._delivered = self._fed = start * self._per_step  # batches handed out since step 0, and asked for by DALI
        self._pipe: Any = None  # built with the next batch
        source.require_some(quarantine.bad)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Any:
        outputs = self._run()
        self._delivered += 1
        return self._source.outputs(*(torch.from_dlpack(output.as_tensor()) for output in outputs))

    def run_to(self, last_stage: str) -> Iterator[Any]:
        """Run a graph of its own as far as a stage, without end, on the batches that the loader will want next.

        For measuring: a file that cannot be read ends it.

        Args:
            last_stage: The last one to run, as of the source's graph.

        Yields:
            DALI's outputs of each batch.

        Raises:
            RuntimeError: A file cannot be read or decoded.
        """
        numbers = itertools.count(self._fed)

        def feed() -> tuple:
            return self._source.arguments(self._ids(next(numbers)), self._quarantine.bad)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The external source node")  # a stage does not need all inputs
            pipe = self._source.graph(feed, last_stage=last_stage, **self._options)
            pipe.build()
        while True:
            yield pipe.run()

    def _start(self) -> None:
        """Build the graph so that the batch to be delivered next is its first."""
        self._fed = self._delivered
        self._pipe = self._source.graph(self._feed, **self._options)
        self._pipe.build()

    def _run(self) -> Any:
        """Run the graph for one batch: again after leaving out what made it fail, or where that is gone by then."""
        unexplained = rounds_of_bad = 0
        while True:
            try:
                if self._pipe is None:
                    self._start()
                # On torch's stream, the outputs are in order with what reads them: neither side waits for the other.
                return self._pipe.run(torch.cuda.current_stream(self._gpu).cuda_stream if self._gpu else None)
            except UserError:
                raise
            except Exception as error:  # DALI's binding raises others than RuntimeError, too
                self._pipe = None  # DALI does not promise that a pipeline can be used after a failure
                found = self._find_unreadable()
                if not found:
                    unexplained += 1
                    self._try_again(error, unexplained)
            if found:
                rounds_of_bad += 1
                self._leave_out(found, rounds_of_bad)

    def _try_again(self, error: Exception, failures: int) -> None:
        """Say that a batch failed without a bad file; give up after so many failures."""
        reason = f"though each of its files can be decoded: {first_line(error)}"
        if failures == _TRIES:
            raise UserError(
                f"a batch cannot be made, {reason}; if memory is short, use a smaller `micro_batch` or `prefetch`"
            ) from error
        _logger.warning("a batch failed, %s; trying again", reason)

    def _leave_out(self, found: list[tuple[str, str]], rounds: int) -> None:
        """Put bad files into the quarantine; give up where substitutes have been bad, too, for so many rounds."""
        for path, reason in found:
            self._quarantine.add(path, reason)
        self._source.require_some(self._quarantine.bad)
        if rounds == _FULL_OF_BAD:
            path, reason = found[-1]
            raise UserError(
                f"nearly every file is bad, the last one {path}: {reason}; restore the files, remove their lines "
                "from quarantine.txt, and go on by `resume` auto"
            )

    def _feed(self) -> tuple:
        """Return the arguments of the next batch; DALI calls this ahead of the batches handed out."""
        self._fed += 1
        return self._source.arguments(self._ids(self._fed - 1), self._quarantine.bad)

    def _ids(self, number: int) -> np.ndarray:
        step, part = divmod(number, self._per_step)
        return self._sampler.micro_batch(step, part, self._micro_batch)

    def _find_unreadable(self) -> list[tuple[str, str]]:
        """Find the files that made the batch fail: path and reason."""
        paths = self._files(0)
        for wait in _WAITS:
            found = list(find_unopened(paths))
            if not found:
                return self._find_undecoded(paths)
            further = self._files(1)
            if len(found) < len(paths) or len(list(find_unopened(further))) < len(further):
                return found
            time.sleep(wait)  # no file at all can be opened: their file system is away
        path, reason = found[0]
        raise UserError(
            f"no file can be read any more, the first one {path}: {reason}; see whether its file system is there, and "
            "go on by `resume` auto"
        )

    def _files(self, ahead: int) -> list[str]:
        """Return the files of the batch that comes ``ahead`` batches after the one to be delivered."""
        return self._source.files(self._ids(self._delivered + ahead), self._quarantine.bad)

    def _find_undecoded(self, paths: list[str]) -> list[tuple[str, str]]:
        found = _decode_apart(paths, self._device_id, self._threads)
        if self._gpu and len(found) == len(paths):  # the GPU's fault, such as a lack of memory, and not the files'
            found = _decode_apart(paths, None, self._threads)
        return found


def _decode_apart(paths: list[str], device_id: int | None, threads: int) -> list[tuple[str, str]]:
    """Find the files that cannot be decoded, by several threads: path and reason."""
    shares = [paths[i::threads] for i in range(min(threads, len(paths)))]
    with ThreadPoolExecutor(len(shares)) as pool:
        found = pool.map(lambda share: list(find_unreadable(share, device_id)), shares)
        return [bad for share in found for bad in share]
