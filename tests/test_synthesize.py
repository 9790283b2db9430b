"""The fused operator: equal to its parts, in every dtype and layout, and the pairing of a batch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.philox import plain_philox

from dptmat.kernels import composite, random_alpha, random_trimap, synthesize

MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
EPS = torch.finfo(torch.float32).eps
NAMES = "input", "alpha", "contrast", "trimap", "pairing"


def draw(samples=3, height=30, width=45):
    """Draw views, ids and colour matrices that clip some pixels at both ends."""
    rng = np.random.default_rng(samples)
    views = torch.from_numpy(rng.integers(0, 256, (samples, height, width, 3), np.uint8))
    color = torch.from_numpy((np.eye(3) + rng.normal(0, 0.3, (samples, 3, 3))).astype(np.float32))
    return views, torch.arange(samples) + 2**40, color


def parts(views, ids, seed, color, mode="pixel"):
    """Compose by the public parts, in float64 but for alpha: input, alpha, contrast, trimap."""
    trimap = random_trimap(ids, seed, views.shape[1:3])
    alpha = random_alpha(trimap, ids, seed, mode)[:, None].double() / 255
    shift = 1 + plain_philox(seed, 4, int(ids[0]), 0)[0] % (len(ids) - 1)
    fg = torch.einsum("nck,nhwk->nchw", color.double(), views.double()).clamp(0, 255) / 255
    bg = fg.roll(-shift, 0)
    one_hot = torch.nn.functional.one_hot(trimap.long(), 3).permute(0, 3, 1, 2).double()
    image = (composite(fg, bg, alpha) - MEAN) / STD
    contrast = ((fg - bg).abs() / STD).sum(1, keepdim=True)
    return torch.cat([image, one_hot], 1), alpha, contrast, trimap[:, None]


@pytest.mark.parametrize("mode", ["pixel", "block"])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_equal_to_its_parts(mode, seed):
    views, ids, color = draw()
    batch = synthesize(views, ids, seed, color, mode=mode)
    image, alpha, contrast, trimap = parts(views, ids, seed, color, mode)
    assert torch.equal(batch.trimap, trimap)
    assert torch.equal(batch.alpha, alpha.float())  # float32 division by 255 is correctly rounded
    # A dozen float32 roundings of numbers up to 255 * 3 / (255 * 0.22), against float64: no bit pattern is expected.
    torch.testing.assert_close(batch.input.double(), image, rtol=8 * EPS, atol=40 * EPS)
    torch.testing.assert_close(batch.contrast.double(), contrast, rtol=8 * EPS, atol=40 * EPS)


def test_order_of_operations_is_the_documented_one():
    views, ids, color = draw()
    batch = synthesize(views, ids, 1, color)
    f32, byte = np.float32, np.float32(1) / np.float32(255)
    scale = [f32(1) / f32(0.229), f32(1) / f32(0.224), f32(1) / f32(0.225)]
    shift = [-f32(0.485) / f32(0.229), -f32(0.456) / f32(0.224), -f32(0.406) / f32(0.225)]

    def fma(x, y, z):  # a product of two float32 is exact in float64
        return f32(np.float64(x) * np.float64(y) + np.float64(z))

    def pixel(i, y, x):
        m, (r, g, b) = color[i].numpy() * byte, views[i, y, x].numpy().astype(f32)
        return [min(max(fma(m[c][2], b, fma(m[c][1], g, m[c][0] * r)), f32(0)), f32(1)) for c in range(3)]

    for n, y, x in zip([0, 1, 2] * 10, range(30), range(5, 35), strict=True):
        f, b, a = pixel(n, y, x), pixel(batch.pairing[n], y, x), f32(batch.alpha[n, 0, y, x].item())
        expected = [fma(fma(a, f[c] - b[c], b[c]), scale[c], shift[c]) for c in range(3)]
        assert batch.input[n, :3, y, x].tolist() == expected
        d = [abs(f[c] - b[c]) for c in range(3)]
        assert batch.contrast[n, 0, y, x].item() == fma(d[2], scale[2], fma(d[1], scale[1], d[0] * scale[0]))


def test_contrast_turns_an_error_of_alpha_into_the_composition_loss():
    views, ids, _ = draw()
    batch = synthesize(views, ids, 0)
    predicted = torch.rand(batch.alpha.shape)
    fg = views.permute(0, 3, 1, 2).float() / 255
    difference = composite(fg, fg[batch.pairing], predicted) - composite(fg, fg[batch.pairing], batch.alpha)
    loss = (difference.abs() / STD).sum(1, keepdim=True)
    torch.testing.assert_close((predicted - batch.alpha).abs() * batch.contrast, loss.float(), rtol=1e-5, atol=40 * EPS)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62), st.integers(2, 40))
def test_no_view_is_composited_over_itself_and_each_is_background_once(seed, first_id, samples):
    views = torch.zeros(samples, 1, 1, 3, dtype=torch.uint8)
    pairing = synthesize(views, torch.arange(samples) + first_id, seed, cell=1).pairing
    assert pairing.dtype == torch.int64
    shift = 1 + plain_philox(seed, 4, first_id, 0)[0] % (samples - 1)
    assert pairing.tolist() == [(i + shift) % samples for i in range(samples)]
    assert (pairing != torch.arange(samples)).all()


def test_no_color_is_the_identity():
    views, ids, _ = draw()
    given, left_out = (synthesize(views, ids, 0, color) for color in (torch.eye(3).repeat(3, 1, 1), None))
    assert torch.equal(given.input, left_out.input)
    assert torch.equal(given.contrast, left_out.contrast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_rounds_once_and_layout_keeps_the_values(dtype, memory_format):
    views, ids, color = draw()
    expected = synthesize(views, ids, 3, color)
    batch = synthesize(views, ids, 3, color, dtype=dtype, memory_format=memory_format)
    for name in ("input", "alpha", "contrast"):
        assert torch.equal(getattr(batch, name), getattr(expected, name).to(dtype))
    assert torch.equal(batch.trimap, expected.trimap)
    assert batch.input.is_contiguous(memory_format=memory_format)
    assert batch.trimap.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_out_is_written_over(dtype, memory_format):
    views, ids, color = draw()
    options = {"dtype": dtype, "memory_format": memory_format}
    out = synthesize(views.flip(0), ids + 5, 8, **options)
    places = [getattr(out, name).data_ptr() for name in NAMES]
    expected = synthesize(views, ids, 3, color, **options)
    assert synthesize(views, ids, 3, color, **options, out=out) is out
    for name, place in zip(NAMES, places, strict=True):
        assert torch.equal(getattr(out, name), getattr(expected, name))
        assert getattr(out, name).data_ptr() == place


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_float32_is_written_where_it_is_to_lie(memory_format, monkeypatch):
    """Without a second pass over memory for the whole batch."""
    views, ids, color = draw()
    out = synthesize(views, ids, 0, color, memory_format=memory_format)
    expected = synthesize(views, ids, 1, color)
    monkeypatch.setattr("dptmat.kernels.synthesize_cpu.empty", None)  # nothing can be allocated
    assert torch.equal(synthesize(views, ids, 1, color, memory_format=memory_format, out=out).input, expected.input)


@pytest.mark.parametrize("name", ["input", "alpha", "contrast"])
def test_who_still_needs_what_is_written_over_is_told(name):
    views, ids, _ = draw()
    out = synthesize(views, ids, 0)
    weight = torch.ones((), requires_grad=True)
    loss = (getattr(out, name) * weight).sum()
    synthesize(views, ids, 1, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_more_samples_than_one_part_and_any_number_of_threads():
    views, ids, color = draw(samples=21, height=9, width=11)
    threads = torch.get_num_threads()
    try:
        batches = []
        for n in (1, 2, 5, 40):
            torch.set_num_threads(n)
            batches.append(synthesize(views, ids, 6, color))
    finally:
        torch.set_num_threads(threads)
    image, alpha, contrast, trimap = parts(views, ids, 6, color)
    torch.testing.assert_close(batches[0].input.double(), image, rtol=8 * EPS, atol=40 * EPS)
    assert torch.equal(batches[0].trimap, trimap)
    for batch in batches[1:]:
        assert all(torch.equal(getattr(batch, name), getattr(batches[0], name)) for name in NAMES)


def test_compiles_as_one_graph():
    views, ids, color = draw(2, 14, 14)

    def loss(views, ids, color):
        batch = synthesize(views, ids, 2**63, color)
        return (batch.input.mean() - batch.alpha).abs() * batch.contrast

    torch.testing.assert_close(
        torch.compile(loss, fullgraph=True, backend="aot_eager")(views, ids, color), loss(views, ids, color)
    )


def test_a_sample_does_not_depend_on_the_rest_of_the_batch():
    views, ids, _ = draw(samples=5)
    whole, part = synthesize(views, ids, 0), synthesize(views[3:], ids[3:], 0)
    assert torch.equal(whole.trimap[3:], part.trimap)
    assert torch.equal(whole.alpha[3:], part.alpha)


def test_inputs_are_left_alone_and_may_be_strided():
    views, ids, color = draw()
    copies = views.clone(), ids.clone(), color.clone()
    strided = synthesize(views.transpose(1, 2).contiguous().transpose(1, 2), ids, 0, color)
    assert torch.equal(strided.input, synthesize(views, ids, 0, color).input)
    assert all(torch.equal(x, y) for x, y in zip((views, ids, color), copies, strict=True))


@pytest.mark.slow
def test_cpu_tensors_never_import_cupy():
    program = """
