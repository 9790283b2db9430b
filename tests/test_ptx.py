"""The machine's code without the machine: PTX of the kernels, run on the host from the real launchers."""

import itertools
import shutil
import sys

import numpy as np
import pytest
import torch
from ptx import cost, machine

from dptmat.kernels import _launch, random_alpha, random_trimap, synthesize
from dptmat.kernels._checks import seed_as_int64
from dptmat.kernels.composite import FLOATS

modules = {stem: sys.modules[f"dptmat.kernels.{stem}"] for stem in ("trimap", "alpha", "composite", "synthesize")}

# (samples, height, width, cell): one pixel; rows of whole vectors and not; cells of less than a thread's pixels and
# more, some of them cut; several thread blocks to a sample; more cells to a block than its table has room for
SHAPES = [
    (2, 1, 1, 1), (3, 13, 15, 7), (2, 24, 48, 7), (2, 8, 40, 8), (2, 33, 31, 31), (2, 1, 515, 1), (2, 67, 1, 7),
    (2, 20, 32, 3), (2, 1, 1600, 3),
]  # fmt: skip
PLANES = [(2, 4, 8), (3, 5, 7), (2, 1, 1030), (1, 33, 64)]  # (samples, height, width)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Of the architectures: the oldest that NVRTC compiles for, sm_90, the newest.
WHICH = [pytest.param(0, marks=pytest.mark.exhaustive), 1, pytest.param(-1, marks=pytest.mark.exhaustive)]
SEED = 2**64 - 1
NAMES = "input", "alpha", "contrast", "trimap", "pairing"


@pytest.fixture(scope="module", autouse=True)
def tools():
    if shutil.which("g++") is None:
        pytest.skip("no g++ here; apt install g++")
    pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def reports(monkeypatch):
    """Reports of the launches made in a test."""
    made = []

    def on(architecture):
        def launch(stem, kernel, blocks, *args, dtype=torch.float32):
            text = _launch.source(stem, dtype)
            made.append(machine.run(text, architecture, kernel, blocks, args))
            assert made[-1].fault is None

        for module in modules.values():
            monkeypatch.setattr(module, "launch", launch)
        return made

    return on


def assert_equal_bits(ours, reference):
    assert ours.dtype == reference.dtype
    assert ours.stride() == reference.stride()
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.itemsize]
    assert torch.equal(ours.view(whole), reference.view(whole))


def draw(samples, height, width):
    rng = np.random.default_rng(height * width)
    views = torch.from_numpy(rng.integers(0, 256, (samples, height, width, 3), np.uint8))
    color = torch.from_numpy((np.eye(3) + rng.normal(0, 0.4, (samples, 3, 3))).astype(np.float32))
    return views, 2**33 + 5 + torch.arange(samples), color


def misalign(x):
    """Copy a tensor to an address that is a multiple of nothing but its elements' size."""
    return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view_as(x).copy_(x)


def run_synthesize(views, ids, color, cell, block_alpha, dtype, channels_last):
    settings = views, ids, seed_as_int64(SEED), color, cell, 0.75, 0.125, block_alpha, dtype, channels_last
    return modules["synthesize"]._synthesize_cuda(*settings)


