"""Measure packing against the usual script, and training's CPU pipeline from what is packed against the originals.

    python benchmarks/pack.py --data imagenet/train --json pack.json

Packing: ``usual`` opens each photograph by Pillow, resizes its shorter side bicubically and saves it as a JPEG of
quality 90; ``pack`` writes a shard as ``dptmat pack`` does, damage looked for and tar written included, on one core.

Pipeline: the loader of ``dptmat pretrain`` on the CPU, decode, shrink and warp: of the ``originals``; of these
``copied`` into shards byte for byte, which tells what reading by ranges costs; and ``packed`` to the size of the views.

What is counted is CPU time per photograph of this process with all its threads, so that other work on the machine
matters little: the median, the smallest and the largest of rounds in which all take turns. A turn ends once the
loader has made as many batches ahead as it had at its beginning. ``times`` is the median of the rounds' ratios.
"""

import io
import itertools
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image


@dataclass
class Row:
    contender: str
    cpu_us: float  # per photograph, median of the rounds
    smallest: float
    largest: float
    rounds: list
    times: float  # as fast as the one that it is measured against


def pack_usually(paths, size):
    """Resize photographs by Pillow as scripts do: the bytes of each as a JPEG."""
    for path in paths:
        with Image.open(path) as image:
            scale = size / min(image.size)
            shape = [round(scale * side) for side in image.size]
            file = io.BytesIO()
            image.convert("RGB").resize(shape, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            yield file.getvalue()


def open_packers(data, folder, size):
    """Make the functions that pack all photographs once, and count them."""
    from dptmat.tasks.pack import begin, make_plan
    from dptmat.tasks.pack_shard import PackSettings, pack_part

    plan = make_plan(data, folder / "packing", PackSettings(short_side=size, per_shard=10**6))
    begin(plan)
    part = plan.part(0)
    usual = folder / "usual"
    usual.mkdir()

    def pack_as_scripts_do():
        for i, content in enumerate(pack_usually(part.photos, size)):
            (usual / f"{i}.jpg").write_bytes(content)
        return len(part.photos)

    def pack():
        pack_part(part)
        return len(part.photos)

    return {"usual": pack_as_scripts_do, "pack": pack}


def open_pipelines(data, folder, size, batch_size):
    """Make the functions that load an epoch or more, and count the samples."""
    from dptmat.data.photographs import open_photographs
    from dptmat.tasks import pack, pack_finish
    from dptmat.tasks.pack_shard import PackSettings

    indexes = {"originals": open_photographs(data)}
    for name, reencode in (("copied", False), ("packed", True)):
        plan = pack.make_plan(data, folder / name, PackSettings(short_side=size, per_shard=100, reencode=reencode))
        pack.begin(plan)
        for shard in range(plan.shards):
            pack.pack_shard(shard, plan)
        pack_finish.finish(plan.out)
        indexes[name] = open_photographs(folder / name)
    return {name: make_epoch(index, size, batch_size) for name, index in indexes.items()}


def make_epoch(index, size, batch_size):
    """Make the function that loads as many batches as an epoch has, and as lie ready besides, by a new loader."""
    from dptmat.config.pretrain import PretrainConfig
    from dptmat.data.sampler import Sampler
    from dptmat.pipelines.loader import Loader
    from dptmat.pipelines.pretrain import PretrainSource
    from dptmat.training.build import choose_augmentation
    from dptmat.training.quarantine import Quarantine, name_bad

    settings = PretrainConfig(data="unused", out="unused", size=size, batch_size=batch_size)
    sampler = Sampler(0, len(index), batch_size)
    source = PretrainSource(index, sampler, choose_augmentation(settings), size)
    loader = Loader(source, sampler, micro_batch=batch_size, threads=1, quarantine=Quarantine(name_bad))
    next(loader)

    def load():
        batches = max(4, len(index) // batch_size)
        for _ in itertools.islice(loader, batches):
            pass
        return batches * batch_size

    return load


def settle():
    """Wait until the threads of this process have nothing left to do."""
    before, now = -1.0, time.process_time()
    while now - before > 0.002:
        time.sleep(0.1)
        before, now = now, time.process_time()


def measure(contenders, rounds):
    """Time contenders in turn; yields the ``Row`` of each, against the first."""
    taken = {name: [] for name in contenders}
    for call in contenders.values():
        call()
        settle()
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.process_time()
            count = call()
            settle()
            taken[name].append(1e6 * (time.process_time() - start) / count)
    first = next(iter(taken.values()))
    for name, values in taken.items():
        ratio = float(np.median(np.array(first) / values))
        yield Row(name, float(np.median(values)), min(values), max(values), values, ratio)


@click.command()
@click.option(
    "--data", required=True, metavar="DIR|FILE", help="Photographs as they come: a folder, or a list of paths."
)
@click.option("--size", default=224, show_default=True, metavar="PIXELS", help="Shorter side of what is packed.")
@click.option("--batch-size", default=32, show_default=True, metavar="IMAGES")
@click.option("--rounds", default=5, show_default=True, help="Turns that each contender has.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the rows.")
def main(data, size, batch_size, rounds, out):
    """Measure packing, and loading from what is packed."""
    import cv2
    import torch
    from measure import as_usage_error, describe_environment, write_result

    from dptmat.errors import UserError

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            packers = open_packers(data, Path(folder), size)
            pipelines = open_pipelines(data, Path(folder), size, batch_size)
        except UserError as error:
            raise as_usage_error(error) from error
        click.echo(f"{'contender':12} {'CPU us':>8} {'smallest':>9} {'largest':>8} {'times':>6}")
        for contenders in (packers, pipelines):
            for row in measure(contenders, rounds):
                rows.append(row)
                click.echo(
                    f"{row.contender:12} {row.cpu_us:8,.0f} {row.smallest:9,.0f} {row.largest:8,.0f} {row.times:6.2f}"
                )
    if out:
        options = {"data": data, "size": size, "batch_size": batch_size, "rounds": rounds}
        rows = [asdict(row) for row in rows]
        write_result(out, {**describe_environment(["cpu"]), "options": options, "rows": rows})


if __name__ == "__main__":
    main()
