"""Why an image cannot be decoded is said in a few words, file by file, and lack of memory is no fault of a file."""

import shutil

import pytest

from dptmat.device import is_out_of_memory
from dptmat.pipelines import probe
from dptmat.pipelines.probe import find_unreadable


def test_a_file_that_cannot_be_decoded_does_not_hide_the_next(photographs, tmp_path):
    text, missing, cut = (str(tmp_path / name) for name in ("text", "missing", "cut"))
    good = [str(path) for path in sorted(photographs.iterdir())[:3]]
    (tmp_path / "text").write_bytes(b"text" * 100)
    (tmp_path / "cut").write_bytes(b"\x89PNG\r\n\x1a\n" + b"text" * 100)
    found = list(find_unreadable([good[0], text, good[1], missing, cut, text, good[2]], None))
    assert [path for path, _ in found] == [text, missing, cut, text]
    assert [reason for _, reason in found[:2]] == ["it is text", "No such file or directory"]
    assert found[2][1].startswith("cannot be decoded")
    assert "\n" not in found[2][1]


# In the words of the libraries' sources and of users' reports.
LACKS = [
    "Critical error in pipeline: [/opt/dali/core/mm/pool.h:81] Can't allocate 50331648 bytes on device 0.",
    "CUDA allocation failed",
    "std::bad_alloc",
    "nvjpeg error 5: NVJPEG_STATUS_ALLOCATOR_FAILURE",
    "nvImageCodec failure: NVIMGCODEC_STATUS_ALLOCATOR_FAILURE",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "Out of memory allocating 1,073,741,824 bytes (allocated so far: 0 bytes).",
    "[Errno 12] Cannot allocate memory",
]


@pytest.mark.parametrize("message", LACKS)
def test_a_lack_of_memory_is_known_in_the_words_of_every_library(message):
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize(
    "message", ["Failed to decode sample #3", "an illegal memory access", "CUDNN_STATUS_BAD_PARAM"]
)
def test_other_errors_are_no_lack_of_memory(message):
    assert not is_out_of_memory(RuntimeError(message))


class GPU:
    """In place of the decoder: on a device it refuses each second file, on the CPU the really damaged ones."""

    error = ""
    on_cpu = probe._Decoder

    def __init__(self, device_id):
        self.calls, self.cpu = 0, None if device_id is not None else GPU.on_cpu(None)

    def refuse(self, content):
        if self.cpu:
            return self.cpu.refuse(content)
        self.calls += 1
        return RuntimeError(GPU.error) if self.calls % 2 else None


@pytest.mark.parametrize("error", LACKS[:5])
def test_good_files_are_not_blamed_where_a_gpu_has_no_memory(photographs, tmp_path, monkeypatch, error):
    good = [str(path) for path in sorted(photographs.iterdir())[:6]]
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"text" * 100)
    monkeypatch.setattr(probe, "_Decoder", GPU)
    monkeypatch.setattr(GPU, "error", error)
    by_pillow = set()
    assert [path for path, _ in find_unreadable([*good, str(tmp_path / "cut.png")], 0, by_pillow)] == [
        str(tmp_path / "cut.png")
    ]
    assert not by_pillow


def test_what_a_gpu_alone_refuses_is_left_to_the_cpu(photographs, tmp_path, monkeypatch):
    good = [shutil.copy(path, tmp_path) for path in sorted(photographs.iterdir())[:4]]
    monkeypatch.setattr(probe, "_Decoder", GPU)
    monkeypatch.setattr(GPU, "error", "Failed to decode sample #0")
    by_pillow = set()
    assert not list(find_unreadable(good, 0, by_pillow))
    assert by_pillow == {good[0], good[2]}
