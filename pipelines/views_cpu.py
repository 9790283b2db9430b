"""Square views on the CPU, by PyTorch's resize and OpenCV's warp: DALI's, which the GPU path has, take three times as
long there.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np

from dptmat.pipelines._dali import DataNode, Pipeline, fn
from dptmat.pipelines.resample import shrink, warp


def shrink_on_cpu(photo: DataNode, size: int) -> DataNode:
    """Resize photographs in a graph as ``shrink`` does."""
    return _on_threads(lambda image: shrink(image, size), photo)


def squash_on_cpu(photo: DataNode, size: int) -> DataNode:
    """Give photographs in a graph a square shape, by OpenCV's linear interpolation without antialiasing."""
    return _on_threads(lambda image: cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), photo)


def warp_on_cpu(photo: DataNode, affine: DataNode, size: int) -> DataNode:
    """Warp photographs in a graph as ``warp`` does."""
    return _on_threads(lambda image, matrix: warp(image, matrix, size), photo, affine)


def _on_threads(function: Callable[..., np.ndarray], *inputs: DataNode) -> DataNode:
    """Call a function of arrays for each sample of a graph, on as many threads as the graph has."""
    threads = Pipeline.current().num_threads
    return fn.python_function(
        *inputs, function=lambda *batch: list(_pool(threads).map(function, *batch)), batch_processing=True
    )


@cache  # one for all graphs: a loader builds one anew after each bad file
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
