"""The matting equation: its value, its gradient, every float dtype, and torch.compile."""

import pytest
import torch

from dptmat.kernels import composite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(dtype=torch.float32, size=(2, 5, 6), seed=0):
    """Draw foreground, background and alpha."""
    n, h, w = size
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.rand(n, c, h, w, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for c in (3, 3, 1)
    )


def plain_composite(fg, bg, alpha):
    out = torch.empty_like(fg)
    for n, c, y, x in torch.cartesian_prod(*map(torch.arange, fg.shape)).tolist():
        a = alpha[n, 0, y, x]
        out[n, c, y, x] = a * fg[n, c, y, x] + (1 - a) * bg[n, c, y, x]
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_plain_loop(dtype):
    fg, bg, alpha = (x.detach() for x in draw(dtype))
    out = composite(fg, bg, alpha)
    assert out.dtype == dtype
    # In the loop float16 and bfloat16 are computed in float32 and rounded once, as composite() promises.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(out, plain_composite(fg.to(wide), bg.to(wide), alpha.to(wide)).to(dtype))


def test_opaque_and_transparent_give_back_the_images():
    fg, bg, _ = draw()
    assert torch.equal(composite(fg, bg, torch.ones(2, 1, 5, 6)), fg)
    assert torch.equal(composite(fg, bg, torch.zeros(2, 1, 5, 6)), bg)


def test_gradient_by_finite_differences():
    assert torch.autograd.gradcheck(composite, draw(torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_equal_to_autograd_of_the_formula(dtype):
    fg, bg, alpha = draw(dtype)
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


FG, BG, ALPHA = (x.detach() for x in draw())
BAD_CALLS = [
    (TypeError, "fg must be a float16, .* got torch.uint8", (FG.byte(), BG, ALPHA)),
    (TypeError, "fg must be a float16, .* got float", (0.5, BG, ALPHA)),
    (TypeError, "bg must be torch.float32, got torch.float64", (FG, BG.double(), ALPHA)),
    (TypeError, "alpha must be torch.float32, got torch.float16", (FG, BG, ALPHA.half())),
    (ValueError, r"fg must have the shape \[any, 3, any, any\], got \[2, 1, 5, 6\]", (FG[:, :1], BG, ALPHA)),
    (ValueError, r"bg must have the shape \[2, 3, 5, 6\], got \[2, 3, 5, 5\]", (FG, BG[..., 1:], ALPHA)),
    (ValueError, r"alpha must have the shape \[2, 1, 5, 6\], got \[2, 3, 5, 6\]", (FG, BG, FG)),
    (ValueError, "fg and bg and alpha must be on one device", (FG, BG.to("meta"), ALPHA)),
]


@pytest.mark.parametrize(("error", "message", "args"), BAD_CALLS)
def test_a_wrong_call_ends_in_a_sentence(error, message, args):
    with pytest.raises(error, match=message):
        composite(*args)
