"""Measure the networks: forward, and forward with backward, in images per second.

    python benchmarks/models.py --json models.json
    python benchmarks/models.py --device cpu --model gca --batch 4

Before a variant is timed its alphas are compared with the float32 ones of the plain eager network: equal to
1e-4 in float32, to 0.1 in bfloat16 (random weights magnify a rounding). ``share of peak`` is the multiply-adds of
convolutions and matrix products, three times those of the forward pass with the backward one, over the rate of a large
matrix product of the same dtype in the same run: what no change of the code beyond the arithmetic can go past.
"""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np
import torch
from measure import describe_environment, time_clock, write_result

from dptmat import create_model
from dptmat.models.cost import cost

# Name of a variant: dtype, channels_last, compiled.
VARIANTS = {
    "float32": (torch.float32, False, False),
    "float32 channels_last": (torch.float32, True, False),
    "float32 compiled": (torch.float32, False, True),
    "bfloat16": (torch.bfloat16, False, False),
    "bfloat16 channels_last": (torch.bfloat16, True, False),
    "bfloat16 channels_last compiled": (torch.bfloat16, True, True),
}
DEFAULTS = {"cpu": ["float32", "float32 channels_last"], "cuda": list(VARIANTS)}


@dataclass
class Row:
    device: str
    model: str
    variant: str
    batch: int
    size: int
    forward_ms: float
    step_ms: float  # forward and backward
    images_per_s: float  # of these steps
    share_of_peak: float
    peak_gb: float | None  # GPU


def make_input(network, batch, size, device):
    """Make noise and a trimap of 16x16 cells: float32 [N, in_channels, size, size]."""
    image = torch.randn(batch, 3, size, size)
    cells = torch.randint(0, 3, (batch, size // 16, size // 16))
    trimap = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)
    guidance = torch.nn.functional.one_hot(trimap, 3).permute(0, 3, 1, 2).float()
    if network.in_channels == 4:
        guidance = guidance[:, 2:]
    return torch.cat([image, guidance], 1).to(device)


def time_step(call, device, repeats):
    """Time calls to their end on the device: median in seconds."""

    def finished():
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    finished()
    return float(np.median(time_clock(finished, 20, repeats)[1]))


@cache
def measure_peak(device, dtype):
    """Measure a large matrix product: multiply-adds per second."""
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return n**3 / time_step(lambda: a @ b, device, 10)


@cache
def count_multiply_adds(name, size):
    _, (count,) = cost(name, (size,))
    return count


def measure(name, variant, batch, size, device, repeats):
    """Measure one network in one variant."""
    dtype, channels_last, compiled = VARIANTS[variant]
    torch.manual_seed(0)
    network = create_model(name).to(device)
    x = make_input(network, batch, size, device)
    with torch.no_grad():
        expected = network.eval()(x)["alpha_os1"]
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    torch.compiler.reset()
    run = torch.compile(network, fullgraph=True) if compiled else network
    mixed = torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext()

    def forward():
        with mixed:
            return run(x)

    def step():
        network.zero_grad(set_to_none=True)
        sum(alpha.mean() for alpha in forward().values()).backward()

    with torch.no_grad():
        difference = (forward()["alpha_os1"] - expected).abs().max().item()
    if not difference < (1e-4 if dtype == torch.float32 else 0.1):
        raise ValueError(f"{name} {variant}: alpha differs by {difference} from the float32 network's")
    network.train()
    with torch.no_grad():
        forward_time = time_step(forward, device, repeats)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step_time = time_step(step, device, repeats)
    multiply_adds = count_multiply_adds(name, size)
    return Row(
        device, name, variant, batch, size, 1e3 * forward_time, 1e3 * step_time, batch / step_time,
        3 * batch * multiply_adds / step_time / measure_peak(device, dtype),
        torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
    )  # fmt: skip


@click.command()
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), help="Where to measure; default: the GPU if there is one."
)
@click.option(
    "--model", "models", multiple=True, default=["matteformer", "gca", "mgmatting", "unet_resnet50"], metavar="NAME"
)
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)))
@click.option("--batch", default=4, show_default=True, metavar="IMAGES")
@click.option("--size", default=224, show_default=True, metavar="PIXELS")
@click.option("--repeats", default=10, show_default=True)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
def main(device, models, variants, batch, size, repeats, out):
    """Measure the networks, forward and backward."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    environment, rows = describe_environment([device]), []
    click.echo(
        f"{'model':16} {'variant':32} {'forward ms':>10} {'step ms':>9} {'images/s':>9} {'of peak':>8} {'GB':>6}"
    )
    for name in models:
        for variant in variants or DEFAULTS[device]:
            row = measure(name, variant, batch, size, device, repeats)
            rows.append(row)
            memory = f"{row.peak_gb:6.2f}" if row.peak_gb else f"{'-':>6}"
            click.echo(
                f"{name:16} {variant:32} {row.forward_ms:10.1f} {row.step_ms:9.1f} {row.images_per_s:9.1f} "
                f"{row.share_of_peak:8.1%} {memory}"
            )
    if out:
        write_result(out, {**environment, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
