"""The ``dptmat`` command: reads options, calls one function of the library, and turns user errors into one line.

Each command imports its task itself, so that ``--help`` need not wait for DALI and TensorBoard.
"""

import dataclasses
import re
import sys
from pathlib import Path

import click

from dptmat.config import finetune as finetune_config
from dptmat.config import pretrain as pretrain_config
from dptmat.config import run as run_config
from dptmat.config import settings as config
from dptmat.errors import UserError


class _Command(click.Command):
    """A command whose help lists its options under the headings of their settings, and whose errors name its options.

    The library speaks of its parameters, between backticks.
    """

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            options = {parameter.name: parameter.opts[0] for parameter in self.params}
            message = re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[1]), str(error))
            raise click.ClickException(message) from error

    def format_options(self, ctx, formatter):
        groups = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(sorted(records, key=lambda record: "[required]" not in record[1]))


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


_device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where the network runs; auto: on the GPU if there is one.",
)  # fmt: skip
_amp = click.option(
    "--amp", type=click.Choice(["off", "auto", "bf16", "fp16"]), default="off", show_default=True,
    help="Mixed precision: faster, alpha differs a little; auto: bf16 where the GPU has it, fp16 on older ones.",
)  # fmt: skip


def _out_folder(what):
    return click.option("--out", required=True, metavar="DIR", help=f"Folder of {what}; made if missing.")


def _report(line):
    click.echo(f"\n{line}" if sys.stderr.isatty() else line, err=True)  # below the line of a progress bar


def _resolve(cls, config_file, options):
    """Settings from a configuration file and options; what the command line gives wins."""
    values = config.read_toml(config_file) if config_file else {}
    values.update({name: value for name, value in options.items() if value is not None})
    return config.from_mapping(cls, values, f"--config {config_file}")


def _require_place_for_a_file(path, name):
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise UserError(f"{name} is a folder or in none; give the name of a file in a folder that exists")


class _Group(click.Group):
    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="dptmat")
def dptmat():
    """Pre-train image-matting networks without labels."""


@_options(pretrain_config.PretrainConfig)
@dptmat.command("pretrain")
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
        from dptmat.tasks.pretrain import pretrain

        pretrain(settings)


@_options(finetune_config.FinetuneConfig)
@dptmat.command("finetune")
@_config_file
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
def finetune_command(config_file, dry_run, **options):
    """Fine-tune a matting network on foregrounds with alpha mattes over backgrounds.

    Example: dptmat finetune --fg train/fg --alpha train/alpha --bg coco --init runs/first/checkpoints/step-000250000.pt
    --out runs/fine
    """
    settings = _resolve(finetune_config.FinetuneConfig, config_file, options)
    if dry_run:
        click.echo(config.to_toml(settings), nl=False)
    else:
        from dptmat.tasks.finetune import finetune

        finetune(settings)


@_options(pretrain_config.PretrainConfig, leave_out=(run_config.RUN, run_config.OPTIM, run_config.MODEL))
@dptmat.command("preview")
@_config_file
@click.option("--out", required=True, metavar="FILE.png", help="The picture to write.")
def preview_command(config_file, out, **options):
    """Draw what the network will see: foreground, background, trimap, alpha and composite of the first samples.

    Example: dptmat preview --data imagenet/train --out preview.png
    """
    from dptmat.contact_sheets import write_picture
    from dptmat.tasks.pretrain import preview

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
    from dptmat.data.check import check_photographs
    from dptmat.data.index import ImageIndex, write_list

    _require_place_for_a_file(out, f"--out {out}")
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
    from dptmat.weights import convert, export

    _require_place_for_a_file(out, out)
    write = {"dptmat": convert.convert, "timm": export.to_timm, "onnx": export.to_onnx}[form]
    click.echo(write(path, out, official))


