import copy
import gc
import resource
import weakref
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.published import randomise
from stand_in import StandIn
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate
from torch.nn.functional import pad as zero_pad

from dptmat import inference
from dptmat.errors import UserError
from dptmat.fusion import fuse_alphas
from dptmat.inference import pad_by_reflection, predict_alpha, predict_within_memory
from dptmat.models import create_model
from dptmat.models.gca import GCAMatting
from dptmat.models.matteformer import MatteFormer
from dptmat.models.mgmatting import MGMatting
from dptmat.tiles import cut

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def make_picture(height, width, seed=0):
    """A random image, uint8 [H, W, 3], and a trimap of patches with all three values where there is room for them."""
    random = np.random.default_rng(seed)
    trimap = random.integers(0, 3, (-(-height // 11), -(-width // 11)), np.uint8).repeat(11, 0).repeat(11, 1)
    return random.integers(0, 256, (height, width, 3), np.uint8), trimap[:height, :width]


def plain_input(image, trimap):
    """Float32 [1, 6, H, W] as at the head of dptmat.models."""
    rgb = (image.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(np.concatenate([rgb, np.eye(3, dtype=np.float32)[trimap]], 2)).permute(2, 0, 1)[None]


def last_channel(x):
    """Take what the network is told of alpha for alpha."""
    return x[:, -1:]


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return randomise(create_model("unet_resnet18")).eval()


@pytest.mark.parametrize("margin", [0, 32, 100])
@pytest.mark.parametrize("height", [1, 2, 31, 32, 33, 65])
def test_padding_is_that_of_numpy(height, margin):
    picture = np.random.default_rng(0).integers(0, 256, (height, 45, 4), np.uint8)
    padded = pad_by_reflection(torch.from_numpy(picture), margin).numpy()
    assert padded.shape[0] - height - 2 * margin in range(32)
    assert padded.shape[0] % 32 == padded.shape[1] % 32 == 0
    sides = [(margin, padded.shape[i] - picture.shape[i] - margin) for i in (0, 1)]
    np.testing.assert_array_equal(padded, np.pad(picture, [*sides, (0, 0)], mode="reflect"))


def test_a_multiple_of_32_is_not_padded():
    picture = torch.rand(64, 96, 4)
    assert torch.equal(pad_by_reflection(picture), picture)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0, 32])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (37, 53)])
def test_any_size(unet, height, width, margin):
    image, trimap = make_picture(height, width)
    alpha = predict_alpha(unet, image, np.ones_like(trimap), margin=margin)
    assert alpha.shape == (height, width)
    assert alpha.dtype == torch.float32
    assert ((alpha >= 0) & (alpha <= 1)).all()
    sides = [(margin, margin + -(side + 2 * margin) % 32) for side in (height, width)]
    x = plain_input(*(np.pad(a, [*sides, (0, 0)][: a.ndim], "reflect") for a in (image, np.ones_like(trimap))))
    with torch.no_grad():
        expected = fuse_alphas(unet(x))[0, 0, margin : margin + height, margin : margin + width]
    torch.testing.assert_close(alpha, expected, atol=1e-6, rtol=0)  # the input is the same to rounding


def test_a_multiple_of_32_goes_to_the_network_as_it_is(unet):
    image, trimap = make_picture(64, 96)
    with torch.no_grad():
        alphas = unet(plain_input(image, trimap))
    assert alphas["alpha_os1"].std() > 0.01
    expected = fuse_alphas(alphas)[0, 0]
    alpha = predict_alpha(unet, image, trimap, override=False)
    torch.testing.assert_close(alpha, expected, atol=1e-6, rtol=0)
    alpha = predict_alpha(unet, image, trimap)
    assert not alpha[trimap == 0].any()
    assert (alpha[trimap == 2] == 1).all()
    unknown = torch.from_numpy(trimap == 1)
    torch.testing.assert_close(alpha[unknown], expected[unknown], atol=1e-6, rtol=0)


def test_arrays_and_tensors_of_any_layout(unet):
    image, trimap = make_picture(40, 70)
    kept = image.copy(), trimap.copy()
    expected = predict_alpha(unet, image, trimap)
    mirrored = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]  # BGR read from the other side
    trimap.flags.writeable = False
    assert torch.equal(predict_alpha(unet, mirrored, trimap), expected)
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert torch.equal(predict_alpha(unet, planes, torch.from_numpy(trimap.copy())), expected)
    assert np.array_equal(image, kept[0])
    assert np.array_equal(trimap, kept[1])


