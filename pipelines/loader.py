"""Runs the graph: feeds it sample ids ahead of time, hands its outputs to torch without a copy, survives a bad file."""

import itertools
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch

from dptmat.errors import UserError
from dptmat.pipelines.paths import find_unopened
from dptmat.pipelines.probe import find_unreadable

_TRIES = 5  # of a batch whose files can all be decoded when asked one by one
_FULL_OF_BAD = 8  # times in a row that substitutes in one batch are bad, too
_WAITS = 1, 2, 4, 8, 16  # seconds for a file system to come back


class Loader:
    """Endless iterator over the micro-batches of a run, from any step on.

    Each batch is a function of its number alone, so starting at a step is the same as having run up to it. A file that
    cannot be read or decoded is reported once, and another, drawn from (seed, sample id), takes its place; all other
    samples stay as they are. A failure that is gone when the files are looked at costs a second try of the batch.

    Args:
        source: The graph and its arguments for any sample ids (``PretrainSource`` or ``FinetuneSource``).
        sampler: The order of the ids (``Sampler``).
        micro_batch: Samples per batch; divides the sampler's samples per step.
        device: torch device of the outputs.
        threads: Threads that decode.
        prefetch: Batches prepared ahead.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        start: Step whose first micro-batch comes first.
        quarantine: What is left out (``Quarantine``): grows by what is found here, and may grow by what others find.
    """

    def __init__(self, source, sampler, *, micro_batch, device, threads, prefetch, hw_decoder_load, start, quarantine):
        self._source, self._sampler = source, sampler
        self._micro_batch, self._quarantine = micro_batch, quarantine
        self._per_step = sampler.batch_size // sampler.world_size // micro_batch
        device = torch.device(device)
        self._gpu = device if device.type == "cuda" else None
        self._options = {
            "gpu": self._gpu is not None,
            "hw_decoder_load": hw_decoder_load,
            "batch_size": micro_batch,
            "num_threads": threads,
            "prefetch_queue_depth": prefetch,
            "device_id": (device.index or 0) if self._gpu else None,
            "exec_dynamic": True,  # zero-copy outputs that stay valid, and shapes of GPU data on the CPU
        }
        self._delivered = start * self._per_step  # batches handed out since step 0
        source.require_some(quarantine.bad)
        self._start()

    def __iter__(self):
        return self

    def __next__(self):
        outputs = self._run()
        self._delivered += 1
        return self._source.outputs(*(torch.from_dlpack(output.as_tensor()) for output in outputs))

    def run_stage(self, stage):
        """Run a graph of its own as far as a stage, without end, on the batches that the loader will want next.

        For measuring: a file that cannot be read ends it.

        Args:
            stage: The last one to run, as ``until`` of the source's graph.

        Yields:
            DALI's outputs of each batch.

        Raises:
            RuntimeError: A file cannot be read or decoded.
        """
        numbers = itertools.count(self._fed)

        def feed():
            return self._source.arguments(self._ids(next(numbers)), self._quarantine.bad)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The external source node")  # a stage does not need all inputs
            pipe = self._source.graph(feed, until=stage, **self._options)
            pipe.build()
        while True:
            yield pipe.run()

    def _start(self):
        """Build the graph so that the batch to be delivered next is its first."""
        self._fed = self._delivered
        self._pipe = self._source.graph(self._feed, **self._options)
        self._pipe.build()

    def _run(self):
        failures = rounds = 0
        while True:
            try:
                # On torch's stream, the outputs are in order with what reads them: neither side waits for the other.
                return self._pipe.run(torch.cuda.current_stream(self._gpu).cuda_stream if self._gpu else None)
            except RuntimeError as error:
                found = self._unreadable()
                failures, rounds = failures + (not found), rounds + bool(found)
                if failures == _TRIES:
                    raise UserError(
                        f"a batch cannot be made, though each of its files can be decoded: "
                        f"{str(error).splitlines()[0]}; if memory is short, use a smaller --micro-batch or --prefetch"
                    ) from error
            for path, reason in found:
                self._quarantine.add(path, reason)
            self._source.require_some(self._quarantine.bad)
            if rounds == _FULL_OF_BAD:
                path, reason = found[-1]
                raise UserError(
                    f"nearly every file is bad, the last one {path}: {reason}; restore the files, remove their lines "
                    "from quarantine.txt, and go on by --resume auto"
                )
            self._start()  # DALI does not promise that a pipeline can be used after a failure

    def _feed(self):
        """Arguments of the next batch; DALI calls this ahead of the batches handed out."""
        self._fed += 1
        return self._source.arguments(self._ids(self._fed - 1), self._quarantine.bad)

    def _ids(self, number):
        step, part = divmod(number, self._per_step)
        return self._sampler.micro_batch(step, part, self._micro_batch)

    def _unreadable(self):
        """The files that made the batch fail: list of (path, reason)."""
        paths = self._files(0)
        for wait in _WAITS:
            found = list(find_unopened(paths))
            if not found:
                return self._undecoded(paths)
            further = self._files(1)
            if len(found) < len(paths) or len(list(find_unopened(further))) < len(further):
                return found
            time.sleep(wait)  # no file at all can be opened: their file system is away
        path, reason = found[0]
        raise UserError(
            f"no file can be read any more, the first one {path}: {reason}; see whether its file system is there, and "
            "go on by --resume auto"
        )

    def _files(self, ahead):
        """The files of the batch that comes ``ahead`` batches after the one to be delivered."""
        return self._source.files(self._ids(self._delivered + ahead), self._quarantine.bad)

    def _undecoded(self, paths):
        found = _decode_apart(paths, self._options["device_id"], self._options["num_threads"])
        if self._gpu and len(found) == len(paths):  # the GPU's fault, such as a lack of memory, and not the files'
            found = _decode_apart(paths, None, self._options["num_threads"])
        return found


def _decode_apart(paths, device_id, threads):
    """(path, reason) of each file that cannot be decoded, found by several threads."""
    shares = [paths[i::threads] for i in range(min(threads, len(paths)))]
    with ThreadPoolExecutor(len(shares)) as pool:
        found = pool.map(lambda share: list(find_unreadable(share, device_id)), shares)
        return [bad for share in found for bad in share]
