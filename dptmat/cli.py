"""The ``dptmat`` command: reads options, calls one function of the library, and turns user errors into one line.

Each command imports its task itself, so that ``--help`` need not wait for DALI and TensorBoard.
"""

import dataclasses
import sys
from pathlib import Path

import click

from dptmat import config, pretrain_config
from dptmat.errors import UserError


class _Command(click.Command):
    """A command whose help lists its options under the headings of their settings."""

    def format_options(self, ctx, formatter):
        groups = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(option, "group", "Other"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


class _Option(click.Option):
    """An option made from a field of a settings dataclass."""

    def __init__(self, field):
        name, limits = config.option_name(field), field.metadata
        shown = "required" if field.default is dataclasses.MISSING else f"default: {field.default}"
        super().__init__(
            [f"{name}/--no-{name[2:]}" if field.type is bool else name],
            type=click.Choice(limits["choices"]) if limits["choices"] else field.type,
            default=None,  # so that only what was given overrides the configuration file
            metavar=limits["unit"],
            help=limits["help"] + ("" if field.default == "" else f"  [{shown}]"),
        )
        self.group = limits["group"]


def _options(cls, leave_out=()):
    """Decorate a command with the options of settings class ``cls``, without the headings ``leave_out``."""

    def decorate(command):
        fields = [field for field in dataclasses.fields(cls) if field.metadata["group"] not in leave_out]
        command.params = [_Option(field) for field in fields] + command.params
        return command

    return decorate


_config_file = click.option(
    "--config", "config_file", metavar="FILE", help="TOML file of these options, such as the config.toml of a run."
)


def _resolve(cls, config_file, options):
    """Settings from a configuration file and options; what the command line gives wins."""
    values = config.read_toml(config_file) if config_file else {}
    values.update({name: value for name, value in options.items() if value is not None})
    return config.from_mapping(cls, values, f"--config {config_file}")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="dptmat")
def dptmat():
    """Pre-train image-matting networks without labels."""


@_options(pretrain_config.PretrainConfig)
@dptmat.command("pretrain", cls=_Command)
@_config_file
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
def pretrain_command(config_file, dry_run, **options):
    """Pre-train a matting network on photographs without labels.

    Example: dptmat pretrain --data imagenet/train --out runs/first
    """
    settings = _resolve(pretrain_config.PretrainConfig, config_file, options)
    if dry_run:
        click.echo(config.to_toml(settings), nl=False)
    else:
        from dptmat.pretrain import pretrain

        pretrain(settings)


@_options(pretrain_config.PretrainConfig, leave_out=(pretrain_config.RUN, pretrain_config.OPTIM, pretrain_config.MODEL))
@dptmat.command("preview", cls=_Command)
@_config_file
@click.option("--out", required=True, metavar="FILE.png", help="The picture to write.")
def preview_command(config_file, out, **options):
    """Draw what the network will see: foreground, background, trimap, alpha and composite of the first samples.

    Example: dptmat preview --data imagenet/train --out preview.png
    """
    from dptmat.pictures import write_picture
    from dptmat.pretrain import preview

    settings = _resolve(pretrain_config.PretrainConfig, config_file, {**options, "out": str(Path(out).parent)})
    write_picture(out, preview(settings))
    click.echo(out)


@dptmat.command("index")
@click.option("--data", required=True, metavar="DIR|FILE", help="Photographs: a folder, or a text file of paths.")
@click.option("--out", default="photographs.txt", metavar="FILE", show_default=True, help="List of the good ones.")
def index_command(data, out):
    """Decode every photograph once, strictly; name the bad ones and write a list of the good ones for --data.

    Example: dptmat index --data imagenet/train --out train.txt
    """
    from dptmat.index import ImageIndex, check_photographs, write_list

    if Path(out).is_dir() or not Path(out).absolute().parent.is_dir():
        raise UserError(f"--out {out} is a folder or in none; give the name of a file in a folder that exists")
    index = ImageIndex.open(data)
    bad = {}
    with click.progressbar(length=len(index), file=sys.stderr) as bar:
        for checked, found in check_photographs(index):
            bar.update(checked)
            bad.update(found)
    for path, reason in bad.items():
        click.echo(f"left out: {path}: {reason}")
    write_list(out, index, bad)
    click.echo(f"{out}: {len(index) - len(bad)} photographs, {len(bad)} left out")


@dptmat.command("models")
def models_command():
    """List the networks with their parameters and the multiply-adds of one image.

    Any backbone of timm with feature maps at /4, /8, /16 and /32 makes a further one: unet_NAME.
    """
    from dptmat.models import MODELS
    from dptmat.models.cost import cost

    backbones = "resnet18", "resnet34", "resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny"
    click.echo(f"{'network':34} {'parameters':>10} {'multiply-adds, 224x224':>23} {'512x512':>8}")
    for name in (*MODELS, *(f"unet_{backbone}" for backbone in backbones)):
        parameters, (small, large) = cost(name)
        click.echo(f"{name:34} {parameters / 1e6:8.1f} M {small / 1e9:21.1f} G {large / 1e9:6.1f} G")


@dptmat.command("convert")
@click.option(
    "--from", "official", metavar="PROJECT", type=click.Choice(["matteformer", "gca", "mgmatting"]),
    help="The project that published IN: matteformer, gca or mgmatting. By default this is recognised.",
)  # fmt: skip
@click.option(
    "--to", "form", metavar="FORM", type=click.Choice(["dptmat", "timm", "onnx"]), default="dptmat", show_default=True,
    help="dptmat: the network; timm: its encoder as safetensors; onnx: the network for any height and width.",
)  # fmt: skip
@click.argument("path", metavar="IN")
@click.argument("out", metavar="OUT")
def convert_command(official, form, path, out):
    """Turn the weights in IN, of a run or of an official matting project, into the file OUT.

    \b
    Examples: dptmat convert --from matteformer best_model.pth matteformer.pt
              dptmat convert --to timm step-000250000.pt encoder.safetensors
              dptmat convert --to onnx step-000250000.pt network.onnx
    """
    from dptmat import convert, export

    if Path(out).is_dir() or not Path(out).absolute().parent.is_dir():
        raise UserError(f"{out} is a folder or in none; give the name of a file in a folder that exists")
    write = {"dptmat": convert.convert, "timm": export.to_timm, "onnx": export.to_onnx}[form]
    click.echo(write(path, out, official))


def main():
    """Entry point of the console script: exit status 2 and one line for what a user can mend."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files need not be valid text
    try:
        sys.exit(dptmat.main(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        click.echo(f"dptmat: {error.format_message()}", err=True)
    except click.Abort:
        click.echo("dptmat: interrupted", err=True)
        sys.exit(130)
    except (UserError, OSError) as error:
        click.echo(f"dptmat: {error}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
