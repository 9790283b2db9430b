"""The commands on networks themselves: models, convert and push."""

import json

import click

from dptmat.cli.console import show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import require_place_for_a_file, require_place_for_files

FORMS = ("dptmat", "timm", "onnx", "transformers", "vitmatte")


@dptmat.command("models")
def models_command() -> None:
    """List the networks: parameters, multiply-adds, memory, whether official weights load, published SAD.

    Multiply-adds are those of one image of that side. Memory is the peak of all tensors alone in float32, without the
    allocator, CUDA and what kernels take for themselves: of a training step with two crops of 512x512, and of the
    prediction of one image of that side, in the tiles that predict takes.

    The SAD is that on Composition-1k, copied from the papers that are named; none of it has been reproduced here.

    Any backbone of timm with feature maps at /4, /8, /16 and /32 makes a further one, unet_NAME, and any plain
    transformer of timm, vit_NAME.
    """
    from dptmat.models.cost import COSTS, PUBLISHED
    from dptmat.weights.names import OFFICIAL

    loading = {"mgmatting_mask", *(network for networks in OFFICIAL.values() for network in networks)}
    click.echo(f"{'':34} {'':10} {'multiply-adds':>17}   memory in training, of prediction  official")
    head = f"{'network':34} {'parameters':>10} {'224':>8} {'512':>8} {'2 x 512':>12} {'512':>9} {'2048':>9}"
    click.echo(f"{head}  weights   published SAD")
    for name, row in json.loads(COSTS.read_text()).items():
        figures = f"{row['parameters'] / 1e6:8.1f} M"
        figures += "".join(f" {row[f'multiply_adds_{side}'] / 1e9:6.1f} G" for side in (224, 512))
        figures += f" {row['training'] / 1e9:9.2f} GB"
        figures += "".join(f" {row[f'prediction_{side}'] / 1e9:6.2f} GB" for side in (512, 2048))
        official = "load" if name in loading else "-"
        click.echo(f"{name:34} {figures}  {official:8}  {PUBLISHED.get(name, '-')}")


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
