"""The commands that make networks: pretrain and finetune, and what is seen before: preview."""

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
