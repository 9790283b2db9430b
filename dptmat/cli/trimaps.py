"""The command that makes trimaps of alphas or masks."""

import sys

import click

from dptmat.cli.console import show_log, tell_left_out
from dptmat.cli.group import dptmat
from dptmat.cli.options import out_folder_option, require_place_for_a_file
from dptmat.errors import UserError


@dptmat.command("trimap")
@click.option("--alpha", metavar="DIR|FILE", help="True alphas: a folder, one, or a text file of paths.")
@click.option("--mask", metavar="DIR|FILE", help="Or masks, foreground from 128.")
@out_folder_option("the trimaps NAME.png")
@click.option("--width", metavar="WIDTH", help="Both of the next: in pixels, such as 10, or of the longer side: 2%.")
@click.option("--inward", metavar="WIDTH", help="How far the foreground is made unknown, from its outline.")
@click.option("--outward", metavar="WIDTH", help="How far the background is made unknown, from the foreground.")
@click.option("--sheet", metavar="FILE.png", help="Picture of up to 24 trimaps to look at, to be made.")
@click.option("--image", metavar="DIR|FILE", help="Images of the same names, which --sheet shows below the trimaps.")
def trimap_command(
    alpha: str | None, mask: str | None, out: str, width: str | None, inward: str | None, outward: str | None,
    sheet: str | None, image: str | None,
) -> None:  # fmt: skip
    """Make trimaps: what is surely foreground or background, at a distance from all that is not; the rest is unknown.

    What is neither 0 nor 255 in an alpha stays unknown, and what is thinner than the width becomes so, that no hair is
    lost. One that cannot be made is named, and the others are made; the exit status is then 1, or 2 if none is.

    \b
    Examples: dptmat trimap --alpha alphas --width 10 --out trimaps
              dptmat trimap --mask masks --inward 1% --outward 3% --out trimaps --sheet look.png --image photos
    """
    from dptmat.contact_sheets import require_format, write_sheet
    from dptmat.tasks.make_trimaps import draw_sheet, find_cases, make_trimaps, read_width, require_sheet_apart

    show_log(err=True)
    if width is None and (inward is None or outward is None):
        raise UserError("the widths are missing: give `width`, such as 2%, or both `inward` and `outward`")
    widths = {
        name: read_width(*((name, given) if given is not None else ("width", width or "")))
        for name, given in (("inward", inward), ("outward", outward))
    }
    if image and not sheet:
        raise UserError("`image` is for the sheet alone; give `sheet`, too")
    cases = find_cases(out, alpha=alpha, mask=mask, image=image)
    if sheet:
        require_format(sheet)
        require_place_for_a_file(sheet, f"--sheet {sheet}", replaces=("a PNG file", "empty"))
        require_sheet_apart(sheet, cases, out)
    made = make_trimaps(cases, out, masks=alpha is None, **widths, sheet=bool(sheet))
    with click.progressbar(made, length=len(cases), file=sys.stderr) as bar:
        results = list(bar)
    left_out = [(each.name, each.reason) for each in results if each.reason]
    tell_left_out(left_out)
    shares = sorted(each.unknown for each in results if not each.reason)
    told = f"; unknown {shares[0]:.1%} to {shares[-1]:.1%} of a trimap" if shares else ""
    click.echo(f"{out}: {len(shares)} trimaps, {len(left_out)} left out{told}")
    picture = draw_sheet(results)
    if sheet and picture is not None:
        write_sheet(sheet, picture, named=True)
        click.echo(sheet)
    if left_out:
        click.get_current_context().exit(1 if shares else 2)
