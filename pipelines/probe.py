"""Why a photograph cannot be decoded, asked of the same decoder that the graphs use."""

import os

import numpy as np
from nvidia.dali import fn, pipeline_def, types


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1)
def _decode_graph(gpu):
    encoded = fn.io.file.read(fn.external_source(name="path", dtype=types.UINT8, ndim=1))
    return fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)


def find_unreadable(paths, device_id):
    """Decode each file apart from the others.

    Args:
        paths: Paths of the files.
        device_id: CUDA device to decode on, or None for the CPU.

    Yields:
        (path, reason) of each one that fails, the reason in a few words.
    """
    pipe = None
    for path in paths:
        if os.path.exists(path) and not os.path.isfile(path):
            yield path, "not a file"  # to open a pipe would wait for its other end
            continue
        try:
            with open(path, "rb") as file:
                empty = not file.read(1)
        except OSError as error:
            yield path, error.strerror
            continue
        if empty:
            yield path, "the file is empty"
            continue
        pipe = pipe or _decode_graph(device_id is not None, device_id=device_id)
        try:
            pipe.run(path=[encode_path(path)])
        except RuntimeError as error:
            yield path, _reason(error)
            pipe = None  # DALI does not promise that a pipeline can be used after a failure


def encode_path(path):
    """A path as ``fn.io.file.read`` takes it: uint8 [bytes]."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def _reason(error):
    """The sentence in DALI's message that says what went wrong."""
    told = (str(error).partition("encountered:")[2] or str(error)).strip().splitlines()[0].rstrip(" :")
    return f"cannot be decoded ({told})"
