"""Photographs to try the library on: crops of those that scikit-image carries, as JPEG files.

python -m dptmat.demo FOLDER
"""

import sys
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
    import skimage

    folder = Path(folder)
    random = np.random.Generator(np.random.Philox(0))
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        source = Path(skimage.__file__).parent / "data" / name
        photograph = cv2.imread(str(source))
        if photograph is None:
            raise OSError(f"{source} cannot be read; install another version of scikit-image")
        height, width = photograph.shape[:2]
        for crop in range(_CROPS_EACH):
            h, w = (int(side * share) for side, share in zip((height, width), random.uniform(0.5, 1, 2), strict=True))
            y, x = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
            path = folder / f"{Path(name).stem}_{crop:02}.jpg"
            cv2.imwrite(str(path), photograph[y : y + h, x : x + w], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return len(PHOTOGRAPHS) * _CROPS_EACH


if __name__ == "__main__":
    click.echo(f"{write_photographs(sys.argv[1])} photographs in {sys.argv[1]}")
