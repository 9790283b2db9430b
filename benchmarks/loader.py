"""Measure the data path stage by stage, and against a PyTorch ``DataLoader`` with OpenCV (``usual.py``).

    python benchmarks/loader.py --data imagenet/train --json loader.json --plot loader.png
    python benchmarks/loader.py --data imagenet/train --device cpu --batch-size 64 --threads 2

Stages, each with all before it: ``read`` the files; ``decode``; ``shrink``, antialiased, to the size of the view;
``warp``, the whole graph; ``pipeline``, with ``synthesize``, as ``dptmat pretrain`` runs it: input float32
[N, 6, H, W], channels last, alpha, contrast and trimap, on the CPU over the memory of the batch before. The pairing is
that of dptmat: each photograph is decoded once and used twice. ``official-code recipe`` is the whole of it by
``recipes/pretrain/official-code.toml``, with two photographs for a sample. ``DataLoader`` decodes two, too, as the
usual code does, and ``DataLoader direct`` is the same written with more care; ``DataLoader albumentations``, which
takes part if that library is installed, does it by its operators. Before anything is timed, their first batches have to
agree with those of ``pipeline`` in shapes, dtypes, shares and statistics. ``DataLoader released`` makes its samples as
the released code of the method's authors does; it and our recipe have to have the shares and alphas of that code.

What is counted:
- Each contender is a process of its own, and idle while it is not its turn. A round is as many batches as took
  ``--seconds`` at first, in multiples of the threads; batches that lay ready and two more come before the clock starts.
  images/s are samples of a round over its time; the median, the smallest and the largest of the rounds are given.
- waited: the share of a round in which the consumer waited for data. The rest is ``synthesize`` where there is one.
- start: seconds from an empty process to the first batch, and those of them after the imports.
- peak: VmHWM of the process, and of each worker process that it has; pages that they share count in each. GPU: how
  much less of it was free once the contender ran.
"""

import importlib.util
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

STAGES = "read", "decode", "shrink"
LOADERS = {
    "DataLoader": "usual",
    "DataLoader direct": "direct",
    "DataLoader albumentations": "albumentations",
    "DataLoader released": "released",
}
RECIPE = "official-code recipe"
CONTENDERS = (*STAGES, "warp", "pipeline", RECIPE, *LOADERS)
WHOLE = "pipeline", RECIPE, *LOADERS  # those that end in a network's input


@dataclass(frozen=True)
class Options:
    """What a contender process is told."""

    data: str
    device: str
    batch_size: int
    size: int
    threads: int
    prefetch: int
    hw_decoder_load: float
    seconds: float


@dataclass
class Row:
    contender: str
    images_per_second: float  # median of the rounds
    smallest: float
    largest: float
    rounds: list
    times_dataloader: float | None
    waited: float  # share, median of the rounds
    start_s: float
    start_after_imports_s: float
    peak_mb: float
    peak_workers_mb: list
    device_mb: float | None


def make_settings(options, recipe=False):
    """Make the settings of the training whose data path is measured: of the paper, or of the released code's recipe."""
    from dptmat.config.pretrain import PretrainConfig
    from dptmat.config.settings import read_toml

    path = Path(__file__).parents[1] / "recipes/pretrain/official-code.toml"
    given = read_toml(path, "the recipe") | {"sync_bn": False} if recipe else {}
    return PretrainConfig(
        **given, data=options.data, out="unused", size=options.size, batch_size=options.batch_size,
        micro_batch=options.batch_size, device=options.device, threads=options.threads, prefetch=options.prefetch,
        hw_decoder_load=options.hw_decoder_load,
    )  # fmt: skip


