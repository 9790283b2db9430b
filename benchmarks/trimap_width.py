"""How wide a trimap should be: the error of a network and of closed-form matting against the width.

    python benchmarks/trimap_width.py --data alphamatting --checkpoint step-000000260.pt --json trimap-width.json \\
        --only GT04,GT05,GT13,GT16,GT20
    python benchmarks/trimap_width.py --data alphamatting --side 300 --json trimap-width.json

``--data`` has the folders image and alpha. Trimaps of each width are made in two ways by `dptmat.data.trimaps`:

- of the true alpha: they are right wherever they are known, as no user's are;
- of a rough mask, like that of a segmentation network: the alpha shrunk to 100 pixels on the longer side, cut at a half
  and enlarged again. Where its trimap is too narrow, it is known and wrong.

Two means are taken of the absolute error, times 1000, for each image and then over the images: over its unknown pixels,
which are others for each width; and over the whole image, where known pixels count as the trimap has them. What of the
latter lies in known pixels is told, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import matplotlib.style
import numpy as np
import pymatting
import torch
from matplotlib.figure import Figure
from measure import describe_environment, write_result

from dptmat.data.cases import pair
from dptmat.data.image_io import read_alpha, read_image
from dptmat.data.trimaps import from_mask, from_matte
from dptmat.files import write_output
from dptmat.inference import predict_alpha
from dptmat.weights.load import load_network

WIDTHS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)  # of the longer side, inward and outward
ROUGH = 100  # pixels: the longer side of a rough mask
SOURCES = {"true alpha": "#3b6ea5", "rough mask": "#c8553d"}
COLUMNS = ("unknown", "over_unknown", "over_all", "in_known")  # share in per cent; errors times 1000

Row = dict[str, Any]  # source, width and COLUMNS
Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 [H, W, 3], uint8 [H, W] of 0, 1, 2 -> 0..1 [H, W]


def closed_form(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Solve for alpha by Levin et al., A Closed-Form Solution to Natural Image Matting, as pymatting has it."""
    if not all((trimap == value).any() for value in (0, 1, 2)):  # it needs both known parts
        return np.where(trimap == 1, 0.5, trimap / 2)
    return pymatting.estimate_alpha_cf(image / 255, trimap / 2)


def network_judge(checkpoint: str) -> Judge:
    network, _ = load_network(checkpoint, torch.device("cpu"))
    return lambda image, trimap: predict_alpha(network, image, trimap).cpu().numpy()


def rough_mask(alpha: np.ndarray) -> np.ndarray:
    """Return what a coarse segmentation would: uint8 [H, W], 0 or 255, in blocks."""
    height, width = (max(1, round(side * ROUGH / max(alpha.shape))) for side in alpha.shape)
    coarse = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)
    hard = np.where(coarse >= 128, np.uint8(255), np.uint8(0))
    return cv2.resize(hard, alpha.shape[::-1], interpolation=cv2.INTER_NEAREST)


def errors(predicted: np.ndarray, alpha: np.ndarray, trimap: np.ndarray) -> dict[str, float]:
    """Measure one prediction: by the names of COLUMNS."""
    unknown = trimap == 1
    wrong = 1000 * np.abs(np.where(unknown, predicted, trimap / 2) - alpha / 255)
    over_unknown = float(wrong[unknown].mean()) if unknown.any() else float("nan")
    return {
        "unknown": 100 * float(unknown.mean()),
        "over_unknown": over_unknown,
        "over_all": float(wrong.mean()),
        "in_known": float(wrong[~unknown].sum() / wrong.size),
    }


def measure(image: np.ndarray, alpha: np.ndarray, judge: Judge) -> dict[tuple[str, float], dict[str, float]]:
    """Measure all widths on one image: errors by source and width."""
    found, mask = {}, rough_mask(alpha)
    for width in WIDTHS:
        pixels = width * max(alpha.shape)
        trimaps = {"true alpha": from_matte(alpha, pixels, pixels), "rough mask": from_mask(mask, pixels)}
        for source, trimap in trimaps.items():
            found[source, width] = errors(judge(image, trimap), alpha, trimap)
    return found


