"""The word about a data path that training waits for: when it comes, what is measured, which option it names."""

import cv2
import numpy as np
import pytest
from ranges import make_augmentation

from dptmat.config.pretrain import PretrainConfig
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training import bottleneck, distributed
from dptmat.training.bottleneck import Bottleneck, advise
from dptmat.training.quarantine import Quarantine

SPEEDS = {"read": 9000.0, "decode": 1000.0, "warp": 800.0}  # images/s: 0.11, 0.89 and 0.25 ms per image
CPU = {"gpu": False, "threads": 8, "cores": 8, "prefetch": 2, "hw_decoder_load": 0.65}
GPU = {**CPU, "gpu": True}


@pytest.mark.parametrize(
    ("speeds", "where", "sentence"),
    [
        (SPEEDS, {**CPU, "threads": 2}, "What limits is decoding: use `threads` 4"),
        (SPEEDS, CPU, "What limits is decoding: use photographs that dptmat pack has shrunk to `size`"),
        (SPEEDS, GPU, "What limits is decoding: use another `hw_decoder_load` than 0.65"),
        ({"read": 300, "decode": 280, "warp": 270}, GPU, "What limits is reading: use `threads` 32"),
        (
            {"read": 9000, "decode": 5000, "warp": 700},
            GPU,
            "What limits is augmentation: use photographs that dptmat",
        ),
        # Files that were slow at their first reading only: each stage by itself is faster after that.
        ({"read": 100, "decode": 900, "warp": 700}, CPU, "What limits is reading: use `threads` 32"),
        ({stage: 9 * speed for stage, speed in SPEEDS.items()}, CPU, "same cores: use `prefetch` 4"),
        ({stage: 9 * speed for stage, speed in SPEEDS.items()}, GPU, "come in bursts: use `prefetch` 4"),
    ],
)
def test_the_slowest_stage_and_an_option_that_helps_are_named(speeds, where, sentence):
    told = advise(speeds, 1200, **where)
    assert "Training could take 1,200 images/s" in told
    assert sentence in told


def make(folder, size=64, **options):
    """Loader of a folder's photographs, and what looks at the wait for it."""
    settings = PretrainConfig(data=str(folder), out="unused", size=size, batch_size=8, threads=1, **options)
    index = ImageIndex.open(folder)
    sampler, process = Sampler(0, len(index), 8), distributed.single_process("cpu")
    source = PretrainSource(index, sampler, make_augmentation(), size)
    loader = Loader(source, sampler, micro_batch=8, quarantine=Quarantine(print))
    return loader, Bottleneck(loader, settings, process, 8)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Folder of 16 photographs of 640x640 that are all detail, slow to decode."""
    folder = tmp_path_factory.mktemp("noise")
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (640, 640, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bottleneck, "_SECONDS", 0.2)


@pytest.mark.slow
@pytest.mark.timing
def test_what_limits_is_measured(noise, photographs):
    """Large photographs of noise for small views, and small photographs for large views."""
    for folder, size, limit in (noise, 64, "decoding"), (photographs, 1024, "augmentation"):
        _, look = make(folder, size)
        look.look(0, 0.0)
        told = look.look(100, 100.0)  # seconds: training would take any number of images
        assert f"What limits is {limit}" in told, told


def test_measuring_takes_no_batch_from_the_run(photographs):
    looked_at, look = make(photographs)
    plain, _ = make(photographs)
    for number in range(6):
        if number == 3:
            look.look(0, 0.0)
            assert look.look(100, 1.0)
        a, b = next(looked_at), next(plain)
        assert a.ids.tolist() == b.ids.tolist()
        assert (a.views == b.views).all()


def test_a_small_or_short_wait_is_not_worth_a_word_and_a_long_one_is_worth_one(photographs, monkeypatch):
    clock = iter(np.arange(0, 1000, 100.0))  # seconds
    with monkeypatch.context() as patched:
        patched.setattr(bottleneck.time, "perf_counter", lambda: next(clock))
        patched.setattr(Bottleneck, "_measure", lambda self, stage: SPEEDS[stage])
        _, look = make(photographs)
        told = [
            look.look(step, waited)
            for step, waited in (
                (10, 50.0),  # the start, which does not count
                (60, 80.0),  # half of the time, but in 50 steps
                (110, 54.0 + 5.5),  # 9.5 of 200 s
                (210, 54.0 + 5.5 + 4.9),
                (310, 70.0),  # 5.6 of 100 s
                (410, 170.0),
            )
        ]
    assert [bool(sentence) for sentence in told] == [False] * 4 + [True, False]
    assert told[4].startswith("waited for data 6% of the last 100 steps. Training could take 8 images/s")


def test_a_bad_file_among_those_to_come_costs_the_advice_and_not_the_run(noise, tmp_path):
    for path in noise.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    _, look = make(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"text")
    look.look(0, 0.0)
    assert "what limits the data path could not be measured" in look.look(100, 1.0)
