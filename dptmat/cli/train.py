"""The commands that make networks: pretrain and finetune, and what is seen and checked before: preview and index."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from dptmat.cli.console import show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import config_file_option, dry_run_option, require_place_for_a_file, resolve, settings_options
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.config.run import AUGMENTATION, DATA, METHOD
from dptmat.config.settings import to_toml
from dptmat.errors import UserError


@dptmat.command("pretrain")
@settings_options(PretrainConfig)
@config_file_option
@dry_run_option
def pretrain_command(config_file: str | None, dry_run: bool, **options: Any) -> None:
    """Pre-train a matting network on photographs without labels.

    Example: dptmat pretrain --data imagenet/train --out runs/first
    """
    show_log(err=dry_run)
    settings = resolve(PretrainConfig, config_file, options)
    if dry_run:
        click.echo(to_toml(settings), nl=False)
    else:
        from dptmat.tasks.pretrain import pretrain

        pretrain(settings)


@dptmat.command("finetune")
@settings_options(FinetuneConfig)
@config_file_option
@dry_run_option
def finetune_command(config_file: str | None, dry_run: bool, **options: Any) -> None:
    """Fine-tune a matting network on foregrounds with alpha mattes over backgrounds.

    Example: dptmat finetune --fg train/fg --alpha train/alpha --bg coco --init runs/first/checkpoints/step-000250000.pt
    --out runs/fine
    """
    show_log(err=dry_run)
    settings = resolve(FinetuneConfig, config_file, options)
    if dry_run:
        click.echo(to_toml(settings), nl=False)
    else:
        from dptmat.tasks.finetune import finetune

        finetune(settings)


@dptmat.command("preview")
@settings_options(
    PretrainConfig, (DATA, METHOD, AUGMENTATION), ("device", "threads", "prefetch", "hw_decoder_load", "quarantine")
)
@config_file_option
@click.option("--out", required=True, metavar="FILE.png", help="The picture to write.")
def preview_command(config_file: str | None, out: str, **options: Any) -> None:
    """Draw what the network will see: foreground, background, trimap, alpha and composite of the first samples.

    Example: dptmat preview --data imagenet/train --out preview.png
    """
    from dptmat.contact_sheets import require_format, write_sheet
    from dptmat.tasks.pretrain import preview

    show_log(err=False)
    settings = resolve(PretrainConfig, config_file, {**options, "out": out})
    require_place_for_a_file(settings.out, f"--out {out}")
    require_format(settings.out)
    if Path(settings.out).exists() and Path(settings.data).resolve() in Path(settings.out).resolve().parents:
        raise UserError(f"--out {out} is there already, in the folder that is read; give another name")
    write_sheet(settings.out, preview(settings), named=True)
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
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out} is a file; the photographs are in shards, of which a folder is written")
    if os.path.realpath(folder) == os.path.realpath(data):
        raise UserError(f"--out {out} is the folder of the shards, whose own index it would replace; give another one")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "index.json").exists():
        raise UserError(f"--out {out} holds something else; give a new folder")
