"""What the benchmarks share: clocks for the CPU and the GPU, the copy bandwidth, and what a result depends on."""

import functools
import importlib.metadata
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import click
import numpy as np
import torch


def time_clock(call, seconds, repeats):
    """Time calls on the CPU: seconds each; at least 3, within a budget of seconds."""
    call()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < 3 or (len(taken) < repeats and time.perf_counter() < end):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return "clock", taken


def time_gpu(calls, launches, repeats):
    """Time replays of ``launches`` calls, which take turns: seconds for one call, for each replay."""
    kept = [None] * len(calls)

    def launch():
        for i in range(launches):
            kept[i % len(calls)] = calls[i % len(calls)]()

    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for call in calls[:3] * 2:
            call()
    torch.cuda.synchronize()
    graph, timing = torch.cuda.CUDAGraph(), "graph"
    try:
        with torch.cuda.graph(graph):
            launch()
        replay = graph.replay
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        click.echo(f"not captured, timed with events: {str(error).splitlines()[0]}", err=True)
        timing, replay = "events", launch
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for _ in range(3):
        replay()
    for start, end in events:
        start.record()
        replay()
        end.record()
    torch.cuda.synchronize()
    return timing, [start.elapsed_time(end) / 1e3 / launches for start, end in events]


def time_host(call, repeats):
    """Time enqueueing on the GPU, with a wait after every 20 calls outside the measured time: median in seconds."""
    taken = []
    for i in range(repeats):
        if i % 20 == 0:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return float(np.median(taken))


@functools.lru_cache
def measure_copy(device, size, threads, quick):
    """Measure a copy between two buffers of ``size`` bytes: GB/s, read and written."""
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    copy = functools.partial(target.copy_, source)
    _, taken = time_gpu([copy], 10, 50) if device == "cuda" else time_clock(copy, 1, 5 if quick else 30)
    return 2 * size / float(np.median(taken)) / 1e9


def measure_memory(call):
    """Measure what one call allocates on the GPU at its peak: MB."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def peak_host_mb(process="self"):
    """Largest memory that a process has had so far (VmHWM): MB."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


def used_device_mb():
    """Memory that is taken on the GPU, by all processes, libraries and DALI included: MB."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6


def free_bytes(device):
    if device == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024


def describe_environment(devices):
    """Name what a result depends on."""
    installed, versions = importlib.metadata.packages_distributions(), {"python": platform.python_version()}
    versions["torch"] = torch.__version__  # with the CUDA version that it is built for
    for name in ("numpy", "cupy", "numba", "cv2"):
        versions[name] = importlib.metadata.version(installed[name][0]) if name in installed else None
    dali = [name for name in installed.get("nvidia", []) if name.startswith("nvidia-dali")]
    versions["dali"] = importlib.metadata.version(dali[0]) if dali else None
    cpu = Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    names = {"cpu": f"{cpu}, {torch.get_num_threads()} threads"}
    if "cuda" in devices:
        names["cuda"] = torch.cuda.get_device_name()
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": ask(git),
        "devices": {device: names[device] for device in devices},
        "driver": ask(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "versions": versions,
    }


def write_result(path, result):
    """Write a result as JSON, into a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def as_usage_error(error):
    """Say an error of the library as one of the program: parameters, which stand between backticks, as options."""
    return click.UsageError(re.sub(r"`(\w+)`", lambda name: "--" + name[1].replace("_", "-"), str(error)))


def ask(command):
    """Run a command and return the first line of its output, or None where it is missing or fails."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None
