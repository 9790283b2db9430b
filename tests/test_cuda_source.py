"""The CUDA source itself: run as host C++ against the reference, compiled by NVRTC, and run on a GPU where one is."""

import os
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from reference import cuda_host

from dptmat.kernels import _launch, composite, random_alpha, random_trimap, synthesize
from dptmat.kernels._checks import seed_as_int64
from dptmat.kernels.composite import FLOATS

trimap_module, alpha_module, composite_module, synthesize_module = (
    sys.modules[f"dptmat.kernels.{stem}"] for stem in ("trimap", "alpha", "composite", "synthesize")
)

# (samples, height, width, cell): one pixel; no multiples of 7, 16 or a thread block; several of these a sample
SHAPES = [(2, 1, 1, 1), (3, 5, 9, 7), (2, 33, 31, 7), (5, 16, 16, 4), (2, 70, 71, 1), (2, 1, 5000, 64), (2, 91, 90, 91)]
SEEDS = [0, 2**64 - 1]
NAMES = "input", "alpha", "contrast", "trimap", "pairing"


@pytest.fixture(scope="module")
def compiler():
    if shutil.which("g++") is None:
        pytest.skip("no g++ here; apt install g++")


@pytest.fixture
def on_host(compiler, monkeypatch):
    monkeypatch.setattr(_launch, "THREADS", cuda_host.THREADS)
    for module in (trimap_module, alpha_module, composite_module, synthesize_module):
        monkeypatch.setattr(module, "launch", cuda_host.launch)


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
        alpha = alpha_module._random_alpha_cuda(trimap, ids, signed, mode == "block", cell)
        assert_equal_bits(alpha, random_alpha(trimap, ids, seed, mode, cell))


