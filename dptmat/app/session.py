"""What belongs to one visitor of the page: files in a folder of their own, of which nobody else is told."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dptmat.data.image_io import LEVELS, read_image, read_trimap, write_png


class Session:
    """A photograph and what was made of it; gone with its folder when another one comes, or the visitor is away.

    Args:
        root: The temporary folder of the page.
        upload: The photograph's file, which is copied.
        shape: Its height and width, upright.
    """

    def __init__(self, root: str | Path, upload: str | Path, shape: tuple[int, ...]) -> None:
        self.shape = shape[0], shape[1]
        self._folder = Path(tempfile.mkdtemp(prefix="session-", dir=root))
        self._photograph = self._folder / Path(upload).name
        self._made: dict[str, Path] = {}
        shutil.copyfile(upload, self._photograph)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def image(self) -> np.ndarray:
        """The photograph, uint8 [H, W, 3]."""
        return read_image(self._photograph)

    @property
    def trimap(self) -> np.ndarray:
        """What was loaded, uint8 [H, W] with 0, 1, 2; all unknown where nothing was."""
        return read_trimap(self._made["trimap"]) if "trimap" in self._made else np.ones(self.shape, np.uint8)

    @trimap.setter
    def trimap(self, trimap: np.ndarray | None) -> None:
        self._forget("trimap")
        if trimap is not None:
            self.write("trimap", LEVELS[trimap])

    def write(self, kind: str, image: np.ndarray) -> str:
        """Write an image as NAME_KIND.png, in place of the former one.

        Its path is new each time: a browser that has kept the former one asks again.
        """
        self._forget(kind)
        path = Path(tempfile.mkdtemp(dir=self._folder), f"{self._photograph.stem}_{kind}.png")
        write_png(path, image)
        self._made[kind] = path
        return str(path)

    def has(self, kind: str) -> bool:
        """Tell whether there is an image of a kind."""
        return kind in self._made

    def path(self, kind: str) -> str:
        """Return where an image was written to."""
        return str(self._made[kind])

    def read(self, kind: str) -> np.ndarray:
        """Read an image that was written: uint8 [H, W, 3], or [H, W, 4] with opacity."""
        with Image.open(self.path(kind)) as image:
            return np.asarray(image)

    def _forget(self, kind: str) -> None:
        if former := self._made.pop(kind, None):
            shutil.rmtree(former.parent, ignore_errors=True)
