"""The commands on photographs."""

import sys

import click
import numpy as np

from dptmat.cli.console import escape, show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import require_place_for_a_file


@dptmat.command("stats")
@click.option("--data", required=True, metavar="DIR|FILE|URL", help="Photographs, as pretrain --data takes them.")
@click.option(
    "--samples", type=click.IntRange(1), default=2000, show_default=True, metavar="N",
    help="Photographs to look at, spread evenly over all.",
)  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="To tell the time of decoding.")
@click.option("--size", type=click.IntRange(1), default=224, show_default=True, metavar="PIXELS", help="Of a run.")
@click.option("--out", metavar="FILE.png", help="Picture of the distributions, to be made.")
def stats_command(data: str, samples: int, epochs: int, size: int, out: str | None) -> None:
    """Tell how many photographs there are and of what sizes, kinds and bytes, and how fast this machine decodes them.

    Example: dptmat stats --data imagenet/train --epochs 100 --out imagenet.png
    """
    from dptmat.data.photographs import open_photographs
    from dptmat.report.distributions import draw_distributions
    from dptmat.tasks.stats import measure, table

    show_log(err=True)
    if out:
        require_place_for_a_file(out, f"--out {out}", replaces=("a PNG file", "empty"))
    index = open_photographs(data)
    index.require_some_file(f"`data` {data}")
    with click.progressbar(length=min(samples, len(index)), file=sys.stderr) as bar:
        stats = measure(index, samples, lambda: bar.update(1))
    click.echo(escape(table(stats, epochs=epochs, size=size)))
    if out:
        title = f"{len(stats.width):,} of {stats.photographs:,} photographs"
        draw_distributions(out, title, np.stack([stats.width, stats.height], axis=1), stats.bytes, size)
        click.echo(out)
