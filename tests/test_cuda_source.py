"""The CUDA source itself: run as host C++ against the reference, compiled by NVRTC, and run on a GPU where one is."""

import os
import shutil
import subprocess
import sys

import cuda_host
import numpy as np
import pytest
import torch

from dptmat.kernels import _launch, composite, random_alpha, random_trimap, synthesize
from dptmat.kernels._checks import seed_as_int64

trimap_module, alpha_module, composite_module, synthesize_module = (
    sys.modules[f"dptmat.kernels.{stem}"] for stem, _, _ in cuda_host.KERNELS
)

# (samples, height, width, cell): one pixel; no multiples of 7, 16 or a thread block; several of these a sample
SHAPES = [(2, 1, 1, 1), (3, 5, 9, 7), (2, 33, 31, 7), (5, 16, 16, 4), (2, 70, 71, 1), (2, 1, 5000, 64), (2, 91, 90, 91)]
SEEDS = [0, 2**64 - 1]


@pytest.fixture(scope="module")
def compiler():
    if shutil.which("g++") is None:
        pytest.skip("no g++ here; apt install g++")


@pytest.fixture
def on_host(compiler, monkeypatch):
    for module in (trimap_module, alpha_module, composite_module, synthesize_module):
        monkeypatch.setattr(module, "launch", cuda_host.launch)
        monkeypatch.setattr(module, "THREADS", cuda_host.THREADS)


def draw(samples, height, width):
    rng = np.random.default_rng(height * width)
    views = torch.from_numpy(rng.integers(0, 256, (samples, height, width, 3), np.uint8))
    color = torch.from_numpy((np.eye(3) + rng.normal(0, 0.4, (samples, 3, 3))).astype(np.float32))
    ids = torch.from_numpy(rng.integers(0, 2**63 - 1, samples))
    return views, ids, color


def assert_equal_bits(ours, reference):
    """No tolerance: the same operations in the same order on the same floats, with fused multiply-add off."""
    assert ours.dtype == reference.dtype
    assert ours.shape == reference.shape
    assert ours.stride() == reference.stride()
    assert torch.equal(ours, reference)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("samples", "height", "width", "cell"), SHAPES)
def test_host_trimap_and_alpha(on_host, samples, height, width, cell, seed):
    _, ids, _ = draw(samples, height, width)
    signed = seed_as_int64(seed)
    trimap = trimap_module._random_trimap_cuda(ids, signed, height, width, cell, 0.6, 0.3)
    assert_equal_bits(trimap, random_trimap(ids, seed, (height, width), cell, 0.6, 0.3))
    for mode in ("pixel", "block"):
        alpha = alpha_module._random_alpha_cuda(trimap, ids, signed, mode, cell)
        assert_equal_bits(alpha, random_alpha(trimap, ids, seed, mode, cell))