def open_contender(name, options):
    """Build a contender: an endless iterator, what is done with each batch, and how many batches may lie ready."""
    from usual import make_batches

    from dptmat.data.index import ImageIndex
    from dptmat.tasks.pretrain import Pretraining
    from dptmat.training.build import make_loader
    from dptmat.training.distributed import single_process
    from dptmat.training.quarantine import Quarantine, name_bad

    imported = time.perf_counter()
    if name in LOADERS:
        index = ImageIndex.open(options.data)
        paths = [index[i] for i in range(len(index))]
        rest = options.size, options.batch_size, options.threads, options.device
        return make_batches(paths, *rest, LOADERS[name]), lambda batch: batch, 2 * options.threads, imported
    settings, process = make_settings(options, name == RECIPE), single_process(options.device)
    task = Pretraining(settings, process)
    loader = make_loader(task, settings, process, 0, Quarantine(name_bad))
    if name in STAGES:
        return loader.run_to(name), lambda outputs: outputs, options.prefetch, imported

    def compose(views):
        batch = task.batch(views)
        return batch.input, batch.alpha, batch.trimap

    return loader, compose if name in WHOLE else lambda views: views, options.prefetch, imported


def serve(connection, name, options):
    """Be the process of one contender: say how its start went, then measure a round whenever asked, until told not to.

    Sends:
        Dictionary of the start, then for each round (images per second, share waited), then memory.
    """
    began = time.perf_counter()
    import torch
    from measure import peak_host_mb, used_device_mb
    from usual import describe

    torch.set_num_threads(options.threads)
    gpu = options.device == "cuda"
    used = used_device_mb() if gpu else 0
    batches, finish, ready, imported = open_contender(name, options)
    outputs = finish(next(batches))
    first = time.perf_counter()
    description = describe(*outputs) if name in WHOLE else None
    del outputs

    def run(count):
        """Take some batches: seconds, and seconds waited."""
        start, waited = time.perf_counter(), 0.0
        for _ in range(count):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            finish(batch)
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start, waited

    run(ready)
    seconds, _ = run(2 * options.threads)
    count = options.threads * max(1, round(2 * options.seconds / seconds))
    taken = used_device_mb() - used if gpu else None
    connection.send({"start_s": first - began, "start_after_imports_s": first - imported, "description": description})
    while connection.recv():
        run(ready + 2)
        seconds, waited = run(count)
        connection.send((count * options.batch_size / seconds, waited / seconds))
    workers = [peak_host_mb(worker.pid) for worker in multiprocessing.active_children()]
    connection.send({"peak_mb": peak_host_mb(), "peak_workers_mb": workers, "device_mb": taken})
    connection.recv()  # until it is ended: to end by itself would mean to wait for the batches that workers have begun


def ask(process, connection, name, question=None):
    """Send a question to a contender's process and wait for the answer."""
    try:
        if question is not None:
            connection.send(question)
        return connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise click.ClickException(f"{name} has ended with status {process.exitcode}; its message is above") from None


def measure(names, options, rounds):
    """Measure contenders in turn; yields the ``Row`` of each."""
    context, running = multiprocessing.get_context("spawn"), {}
    try:
        starts = {}
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, name, options))
            process.start()
            theirs.close()
            running[name] = process, ours
            starts[name] = ask(process, ours, name)  # one after the other: each start has the machine to itself
        require_equal_work({name: start.pop("description") for name, start in starts.items()})
        results = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                results[name].append(ask(*running[name], name, True))
        baseline = results.get("DataLoader")
        usual = float(np.median([speed for speed, _ in baseline])) if baseline else None
        for name in names:
            speeds, waited = zip(*results[name], strict=True)
            memory, median = ask(*running[name], name, False), float(np.median(speeds))
            yield Row(
                name, median, min(speeds), max(speeds), speeds, median / usual if usual else None,
                float(np.median(waited)), **starts[name], **memory,
            )  # fmt: skip
    finally:
        for process, _ in running.values():
            process.terminate()


def require_equal_work(descriptions):
    """Refuse contenders whose first batches do not look alike."""
    from usual import RELEASED, RELEASED_TOLERANCES, require_alike

    whole = {name: description for name, description in descriptions.items() if description}
    ours = whole.get("pipeline")
    for name, theirs in whole.items():
        if ours and (LOADERS.get(name) == "released" or name == RECIPE):
            require_alike(ours | RELEASED, theirs, RELEASED_TOLERANCES)
        elif ours and name in LOADERS:
            require_alike(ours, theirs)


