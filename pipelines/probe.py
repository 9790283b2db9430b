"""Why an image cannot be decoded, asked of the same decoders that training uses."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from dptmat.device import is_out_of_memory
from dptmat.errors import UserError, first_line
from dptmat.pipelines._dali import DataNode, Pipeline, fn, pipeline_def, types
from dptmat.pipelines.encoded import BadFileError, decode_by_pillow, read_encoded
from dptmat.pipelines.source import Photo, name_of


def find_unreadable(
    photos: Iterable[Photo], device_id: int | None, by_pillow: set[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Decode each photograph apart from the others: by DALI, and what it refuses by Pillow.

    One that the GPU had no memory for is asked again on the CPU: the lack is no fault of the file.

    Args:
        photos: The photographs.
        device_id: CUDA device to decode on, or None for the CPU.
        by_pillow: Grows by the names of those that DALI refuses and Pillow decodes.

    Yields:
        (name, reason) of each one that fails, the reason in a few words.

    Raises:
        StoreAwayError: Their store does not answer.
    """
    dali, on_cpu = _Decoder(device_id), _Decoder(None)
    for photo in photos:
        try:
            content = read_encoded(photo)
        except BadFileError as bad:
            yield name_of(photo), str(bad)
            continue
        error = dali.refuse(content)
        if error and device_id is not None and is_out_of_memory(error):
            error = on_cpu.refuse(content)
        if not error:
            continue
        try:
            decode_by_pillow(photo)
        except BadFileError as bad:  # it has changed meanwhile
            yield name_of(photo), str(bad)
        except UserError as refusal:
            yield name_of(photo), _reason(refusal)
        else:
            if by_pillow is not None:
                by_pillow.add(name_of(photo))


class _Decoder:
    """DALI's, for one file at a time."""

    def __init__(self, device_id: int | None) -> None:
        self._device_id = device_id
        self._pipe: Pipeline | None = None

    def refuse(self, content: bytes) -> Exception | None:
        """Decode the content of a file: the error, or None if there is none."""
        try:
            self._pipe = self._pipe or _decode_graph(self._device_id is not None, device_id=self._device_id)
            self._pipe.run(encoded=[np.frombuffer(content, np.uint8)])
        except Exception as error:  # DALI's binding raises others than RuntimeError, too
            self._pipe = None  # DALI does not promise that a pipeline can be used after a failure
            return error
        return None


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1)
def _decode_graph(gpu: bool) -> DataNode:
    return decode(fn.external_source(name="encoded", dtype=types.UINT8, ndim=1), types.RGB, gpu, 0.0)


def decode(encoded: DataNode, output_type: Any, gpu: bool, hw_decoder_load: float) -> DataNode:
    """Decode images in a graph, upright, with the CPU's chroma on the GPU, too.

    Args:
        encoded: uint8 [bytes] of each file.
        output_type: DALI's, such as ``types.RGB``.
        gpu: Whether to decode on the GPU.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.

    Returns:
        uint8 [H, W, C] each.
    """
    return fn.decoders.image(
        encoded, device="mixed" if gpu else "cpu", output_type=output_type, hw_decoder_load=hw_decoder_load,
        jpeg_fancy_upsampling=True,
    )  # fmt: skip


def _reason(refusal: UserError) -> str:
    """Say why a file cannot be decoded in Pillow's words, where it has any; DALI has none that help."""
    cause = refusal.__cause__
    if cause is None or isinstance(cause, UnidentifiedImageError):
        return "cannot be decoded, neither by DALI nor by Pillow"
    return f"cannot be decoded ({first_line(cause)})"
