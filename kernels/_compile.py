"""The CPU path's compiler: loops that numba compiles for the processor at hand, on as many threads as PyTorch has."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import torch
from numba.core import types
from numba.extending import intrinsic

_logger = logging.getLogger(__name__)


# Compiled at the first call and kept on disk. A loop calls no loop of another file: numba's cache would not notice
# that the other file has changed. Only fma() fuses a multiplication and an addition, which then round once.
def compiled(loop: Callable, **options: Any) -> Any:
    """Compile a loop, and keep it on disk where a folder can be written: beside the package, or in the user's cache."""
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        made = numba.njit(cache=True, **options)(loop)
    except (RuntimeError, OSError):  # as in a container whose files are all read-only
        _tell_of_no_cache()
        return numba.njit(**options)(loop)
    for name in ("load_overload", "save_overload"):
        setattr(made._cache, name, _tolerant(getattr(made._cache, name)))
    return made


def _tolerant(access: Callable) -> Callable:
    """Let the cache on disk be full, damaged or gone at any moment: the loop is then compiled, and not kept."""

    def tried(*args: Any) -> Any:
        try:
            return access(*args)
        except Exception:  # of the system, and of what unpickles a damaged file
            _tell_of_no_cache()
            return None

    return tried


def inlined(loop: Callable) -> Any:
    """Compile a loop into its caller, which would not be vectorized otherwise."""
    return compiled(loop, inline="always")


@cache  # once
def _tell_of_no_cache() -> None:
    _logger.warning("no folder for compiled loops can be used: they are compiled anew at every start, for seconds")


def _fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """Compute x * y + z of three float32, rounded once; for compiled loops only."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


fma: Any = intrinsic(_fma)  # called with x, y and z alone

_SAMPLES = 8  # of a part at most: what it needs in between stays in the processor's cache


def for_each_part(work: Callable[[slice], object], samples: int) -> None:
    """Call ``work(part)`` for slices that cover ``range(samples)``, at the same time on PyTorch's number of threads."""
    threads = max(1, min(torch.get_num_threads(), samples))
    size = max(1, min(_SAMPLES, samples // threads))
    parts = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
    if threads == 1:
        for part in parts:
            work(part)
        return
    list(_pool(threads, os.getpid()).map(work, parts))  # raises what a thread has raised


@cache  # new threads would start with fresh memory at every call; of another process there is only the number
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
