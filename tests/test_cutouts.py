"""Cut-outs in place of foregrounds and alphas: the same samples, and a word on what is no cut-out."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc, write_mattes
from PIL import Image
from ranges import make_recipe

from dptmat.config.finetune import FinetuneConfig
from dptmat.data.cutouts import Layer, pair_foregrounds
from dptmat.data.foregrounds import read_foregrounds
from dptmat.data.image_io import has_opacity, read_alpha, read_cutout, read_image
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.pipelines.finetune import FinetuneSource
from dptmat.pipelines.loader import Loader
from dptmat.tasks.finetune import finetune
from dptmat.training import checkpoint
from dptmat.training.quarantine import Quarantine

pytestmark = pytest.mark.usefixtures("freed")


def save_associated(image, path):
    """Write a TIFF file that says that its colours are multiplied by alpha, and multiply them."""
    pixels = np.asarray(image).astype(float)
    pixels[..., :3] *= pixels[..., 3:] / 255
    Image.fromarray(np.round(pixels).astype(np.uint8)).save(path)
    content = bytearray(Path(path).read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    for i in range(struct.unpack_from("<H", content, directory)[0]):
        at = directory + 2 + 12 * i
        if struct.unpack_from("<H", content, at)[0] == 338:  # ExtraSamples: 1 is associated
            struct.pack_into("<H", content, at + 8, 1)
    Path(path).write_bytes(content)


def save_deep(image, path):
    cv2.imwrite(str(path), cv2.cvtColor(np.asarray(image), cv2.COLOR_RGBA2BGRA).astype(np.uint16) * 257)


def save_turned(image, path):
    """Write a PNG file on its side, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def save_transparent_color(image, path):
    colors = np.asarray(image.convert("RGB")).copy()
    colors[np.asarray(image)[..., 3] < 128] = (255, 0, 255)
    Image.fromarray(colors).save(path, transparency=(255, 0, 255))


KINDS = {
    "rgba.png": lambda image, path: image.save(path),
    "deep.png": save_deep,
    "grey.png": lambda image, path: image.convert("LA").save(path),
    "palette.png": lambda image, path: image.quantize(64, method=Image.Quantize.FASTOCTREE).save(path),
    "color.png": save_transparent_color,
    "turned.png": save_turned,
    "lossless.webp": lambda image, path: image.save(path, lossless=True, exact=True),
    "lossy.webp": lambda image, path: image.save(path, quality=80),
    "rgba.tif": lambda image, path: image.save(path, compression="tiff_lzw"),
    "grey.tiff": lambda image, path: image.convert("LA").save(path),
    "multiplied.tif": save_associated,
    "deep.tif": save_deep,
    "rgba.jp2": lambda image, path: image.save(path, irreversible=False),
    "UPPER.PNG": lambda image, path: image.save(path, "PNG"),
}


def cut_out(height, width, seed):
    return Image.fromarray(np.dstack([shades(height, width, seed), soft_disc(height, width)]))


@pytest.fixture
def cutouts(tmp_path):
    """Folder of a cut-out of each kind, of different sizes, one in a subfolder and one of 50 x 50 pixels."""
    (tmp_path / "cutouts/below").mkdir(parents=True)
    for i, (name, save) in enumerate(KINDS.items()):
        save(cut_out(120 + i, 160 - i, i), tmp_path / "cutouts" / name)
    cut_out(50, 50, 9).save(tmp_path / "cutouts/below/small.png")
    return tmp_path / "cutouts"


@pytest.fixture
def split(cutouts, tmp_path):
    """The same as colours and alphas, as Pillow's own functions part them."""
    for path in cutouts.rglob("*.*"):
        with Image.open(path) as opened:
            opened.load()
            turned = opened.transpose(Image.Transpose.ROTATE_270) if opened.getexif().get(0x0112) == 6 else opened
            image = turned.convert("RGBA")
        for folder, part in (("fg", image.convert("RGB")), ("alpha", image.getchannel("A"))):
            file = (tmp_path / folder / path.relative_to(cutouts)).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            part.save(file)
    return tmp_path / "fg", tmp_path / "alpha"


