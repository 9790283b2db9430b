"""The parts of a run that follow from the machine."""

import pytest
import torch

from dptmat.training import distributed
from dptmat.training.build import choose_threads
from dptmat.training.distributed import Process


@pytest.mark.parametrize(
    ("device", "cores", "processes", "threads"),
    [
        ("cpu", 2, 1, 2),
        ("cpu", 192, 1, 192),
        ("cuda:0", 192, 1, 16),  # 192 would take 3 GB of the GPU and as much of the host
        ("cuda:0", 192, 8, 16),
        ("cuda:0", 64, 8, 8),
        ("cuda:0", 4, 8, 1),
    ],
)
def test_threads_are_those_of_the_process_and_few_on_a_gpu(monkeypatch, device, cores, processes, threads):
    monkeypatch.setattr(distributed, "count_cores", lambda: cores)
    assert choose_threads(Process(0, processes, processes, torch.device(device))) == threads