def test_guidance_of_each_kind():
    image, trimap = make_picture(32, 64)
    for channels, guidance in ((6, [trimap == 0, trimap == 1, trimap == 2]), (4, [trimap == 2]), (3, [])):
        network = StandIn(channels, last_channel)
        predict_alpha(network, image, trimap)
        (x,) = network.shown
        assert x.shape == (1, channels, 32, 64)
        torch.testing.assert_close(x[:, :3], plain_input(image, trimap)[:, :3], atol=1e-6, rtol=0)
        for plane, shown in zip(x[0, 3:], guidance, strict=True):
            assert np.array_equal(plane.numpy(), shown)


def test_no_trimap_means_all_unknown(unet):
    image, trimap = make_picture(32, 64)
    assert torch.equal(predict_alpha(unet, image, None), predict_alpha(unet, image, np.ones_like(trimap)))


def half(self, x):
    """The forward pass of a stand-in for a network: all alphas are 0.5."""
    return dict.fromkeys(["alpha_os1", "alpha_os4", "alpha_os8"], torch.full_like(x[:, :1], 0.5))


@pytest.mark.parametrize(
    ("kind", "channels", "overrides", "side", "largest"),
    [
        (MatteFormer, 6, True, 640, 2016),
        (GCAMatting, 6, True, None, 1568),
        (MGMatting, 6, True, None, 2016),
        (MGMatting, 4, True, None, 2016),
        (MatteFormer, 3, False, 640, 2016),
        (StandIn, 6, True, None, 2016),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_follows_from_the_network(kind, channels, overrides, side, largest, compiled, monkeypatch):
    """MatteFormer is fused at 640 x 640, MG-Matting does not trust the trimap, GCA gets smaller tiles."""
    stand_in = type("StandIn", (kind,), {"forward": half})
    network = stand_in.__new__(stand_in)
    nn.Module.__init__(network)
    network.in_channels = channels
    network.scale = nn.Parameter(torch.ones(1))
    if compiled:
        network = torch.compile(network, backend="eager")
    sides, tiles = [], []
    monkeypatch.setattr(inference, "fuse_alphas", lambda alphas, side: sides.append(side) or alphas["alpha_os1"])
    check = inference._require_options
    monkeypatch.setattr(inference, "_require_options", lambda *args: tiles.append(args[1]) or check(*args))
    image, trimap = make_picture(32, 64)
    alpha = predict_alpha(network, image, trimap).numpy()
    np.testing.assert_array_equal(alpha, trimap / 2 if overrides else np.full(trimap.shape, 0.5))
    assert sides == [side]
    assert tiles == [largest]
    alpha = predict_alpha(network, image, trimap, override=not overrides).numpy()
    np.testing.assert_array_equal(alpha, np.full(trimap.shape, 0.5) if overrides else trimap / 2)


def test_training_mode_is_restored_module_by_module():
    network = StandIn(compute=last_channel).train()
    network.norm.eval()  # frozen
    image, trimap = make_picture(8, 8)
    predict_alpha(network, image, trimap)
    assert network.training
    assert not network.norm.training
    network.norm.train()
    network.compute = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        predict_alpha(network, image, trimap)
    assert network.training
    assert network.norm.training
    network.eval()
    network.compute = last_channel
    predict_alpha(network, image, trimap)
    assert not network.training


def test_training_statistics_are_kept(unet):
    network = copy.deepcopy(unet).train()
    before = copy.deepcopy(network.state_dict())
    image, trimap = make_picture(32, 64)
    assert torch.equal(predict_alpha(network, image, trimap), predict_alpha(unet, image, trimap))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(unet, dtype):
    seen = []

    def compute(x):
        seen.append(conv2d(x, x[:1, :, :1, :1]).dtype)
        return x[:, -1:]

    image, trimap = make_picture(64, 64)
    predict_alpha(StandIn(compute=compute), image, trimap, autocast=dtype)
    with torch.autocast("cpu", torch.bfloat16):  # float32 is what is asked for
        predict_alpha(StandIn(compute=compute), image, trimap)
    assert seen == [dtype, torch.float32]
    alpha, expected = (predict_alpha(unet, image, trimap, autocast=autocast) for autocast in (dtype, None))
    assert alpha.dtype == torch.float32
    # bfloat16 has 8 bits, and about 50 layers follow each other. Few pixels may take another of the three alphas.
    assert (alpha - expected).abs().mean() < 0.02


def in_one_tile(height, width, tile):
    """Where no two tiles overlap, bool [H, W]."""
    counts = []
    for side in (height, width):
        count = np.zeros(side, int)
        for part, _ in cut(side, tile):
            count[part] += 1
        counts.append(count == 1)
    return counts[0][:, None] & counts[1]


def near_sight(x):
    """Look at the trimap as far as 64 pixels away, in whole numbers: sums do not depend on their order."""
    return conv2d(x[:, 4:5] + 2 * x[:, 5:6], torch.ones(1, 1, 9, 9), padding=64, dilation=16) / 162


@pytest.mark.parametrize(("height", "width"), [(512, 1184), (1120, 224), (900, 700)])
@pytest.mark.slow
def test_tiles_equal_the_whole_for_a_network_of_near_sight(height, width):
    image, trimap = make_picture(height, width)
    network = StandIn(compute=near_sight)
    whole = predict_alpha(network, image, trimap, tile=0, override=False)
    assert len(network.shown) == 1
    tiled = predict_alpha(network, image, trimap, tile=448, override=False)
    assert len(network.shown) > 2
    assert whole.std() > 0.05
    alone = torch.from_numpy(in_one_tile(-(-height // 32) * 32, -(-width // 32) * 32, 448)[:height, :width])
    assert alone.any()
    assert torch.equal(tiled[alone], whole[alone])
    # Elsewhere equal numbers are multiplied by rounded weights.
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)


def windows_of_224(x):
    """Average the trimap over windows of 7 x 7 cells at /32, as one level of a Swin would see it."""
    height, width = x.shape[2:]
    x = zero_pad(x[:, 4:5], (0, -width % 224, 0, -height % 224))
    return interpolate(avg_pool2d(x, 224), scale_factor=224)[:, :, :height, :width]


def test_tiles_keep_to_the_windows_of_a_swin():
    image, trimap = make_picture(800, 1184)
    network = StandIn(compute=windows_of_224)
    whole, tiled = (predict_alpha(network, image, trimap, tile=tile, override=False) for tile in (0, 448))
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)


# At random weights. Each bound is three to five times what was seen (a pixel may have taken another of the three
# alphas); along the cut a tile is 0.27 to 0.49 off. So this sees a seam, but trained networks may look further.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"), [("unet_resnet18", 0.002), ("mgmatting", 0.001), ("gca", 0.03), ("matteformer", 0.025)]
)
def test_tiles_come_close_for_the_real_networks(name, bound):
    torch.manual_seed(0)
    network = randomise(create_model(name))
    image, trimap = make_picture(320, 672)
    image = (
        image[::32, ::32].repeat(32, 0).repeat(32, 1)
    )  # flat patches: to attention they look alike, as noise does not
    whole, tiled = (predict_alpha(network, image, trimap, tile=tile, override=False) for tile in (0, 448))
    assert whole.std() > 0.03  # not saturated, or nothing would be compared
    torch.testing.assert_close(tiled, whole, atol=bound, rtol=0)


def test_tiles_go_in_batches_of_one_size():
    image, trimap = make_picture(700, 1000)
    network = StandIn(compute=near_sight)
    one_by_one = predict_alpha(network, image, trimap, tile=448)
    singles = [list(x.shape) for x in network.shown]
    network.shown.clear()
    together = predict_alpha(network, image, trimap, tile=448, tiles_at_once=4)
    batches = [list(x.shape) for x in network.shown]
    assert torch.equal(one_by_one, together)
    assert {shape[0] for shape in singles} == {1}
    assert max(shape[0] for shape in batches) == 4
    assert sorted([1, *shape[1:]] for shape in batches for _ in range(shape[0])) == sorted(singles)
    assert all(shape[2] <= 448 and shape[3] <= 448 for shape in singles)


def test_an_image_is_cut_by_its_area():
    """A long, low image goes in one piece as long as it has no more pixels than a tile."""
    network = StandIn(compute=last_channel)
    for height, width, shapes in (
        (448, 448, [(448, 448)]),
        (64, 3136, [(64, 3136)]),
        (480, 448, [(256, 448), (448, 448)]),
    ):
        network.shown.clear()
        predict_alpha(network, *make_picture(height, width), tile=448)
        assert [tuple(x.shape[2:]) for x in network.shown] == shapes


@pytest.mark.slow
def test_8k_is_seen_in_tiles_only():
    network = StandIn(3, lambda x: x[:, :1].clamp(0, 1))
    shapes = []
    network.register_forward_hook(lambda module, args, result: shapes.append(args[0].shape) or module.shown.clear())
    image = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(4320, 7680, 3)
    alpha = predict_alpha(network, image, None)
    assert alpha.shape == (4320, 7680)
    assert len(shapes) == 3 * 5
    assert all(shape[2] <= 2016 and shape[3] <= 2016 for shape in shapes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.zeros((8, 8, 3), np.float32)}, TypeError, "image must be .* uint8 .* got float32"),
        ({"image": torch.zeros(8, 8, 3)}, TypeError, "image must be .* uint8 .* got torch.float32"),
        ({"image": "photo.jpg"}, TypeError, "image must be .* got str"),
        ({"image": np.zeros((3, 8, 8), np.uint8)}, ValueError, "image must be \\[H, W, 3\\]"),
        ({"image": np.zeros((8, 8), np.uint8)}, ValueError, "image must be \\[H, W, 3\\]"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, ValueError, "image must be \\[H, W, 3\\] with a pixel or more"),
        ({"trimap": np.zeros((8, 8), np.int64)}, TypeError, "trimap must be .* uint8 .* got int64"),
        ({"trimap": np.zeros((8, 9), np.uint8)}, ValueError, "trimap must be .* \\[8, 9\\] for .* \\[8, 8, 3\\]"),
        ({"trimap": np.zeros((8, 8, 1), np.uint8)}, ValueError, "trimap must be .* one channel"),
        ({"trimap": np.full((8, 8), 255, np.uint8)}, ValueError, "got 255; map 0, 128 and 255"),
        ({"margin": -1}, ValueError, "margin must be 0 pixels or more, got -1"),
        ({"tile": 500}, ValueError, "`tile` must be 0 or a multiple of 224 .* got 500; use 448"),
        ({"tile": 224}, ValueError, "`tile` must be 0 or a multiple of 224 from 448 .* got 224; use 448"),
        ({"tile": -448}, ValueError, "`tile` must be 0 or a multiple of 224 from 448 .* got -448"),
        ({"tiles_at_once": 0}, ValueError, "tiles_at_once must be 1 or more, got 0"),
        ({"autocast": torch.float64}, ValueError, "autocast must be .* got torch.float64"),
    ],
)
def test_what_is_refused(change, error, message):
    image, trimap = make_picture(8, 8)
    with pytest.raises(error, match=message) as caught:
        predict_alpha(StandIn(compute=last_channel), **{"image": image, "trimap": trimap, **change})
    assert "\n" not in str(caught.value)


