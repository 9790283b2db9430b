"""Views made on the CPU: the same as DALI's operators make, which the GPU path has."""

import cv2
import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from ranges import make_augmentation

from dptmat.pipelines import pretrain
from dptmat.pipelines.resample import shrink, warp

SHAPES = [(1, 1), (50, 1), (1, 50), (64, 64), (65, 64), (375, 500), (333, 500), (120, 128), (2000, 60), (818, 89)]


def run_dali(build, *inputs):
    """Outputs of a graph of one operation on the CPU: a list of arrays."""

    @pipeline_def(batch_size=len(inputs[0]), num_threads=2, device_id=None, prefetch_queue_depth=1)
    def graph():
        return build(*(fn.external_source(name=str(i)) for i in range(len(inputs))))

    pipe = graph()
    pipe.build()
    return [np.array(output) for output in pipe.run(**{str(i): x for i, x in enumerate(inputs)})[0]]


def smooth(shape):
    """Noise without what is finer than some pixels: uint8 [H, W, 3]."""
    noise = np.random.default_rng(shape).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4)


def test_shrunk_photographs_have_the_sizes_and_pixels_of_dali():
    photos = [smooth(shape) for shape in SHAPES]
    files = [np.frombuffer(b"P6\n%d %d\n255\n" % x.shape[1::-1] + x.tobytes(), np.uint8) for x in photos]
    made = run_dali(lambda file, x: pretrain.shrink_photograph(file, x, 64, "crop", True)[0], files, photos)
    for photo, expected in zip(photos, made, strict=True):
        given = shrink(photo, 64)
        assert given.shape == expected.shape
        # 0.34 levels measured: DALI keeps the scale exact where the longer side is rounded. No antialiasing gives 1.3.
        assert np.abs(given.astype(int) - expected).mean() < 0.5


def test_warped_photographs_are_those_of_dali():
    photos = [smooth((70 + 3 * i, 64)) for i in range(8)]
    affine, _ = make_augmentation().matrices(np.arange(8), 3, 64)
    made = run_dali(
        lambda x, matrix: pretrain.warp_photograph(x, matrix, x.shape(dtype=types.FLOAT), 64, True),
        photos,
        list(affine),
    )
    for photo, matrix, expected in zip(photos, affine, made, strict=True):
        # 0.00 levels measured with OpenCV 5; version 4 interpolates in steps of 1/32 pixel. Half a pixel gives 0.5.
        assert np.abs(warp(photo, matrix, 64).astype(int) - expected).mean() < 0.2


@pytest.mark.parametrize("shape", [(300, 400), (64, 64), (7, 5)])
def test_a_flat_photograph_stays_flat(shape):
    assert (
        warp(shrink(np.full((*shape, 3), 201, np.uint8), 64), np.float32([[2, 1, -99], [-1, 2, -33]]), 64) == 201
    ).all()


@pytest.mark.parametrize("shape", [(64, 64), (64, 93), (200, 64)])
def test_a_photograph_of_the_size_stays_as_it_is(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    planes = torch.from_numpy(photo)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, shape, mode="bilinear", antialias=True)
    assert np.array_equal(resized[0].permute(1, 2, 0), photo)  # so that nothing has to be resized
    assert shrink(photo, 64) is photo