def draw(rows, options, path):
    """Draw the rows as bars into an image file."""
    from bars import Bar, draw_bars

    title = f"images/s, {options.device}, {options.threads} threads, batch {options.batch_size}, {options.size}x"
    bars = []
    for row in [row for row in rows if row.contender != "read"] or rows:  # beside it the others would be dots
        times = f"  {row.times_dataloader:.1f}x" if row.times_dataloader else ""
        text = f"{row.images_per_second:,.0f}{times}  {(row.peak_mb + sum(row.peak_workers_mb)) / 1e3:.1f} GB"
        ours = row.contender not in LOADERS
        bars.append(Bar(row.contender, row.images_per_second, row.smallest, row.largest, text, ours))
    draw_bars(f"{title}{options.size}", bars, path)


@click.command()
@click.option("--data", required=True, metavar="DIR|FILE", help="Photographs: a folder, or a text file of paths.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: the GPU if there is one.")
@click.option("--batch-size", default=64, show_default=True, metavar="IMAGES")
@click.option("--size", default=224, show_default=True, metavar="PIXELS", help="A multiple of 32.")
@click.option("--threads", default=None, type=int, show_default="all cores", help="Of DALI; DataLoader workers.")
@click.option("--prefetch", default=2, show_default=True, metavar="BATCHES", help="Prepared ahead by DALI.")
@click.option("--hw-decoder-load", default=0.0, show_default=True, metavar="0..1", help="As of dptmat pretrain.")
@click.option("--rounds", default=5, show_default=True, help="Turns that each contender has.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of a round, about.")
@click.option("--contender", "names", multiple=True, type=click.Choice(CONTENDERS), help="Default: all.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw the bars.")
def main(data, device, threads, rounds, names, out, plot, **rest):
    """Measure the stages of the data path and the usual DataLoader, in turn."""
    import torch
    from measure import as_usage_error, describe_environment, write_result

    from dptmat.data.index import ImageIndex
    from dptmat.data.sampler import Sampler
    from dptmat.device import count_cores
    from dptmat.errors import UserError

    cuda = torch.cuda.is_available()
    albumentations = importlib.util.find_spec("albumentations")
    if "DataLoader albumentations" in names and not albumentations:
        raise click.UsageError("--contender DataLoader albumentations needs that library: pip install albumentations")
    if device == "cuda" and not cuda:
        raise click.UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    options = Options(data, device or ("cuda" if cuda else "cpu"), threads=threads or count_cores(), **rest)
    try:
        Sampler(0, len(ImageIndex.open(data)), make_settings(options).batch_size)
    except UserError as error:
        raise as_usage_error(error) from error
    environment = {**describe_environment([options.device, "cpu"]), "options": asdict(options)}
    environment["load_before"] = os.getloadavg()[0]
    click.echo(f"{environment['devices']}, load {environment['load_before']:.2f}\n")
    click.echo(
        f"{'contender':25} {'images/s':>9} {'smallest':>9} {'largest':>9} {'times':>6} {'waited':>7} {'start s':>8} "
        f"{'imports':>8} {'peak MB':>8} {'workers':>16} {'GPU MB':>7}"
    )
    rows, chosen = [], names or [name for name in CONTENDERS if name != "DataLoader albumentations" or albumentations]
    for row in measure([name for name in CONTENDERS if name in chosen], options, rounds):
        rows.append(row)
        times = f"{row.times_dataloader:.2f}" if row.times_dataloader else "-"
        workers = " + ".join(f"{mb:.0f}" for mb in row.peak_workers_mb) or "-"
        click.echo(
            f"{row.contender:25} {row.images_per_second:9,.1f} {row.smallest:9,.1f} {row.largest:9,.1f} {times:>6} "
            f"{row.waited:7.1%} {row.start_s:8.2f} {row.start_s - row.start_after_imports_s:8.2f} {row.peak_mb:8.0f} "
            f"{workers:>16} {'-' if row.device_mb is None else f'{row.device_mb:.0f}':>7}"
        )
    if out:
        write_result(out, {**environment, "rows": [asdict(row) for row in rows]})
    if plot:
        draw(rows, options, plot)


if __name__ == "__main__":
    main()
