"""Shared by the tests: photographs on disk and a clear skip for what needs a GPU."""

import pytest
import torch

from dptmat.demo import write_photographs


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Folder of 72 JPEG photographs; read only."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return folder