@pytest.mark.parametrize("mode", ["pixel", "block"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("samples", "height", "width", "cell"), SHAPES)
def test_host_synthesize(on_host, samples, height, width, cell, dtype, mode):
    views, ids, color = draw(samples, height, width)
    for seed, matrices, channels_last in ((SEEDS[0], color, False), (SEEDS[1], None, True)):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        ours = synthesize_module._synthesize_cuda(
            views, ids, seed_as_int64(seed), matrices, cell, 0.75, 0.125, mode, dtype, channels_last
        )
        reference = synthesize(views, ids, seed, matrices, cell=cell, mode=mode, dtype=dtype, memory_format=layout)
        for name, tensor in zip(("input", "alpha", "contrast", "trimap", "pairing"), ours, strict=True):
            assert_equal_bits(tensor, getattr(reference, name))


@pytest.mark.parametrize("dtype", list(_launch.NUMBERS))
def test_host_composite_and_gradient(on_host, dtype):
    generator = torch.Generator().manual_seed(0)
    fg, bg, grad = (torch.randn(3, 3, 17, 31, generator=generator).to(dtype) for _ in range(3))
    alpha = torch.rand(3, 1, 17, 31, generator=generator).to(dtype)
    fg[0, 0, 0, :4] = torch.tensor([1e-7, 6e4, 7e4, float("inf")]).to(dtype)  # subnormal, largest, overflow in float16
    assert_equal_bits(composite_module._composite_cuda(fg, bg, alpha), composite(fg, bg, alpha))
    grads = composite_module._composite_backward_cuda(grad, fg, bg, alpha)
    for ours, reference in zip(grads, torch.ops.dptmat.composite_backward(grad, fg, bg, alpha), strict=True):
        assert_equal_bits(ours, reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_host_conversion_of_every_16_bit_number(on_host, dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    fg = every[every.isfinite()][None, None, None].expand(1, 3, -1, -1).contiguous()
    one = torch.ones_like(fg[:, :1])
    # 1 * F + 0 * B is F: each number is loaded and stored again
    assert torch.equal(composite_module._composite_cuda(fg, 0 * fg, one), fg)
    # a third of it does not fit in 16 bits: each is rounded, many of them into the subnormals
    third = one / 3
    assert torch.equal(composite_module._composite_cuda(fg, 0 * fg, third), composite(fg, 0 * fg, third))


@pytest.mark.skipif(bool(cuda_host.SANITIZE), reason="runs inside itself")
def test_host_runs_are_clean_under_address_and_undefined_sanitizers(compiler):
    # Without libstdc++ beside it, libasan does not find the functions of exceptions that other libraries throw.
    libraries = [
        subprocess.run(
            ["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libstdc++")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "DPTMAT_HOST_SANITIZE": "address,undefined",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "test_host", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("architecture", [70, 75, 80, 86, 89, 90, 100, 120])
def test_nvrtc_compiles_for(architecture):
    nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc
    if architecture not in nvrtc.getSupportedArchs():
        pytest.skip(f"NVRTC {nvrtc.getVersion()} does not compile for sm_{architecture}")
    for stem, kernels, dtypes in cuda_host.KERNELS:
        for dtype in dtypes:
            program = nvrtc.createProgram(_launch.source(stem, dtype), f"{stem}.cu", [], [])
            # -ftz=true and C++17 are what CuPy adds
            options = (*_launch.OPTIONS, "-ftz=true", "--std=c++17", f"--gpu-architecture=sm_{architecture}")
            nvrtc.compileProgram(program, options)
            cubin = nvrtc.getCUBIN(program)
            assert all(kernel.encode() in cubin for kernel in kernels)
            nvrtc.destroyProgram(program)


def test_source_includes_no_file():
    for stem, _, dtypes in cuda_host.KERNELS:
        assert "#include" not in _launch.source(stem, dtypes[0])


def test_without_cupy_the_message_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"install dptmat\[cuda12\] or dptmat\[cuda13\]"):
        _launch.launch("trimap", "random_trimap", 1, torch.arange(2))


@pytest.mark.parametrize(
    ("capability", "message"),
    [((6, 1), "the GPU is sm_61, expected sm_70"), ((7, 0), r"sm_75 and later; install dptmat\[cuda12\]")],
)
def test_a_gpu_too_old_is_named(capability, message):
    with pytest.raises(RuntimeError, match=message):
        _launch._require_architecture(capability, oldest_compiled=75)


def test_oldest_gpus_of_both_stacks_are_taken():
    _launch._require_architecture((7, 0), oldest_compiled=50)
    _launch._require_architecture((7, 5), oldest_compiled=75)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["pixel", "block"])
@pytest.mark.parametrize(("samples", "height", "width", "cell"), [*SHAPES, (64, 224, 224, 7)])
def test_gpu_trimap_alpha_and_synthesize(samples, height, width, cell, mode):
    views, ids, color = draw(samples, height, width)
    seed = 2**64 - 1
    trimap = random_trimap(ids.cuda(), seed, (height, width), cell)
    assert_equal_bits(trimap.cpu(), random_trimap(ids, seed, (height, width), cell))
    alpha = random_alpha(trimap, ids.cuda(), seed, mode, cell)
    assert_equal_bits(alpha.cpu(), random_alpha(trimap.cpu(), ids, seed, mode, cell))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            options = {"cell": cell, "mode": mode, "dtype": dtype, "memory_format": layout}
            ours = synthesize(views.cuda(), ids.cuda(), seed, color.cuda(), **options)
            reference = synthesize(views, ids, seed, color, **options)
            for name in ("input", "alpha", "contrast", "trimap", "pairing"):
                assert_equal_bits(getattr(ours, name).cpu(), getattr(reference, name))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(_launch.NUMBERS))
def test_gpu_composite_and_gradient(dtype):
    fg, bg, grad = (torch.randn(3, 3, 17, 31).to(dtype) for _ in range(3))
    inputs = [x.requires_grad_() for x in (fg, bg, torch.rand(3, 1, 17, 31).to(dtype))]
    on_gpu = [x.detach().cuda().requires_grad_() for x in inputs]
    reference, ours = composite(*inputs), composite(*on_gpu)
    assert_equal_bits(ours.cpu(), reference)
    grads = torch.autograd.grad(ours, on_gpu, grad.cuda())
    for x, y in zip(grads, torch.autograd.grad(reference, inputs, grad), strict=True):
        assert_equal_bits(x.cpu(), y)


@pytest.mark.gpu
def test_gpu_graph_replays_on_new_ids():
    views, ids, color = (x.cuda() for x in draw(4, 60, 60))
    synthesize(views, ids, 5, color)  # compiles, which a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch = synthesize(views, ids, 5, color)
    ids.add_(1000)
    graph.replay()
    assert_equal_bits(batch.input, synthesize(views, ids, 5, color).input)


@pytest.mark.gpu
def test_gpu_runs_on_the_current_stream_and_does_not_synchronize():
    views, ids, color = (x.cuda() for x in draw(4, 60, 60))
    expected = synthesize(views, ids, 5, color)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            batch = synthesize(views, ids, 5, color)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert_equal_bits(batch.input, expected.input)