def fits(pixels, error=None):
    """A network that has room for as many pixels; its alpha tells how large the tiles were."""

    def compute(x):
        if x.shape[2] * x.shape[3] > pixels:
            raise error
        return x[:, 4:5] * (x.shape[2] + 2 * x.shape[3]) / 10000

    return StandIn(compute=compute)


@pytest.mark.parametrize(
    ("height", "width", "given", "room", "tiles"),
    [
        (960, 1120, None, 960 * 1120, []),  # all of it fits
        (960, 1120, None, 960 * 1120 - 1, [448]),  # half of sqrt(960 * 1120) = 1037 is less than the least
        (2016, 2016, None, 1008**2, [896]),  # on the grid
        (2016, 2016, 0, 448**2, [896, 448]),  # one that is asked not to cut
        (960, 1120, 672, 448**2, [448]),
        (480, 672, 2016, 448**2, [448]),  # tiles that are larger than the image
        (64, 3360, None, 448**2, [448]),  # the area counts, not the longer side
    ],
)
@pytest.mark.slow
def test_tiles_become_smaller_until_they_fit(height, width, given, room, tiles, caplog):
    image, trimap = make_picture(height, width)
    network = fits(room, torch.OutOfMemoryError("CUDA out of memory."))
    alpha = predict_within_memory(network, image, trimap, tile=given, override=False)
    assert caplog.messages == [f"cpu is out of memory; going on in tiles of {tile} x {tile} pixels" for tile in tiles]
    expected = predict_alpha(fits(inf), image, trimap, tile=(tiles or [given])[-1], override=False)
    assert torch.equal(alpha, expected)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried"
        ),  # Windows
        RuntimeError("could not create a primitive"),  # oneDNN
    ],
)
def test_what_a_lack_of_memory_is_known_by(error, caplog):
    predict_within_memory(fits(448**2, error), *make_picture(480, 480), name="cat")
    assert caplog.messages == ["cat: cpu is out of memory; going on in tiles of 448 x 448 pixels"]


