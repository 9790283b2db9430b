"""Runs the graph: feeds it files that are read ahead of time, hands its outputs to torch, survives a bad file."""

import logging
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from dptmat.device import is_out_of_memory
from dptmat.errors import StoreAwayError, UserError, few, first_line
from dptmat.pipelines._dali import feed_ndarray, to_torch_type
from dptmat.pipelines.encoded import find_unopened
from dptmat.pipelines.probe import find_unreadable
from dptmat.pipelines.read_ahead import ReadAhead, Reader
from dptmat.pipelines.source import BadFiles, Order, Photo, Source

_logger = logging.getLogger(__name__)

_TRIES = 5  # of a batch whose files can all be decoded when asked one by one
_FULL_OF_BAD = 8  # times in a row that substitutes in one batch are bad, too
_WAITS = 1, 2, 4, 8, 16  # seconds for a file system to come back
_ELSEWHERE = 1, 10, 100, 1000  # batches further on, whose files tell whether it is away
_ON_GPU = 2  # pipelines of a single file there, each of which takes some of the memory that may be short


class Loader:
    """Endless iterator over the micro-batches of a run, from any step on.

    Each batch is a function of its number alone, so starting at a step is the same as having run up to it. A file that
    cannot be read or decoded is reported once, and another, drawn from (seed, sample id), takes its place; all other
    samples stay as they are. One that Pillow alone decodes is decoded by Pillow from then on. A failure that is gone
    when the files are looked at costs a second try of the batch.

    Args:
        source: The graph and its arguments for any sample ids.
        sampler: The order of the ids.
        micro_batch: Samples per batch; divides the sampler's samples per step.
        quarantine: What is left out: grows by what is found here, and may grow by what others find.
        device: torch device of the outputs.
        threads: Threads that read files, and as many that decode.
        prefetch: Batches prepared ahead.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        start: Step whose first micro-batch comes first.

    Attributes:
        threads: As given.

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
        hw_decoder_load: float = 0.0,
        start: int = 0,
    ) -> None:
        self._source, self._sampler = source, sampler
        self._micro_batch, self._quarantine = micro_batch, quarantine
        self._per_step = sampler.batch_size // sampler.world_size // micro_batch
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self._gpu = device if device.type == "cuda" else None
        self._device_id = device.index if self._gpu else None
        self.threads = threads
        self._reader = Reader(threads)
        self._options = {
            "gpu": self._gpu is not None,
            "hw_decoder_load": hw_decoder_load,
            "batch_size": micro_batch,
            "num_threads": threads,
            "prefetch_queue_depth": prefetch,
            "device_id": self._device_id,
            "exec_dynamic": True,  # zero-copy outputs that stay valid
        }
        self._delivered = start * self._per_step  # batches handed out since step 0
        self._pipe: Any = None  # built with the next batch
        self._ahead: ReadAhead | None = None
        source.require_some(quarantine.bad)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Any:
        outputs = self._run()
        self._delivered += 1
        return self._source.outputs(*(self._to_torch(output.as_tensor()) for output in outputs))

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
        feed = ReadAhead(self._arguments, self._delivered)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The external source node")  # a stage does not need all inputs
            pipe = self._source.graph(feed, last_stage=last_stage, **self._options)
            pipe.build()
        try:
            while True:
                yield pipe.run()
        finally:
            feed.close()

    def _to_torch(self, tensor: Any) -> torch.Tensor:
        """Hand one of DALI's tensors over: on the CPU as it is, on the GPU as a copy in memory of PyTorch's.

        DALI waits for the whole GPU before it takes back memory that it has lent, and so would hold a batch for as long
        as the host runs ahead, and break the capture of a CUDA graph.
        """
        if not self._gpu:
            return torch.from_dlpack(tensor)
        copy = torch.empty(tensor.shape(), dtype=to_torch_type[tensor.dtype], device=self._gpu)
        return feed_ndarray(tensor, copy, torch.cuda.current_stream(self._gpu))

    def _start(self) -> None:
        """Build the graph so that the batch to be delivered next is its first."""
        self._ahead = ReadAhead(self._arguments, self._delivered)
        self._pipe = self._source.graph(self._ahead, **self._options)
        self._pipe.build()

    def close(self) -> None:
        """Stop its threads and give its memory back; batches that were handed out stay. A next batch starts it anew."""
        if self._ahead:
            self._ahead.close()
        # The graph calls what belongs to this loader: a circle through DALI, which Python does not see to be garbage.
        self._pipe = self._ahead = None

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
                self.close()  # DALI does not promise that a pipeline can be used after a failure
                known = set(self._reader.by_pillow)
                found = self._find_unreadable()
                by_pillow = sorted(self._reader.by_pillow - known)
                if by_pillow:
                    _logger.info("decoded by Pillow, since DALI does not take them: %s", few(by_pillow))
                elif not found:
                    unexplained += 1
                    self._try_again(error, unexplained)
            if found:
                rounds_of_bad += 1
                self._leave_out(found, rounds_of_bad)

    def _try_again(self, error: Exception, failures: int) -> None:
        """Say that a batch failed without a bad file; give up after so many failures."""
        reason = f"though each of its files can be decoded: {first_line(error)}"
        if self._gpu and is_out_of_memory(error):
            torch.cuda.empty_cache()  # for DALI, which has a pool of its own
        if failures == _TRIES:
            raise UserError(
                f"a batch cannot be made, {reason}; if memory is short, use a smaller `micro_batch` or `prefetch`"
            ) from error
        _logger.warning("a batch failed, %s; trying again", reason)

    def _leave_out(self, found: list[tuple[str, str]], rounds: int) -> None:
        """Put bad files into the quarantine; give up where substitutes have been bad, too, for so many rounds."""
        for name, reason in found:
            self._quarantine.add(name, reason)
        self._source.require_some(self._quarantine.bad)
        if rounds == _FULL_OF_BAD:
            name, reason = found[-1]
            raise UserError(
                f"nearly every file is bad, the last one {name}: {reason}; restore the files, remove their lines "
                "from quarantine.txt, and go on by `resume` auto"
            )

    def _arguments(self, number: int) -> tuple:
        """Return the arguments of a batch; called ahead of the batches handed out."""
        return self._source.arguments(self._ids(number), self._quarantine.bad, self._reader)

    def _ids(self, number: int) -> np.ndarray:
        step, part = divmod(number, self._per_step)
        return self._sampler.micro_batch(step, part, self._micro_batch)

    def _find_unreadable(self) -> list[tuple[str, str]]:
        """Find the files that made the batch fail: name and reason."""
        for wait in _WAITS:
            try:
                photos = self._files(0)
                found = list(find_unopened(photos))
                if not found:
                    return self._find_undecoded(photos)
                if len(found) < len(photos) or any(map(self._can_open_some, _ELSEWHERE)):
                    return found
                lost, place = "the first one {}: {}".format(*found[0]), "file system"  # no file can be opened
            except StoreAwayError as error:
                lost, place = first_line(error), "store"
            time.sleep(wait)
        raise UserError(
            f"no file can be read any more, {lost}; see whether its {place} is there, and go on by `resume` auto"
        )

    def _files(self, ahead: int) -> list[Photo]:
        """Return the files of the batch that comes ``ahead`` batches after the one to be delivered."""
        return self._source.files(self._ids(self._delivered + ahead), self._quarantine.bad)

    def _can_open_some(self, ahead: int) -> bool:
        further = self._files(ahead)
        return len(list(find_unopened(further))) < len(further)

    def _find_undecoded(self, photos: list[Photo]) -> list[tuple[str, str]]:
        """Find the files that no decoder takes; those that Pillow takes are left to it from now on."""
        threads = min(self.threads, _ON_GPU) if self._gpu else self.threads
        shares = [photos[i::threads] for i in range(min(threads, len(photos)))]

        def look(share: list[Photo]) -> list[tuple[str, str]]:
            return list(find_unreadable(share, self._device_id, self._reader.by_pillow))

        with ThreadPoolExecutor(len(shares)) as pool:
            return [bad for found in pool.map(look, shares) for bad in found]
