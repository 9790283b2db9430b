"""Measure the fused operator ``synthesize`` against the same job in plain PyTorch and plain NumPy.

    python benchmarks/synthesize.py --json synthesize.json
    python benchmarks/synthesize.py --device cpu --quick

Equality comes first: trimap, alpha and pairing equal to the NumPy version of ``plain.py`` bit for bit, the floats
within the tolerance stated there. Every version is checked again in every case that is timed, on the first and last
sample. A difference is an error.

What is counted:
- bytes: each input byte once (3 uint8 per pixel, 8 for the id and 36 for the colour matrix of a sample), each output
  byte once (6 + 1 + 1 values of the dtype and 1 uint8 per pixel, 8 for the pairing of a sample). GB/s are these bytes
  over the median time, for the plain versions too, whatever more they move.
- copy: PyTorch's ``copy_`` between two buffers on the device, each of 256 MB or half of these bytes if that is more;
  read and written bytes over the median time. ``share`` is GB/s over it.
- GPU time: one CUDA graph of ``launches`` calls (4 GB of these bytes, 256 calls at most), which take ``buffers`` input
  buffers in turn and keep as many outputs, so that together they exceed twice the L2 cache (64 buffers at most); CUDA
  events around a replay, divided by the calls. So no host time is in it, for the plain versions either. ``timing``
  says ``events`` where the call could not be captured: then the same calls without a graph, host time included.
- host: time to enqueue one call without waiting, median, at batch 8.
- CPU time: the clock around a call on the same inputs, with 1 thread and with all. The milliseconds per sample with
  1 thread are those per sample and core; ``scaling`` is the time with 1 thread over this one.
- peak: GPU memory that one call allocates, outputs included.

``out=`` is dptmat writing over the outputs of an earlier call, as a training loop can; the other versions allocate.
The plain versions get the shift of the pairing as a constant; ``compiled`` is ``torch.compile`` of ``eager``.
"""

import functools
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import plain
import torch
from measure import (
    describe_environment,
    free_bytes,
    measure_copy,
    measure_memory,
    time_clock,
    time_gpu,
    time_host,
    write_result,
)

from dptmat import Batch, synthesize

SEED, FIRST_ID = 2**40 + 7, 2**33 + 5  # both of more than 32 bits
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Row:
    device: str
    version: str  # dptmat, with out= and without; eager, compiled, numpy
    height: int
    width: int
    batch: int
    dtype: str
    layout: str
    threads: int | None  # CPU only
    timing: str  # graph, events or clock
    buffers: int
    launches: int
    repeats: int
    median_us: float
    p10_us: float
    p90_us: float
    bytes: int
    gb_per_s: float
    copy_gb_per_s: float
    share_of_copy: float
    ms_per_sample: float
    host_us: float | None = None  # GPU, batch 8
    peak_mb: float | None = None  # GPU
    times_dptmat: float | None = None  # median over that of dptmat
    scaling: float | None = None  # CPU, more than 1 thread


def make_inputs(device, samples, height, width):
    """Make views uint8 [N, H, W, 3], ids int64 [N] and colour matrices float32 [N, 3, 3] that clip some pixels."""
    rng = np.random.default_rng(samples)
    views = torch.randint(0, 256, (samples, height, width, 3), dtype=torch.uint8, device=device)
    color = torch.from_numpy((np.eye(3) + rng.normal(0, 0.2, (samples, 3, 3))).astype(np.float32))
    return views, (FIRST_ID + torch.arange(samples)).to(device), color.to(device)


def run_dptmat(views, ids, color, dtype, layout, mode="pixel", out=None):
    options = {"mode": mode, "dtype": DTYPES[dtype], "memory_format": LAYOUTS[layout]}
    batch = synthesize(views, ids, SEED, color, **options, out=out)
    return batch.input, batch.alpha, batch.contrast, batch.trimap, batch.pairing


def run_reusing():
    """Make a function like run_dptmat that writes over the outputs of its first call."""
    kept = []

    def run(views, ids, color, dtype, layout):
        outputs = run_dptmat(views, ids, color, dtype, layout, out=kept[0] if kept else None)
        kept[:] = [Batch(*outputs)]
        return outputs

    return run


def run_numpy(views, ids, color, dtype, layout):
    return tuple(map(torch.from_numpy, plain.numpy_synthesize(views.numpy(), ids.numpy(), SEED, color.numpy())))


