"""Measure how many images per second a training gets through, and how much of its time it waits for data.

    python benchmarks/throughput.py --data imagenet/train
    python benchmarks/throughput.py --data imagenet/train --model gca --batch-size 64 --amp bf16 --compile
    python benchmarks/throughput.py --data imagenet/train --cudnn-benchmark
    python benchmarks/throughput.py --data photos --device cpu --model unet_resnet18 --batch-size 4

Three things in turn over rounds, all with the network, optimizer, settings and defaults of ``dptmat pretrain``:
``synthesize``, trimap, alpha and composite of one micro-batch of views again and again; ``step``, whole steps of the
optimizer on one and the same micro-batch, which no data path can beat; ``training``, the same steps with the data
path, from files. ``of step`` is the speed as a share of that of ``step``.

What is counted:
- A round is as many calls as took ``--seconds`` at first, and ends with a wait for the device. Before a round of
  ``training``, one call more than there are batches ready, with the clock stopped.
- waited, host: the share of a round in which the trainer's process waited for a batch, by its clock.
- waited, GPU: the share in which the GPU had done all its work and the next batch was not there. Between the last
  kernel of a step and the first of the next one two CUDA events are recorded on the trainer's stream, one when the
  batch is asked for and one when it is handed over; the time between them is what the stream idled for data, and no
  more than a few microseconds where the data lay ready.
- gaps, on a GPU: what PyTorch's profiler has seen of some further steps of ``training``, see ``gaps.py``. ``busy`` is
  the share of their time in which the trainer's stream worked.
- peak: VmHWM of the process; of the GPU what PyTorch had allocated at most, and what of it was in use at the end by
  everything, DALI included.
"""

import copy
import itertools
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from bars import Bar, draw_bars
from gaps import record, summarize
from measure import as_usage_error, describe_environment, peak_host_mb, used_device_mb, write_result

from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import to_toml
from dptmat.errors import UserError
from dptmat.tasks.pretrain import Pretraining
from dptmat.training import distributed
from dptmat.training.build import make_loader, make_trainer
from dptmat.training.data_wait import DataWait
from dptmat.training.quarantine import Quarantine, name_bad

PROFILED = 10  # steps that the profiler sees


@dataclass
class Row:
    name: str
    images_per_second: float  # median of the rounds
    smallest: float
    largest: float
    rounds: list
    ms_per_call: float
    of_step: float  # share
    waited_host: float | None  # share, median of the rounds
    waited_gpu: float | None


class Contender:
    """A call that is measured.

    Args:
        call: Does the work once; enqueues it on a GPU.
        images: Samples of a call.
        waiting: ``DataWait`` of the batches that it takes, if any.
        ready: Batches that may lie ready after a pause.
    """

    def __init__(self, call, images, waiting=None, ready=0):
        self._call, self._images, self._waiting, self._ready = call, images, waiting, ready
        self.speeds, self.waited_host, self.waited_gpu = [], [], []

    def warm_up(self, seconds, device):
        """Run a few calls, the first of which compile, and choose the length of a round."""
        self._run(2, device)
        self._count = max(2, round(seconds / self._run(1, device)))

    def measure(self, device):
        """Measure a round."""
        if self._waiting:
            self._run(self._ready + 1, device)
            host, gpu = self._waiting.host_seconds, self._waiting.gpu_seconds
        seconds = self._run(self._count, device)
        self.speeds.append(self._count * self._images / seconds)
        if self._waiting:
            self.waited_host.append((self._waiting.host_seconds - host) / seconds)
            if gpu is not None:
                self.waited_gpu.append((self._waiting.gpu_seconds - gpu) / seconds)

    def row(self, name, step):
        """What the rounds gave; ``step`` is the speed that counts as 1."""
        median = float(np.median(self.speeds))
        host, gpu = (float(np.median(share)) if share else None for share in (self.waited_host, self.waited_gpu))
        spread = min(self.speeds), max(self.speeds), self.speeds
        return Row(name, median, *spread, 1e3 * self._images / median, median / (step or median), host, gpu)

    def profile(self, count):
        """Look at some calls on the GPU, the first of which find what lies ready."""
        for _ in range(self._ready + 1):
            self._call()
        return summarize(record(self._call, count), count)

    def _run(self, count, device):
        start = time.perf_counter()
        for _ in range(count):
            self._call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def make_contenders(settings, process):
    """Make what is measured, by name."""
    task = Pretraining(settings, process)
    trainer, number = make_trainer(task, settings, process), itertools.count()
    waiting = DataWait(make_loader(task, settings, process, 0, Quarantine(name_bad)), process.device)
    batches = map(task.batch, waiting)
    views = next(waiting)
    fixed = itertools.repeat(copy.deepcopy(task.batch(views)))  # the next one may be written over it
    return {
        "synthesize": Contender(lambda: task.batch(views), task.micro_batch),
        "step": Contender(lambda: trainer.step(next(number), fixed), settings.batch_size),
        "training": Contender(
            lambda: trainer.step(next(number), batches), settings.batch_size, waiting, settings.prefetch
        ),
    }