@pytest.fixture
def bg(tmp_path):
    (tmp_path / "bg").mkdir()
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"bg/{i}.png"), shades(150 + 20 * i, 190, 100 + i))
    return tmp_path / "bg"


def renamed(folder):
    """Names of two files that differ in their endings alone cannot be told apart: take these into the names."""
    for path in [path for path in folder.rglob("*.*") if path.is_file()]:
        path.rename(path.with_name(f"{path.stem}-{path.suffix[1:]}{path.suffix}"))


def make_loader(foregrounds, bg, report=lambda *_: None, device="cpu"):
    index = ImageIndex.open(bg)
    sampler = Sampler(5, len(index), 8)
    source = FinetuneSource(foregrounds, index, sampler, make_recipe(), 96)
    quarantine = Quarantine(report)
    loader = Loader(source, sampler, micro_batch=8, device=device, threads=2, prefetch=1, quarantine=quarantine)
    return loader, source, quarantine


def test_each_kind_is_read_as_pillow_parts_it(cutouts, tmp_path):
    for path in cutouts.rglob("*.*"):
        assert has_opacity(path), path
        colors, alpha = read_cutout(path)
        assert colors.shape[:2] == alpha.shape
        assert 0 == alpha.min() < alpha.max() == 255, path
        for is_matte, pixels in ((False, colors), (True, alpha)):
            file = tmp_path / "layer.ppm"
            file.write_bytes(Layer(str(path), is_matte).read(1 << 30))
            read = read_alpha(file) if is_matte else read_image(file)
            assert np.array_equal(read, pixels), path


def test_cut_outs_give_the_same_samples_as_their_colors_and_alphas(cutouts, bg, tmp_path, request, device):
    renamed(cutouts)
    fg, alpha = request.getfixturevalue("split")
    own, empty = read_foregrounds(cutouts)
    parted, _ = read_foregrounds(fg, alpha)
    assert empty == []
    assert len(own) == len(parted) == len(KINDS) + 1
    for a, b in zip(own, parted, strict=True):
        assert (a.height, a.width) == (b.height, b.width)
        assert np.array_equal(a.unknown, b.unknown)
        assert np.array_equal(a.opaque, b.opaque)
    one, other = (make_loader(foregrounds, bg, device=device)[0] for foregrounds in (own, parted))
    for _ in range(4):  # of 15 foregrounds each is shown twice, and as a second one
        for a, b in zip(next(one), next(other), strict=True):
            assert torch.equal(a, b)


def test_a_cut_out_that_breaks_in_a_run_costs_its_own_samples_alone(tmp_path, bg):
    (tmp_path / "cutouts").mkdir()
    for i in range(3):
        cut_out(120, 160, i).save(tmp_path / f"cutouts/{i}.webp", lossless=True)
    foregrounds, _ = read_foregrounds(tmp_path / "cutouts")
    named = []
    loader, source, quarantine = make_loader(foregrounds, bg, lambda path, reason: named.append((path, reason)))
    path = tmp_path / "cutouts/1.webp"
    path.write_bytes(path.read_bytes()[:300])
    for _ in range(2):
        next(loader)
    assert [name for name, _ in named] == [str(path)]
    assert source.count_bad(quarantine.bad)[0] == ("foregrounds", 1, 3)
    assert source.own({str(path): "x", "/elsewhere.png": "y"}) == {str(path): "x"}


def test_what_has_no_alpha_channel_is_named_and_counted(tmp_path):
    for i in range(3):
        cut_out(60, 80, i).save(tmp_path / f"{i}.png")
    cut_out(60, 80, 3).convert("RGB").save(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match=r"1 of 4 files have no alpha channel, .*photo\.jpg; save them as PNG or WebP"):
        read_foregrounds(tmp_path)
    for i in range(3):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(UserError, match=r"`alpha` is missing, and no file of `fg` .* has an alpha channel"):
        read_foregrounds(tmp_path)


