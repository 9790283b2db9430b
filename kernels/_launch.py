"""Compile the CUDA sources once per device and launch them on PyTorch's current stream, through CuPy."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

THREADS = 256  # of a block, for every kernel
HEADERS = "number", "philox", "permutation", "trimap", "alpha"  # each needs only those before it
NUMBERS = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat"}
OPTIONS = ("--fmad=false",)  # a fused multiply-add rounds once where NumPy rounds twice
_OLDEST = 70  # sm_70, the V100


def source(stem, dtype=torch.float32):
    """Return the whole text of ``stem``.cu with the type ``Number`` for ``dtype``.

    The headers are joined instead of included: CuPy's cache on disk is keyed by source and options,
    not by included files, so that an edited header would go unnoticed.
    """
    texts = [_read(f"{header}.cuh") for header in HEADERS]
    return "\n".join([*texts, f"typedef {NUMBERS[dtype]} Number;\n", _read(f"{stem}.cu")])


def launch(stem, kernel, blocks, *args, dtype=torch.float32):
    """Run a kernel of ``stem``.cu on ``blocks`` blocks of THREADS threads; does not wait for it.

    Args:
        stem: Name of the ``.cu`` file.
        kernel: Name of the kernel in it.
        blocks: Number of thread blocks; 0 launches nothing.
        args: Contiguous CUDA tensors of one device (passed as pointers), None (a null pointer)
            or ints (passed as 64 bits).
        dtype: What ``Number`` stands for.

    Raises:
        RuntimeError: CuPy is missing, or the GPU is too old for it or for this library.
    """
    if blocks == 0:
        return
    device = next(arg.device for arg in args if isinstance(arg, torch.Tensor))
    cupy = _import_cupy()
    with cupy.cuda.Device(device.index), _current_stream(cupy, device):
        _kernel(device.index, stem, kernel, dtype)((blocks,), (THREADS,), tuple(map(_as_argument, args)))


def _as_argument(arg):
    if isinstance(arg, torch.Tensor):
        return np.uint64(arg.data_ptr())
    return np.uint64(0) if arg is None else np.int64(arg)


def _read(name):
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _import_cupy():
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            "CUDA tensors need CuPy, which cannot be imported; "
            "install dptmat[cuda12] or dptmat[cuda13], whichever fits the driver, or pass CPU tensors"
        ) from error
    return cupy


def _current_stream(cupy, device):
    stream = torch.cuda.current_stream(device)
    if hasattr(cupy.cuda.Stream, "from_external") and hasattr(stream, "__cuda_stream__"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream, device.index)  # CuPy 13 knows no other way


@cache
def _kernel(device_index, stem, kernel, dtype):
    """Compile, or find in CuPy's cache, for the current device, which is ``device_index``."""
    cupy = _import_cupy()
    _require_architecture(torch.cuda.get_device_capability(device_index), min(cupy.cuda.nvrtc.getSupportedArchs()))
    return cupy.RawModule(code=source(stem, dtype), options=OPTIONS).get_function(kernel)


def _require_architecture(capability, oldest_compiled):
    """Refuse a GPU older than this library (sm_70) or than the installed CuPy (sm_75 for CUDA 13) can serve."""
    architecture = capability[0] * 10 + capability[1]
    if architecture < _OLDEST:
        raise RuntimeError(f"the GPU is sm_{architecture}, expected sm_{_OLDEST} (V100) or later; use CPU tensors")
    if architecture < oldest_compiled:
        raise RuntimeError(
            f"the GPU is sm_{architecture}, but the installed CuPy compiles for sm_{oldest_compiled} and later; "
            "install dptmat[cuda12] instead of dptmat[cuda13]"
        )