def test_the_default_of_gca_is_where_its_halving_starts(caplog):
    image = np.zeros((2048, 2048, 3), np.uint8)
    for kind, expected in ((GCAMatting, 672), (MGMatting, 896)):  # on the grid, half of 1568 and of 2016

        def fail_once(self, x):
            self.calls += 1
            if self.calls == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return half(self, x)

        stand_in = type("StandIn", (kind,), {"forward": fail_once})
        network = stand_in.__new__(stand_in)
        nn.Module.__init__(network)
        network.in_channels, network.calls, network.scale = 3, 0, nn.Parameter(torch.ones(1))
        caplog.clear()
        predict_within_memory(network, image, None)
        assert caplog.messages == [f"cpu is out of memory; going on in tiles of {expected} x {expected} pixels"]


@pytest.mark.parametrize(
    ("height", "width", "margin", "expected"), [(900, 700, 0, [448]), (448, 448, 0, []), (448, 448, 32, [448])]
)
def test_memory_that_does_not_suffice_for_the_least_tiles(height, width, margin, expected, caplog):
    with pytest.raises(UserError) as caught:
        predict_within_memory(
            fits(0, torch.OutOfMemoryError("CUDA out of memory.")),
            *make_picture(height, width),
            margin=margin,
        )
    assert str(caught.value) == (
        f"an image of {width} x {height} pixels does not fit into the memory of cpu, not even in tiles of 448 x 448; "
        "free some of it, take another device, or make the image smaller"
    )
    assert len(caplog.messages) == len(expected)


