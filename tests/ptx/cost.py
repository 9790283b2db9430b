"""What a launch costs a GPU: instructions of its machine code, and the share of its issue slots that they take."""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GPU:
    """What the arithmetic needs of a GPU. Each multiprocessor issues four instructions of warps in a cycle."""

    multiprocessors: int
    clock: float  # Hz
    copy: float  # bytes per second read and written by a copy: 88 % of the memory's bandwidth


H100 = GPU(132, 1.755e9, 2.95e12)
H200 = GPU(132, 1.755e9, 4.2e12)


def issue_share(instructions, bytes_moved, gpu):
    """Compute the share of issue slots that a warp takes of those it gets while its bytes move.

    Args:
        instructions: That a warp issues.
        bytes_moved: Between the GPU's memory and a warp.
        gpu: A :class:`GPU`, whose memory moves 85 % of the bytes of a copy in a second.
    """
    seconds = bytes_moved / (0.85 * gpu.copy)
    return instructions / (4 * gpu.multiprocessors * gpu.clock * seconds)


def find_nvdisasm():
    """Find the disassembler, which comes with PyTorch's Triton; None where it is not installed."""
    try:
        import triton
    except ImportError:
        return shutil.which("nvdisasm")
    return shutil.which(Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm") or shutil.which("nvdisasm")


def instructions_per_warp(report, cubin):
    """Estimate the machine instructions that a warp issues.

    The report is of PTX. Of the machine code that belongs to a line of the source, as large a share counts as was
    executed of the line's PTX; what belongs to a line without PTX counts once.
    """
    written, executed = Counter(), Counter()
    for instruction in report.instructions:
        written[instruction.line] += 1
        executed[instruction.line] += instruction.executed / report.warps
    lines = _machine_instructions(cubin).items()
    return sum(count * (executed[line] / written[line] if written[line] else 1) for line, count in lines)


def _machine_instructions(cubin):
    """Count the machine instructions of each line of the CUDA source, without what fills up behind the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [find_nvdisasm(), "-c", "-g", path]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts, line = Counter(), 0
    for text in listing.splitlines():
        if place := re.search(r'//## File ".*", line (\d+)', text):
            line = int(place[1])
        elif re.match(r"\s*/\*[0-9a-f]{4,}\*/", text) and " NOP" not in text:
            counts[line] += 1
    return counts