@pytest.mark.parametrize("mode", ["pixel", "block"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("samples", "height", "width", "cell"), SHAPES)
@pytest.mark.slow
def test_host_synthesize(on_host, samples, height, width, cell, dtype, mode):
    views, ids, color = draw(samples, height, width)
    for seed, matrices, channels_last in ((SEEDS[0], color, False), (SEEDS[1], None, True)):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        ours = synthesize_module._synthesize_cuda(
            views, ids, seed_as_int64(seed), matrices, cell, 0.75, 0.125, mode == "block", dtype, channels_last
        )
        reference = synthesize(views, ids, seed, matrices, cell=cell, mode=mode, dtype=dtype, memory_format=layout)
        for name, tensor in zip(NAMES, ours, strict=True):
            assert_equal_bits(tensor, getattr(reference, name))


def test_host_takes_views_that_start_anywhere(on_host):
    """Whole vectors of 16 bytes, but not at multiples of 16: a slice of a larger tensor."""
    views, ids, color = draw(3, 16, 16)
    shifted = torch.empty(views.numel() + 1, dtype=torch.uint8)[1:].view_as(views).copy_(views)
    for dtype in (torch.float32, torch.float16):
        ours = synthesize_module._synthesize_cuda(shifted, ids, 9, color, 7, 0.75, 0.125, False, dtype, False)
        assert_equal_bits(ours[0], synthesize(views, ids, 9, color, dtype=dtype).input)
    trimap = torch.empty(3 * 256 + 1, dtype=torch.uint8)[1:].view(3, 16, 16).fill_(1)
    alpha = alpha_module._random_alpha_cuda(trimap, ids, 9, False, 7)
    assert_equal_bits(alpha, random_alpha(trimap, ids, 9))


def test_host_alpha_of_every_byte_is_a_division(on_host):
    ids = torch.arange(2)
    batch = synthesize_module._synthesize_cuda(
        torch.zeros(2, 64, 64, 3, dtype=torch.uint8), ids, 0, None, 7, 1.0, 0.0, False, torch.float32, False
    )
    alpha = random_alpha(torch.ones(2, 64, 64, dtype=torch.uint8), ids, 0)
    assert len(alpha.unique()) == 256
    assert torch.equal(batch[1][:, 0], alpha.float() / 255)


def test_host_writes_over_what_is_given(on_host):
    views, ids, color = draw(3, 20, 30)
    for layout in (torch.contiguous_format, torch.channels_last):
        options = {"dtype": torch.float16, "memory_format": layout}
        out = synthesize(views, ids, 5, **options)
        outputs = [getattr(out, name) for name in NAMES]
        synthesize_module._synthesize_out_cuda(views, ids, 6, color, 7, 0.75, 0.125, True, *outputs)
        reference = synthesize(views, ids, 6, color, mode="block", **options)
        for name in NAMES:
            assert_equal_bits(getattr(out, name), getattr(reference, name))


# (samples, height, width): odd; whole vectors of every dtype; more than a thread block
PLANES = [(3, 17, 31), (2, 4, 8), (2, 32, 64)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("samples", "height", "width"), PLANES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_host_composite_and_gradient(on_host, dtype, samples, height, width, channels):
    generator = torch.Generator().manual_seed(0)
    fg, bg, grad = (torch.randn(samples, 3, height, width, generator=generator).to(dtype) for _ in range(3))
    alpha = torch.rand(samples, channels, height, width, generator=generator).to(dtype)
    fg[0, 0, 0, :4] = torch.tensor([1e-7, 6e4, 7e4, float("inf")]).to(dtype)  # subnormal, largest, overflow in float16
    assert_equal_bits(composite_module._composite_cuda(fg, bg, alpha), composite(fg, bg, alpha))
    grads = composite_module._composite_backward_cuda(grad, fg, bg, alpha)
    for ours, reference in zip(grads, torch.ops.dptmat.composite_backward(grad, fg, bg, alpha), strict=True):
        assert_equal_bits(ours, reference)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("samples", "height", "width"), PLANES)
def test_host_composite_of_bytes(on_host, samples, height, width, channels):
    rng = np.random.default_rng(0)
    fg, bg, alpha = (
        torch.from_numpy(rng.integers(0, 256, (samples, c, height, width), np.uint8)) for c in (3, 3, channels)
    )
    assert_equal_bits(composite_module._composite_cuda(fg, bg, alpha), composite(fg, bg, alpha))


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


@pytest.mark.exhaustive
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


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [70, 75, 80, 86, 89, 90, 100, 120])
def test_nvrtc_compiles_without_spilling_registers_for(architecture):
    nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc
    if architecture not in nvrtc.getSupportedArchs():
        pytest.skip(f"NVRTC {nvrtc.getVersion()} does not compile for sm_{architecture}")
    # -ftz=true is what CuPy adds; ptxas reports what each kernel uses
    options = (*_launch.OPTIONS, "-ftz=true", f"--gpu-architecture=sm_{architecture}")
    for stem, kernels, dtypes in cuda_host.KERNELS:
        for dtype in dtypes:
            program = nvrtc.createProgram(_launch.source(stem, dtype), f"{stem}.cu", [], [])
            nvrtc.compileProgram(program, (*options, "--ptxas-options=--verbose"))
            cubin, log = nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
            nvrtc.destroyProgram(program)
            assert all(kernel.encode() in cubin for kernel in kernels)
            used, spills = re.findall(r"Used (\d+) registers", log), re.findall(r"(\d+) bytes spill", log)
            assert len(used) == len(kernels), log
            assert set(spills) == {"0"}, log
            # pytest -rP -k nvrtc shows this report
            print(f"sm_{architecture} {stem} {_launch.NUMBERS[dtype]}: {', '.join(used)} registers, nothing spilled")


def test_source_includes_no_file():
    for stem, _, dtypes in cuda_host.KERNELS:
        assert "#include" not in _launch.source(stem, dtypes[0])


def test_without_cupy_the_message_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"install dptmat\[cuda12\] or dptmat\[cuda13\]"):
        _launch.launch("trimap", "random_trimap", 1, torch.arange(2))


def compile_now(core, code):
    return lambda: core.compile_with_cache(code)  # RawModule's own way asks the driver for the GPU first


def test_without_cuda_headers_the_message_names_what_holds_them(monkeypatch):
    """CuPy's own advice names its extra, which would bring a second CUDA beside PyTorch's."""
    core = pytest.importorskip("cupy", reason="CuPy is not installed")._core.core
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="CuPy before 14 looks for headers in another way")
    monkeypatch.setattr(pathfinder, "find_nvidia_header_directory", lambda *names, **options: None)
    real = types.SimpleNamespace(RawModule=lambda code, options: types.SimpleNamespace(compile=compile_now(core, code)))
    with pytest.raises(RuntimeError, match=r"install nvidia-cuda-runtime \(for dptmat\[cuda13\]\)"):
        _launch._compile(real, _launch.source("trimap"))


