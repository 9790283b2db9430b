"""The commands on a user's own foregrounds: check, and cutout, which makes them of photographs."""

import sys

import click

from dptmat.cli.console import escape, show_log, tell_results
from dptmat.cli.group import dptmat
from dptmat.cli.options import out_folder_option, require_place_for_a_file
from dptmat.errors import UserError

_data_option = click.option("--data", metavar="DIR", help="A data set of a known layout, P3M-10k or AM-2k, instead.")


@dptmat.command("check")
@click.option("--fg", metavar="DIR|FILE", help="Foregrounds, as finetune --fg takes them.")
@click.option("--alpha", metavar="DIR|FILE", help="Their alphas; needless for cut-outs with alpha channels.")
@_data_option
@click.option("--bg", metavar="DIR|FILE|URL", help="Backgrounds: are there enough, and no foregrounds among them?")
@click.option("--size", type=click.IntRange(64), default=512, show_default=True, metavar="PIXELS", help="Of the crops.")
@click.option("--out", metavar="FILE.png", help="Picture of 24 foregrounds over green, the worst first, to be made.")
def check_command(
    fg: str | None, alpha: str | None, data: str | None, bg: str | None, size: int, out: str | None
) -> None:
    """Look at foregrounds and mattes before they are trained on: names, sizes, values, halos, duplicates.

    The exit status is 0 if fine-tuning would train on all of them, whatever else is found, and 1 if it would refuse
    them or leave some out.

    \b
    Examples: dptmat check --fg cutouts --bg coco --out look.png
              dptmat check --fg train/fg --alpha train/alpha
    """
    from dptmat.contact_sheets import require_format, write_sheet
    from dptmat.data.training_sets import choose_foregrounds
    from dptmat.tasks import check_mattes as task

    show_log(err=True)
    colors, mattes = choose_foregrounds(data, fg, alpha)
    if out:
        require_format(out)
        require_place_for_a_file(out, f"--out {out}", replaces=("a PNG file", "empty"))
    found = task.find_mattes(colors, mattes, bg)
    if out:
        task.require_sheet_apart(out, found)
    with click.progressbar(task.check_mattes(found.cases, size), length=len(found.cases), file=sys.stderr) as bar:
        checked = task.worst_first(bar)
    faults = found.faults + [fault for each in checked for fault in each.faults]
    for line in task.list_faults(faults):
        click.echo(escape(line))
    if faults:
        click.echo("\n" + task.table(faults) + "\n")
    click.echo(task.summary(found, checked))
    picture = task.draw_sheet(checked) if out else None
    if out and picture is not None:
        write_sheet(out, picture, named=True)
        click.echo(out)
    click.get_current_context().exit(0 if task.would_train(faults) else 1)


@dptmat.command("cutout")
@click.option("--image", metavar="DIR|FILE", help="Photographs.")
@click.option("--alpha", metavar="DIR|FILE", help="Their true alphas, of the same names.")
@_data_option
@out_folder_option("the cut-outs NAME.png")
def cutout_command(image: str | None, alpha: str | None, data: str | None, out: str) -> None:
    """Cut foregrounds out of photographs by their alphas, in colours of their own, for finetune --fg.

    In a photograph the old background shines through wherever alpha is between; the foreground's own colours are
    estimated there. One that cannot be cut out is named, and the exit status is then 1, or 2 if none is.

    \b
    Examples: dptmat cutout --image photos --alpha alphas --out cutouts
              dptmat cutout --data P3M-10k --out P3M-10k/train/cutout
    """
    from dptmat.data.training_sets import find_photographs
    from dptmat.tasks.cut_out_photographs import cut_out_photographs, find_cases

    show_log(err=True)
    if data is not None and image is None and alpha is None:
        cases = find_cases(*find_photographs(data), out)
    elif data is None and image is not None and alpha is not None:
        cases = find_cases(image, alpha, out)
    else:
        raise UserError("give `image` and `alpha`, or `data` alone")
    tell_results(cut_out_photographs(cases, out), len(cases), out, "cut-outs")