def test_what_was_held_is_free_before_the_next_attempt(monkeypatch):
    held, emptied = [], []

    def compute(x):
        assert all(activation() is None for activation in held)
        assert len(emptied) == len(held)
        activation = x.clone()
        held.append(weakref.ref(activation))
        if x.shape[2] > 448:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        emptied.append(None)  # the next tile is no new attempt
        return activation[:, -1:]

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    predict_within_memory(StandIn(compute=compute), *make_picture(1792, 1792))
    assert len(held) > 3


def test_another_error_is_not_taken_for_a_lack_of_memory(caplog):
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), UserError("no")):
        with pytest.raises(type(error), match=str(error)):
            predict_within_memory(fits(0, error), *make_picture(960, 960))
    with pytest.raises(ValueError, match="got 500; use 448"):
        predict_within_memory(StandIn(compute=last_channel), *make_picture(960, 960), tile=500)
    assert not caplog.messages


@pytest.mark.timing
def test_a_cpu_that_is_really_full(caplog):
    """A limit on this process in place of a stub: what the network takes for the whole image is 3.7 GB, for a tile 0.8.

    Nothing writes to it, so that it takes addresses alone; and it is large beside what earlier tests may yet set free.
    """

    def compute(x):
        torch.empty(1000, *x.shape[2:])
        return x[:, 4:5] * 0.5

    network = StandIn(compute=compute)
    image, trimap = make_picture(960, 960)
    expected = predict_alpha(network, image, trimap, tile=448)
    network.shown.clear()
    gc.collect()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000_000, limits[1]))
    try:
        alpha = predict_within_memory(network, image, trimap)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert caplog.messages == ["cpu is out of memory; going on in tiles of 448 x 448 pixels"]
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=0)  # every pixel by itself


@pytest.mark.gpu
@pytest.mark.parametrize("tile", [0, 448])
def test_cuda_equals_cpu(unet, tile):
    image, trimap = make_picture(400, 700)
    on_cuda = predict_alpha(copy.deepcopy(unet).cuda(), image, trimap, tile=tile)
    assert on_cuda.is_cuda
    difference = (on_cuda.cpu() - predict_alpha(unet, image, trimap, tile=tile)).abs()
    assert difference.mean() < 1e-3  # TF32; a few pixels may take another of the three alphas


@pytest.mark.gpu
def test_a_gpu_that_is_really_full(unet, caplog):
    image, trimap = make_picture(1344, 1344)
    network = copy.deepcopy(unet).cuda()
    expected = predict_alpha(network, image, trimap, tile=448)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 500_000_000) / total)
    try:
        alpha = predict_within_memory(network, image, trimap)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert caplog.messages[0] == "cuda:0 is out of memory; going on in tiles of 672 x 672 pixels"
    assert (alpha - expected).abs().mean() < 0.01