def check_synthesize(shape, dtype, block_alpha, channels_last, colored, aligned):
    *size, cell = shape
    views, ids, color = draw(*size)
    color = color if colored else None
    ours = run_synthesize(views if aligned else misalign(views), ids, color, cell, block_alpha, dtype, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mode = "block" if block_alpha else "pixel"
    reference = synthesize(views, ids, SEED, color, cell=cell, mode=mode, dtype=dtype, memory_format=layout)
    for name, tensor in zip(NAMES, ours, strict=True):
        assert_equal_bits(tensor, getattr(reference, name))


def run_trimap(samples, height, width, cell):
    ids = draw(samples, height, width)[1]
    trimap = modules["trimap"]._random_trimap_cuda(ids, seed_as_int64(SEED), height, width, cell, 0.6, 0.3)
    assert_equal_bits(trimap, random_trimap(ids, SEED, (height, width), cell, 0.6, 0.3))
    return trimap, ids


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", WHICH)
def test_synthesize(reports, which, dtype):
    reports(machine.architectures()[which])
    choices = list(itertools.product([False, True], repeat=4))
    for i, shape in enumerate(SHAPES):
        for j in range(4):  # others for each shape: all sixteen, and each pair of two with many shapes
            check_synthesize(shape, dtype, *choices[(5 * i + 4 * j + i // 4 + j) % 16])


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_trimap_and_alpha(reports, which):
    reports(machine.architectures()[which])
    for shape in SHAPES:
        trimap, ids = run_trimap(*shape)
        for mode, given in itertools.product(("pixel", "block"), (trimap, misalign(trimap))):
            ours = modules["alpha"]._random_alpha_cuda(given, ids, seed_as_int64(SEED), mode == "block", shape[-1])
            assert_equal_bits(ours, random_alpha(trimap, ids, SEED, mode, shape[-1]))


# Of the conversions of 16-bit numbers there is an older and a newer way.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "dtype"), [(0, torch.float16), (0, torch.bfloat16), *((-1, dtype) for dtype in (*FLOATS, torch.uint8))]
)
def test_composite(reports, which, dtype):
    reports(machine.architectures()[which])
    module, generator = modules["composite"], torch.Generator().manual_seed(7)
    for (samples, *size), channels, aligned in itertools.product(PLANES, (1, 3), (False, True)):
        shapes = [(samples, c, *size) for c in (3, 3, channels, 3)]
        if dtype == torch.uint8:
            inputs = [torch.randint(0, 256, shape, generator=generator, dtype=dtype) for shape in shapes]
        else:
            inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
        fg, bg, alpha, grad = inputs if aligned else map(misalign, inputs)
        assert_equal_bits(module._composite_cuda(fg, bg, alpha), module._composite(fg, bg, alpha))
        if dtype != torch.uint8:
            tensors = grad, fg, bg, alpha
            pairs = zip(module._composite_backward_cuda(*tensors), module._composite_backward(*tensors), strict=True)
            for ours, reference in pairs:
                assert_equal_bits(ours, reference)


ODD, AFTER_TABLE = (2, 33, 63, 7), "__syncthreads();\n    if (first >= end)"
# Ways to break random_trimap: (shape, a text of the source, what is put in its place, what is found).
MUTATIONS = {
    "no barrier after the keys": (ODD, "__syncthreads();\n    const Table", "const Table", "race in shared memory"),
    "no barrier after the table": (ODD, AFTER_TABLE, "if (first >= end)", "race in shared memory"),
    "a barrier that one skips": (ODD, AFTER_TABLE, f"if (threadIdx.x) __syncthreads(); {AFTER_TABLE}", "at different"),
    "one thread too many": ((2, 32, 48, 7), "if (first >= end)", "if (first > end)", "access out of bounds"),
    "vectors to any address": (ODD, "pixels % PIXELS_PER_THREAD == 0 &&", "", "misaligned access"),
    "a walk without an end": (ODD, "if (position >= cells.total)", "if (position >= 0)", "endless loop"),
    "a cell too wide": (ODD, "if (++across == across_all)", "if (across++ == across_all)", "other bits"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_kernel_is_found(monkeypatch, reports, mutation):
    shape, whole, broken, found = MUTATIONS[mutation]
    text = _launch.source("trimap")
    assert text.count(whole) == 1
    monkeypatch.setattr(_launch, "source", lambda stem, dtype: text.replace(whole, broken))
    made = reports(90)
    with pytest.raises(AssertionError):
        run_trimap(*shape)
    assert found in (made[-1].fault or "other bits")


@pytest.mark.slow
def test_a_fused_kernel_without_its_last_barrier_is_found(monkeypatch, reports):
    before, after = _launch.source("synthesize", torch.float16).rsplit("__syncthreads();", 1)
    monkeypatch.setattr(_launch, "source", lambda stem, dtype: before + after)
    made = reports(90)
    with pytest.raises(AssertionError):
        check_synthesize((2, 16, 48, 7), torch.float16, False, True, True, True)
    assert "race in shared memory: ld.shared" in made[-1].fault


# Of synthesize on sm_90, by NVRTC 13.0 at 224 x 224: machine instructions of a warp, shared memory in bytes, and the
# most of the issue slots that may be taken on an H100 and an H200. A kernel may become cheaper, not dearer.
COSTS = {
    (torch.float32, False): (552, 13984, 0.60, 0.70),
    (torch.float32, True): (647, 13984, 0.60, 0.70),
    (torch.float16, False): (765, 15520, 0.60, 0.70),
    (torch.float16, True): (878, 15520, 0.60, 0.70),
}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "channels_last"), COSTS)
def test_synthesize_stays_cheap(monkeypatch, dtype, channels_last):
    if cost.find_nvdisasm() is None:
        pytest.skip("no nvdisasm here; pip install triton")
    reports, text = [], _launch.source("synthesize", dtype)

    def launch(stem, kernel, blocks, *args, dtype):
        reports.append(machine.run(text, 90, kernel, blocks // 7, args, counting=True))  # all parts cost the same

    monkeypatch.setattr(modules["synthesize"], "launch", launch)
    samples, height, width = 2, 224, 224
    views, ids, color = draw(samples, height, width)
    run_synthesize(views, ids, color, 7, False, dtype, channels_last)
    (report,) = reports
    instructions, shared_bytes, *bars = COSTS[dtype, channels_last]
    counted = cost.instructions_per_warp(report, machine.compile_source(text, 90)[1])
    print(f"{counted:.0f} machine instructions of a warp, {report.shared_bytes} bytes of shared memory")
    assert counted <= 1.02 * instructions
    assert report.shared_bytes <= shared_bytes
    pixels = 32 * 16 // dtype.itemsize  # of a warp; the background comes from the cache
    for gpu, bar in zip((cost.H100, cost.H200), bars, strict=True):
        assert cost.issue_share(counted, pixels * (3 + 8 * dtype.itemsize + 1), gpu) < bar

    written = samples * height * width // 7 * (8 * dtype.itemsize + 1) + 32 * samples  # a sector for each pairing
    assert sum(x.sectors for x in report.instructions if x.opcode.startswith("st.global")) == written // 32
