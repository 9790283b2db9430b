"""The DALI graph against an independent decoder and warp, on the device that is there."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from ranges import make_augmentation

from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.pipelines.pretrain import PretrainSource, pretrain_graph
from dptmat.pipelines.read_ahead import Reader

STRAIGHT = np.float32([[1, 0], [0, 1]])


def run_graph(paths, linear=STRAIGHT, size=96, device="cpu"):
    """Views of the photographs, all warped by the same matrix: uint8 [N, size, size, 3]."""
    n = len(paths)
    affine = np.concatenate([linear, linear @ np.full((2, 1), -size / 2, np.float32)], axis=1)

    def feed():
        color = np.zeros((n, 3, 3), np.float32)
        return (
            Reader(2)(paths),
            np.tile(affine, (n, 1, 1)),
            color,
            np.arange(n),
        )

    gpu = device == "cuda"
    pipe = pretrain_graph(feed, size, gpu, 0.65, batch_size=n, num_threads=2, device_id=0 if gpu else None)
    pipe.build()
    return torch.from_dlpack(pipe.run()[0].as_tensor()).cpu().numpy()


def expected_view(path, linear=STRAIGHT, size=96):
    """The same by Pillow's antialiased resize and OpenCV's warp."""
    photo = Image.open(path).convert("RGB")
    scale = size / min(photo.size)
    width, height = round(photo.width * scale), round(photo.height * scale)
    photo = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
    # From pixel indices to positions (half a pixel further), through the matrix about the centres, and back.
    inner = linear @ np.full(2, 0.5 - size / 2) + (width / 2 - 0.5, height / 2 - 0.5)
    matrix = np.concatenate([linear, inner[:, None]], axis=1).astype(np.float64)
    return cv2.warpAffine(
        photo, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


@pytest.mark.parametrize(
    "linear",
    [STRAIGHT, np.float32([[-1, 0], [0, 1]]), np.float32([[0.9, 0.5], [-0.4, 0.8]]), np.float32([[1.25, 0], [0, 0.8]])],
    ids=["straight", "mirrored", "rotated", "scaled"],
)
def test_views_equal_pillow_and_opencv(photographs, linear):
    paths = [str(path) for path in sorted(photographs.iterdir())[::9]]
    difference = np.abs(run_graph(paths, linear).astype(int) - [expected_view(path, linear) for path in paths]).mean()
    # 0.6 levels measured: OpenCV interpolates in steps of 1/32 pixel, and Pillow rounds between its two passes. A shift
    # of half a pixel gives 7, no antialiasing 4.
    assert difference < 1.0


@pytest.mark.gpu
def test_views_of_the_gpu_equal_those_of_the_cpu(photographs):
    paths = [str(path) for path in sorted(photographs.iterdir())]
    turned = np.float32([[0.9, 0.5], [-0.4, 0.8]])
    on_cpu, on_gpu = (run_graph(paths, turned, device=device).astype(int) for device in ("cpu", "cuda"))
    assert np.abs(on_gpu - on_cpu).mean() < 2  # levels: the JPEG decoders differ in chroma upsampling and rounding


def test_what_lies_outside_repeats_the_edge(tmp_path, device):
    cv2.imwrite(str(tmp_path / "white.png"), np.full((60, 90, 3), 255, np.uint8))
    turned = np.float32([[0.7, 0.7], [-0.7, 0.7]]) * 2
    assert (run_graph([str(tmp_path / "white.png")], turned, device=device) == 255).all()


def test_shrinking_does_not_alias(tmp_path, device):
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than a tenth of a pixel of the view: their mean is all that may be seen
    cv2.imwrite(str(tmp_path / "stripes.png"), stripes)
    view = run_graph([str(tmp_path / "stripes.png")], device=device)[0]
    assert np.abs(view[:, 1:-1].astype(int) - 127).max() <= 3  # at the border the filter is cut off


SHADES = np.linspace(10, 240, 120 * 100 * 3).reshape(120, 100, 3).astype(np.uint8)
KINDS = {
    "grey.jpg": lambda p: Image.fromarray(SHADES[..., 0]).save(p),
    "progressive.jpg": lambda p: Image.fromarray(SHADES).save(p, progressive=True),
    "cmyk.jpg": lambda p: Image.fromarray(SHADES).convert("CMYK").save(p),
    "png_named.JPEG": lambda p: Image.fromarray(SHADES).save(p, "PNG"),
    "alpha.png": lambda p: Image.fromarray(np.dstack([SHADES, SHADES[..., :1]])).save(p),
    "palette.png": lambda p: Image.fromarray(SHADES).quantize(64).save(p),
    "sixteen_bit.png": lambda p: cv2.imwrite(str(p), SHADES[..., ::-1].astype(np.uint16) * 257),
    "picture.webp": lambda p: Image.fromarray(SHADES).save(p, lossless=True),
    "one_pixel.png": lambda p: Image.fromarray(SHADES[:1, :1]).save(p),
    "sliver.png": lambda p: Image.fromarray(np.tile(SHADES[:1], (1, 50, 1))).save(p),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_its_colours(tmp_path, name, device):
    KINDS[name](tmp_path / name)
    seen = Image.open(tmp_path / name).convert("RGB") if "sixteen" not in name else Image.fromarray(SHADES)
    mean = np.asarray(seen).reshape(-1, 3).mean(0)
    view = run_graph([str(tmp_path / name)], device=device)[0]
    assert view.shape == (96, 96, 3)
    assert np.abs(view.reshape(-1, 3).mean(0) - mean).max() < 12  # the view is the middle; the shades are even


def test_exif_orientation_is_followed(tmp_path, device):
    picture = Image.fromarray(np.repeat(np.repeat(np.uint8([[[255, 0, 0], [0, 0, 255]]]), 64, 0), 64, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: red comes on top
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    view = run_graph([str(tmp_path / "turned.jpg")], device=device)[0]
    assert view[5, 48, 0] > 200
    assert view[90, 48, 2] > 200


def test_bad_files_of_its_own_are_counted_alone(photographs):
    index = ImageIndex.open(photographs)
    source = PretrainSource(index, Sampler(0, len(index), 8), make_augmentation(), 64)
    foreign = {f"/elsewhere/{i}.jpg": "is damaged" for i in range(100)}
    assert source.count_bad(foreign) == [("photographs", 0, 72)]
    assert source.count_bad({**foreign, index[3]: "is damaged", index[71]: "is damaged"}) == [("photographs", 2, 72)]
    source.require_some(foreign)
    source.require_some({**foreign, **{index[i]: "is damaged" for i in range(71)}})
    with pytest.raises(UserError, match=f"none of the 72 photographs can be decoded, the last one {index[71]}: too"):
        source.require_some({**{index[i]: "too" for i in range(72)}, **foreign})
