"""Compile kernels to PTX as CuPy would, run them on the host, and report faults and counts."""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from dptmat.kernels import _launch

from .translate import translate

FAULTS = (
    None,
    "misaligned access",
    "access out of bounds",
    "race in shared memory",
    "threads at different barriers",
    "endless loop",
)


@dataclass
class Counted:
    """An instruction of PTX, and what the warps of a launch did with it."""

    opcode: str
    line: int  # of the CUDA source
    executed: int
    requests: int  # of global memory
    sectors: int  # of 32 bytes, in these requests


@dataclass
class Report:
    """What a launch did."""

    fault: str | None  # the first one, with its instruction
    instructions: list[Counted]  # all 0 without counting
    shared_bytes: int
    warps: int


def architectures():
    """List the oldest architecture that NVRTC compiles for, sm_90 and the newest."""
    from cupy.cuda import nvrtc

    supported = [number for number in nvrtc.getSupportedArchs() if number >= 70]
    return sorted({min(supported), 90, max(supported)})


@cache
def compile_source(text, architecture):
    """Compile a CUDA source as CuPy does: its PTX and its machine code."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, "kernel.cu", [], [])
    # -ftz=true is what CuPy adds; lines of the source change nothing in the code
    options = *_launch.OPTIONS, "-ftz=true", f"--gpu-architecture=sm_{architecture}", "--generate-line-info"
    nvrtc.compileProgram(program, options)
    ptx, cubin = nvrtc.getPTX(program), nvrtc.getCUBIN(program) + b"\0"  # CuPy takes the last byte for a text's end
    nvrtc.destroyProgram(program)
    return ptx if isinstance(ptx, str) else ptx.decode(), cubin


def run(text, architecture, kernel, blocks, args, counting=False):
    """Run a kernel of a CUDA source.

    Args:
        text: The source.
        architecture: Of the GPU, 90 for sm_90.
        kernel: Name of the kernel.
        blocks: Number of thread blocks.
        args: CPU tensors (passed as pointers), None (a null pointer) and ints. Nothing but the tensors may be touched.
        counting: Whether to count what is executed, which takes longer.

    Returns:
        A :class:`Report`.
    """
    translated, library = _build(compile_source(text, architecture)[0], kernel)
    assert len(args) == translated.parameters, f"{kernel} takes {translated.parameters} arguments, got {len(args)}"
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    values = [arg.data_ptr() if isinstance(arg, torch.Tensor) else int(arg or 0) % 2**64 for arg in args]
    ranges = [address for x in tensors for address in (x.data_ptr(), x.data_ptr() + x.numel() * x.itemsize)]
    counts = _numbers([0] * (2 + translated.blocks + 2 * len(translated.instructions)))
    grid = ctypes.c_uint64(blocks), ctypes.c_uint64(_launch.THREADS)
    library.launch(*grid, _numbers(values), _numbers(ranges), ctypes.c_uint64(len(tensors)), counting, counts)
    return _read(translated, list(counts), blocks * _launch.THREADS // 32)


def _numbers(values):
    return (ctypes.c_uint64 * len(values))(*values)


@cache
def _build(ptx, name):
    kernel = translate(ptx, name)
    return kernel, _library(kernel.code)


@cache  # by the code: that of several architectures often is the same
def _library(code):
    with tempfile.TemporaryDirectory() as folder:
        text, built = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        text.write_text(code)
        # -O1 takes longer to compile than it saves
        options = ["-std=c++17", "-O0", "-mfma", "-ffp-contract=off", "-w", "-shared", "-fPIC"]
        subprocess.run(["g++", *options, str(text), "-o", str(built)], check=True)
        return ctypes.CDLL(str(built))


def _read(kernel, counts, warps):
    """Read the ``Report`` of machine.h: kind and place of the fault, then a number for each block or instruction."""
    (kind, at), size = counts[:2], len(kernel.instructions)
    executed, requests, sectors = counts[2:][: kernel.blocks], counts[-2 * size : -size], counts[-size:]
    instructions = [
        Counted(instruction.text.split()[0], instruction.line, executed[instruction.block], *traffic)
        for instruction, *traffic in zip(kernel.instructions, requests, sectors, strict=True)
    ]
    fault = f"{FAULTS[kind]}: {kernel.instructions[at].text}" if kind else None
    return Report(fault, instructions, kernel.shared_bytes, warps)
