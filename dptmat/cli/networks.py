"""The commands on networks themselves: models, convert and push."""

import click

from dptmat.cli.console import show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import require_place_for_a_file


@dptmat.command("models")
def models_command() -> None:
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
    "--from", "official", metavar="PROJECT", type=click.Choice(["dpt", "matteformer", "gca", "mgmatting"]),
    help="The project that published IN, or whose training wrote it: dpt (the authors' own code, a MatteFormer), "
    "matteformer, gca or mgmatting. By default this is recognised.",
)  # fmt: skip
@click.option(
    "--to", "form", metavar="FORM", type=click.Choice(["dptmat", "timm", "onnx"]), default="dptmat", show_default=True,
    help="dptmat: the network; timm: its encoder as safetensors; onnx: the network for any height and width.",
)  # fmt: skip
@click.argument("path", metavar="IN")
@click.argument("out", metavar="OUT")
def convert_command(official: str | None, form: str, path: str, out: str) -> None:
    """Turn the weights in IN, of a run, of an official matting project or hf://USER/NAME, into the file OUT.

    \b
    Examples: dptmat convert --from dpt best_model.pth dpt.pt
              dptmat convert --to timm step-000250000.pt encoder.safetensors
              dptmat convert --to onnx step-000250000.pt network.onnx
    """
    from dptmat.weights import convert, export

    show_log(err=False)
    require_place_for_a_file(out, out, read=path, replaces=("a ZIP archive", "empty"))
    write = {"dptmat": convert.convert, "timm": export.to_timm, "onnx": export.to_onnx}[form]
    write(path, out, official)


@dptmat.command("push")
@click.option(
    "--license", "license", required=True, metavar="NAME",
    help="Licence of the weights, as the Hub calls it: apache-2.0, mit, cc-by-nc-4.0, ...",
)  # fmt: skip
@click.option("--private", is_flag=True, help="Make the repository private, if there is none yet.")
@click.option("--out", metavar="DIR", help="Write the folder instead, new or empty, and send nothing.")
@click.argument("path", metavar="RUN|FILE")
@click.argument("name", metavar="USER/NAME")
def push_command(license: str, private: bool, out: str | None, path: str, name: str) -> None:
    """Share a network on the Hugging Face Hub: its weights, what it is, and a card made from its run.

    \b
    Examples: dptmat push runs/first me/first --license apache-2.0 --out look
              dptmat push runs/first me/first --license apache-2.0
    """
    from dptmat.tasks.push import push_to_hub

    show_log(err=True)
    click.echo(push_to_hub(path, name, license=license, private=private, out=out))
