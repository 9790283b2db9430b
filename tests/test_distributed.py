"""How processes that torchrun started find each other, and what they say if one does not come."""

import datetime

import pytest
import torch

from dptmat.errors import UserError
from dptmat.training import distributed


@pytest.fixture
def first_of_two(monkeypatch):
    """Be the first of two processes, the other of which never comes: function that is given the port to meet at."""

    def be(port, **more):
        names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
        for name, value in {**names, "MASTER_ADDR": "localhost", "MASTER_PORT": port, **more}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(distributed, "_START", datetime.timedelta(seconds=1))

    return be


def test_a_process_that_hangs_before_it_starts_is_named(first_of_two):
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # as torchrun has one
    first_of_two(store.port, TORCHELASTIC_USE_AGENT_STORE=True)
    with pytest.raises(UserError, match="of 2 processes 1 have not started within 1 s; see their messages"):
        distributed.start("cpu")


@pytest.mark.slow
def test_processes_that_do_not_meet_say_where(first_of_two):
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    port = store.port
    del store  # what listened there has gone
    first_of_two(port)
    with pytest.raises(UserError, match=f"do not meet at localhost:{port}: .*1/2 clients joined; see whether all"):
        distributed.start("cpu")
