"""The commands on networks themselves: models, convert and push."""

import click

from dptmat.cli.console import show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import require_place_for_a_file, require_place_for_files

FORMS = ("dptmat", "timm", "onnx", "transformers", "vitmatte")


@dptmat.command("models")
def models_command() -> None:
    """List the networks: parameters, multiply-adds of one image, whether official weights load, published SAD.

    The SAD is that on Composition-1k, copied from the papers; none of it has been reproduced here.

    Any backbone of timm with feature maps at /4, /8, /16 and /32 makes a further one, unet_NAME, and any plain
    transformer of timm, vit_NAME.
    """
    from dptmat.models import MODELS
    from dptmat.models.cost import PUBLISHED, cost
    from dptmat.weights.names import OFFICIAL

    backbones = "resnet18", "resnet34", "resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny"
    loading = {"mgmatting_mask", *(network for networks in OFFICIAL.values() for network in networks)}
    head = f"{'network':34} {'parameters':>10} {'multiply-adds, 224x224':>23} {'512x512':>8}"
    click.echo(f"{head}  official weights  published SAD")
    transformers = "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"
    named = *(f"unet_{backbone}" for backbone in backbones), *(f"vit_{name}" for name in transformers)
    for name in (*MODELS, *named):
        parameters, (small, large) = cost(name)
        row = f"{name:34} {parameters / 1e6:8.1f} M {small / 1e9:21.1f} G {large / 1e9:6.1f} G"
        click.echo(f"{row}  {'load' if name in loading else '-':16}  {PUBLISHED.get(name, '-')}")


@dptmat.command("convert")
@click.option(
    "--from", "official", metavar="PROJECT", type=click.Choice(["dpt", "matteformer", "gca", "mgmatting", "vitmatte"]),
    help="The project that published IN, or whose training wrote it: dpt (the authors' own code, a MatteFormer), "
    "matteformer, gca, mgmatting or vitmatte (its own file, or that of transformers). By default this is recognised.",
)  # fmt: skip
@click.option(
    "--to", "form", metavar="FORM", type=click.Choice(FORMS), default="dptmat", show_default=True,
    help="dptmat: the network; timm: its encoder as safetensors; onnx: the network for any height and width; "
    "transformers: a ViTMatte as a folder OUT of that library; vitmatte: the same as a file of its project.",
)  # fmt: skip
@click.argument("path", metavar="IN")
@click.argument("out", metavar="OUT")
def convert_command(official: str | None, form: str, path: str, out: str) -> None:
    """Turn the weights in IN, of a run, of an official matting project or hf://USER/NAME, into the file OUT.

    \b
    Examples: dptmat convert --from dpt best_model.pth dpt.pt
              dptmat convert --to timm step-000250000.pt encoder.safetensors
              dptmat convert --to onnx step-000250000.pt network.onnx
              dptmat convert --to transformers step-000100000.pt vitmatte
    """
    from dptmat.weights import convert, export

    show_log(err=False)
    if form == "transformers":
        require_place_for_files(out, export.TRANSFORMERS_FILES)
    else:
        require_place_for_a_file(out, out, read=path, replaces=("a ZIP archive", "empty"))
    write = {
        "dptmat": convert.convert, "timm": export.to_timm, "onnx": export.to_onnx, "vitmatte": export.to_vitmatte,
        "transformers": export.to_transformers,
    }[form]  # fmt: skip
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
