"""Photographs to try the library on, crops of those that scikit-image carries, and cut-outs that are drawn.

python -m dptmat.demo photos cutouts
"""

from pathlib import Path

import click
import cv2
import numpy as np

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
_CROPS_EACH = 12


def write_photographs(folder: str | Path) -> int:
    """Write 12 crops of different sizes of each of ``PHOTOGRAPHS`` as JPEG files, the same on every machine.

    Args:
        folder: Folder to write to; made if missing.

    Returns:
        Number of files.

    Raises:
        ImportError: scikit-image is not installed; `dptmat[demo]` has it.
        OSError: A photograph cannot be read, or the folder not be made.
    """
    folder = Path(folder)
    random = np.random.Generator(np.random.Philox(0))
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        photograph = _read(name)
        height, width = photograph.shape[:2]
        for crop in range(_CROPS_EACH):
            h, w = (int(side * share) for side, share in zip((height, width), random.uniform(0.5, 1, 2), strict=True))
            y, x = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
            path = folder / f"{Path(name).stem}_{crop:02}.jpg"
            cv2.imwrite(str(path), photograph[y : y + h, x : x + w], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return len(PHOTOGRAPHS) * _CROPS_EACH


def write_cutouts(folder: str | Path, count: int, seed: int = 0) -> None:
    """Write drawn cut-outs, RGBA files as PNG: a body with strands around it, each third one translucent.

    Their alphas are true, since they are drawn, and their colors are those of ``PHOTOGRAPHS``.

    Args:
        folder: Folder to write to; made if missing.
        count: How many.
        seed: Other seeds give others.

    Raises:
        ImportError, OSError: As `write_photographs`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        random = np.random.Generator(np.random.Philox(key=seed, counter=i << 64))
        height, width = (int(side) for side in random.integers(240, 361, 2))
        colors = cv2.resize(_read(PHOTOGRAPHS[i % len(PHOTOGRAPHS)]), (width, height), interpolation=cv2.INTER_AREA)
        alpha = draw_alpha(random, height, width, translucent=i % 3 == 2)
        cv2.imwrite(str(folder / f"{i:03}.png"), np.dstack([colors, alpha]))


def draw_alpha(random: np.random.Generator, height: int, width: int, translucent: bool = False) -> np.ndarray:
    """Draw an alpha, uint8 [H, W]: a round body of uneven outline, thin strands out of it, soft by some defocus."""
    fine = np.zeros((4 * height, 4 * width), np.uint8)  # drawn so large that a strand may be a quarter pixel wide
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = [random.uniform(-0.12, 0.12) * np.cos(k * angles + random.uniform(0, 6)) for k in range(2, 7)]
    radius = (1 + np.sum(waves, axis=0)) * min(height, width) * random.uniform(0.9, 1.2)
    center = np.array([2 * width, 2 * height]) + random.uniform(-0.2, 0.2, 2) * min(height, width)
    outline = center + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(fine, [np.int32(outline)], 255)
    for _ in range(int(random.integers(40, 160))):
        start = int(random.integers(len(angles)))
        turns = angles[start] + random.uniform(-0.6, 0.6) + random.uniform(-0.15, 0.15) * np.arange(12)
        steps = random.uniform(2, 10) * 4 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        strand = outline[start] + np.cumsum(steps, axis=0)
        cv2.polylines(fine, [np.int32(strand)], False, 255, int(random.integers(1, 7)))
    alpha = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    alpha = cv2.GaussianBlur(alpha, (0, 0), random.uniform(0.3, 1.5))
    if translucent:
        clear = cv2.resize(random.uniform(0.3, 1, (3, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        alpha = np.uint8(alpha * clear.clip(0, 1))
    return alpha


def _read(name: str) -> np.ndarray:
    """Read one of ``PHOTOGRAPHS``, uint8 [H, W, 3] as OpenCV orders channels."""
    import skimage

    source = Path(skimage.__file__).parent / "data" / name
    photograph = cv2.imread(str(source))
    if photograph is None:
        raise OSError(f"{source} cannot be read; install another version of scikit-image")
    return photograph


@click.command()
@click.argument("photographs", metavar="PHOTOGRAPHS")
@click.argument("cutouts", metavar="[CUTOUTS]", required=False)
def main(photographs: str, cutouts: str | None) -> None:
    """Write 72 photographs into a folder, and cut-outs into the folders train and test of another."""
    click.echo(f"{write_photographs(photographs)} photographs in {photographs}")
    for seed, (part, count) in enumerate({"train": 48, "test": 6}.items() if cutouts else ()):
        write_cutouts(Path(cutouts or "") / part, count, seed)
        click.echo(f"{count} cut-outs in {cutouts}/{part}")


if __name__ == "__main__":
    main()
