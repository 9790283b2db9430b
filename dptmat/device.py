"""What a machine has to compute with: its device, the precision of that, and the cores of this process."""

import os

import torch

from dptmat.errors import UserError

# How libraries call a lack of memory, in lower case: PyTorch on a CPU, where oneDNN fails with the second; cuBLAS and
# cuDNN; CUDA itself, CuPy and DALI; nvJPEG and nvImageCodec; C++.
_LACKS_OF_MEMORY = (
    "defaultcpuallocator", "could not create a primitive", "status_alloc_failed", "cudnn_status_internal_error",
    "out of memory", "out_of_memory", "erroroutofmemory", "errormemoryallocation", "can't allocate",
    "allocation failed", "failed to allocate", "cannot allocate memory", "allocator_failure", "allocator failure",
    "bad_alloc",
)  # fmt: skip


def choose_device(device: str) -> torch.device:
    """Choose where to compute: "cpu", "cuda", or "auto" for CUDA where there is a GPU.

    Of several GPUs it is the one that torchrun gives this process, else the first.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("`device` cuda: PyTorch sees no GPU; use `device` cpu, or check the driver and the torch build")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def choose_dtype(amp: str, device: torch.device) -> torch.dtype:
    """Choose what a network computes in.

    Args:
        amp: "off", "auto", "bf16" or "fp16"; auto is bf16 where the GPU has it, fp16 on older ones, off on the CPU.
        device: Where it computes.

    Raises:
        UserError: The device does not compute in that precision.
    """
    if amp == "auto" and device.type == "cpu" or amp == "off":
        return torch.float32
    if amp == "fp16" and device.type == "cpu":
        raise UserError("`amp` fp16 needs a GPU; on the CPU use `amp` off or bf16")
    # Volta and Turing only emulate bfloat16.
    native_bf16 = device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)
    if amp == "bf16" and not native_bf16:
        raise UserError("`amp` bf16: this GPU has no bfloat16 units; use `amp` fp16")
    return torch.bfloat16 if amp == "bf16" or (amp == "auto" and native_bf16) else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device or the host has no memory left, in the words of any library here."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(words in message for words in _LACKS_OF_MEMORY)


def count_cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and schedulers give a process some of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
