"""The command that makes large data ready for training: pack."""

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from dptmat.cli.console import show_log
from dptmat.cli.group import dptmat
from dptmat.errors import UserError

if TYPE_CHECKING:
    from dptmat.tasks.pack_finish import Packed


@dptmat.command("pack")
@click.option(
    "--data", metavar="DIR|FILE|URL",
    help="Photographs, as pretrain --data takes them: a folder, a list of paths (- for the standard input), shards.",
)  # fmt: skip
@click.option("--out", required=True, metavar="DIR|URL", help="Where the shards go; made if missing.")
@click.option(
    "--short-side", metavar="PIXELS", type=int, default=224, show_default=True,
    help="Shrink each photograph to so many pixels on its shorter side, never enlarge it: the --size of the training "
    "to come.",
)  # fmt: skip
@click.option(
    "--quality", metavar="1..100", type=int, default=90, show_default=True, help="Quality of the JPEGs, as libjpeg's."
)
@click.option(
    "--sampling", type=click.Choice(["420", "444"]), default="420", show_default=True,
    help="Colour of the JPEGs: 420 for one value for 2 x 2 pixels, 444 for one for each (a quarter more bytes).",
)  # fmt: skip
@click.option(
    "--per-shard", metavar="N", type=int, default=16384, show_default=True,
    help="Photographs of a shard, of which one worker packs each: fewer for small data sets on many cores.",
)  # fmt: skip
@click.option("--reencode/--no-reencode", default=True, help="--no-reencode copies the bytes of the files as they are.")
@click.option(
    "--min-side", metavar="PIXELS", type=int, default=0,
    help="Leave out photographs with fewer pixels on their shorter side.",
)  # fmt: skip
@click.option(
    "--workers", metavar="N", type=click.IntRange(1, 1024), help="Processes on this machine; by default one per core."
)
@click.option(
    "--shard", metavar="K/N",
    help="Pack one share of all: K of N machines, K from 0. Without it RANK/WORLD_SIZE of torchrun or the numbers of a "
    "Slurm array say it, where there are any.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Who packs: processes of this machine, or the machines of a Ray cluster.",
)  # fmt: skip
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster; auto for the one this machine belongs to.")
@click.option("--finish", is_flag=True, help="Pack nothing, and write the index of shards that are all done.")
@click.option("--force", is_flag=True, help="Delete what is in --out if it was packed from other data or otherwise.")
def pack_command(
    data: str | None, out: str, workers: int | None, shard: str | None, engine: str, address: str | None,
    finish: bool, force: bool, **settings: int | str | bool,
) -> None:  # fmt: skip
    """Shrink photographs and put many into each of a few large files, which training reads 2 to 4 times as fast.

    Each photograph is decoded, turned upright, shrunk as pretrain would, and written as a JPEG into a tar; its colours
    stay as they are stored, its colour profile and EXIF are dropped. Bad ones are named and left out. A run that was
    ended in any way goes on by the same command. The result is the --data of pretrain, and WebDataset's format, too.

    \b
    Examples: dptmat pack --data imagenet/train --out packed
              dptmat pack --data imagenet/train --out s3://bucket/packed --shard 3/8
    """  # fmt: skip
    from dptmat.data.storage import open_store
    from dptmat.device import count_cores
    from dptmat.tasks import pack, pack_finish
    from dptmat.tasks.pack_shard import PackSettings

    show_log(err=True)
    if not finish:
        if data is None:
            raise UserError("`data` is missing: give the photographs, or --finish for shards that are all done")
        if address and engine == "local":
            raise UserError("`address` is of a Ray cluster; give --engine ray, too")
        share = _share(shard) if engine == "local" or shard else (0, 1)
        plan = pack.make_plan(data, out, PackSettings(**settings))  # type: ignore[arg-type]
        pack.begin(plan, force=force)
        shards = pack.missing_shards(plan, share)
        photographs = sum(len(plan.sources(number)) for number in shards)
        _show(pack.pack(plan, shards, workers=workers or count_cores(), engine=engine, address=address), photographs)
        if missing := pack.missing_shards(plan):
            click.echo(
                f"{out}: {plan.shards - len(missing)} of {plan.shards} shards are done; the index is written with the "
                "last one, by whichever machine packs it"
            )
            return
    _tell(out, pack_finish.finish(open_store(out, "out")))


def _show(counts: Iterable[int], total: int) -> None:
    """Show how many photographs have been looked at, how many in a second, and the time that is left."""
    begun, seen = time.monotonic(), 0
    with click.progressbar(length=total, file=sys.stderr, label="packing", item_show_func=lambda rate: rate) as bar:
        for count in counts:
            seen += count
            bar.update(count, f"{seen / (time.monotonic() - begun):,.0f} images/s")


def _tell(out: str, packed: "Packed") -> None:
    for name, reason in packed.first_bad:
        click.echo(f"left out: {name}: {reason}")
    if packed.bad > len(packed.first_bad):
        click.echo(f"left out: {packed.bad - len(packed.first_bad)} more; {out}/left_out.txt names them all")
    small = f", {packed.small} too small" if packed.small else ""
    click.echo(
        f"{out}: {packed.images} photographs in {packed.shards} shards, {packed.bytes / 1e6:,.1f} MB; "
        f"{packed.bad} left out{small}"
    )


def _share(shard: str | None) -> tuple[int, int]:
    """Read K/N, or take both from the environment of torchrun or Slurm: (0, 1) where nothing says otherwise."""
    if shard is not None:
        first, _, count = shard.partition("/")
        if first.isdecimal() and count.isdecimal() and int(first) < int(count):
            return int(first), int(count)
        raise UserError(f"`shard` must be K/N with K from 0 to N - 1, such as 0/8; got {shard!r}")
    for name, k, n in (
        ("RANK", os.environ.get("RANK"), os.environ.get("WORLD_SIZE")),
        ("SLURM_ARRAY_TASK_ID", _slurm_place(), os.environ.get("SLURM_ARRAY_TASK_COUNT")),
    ):
        if k and n and n != "1":
            if not (k.isdecimal() and n.isdecimal() and int(k) < int(n)):
                raise UserError(f"{name} gives the share {k} of {n}, which is none; give `shard` K/N")
            click.echo(f"packing share {k} of {n}, by {name}", err=True)
            return int(k), int(n)
    return 0, 1


def _slurm_place() -> str | None:
    """Return the place of this task in its array, whose numbers may begin and step as they like."""
    number, first, step = (os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "MIN", "STEP"))
    if number.isdecimal() and (first or "0").isdecimal() and (step or "1").isdecimal():
        return str((int(number) - int(first or 0)) // max(1, int(step or 1)))
    return number or None
