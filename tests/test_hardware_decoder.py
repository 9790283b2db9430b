"""Whether a GPU's dedicated JPEG decoder may be used: it has been reported to write before its turn on the stream."""

import hashlib
import shutil

import pytest
import torch
from PIL import Image
from ranges import make_augmentation

from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training.quarantine import Quarantine

BATCHES, SIZE = 2000, 224


def digests(index, *, busy):
    """Digest of each of many batches, half-way decoded by the dedicated decoder."""
    sampler = Sampler(3, len(index), 64)
    source = PretrainSource(index, sampler, make_augmentation(), SIZE)
    loader = Loader(
        source, sampler, micro_batch=64, device="cuda", threads=8, prefetch=3, hw_decoder_load=0.65,
        quarantine=Quarantine(lambda path, reason: None),
    )  # fmt: skip
    found = []
    for _ in range(BATCHES):
        views = next(loader).views
        if busy:  # what reads the batch comes late: an early write of the next one would change it
            torch.cuda._sleep(2_000_000)
        found.append(hashlib.blake2b(views.cpu().numpy()).digest())
    return found


@pytest.mark.gpu
@pytest.mark.slow
def test_the_dedicated_decoder_gives_the_same_pixels_whatever_the_gpu_is_doing(photographs, tmp_path):
    """The share is split by a fixed rule, so that two runs have the same photographs decoded by it."""
    for number, path in enumerate(sorted(photographs.iterdir())):
        shutil.copy(path, tmp_path / f"{number}.jpg")
        with Image.open(path) as photograph:  # of other sizes, so that memory is handed out anew
            for larger in (2, 3):
                photograph.resize([side * larger // 2 for side in photograph.size]).save(
                    tmp_path / f"{number}_{larger}.jpg", quality=92, subsampling=larger - 1
                )
    index = ImageIndex.open(tmp_path)
    still, busy = digests(index, busy=False), digests(index, busy=True)
    differ = [number for number, pair in enumerate(zip(still, busy, strict=True)) if len(set(pair)) > 1]
    assert not differ, f"{len(differ)} of {BATCHES} batches differ, the first one {differ[0]}"
