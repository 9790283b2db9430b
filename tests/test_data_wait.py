"""The wait for data, on the host and on the GPU."""

import time

import pytest
import torch

from dptmat.training.data_wait import DataWait

pytestmark = pytest.mark.timing


def deliver(seconds, count):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_the_host_waits_as_long_as_the_batches_take():
    waiting = DataWait(deliver(0.02, 5), "cpu")
    taken = []
    for number in waiting:
        taken.append(number)
        time.sleep(0.2)  # work, which does not count
    assert taken == [0, 1, 2, 3, 4]
    assert 0.1 <= waiting.host_seconds < 0.8  # with the work it would be 1.1
    assert waiting.gpu_seconds is None


@pytest.mark.gpu
def test_the_gpu_waits_only_when_it_has_nothing_else_to_do():
    def work():
        torch.cuda._sleep(400_000_000)  # cycles: 0.2 s at 2 GHz

    work()
    torch.cuda.synchronize()
    busy = DataWait(deliver(0.02, 5), "cuda")
    for _ in busy:
        work()
    torch.cuda.synchronize()
    assert busy.host_seconds >= 0.1
    assert busy.gpu_seconds < 0.05  # the first batch, before which there was no work, and 4 pairs of events
    idle = DataWait(deliver(0.02, 5), "cuda")
    for _ in idle:
        torch.cuda.synchronize()
    torch.cuda.synchronize()
    assert 0.08 <= idle.gpu_seconds < 0.2
