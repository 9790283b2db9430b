"""The matting equation: its value, its gradient, every dtype, torch.compile and torch.func."""

from fractions import Fraction

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dptmat.kernels import composite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(dtype=torch.float32, size=(2, 5, 6), channels=1):
    """Draw foreground, background and alpha."""
    n, h, w = size
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.rand(n, c, h, w, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for c in (3, 3, channels)
    )


def plain_composite(fg, bg, alpha):
    out = torch.empty_like(fg)
    for n, c, y, x in torch.cartesian_prod(*map(torch.arange, fg.shape)).tolist():
        a = alpha[n, c % alpha.shape[1], y, x]
        out[n, c, y, x] = a * fg[n, c, y, x] + (1 - a) * bg[n, c, y, x]
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_plain_loop(dtype, channels):
    fg, bg, alpha = (x.detach() for x in draw(dtype, channels=channels))
    out = composite(fg, bg, alpha)
    assert out.dtype == dtype
    # In the loop float16 and bfloat16 are computed in float32 and rounded once, as composite() promises.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(out, plain_composite(fg.to(wide), bg.to(wide), alpha.to(wide)).to(dtype))


def test_of_bytes_is_rounded_to_nearest():
    alpha, fg, bg = torch.cartesian_prod(*[torch.tensor([0, 1, 2, 51, 127, 128, 200, 254, 255])] * 3).unbind(1)
    exact = [
        round(Fraction(a * f + (255 - a) * b, 255))
        for a, f, b in zip(alpha.tolist(), fg.tolist(), bg.tolist(), strict=True)
    ]
    fg, bg, alpha = (x.byte().view(1, 1, 27, 27) for x in (fg, bg, alpha))
    out = composite(fg.expand(1, 3, -1, -1), bg.expand(1, 3, -1, -1), alpha)
    assert out.dtype == torch.uint8
    assert out.flatten(2).tolist() == [[exact] * 3]
    assert torch.equal(composite(fg.expand(1, 3, -1, -1), bg.expand(1, 3, -1, -1), alpha.expand(1, 3, -1, -1)), out)


def test_opaque_and_transparent_give_back_the_images():
    fg, bg, _ = draw()
    assert torch.equal(composite(fg, bg, torch.ones(2, 1, 5, 6)), fg)
    assert torch.equal(composite(fg, bg, torch.zeros(2, 1, 5, 6)), bg)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_by_finite_differences(channels):
    assert torch.autograd.gradcheck(composite, draw(torch.float64, channels=channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_equal_to_autograd_of_the_formula(dtype, channels):
    fg, bg, alpha = draw(dtype, channels=channels)
    grad = torch.rand(2, 3, 5, 6, dtype=torch.float64).to(dtype)
    ours = torch.autograd.grad(composite(fg, bg, alpha), (fg, bg, alpha), grad)
    f, b, a = (x.detach().double().requires_grad_() for x in (fg, bg, alpha))
    theirs = torch.autograd.grad(a * f + (1 - a) * b, (f, b, a), grad.double())
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == dtype
        # three products are summed in float32 (float64): 4 units in the last place of the largest, and one rounding
        torch.testing.assert_close(x.double(), y, rtol=torch.finfo(dtype).eps, atol=4 * torch.finfo(x.dtype).eps)


def test_only_alpha_needs_a_gradient():
    fg, bg, alpha = draw()
    composite(fg.detach(), bg.detach(), alpha).sum().backward()
    torch.testing.assert_close(alpha.grad, (fg - bg).sum(1, keepdim=True))
    assert fg.grad is None


def test_a_second_derivative_is_refused():
    fg, bg, alpha = draw()
    (grad,) = torch.autograd.grad(composite(fg, bg, alpha).sum(), alpha, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; write alpha"):
        grad.sum().backward()


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, None, 0), (None, None, 3)])
def test_vmap_is_a_loop_over_the_mapped_dimension(in_dims):
    parts = [draw(size=(2, 5, 6)) for _ in range(3)]
    stacked = [
        parts[0][i].detach()
        if dim is None
        else torch.stack([x[i].detach() * (j + 1) for j, x in enumerate(parts)], dim)
        for i, dim in enumerate(in_dims)
    ]
    single = [
        [x if dim is None else x.select(dim, j) for x, dim in zip(stacked, in_dims, strict=True)] for j in range(3)
    ]
    mapped = torch.func.vmap(composite, in_dims)(*stacked)
    assert torch.equal(mapped, torch.stack([composite(*x) for x in single]))