def test_other_errors_of_the_compiler_are_not_about_headers():
    def fail():
        raise RuntimeError("out of memory")

    cupy = types.SimpleNamespace(RawModule=lambda code, options: types.SimpleNamespace(compile=fail))
    with pytest.raises(RuntimeError, match="^out of memory$"):
        _launch._compile(cupy, "")


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
            for name in NAMES:
                assert_equal_bits(getattr(ours, name).cpu(), getattr(reference, name))


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("samples", "height", "width"), PLANES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_gpu_composite_and_gradient(dtype, samples, height, width, channels):
    fg, bg, grad = (torch.randn(samples, 3, height, width).to(dtype) for _ in range(3))
    inputs = [x.requires_grad_() for x in (fg, bg, torch.rand(samples, channels, height, width).to(dtype))]
    on_gpu = [x.detach().cuda().requires_grad_() for x in inputs]
    reference, ours = composite(*inputs), composite(*on_gpu)
    assert_equal_bits(ours.cpu(), reference)
    grads = torch.autograd.grad(ours, on_gpu, grad.cuda())
    for x, y in zip(grads, torch.autograd.grad(reference, inputs, grad), strict=True):
        assert_equal_bits(x.cpu(), y)


@pytest.mark.gpu
@pytest.mark.parametrize(("samples", "height", "width"), PLANES)
def test_gpu_composite_of_bytes(samples, height, width):
    fg, bg, alpha = (torch.randint(0, 256, (samples, c, height, width), dtype=torch.uint8) for c in (3, 3, 1))
    assert_equal_bits(composite(fg.cuda(), bg.cuda(), alpha.cuda()).cpu(), composite(fg, bg, alpha))


@pytest.mark.gpu
def test_gpu_writes_over_what_is_given_and_takes_views_that_start_anywhere():
    views, ids, color = draw(4, 32, 48)
    out = synthesize(views.cuda(), ids.cuda(), 1, dtype=torch.float16)
    shifted = torch.empty(views.numel() + 1, dtype=torch.uint8, device="cuda")[1:].view_as(views).copy_(views)
    assert synthesize(shifted, ids.cuda(), 2, color.cuda(), dtype=torch.float16, out=out) is out
    reference = synthesize(views, ids, 2, color, dtype=torch.float16)
    for name in NAMES:
        assert_equal_bits(getattr(out, name).cpu(), getattr(reference, name))


@pytest.mark.gpu
def test_gpu_other_than_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    views, ids, color = draw(4, 32, 48)
    ours = synthesize(*(x.to("cuda:1") for x in (views, ids)), 2, color.to("cuda:1"))
    assert ours.input.device.index == 1
    assert_equal_bits(ours.input.cpu(), synthesize(views, ids, 2, color).input)


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


@pytest.mark.gpu
def test_gpu_two_streams_at_a_time():
    inputs = [tuple(x.cuda() for x in draw(64, 224, 224)) for _ in range(2)]
    expected = [synthesize(views, ids, 5, color) for views, ids, color in inputs]
    torch.cuda.synchronize()
    streams, batches = [torch.cuda.Stream() for _ in inputs], []
    for _ in range(10):
        for stream, (views, ids, color) in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                batches.append(synthesize(views, ids, 5, color))
    torch.cuda.synchronize()
    for i, batch in enumerate(batches):
        assert_equal_bits(batch.input, expected[i % 2].input)


@pytest.mark.gpu
def test_gpu_compiled_step_with_the_operators_equals_eager():
    views, ids, color = (x.cuda() for x in draw(4, 64, 64))
    weight = torch.rand(1, 6, 1, 1, device="cuda", requires_grad=True)

    def step():
        batch = synthesize(views, ids, 5, color)
        alpha = (batch.input * weight).mean(1, keepdim=True).sigmoid()
        fg, bg = batch.input[:, :3], batch.input[:, :3].flip(0)
        return (composite(fg, bg, alpha) - batch.contrast).square().mean()

    (expected,) = torch.autograd.grad(step(), weight)
    (ours,) = torch.autograd.grad(torch.compile(step, fullgraph=True)(), weight)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)  # sums over 16,384 pixels in another order


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_gpu_runs_are_clean_under_compute_sanitizer(tool):
    if not shutil.which("compute-sanitizer"):
        pytest.skip("compute-sanitizer is not on the PATH")
    small = "test_gpu and not sanitizer and not compiled and not stream and not graph and not 64-224"
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", small, __file__]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # else all tensors lie in one allocation
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
