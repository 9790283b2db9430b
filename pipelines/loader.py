"""Runs the graph: feeds it sample ids ahead of time, hands its outputs to torch without a copy, survives a bad file."""

import time
from typing import NamedTuple

import torch

from dptmat.errors import UserError
from dptmat.pipelines.pretrain import pretrain_graph
from dptmat.pipelines.probe import encode_path, find_unreadable


class Views(NamedTuple):
    """What ``synthesize`` needs of one batch."""

    views: torch.Tensor  # uint8 [N, H, W, 3] RGB
    color: torch.Tensor  # float32 [N, 3, 3]
    ids: torch.Tensor  # int64 [N]


class Loader:
    """Endless iterator over the micro-batches of a run, from any step on.

    Each batch is a function of its number alone, so starting at a step is the same as having run up to it. A photograph
    that cannot be decoded is reported once, and another, drawn from (seed, sample id), takes its place; all other
    samples stay as they are.

    Args:
        index: The photographs (``ImageIndex``).
        sampler: Their order (``Sampler``).
        augmentation: Ranges of the random changes (``Augmentation``).
        size: Side of the square views in pixels.
        micro_batch: Samples per batch; divides the sampler's samples per step.
        device: torch device of the outputs.
        threads: Threads that decode.
        prefetch: Batches prepared ahead.
        start: Step whose first micro-batch comes first.
        report_bad: Called with (path, reason) of each photograph left out.

    Attributes:
        waited: Seconds that ``next`` has waited for data so far.
        bad: Path and reason of each photograph left out, by its number.
    """

    def __init__(
        self, index, sampler, augmentation, *, size, micro_batch, device, threads, prefetch, start, report_bad
    ):
        self._index, self._sampler, self._augmentation = index, sampler, augmentation
        self._size, self._micro_batch, self._report_bad = size, micro_batch, report_bad
        self._per_step = sampler.batch_size // sampler.ranks // micro_batch
        device = torch.device(device)
        self._gpu = device if device.type == "cuda" else None
        self._options = {
            "batch_size": micro_batch,
            "num_threads": threads,
            "prefetch_queue_depth": prefetch,
            "device_id": (device.index or 0) if self._gpu else None,
            "exec_dynamic": True,  # zero-copy outputs that stay valid, and shapes of GPU data on the CPU
        }
        self._delivered = start * self._per_step  # batches handed out since step 0
        self.waited = 0.0
        self.bad = {}
        self._start()

    def __iter__(self):
        return self

    def __next__(self):
        began = time.perf_counter()
        outputs = self._run()
        self._delivered += 1
        batch = Views(*(torch.from_dlpack(output.as_tensor()) for output in outputs))
        self.waited += time.perf_counter() - began
        return batch

    def _start(self):
        """Build the graph so that the batch to be delivered next is its first."""
        self._fed = self._delivered
        self._pipe = pretrain_graph(self._feed, self._size, self._gpu is not None, **self._options)
        self._pipe.build()

    def _run(self):
        while True:
            try:
                # On torch's stream, the outputs are in order with what reads them: neither side waits for the other.
                return self._pipe.run(torch.cuda.current_stream(self._gpu).cuda_stream if self._gpu else None)
            except RuntimeError as error:
                self._leave_out_unreadable(error)
                self._start()  # DALI does not promise that a pipeline can be used after a failure

    def _feed(self):
        """Arguments of the next batch; DALI calls this ahead of the batches handed out."""
        ids = self._ids(self._fed)
        self._fed += 1
        paths = [encode_path(self._index[image]) for image in self._images(ids)]
        affine, color = self._augmentation.matrices(ids, self._sampler.seed, self._size)
        return paths, affine, color, ids

    def _ids(self, number):
        step, part = divmod(number, self._per_step)
        return self._sampler.ids(step)[part * self._micro_batch : (part + 1) * self._micro_batch]

    def _images(self, ids):
        """Numbers of the photographs shown by samples ``ids``, with substitutes for the bad ones."""
        images = self._sampler.images_of(ids).tolist()
        if self.bad:
            for i, ident in enumerate(ids):
                if images[i] in self.bad:
                    images[i] = next(other for other in self._sampler.substitutes(ident) if other not in self.bad)
        return images

    def _leave_out_unreadable(self, error):
        """Find the photographs that made the batch fail; raise ``error`` if none did."""
        images = {self._index[image]: image for image in self._images(self._ids(self._delivered))}
        found = list(find_unreadable(images, self._options["device_id"]))
        if self._gpu and len(found) == len(images):  # the GPU's fault, such as a lack of memory, and not the files'
            found = list(find_unreadable(images, None))
        if not found:
            raise error
        for path, reason in found:
            self.bad[images[path]] = path, reason
            self._report_bad(path, reason)
        if len(self.bad) == len(self._index):
            raise UserError(f"none of the {len(self._index)} photographs can be decoded, the last one {path}: {reason}")
