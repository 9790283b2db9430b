"""Why a photograph cannot be decoded, asked of the same decoder that the graphs use."""

import os
import stat
import warnings

import numpy as np
from PIL import Image

from dptmat.pipelines._dali import fn, math, pipeline_def, types

_MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # from which Pillow refuses a picture, too: 179 million

_HEAD, _LONGEST = 20, 2**31 - 100  # bytes; DALI's decoder can crash on none at all


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1)
def _decode_graph(gpu):
    encoded = read(fn.external_source(name="path", dtype=types.UINT8, ndim=1))
    return fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)


def find_unopened(paths):
    """Look whether each file is there and can be read, without decoding it.

    Args:
        paths: Paths of the files.

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
            yield path, error.strerror


def find_unreadable(paths, device_id):
    """Decode each file apart from the others; one that claims too many pixels for any photograph is not tried.

    Args:
        paths: Paths of the files.
        device_id: CUDA device to decode on, or None for the CPU.

    Yields:
        (path, reason) of each one that fails, the reason in a few words.
    """
    pipe = None
    for path in paths:
        reason = next((reason for _, reason in find_unopened([path])), None) or claims_too_much(path)
        if reason:
            yield path, reason
            continue
        pipe = pipe or _decode_graph(device_id is not None, device_id=device_id)
        try:
            pipe.run(path=[encode_path(path)])
        except RuntimeError as error:
            yield path, _reason(error)
            pipe = None  # DALI does not promise that a pipeline can be used after a failure


def claims_too_much(path):
    """What is wrong with the size in the head of a picture: "" for nothing, or if Pillow cannot tell it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path):
                return ""
    except Image.DecompressionBombError:
        return f"claims more than {_MOST_PIXELS:,} pixels"
    except Exception:  # whatever else is wrong, the decoder says it
        return ""


def read(path):
    """The files in a graph: uint8 [bytes], cut short where a head claims too many pixels, for the decoder to refuse.

    It would take the memory first and find out afterwards: 6 GB and 20 s for a head of 30,000 x 30,000.

    Args:
        path: Data node of paths, as `encode_path` gives them.
    """
    # A file that shrinks, or a disk that fails, under a mapping ends the process by SIGBUS; reading gives an error.
    encoded = fn.io.file.read(path, dont_use_mmap=True)
    height_width_channels = fn.peek_image_shape(encoded)
    fits = height_width_channels[0] * height_width_channels[1] <= _MOST_PIXELS
    length = math.min(encoded.shape()[0], _HEAD + fits * _LONGEST)
    return fn.slice(encoded, 0, fn.cast(length, dtype=types.INT32), axes=[0])


def encode_path(path):
    """A path as ``fn.io.file.read`` takes it: uint8 [bytes]."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def _reason(error):
    """The sentence in DALI's message that says what went wrong."""
    told = (str(error).partition("encountered:")[2] or str(error)).strip().splitlines()[0].rstrip(" :")
    return f"cannot be decoded ({told})"
