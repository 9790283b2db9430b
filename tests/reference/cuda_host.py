"""Compile the CUDA sources as host C++ and run them: one thread of the host for each thread of a block.

``launch`` stands in for ``dptmat.kernels._launch.launch`` and takes CPU tensors.
"""

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from dptmat.kernels import _launch
from dptmat.kernels.composite import FLOATS

# Stem of a .cu file, its kernels, and the dtypes that it is compiled for.
KERNELS = [
    ("trimap", ["random_trimap"], [torch.float32]),
    ("alpha", ["random_alpha"], [torch.float32]),
    ("composite", ["composite"], list(_launch.NUMBERS)),
    ("composite_backward", ["composite_backward"], list(FLOATS)),
    ("warp", ["warp"], [torch.float32]),
    ("synthesize", ["synthesize"], [torch.float32, torch.float16, torch.bfloat16]),
]
THREADS = 32  # of a block: fewer than on a GPU, because each is a thread of the host
# Address errors need libasan in front of Python: a test starts itself again with it, and with this variable set.
SANITIZE = os.environ.get("DPTMAT_HOST_SANITIZE", "")

SHIM = """
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads, blocks)
#define __syncthreads() barrier->arrive_and_wait()

struct Index { unsigned int x; };
static thread_local Index blockIdx, threadIdx;
static Index blockDim;
static std::barrier<>* barrier;
using std::max;
using std::min;

static unsigned int __float_as_uint(float x) { unsigned int y; std::memcpy(&y, &x, 4); return y; }
static float __uint_as_float(unsigned int x) { float y; std::memcpy(&y, &x, 4); return y; }
static float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static unsigned int __umulhi(unsigned int x, unsigned int y) { return (unsigned int)((unsigned long long)x * y >> 32); }

// Byte i of the result is the one of `low` and `high` whose number is digit i of `places`.
static unsigned int __byte_perm(unsigned int low, unsigned int high, unsigned int places) {
    const unsigned long long bytes = low | (unsigned long long)high << 32;
    unsigned int result = 0;
    for (int i = 0; i < 4; ++i) result |= (unsigned int)(bytes >> 8 * (places >> 4 * i & 7) & 0xFF) << 8 * i;
    return result;
}

struct uint2 { unsigned int x, y; };
struct uint4 { unsigned int x, y, z, w; };
static uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }
static uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
template <typename T>
void __stcs(T* to, T value) { *to = value; }

// What a GPU has an instruction for; g++ converts by itself.
static float float_of_byte(unsigned int word) { return (float)(word & 0xFF); }
static float fma_saturated(float x, float y, float z) { return std::fmin(std::fmax(std::fma(x, y, z), 0.0f), 1.0f); }
static float float_of_half(unsigned short bits) { _Float16 x; std::memcpy(&x, &bits, 2); return (float)x; }
static unsigned short half_of_float(float x) {
    _Float16 y = (_Float16)x;
    unsigned short bits;
    std::memcpy(&bits, &y, 2);
    return bits;
}

template <typename... Args, std::size_t... I>
void run(void (*kernel)(Args...), std::index_sequence<I...>, long long blocks, const long long* args) {
    static_assert(((sizeof(Args) == 8) && ...), "the launcher passes every argument as 64 bits");
    std::barrier<> together(blockDim.x);
    barrier = &together;
    std::vector<std::thread> threads;
    for (unsigned int i = 0; i < blockDim.x; ++i)
        threads.emplace_back([=] {
            threadIdx.x = i;
            for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
                kernel((Args)args[I]...);
                barrier->arrive_and_wait();  // shared variables belong to the next block now
            }
        });
    for (auto& thread : threads) thread.join();
}

template <typename... Args>
bool launch(void (*kernel)(Args...), long long blocks, long long threads, long long count, const long long* args) {
    blockDim.x = (unsigned int)threads;
    if (count == sizeof...(Args)) run(kernel, std::index_sequence_for<Args...>(), blocks, args);
    return count == sizeof...(Args);
}
"""

# Each source in a namespace of its own, under a name of its own, because extern "C" names know no namespaces.
UNIT = """
namespace {stem}_{number} {{
{renames}
{source}
{calls}
{restores}
}}
"""
CALL = """
extern "C" bool call_{kernel}_{number}(long long blocks, long long threads, long long count, const long long* args) {{
    return launch({kernel}, blocks, threads, count, args);
}}
"""


def _unit(stem, kernels, dtype):
    number = _launch.NUMBERS[dtype]
    return UNIT.format(
        stem=stem,
        number=number,
        renames="\n".join(f"#define {kernel} {kernel}_{number}" for kernel in kernels),
        source=_launch.source(stem, dtype),
        calls="".join(CALL.format(kernel=kernel, number=number) for kernel in kernels),
        restores="\n".join(f"#undef {kernel}" for kernel in kernels),
    )


@cache
def library():
    """Compile all kernels for all their dtypes."""
    units = [_unit(stem, kernels, dtype) for stem, kernels, dtypes in KERNELS for dtype in dtypes]
    with tempfile.TemporaryDirectory() as folder:
        text, built = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        text.write_text("\n".join([SHIM, *units]))
        options = [
            "-std=c++20",
            "-O0",
            "-ffp-contract=off",
            "-Wall",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-shared",
            "-fPIC",
            "-pthread",
        ]
        if SANITIZE:
            options += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
        subprocess.run(["g++", *options, str(text), "-o", str(built)], check=True)
        return ctypes.CDLL(str(built))


def launch(stem, kernel, blocks, *args, dtype=torch.float32):
    """Run a kernel on the host, with the arguments of the real ``launch``."""
    assert kernel in next(kernels for name, kernels, _ in KERNELS if name == stem)
    values = [arg.data_ptr() if isinstance(arg, torch.Tensor) else int(arg or 0) for arg in args]
    call = getattr(library(), f"call_{kernel}_{_launch.NUMBERS[dtype]}")
    call.restype = ctypes.c_bool
    call.argtypes = [ctypes.c_longlong] * 3 + [ctypes.c_void_p]
    array = (ctypes.c_longlong * len(values))(*values)
    assert call(blocks, THREADS, len(values), array), f"{kernel} takes another number of arguments"
