"""The commands on mattes: evaluate, predict, compose, and the report on a run."""

import sys
from pathlib import Path
from typing import Any

import click

from dptmat.cli.console import escape, show_log, tell_results
from dptmat.cli.group import dptmat
from dptmat.cli.options import amp_option, device_option, out_folder_option, require_place_for_a_file
from dptmat.defaults import REGIONS, TRIMAP_SOURCES
from dptmat.errors import UserError


@dptmat.command("evaluate")
@click.option(
    "--checkpoint",
    metavar="FILE|DIR|hf://USER/NAME",
    help="The network to judge: of a run, an official checkpoint, or as dptmat push has shared it.",
)
@click.option("--predictions", metavar="DIR", help="Or alphas to judge, whatever made them; scored as they are.")
@click.option("--data", metavar="DIR", help="A test set of a known layout; the next three win over it.")
@click.option("--image", metavar="DIR", help="Images.")
@click.option(
    "--trimap", metavar="DIR|all-unknown|from-alpha",
    help="Trimaps; or all-unknown, to show the network none and score whole images; or from-alpha, to make them.",
)  # fmt: skip
@click.option("--alpha", metavar="DIR", help="True alphas.")
@click.option(
    "--region", type=click.Choice(list(REGIONS)), default="unknown", show_default=True,
    help="Whose pixels count: the trimap's unknown ones; the whole image; or the transition region, which is unknown "
    "in the trimaps of the set, or else made from the true alphas.",
)  # fmt: skip
@click.option("--groups", metavar="FILE.csv", help="Columns name and group: also print the mean of each group.")
@click.option("--tta", is_flag=True, help="Average the predictions of eight orientations: eight times the time.")
@click.option("--out", metavar="DIR", help="Folder for scores.csv, scores.json and the predictions.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of --trimap from-alpha.")
@device_option
@amp_option
@click.option(
    "--tile", type=int, default=0, show_default=True, metavar="PIXELS",
    help="Cut larger images into tiles of this side, a multiple of 224 from 448; 0: only if the memory runs out.",
)  # fmt: skip
def evaluate_command(
    checkpoint: str | None, predictions: str | None, data: str | None, image: str | None, trimap: str | None,
    alpha: str | None, region: str, groups: str | None, tta: bool, out: str | None, seed: int, device: str, amp: str,
    tile: int,
) -> None:  # fmt: skip
    """Score a network on a test set by SAD, MSE, Grad, Conn and MAD; or alphas that are there as files.

    Images, trimaps and alphas of one name belong together. The exit status is 1 if one could not be read: it is named,
    left out, and the rest is scored.

    \b
    Examples: dptmat evaluate --checkpoint step-000250000.pt --data Composition-1k --out scores
              dptmat evaluate --checkpoint matteformer.pt --image image --trimap from-alpha --alpha alpha
              dptmat evaluate --predictions theirs --trimap trimaps --alpha alpha
              dptmat evaluate --checkpoint matteformer.pt --data AIM-500 --region whole --groups types.csv
    """
    from dptmat.data.eval_sets import list_cases
    from dptmat.device import choose_device
    from dptmat.tasks.evaluate import evaluate, evaluate_files, table
    from dptmat.weights.load import load_network

    show_log(err=True)
    if (checkpoint is None) == (predictions is None):
        raise UserError("give one of `checkpoint`, a network, and `predictions`, a folder of alphas")
    if tta and predictions is not None:
        raise UserError("`tta` turns what a network sees, but `predictions` are scored as they are; leave it out")
    cases = list_cases(
        data=data, image=image, trimap=trimap, alpha=alpha, predictions=predictions, region=region, leave_out=out
    )
    network = load_network(checkpoint, choose_device(device))[0] if checkpoint else None
    with click.progressbar(length=len(cases), file=sys.stderr) as bar:
        options: dict[str, Any] = {
            "out": out, "trimap": trimap if trimap in TRIMAP_SOURCES else "files", "seed": seed, "region": region,
            "groups": groups, "progress": lambda: bar.update(1),
        }  # fmt: skip
        if network is None:
            evaluation = evaluate_files(cases, **options)
        else:
            evaluation = evaluate(cases, network, tile=tile, amp=amp, tta=tta, checkpoint=checkpoint, **options)
    if evaluation.known_regions == "from trimap":
        click.echo("predictions are 0 and 255 where the trimap is, as in published results", err=True)
    else:
        click.echo("predictions are scored as they are, also where the trimap is 0 and 255", err=True)
    click.echo(escape(table(evaluation)))
    if out:
        click.echo(f"{out}: scores.csv, scores.json" + (" and the predictions in alpha" if network else ""))
    if evaluation.left_out:
        click.get_current_context().exit(1)