@pytest.mark.parametrize(("level", "reason"), [(0, "alpha is empty"), (255, "alpha is opaque")])
def test_what_is_opaque_or_empty_throughout_teaches_nothing_and_is_left_out(tmp_path, level, reason):
    cut_out(60, 80, 0).save(tmp_path / "good.png")
    Image.fromarray(np.dstack([shades(60, 80, 1), np.full((60, 80), level, np.uint8)])).save(tmp_path / "bad.png")
    good, [(path, told)] = read_foregrounds(tmp_path)
    assert [foreground.fg for foreground in good] == [str(tmp_path / "good.png")]
    assert path == tmp_path / "bad.png"
    assert reason in told
    (tmp_path / "good.png").unlink()
    with pytest.raises(UserError, match="`fg` .*: no matte has an unknown pixel"):
        read_foregrounds(tmp_path)


def test_an_alpha_channel_of_0_and_1_and_a_broken_file_are_told_together(tmp_path):
    cut_out(60, 80, 0).save(tmp_path / "good.png")
    cut_out(60, 80, 0).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    Image.fromarray(np.dstack([shades(60, 80, 1), soft_disc(60, 80) // 128])).save(tmp_path / "ones.png")
    with pytest.raises(UserError) as told:
        read_foregrounds(tmp_path)
    lines = sorted(str(told.value).splitlines())
    assert len(lines) == 2
    assert "cut.png cannot be read" in lines[0]
    assert "ones.png has no value above 1 in its alpha channel" in lines[1]


def test_files_of_alpha_win_over_the_channels_and_that_is_said(tmp_path, said):
    fg, alpha = write_mattes(tmp_path, [(60, 80), (60, 90)])
    cut_out(60, 80, 5).save(fg / "0.png")
    (case, _) = pair_foregrounds(fg, alpha)
    assert case.alpha == alpha / "0.png"
    assert "the alpha channels of 1 of 2 files do not count, since `alpha` is given" in said()
    pair_foregrounds(alpha, fg)
    assert said() == ""


def test_a_test_set_is_composed_of_cut_outs_as_of_their_parts(dptmat, cutouts, bg, tmp_path, request):
    renamed(cutouts)
    fg, alpha = request.getfixturevalue("split")
    for name in [path for path in cutouts.rglob("*.*") if path.name > "g"]:  # a few are enough
        name.unlink()
        (fg / name.relative_to(cutouts)).with_suffix(".png").unlink()
        (alpha / name.relative_to(cutouts)).with_suffix(".png").unlink()
    words = ["--bg", bg, "--each", 1]
    status, _, error = dptmat("compose", "--fg", cutouts, *words, "--out", tmp_path / "one")
    assert status == 0, error
    assert "partly transparent" not in error
    assert dptmat("compose", "--fg", fg, "--alpha", alpha, *words, "--out", tmp_path / "two")[0] == 0
    written = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(written) == 8
    for path in written:
        assert np.array_equal(cv2.imread(str(tmp_path / "one" / path)), cv2.imread(str(tmp_path / "two" / path))), path


@pytest.mark.slow
def test_a_run_on_cut_outs_ends_with_the_bits_of_one_on_their_parts_also_resumed(tmp_path, bg):
    for folder in ("cutouts", "fg", "alpha"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        image = cut_out(100 + 10 * i, 120, i)
        image.save(tmp_path / f"cutouts/{i}.png")
        image.convert("RGB").save(tmp_path / f"fg/{i}.png")
        image.getchannel("A").save(tmp_path / f"alpha/{i}.png")
    small = {"size": 64, "batch_size": 2, "model": "unet_resnet10t", "init": "random", "device": "cpu", "save_every": 2}

    def run(name, **options):
        settings = FinetuneConfig(bg=str(bg), out=str(tmp_path / name), steps=4, **small, **options)
        return checkpoint.load(finetune(settings))

    own = run("own", fg=str(tmp_path / "cutouts"))
    parted = run("parted", fg=str(tmp_path / "fg"), alpha=str(tmp_path / "alpha"))
    first = tmp_path / "own/checkpoints/step-000000002.pt"
    resumed = run("resumed", fg=str(tmp_path / "cutouts"), resume=str(first))
    for key, value in own["model"].items():
        assert torch.equal(value, parted["model"][key]), key
        assert torch.equal(value, resumed["model"][key]), key
