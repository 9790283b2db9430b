"""What limits the data path where training waits for it: measured on the files to come, and said with what helps."""

import itertools
import time

import torch

from dptmat.config.run import RunConfig
from dptmat.errors import first_line
from dptmat.pipelines.loader import Loader
from dptmat.training.distributed import Process
from dptmat.training.log import Moment

STEPS, SHARE = 100, 0.05  # over so many steps, a larger share of the time waited is worth a word
_SECONDS = 1.0  # for which each stage is measured
_STAGES = {"read": "reading", "decode": "decoding", "warp": "augmentation"}  # each with those before it
_AMPLE = 1.2  # times as fast as training: then the data path by itself is not what limits


class Bottleneck:
    """Notices that training waits for data, and finds out once why.

    Args:
        loader: The ``Loader`` of the run.
        settings: The settings of the run.
        process: This process, which what is measured and said is for.
        micro_batch: Samples of a batch of the loader.
    """

    def __init__(self, loader: Loader, settings: RunConfig, process: Process, micro_batch: int) -> None:
        self._loader, self._settings, self._process, self._micro_batch = loader, settings, process, micro_batch
        self._gpu = process.device.type == "cuda"
        self._since: Moment | None = None
        self._advised = False

    def look(self, step: int, waited: float) -> str:
        """Look at a run after a report.

        The time before the first report does not count: it holds the start of the data path and of the network.

        Args:
            step: Steps done.
            waited: Seconds that training has waited for data so far.

        Returns:
            Once, a sentence with the share waited, the speed of each stage and the option to change; otherwise "".
        """
        now = Moment(time.perf_counter(), step, waited)
        if self._advised:
            return ""
        if self._since is None:
            self._since = now
        seconds, steps, waited = now.since(self._since)
        if steps < STEPS:
            return ""
        self._since = now
        if waited <= SHARE * seconds:
            return ""
        self._advised = True
        wanted = steps * self._settings.batch_size / self._process.world_size / max(seconds - waited, 1e-9)
        waits = f"waited for data {waited / seconds:.0%} of the last {steps} steps"
        try:
            speeds = {stage: self._measure(stage) for stage in _STAGES}
        except Exception as error:  # a bad file, which the loader will name, or a lack of memory
            return f"{waits}; what limits the data path could not be measured: {first_line(error)}"
        return f"{waits}. " + advise(
            speeds, wanted, gpu=self._gpu, threads=self._loader.threads,
            cores=self._process.cores, prefetch=self._settings.prefetch,
            hw_decoder_load=self._settings.hw_decoder_load,
        )  # fmt: skip

    def _measure(self, stage: str) -> float:
        """Measure the images per second of the graph up to a stage, with nothing else at work."""
        batches = self._loader.run_to(stage)
        for _ in range(self._settings.prefetch + 1):  # those that are ready by then count for nothing
            next(batches)
        start = time.perf_counter()
        for count in itertools.count(1):  # noqa: B007 - the count of the last round
            next(batches)
            if time.perf_counter() - start > _SECONDS:
                break
        if self._gpu:
            torch.cuda.synchronize()
        return count * self._micro_batch / (time.perf_counter() - start)


def advise(
    speeds: dict[str, float],
    wanted: float,
    *,
    gpu: bool,
    threads: int,
    cores: int,
    prefetch: int,
    hw_decoder_load: float,
) -> str:
    """Say what limits the data path, and what to do.

    Args:
        speeds: Images per second of the graph up to "read", "decode" and "warp", the last.
        wanted: Images per second that training would take.
        gpu: Whether the graph decodes and warps on a GPU.
        threads: Threads that it has.
        cores: Cores that it could have.
        prefetch, hw_decoder_load: The settings.

    Returns:
        A sentence or two.
    """
    read, decode, warp = (1 / speeds[stage] for stage in _STAGES)  # seconds per image
    seconds = dict(zip(_STAGES.values(), (read, decode - read, warp - decode), strict=True))
    limit, alone = max(seconds, key=lambda stage: seconds[stage]), min(speeds.values())
    through = ", ".join(f"{name} {speeds[stage]:,.0f}" for stage, name in _STAGES.items())
    measured = f"Training could take {wanted:,.0f} images/s; alone, each stage with those before it makes: {through}"
    smaller = "photographs that dptmat pack has shrunk to `size`"
    if alone > _AMPLE * wanted:
        shared = "" if gpu else " and training computes on the same cores"
        return f"{measured}. That is enough, but files come in bursts{shared}: use `prefetch` {2 * prefetch}"
    if threads < cores:
        remedy = f"`threads` {min(cores, 2 * threads)}"
    elif limit == "reading":
        remedy = f"`threads` {4 * cores}, for more files are read at once then, or a faster disk"
    elif not gpu:
        remedy = f"{smaller}, more processor cores than these {cores}, or a GPU"
    elif limit == "decoding":
        remedy = f"another `hw_decoder_load` than {hw_decoder_load:g}, or {smaller}"
    else:
        remedy = smaller
    return f"{measured}. What limits is {limit}: use {remedy}"