@dptmat.command("predict")
@click.option(
    "--checkpoint",
    required=True,
    metavar="FILE|DIR|hf://USER/NAME",
    help="Network: a run's, converted, as published, or as dptmat push has shared it.",
)
@click.option("--image", required=True, metavar="DIR|FILE", help="Images: a folder, one, or a text file of paths.")
@click.option(
    "--trimap", metavar="DIR|FILE",
    help="Trimaps of the same names (0 background, 128 unknown, 255 foreground), or masks; needless for a network that "
    "takes the image alone.",
)  # fmt: skip
@out_folder_option("the alphas NAME.png")
@click.option(
    "--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Bits of the alphas, rounded."
)
@click.option("--cutout", is_flag=True, help="Also write cutout/NAME.png: foreground colours and alpha, 8 bits each.")
@click.option(
    "--dilate", metavar="PIXELS", type=click.IntRange(min=0),
    help="--trimap holds masks, foreground from 128: unknown becomes what is this near to their outline.",
)  # fmt: skip
@device_option
@amp_option
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

    show_log(err=True)
    network, _ = load_network(checkpoint, choose_device(device))
    cases = find_cases(network, image, trimap, out)
    results = predict(network, cases, out, bits=int(bits), cutout=cutout, dilate=dilate, tile=tile, amp=amp)
    tell_results(results, len(cases), out, "alphas")


@dptmat.command("compose")
@click.option("--fg", required=True, metavar="DIR", help="Foregrounds.")
@click.option(
    "--alpha",
    metavar="DIR",
    help="Their alphas, of the same names and sizes; needless for cut-outs with alpha.",
)
@click.option("--bg", required=True, metavar="DIR", help="Backgrounds, as many as there will be composites, or more.")
@out_folder_option("the composites merged/NAME_0.png, merged/NAME_1.png and so on, and their alphas in alpha_copy/")
@click.option(
    "--each", metavar="NUMBER", type=click.IntRange(min=1), default=20, show_default=True,
    help="Composites of each foreground, over as many backgrounds, the next ones for the next foreground.",
)  # fmt: skip
@click.option("--trimap", metavar="DIR", help="Trimaps of the foregrounds, to be copied to trimaps/ beside the alphas.")
@click.option("--fg-names", metavar="FILE", help="Names of the foregrounds in order, one a line; by default sorted.")
@click.option("--bg-names", metavar="FILE", help="Names of the backgrounds in order, one a line; by default sorted.")
def compose_command(
    fg: str, alpha: str | None, bg: str, out: str, each: int, trimap: str | None, fg_names: str | None,
    bg_names: str | None,
) -> None:  # fmt: skip
    """Build a test set by the rule of Composition-1k: every foreground over 20 backgrounds.

    \b
    Example: dptmat compose --fg Test_set/fg --alpha Test_set/alpha --bg VOC2012/JPEGImages --out composition-1k
                            --fg-names Test_set/test_fg_names.txt --bg-names Test_set/test_bg_names.txt
    """
    from dptmat.tasks.compose_test_set import compose_test_set, find_compositions

    show_log(err=True)
    compositions = find_compositions(fg, alpha, bg, out, each=each, trimap=trimap, fg_names=fg_names, bg_names=bg_names)
    total = len(compositions) * each
    with click.progressbar(compose_test_set(compositions, out), length=total, file=sys.stderr) as bar:
        for _ in bar:
            pass
    click.echo(f"{out}: {total} composites of {len(compositions)} foregrounds")


@dptmat.command("report")
@click.option("--run", "run", required=True, metavar="DIR", help="Folder that a training wrote: its --out.")
@click.option("--out", default="report.html", metavar="FILE", show_default=True, help="The page to write.")
@click.option(
    "--images", metavar="DIR", multiple=True,
    help="A folder outside of --run whose images the page may show, such as that of the test set; once for each.",
)  # fmt: skip
def report_command(run: str, out: str, images: tuple[str, ...]) -> None:
    """Write one HTML page on a run: its curves, its scores and its images; it opens anywhere, without a network.

    Example: dptmat report --run runs/first --out report.html
    """
    from dptmat.report.page import report

    show_log(err=False)
    require_place_for_a_file(out, f"--out {out}", replaces=("an HTML page", "text", "empty"))
    if Path(out).exists() and Path(out).suffix.lower() not in (".html", ".htm") and not Path(out).is_char_device():
        raise UserError(f"--out {out} is there already and no page; give a name that ends in .html")
    report(run, out, images)
    click.echo(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB")
