"""What a GPU does during some steps, by PyTorch's profiler: where it idles, what the host waits for, what is copied."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import torch

LONG = 50.0  # microseconds: more than lies between two kernels of a host that is ahead of its GPU
WORK = "kernel", "gpu_memcpy", "gpu_memset"


def record(call, count):
    """Record calls that enqueue work on the GPU: the events of the profiler, times in microseconds."""
    for calls in (1, count):  # the profiler's own start would be seen in the first
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(calls):
                call()
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text())["traceEvents"]


def summarize(events, count):
    """Summarise what ``record`` gave of ``count`` steps.

    The trainer's stream is the one with the most work, and its threads those that put it there. Their waits count up to
    the last work that they put there; those after it end the recording.

    Returns:
        Dictionary: ``ms`` of a step; ``busy``, the share of the time in which the stream worked; ``long_gaps`` between
        two pieces of its work that are longer than 50 microseconds, per step; ``longest_gap_us``; ``waits``, calls by
        which its threads waited for the device, per step; ``mb_to_device`` and ``mb_to_host``, copied on all streams,
        per step.

    Raises:
        ValueError: The profiler has seen no work of a GPU.
    """
    events = [event for event in events if event.get("ph") == "X"]
    work = [event for event in events if event["cat"] in WORK]
    if not work:
        raise ValueError("the profiler has seen no work of the GPU; see whether CUPTI may be used on this machine")
    time = Counter()
    for event in work:
        time[event["args"]["stream"]] += event["dur"]
    ((stream, _),) = time.most_common(1)
    own = sorted((e for e in work if e["args"]["stream"] == stream), key=lambda event: event["ts"])
    calls = [event for event in events if event["cat"] in ("cuda_runtime", "cuda_driver")]
    # Some calls and replayed graphs carry no number that ties them together.
    numbers = {event["args"]["correlation"] for event in own if "correlation" in event["args"]}
    launches = {(call["tid"], call["ts"]) for call in calls if call.get("args", {}).get("correlation") in numbers}
    if not launches:
        raise ValueError("the profiler does not say which calls put work on the GPU; see whether CUPTI fits the driver")
    threads, last = {thread for thread, _ in launches}, max(ts for _, ts in launches)
    waits = [call for call in calls if "Synchronize" in call["name"] and call["tid"] in threads and call["ts"] < last]

    gaps, end = [], own[0]["ts"]
    for event in own:
        gaps.append(max(0.0, event["ts"] - end))
        end = max(end, event["ts"] + event["dur"])
    taken = end - own[0]["ts"]

    def copied(direction):
        copies = (event for event in work if direction in event["name"])
        return sum(event["args"]["bytes"] for event in copies) / 1e6 / count

    return {
        "ms": taken / 1e3 / count,
        "busy": 1 - sum(gaps) / taken,
        "long_gaps": sum(gap > LONG for gap in gaps) / count,
        "longest_gap_us": max(gaps),
        "waits": len(waits) / count,
        "mb_to_device": copied("HtoD"),
        "mb_to_host": copied("DtoH"),
    }
