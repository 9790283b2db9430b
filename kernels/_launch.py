"""Compile the CUDA sources once per device and launch them on PyTorch's current stream, through CuPy."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

THREADS = 128  # of a block, for every kernel
HEADERS = "number", "vec", "division", "philox", "permutation", "trimap", "alpha"  # each needs only those before it
NUMBERS = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "Half",
    torch.bfloat16: "BFloat",
    torch.uint8: "Byte",
}
OPTIONS = "--fmad=false", "--std=c++17"  # multiply-adds are fused only where the source says so, as on the CPU
_OLDEST = 70  # sm_70, the V100


def source(stem: str, dtype: torch.dtype = torch.float32) -> str:
    """Return the whole text of ``stem``.cu with the type ``Number`` for ``dtype``.

    The headers are joined instead of included: CuPy's cache on disk is keyed by source and options,
    not by included files, so that an edited header would go unnoticed.
    """
    texts = [_read(f"{header}.cuh") for header in HEADERS]
    constants = f"enum {{ THREADS = {THREADS} }};\ntypedef {NUMBERS[dtype]} Number;\n"
    return "\n".join([*texts, constants, _read(f"{stem}.cu")])


def count_tiles(pixels: int, pixels_per_thread: int) -> int:
    """Count the thread blocks that a sample takes."""
    return -(-pixels // (pixels_per_thread * THREADS))


def launch(
    stem: str,
    kernel: str,
    blocks: int,
    *args: Tensor | int | None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Run a kernel of ``stem``.cu on ``blocks`` blocks of THREADS threads; does not wait for it.

    Args:
        stem: Name of the ``.cu`` file.
        kernel: Name of the kernel in it.
        blocks: Number of thread blocks; 0 launches nothing.
        args: Contiguous CUDA tensors of one device (passed as pointers), None (a null pointer)
            or ints (passed as 64 bits).
        dtype: What ``Number`` stands for.

    Raises:
        RuntimeError: CuPy or the CUDA headers that it needs are missing, or the GPU is too old.
    """
    if blocks == 0:
        return
    _import_cupy()
    device = next(arg.device for arg in args if isinstance(arg, Tensor))
    values = tuple([arg.data_ptr() if isinstance(arg, Tensor) else int(arg or 0) for arg in args])
    with torch.cuda.device(device):
        stream = _as_cupy(torch.cuda.current_stream(device))
        _kernel(device.index, stem, kernel, dtype)((blocks,), (THREADS,), values, stream=stream)


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _import_cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            "CUDA tensors need CuPy, which cannot be imported; "
            "install dptmat[cuda12] or dptmat[cuda13], whichever fits the driver, or pass CPU tensors"
        ) from error
    return cupy


@cache  # a program has few streams; one that PyTorch has freed and made again is equal to the old one
def _as_cupy(stream: torch.cuda.Stream) -> Any:
    cupy = _import_cupy()
    if hasattr(cupy.cuda.Stream, "from_external") and hasattr(stream, "__cuda_stream__"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream, stream.device_index)  # CuPy 13 knows no other way


@cache
def _kernel(device_index: int, stem: str, kernel: str, dtype: torch.dtype) -> Any:
    """Compile, or find in CuPy's cache, for the current device, which is ``device_index``."""
    cupy = _import_cupy()
    _require_architecture(torch.cuda.get_device_capability(device_index), min(cupy.cuda.nvrtc.getSupportedArchs()))
    return _compile(cupy, source(stem, dtype)).get_function(kernel)


def _compile(cupy: ModuleType, text: str) -> Any:
    """Compile a source to a module that is loaded; CuPy wants CUDA's headers for it, of which the kernels use none."""
    module = cupy.RawModule(code=text, options=OPTIONS)
    try:
        module.compile()
    except RuntimeError as error:
        if "CUDA headers" not in str(error):
            raise
        raise RuntimeError(
            "CuPy finds no CUDA headers to compile the kernels with; install nvidia-cuda-runtime (for dptmat[cuda13]) "
            "or nvidia-cuda-runtime-cu12 (for dptmat[cuda12]), or name the folder of CUDA in CUDA_PATH"
        ) from error
    return module


def _require_architecture(capability: tuple[int, int], oldest_compiled: int) -> None:
    """Refuse a GPU older than this library (sm_70) or than the installed CuPy (sm_75 for CUDA 13) can serve."""
    architecture = capability[0] * 10 + capability[1]
    if architecture < _OLDEST:
        raise RuntimeError(f"the GPU is sm_{architecture}, expected sm_{_OLDEST} (V100) or later; use CPU tensors")
    if architecture < oldest_compiled:
        raise RuntimeError(
            f"the GPU is sm_{architecture}, but the installed CuPy compiles for sm_{oldest_compiled} and later; "
            "install dptmat[cuda12] instead of dptmat[cuda13]"
        )
