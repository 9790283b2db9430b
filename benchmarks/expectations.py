"""Derive, without a GPU, what one should reach in pre-training: from multiply-adds, bytes and launches of a step.

    python benchmarks/expectations.py
    python benchmarks/expectations.py --model matteformer --micro-batch 32 --markdown

Nothing here is measured: the numbers are there to be contradicted by ``throughput.py``. A step is one micro-batch, from
uint8 views to new weights. It is carried out with tensors that have a shape and no values, and for each operator of
forward, backward and update is counted what it multiplies and which bytes it reads and writes.

- bound: every operator takes what its multiply-adds take at the peak of the tensor cores or what its bytes take at the
  rate of a copy, whichever is longer; they follow each other without a gap. Nothing but fewer operators goes past it.
- expected: likewise at half of that peak, which large convolutions reach in practice, and with 2 microseconds for each
  operator at least, how little it may have to do; and no faster than the host, which takes 6 microseconds for a launch:
  Python, autograd and the driver.
"""

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import click
import torch
from launches import Launches
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils

from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.models import create_model
from dptmat.models.cost import cost
from dptmat.training.optim import adamw, clip_gradients
from dptmat.training.trainer import Buffers

HOST = 6e-6  # seconds for a launch: 4 to 6 without autograd are usual on servers of these GPUs
LEAST = 2e-6  # seconds that a kernel takes on the GPU, however small
REACHED = 0.5  # share of the peak that is expected of large convolutions and matrix products
MODELS = "matteformer", "gca", "unet_resnet50"


@dataclass(frozen=True)
class Gpu:
    dtype: torch.dtype  # of the mixed precision
    multiply_adds: float  # per second, dense: half of the FLOPS in the data sheet
    bytes: float  # per second, read and written by a copy


# Peaks are of NVIDIA's data sheets of the SXM modules: 125, 989 and 989 TFLOPS. Copies reach 88 % of the memory's rate:
# 900, 3350 and 4800 GB/s.
GPUS = {
    "V100": Gpu(torch.float16, 62.5e12, 0.79e12),
    "H100": Gpu(torch.bfloat16, 494.5e12, 2.95e12),
    "H200": Gpu(torch.bfloat16, 494.5e12, 4.2e12),
}


@dataclass
class Row:
    model: str
    gpu: str
    amp: str
    multiply_adds: float  # of convolutions and matrix products in a step
    gigabytes: float
    launches: int
    gpu_ms: float  # expected
    host_ms: float
    images_per_second: float  # expected
    bound: float  # images per second


@contextmanager
def without_values(network, device):
    """Give a network tensors without values on a device; those made within have none either."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode():
            network._apply(lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device))
            yield network
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def count_passes(name, size, micro_batch, dtype):
    """Count forward and backward pass: on a CPU, since autograd asks for a GPU's driver; operators are the same."""
    torch.manual_seed(0)
    with without_values(create_model(name).to(memory_format=torch.channels_last).train(), "cpu") as network:
        views = torch.empty(micro_batch, size, size, 3, dtype=torch.uint8)
        ids, color = torch.empty(micro_batch, dtype=torch.int64), torch.empty(micro_batch, 3, 3)
        with Launches() as passes:
            batch = synthesize(views, ids, 0, color)
            with torch.autocast("cpu", dtype):
                outputs = network(batch.input)
            sum(matting_losses(outputs, batch, ("l1", "comp", "lap")).values()).backward()
    return passes.work


def count_update(name):
    """Count what comes after the gradients."""
    with without_values(create_model(name).train(), "cuda") as network:
        optimizer, running = adamw(network, 0.05, (0.9, 0.95)), torch.zeros((), device="cuda")
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
        buffers = Buffers(network)
        optimizer.step()  # makes its moments
        # PyTorch takes tensors without values one by one, and those of a GPU together.
        together = [torch.nn.Parameter, torch.Tensor, FakeTensor]
        with patch.object(_foreach_utils, "_foreach_supported_types", together), Launches() as update:
            buffers.note()
            norm = clip_gradients(network.parameters(), 5.0, 2.0, running)
            optimizer.found_inf = (~norm.isfinite()).float()
            optimizer.step()
            buffers.put_back_if(~norm.isfinite())
    return update.work


def seconds_of(work, gpu, share_of_peak=1.0, least=0.0):
    """Add up what the operators take, one after the other."""
    return sum(max(count / (share_of_peak * gpu.multiply_adds), moved / gpu.bytes, least) for count, moved in work)


def expect(model, gpu_name, work, micro_batch):
    """Derive a row from the work of a step."""
    gpu = GPUS[gpu_name]
    on_gpu, on_host = seconds_of(work, gpu, REACHED, LEAST), HOST * len(work)
    return Row(
        model, gpu_name, {torch.float16: "fp16", torch.bfloat16: "bf16"}[gpu.dtype],
        sum(count for count, _ in work), sum(moved for _, moved in work) / 1e9, len(work),
        1e3 * on_gpu, 1e3 * on_host, micro_batch / max(on_gpu, on_host), micro_batch / seconds_of(work, gpu),
    )  # fmt: skip


def derive(models, size, micro_batch):
    """Make the rows of the table."""
    rows = []
    for model in models:
        update = count_update(model)
        works = {dtype: count_passes(model, size, micro_batch, dtype) for dtype in {g.dtype for g in GPUS.values()}}
        rows += [expect(model, name, works[gpu.dtype] + update, micro_batch) for name, gpu in GPUS.items()]
    return rows


HEADINGS = "model", "GPU", "amp", "Tmadd", "GB", "launches", "GPU ms", "host ms", "images/s", "bound"


def cells(row):
    return (
        row.model, row.gpu, row.amp, f"{row.multiply_adds / 1e12:.2f}", f"{row.gigabytes:.0f}", f"{row.launches:,}",
        f"{row.gpu_ms:.0f}", f"{row.host_ms:.0f}", f"{row.images_per_second:,.0f}", f"{row.bound:,.0f}",
    )  # fmt: skip


def as_markdown(rows):
    """Write the table of docs/performance.md."""
    head, *body = (f"| {' | '.join(line)} |" for line in (HEADINGS, *map(cells, rows)))
    return "\n".join([head, "|" + 3 * "---|" + 7 * "--:|", *body])


@click.command()
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, metavar="NAME")
@click.option("--size", default=224, show_default=True, metavar="PIXELS")
@click.option("--micro-batch", default=64, show_default=True, metavar="IMAGES")
@click.option("--markdown", is_flag=True, help="As a table of docs/performance.md.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
def main(models, size, micro_batch, markdown, out):
    """Derive what a V100, an H100 and an H200 should reach in pre-training."""
    rows = derive(models, size, micro_batch)
    if markdown:
        click.echo(as_markdown(rows))
    else:
        for line in (HEADINGS, *map(cells, rows)):
            click.echo(f"{line[0]:16}{line[1]:6}{line[2]:6}" + "".join(f"{cell:>10}" for cell in line[3:]))
        for model in models:
            _, (count,) = cost(model, (size,))
            click.echo(f"{model}: 3 x {micro_batch} x {count / 1e9:.2f} G multiply-adds of the forward pass")
    if out:
        out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