def run_torch(function, shift, mean, std, views, ids, color, dtype, layout):
    return function(views, color, shift, mean, std, DTYPES[dtype], LAYOUTS[layout])


def list_versions(device, samples, compiled):
    """List what is measured: name to function of (views, ids, color, dtype, layout)."""
    shift = int(plain.numpy_pairing(FIRST_ID, SEED, samples)[0])
    constants = [torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (plain.MEAN, plain.STD)]
    eager = functools.partial(run_torch, plain.synthesize, shift, *constants)
    versions = {"dptmat": run_dptmat, "out=": run_reusing(), "eager": eager}
    if compiled:
        torch.compiler.reset()  # else the limit of recompilations turns the later cases into eager ones
        function = torch.compile(plain.synthesize, fullgraph=True, dynamic=False)
        versions["compiled"] = functools.partial(run_torch, function, shift, *constants)
    return versions | ({"numpy": run_numpy} if device == "cpu" else {})


def check_equality(device, shapes):
    """Compare dptmat and the plain PyTorch version with the NumPy one, in every dtype, layout and mode."""
    for samples, height, width in shapes:
        views, ids, color = make_inputs(device, samples, height, width)
        constants = [torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (plain.MEAN, plain.STD)]
        for dtype in DTYPES:
            largest = 0.0
            for layout, mode in [(layout, mode) for layout in LAYOUTS for mode in ("pixel", "block")]:
                ours = run_dptmat(views, ids, color, dtype, layout, mode)
                plain.check_integers(ours, ids, SEED, mode)
                trimap, alpha = (x[:, 0] for x in (ours[3], (ours[1].float() * 255).round().to(torch.uint8)))
                rest = int(ours[4][0]), *constants, DTYPES[dtype], LAYOUTS[layout]
                for outputs in (ours, plain.compose(views, color, trimap, alpha, *rest)):
                    largest = max(largest, plain.check_floats(outputs, views, color))
            click.echo(f"equal: {device} {dtype} {samples} x {height} x {width}, floats to {largest:.1e}")
    click.echo(f"integers bit for bit; floats within {plain.TOLERANCE}\n")


def measure(device, version, function, inputs, dtype, layout, launches, repeats):
    """Check one version on its first and last sample, then time it: the measured fields of a row."""
    views, ids, color = inputs[0]
    calls = [functools.partial(function, *tensors, dtype, layout) for tensors in inputs]
    outputs, ends = calls[0](), torch.tensor([0, -1])
    plain.check_floats(outputs, views, color, ends)
    if version in ("dptmat", "out=", "numpy"):
        plain.check_integers(outputs, ids, SEED, samples=ends)
    del outputs
    if device == "cpu":
        timing, taken = time_clock(calls[0], 2, repeats)
        return {"timing": timing, "taken": taken}
    timing, taken = time_gpu(calls, launches, repeats)
    host_us = 1e6 * time_host(calls[0], 10 * repeats) if len(ids) == 8 else None
    return {"timing": timing, "taken": taken, "host_us": host_us, "peak_mb": measure_memory(calls[0])}