def test_gradients_of_many_directions_at_once():
    inputs = draw(torch.float64)
    out = composite(*inputs)
    directions = torch.rand(4, *out.shape, dtype=torch.float64)
    batched = torch.autograd.grad(out, inputs, directions, is_grads_batched=True, retain_graph=True)
    for direction, *rows in zip(directions, *batched, strict=True):
        for x, y in zip(rows, torch.autograd.grad(out, inputs, direction, retain_graph=True), strict=True):
            assert torch.equal(x, y)


def test_fake_tensors_have_the_shape_of_the_real_ones():
    with FakeTensorMode() as mode:
        fg, bg, alpha = (mode.from_tensor(x) for x in draw(torch.float16))
        assert composite(fg, bg, alpha).shape == (2, 3, 5, 6)
        assert composite(fg, bg, alpha).dtype == torch.float16
    assert composite(*(x.to("meta") for x in draw())).device.type == "meta"


def test_compiles_as_one_graph():
    def loss(fg, bg, alpha):
        return (composite(fg, bg, alpha) ** 2).mean()

    inputs = draw()
    expected = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for x, y in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        torch.testing.assert_close(x, y)


def test_strided_inputs_and_no_samples():
    fg, bg, alpha = (x.detach() for x in draw())
    strided = composite(fg.to(memory_format=torch.channels_last), bg, alpha.expand(2, 1, 5, 6))
    assert torch.equal(strided, composite(fg, bg, alpha))
    assert strided.is_contiguous()
    assert composite(fg[:0], bg[:0], alpha[:0]).shape == (0, 3, 5, 6)


def test_operators_are_registered_rightly():
    inputs = draw()
    torch.library.opcheck(torch.ops.dptmat.composite.default, inputs)
    detached = [x.detach() for x in (inputs[0], *inputs)]
    torch.library.opcheck(torch.ops.dptmat.composite_backward.default, detached)
    torch.library.opcheck(torch.ops.dptmat.composite.default, [x.mul(255).byte() for x in detached[1:]])


FG, BG, ALPHA = (x.detach() for x in draw())
BAD_CALLS = [
    (TypeError, "fg must be a float16, .* got torch.int64", (FG.long(), BG, ALPHA)),
    (TypeError, "bg must be torch.uint8, got torch.float32", (FG.byte(), BG, ALPHA)),
    (TypeError, "fg must be a float16, .* got float", (0.5, BG, ALPHA)),
    (TypeError, "bg must be torch.float32, got torch.float64", (FG, BG.double(), ALPHA)),
    (TypeError, "alpha must be torch.float32, got torch.float16", (FG, BG, ALPHA.half())),
    (ValueError, r"fg must have the shape \[any, 3, any, any\], got \[2, 1, 5, 6\]", (FG[:, :1], BG, ALPHA)),
    (ValueError, r"bg must have the shape \[2, 3, 5, 6\], got \[2, 3, 5, 5\]", (FG, BG[..., 1:], ALPHA)),
    (ValueError, r"alpha must have the shape \[2, 1, 5, 6\], got \[2, 2, 5, 6\]", (FG, BG, FG[:, :2])),
    (ValueError, r"alpha must have the shape \[2, 1, 5, 6\], got \[5, 6\]", (FG, BG, FG[0, 0])),
    (ValueError, "fg and bg and alpha must be on one device", (FG, BG.to("meta"), ALPHA)),
]


@pytest.mark.parametrize(("error", "message", "args"), BAD_CALLS)
def test_a_wrong_call_ends_in_a_sentence(error, message, args):
    with pytest.raises(error, match=message):
        composite(*args)