@dptmat.command("evaluate")
@click.option("--checkpoint", metavar="FILE", help="The network to judge: of a run, or an official checkpoint.")
@click.option("--predictions", metavar="DIR", help="Or alphas to judge, whatever made them; scored as they are.")
@click.option("--data", metavar="DIR", help="A test set of a known layout; the next three win over it.")
@click.option("--image", metavar="DIR", help="Images.")
@click.option(
    "--trimap", metavar="DIR|all-unknown|from-alpha",
    help="Trimaps; or all-unknown, to show the network none and score whole images; or from-alpha, to make them.",
)  # fmt: skip
@click.option("--alpha", metavar="DIR", help="True alphas.")
@click.option("--out", metavar="DIR", help="Folder for scores.csv, scores.json and the predictions.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of --trimap from-alpha.")
@_device
@_amp
@click.option(
    "--tile", type=int, default=0, show_default=True, metavar="PIXELS",
    help="Cut larger images into tiles of this side, a multiple of 224 from 448; 0: only if the memory runs out.",
)  # fmt: skip
def evaluate_command(checkpoint, predictions, data, image, trimap, alpha, out, seed, device, amp, tile):
    """Score a network on a test set by SAD, MSE, Grad and Conn; or alphas that are there as files.

    Images, trimaps and alphas of one name belong together. The exit status is 1 if one could not be read: it is named,
    left out, and the rest is scored.

    \b
    Examples: dptmat evaluate --checkpoint step-000250000.pt --data Composition-1k --out scores
              dptmat evaluate --checkpoint matteformer.pt --image image --trimap from-alpha --alpha alpha
              dptmat evaluate --predictions theirs --trimap trimaps --alpha alpha
    """
    from dptmat.data.eval_sets import list_cases
    from dptmat.defaults import TRIMAP_SOURCES
    from dptmat.device import choose_device
    from dptmat.tasks.evaluate import evaluate, table
    from dptmat.weights.load import load_network

    if (checkpoint is None) == (predictions is None):
        raise UserError("give one of --checkpoint, a network, and --predictions, a folder of alphas")
    cases = list_cases(data=data, image=image, trimap=trimap, alpha=alpha, predictions=predictions)
    network = load_network(checkpoint, choose_device(device))[0] if checkpoint else None
    with click.progressbar(length=len(cases), file=sys.stderr) as bar:
        evaluation = evaluate(
            cases, network, out=out, trimap=trimap if trimap in TRIMAP_SOURCES else "files", seed=seed, tile=tile,
            amp=amp, checkpoint=checkpoint, report=_report, progress=lambda: bar.update(1),
        )  # fmt: skip
    if evaluation.known_regions == "from trimap":
        click.echo("predictions are 0 and 255 where the trimap is, as in published results", err=True)
    else:
        click.echo("predictions are scored as they are, also where the trimap is 0 and 255", err=True)
    click.echo(table(evaluation))
    if out:
        click.echo(f"{out}: scores.csv, scores.json" + (" and the predictions in alpha" if network else ""))
    if evaluation.left_out:
        click.get_current_context().exit(1)