def measure(settings, rounds, seconds):
    """Measure a training: its rows, the peaks of memory in MB, and on a GPU what its steps look like there."""
    process = distributed.single_process(settings.device)
    contenders = make_contenders(settings, process)
    for contender in contenders.values():
        contender.warm_up(seconds, process.device)
    for _ in range(rounds):
        for contender in contenders.values():
            contender.measure(process.device)
    step = float(np.median(contenders["step"].speeds))
    memory, gaps = {"peak_mb": peak_host_mb()}, None
    if process.device.type == "cuda":
        memory |= {"torch_peak_mb": torch.cuda.max_memory_allocated() / 1e6, "device_mb": used_device_mb()}
        try:
            gaps = contenders["training"].profile(PROFILED)
        except ValueError as error:  # what has been measured before is worth having
            click.echo(f"gaps are left out: {error}", err=True)
    return [contender.row(name, step) for name, contender in contenders.items()], memory, gaps


def format_share(value):
    return "-" if value is None else f"{value:.1%}"


def draw(rows, settings, path):
    """Draw the rows that are steps as bars into an image file."""
    bars = []
    for row in rows[1:]:  # synthesize alone is a hundred times faster
        share = row.waited_host if row.waited_gpu is None else row.waited_gpu
        waited = "" if share is None else f"  waited {format_share(share)}"
        text = f"{row.images_per_second:,.1f}{waited}"
        speeds = row.images_per_second, row.smallest, row.largest
        bars.append(Bar(row.name, *speeds, text, row.name == "training"))
    size = f"{settings.size}x{settings.size}"
    draw_bars(f"images/s, {settings.model}, batch {settings.batch_size}, {size}", bars, path)


@click.command()
@click.option("--data", required=True, metavar="DIR|FILE", help="Photographs: a folder, or a text file of paths.")
@click.option("--model", default="matteformer", show_default=True, metavar="NAME", help="Network.")
@click.option("--batch-size", default=64, show_default=True, metavar="IMAGES", help="Of a step.")
@click.option("--micro-batch", default=0, metavar="IMAGES", help="At once; default: as dptmat pretrain chooses.")
@click.option("--size", default=224, show_default=True, metavar="PIXELS")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
@click.option("--amp", type=click.Choice(["auto", "bf16", "fp16", "off"]), default="auto", show_default=True)
@click.option("--compile/--no-compile", default=False, show_default=True, help="As of dptmat pretrain.")
@click.option(
    "--cudnn-benchmark",
    is_flag=True,
    help="Whether cuDNN times its algorithms for each shape and takes the fastest; training takes those it guesses.",
)
@click.option("--threads", default=0, help="That decode; default: all cores.")
@click.option("--prefetch", default=2, show_default=True, metavar="BATCHES", help="Prepared ahead.")
@click.option("--hw-decoder-load", default=0.0, show_default=True, metavar="0..1", help="As of dptmat pretrain.")
@click.option("--rounds", default=5, show_default=True, help="Turns that each has.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of a round, about.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw the bars.")
def main(cudnn_benchmark, rounds, seconds, out, plot, **options):
    """Measure synthesize, a training step and training with the data path, in images per second."""
    torch.backends.cudnn.benchmark = cudnn_benchmark
    try:
        settings = PretrainConfig(out="unused", **options)
        environment = describe_environment(["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"])
        environment |= {"settings": to_toml(settings), "load_before": os.getloadavg()[0]}
        environment |= {"cudnn_benchmark": torch.backends.cudnn.benchmark}
        rows, memory, gaps = measure(settings, rounds, seconds)
    except UserError as error:
        raise as_usage_error(error) from error
    click.echo(f"{environment['devices']}, load {environment['load_before']:.2f}\n")
    click.echo(
        f"{'':12} {'images/s':>9} {'smallest':>9} {'largest':>9} {'ms':>9} {'of step':>8} {'waited, host':>13} "
        f"{'GPU':>6}"
    )
    for row in rows:
        click.echo(
            f"{row.name:12} {row.images_per_second:9,.1f} {row.smallest:9,.1f} {row.largest:9,.1f} "
            f"{row.ms_per_call:9.1f} {row.of_step:8.1%} {format_share(row.waited_host):>13} "
            f"{format_share(row.waited_gpu):>6}"
        )
    click.echo("\n" + "  ".join(f"{name}: {value:.0f}" for name, value in memory.items()))
    if gaps:
        click.echo("  ".join(f"{name}: {value:.3g}" for name, value in gaps.items()))
    if out:
        write_result(out, {**environment, **memory, "gaps": gaps, "rows": [asdict(row) for row in rows]})
    if plot:
        draw(rows, settings, plot)


if __name__ == "__main__":
    main()
