"""Why an image cannot be decoded, asked of the same decoder that the graphs use."""

from collections.abc import Iterable, Iterator

from dptmat.pipelines._dali import DataNode, Pipeline, fn, math, pipeline_def, types
from dptmat.pipelines.paths import MOST_PIXELS, encode_path, refuse_early

_HEAD, _LONGEST = 20, 2**31 - 100  # bytes; DALI's decoder can crash on none at all


def find_unreadable(paths: Iterable[str], device_id: int | None) -> Iterator[tuple[str, str]]:
    """Decode each file apart from the others; one that claims too many pixels for any photograph is not tried.

    Args:
        paths: Paths of the files.
        device_id: CUDA device to decode on, or None for the CPU.

    Yields:
        (path, reason) of each one that fails, the reason in a few words.
    """
    pipe: Pipeline | None = None
    for path in paths:
        if reason := refuse_early(path):
            yield path, reason
            continue
        pipe = pipe or _decode_graph(device_id is not None, device_id=device_id)
        try:
            pipe.run(path=[encode_path(path)])
        except Exception as error:  # DALI's binding raises others than RuntimeError, too, as for a name that is no text
            yield path, _reason(error)
            pipe = None  # DALI does not promise that a pipeline can be used after a failure


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1)
def _decode_graph(gpu: bool) -> DataNode:
    encoded = read(fn.external_source(name="path", dtype=types.UINT8, ndim=1))
    return fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)


def read(path: DataNode) -> DataNode:
    """Read files in a graph, cut short where a head claims too many pixels, for the decoder to refuse.

    It would take the memory first and find out afterwards: 6 GB and 20 s for a head of 30,000 x 30,000.

    Args:
        path: Paths, as `encode_path` gives them.

    Returns:
        uint8 [bytes] of each file.
    """
    # A file that shrinks, or a disk that fails, under a mapping ends the process by SIGBUS; reading gives an error.
    encoded = fn.io.file.read(path, dont_use_mmap=True)
    height_width_channels = fn.peek_image_shape(encoded)
    fits = height_width_channels[0] * height_width_channels[1] <= MOST_PIXELS
    length = math.min(encoded.shape()[0], _HEAD + fits * _LONGEST)
    return fn.slice(encoded, 0, fn.cast(length, dtype=types.INT32), axes=[0])


def _reason(error: Exception) -> str:
    """Find the sentence in DALI's message that says what went wrong."""
    message = str(error) or type(error).__name__
    sentence = (message.partition("encountered:")[2] or message).strip().partition("\n")[0]
    return f"cannot be decoded ({sentence.rstrip(' :')})"