import sys, torch
from dptmat.kernels import synthesize
synthesize(torch.zeros(2, 9, 9, 3, dtype=torch.uint8), torch.arange(2), 0)
assert "cupy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("channels_last", [False, True])
def test_operator_is_registered_rightly(channels_last):
    views, ids, color = draw(2, 10, 12)
    args = (views, ids, -1, color, 7, 0.75, 0.125, False, torch.bfloat16, channels_last)
    torch.library.opcheck(torch.ops.dptmat.synthesize.default, args)
    torch.library.opcheck(torch.ops.dptmat.synthesize.default, (*args[:3], None, *args[4:]))
    out = torch.ops.dptmat.synthesize(*args)
    torch.library.opcheck(torch.ops.dptmat.synthesize_out.default, (*args[:8], *out))


VIEWS, IDS, COLOR = draw()
BAD_CALLS = [
    (TypeError, "views must be torch.uint8, got torch.float32 .*; decode", {"views": VIEWS.float()}),
    (TypeError, "views must be a torch.uint8 tensor, got ndarray", {"views": VIEWS.numpy()}),
    (ValueError, r"views must have the shape \[3, any, any, 3\], got \[3, 3, 30, 45\]",
     {"views": VIEWS.permute(0, 3, 1, 2)}),
    (ValueError, r"views must have the shape \[2, any, any, 3\]", {"ids": IDS[:2]}),
    (ValueError, "views must hold 2 or more samples, got 1", {"views": VIEWS[:1], "ids": IDS[:1]}),
    (ValueError, "views and ids must be on one device, got views on cpu, ids on meta", {"ids": IDS.to("meta")}),
    (TypeError, "ids must be torch.int64", {"ids": IDS.int()}),
    (ValueError, "ids must be 0 or more", {"ids": -IDS}),
    (TypeError, "color must be torch.float32, got torch.float64", {"color": COLOR.double()}),
    (ValueError, r"color must have the shape \[3, 3, 3\], got \[3, 3, 4\]", {"color": torch.zeros(3, 3, 4)}),
    (ValueError, "views and color must be on one device", {"color": COLOR.to("meta")}),
    (ValueError, "cell must be from 1 to the image's longer side, 45 pixels, got 46", {"cell": 46}),
    (ValueError, "cell must be from 1 to .*, got 0", {"cell": 0}),
    (TypeError, "cell must be an int, got 2.5", {"cell": 2.5}),
    (TypeError, "cell must be an int, got '7'", {"cell": "7"}),
    (ValueError, "unknown must be a share", {"unknown": 1.5}),
    (ValueError, "foreground must be a share .*, got nan", {"foreground": float("nan")}),
    (TypeError, "unknown must be a number, got '0.5'", {"unknown": "0.5"}),
    (ValueError, "must not add up to more than 1", {"unknown": 0.9}),
    (ValueError, "mode must be one of pixel, block", {"mode": "blocks"}),
    (ValueError, "seed must be from 0", {"seed": -1}),
    (TypeError, "dtype must be one of torch.float32, .* got torch.float64", {"dtype": torch.float64}),
    (ValueError, "memory_format must be one of", {"memory_format": torch.preserve_format}),
    (TypeError, "out must be a Batch, got tuple", {"out": ()}),
    (ValueError, "out.input must be torch.float16 .*, got torch.float32",
     {"out": synthesize(VIEWS, IDS, 0), "dtype": torch.float16}),
    (ValueError, r"out.input must be torch.float32 \[3, 6, 30, 45\] on cpu, .* \[2, 6, 30, 45\] on cpu",
     {"out": synthesize(VIEWS[:2], IDS[:2], 0)}),
    (ValueError, "out.input must be .* laid out as torch.channels_last, got .* strides",
     {"out": synthesize(VIEWS, IDS, 0), "memory_format": torch.channels_last}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "bad"), BAD_CALLS)
def test_a_wrong_call_ends_in_a_sentence(error, message, bad):
    with pytest.raises(error, match=message):
        synthesize(**{"views": VIEWS, "ids": IDS, "seed": 0, **bad})
