"""Both ways in which images are decoded, DALI's in training and Pillow's in all else, give the same pixels."""

import numpy as np
import pytest
from image_kinds import DALI, PILLOW, write_kinds

from dptmat.data.image_io import EXTENSIONS, read_image
from dptmat.pipelines._dali import fn, pipeline_def, types
from dptmat.pipelines.encoded import decode_by_pillow, read_encoded
from dptmat.pipelines.pretrain import shrunk_shape
from dptmat.pipelines.probe import decode, find_unreadable
from dptmat.pipelines.read_ahead import Reader
from dptmat.pipelines.resample import shrink


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1, device_id=None)
def graph(output_type=types.RGB, size=224):
    """An image, its size when shrunk by its head, and DALI's own word on that."""
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    image = decode(encoded, output_type, False, 0.0)
    own = fn.resize(image, size=[size, size], mode="not_smaller", max_size=4 * size, interp_type=types.INTERP_LINEAR)
    return image, shrunk_shape(encoded, size), own.shape()


@pytest.fixture(scope="module")
def run():
    """Function that runs the graph on the content of a file."""
    pipe = graph()
    pipe.build()
    return lambda encoded: [np.array(output[0]) for output in pipe.run(encoded=[np.frombuffer(encoded, np.uint8)])]


@pytest.mark.parametrize("name", DALI)
def test_dali_and_pillow_give_the_same_pixels(tmp_path, run, name):
    (path,) = write_kinds(tmp_path, {name: DALI[name]})
    by_pillow = set()
    assert not list(find_unreadable([path], None, by_pillow))
    assert not by_pillow
    image = run(read_encoded(path))[0]
    # CMYK becomes RGB by a product that each rounds in its own way.
    assert image.shape == read_image(path).shape
    assert np.abs(image.astype(int) - read_image(path)).max() <= ("cmyk" in name)


@pytest.mark.parametrize("name", PILLOW)
def test_what_dali_refuses_comes_from_pillow_as_it_is(tmp_path, run, name, said):
    (path,) = write_kinds(tmp_path, {name: PILLOW[name]})
    by_pillow = set()
    assert not list(find_unreadable([path], None, by_pillow))
    assert by_pillow == {path}
    image = run(decode_by_pillow(path))[0]
    assert said() == ""  # which would come once in every epoch
    assert np.array_equal(image, read_image(path))
    assert sorted(read_image(path).shape[:2]) == [61, 83]


def test_a_gray_image_from_pillow_keeps_its_levels(tmp_path):
    """An alpha goes through DALI's conversion of red, green and blue."""
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    pipe = graph(types.GRAY)
    pipe.build()
    content = np.frombuffer(b"P6\n256 1\n255\n" + levels.tobytes(), np.uint8)
    assert np.array_equal(np.array(pipe.run(encoded=[content])[0][0])[0, :, 0], np.arange(256))


@pytest.mark.parametrize("size", [64, 224, 513])
def test_the_shape_of_a_shrunk_photograph_is_known_from_its_head(tmp_path, photographs, size):
    pipe = graph(size=size)
    pipe.build()
    paths = [*write_kinds(tmp_path, DALI), *map(str, sorted(photographs.iterdir()))]
    for path in paths:
        image, shape, own = (np.array(output[0]) for output in pipe.run(encoded=Reader(1)([path])))
        assert tuple(shape) == shrink(image, size).shape[:2] == tuple(own[:2]), path


def test_every_ending_that_is_looked_for_is_tried():
    assert {f".{name.rpartition('.')[2].lower()}" for name in DALI} | {".pnm"} == set(EXTENSIONS)
