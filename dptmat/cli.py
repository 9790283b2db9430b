"""The ``dptmat`` command: reads options, calls one function of the library, and turns user errors into one line.

Each command imports its task itself, so that ``--help`` need not wait for PyTorch.
"""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.config.run import AUGMENTATION, DATA, GROUPS, LEADING, METHOD
from dptmat.config.settings import SettingsT, from_mapping, read_toml, to_toml
from dptmat.defaults import DEVICES, PRECISIONS, TRIMAP_SOURCES
from dptmat.errors import UserError


class _Command(click.Command):
    """A command whose help lists its options by groups, and whose errors name its options.

    The library names its parameters, between backticks.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(_with_options(str(error), self)) from error


def _with_options(message: str, command: click.Command) -> str:
    """Write the parameters that a message of the library names, between backticks, as options of the command."""
    options = {parameter.name: parameter.opts[0] for parameter in command.params}
    return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[1]), message)


class _Group(click.Group):
    command_class = _Command


class _Option(click.Option):
    """An option made from a field of a settings dataclass."""

    def __init__(self, field: dataclasses.Field) -> None:
        name, limits = _option_name(field.name), field.metadata
        shown = "required" if field.default is dataclasses.MISSING else f"default: {field.default}"
        super().__init__(
            [f"{name}/--no-{name[2:]}" if field.type is bool else name, field.name],
            type=click.Choice(limits["choices"]) if limits["choices"] else field.type,
            default=None,  # so that only what was given overrides the configuration file
            metavar=limits["unit"],
            help=limits["help"] + ("" if field.default == "" else f"  [{shown}]"),
        )
        self.group = limits["group"]


class _FormerOption(click.Option):
    """The former name of an option, which is still taken."""

    def __init__(self, field: dataclasses.Field) -> None:
        name = _option_name(field.metadata["formerly"])
        names = f"{name}/--no-{name[2:]}" if field.type is bool else name
        super().__init__([names, field.metadata["formerly"]], type=field.type, default=None, hidden=True)


def _option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _rank(field: dataclasses.Field) -> tuple[int, int]:
    """Rank an option for the help text: by its group, the leading ones of each first."""
    place = LEADING.index(field.name) if field.name in LEADING else len(LEADING)
    return GROUPS.index(field.metadata["group"]), place


def _options(
    cls: type, groups: tuple[str, ...] = GROUPS, further: tuple[str, ...] = ()
) -> Callable[[Callable], Callable]:
    """Decorate a function with the options of a settings class: those of some groups, and further ones by name."""

    def decorate(function: Callable) -> Callable:
        fields = [f for f in dataclasses.fields(cls) if f.metadata["group"] in groups or f.name in further]
        options: list[click.Option] = [_Option(field) for field in sorted(fields, key=_rank)]
        options += [_FormerOption(field) for field in fields if field.metadata["formerly"]]
        # As click's own decorators do it, from the last to the first.
        function.__dict__.setdefault("__click_params__", []).extend(reversed(options))
        return function

    return decorate


_config_file = click.option(
    "--config", "config_file", metavar="FILE", help="TOML file of these options, such as the config.toml of a run."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
_device = click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where the network runs; auto: on the GPU if there is one.",
)  # fmt: skip
_amp = click.option(
    "--amp", type=click.Choice(PRECISIONS), default="off", show_default=True,
    help="Mixed precision: faster, alpha differs a little; auto: bf16 where the GPU has it, fp16 on older ones.",
)  # fmt: skip


def _out_folder(what: str) -> Callable[[Callable], Callable]:
    return click.option("--out", required=True, metavar="DIR", help=f"Folder of {what}; made if missing.")


class _Console(logging.Handler):
    """Shows what the library logs; a closed terminal ends nothing."""

    def __init__(self, command: click.Command, *, err: bool) -> None:
        super().__init__()
        self._command, self._err = command, err

    def emit(self, record: logging.LogRecord) -> None:
        line = _with_options(self.format(record), self._command)
        if self._err and sys.stderr.isatty():
            line = f"\n{line}"  # below the line of a progress bar
        with contextlib.suppress(OSError, ValueError):
            click.echo(line, err=self._err)


def _show_log(*, err: bool) -> None:
    """Show what the library logs, from now on, on standard output or error."""
    logger = logging.getLogger("dptmat")
    logger.handlers = [_Console(click.get_current_context().command, err=err)]
    logger.setLevel(logging.INFO)


def _resolve(cls: type[SettingsT], config_file: str | None, options: dict[str, Any]) -> SettingsT:
    """Take settings from a configuration file and options; what the command line gives wins."""
    values = read_toml(config_file, "--config") if config_file else {}
    given = {name: value for name, value in options.items() if value is not None}
    for field in dataclasses.fields(cls):  # of a former name and the present one the command line's wins
        if field.name in given:
            values.pop(field.metadata["formerly"], None)
        if field.metadata["formerly"] in given:
            values.pop(field.name, None)
    return from_mapping(cls, {**values, **given}, f"--config {config_file}" if config_file else "options")


def _require_place_for_a_file(path: str, name: str) -> None:
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise UserError(f"{name} is a folder or in none; give the name of a file in a folder that exists")


def _print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"dptmat, version {importlib.metadata.version('dptmat')}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
    help="Show the version and stop.",
)  # fmt: skip
def dptmat() -> None:
    """Pre-train image-matting networks without labels; fine-tune, score and use them.

    \b
    A matte (alpha) says of each pixel how opaque the foreground is there.
    A trimap marks what is surely foreground, surely background, and unknown.
    """


@dptmat.command("pretrain")
@_options(PretrainConfig)
@_config_file
@_dry_run
def pretrain_command(config_file: str | None, dry_run: bool, **options: Any) -> None:
    """Pre-train a matting network on photographs without labels.

    Example: dptmat pretrain --data imagenet/train --out runs/first
    """
    _show_log(err=dry_run)
    settings = _resolve(PretrainConfig, config_file, options)
    if dry_run:
        click.echo(to_toml(settings), nl=False)
    else:
        from dptmat.tasks.pretrain import pretrain

        pretrain(settings)


@dptmat.command("finetune")
@_options(FinetuneConfig)
@_config_file
@_dry_run
def finetune_command(config_file: str | None, dry_run: bool, **options: Any) -> None:
    """Fine-tune a matting network on foregrounds with alpha mattes over backgrounds.

    Example: dptmat finetune --fg train/fg --alpha train/alpha --bg coco --init runs/first/checkpoints/step-000250000.pt
    --out runs/fine
    """
    _show_log(err=dry_run)
    settings = _resolve(FinetuneConfig, config_file, options)
    if dry_run:
        click.echo(to_toml(settings), nl=False)
    else:
        from dptmat.tasks.finetune import finetune

        finetune(settings)


@dptmat.command("preview")
@_options(
    PretrainConfig, (DATA, METHOD, AUGMENTATION), ("device", "threads", "prefetch", "hw_decoder_load", "quarantine")
)
@_config_file
@click.option("--out", required=True, metavar="FILE.png", help="The picture to write.")
def preview_command(config_file: str | None, out: str, **options: Any) -> None:
    """Draw what the network will see: foreground, background, trimap, alpha and composite of the first samples.

    Example: dptmat preview --data imagenet/train --out preview.png
    """
    from dptmat.contact_sheets import write_sheet
    from dptmat.tasks.pretrain import preview

    _show_log(err=False)
    settings = _resolve(PretrainConfig, config_file, {**options, "out": str(Path(out).parent)})
    write_sheet(out, preview(settings))
    click.echo(out)


@dptmat.command("index")
@click.option("--data", required=True, metavar="DIR|FILE", help="Photographs: a folder, or a text file of paths.")
@click.option("--out", default="photographs.txt", metavar="FILE", show_default=True, help="List of the good ones.")
def index_command(data: str, out: str) -> None:
    """Decode every photograph once, strictly; name the bad ones and write a list of the good ones for --data.

    Example: dptmat index --data imagenet/train --out train.txt
    """
    from dptmat.data.check import check_photographs
    from dptmat.data.index import ImageIndex, write_list

    _show_log(err=True)
    _require_place_for_a_file(out, f"--out {out}")
    index = ImageIndex.open(data)
    bad: dict[str, str] = {}
    with click.progressbar(length=len(index), file=sys.stderr) as bar:
        for checked, found in check_photographs(index):
            bar.update(checked)
            bad.update(found)
    for path, reason in bad.items():
        click.echo(f"left out: {path}: {reason}")
    write_list(out, index, bad)
    click.echo(f"{out}: {len(index) - len(bad)} photographs, {len(bad)} left out")


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
    "--from", "official", metavar="PROJECT", type=click.Choice(["matteformer", "gca", "mgmatting"]),
    help="The project that published IN: matteformer, gca or mgmatting. By default this is recognised.",
)  # fmt: skip
@click.option(
    "--to", "form", metavar="FORM", type=click.Choice(["dptmat", "timm", "onnx"]), default="dptmat", show_default=True,
    help="dptmat: the network; timm: its encoder as safetensors; onnx: the network for any height and width.",
)  # fmt: skip
@click.argument("path", metavar="IN")
@click.argument("out", metavar="OUT")
def convert_command(official: str | None, form: str, path: str, out: str) -> None:
    """Turn the weights in IN, of a run or of an official matting project, into the file OUT.

    \b
    Examples: dptmat convert --from matteformer best_model.pth matteformer.pt
              dptmat convert --to timm step-000250000.pt encoder.safetensors
              dptmat convert --to onnx step-000250000.pt network.onnx
    """
    _show_log(err=False)
    from dptmat.weights import convert, export

    _require_place_for_a_file(out, out)
    write = {"dptmat": convert.convert, "timm": export.to_timm, "onnx": export.to_onnx}[form]
    write(path, out, official)


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
def evaluate_command(
    checkpoint: str | None, predictions: str | None, data: str | None, image: str | None, trimap: str | None,
    alpha: str | None, out: str | None, seed: int, device: str, amp: str, tile: int,
) -> None:  # fmt: skip
    """Score a network on a test set by SAD, MSE, Grad and Conn; or alphas that are there as files.

    Images, trimaps and alphas of one name belong together. The exit status is 1 if one could not be read: it is named,
    left out, and the rest is scored.

    \b
    Examples: dptmat evaluate --checkpoint step-000250000.pt --data Composition-1k --out scores
              dptmat evaluate --checkpoint matteformer.pt --image image --trimap from-alpha --alpha alpha
              dptmat evaluate --predictions theirs --trimap trimaps --alpha alpha
    """
    from dptmat.data.eval_sets import list_cases
    from dptmat.device import choose_device
    from dptmat.tasks.evaluate import evaluate, evaluate_files, table
    from dptmat.weights.load import load_network

    _show_log(err=True)
    if (checkpoint is None) == (predictions is None):
        raise UserError("give one of `checkpoint`, a network, and `predictions`, a folder of alphas")
    cases = list_cases(data=data, image=image, trimap=trimap, alpha=alpha, predictions=predictions)
    network = load_network(checkpoint, choose_device(device))[0] if checkpoint else None
    with click.progressbar(length=len(cases), file=sys.stderr) as bar:
        options: dict[str, Any] = {
            "out": out, "trimap": trimap if trimap in TRIMAP_SOURCES else "files", "seed": seed,
            "progress": lambda: bar.update(1),
        }  # fmt: skip
        if network is None:
            evaluation = evaluate_files(cases, **options)
        else:
            evaluation = evaluate(cases, network, tile=tile, amp=amp, checkpoint=checkpoint, **options)
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
def predict_command(
    checkpoint: str, image: str, trimap: str | None, out: str, bits: str, cutout: bool, dilate: int | None,
    device: str, amp: str, tile: int | None,
) -> None:  # fmt: skip
    """Predict the alpha of images of any size.

    An image that cannot be predicted is named and the others are predicted; the exit status is then 1, or 2 if none is.

    \b
    Examples: dptmat predict --checkpoint matteformer.pt --image photos --trimap trimaps --out alphas
              dptmat predict --checkpoint matteformer.pt --image cat.jpg --trimap cat_mask.png --dilate 20 --out cat
    """
    from dptmat.device import choose_device
    from dptmat.tasks.predict import find_cases, predict
    from dptmat.weights.load import load_network

    _show_log(err=True)
    network, _ = load_network(checkpoint, choose_device(device))
    cases = find_cases(network, image, trimap, out)
    results = predict(network, cases, out, bits=int(bits), cutout=cutout, dilate=dilate, tile=tile, amp=amp)
    with click.progressbar(results, length=len(cases), file=sys.stderr) as bar:
        left_out = [(name, reason) for name, reason in bar if reason]
    context = click.get_current_context()
    for name, reason in left_out:
        click.echo(_with_options(f"left out: {name}: {reason}", context.command), err=True)
    click.echo(f"{out}: {len(cases) - len(left_out)} alphas, {len(left_out)} left out")
    if left_out:
        context.exit(2 if len(left_out) == len(cases) else 1)


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
def compose_command(
    fg: str, alpha: str, bg: str, out: str, each: int, trimap: str | None, fg_names: str | None, bg_names: str | None
) -> None:
    """Build a test set by the rule of Composition-1k: every foreground over 20 backgrounds.

    \b
    Example: dptmat compose --fg Test_set/fg --alpha Test_set/alpha --bg VOC2012/JPEGImages --out composition-1k
                            --fg-names Test_set/test_fg_names.txt --bg-names Test_set/test_bg_names.txt
    """
    from dptmat.tasks.compose_test_set import compose, find_compositions

    _show_log(err=True)
    compositions = find_compositions(fg, alpha, bg, out, each=each, trimap=trimap, fg_names=fg_names, bg_names=bg_names)
    total = len(compositions) * each
    with click.progressbar(compose(compositions, out), length=total, file=sys.stderr) as bar:
        for _ in bar:
            pass
    click.echo(f"{out}: {total} composites of {len(compositions)} foregrounds")


@dptmat.command("report")
@click.option("--run", "run", required=True, metavar="DIR", help="Folder that a training wrote: its --out.")
@click.option("--out", default="report.html", metavar="FILE", show_default=True, help="The page to write.")
def report_command(run: str, out: str) -> None:
    """Write one HTML page on a run: its curves, its scores and its images; it opens anywhere, without a network.

    Example: dptmat report --run runs/first --out report.html
    """
    _show_log(err=False)
    from dptmat.report.page import report

    _require_place_for_a_file(out, f"--out {out}")
    report(run, out)
    click.echo(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Run the command: exit status 2 and one line for what a user can mend."""
    _open_streams()
    try:
        status = dptmat.main(standalone_mode=False)
        _give_up_unless_flushed(sys.stdout)
        sys.exit(status)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        click.echo(f"dptmat: {error.format_message()}", err=True)
    except click.Abort:
        click.echo("dptmat: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # of an answer: who reads it has had enough
        _give_up_unless_flushed(sys.stdout)
        sys.exit(1)
    except (UserError, OSError) as error:
        _give_up_unless_flushed(sys.stdout)
        click.echo(f"dptmat: {error}", err=True)
    sys.exit(2)


class _Tolerant:
    """Standard error, which is for people: where it cannot be written, nothing else fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_streams() -> None:
    """Let standard output and error be there, even where the shell has closed them, and take names of any bytes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # before any other file takes its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lives
        getattr(sys, name).reconfigure(errors="backslashreplace")
    sys.stderr = _Tolerant(sys.stderr)


def _give_up_unless_flushed(stream: TextIO) -> None:
    """Drop what cannot be written, which Python would complain of at its end by a status of its own."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