def read(case, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read image and alpha, shrunk to ``side`` pixels on the longer side unless that is 0."""
    image, alpha = read_image(case.image), read_alpha(case.alpha)
    scale = side / max(alpha.shape)
    if 0 < scale < 1:
        size = tuple(max(1, round(length * scale)) for length in alpha.shape[::-1])
        image, alpha = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (image, alpha))
    return image, alpha


def table(rows: list[Row]) -> list[list[str]]:
    """Write the means: a line of cells for each source and width, after a head."""
    head = ["trimap of", "width", "unknown, %", "error of unknown pixels", "of all", "of all, in known pixels"]
    lines = [[row["source"], f"{100 * row['width']:g}%", *(f"{row[name]:.1f}" for name in COLUMNS)] for row in rows]
    return [head, *lines]


def draw(path: Path, title: str, rows: list[Row]) -> None:
    """Draw both errors against the width."""
    with matplotlib.style.context(["default", {"axes.spines.top": False, "axes.spines.right": False}]):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        figure.suptitle(title)
        for axes, name, region in zip(
            figure.subplots(1, 2), ("over_unknown", "over_all"), ("unknown pixels", "the whole image"),
            strict=True,
        ):  # fmt: skip
            for source, color in SOURCES.items():
                values = [row[name] for row in rows if row["source"] == source]
                axes.plot([100 * width for width in WIDTHS], values, "o-", color=color, label=f"trimap of {source}")
            axes.set(xlabel="width to either side, % of the longer side", ylabel="mean absolute error, x 1000")
            axes.set_title(region, fontsize="medium")
            axes.set(ylim=(0, None), xscale="log", xticks=[100 * width for width in WIDTHS])
            axes.set_xticks([], minor=True)
            axes.set_xticklabels([f"{100 * width:g}" for width in WIDTHS])
            axes.legend(frameon=False)
        write_output(path, lambda file: figure.savefig(file, format="png", dpi=90, metadata={"Software": None}))


@click.command(help=__doc__.split("\n")[0])
@click.option("--data", required=True, metavar="DIR", help="Has the folders image and alpha.")
@click.option("--checkpoint", metavar="FILE", help="Network to judge with; by default closed-form matting.")
@click.option("--only", metavar="NAMES", help="Names of images, separated by commas; those a network has not seen.")
@click.option("--without", metavar="NAMES", default="", help="Names of images to leave out.")
@click.option("--side", type=int, default=0, help="Shrink images to so many pixels on the longer side.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write the result."
)
def main(data: str, checkpoint: str | None, only: str | None, without: str, side: int, path: Path | None) -> None:
    judge = network_judge(checkpoint) if checkpoint else closed_form
    cases = pair(image=Path(data, "image"), alpha=Path(data, "alpha"))
    left_out = {case.name for case in cases if only and case.name not in only.split(",")} | {*without.split(",")}
    cases = [case for case in cases if case.name not in left_out]
    found = []
    for case in cases:
        found.append(measure(*read(case, side), judge))
        click.echo(f"{case.name}: {found[-1]['rough mask', WIDTHS[2]]['over_all']:.1f}", err=True)
    rows = [
        {"source": source, "width": width}
        | {name: float(np.nanmean([each[source, width][name] for each in found])) for name in COLUMNS}
        for source in SOURCES
        for width in WIDTHS
    ]
    for line in table(rows):
        click.echo("  ".join(f"{cell:>10}" for cell in line))
    title = f"Trimaps for {'a network' if checkpoint else 'closed-form matting'}, {len(cases)} images"
    if path:
        write_result(path, {**describe_environment(["cpu"]), "side": side, "title": title, "rows": rows})


if __name__ == "__main__":
    main()
