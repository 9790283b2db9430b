"""Paths of image files: how a graph takes them, and what is wrong with a file that shows before it is decoded."""

import os
import stat
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from dptmat.errors import first_line

MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # from which Pillow refuses an image, too: 179 million


def encode_path(path: str) -> np.ndarray:
    """Return a path as ``fn.io.file.read`` takes it: uint8 [bytes]."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def find_unopened(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Look whether each file is there and can be read, without decoding it.

    Yields:
        (path, reason) of each one that is not, the reason in a few words.
    """
    for path in paths:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                yield path, "not a file"  # to open a pipe would wait for its other end
                continue
            with open(path, "rb") as file:
                if not file.read(1):
                    yield path, "the file is empty"
        except OSError as error:
            yield path, error.strerror or first_line(error)


def claims_too_much(path: str) -> str:
    """Return what is wrong with the size in the head of an image: "" for nothing, or if Pillow cannot tell it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path):
                return ""
    except Image.DecompressionBombError:
        return f"claims more than {MOST_PIXELS:,} pixels"
    except Exception:  # whatever else is wrong, the decoder says it
        return ""


def refuse_early(path: str) -> str:
    """Return why a file need not be decoded, since it cannot be opened or claims too many pixels; "" if it may be."""
    return next((reason for _, reason in find_unopened([path])), "") or claims_too_much(path)