@dptmat.command("predict")
@click.option("--checkpoint", required=True, metavar="FILE", help="Network: a run's, converted, or as published.")
@click.option("--image", required=True, metavar="DIR|FILE", help="Images: a folder, one, or a text file of paths.")
@click.option(
    "--trimap", metavar="DIR|FILE",
    help="Trimaps of the same names (0 background, 128 unknown, 255 foreground), or masks; needless for a network that "
    "takes the image alone.",
)  # fmt: skip
@_out_folder("the alphas NAME.png")
@click.option(
    "--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Bits of the alphas, rounded."
)
@click.option("--cutout", is_flag=True, help="Also write cutout/NAME.png: foreground colours and alpha, 8 bits each.")
@click.option(
    "--dilate", metavar="PIXELS", type=click.IntRange(min=0),
    help="--trimap holds masks, foreground from 128: unknown becomes what is this near to their outline.",
)  # fmt: skip
@_device
@_amp
@click.option(
    "--tile", metavar="PIXELS", type=click.IntRange(min=0),
    help="Side of the tiles of a large image, a multiple of 224 from 448; 0 never cuts unless the memory runs out.  "
    "[default: 2016, for gca 1568]",
)  # fmt: skip
def predict_command(checkpoint, image, trimap, out, bits, cutout, dilate, device, amp, tile):
    """Predict the alpha of images of any size.

    An image that cannot be predicted is named and the others are predicted; the exit status is then 1, or 2 if none is.

    \b
    Examples: dptmat predict --checkpoint matteformer.pt --image photos --trimap trimaps --out alphas
              dptmat predict --checkpoint matteformer.pt --image cat.jpg --trimap cat_mask.png --dilate 20 --out cat
    """
    from dptmat.device import choose_device
    from dptmat.tasks.predict import find_samples, predict
    from dptmat.weights.load import load_network

    options = {"bits": int(bits), "cutout": cutout, "dilate": dilate, "tile": tile, "amp": amp}
    network, _ = load_network(checkpoint, choose_device(device))
    samples = find_samples(network, image, trimap, out)
    results = predict(network, samples, out, **options, report=_report)
    with click.progressbar(results, length=len(samples), file=sys.stderr) as bar:
        left_out = [(name, reason) for name, reason in bar if reason]
    for name, reason in left_out:
        click.echo(f"left out: {name}: {reason}", err=True)
    click.echo(f"{out}: {len(samples) - len(left_out)} alphas, {len(left_out)} left out")
    if left_out:
        click.get_current_context().exit(2 if len(left_out) == len(samples) else 1)


@dptmat.command("compose")
@click.option("--fg", required=True, metavar="DIR", help="Foregrounds.")
@click.option("--alpha", required=True, metavar="DIR", help="Their alphas, of the same names and sizes.")
@click.option("--bg", required=True, metavar="DIR", help="Backgrounds, as many as there will be composites, or more.")
@_out_folder("the composites merged/NAME_0.png, merged/NAME_1.png and so on, and their alphas in alpha_copy/")
@click.option(
    "--each", metavar="NUMBER", type=click.IntRange(min=1), default=20, show_default=True,
    help="Composites of each foreground, over as many backgrounds, the next ones for the next foreground.",
)  # fmt: skip
@click.option("--trimap", metavar="DIR", help="Trimaps of the foregrounds, to be copied to trimaps/ beside the alphas.")
@click.option("--fg-names", metavar="FILE", help="Names of the foregrounds in order, one a line; by default sorted.")
@click.option("--bg-names", metavar="FILE", help="Names of the backgrounds in order, one a line; by default sorted.")
def compose_command(fg, alpha, bg, out, each, trimap, fg_names, bg_names):
    """Build a test set by the rule of Composition-1k: every foreground over 20 backgrounds.

    \b
    Example: dptmat compose --fg Test_set/fg --alpha Test_set/alpha --bg VOC2012/JPEGImages --out composition-1k
                            --fg-names Test_set/test_fg_names.txt --bg-names Test_set/test_bg_names.txt
    """
    from dptmat.tasks.compose_test_set import compose, find_foregrounds

    foregrounds = find_foregrounds(fg, alpha, bg, out, each=each, trimap=trimap, fg_names=fg_names, bg_names=bg_names)
    total = len(foregrounds) * each
    with click.progressbar(compose(foregrounds, out), length=total, file=sys.stderr) as bar:
        for _ in bar:
            pass
    click.echo(f"{out}: {total} composites of {len(foregrounds)} foregrounds")


@dptmat.command("report")
@click.option("--run", "run", required=True, metavar="DIR", help="Folder that a training wrote: its --out.")
@click.option("--out", default="report.html", metavar="FILE", show_default=True, help="The page to write.")
def report_command(run, out):
    """Write one HTML page on a run: its curves, its scores and its pictures; it opens anywhere, without a network.

    Example: dptmat report --run runs/first --out report.html
    """
    from dptmat.report.page import report

    _require_place_for_a_file(out, f"--out {out}")
    for line in report(run, out):
        click.echo(f"missing: {line}")
    click.echo(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB")


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