def measure_case(device, height, width, samples, dtype, layout, threads, quick):
    """Measure every version on one case; yields rows, and a sentence for each that is skipped."""
    name = f"{device} {height}x{width} batch {samples} {dtype} {layout}"
    pixels = samples * height * width
    moved = pixels * (3 + 8 * DTYPES[dtype].itemsize + 1) + samples * (8 + 36 + 8)
    buffers = launches = 1
    if device == "cuda":
        launches = max(1, min(256, int(4e9) // moved))
        buffers = min(64, 1 + 2 * torch.cuda.get_device_properties(0).L2_cache_size // moved)
    need, free = (buffers + 1) * moved + 120 * pixels, free_bytes(device)  # 120: temporaries of the plain versions
    if need > 0.6 * free:
        yield f"{name}: needs {need / 1e9:.1f} GB, more than 60 % of the {free / 1e9:.1f} GB that are free"
        return
    if threads:
        torch.set_num_threads(threads)
    copy = measure_copy(device, max(2**23 if quick else 2**28, moved // 2), threads, quick)
    views, ids, color = make_inputs(device, samples, height, width)
    inputs = [(views if i == 0 else views.clone(), ids, color) for i in range(buffers)]
    ours = None
    for version, function in list_versions(device, samples, compiled=not quick or device == "cuda").items():
        try:
            measured = measure(device, version, function, inputs, dtype, layout, launches, 5 if quick else 50)
        except (torch.OutOfMemoryError, torch._dynamo.exc.TorchDynamoException) as error:
            yield f"{name}, {version}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        taken = np.array(measured.pop("taken"))
        p10, median, p90 = (float(x) for x in np.percentile(taken, [10, 50, 90]))
        ours = median if version == "dptmat" else ours
        yield Row(
            device, version, height, width, samples, dtype, layout, threads, buffers=buffers, launches=launches,
            repeats=len(taken), median_us=1e6 * median, p10_us=1e6 * p10, p90_us=1e6 * p90, bytes=moved,
            gb_per_s=moved / median / 1e9,
            copy_gb_per_s=copy, share_of_copy=moved / median / 1e9 / copy, ms_per_sample=1e3 * median / samples,
            times_dptmat=median / ours if ours else None, **measured,
        )  # fmt: skip


def list_cases(device, quick):
    """List (height, width, batch, dtype, layout); batch 512 at 224 in every dtype and layout on the GPU."""
    if quick:
        return [(30, 45, batch, "float32", "NCHW") for batch in (2, 3)]
    if device == "cpu":
        shapes = (224, 2), (224, 8), (224, 64), (512, 2), (512, 8)
        return [(size, size, batch, "float32", "NCHW") for size, batch in shapes]
    cases = [(size, size, batch, "float16", "NCHW") for size in (224, 512) for batch in (2, 8, 64, 512)]
    every = [(224, 224, 512, dtype, layout) for dtype in DTYPES for layout in LAYOUTS]
    return cases + [case for case in every if case not in cases]


COLUMNS = {  # of the table, with the format of each
    "device": "6", "version": "8", "height": "6", "width": "5", "batch": "5", "dtype": "8", "layout": "13",
    "threads": "7", "median_us": "10.1f", "p10_us": "10.1f", "p90_us": "10.1f", "gb_per_s": "8.2f",
    "copy_gb_per_s": "13.1f", "share_of_copy": "13.1%", "ms_per_sample": "13.4f", "times_dptmat": "12.2f",
    "host_us": "8.1f", "peak_mb": "8.1f", "scaling": "7.2f",
}  # fmt: skip
WIDTHS = {name: int(form.split(".")[0]) for name, form in COLUMNS.items()}


def format_header():
    return " ".join(f"{name:>{width}}" for name, width in WIDTHS.items())


def format_row(row):
    """Format one line of the table; a dash stands for what was not measured."""
    values = ((getattr(row, name), form) for name, form in COLUMNS.items())
    cells = ("-" if value is None else format(value, form) for value, form in values)
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS.values(), strict=True))


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Where to measure; default: every device at hand.")
@click.option("--quick", is_flag=True, help="One tiny size and few repeats, to see that it runs.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
def main(device, quick, out):
    """Measure dptmat.synthesize against the same job in plain PyTorch and plain NumPy."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    devices = [device] if device else ["cuda"] * torch.cuda.is_available() + ["cpu"]
    environment = {**describe_environment(devices), "tolerance": plain.TOLERANCE}
    click.echo("\n".join(f"{name}: {value}" for name, value in environment.items()) + "\n")
    shapes = [(3, 30, 45)] if quick else [(3, 30, 45), (8, 224, 224), (2, 512, 512)]
    for device in devices:
        check_equality(device, shapes)
    rows, skipped, all_threads = [], [], torch.get_num_threads()
    click.echo(format_header())
    for device in devices:
        threads_tried = sorted({1, all_threads}) if device == "cpu" else [None]
        for case, threads in itertools.product(list_cases(device, quick), threads_tried):
            for row in measure_case(device, *case, threads, quick):
                if isinstance(row, str):
                    skipped.append(row)
                    click.echo(f"skipped: {row}")
                    continue
                if device == "cpu" and threads > 1:
                    one = [x.median_us for x in rows if (x.version, x.bytes, x.threads) == (row.version, row.bytes, 1)]
                    row.scaling = one[0] / row.median_us if one else None
                rows.append(row)
                click.echo(format_row(row))
    torch.set_num_threads(all_threads)
    if out:
        write_result(out, {**environment, "rows": [asdict(row) for row in rows], "skipped": skipped})


if __name__ == "__main__":
    main()
