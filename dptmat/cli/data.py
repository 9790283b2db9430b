"""The commands on photographs."""

import os
import sys
from pathlib import Path

import click

from dptmat.cli.console import escape, show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import require_place_for_a_file
from dptmat.errors import UserError


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
    import numpy as np

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


@dptmat.command("index")
@click.option("--data", required=True, metavar="DIR|FILE|URL", help="Photographs, as pretrain --data takes them.")
@click.option(
    "--out", metavar="FILE|DIR",
    help="What to write: a list of the good ones, by default photographs.txt; or where they are in shards a folder "
    "that tells where in them, by default photographs.",
)  # fmt: skip
def index_command(data: str, out: str | None) -> None:
    """Decode every photograph once, strictly; name the bad ones and write what lists the good ones for --data.

    Example: dptmat index --data imagenet/train --out train.txt
    """
    from dptmat.data.check import check_photographs
    from dptmat.data.index import ImageIndex, write_list
    from dptmat.data.photographs import open_photographs
    from dptmat.data.storage import open_store

    show_log(err=True)
    index = open_photographs(data)
    out = out or ("photographs.txt" if isinstance(index, ImageIndex) else "photographs")
    if isinstance(index, ImageIndex):
        require_place_for_a_file(out, f"--out {out}", replaces=("text", "empty"))
    else:
        _require_place_for_an_index(out, index.url)
    index.require_some_file(f"`data` {data}")
    bad: dict[str, str] = {}
    with click.progressbar(length=len(index), file=sys.stderr) as bar:
        for checked, found in check_photographs(index):
            bar.update(checked)
            bad.update(found)
    for path, reason in bad.items():
        click.echo(f"left out: {path}: {reason}")
    if len(bad) >= len(index):
        raise UserError(f"none of the {len(index)} photographs of `data` {data} can be read, so {out} is not written")
    if isinstance(index, ImageIndex):
        write_list(out, index, bad)
    else:
        index.write_index(open_store(out, "out"), bad)
    click.echo(f"{out}: {len(index) - len(bad)} photographs, {len(bad)} left out")


def _require_place_for_an_index(out: str, data: str) -> None:
    """Refuse a folder for the index of shards that holds something else, or the shards themselves."""
    from dptmat.data.shard_list import INDEX

    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out} is a file; the photographs are in shards, of which a folder is written")
    if os.path.realpath(folder) == os.path.realpath(data):
        raise UserError(f"--out {out} is the folder of the shards, whose own index it would replace; give another one")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX).exists():
        raise UserError(f"--out {out} holds something else; give a new folder")
