"""What the profiler has seen of a GPU is summarised right: a recording written by hand, and a real one on a GPU."""

import pytest
import torch


@pytest.fixture
def gaps(import_benchmark):
    return import_benchmark("gaps")


def on_gpu(ts, dur, stream, correlation, cat="kernel", name="gemm", **args):
    args = {"stream": stream, "correlation": correlation, **args}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 0, "tid": stream, "args": args}


def on_host(ts, name, tid, correlation):
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "ts": ts, "dur": 3, "pid": 1, "tid": tid, "args": args}


# Two steps on stream 7, with 400 of 2000 microseconds idle in gaps of 20, 300 and 80, enqueued by threads 1 and 2; the
# data path is on stream 9, and its thread 3 waits as it likes.
RECORDING = [
    {"ph": "M", "name": "process_name", "pid": 0},
    on_gpu(1000, 600, 7, 11),
    on_gpu(1100, 100, 7, 12),  # within the one before: captured graphs may run side by side
    on_gpu(1620, 380, 7, 13),
    on_gpu(2300, 500, 7, 14, cat="gpu_memset", name="Memset (Device)"),
    on_gpu(2880, 120, 7, 15),
    on_gpu(900, 700, 9, 21),
    on_gpu(1650, 40, 9, 22, cat="gpu_memcpy", name="Memcpy HtoD (Pinned -> Device)", bytes=6_000_000),
    on_gpu(1700, 40, 9, 23, cat="gpu_memcpy", name="Memcpy DtoH (Device -> Pageable)", bytes=500_000),
    *[on_host(900 + 200 * i, "cudaLaunchKernel", 1 + i % 2, 11 + i) for i in range(5)],
    *[on_host(800 + i, "cudaLaunchKernel", 3, 21 + i) for i in range(3)],
    on_host(1500, "cudaStreamSynchronize", 3, 31),
    on_host(1501, "cudaStreamSynchronize", 2, 32),
    on_host(3100, "cudaDeviceSynchronize", 1, 33),
]


def test_a_recording_by_hand(gaps):
    assert gaps.summarize(RECORDING, 2) == {
        "ms": 1.0,
        "busy": 0.8,
        "long_gaps": 1.0,
        "longest_gap_us": 300.0,
        "waits": 0.5,
        "mb_to_device": 3.0,
        "mb_to_host": 0.25,
    }


def test_calls_and_work_without_a_number_are_no_failure(gaps):
    call = {"ph": "X", "cat": "cuda_driver", "name": "call", "ts": 950, "dur": 1, "pid": 1, "tid": 9}
    work = {key: value for key, value in RECORDING[2].items() if key != "args"} | {"args": {"stream": 7}}
    assert gaps.summarize([*RECORDING[:2], work, *RECORDING[3:], call, {**call, "args": {}}], 2) == gaps.summarize(
        RECORDING, 2
    )
    with pytest.raises(ValueError, match="does not say which calls"):
        gaps.summarize([event for event in RECORDING if event.get("cat") != "cuda_runtime"], 2)


def test_a_recording_without_a_gpu_is_refused(gaps):
    with pytest.raises(ValueError, match="seen no work of the GPU"):
        gaps.summarize(RECORDING[:1], 2)


@pytest.mark.gpu
def test_gpu_recording_of_work_that_waits_and_copies(gaps):
    x = torch.randn(2048, 2048, device="cuda")

    def step():
        (x @ x).sum().item()  # a wait
        torch.cuda._sleep(2_000_000)  # cycles: 1 ms at 2 GHz
        torch.ones(1_000_000).to("cuda")

    seen = gaps.summarize(gaps.record(step, 4), 4)
    assert seen["waits"] >= 1
    assert seen["mb_to_device"] == pytest.approx(4.0, rel=0.01)
    assert 0 < seen["mb_to_host"] < 0.01
    assert seen["ms"] > 0.8
    assert 0 < seen["busy"] < 1
