"""Alphas of files: what the network says, rounded, under the picture's name; nothing lost, nothing hidden."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from options import as_words
from PIL import Image
from profiles import ADOBE, of_colors
from reference.published import randomise
from stand_in import StandIn

from dptmat.data.cases import pair
from dptmat.data.image_io import LEVELS, read_image, write_png
from dptmat.data.trimaps import from_mask
from dptmat.errors import UserError
from dptmat.inference import predict_alpha
from dptmat.models import create_model
from dptmat.tasks.evaluate import evaluate
from dptmat.tasks.predict import cut_out, find_cases, predict, quantize

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def network(monkeypatch):
    """The network that every checkpoint holds for the command."""
    network = StandIn()
    monkeypatch.setattr("dptmat.weights.load.load_network", lambda path, device: (network.to(device), {}))
    return network


@pytest.fixture
def folders(tmp_path):
    """Images and trimaps of three names; all is unknown but for the left column, background."""
    for folder in ("image", "trimap"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate("abc"):
        picture = np.random.default_rng(i).integers(0, 256, (20, 30 + i, 3), np.uint8)
        trimap = np.ones((20, 30 + i), np.uint8)
        trimap[:, 0] = 0
        write_png(tmp_path / f"image/{name}.png", picture)
        write_png(tmp_path / f"trimap/{name}.png", LEVELS[trimap])
    return tmp_path


def given(folder, **options):
    """Words of the command over the folders; an option that is None is left out."""
    words = {"checkpoint": "x.pt", "image": folder / "image", "trimap": folder / "trimap", "out": folder / "out"}
    return as_words(words | options)


def read(path):
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return picture if picture.ndim == 2 else picture[..., [2, 1, 0, 3][: picture.shape[2]]]


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {path: (folder / path).read_bytes() for path in listed(folder)}


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_every_level_stays_itself_and_what_is_between_goes_to_the_nearest(bits, dtype):
    most = 2**bits - 1
    levels = np.arange(most + 1)
    for shift in (-0.49, -0.1, 0, 0.1, 0.49):
        alpha = np.clip((levels + shift) / most, 0, 1).astype(np.float32)
        quantized = quantize(alpha, bits)
        assert quantized.dtype == dtype
        np.testing.assert_array_equal(quantized, levels)


@pytest.mark.slow
def test_the_command_gives_what_the_network_gives(folders, dptmat):
    torch.manual_seed(0)
    network = randomise(create_model("unet_resnet18")).eval()
    config = {"model": "unet_resnet18", "trimap": True}
    torch.save({"model": network.state_dict(), "config": config}, folders / "x.pt")
    before = contents(folders / "image") | contents(folders / "trimap")
    for bits in (None, 16, 8):  # the last run replaces the alphas of the first
        status, printed, error = dptmat("predict", *given(folders, checkpoint=folders / "x.pt", bits=bits))
        assert (status, printed) == (0, f"{folders}/out: 3 alphas, 0 left out\n"), error
        assert listed(folders / "out") == ["a.png", "b.png", "c.png"]
        for name in "abc":
            trimap = (read(folders / f"trimap/{name}.png") > 0).astype(np.uint8)
            expected = predict_alpha(network, read(folders / f"image/{name}.png"), trimap).numpy()
            alpha = read(folders / f"out/{name}.png")
            assert expected.std() > 0.05
            assert alpha.dtype == (np.uint16 if bits == 16 else np.uint8)
            np.testing.assert_array_equal(alpha, np.floor(expected * np.float32(2 ** (bits or 8) - 1) + 0.5))
    assert contents(folders / "image") | contents(folders / "trimap") == before


def test_the_library_yields_each_name(folders, network):
    cases = find_cases(network, folders / "image", folders / "trimap", folders / "out")
    assert [case.name for case in cases] == ["a", "b", "c"]
    assert list(predict(network, cases, folders / "out")) == [("a", None), ("b", None), ("c", None)]
    alpha, picture = read(folders / "out/b.png"), read(folders / "image/b.png")
    assert not alpha[:, 0].any()
    np.testing.assert_array_equal(alpha[:, 1:], picture[:, 1:, 0])


def test_the_library_speaks_of_its_parameters(folders, network, caplog):
    with pytest.raises(UserError, match="^`tile` must be 0 or a multiple of 224"):
        predict(network, [], folders / "out", tile=500)
    with pytest.raises(UserError, match="^`trimap` is missing: this network takes one"):
        find_cases(network, folders / "image", None, folders / "out")
    write_png(folders / "trimap/b.png", np.repeat(np.uint8([[0, 255]]), [11, 20], axis=1).repeat(20, 0))
    cases = find_cases(network, folders / "image", folders / "trimap", folders / "out")
    assert len(list(predict(network, cases, folders / "out"))) == 3
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dptmat.tasks.predict", "WARNING")
    assert record.getMessage().startswith(f"b: {folders}/trimap/b.png leaves nothing unknown; ")


def test_single_files_of_other_names(folders, network, dptmat):
    words = given(folders, image=folders / "image/b.png", trimap=(folders / "trimap/b.png").rename(folders / "t.png"))
    assert dptmat("predict", *words)[0] == 0
    assert listed(folders / "out") == ["b.png"]


def test_masks_are_dilated(folders, network, dptmat):
    mask = np.zeros((20, 31), np.uint8)
    mask[5:15, 5:25] = 128
    write_png(folders / "trimap/b.png", mask)
    words = given(folders, image=folders / "image/b.png", dilate=3)
    assert dptmat("predict", *words)[0] == 0
    expected = np.where(from_mask(mask, 3) == 1, read(folders / "image/b.png")[..., 0], 255 * (mask > 0))
    np.testing.assert_array_equal(read(folders / "out/b.png"), expected)


def test_a_mask_without_dilate_is_told(folders, network, dptmat):
    write_png(folders / "trimap/b.png", np.repeat(np.uint8([[0, 255]]), [11, 20], axis=1).repeat(20, 0))
    status, _, error = dptmat("predict", *given(folders))
    assert status == 0
    assert f"b: {folders}/trimap/b.png leaves nothing unknown; if it is a mask, give --dilate PIXELS\n" in error
    assert error.count("leaves nothing") == 1


@pytest.mark.parametrize(
    ("level", "dilate", "message"),
    [
        (0, 3, "leaves nothing unknown: it is background everywhere, and so is alpha"),
        (255, 3, "leaves nothing unknown: it is foreground everywhere, and so is alpha"),
        (255, None, "leaves nothing unknown: it is foreground everywhere, and so is alpha"),
        ("half", 0, "leaves nothing unknown; raise --dilate"),
    ],
)
def test_a_mask_that_decides_alpha_is_told(folders, network, dptmat, level, dilate, message):
    mask = np.full((20, 31), 255 if level == "half" else level, np.uint8)
    mask[:, :9] = 0 if level == "half" else level
    write_png(folders / "trimap/b.png", mask)
    words = given(folders, image=folders / "image/b.png", trimap=folders / "trimap/b.png", dilate=dilate)
    status, _, error = dptmat("predict", *words)
    assert status == 0
    assert error.strip().splitlines()[0] == f"b: {folders}/trimap/b.png {message}"
    np.testing.assert_array_equal(read(folders / "out/b.png"), mask)


@pytest.mark.parametrize("in_channels", [3, 6])
def test_alpha_is_what_evaluate_scores(folders, in_channels):
    """Known pixels too, whatever the network: but for the rounding of 8 bits, which is cut down for scores."""
    torch.manual_seed(0)
    network = randomise(create_model("mgmatting", in_channels=in_channels)).eval()
    trimap = np.full((20, 30), 128, np.uint8)
    trimap[:, :8], trimap[:, -8:] = 0, 255
    write_png(folders / "trimap/a.png", trimap)
    write_png(folders / "alpha.png", trimap)
    given = {"image": folders / "image/a.png", "trimap": folders / "trimap/a.png"}
    evaluate(pair(**given, alpha=folders / "alpha.png"), network, out=folders / "scored")
    given["trimap"] = given["trimap"] if in_channels > 3 else None
    list(predict(network, find_cases(network, **given, out=folders / "out"), folders / "out"))
    scored, predicted = read(folders / "scored/alpha/a.png"), read(folders / "out/a.png")
    assert np.abs(predicted.astype(int) - scored).max() <= 1
    held = (predicted[trimap == 0] == 0).all() and (predicted[trimap == 255] == 255).all()
    assert held == (in_channels > 3)


def test_a_cutout_is_in_srgb(folders, network):
    Image.open(folders / "image/a.png").save(folders / "image/a.png", icc_profile=of_colors(ADOBE, 2.2))
    cases = find_cases(network, folders / "image/a.png", folders / "trimap/a.png", folders / "out")
    network.compute = lambda x: torch.ones_like(x[:, :1])
    list(predict(network, cases, folders / "out", cutout=True))
    cut = read(folders / "out/cutout/a.png")
    np.testing.assert_array_equal(cut[:, 1:, :3], read_image(folders / "image/a.png")[:, 1:])
    assert np.abs(cut[:, 1:, :3].astype(int) - read(folders / "image/a.png")[:, 1:]).max() > 10


def test_alphas_and_cutouts_of_one_name_are_refused(folders, network, dptmat):
    (folders / "image/cutout").mkdir()
    (folders / "trimap/cutout").mkdir()
    for kind in ("image", "trimap"):
        (folders / kind / "a.png").rename(folders / kind / "cutout/a.png")
    status, _, error = dptmat("predict", *given(folders), "--cutout")
    assert (status, error) == (
        2, "dptmat: --image holds a folder cutout, where --out has the cutouts; rename it, or leave --cutout out\n"
    )  # fmt: skip
    assert dptmat("predict", *given(folders))[0] == 0


def test_a_network_that_takes_the_image_alone(folders, network, dptmat):
    network.in_channels = 3
    status, _, error = dptmat("predict", *given(folders))
    assert (status, error) == (
        2,
        f"dptmat: --trimap {folders}/trimap: this network takes the image alone; leave it out\n",
    )
    assert not (folders / "out").exists()
    assert dptmat("predict", *given(folders, trimap=None))[0] == 0
    np.testing.assert_array_equal(read(folders / "out/a.png"), read(folders / "image/a.png")[..., 0])


def test_bad_files_are_named_and_the_others_predicted(folders, network, dptmat):
    (folders / "image/a.png").write_bytes((folders / "image/a.png").read_bytes()[:200])
    write_png(folders / "trimap/c.png", GREY)
    write_png(folders / "image/d.png", np.dstack([GREY] * 3))
    write_png(folders / "trimap/d.png", LEVELS[np.ones((16, 17), np.uint8)])
    status, printed, error = dptmat("predict", *given(folders))
    assert (status, printed) == (1, f"{folders}/out: 1 alphas, 3 left out\n")
    lines = error.splitlines()
    assert f"left out: a: {folders}/image/a.png cannot be read: it ends before its end" in lines[-3]
    assert f"left out: c: trimap {folders}/trimap/c.png holds 1 (1 pixels), " in lines[-2]
    assert lines[-1] == (
        "left out: d: sizes differ: image 16 x 16, trimap 17 x 16 pixels; make them one width and height"
    )
    assert listed(folders / "out") == ["b.png"]


def test_where_nothing_could_be_predicted_the_status_is_2(folders, network, dptmat):
    (folders / "image/a.png").write_text("text")
    status, printed, error = dptmat("predict", *given(folders, image=folders / "image/a.png"))
    assert (status, printed) == (2, f"{folders}/out: 0 alphas, 1 left out\n")
    assert error.splitlines()[-1] == f"left out: a: {folders}/image/a.png is not an image that can be read: it is text"


def test_an_alpha_that_is_not_finite_is_not_written(folders, network, dptmat):
    network.compute = lambda x: x[:, :1] * torch.nan
    status, _, error = dptmat("predict", *given(folders, image=folders / "image/a.png"))
    assert status == 2
    assert error.splitlines()[-1] == (
        "left out: a: the network's alpha is not finite everywhere; use another checkpoint"
    )
    assert not listed(folders / "out")


def test_smaller_tiles_are_told_with_the_name_and_too_large_an_image_left_out(folders, network, dptmat):
    write_png(folders / "image/b.png", np.zeros((480, 480, 3), np.uint8))
    write_png(folders / "trimap/b.png", LEVELS[np.ones((480, 480), np.uint8)])
    forward = network.forward

    def full(pixels):
        def run(x):
            if x[0, 0].numel() > pixels:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(x)

        return run

    network.forward = full(448**2)
    status, _, error = dptmat("predict", *given(folders))
    assert status == 0
    assert "b: cpu is out of memory; going on in tiles of 448 x 448 pixels\n" in error
    network.forward = full(400**2)
    status, _, error = dptmat("predict", *given(folders))
    assert status == 1
    assert "left out: b: an image of 480 x 480 pixels does not fit into the memory of cpu" in error


def test_an_image_that_is_too_large_for_the_memory_is_left_out(folders, network, dptmat):
    def compute(x):
        if x.shape[3] > 32 or len(network.shown) == 1:
            raise MemoryError
        return x[:, :1]

    network.compute = compute
    status, printed, error = dptmat("predict", *given(folders))
    assert (status, printed) == (1, f"{folders}/out: 2 alphas, 1 left out\n")
    assert error.splitlines()[-1] == (
        "left out: a: the memory does not suffice for an image of this size; make it smaller"
    )


def test_tiles_are_those_that_are_asked_for(folders, network, dptmat):
    write_png(folders / "image/b.png", np.zeros((480, 480, 3), np.uint8))
    write_png(folders / "trimap/b.png", LEVELS[np.ones((480, 480), np.uint8)])
    assert dptmat("predict", *given(folders, image=folders / "image/b.png", tile=448))[0] == 0
    assert sorted(tuple(x.shape[2:]) for x in network.shown) == [(256, 256), (256, 448), (448, 256), (448, 448)]


def test_mixed_precision_is_that_which_is_asked_for(folders, network, dptmat):
    seen = []

    def forward(x):
        seen.append(torch.nn.functional.conv2d(x, x[:1, :, :1, :1]).dtype)
        return {"alpha_os1": x[:, :1].clamp(0, 1)}

    network.forward = forward
    for amp in (None, "off", "auto", "bf16"):
        assert dptmat("predict", *given(folders, image=folders / "image/b.png", amp=amp, device="cpu"))[0] == 0
    assert seen == [torch.float32, torch.float32, torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trimap": None},
            "--trimap is missing: this network takes one; for masks give --trimap MASKS --dilate PIXELS",
        ),
        ({"image": "{}/none"}, "--image {}/none does not exist"),
        ({"image": "{}/empty"}, "--image {}/empty holds no image"),
        ({"trimap": "{}/trimap/a.png"}, "--trimap {}/trimap/a.png has no partner of b, c of --image {}/image"),
        ({"out": "{}/image"}, "{}/image is read and would be written to as well; give another folder as --out"),
        ({"out": "{}/trimap/../trimap"}, "{}/trimap is read and would be written to"),
        ({"out": "{}/link"}, "{}/image is read and would be written to"),
        ({"out": "{}", "image": "{}/cutout"}, "{}/cutout is read and would be written to"),
        ({"out": "{}/image/a.png"}, "--out {}/image/a.png is a file; give the name of a folder"),
        ({"tile": 500}, "--tile must be 0 or a multiple of 224 from 448 pixels, got 500; use 448"),
        ({"tile": -1}, "-1 is not in the range"),
        ({"bits": 12}, "'12' is not one of '8', '16'"),
        ({"dilate": -1}, "-1 is not in the range"),
        ({"amp": "fp16", "device": "cpu"}, "--amp fp16 needs a GPU"),
        ({"device": "cuda"}, "--device cuda: PyTorch sees no GPU"),
        ({"checkpoint": None}, "Missing option '--checkpoint'"),
    ],
)
def test_what_is_refused_before_anything_is_done(folders, network, dptmat, options, message):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (folders / "link").symlink_to(folders / "image")
    (folders / "cutout").mkdir()
    (folders / "empty").mkdir()
    for name in "abc":
        write_png(folders / f"cutout/{name}.png", read(folders / f"image/{name}.png"))
    before = contents(folders)
    options = {key: value if value is None else str(value).format(folders) for key, value in options.items()}
    status, printed, error = dptmat("predict", *given(folders, **options))
    assert (status, printed) == (2, "")
    assert message.replace("{}", str(folders)) in error
    assert error.count("\n") == 1
    assert contents(folders) == before


def ramp(size):
    """An alpha with a soft edge from 1 to 0, float32 [size, size]."""
    alpha = np.clip(np.linspace(1.5, -0.5, size, dtype=np.float32), 0, 1)
    return np.repeat(alpha[None], size, 0)


@pytest.mark.slow
def test_a_cutout_has_the_foregrounds_own_colours(folders, network, dptmat):
    """Over a soft edge the image is a mixture, up to 180 levels off; the estimate is not."""
    red = np.round(ramp(96) * 255).astype(np.uint8)  # what the stand-in for a network sees as alpha
    fg, bg = np.array([255, 30, 40]), np.array([0, 200, 220])
    alpha = red[..., None] / 255
    image = np.round(alpha * fg + (1 - alpha) * bg).astype(np.uint8)
    write_png(folders / "image/a.png", image)
    write_png(folders / "trimap/a.png", LEVELS[np.ones((96, 96), np.uint8)])
    status, _, _ = dptmat("predict", *given(folders, image=folders / "image/a.png", bits=16), "--cutout")
    assert status == 0
    assert listed(folders / "out") == ["a.png", "cutout/a.png"]
    cut = read(folders / "out/cutout/a.png")
    assert cut.shape == (96, 96, 4)
    assert cut.dtype == np.uint8
    np.testing.assert_array_equal(cut[..., 3], red)
    np.testing.assert_array_equal(read(folders / "out/a.png"), red * np.uint16(257))
    soft = (red > 25) & (red < 255)
    assert np.abs(image[soft].astype(int) - fg).max() > 150
    assert np.abs(cut[soft][:, :3].astype(int) - fg).max() <= 6
    assert np.abs(cut[red == 255][:, :3].astype(int) - fg).max() <= 1


@pytest.mark.slow
def test_an_opaque_cutout_is_the_image(folders):
    image = read(folders / "image/a.png")
    cut = cut_out(image, np.ones(image.shape[:2], np.float32))
    np.testing.assert_array_equal(cut[..., :3], image)
    assert (cut[..., 3] == 255).all()


@pytest.mark.slow
def test_opaque_pixels_of_a_cutout_are_those_of_the_image():
    """Beside a hard edge too, over which the estimate of the colours is smooth."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    alpha = (random.random((64, 64)) < 0.5).astype(np.float32)
    alpha[:8] = 0.9985  # written as 255
    cut = cut_out(image, alpha)
    assert set(np.unique(cut[..., 3])) == {0, 255}
    np.testing.assert_array_equal(cut[cut[..., 3] == 255][:, :3], image[cut[..., 3] == 255])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_a_cutout_of_a_few_pixels(shape):
    assert cut_out(np.full((*shape, 3), 77, np.uint8), np.ones(shape, np.float32)).tolist() == (
        np.broadcast_to([77, 77, 77, 255], (*shape, 4)).tolist()
    )


@pytest.mark.slow
def test_pymatting_waits_until_it_is_needed():
    code = "import dptmat.cli, dptmat.tasks.predict, sys; assert 'pymatting' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_alphas(folders):
    torch.manual_seed(0)
    network = randomise(create_model("unet_resnet18")).eval()
    alphas = {}
    for device in ("cpu", "cuda"):
        out = folders / device
        cases = find_cases(network, folders / "image", folders / "trimap", out)
        assert all(reason is None for _, reason in predict(network.to(device), cases, out))
        alphas[device] = np.concatenate([read(out / f"{name}.png").ravel() for name in "abc"]).astype(int)
    assert np.abs(alphas["cuda"] - alphas["cpu"]).mean() < 1  # TF32
